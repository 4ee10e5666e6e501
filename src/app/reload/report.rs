//! What a reload, or a check of what it would do, says of itself.

use serde::Serialize;

use crate::admin::ReloadReply;
use crate::config::diff::ConfigChange;
use crate::config::{Diagnostic, Diagnostics, Severity};

/// The result of a reload, or of a check of what a reload would do.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// Whether the file is valid.
    pub ok: bool,
    /// How it differs from the rules in force.
    pub changes: Vec<ConfigChange>,
    /// Changed keys that need a restart, as `section.key`.
    pub restart_needed: Vec<String>,
    /// Errors, warnings and notes.
    pub problems: Vec<ReloadNotice>,
    /// The diagnostics as `sidecache check` prints them.
    pub text: String,
}

impl ReloadReport {
    /// The report of a file that is rejected.
    pub(super) fn refused(problems: &Diagnostics) -> Self {
        Self {
            ok: false,
            changes: Vec::new(),
            restart_needed: Vec::new(),
            problems: problems.iter().map(ReloadNotice::from_diagnostic).collect(),
            text: problems.to_string(),
        }
    }

    pub(super) fn reply(&self) -> ReloadReply {
        ReloadReply { ok: self.ok, json: serde_json::to_string(self).unwrap_or_default() }
    }
}

/// A diagnostic of the file, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadNotice {
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// The file; an included one has a name of its own.
    pub file: String,
    /// The line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The message.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl ReloadNotice {
    pub(super) fn from_diagnostic(problem: &Diagnostic) -> Self {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let (message, hint) = (problem.message.clone(), problem.hint.clone());
        let (file, line, column) = (problem.file.to_string(), problem.line, problem.column);
        Self { severity, file, line, column, message, hint }
    }
}
