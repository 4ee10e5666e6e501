//! Rust source as text: its code without comments, literals or tests, its words, and where an item
//! ends.
//!
//! No parser. It knows just enough of the tokens to tell code from what is not.

/// The source with comments, strings and characters blanked out; every line and offset stays where
/// it is.
pub fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_text(bytes, at).unwrap_or(at).min(bytes.len());
        blank(&mut code[at..end]);
        at = end.max(at + 1);
    }
    // Only whole tokens were blanked, so this loses nothing.
    String::from_utf8_lossy(&code).into_owned()
}

fn blank(code: &mut [u8]) {
    code.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Where the comment or literal that begins at `at` ends, if one does.
fn end_of_text(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |from: usize, needle: &[u8]| {
        let found = bytes.get(from..)?.windows(needle.len()).position(|window| window == needle);
        Some(found.map_or(bytes.len(), |found| from + found + needle.len()))
    };
    match rest[0] {
        b'/' if rest.starts_with(b"//") => find(at, b"\n"),
        b'/' if rest.starts_with(b"/*") => Some(end_of_block_comment(bytes, at)),
        b'r' if !is_in_word(bytes, at) => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            let closing = [&b"\""[..], &vec![b'#'; hashes]].concat();
            if rest.get(1 + hashes) == Some(&b'"') { find(at + hashes + 2, &closing) } else { None }
        }
        b'"' => Some(end_of_quoted(bytes, at + 1)),
        // A character, or else a lifetime.
        b'\'' if rest.get(1) == Some(&b'\\') => find(at + 3, b"'"),
        b'\'' => {
            // The first byte of a character in UTF-8 tells its length.
            let length = match *rest.get(1)? {
                ..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + length) == Some(&b'\'')).then_some(at + length + 2)
        }
        _ => None,
    }
}

/// Whether the `r` at `at` ends or continues a word, rather than opening a raw string (`r"`, `br"`,
/// `cr"`).
fn is_in_word(bytes: &[u8], at: usize) -> bool {
    let ident =
        |back: usize| at.checked_sub(back).is_some_and(|at| is_ident(char::from(bytes[at])));
    ident(1) && (ident(2) || !matches!(bytes[at - 1], b'b' | b'c'))
}

fn end_of_quoted(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn end_of_block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Code with the items under `#[cfg(test)]` blanked out.
pub fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let end = end_of_item(code, at + "#[cfg(test)]".len()).unwrap_or(code.len());
        blank(&mut bytes[at..end]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the item that begins at `at` ends: after its `;`, or after the brace that closes its body.
pub fn end_of_item(code: &str, at: usize) -> Option<usize> {
    let mut nesting = 0;
    let mut braces = 0;
    for (offset, c) in code[at..].char_indices() {
        match c {
            // `[u8; 32]` and the like are within the signature.
            '(' | '[' => nesting += 1,
            ')' | ']' => nesting -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if (c == '}' && braces == 0) || (c == ';' && braces == 0 && nesting == 0) {
            return Some(at + offset + 1);
        }
    }
    None
}

/// Every place where `word` stands as a word of its own.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let begins = word.starts_with(is_ident);
    let ends = word.ends_with(is_ident);
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back().is_some_and(is_ident);
        let after = text[at + word.len()..].chars().next().is_some_and(is_ident);
        !((begins && before) || (ends && after))
    })
}

pub fn is_ident(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
