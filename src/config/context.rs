//! The state that compiling any part of the file needs.

use std::path::PathBuf;

use super::diagnostics::DiagnosticCollector;

/// Collects diagnostics, and resolves relative paths.
pub struct CompileContext {
    /// Collects the diagnostics.
    pub report: DiagnosticCollector,
    /// The folder that paths are relative to.
    pub folder: PathBuf,
}
