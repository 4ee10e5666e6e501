//! Finds the secrets in the text of `proxy.toml`, so that no diagnostic ever shows one. It works on
//! the plain text, because a file with syntax errors contains secrets too.

use std::ops::Range;

const SECRET_WORDS: [&str; 3] = ["password", "secret", "token"];

/// The ranges to print as stars, in order and apart from each other: values of keys that look like secrets, and the user parts of URLs.
#[must_use]
pub fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = keyed(text);
    found.extend(user_parts(text));
    found.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// Values of keys that are named like a secret, or nearly so: a typo in the name must not reveal
/// the value.
fn keyed(text: &str) -> Vec<Range<usize>> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|&&b| is_word(b)).count();
        let end = at + length;
        if is_secret_name(&text[at..end])
            && let Some(value) = value_after(text, end)
        {
            found.push(value);
        }
        at = end;
    }
    found
}

/// Whether a key of this name, or of the name that was probably meant, holds a secret.
fn is_secret_name(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    if word.ends_with("_file") || word.ends_with("-file") {
        return false;
    }
    let contains =
        ["passw", "passphrase", "secret", "token", "pwd"].iter().any(|part| word.contains(part));
    contains
        || (word.len() > 3
            && SECRET_WORDS.iter().any(|secret| strsim::osa_distance(&word, secret) <= 2))
}

/// The value that follows a key, without its quotes. A lone `${NAME}` is not a secret.
fn value_after(text: &str, key_end: usize) -> Option<Range<usize>> {
    let rest = &text[key_end..];
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start_matches([' ', '\t']);
    // A colon separates as in YAML if the key begins its line; elsewhere it is part of a tag such
    // as `token:{id}`.
    let line_start = text[..key_end].rfind('\n').map_or(0, |newline| newline + 1);
    let begins_line = text[line_start..key_end]
        .trim_start()
        .bytes()
        .all(|b| !b.is_ascii_whitespace() && b != b'=');
    let separators: &[char] = if begins_line { &['=', ':'] } else { &['='] };
    let (separated, rest) = match rest.strip_prefix(separators) {
        Some(rest) => (true, rest.trim_start_matches([' ', '\t'])),
        None => (false, rest),
    };
    let start = text.len() - rest.len();
    let line_end = rest.find('\n').unwrap_or(rest.len());
    let (skip, length) =
        if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
            (3, rest[3..].find(quote).unwrap_or(rest.len() - 3))
        } else if rest.starts_with('\'') {
            (1, rest[1..line_end].find('\'').unwrap_or(line_end - 1))
        } else if rest.starts_with('"') {
            (1, end_of_string(&rest[1..line_end]))
        } else if separated && !rest.starts_with('{') && line_end > 0 {
            (0, line_end)
        } else {
            return None;
        };
    let value = start + skip..start + skip + length;
    let is_reference = text[value.clone()]
        .strip_prefix("${")
        .and_then(|inner| inner.strip_suffix('}'))
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    (!is_reference).then_some(value)
}

/// The length of a basic string's content.
fn end_of_string(content: &str) -> usize {
    let mut escaped = false;
    for (at, c) in content.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    content.len()
}

/// `user:password` of every URL. The last `@` ends it: passwords may contain an unencoded `/`, `@`
/// or space.
fn user_parts(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut looked_to = 0;
    text.match_indices("://").filter_map(move |(at, separator)| {
        let start = at + separator.len();
        // A second URL up to the same end has the same last `@`.
        if start <= looked_to {
            return None;
        }
        let line_end = text[start..].find(['\n', '"', '\'']).map_or(text.len(), |end| start + end);
        looked_to = line_end;
        let at_sign = text[start..line_end].rfind('@')?;
        Some(start..start + at_sign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        secrets(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn secrets_are_found_by_name_and_place() {
        assert_eq!(hidden("password = \"hunter2\" # x"), ["hunter2"]);
        assert_eq!(hidden("redis.password='hunter2'"), ["hunter2"]);
        assert_eq!(hidden("pasword = \"hun\\\"ter2\""), ["hun\\\"ter2"]);
        assert_eq!(hidden("\"secret\" = \"\"\"\nhunter2\n\"\"\""), ["\nhunter2\n"]);
        assert_eq!(hidden("token = \"hunter2"), ["hunter2"]);
        assert_eq!(hidden("token: hunter2\nx"), ["hunter2"]);
        assert_eq!(hidden("url = \"redis://user:hun/ter@2@host:1/0\""), ["user:hun/ter@2"]);
        assert!(
            hidden("url = \"redis-sentinel://h?sentinelPassword=hunter2&node=i\"")
                .concat()
                .contains("hunter2")
        );
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        assert!(
            hidden(
                "token = { auth = \"token\" }\ntoken_file = \"/run/token\"\ntags = \
                        [\"token:{id}\"]\npath = \"/a\""
            )
            .is_empty()
        );
        assert!(hidden("token = \"${ADMIN_TOKEN}\"").is_empty());
        assert_eq!(hidden("token = \"${ADMIN_TOKEN:-hunter2}\"").len(), 1);
    }
}
