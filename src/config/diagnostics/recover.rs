//! Lets the TOML parser see past what it would stumble over: an unclosed bracket swallows the lines
//! after it, a line without `=` ends the reading. Such a statement is reported here and blanked
//! out, so that everything else in the file is still read where it stands.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{DiagnosticBuilder, SourceSpan};

/// What is wrong with a statement that the parser must not see.
struct SyntaxFault {
    /// What to point at.
    at: SourceSpan,
    message: &'static str,
    hint: &'static str,
    /// How a header is set right.
    repair: Option<Repair>,
}

/// A header set right: what to write where, and how many bytes it takes the place of (none, or as
/// many).
#[derive(Clone, Copy)]
struct Repair {
    offset: usize,
    text: &'static str,
    replaces: usize,
}

impl SyntaxFault {
    const fn new(at: SourceSpan, message: &'static str, hint: &'static str) -> Self {
        Self { at, message, hint, repair: None }
    }
}

/// The text that the parser is to see.
pub struct RecoveredText {
    /// Statements that would hide others are blank, headers have all their brackets.
    pub text: String,
    /// A problem for each blanked statement: what it said is lost.
    pub diagnostics: Vec<DiagnosticBuilder>,
    /// A problem for each completed header: nothing is lost.
    pub completed: Vec<DiagnosticBuilder>,
    // Where brackets were put in, in the order of the text.
    inserted: Vec<usize>,
}

impl RecoveredText {
    /// The place in the file of a place in this text.
    fn original(&self, at: usize) -> usize {
        at - self.inserted.iter().filter(|&&inserted| inserted < at).count()
    }

    /// The same for a stretch.
    #[must_use]
    pub fn original_span(&self, span: &SourceSpan) -> SourceSpan {
        self.original(span.start)..self.original(span.end)
    }

    /// A tree whose spans are places in the file.
    #[must_use]
    pub fn relocate<'i>(&self, table: DeTable<'i>) -> DeTable<'i> {
        if self.inserted.is_empty() {
            return table;
        }
        let name = |key: Spanned<Cow<'i, str>>| {
            Spanned::new(self.original_span(&key.span()), key.into_inner())
        };
        table.into_iter().map(|(key, value)| (name(key), self.relocate_value(value))).collect()
    }

    fn relocate_value<'i>(&self, value: Spanned<DeValue<'i>>) -> Spanned<DeValue<'i>> {
        let span = self.original_span(&value.span());
        let value = match value.into_inner() {
            DeValue::Table(table) => DeValue::Table(self.relocate(table)),
            DeValue::Array(array) => DeValue::Array(
                array.into_iter().map(|element| self.relocate_value(element)).collect(),
            ),
            simple => simple,
        };
        Spanned::new(span, value)
    }
}

/// Takes out what the parser would stumble over.
#[must_use]
pub fn recover(text: &str) -> RecoveredText {
    let mut mended = RecoveredText {
        text: String::with_capacity(text.len() + 8),
        diagnostics: Vec::new(),
        completed: Vec::new(),
        inserted: Vec::new(),
    };
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    mended.text.push_str(&text[..at]);
    while at < text.len() {
        let (end, fault) = statement(text, at);
        match fault {
            None => mended.text.push_str(&text[at..end]),
            Some(SyntaxFault { at: span, message, hint, repair: Some(repair) }) => {
                mended.completed.push(DiagnosticBuilder::error(span, message).hint(hint));
                mended.text.push_str(&text[at..repair.offset]);
                let start = mended.text.len();
                mended.inserted.extend(start..start + repair.text.len() - repair.replaces);
                mended.text.push_str(repair.text);
                mended.text.push_str(&text[repair.offset + repair.replaces..end]);
            }
            Some(SyntaxFault { at: span, message, hint, repair: None }) => {
                mended.diagnostics.push(DiagnosticBuilder::error(span, message).hint(hint));
                // Byte for byte, so that what follows keeps its place.
                mended.text.extend(
                    text[at..end]
                        .bytes()
                        .map(|b| if matches!(b, b'\n' | b'\r') { char::from(b) } else { ' ' }),
                );
            }
        }
        at = end;
    }
    mended
}

