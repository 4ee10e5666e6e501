//! What every part of the file is compiled with.

use std::path::PathBuf;

use super::diagnostics::DiagnosticCollector;

/// What compiling any part of the file needs.
pub struct CompileContext {
    /// Where problems go.
    pub report: DiagnosticCollector,
    /// Relative paths start here.
    pub folder: PathBuf,
}
