//! What the commands print: results to stdout, notes and errors to stderr.

use std::io::Write as _;
use std::process::ExitCode;

use super::exit_codes::{EXIT_FAILED, EXIT_USAGE};
use crate::config;

pub(super) fn print(text: &str) -> ExitCode {
    // Ignore the error: a reader such as `head` may have closed the pipe.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    ExitCode::SUCCESS
}

pub(super) fn print_diagnostics(diagnostics: &config::Diagnostics) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{diagnostics}");
    EXIT_USAGE.into()
}

/// Prints a note to stderr, so that stdout holds only the output.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {text}");
}

pub(super) fn print_failure(error: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "sidecache: {error}");
    EXIT_FAILED.into()
}
