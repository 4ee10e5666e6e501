//! Comments and lists, as they stand in a first file.

use std::fmt::Write as _;

use toml_edit::Value;

use super::super::format::clean_lines;

/// The longest comment, in characters. It is broken into lines.
const MAX_COMMENT: usize = 1000;
/// The width of comments.
const WIDTH: usize = 96;

/// A list of texts.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(texts.into_iter().collect())
}

/// Adds a comment, in lines that fit.
pub(super) fn comment(text: &mut String, words: &str) {
    let short: String = words.chars().take(MAX_COMMENT).collect();
    for line in clean_lines(&short).lines() {
        let mut width = 0;
        text.push('#');
        for word in line.split(' ') {
            let more = word.chars().count() + 1;
            if width + more > WIDTH && width > 0 {
                text.push_str("\n#");
                width = 0;
            }
            let _ = write!(text, " {word}");
            width += more;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}
