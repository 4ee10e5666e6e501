//! Where a rule stands: its line, and its file if that is one which `proxy.toml` includes.

use std::fmt;
use std::sync::Arc;

/// Where a rule stands. Two rules never stand at one place, so that it also tells rules apart: a
/// line alone does not, because two files have the same lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulePlace {
    /// The file, if it is an included one; none for the main file.
    pub file: Option<Arc<str>>,
    /// The line, from 1.
    pub line: usize,
}

impl RulePlace {
    /// A line of the main file.
    #[must_use]
    pub const fn in_main(line: usize) -> Self {
        Self { file: None, line }
    }
}

impl fmt::Display for RulePlace {
    /// `line 5`, or `line 5 of conf.d/a.toml`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match &self.file {
            Some(file) => write!(f, " of {file}"),
            None => Ok(()),
        }
    }
}
