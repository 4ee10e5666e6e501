//! Text that others chose, made fit to be shown: short, and without characters that do something
//! to a terminal, a log viewer, or the order in which text is displayed.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The longest text of a client in a line of its own accord, in bytes: enough to recognise a path.
pub const MAX_CLIENT_TEXT: usize = 256;

/// Text of a client, for the log: truncated.
#[derive(Clone, Copy, Debug)]
pub struct LogText<'a>(pub &'a str);

impl fmt::Display for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = self.0.floor_char_boundary(MAX_CLIENT_TEXT);
        f.write_str(&self.0[..cut])?;
        // What could do harm is escaped when the line is written.
        if cut < self.0.len() { f.write_str("…") } else { Ok(()) }
    }
}

/// SECURITY: characters that could end a line, move a terminal's cursor, be invisible, or display
/// text in another order than it is written; and those that are no characters at all.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // The soft hyphen, the Arabic letter mark, and a separator of the Mongolian script.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero-width characters and directional marks.
            | '\u{200b}'..='\u{200f}'
            // Ends of lines and paragraphs, embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Invisible operators, isolates, deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // The byte order mark, annotations, no characters.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}'
            // Tags.
            | '\u{e0000}'..='\u{e007f}'
        )
        || u32::from(c) & 0xfffe == 0xfffe
}

/// A value truncated to `limit` bytes, with characters that could do harm escaped in Rust's way:
/// `\u{9b}`.
pub fn printable(value: &str, limit: usize) -> Cow<'_, str> {
    let cut = value.floor_char_boundary(limit);
    if cut == value.len() && !value.chars().any(is_harmful) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(cut + 8);
    for c in value[..cut].chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_harmful(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    if cut < value.len() {
        out.push('…');
    }
    Cow::Owned(out)
}

/// A buffer that takes so many bytes and drops the rest, so that nothing is formatted in vain.
pub(super) struct BoundedText {
    pub(super) text: String,
    limit: usize,
}

impl BoundedText {
    pub(super) const fn new(limit: usize) -> Self {
        Self { text: String::new(), limit }
    }
}

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte more than the limit, so that it shows that something was cut off.
        let room = (self.limit + 1).saturating_sub(self.text.len());
        self.text.push_str(&text[..text.ceil_char_boundary(room.min(text.len()))]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_truncated_between_characters() {
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(printable("abcd", 3), "abc…");
        assert_eq!(printable("aé", 2), "a…");
    }

    #[test]
    fn what_could_do_harm_is_escaped_and_the_rest_is_not() {
        assert_eq!(printable("a\u{9b}2J\u{7f}\n\x1b", 99), "a\\u{9b}2J\\u{7f}\\n\\u{1b}");
        for harmful in ['\u{202e}', '\u{2066}', '\u{61c}', '\u{200b}', '\u{feff}', '\u{fdd0}'] {
            assert!(!printable(&harmful.to_string(), 99).contains(harmful), "{harmful:?}");
        }
        for last in ['\u{fffe}', '\u{1ffff}', '\u{10fffe}', '\u{e0041}'] {
            assert!(is_harmful(last), "{last:?}");
        }
        assert!(!"grüße 東京 🎉 العربية".chars().any(is_harmful));
    }

    #[test]
    fn text_of_a_client_is_short() {
        let text = LogText(&"x".repeat(60_000)).to_string();
        assert_eq!(text.len(), MAX_CLIENT_TEXT + '…'.len_utf8());
    }

    #[test]
    fn a_bounded_buffer_drops_what_is_too_much() {
        let mut buffer = BoundedText::new(4);
        for _ in 0..1000 {
            write!(buffer, "éa").expect("it takes anything");
        }
        assert!(buffer.text.len() <= 6, "{}", buffer.text.len());
    }
}
