//! Recovers from syntax errors that would hide the rest of the file from the TOML parser: an
//! unclosed bracket swallows the following lines, a line without `=` ends parsing. Such a statement
//! is reported here and blanked out, so that the parser sees everything else at its original
//! position.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{DiagnosticBuilder, SourceSpan};

/// A fault in a statement that the parser must not see.
struct SyntaxFault {
    /// The span to point at.
    at: SourceSpan,
    message: &'static str,
    hint: &'static str,
    /// How to repair a header.
    repair: Option<Repair>,
}

/// A repair of a header: the text, its position, and how many bytes it replaces (none, or as many).
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

/// The text for the parser.
pub struct RecoveredText {
    /// Statements that would hide others are blank; headers have all their brackets.
    pub text: String,
    /// One diagnostic for each blanked statement, whose content is lost.
    pub diagnostics: Vec<DiagnosticBuilder>,
    /// One diagnostic for each completed header; nothing is lost.
    pub completed: Vec<DiagnosticBuilder>,
    // The positions of inserted brackets, in the order of the text.
    inserted: Vec<usize>,
    // Where the text begins among those of all files.
    start: usize,
}

impl RecoveredText {
    /// Maps a position in this text to the position in the file.
    fn original(&self, at: usize) -> usize {
        self.start + at - self.inserted.iter().filter(|&&inserted| inserted < at).count()
    }

    /// The same for a span.
    #[must_use]
    pub fn original_span(&self, span: &SourceSpan) -> SourceSpan {
        self.original(span.start)..self.original(span.end)
    }

    /// The tree, with its spans mapped to the file.
    #[must_use]
    pub fn relocate<'i>(&self, table: DeTable<'i>) -> DeTable<'i> {
        if self.inserted.is_empty() && self.start == 0 {
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

/// Removes what would keep the parser from seeing the rest. `start` is where the text begins among
/// those of all files.
#[must_use]
pub fn recover(text: &str, start: usize) -> RecoveredText {
    let mut recovered = RecoveredText {
        text: String::with_capacity(text.len() + 8),
        diagnostics: Vec::new(),
        completed: Vec::new(),
        inserted: Vec::new(),
        start,
    };
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    recovered.text.push_str(&text[..at]);
    while at < text.len() {
        let (end, fault) = statement(text, at);
        match fault {
            None => recovered.text.push_str(&text[at..end]),
            Some(SyntaxFault { at: span, message, hint, repair: Some(repair) }) => {
                recovered.completed.push(fault_at(span, start, message, hint));
                recovered.text.push_str(&text[at..repair.offset]);
                let at = recovered.text.len();
                recovered.inserted.extend(at..at + repair.text.len() - repair.replaces);
                recovered.text.push_str(repair.text);
                recovered.text.push_str(&text[repair.offset + repair.replaces..end]);
            }
            Some(SyntaxFault { at: span, message, hint, repair: None }) => {
                recovered.diagnostics.push(fault_at(span, start, message, hint));
                // Replace byte for byte, so that the following text keeps its position.
                recovered.text.extend(
                    text[at..end]
                        .bytes()
                        .map(|b| if matches!(b, b'\n' | b'\r') { char::from(b) } else { ' ' }),
                );
            }
        }
        at = end;
    }
    recovered
}

fn fault_at(span: SourceSpan, start: usize, message: &str, hint: &str) -> DiagnosticBuilder {
    DiagnosticBuilder::error(start + span.start..start + span.end, message).hint(hint)
}

/// A fault in a header's brackets. The name shows which section is meant, so the header is
/// completed rather than blanked.
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
    let is_list =
        matches!(&inner[..name_end], "routes" | "purges" | "sources" | "notify" | "expect");
    let (place, text, replaces) = match (open, closing) {
        _ if !plausible => return None,
        (2, 1) if !is_list => (begin, " ", 1),
        (1, 2) if !is_list => (header_end - 1, " ", 1),
        (1, 2) => (begin, "[", 0),
        (2, 0) => (header_end, "]]", 0),
        _ => (header_end, "]", 0),
    };
    let hint = "write sections as [name], and lists of sections as [[name]]";
    Some(SyntaxFault {
        at: begin..header_end,
        message: "the brackets of this header do not match",
        hint,
        repair: Some(Repair { offset: place, text, replaces }),
    })
}

/// The end of the statement that starts here, and a fault in its outline, if any.
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
        let hint = "write settings as `key = value`, one per line";
        return (
            next,
            Some(SyntaxFault::new(whole, "this line is not a setting: it has no `=`", hint)),
        );
    };
    if !is_key(content[..equals].trim()) {
        let key = begin..begin + content[..equals].trim_end().len().max(1);
        let hint = "keys consist of letters, digits, `-` and `_`, joined by dots; quote other keys";
        return (next, Some(SyntaxFault::new(key, "this is not a key", hint)));
    }
    value(text, begin + equals + 1)
}

/// Scans a value to the end of the statement.
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

/// Whether a line inside brackets must be the next statement: a header, or, in a list, an
/// assignment.
fn begins_a_statement(line: &str, in_list: bool) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    // The header itself may lack brackets.
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

/// The end of the string that starts here. An unclosed single-line string ends with its line; the
/// parser reports it.
fn string(text: &str, start: usize) -> Option<usize> {
    let rest = &text[start..];
    if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
        let mut from = 3;
        loop {
            let end = from + rest[from..].find(quote)?;
            let escapes = rest[..end].bytes().rev().take_while(|&b| b == b'\\').count();
            if quote == "'''" || escapes % 2 == 0 {
                // Up to two more quotes belong to the end of the string.
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

/// Whether this looks like a key.
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

/// The rest of the line from this position, without the line end.
fn line_at(text: &str, at: usize) -> Range<usize> {
    at..text[at..].find('\n').map_or(text.len(), |newline| at + newline)
}

/// The position after a line's end.
fn after(text: &str, line_end: usize) -> usize {
    (line_end + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> (String, usize) {
        let recovered = recover(text, 0);
        assert_eq!(recovered.text.len(), text.len(), "places stay what they are");
        (
            recovered.text.split_whitespace().collect::<Vec<_>>().join(" "),
            recovered.diagnostics.len(),
        )
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
            let recovered = recover(text, 0);
            assert_eq!(recovered.text, whole);
            let end = recovered.original_span(&(whole.len() - 1..whole.len())).end;
            assert_eq!(end, text.len(), "places are stated as they were");
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
        let text = "# x = [\na = [\n  [1], # ]\n  \"[\", '''\n[q]\n''',\n]\n\"k = \" = { b = \
                    \"}\",\n c = 1 }\n[[d]]\ne.f = \"\"\"x\\\"\"\"\"\"\nö = 1";
        let recovered = recover(text, 0);
        assert_eq!(
            (recovered.text.trim_end(), recovered.diagnostics.len()),
            (text.trim_end_matches("ö = 1").trim_end(), 1),
            "only the last key is wrong"
        );
    }
}
