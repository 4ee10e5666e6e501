//! Paths as shadow mode remembers and shows them: cut to a length that a stranger cannot exceed,
//! and without characters that do harm where they are shown.

use crate::telemetry::log::printable;

/// The longest path that is remembered, in bytes.
pub const MAX_PATH: usize = 256;

/// The path, cut to [`MAX_PATH`] bytes at the end of a character.
#[must_use]
pub fn remembered(path: &str) -> Box<str> {
    let end = path.floor_char_boundary(MAX_PATH);
    let shown = printable(&path[..end], MAX_PATH);
    shown[..shown.floor_char_boundary(MAX_PATH)].into()
}

/// A finding, cut to a few paths' length: a method, too, is a client's.
#[must_use]
pub fn shown_finding(text: &str) -> String {
    printable(text, 4 * MAX_PATH).into_owned()
}
