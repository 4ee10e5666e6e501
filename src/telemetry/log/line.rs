//! The format of fields in the text log: `sentence name=value name="a value with spaces"`, always
//! on one line.
//!
//! Owns the escaping of everything that is logged. Does not know what is logged.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::text::{BoundedText, is_harmful};

/// The longest value of a field in a line, in bytes.
const MAX_VALUE: usize = 2048;
/// The longest sentence in a line, in bytes. It may hold a problem of the file.
const MAX_MESSAGE: usize = 4096;

/// Whether a field is not logged: the `log` crate's events carry the paths of the machine that
/// built the program.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with("log.")
}

/// How long the value of a field may be.
pub(super) fn limit_of(name: &str) -> usize {
    if name == "message" { MAX_MESSAGE } else { MAX_VALUE }
}

/// Formats fields for the text log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.result = self.result.and_then(|()| self.write(field.name(), value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A buffer, because the whole value decides whether it needs quotes.
        let mut text = BoundedText::new(limit_of(field.name()));
        let formatted = write!(text, "{value:?}");
        let text = text.text;
        self.result = self.result.and(formatted).and_then(|()| self.write(field.name(), &text));
    }
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if is_hidden(name) {
            return Ok(());
        }
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        let whole = value;
        let value = &value[..value.floor_char_boundary(limit_of(name))];
        let end = if value.len() < whole.len() { "…" } else { "" };
        if name == "message" {
            // The sentence itself is not quoted, but it may contain an error's text, and that may
            // contain a client's text.
            escape(&mut self.writer, value, false)?;
            return self.writer.write_str(end);
        }
        write!(self.writer, "{name}=")?;
        if is_plain(value) {
            return write!(self.writer, "{value}{end}");
        }
        self.writer.write_char('"')?;
        escape(&mut self.writer, value, true)?;
        write!(self.writer, "{end}\"")
    }
}

/// Whether a value needs no quotes to be distinguished from what follows it.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value
            .chars()
            .all(|c| !c.is_whitespace() && !matches!(c, '"' | '\\' | '=') && !is_harmful(c))
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
}