/// What is wrong with a header's brackets. Its keys are known by its name, so it is completed
/// rather than blanked.
fn header(begin: usize, content: &str) -> Option<SyntaxFault> {
    let open = content.bytes().take_while(|&b| b == b'[').count();
    let inner = &content[open..];
    let name_end = inner
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        .unwrap_or(inner.len());
    let closing = inner[name_end..].bytes().take_while(|&b| b == b']').count();
    let rest = inner[name_end + closing..].trim_start();
    let plausible = is_key(&inner[..name_end])
        && open <= 2
        && closing <= 2
        && open != closing
        && (rest.is_empty() || rest.starts_with('#'));
    let header_end = begin + open + name_end + closing;
    let is_list = matches!(&inner[..name_end], "routes" | "purges");
    let (place, text, replaces) = match (open, closing) {
        _ if !plausible => return None,
        (2, 1) if !is_list => (begin, " ", 1),
        (1, 2) if !is_list => (header_end - 1, " ", 1),
        (1, 2) => (begin, "[", 0),
        (2, 0) => (header_end, "]]", 0),
        _ => (header_end, "]", 0),
    };
    let hint = "sections are written [name], lists of them [[name]]";
    Some(SyntaxFault {
        at: begin..header_end,
        message: "the brackets of this header do not match",
        hint,
        repair: Some(Repair { offset: place, text, replaces }),
    })
}

/// Where the statement that starts here ends, and what is wrong with its outline.
fn statement(text: &str, start: usize) -> (usize, Option<SyntaxFault>) {
    let line = line_at(text, start);
    let content = text[line.clone()].trim_start();
    let next = after(text, line.end);
    let begin = line.end - content.len();
    if content.starts_with('[') {
        return (next, header(begin, content));
    }
    if content.trim_end().is_empty() || content.starts_with('#') {
        return (next, None);
    }
    let whole = begin..begin + content.trim_end().len();
    let Some(equals) = find_equals(content) else {
        let hint = "settings are written `key = value`, one on a line";
        return (
            next,
            Some(SyntaxFault::new(whole, "this line is no setting: it has no `=`", hint)),
        );
    };
    if !is_key(content[..equals].trim()) {
        let key = begin..begin + content[..equals].trim_end().len().max(1);
        let hint = "keys are letters, digits, `-` and `_`, joined by dots; anything else is quoted";
        return (next, Some(SyntaxFault::new(key, "this is not a key", hint)));
    }
    value(text, begin + equals + 1)
}

/// Scans a value to the end of its statement.
fn value(text: &str, start: usize) -> (usize, Option<SyntaxFault>) {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (start, Vec::<usize>::new());
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => {
                let Some(end) = string(text, at) else {
                    let fault = SyntaxFault::new(
                        at..at + 3,
                        "this string is never closed",
                        "close it with the same three quotes",
                    );
                    return (after(text, line_at(text, at).end), Some(fault));
                };
                at = end;
            }
            b'#' => at = line_at(text, at).end,
            b'[' | b'{' => {
                open.push(at);
                at += 1;
            }
            b']' | b'}' => {
                open.pop();
                at += 1;
            }
            b'\n' => {
                at += 1;
                let Some(&bracket) = open.last() else { return (at, None) };
                if begins_a_statement(&text[line_at(text, at)], bytes[bracket] == b'[') {
                    return (at, Some(unclosed(bytes, bracket)));
                }
            }
            _ => at += 1,
        }
    }
    (at, open.last().map(|&bracket| unclosed(bytes, bracket)))
}

fn unclosed(bytes: &[u8], bracket: usize) -> SyntaxFault {
    let (message, hint) = match bytes[bracket] {
        b'[' => ("this list is never closed", "close it with `]`"),
        _ => ("this table is never closed", "close it with `}`"),
    };
    SyntaxFault::new(bracket..bracket + 1, message, hint)
}

/// Whether a line inside a bracket can only be the next statement: a header, or in a list an
/// assignment.
fn begins_a_statement(line: &str, in_list: bool) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    // A header may lack brackets of its own.
    let name =
        line.strip_prefix('[').map(|rest| rest.trim_start_matches('[').trim_end_matches(']'));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && is_key(name)
            && !matches!(name, "true" | "false")
    };
    if name.is_some_and(is_name) {
        return true;
    }
    let key = line.split_once('=').map(|(key, _)| key.trim());
    in_list && key.is_some_and(is_name)
}

