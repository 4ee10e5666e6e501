//! The lines of an explanation.

use serde::{Deserialize, Serialize};

use crate::outcome::Reason;

/// The name of the line on freshness.
pub(super) const FRESH_FOR: &str = "fresh for";

/// One line of an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainLine {
    /// The subject.
    pub name: String,
    /// The statement.
    pub value: String,
}

#[derive(Default)]
pub(super) struct ExplainLines(pub(super) Vec<ExplainLine>);

impl ExplainLines {
    pub(super) fn line(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(ExplainLine { name: name.into(), value: value.into() });
    }

    /// A reason with its subject, its meaning and its remedy.
    pub(super) fn reason(&mut self, reason: Reason, detail: impl Into<String>) {
        self.line("reason", detail);
        self.line("meaning", reason.meaning());
        if let Some(remedy) = reason.remedy() {
            self.line("remedy", remedy);
        }
    }
}
