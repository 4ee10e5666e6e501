//! What every part of the file is compiled with.

use std::path::PathBuf;

use super::diagnostics::Report;

/// What compiling any part of the file needs.
pub struct Context {
    /// Where problems go.
    pub report: Report,
    /// Relative paths start here.
    pub folder: PathBuf,
}