/// The end of the string that starts here. A string of one line that is not closed ends with its
/// line: the parser tells that itself.
fn string(text: &str, start: usize) -> Option<usize> {
    let rest = &text[start..];
    if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
        let mut from = 3;
        loop {
            let end = from + rest[from..].find(quote)?;
            let escapes = rest[..end].bytes().rev().take_while(|&b| b == b'\\').count();
            if quote == "'''" || escapes % 2 == 0 {
                // Up to two further quotes belong to the string's end.
                return Some(
                    start
                        + end
                        + rest[end..]
                            .bytes()
                            .take(5)
                            .take_while(|&b| b == quote.as_bytes()[0])
                            .count(),
                );
            }
            from = end + 1;
        }
    }
    let (quote, mut escaped) = (rest.as_bytes()[0], false);
    for (offset, b) in rest.bytes().enumerate().skip(1) {
        match b {
            b'\n' => return Some(start + offset),
            _ if escaped => escaped = false,
            b'\\' if quote == b'"' => escaped = true,
            b if b == quote => return Some(start + offset + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The first `=` outside of quotes and comments.
fn find_equals(line: &str) -> Option<usize> {
    let mut quote = None;
    for (at, b) in line.bytes().enumerate() {
        match (quote, b) {
            (None, b'=') => return Some(at),
            (None, b'#') => return None,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
    }
    None
}

/// Whether this is a key, as far as the outline goes.
fn is_key(key: &str) -> bool {
    let bare = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if key.contains(['"', '\'']) {
        return true;
    }
    key.split('.').all(|part| bare(part.trim()))
}

/// The line that holds this place, from it on, without its line end.
fn line_at(text: &str, at: usize) -> Range<usize> {
    at..text[at..].find('\n').map_or(text.len(), |newline| at + newline)
}

/// The place after a line's end.
fn after(text: &str, line_end: usize) -> usize {
    (line_end + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> (String, usize) {
        let mended = recover(text);
        assert_eq!(mended.text.len(), text.len(), "places stay what they are");
        (mended.text.split_whitespace().collect::<Vec<_>>().join(" "), mended.diagnostics.len())
    }

    #[test]
    fn a_headers_brackets_are_completed() {
        for (text, whole) in [
            ("[a # x\nb = 1", "[a] # x\nb = 1"),
            ("\n[[routes]\nb = 1", "\n[[routes]]\nb = 1"),
            ("[routes]]\n[b", "[[routes]]\n[b]"),
            ("[a]]\n[[b]\n", "[a] \n [b]\n"),
            ("[[a", "[[a]]"),
        ] {
            let mended = recover(text);
            assert_eq!(mended.text, whole);
            let end = mended.original_span(&(whole.len() - 1..whole.len())).end;
            assert_eq!(end, text.len(), "places are told as they were");
        }
        assert_eq!(kept("[a]\n[[b]]\n[c.d] # ]").1, 0);
    }

    #[test]
    fn an_unclosed_bracket_costs_its_own_statement_only() {
        assert_eq!(
            kept("[r]\nk = [\"a\",\n \"b\"\nt = 1\n[[z]]\nq = 2\n"),
            ("[r] t = 1 [[z]] q = 2".into(), 1)
        );
        assert_eq!(kept("k = { a = 1\n[x]\ny = 3"), ("[x] y = 3".into(), 1));
        assert_eq!(kept("k = [ # ]\n"), (String::new(), 1));
    }

    #[test]
    fn lines_that_are_no_settings_cost_themselves_only() {
        assert_eq!(
            kept("path \"/x\"\nb = 1\npath: \"/x\"\nc = 2\n= 3\n"),
            ("b = 1 c = 2".into(), 3)
        );
        assert_eq!(kept("a = \"\"\"\nb = 1\n"), ("b = 1".into(), 1));
    }

    #[test]
    fn sound_text_is_left_alone() {
        let text = "# x = [\na = [\n  [1], # ]\n  \"[\", '''\n[q]\n''',\n]\n\"k = \" = { b = \"}\",\n c = 1 }\n[[d]]\ne.f = \"\"\"x\\\"\"\"\"\"\nö = 1";
        let mended = recover(text);
        assert_eq!(
            (mended.text.trim_end(), mended.diagnostics.len()),
            (text.trim_end_matches("ö = 1").trim_end(), 1),
            "only the last key is wrong"
        );
    }
}
