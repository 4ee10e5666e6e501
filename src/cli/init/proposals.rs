//! What a log or a document has given.

use crate::cli::first_file::FileRule;

/// What a log or a document has given.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// What it was, for the comment that the file begins with.
    pub(super) source: String,
    pub(super) rules: Vec<FileRule>,
    /// Paths without a route, and why.
    pub(super) left_out: Vec<(String, String)>,
    /// Numbers of it, by nouns in the singular.
    pub(super) counts: Vec<(&'static str, u64)>,
}
