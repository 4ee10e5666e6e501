//! The state that compiling any part of the file needs.

use std::path::PathBuf;

use super::decode::DefaultValues;
use super::diagnostics::DiagnosticCollector;

/// Collects diagnostics, and resolves relative paths.
pub struct CompileContext {
    /// Collects the diagnostics.
    pub report: DiagnosticCollector,
    /// The folder that paths are relative to.
    pub folder: PathBuf,
    /// Which values of routes come from `[defaults]`.
    pub defaults: DefaultValues,
    /// Whether the file has a `[redis]` whose address is a variable that is unset or empty.
    pub redis_left_out: bool,
}
