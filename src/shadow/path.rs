//! Paths as shadow mode remembers them: cut to a length that a stranger cannot exceed.

/// The longest path that is remembered, in bytes.
pub const MAX_PATH: usize = 256;

/// The path, cut to [`MAX_PATH`] bytes at the end of a character.
#[must_use]
pub fn remembered(path: &str) -> Box<str> {
    let end = (0..=MAX_PATH.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
    path[..end.unwrap_or(0)].into()
}
