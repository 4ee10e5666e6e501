//! The format of fields in the text log: `sentence name=value name="a value with spaces"`, always
//! on one line.
//!
//! Owns the escaping of everything that is logged. Does not know what is logged.

use std::borrow::Cow;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats fields for the text log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, first: true, value: String::new(), result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    first: bool,
    // A buffer, because the whole value decides whether it needs quotes.
    value: String,
    result: fmt::Result,
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.result = self.result.and_then(|()| self.write(field.name(), value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = std::mem::take(&mut self.value);
        text.clear();
        let formatted = write!(text, "{value:?}");
        self.result = self.result.and(formatted).and_then(|()| self.write(field.name(), &text));
        self.value = text;
    }
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            // The sentence itself is not quoted, but it may contain an error's text, and that may
            // contain a client's text.
            return escape(&mut self.writer, value, false);
        }
        write!(self.writer, "{name}=")?;
        if is_plain(value) {
            return self.writer.write_str(value);
        }
        self.writer.write_char('"')?;
        escape(&mut self.writer, value, true)?;
        self.writer.write_char('"')
    }
}

/// Whether a value needs no quotes to be distinguished from what follows it.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value
            .chars()
            .all(|c| !c.is_whitespace() && !matches!(c, '"' | '\\' | '=') && !is_harmful(c))
}

/// SECURITY: characters that could end a line, move a terminal's cursor, or display text in another
/// order than it is written.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(out: &mut impl Write, value: &str, quoted: bool) -> fmt::Result {
    for c in value.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '"' | '\\' if quoted => write!(out, "\\{c}")?,
            c if is_harmful(c) => write!(out, "\\u{{{:x}}}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

/// A value truncated to `limit` bytes, with control characters beyond ASCII escaped. JSON escapes
/// only those below U+0020, and a terminal would obey the others.
pub(super) fn printable(value: &str, limit: usize) -> Cow<'_, str> {
    let cut = value.floor_char_boundary(limit);
    let needs_escape = |c: char| c >= '\u{7f}' && is_harmful(c);
    if cut == value.len() && !value.chars().any(needs_escape) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(cut + 8);
    for c in value[..cut].chars() {
        // `escape_unicode` writes Rust's syntax: `\u{9b}`.
        if needs_escape(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    if cut < value.len() {
        out.push('…');
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut out = String::new();
        escape(&mut out, value, true).unwrap();
        out
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\nb\r\x1b[2J\u{7f}\u{9b}1m\0"), r"a\nb\r\u{1b}[2J\u{7f}\u{9b}1m\u{0}");
        assert_eq!(escaped("\u{202e}drow\u{2028}"), r"\u{202e}drow\u{2028}");
        assert_eq!(escaped(r#"say "hi" \ "#), r#"say \"hi\" \\ "#);
        assert_eq!(escaped("grüße 東京"), "grüße 東京");
    }

    #[test]
    fn only_plain_values_are_written_without_quotes() {
        assert!(is_plain("/api/v1/campaigns/7"));
        for value in ["", "a b", "a=b", "a\"", "a\\", "a\nb", "\u{9b}"] {
            assert!(!is_plain(value), "{value:?}");
        }
    }

    #[test]
    fn long_values_are_truncated_between_characters() {
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(printable("abcd", 3), "abc…");
        assert_eq!(printable("aé", 2), "a…");
    }

    #[test]
    fn control_characters_beyond_ascii_are_escaped_for_json_too() {
        assert_eq!(printable("a\u{9b}2J\u{7f}", 99), "a\\u{9b}2J\\u{7f}");
    }
}
