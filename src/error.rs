//! Errors that several folders share.

use thiserror::Error;

/// A piece of text from `proxy.toml` that does not have the form it needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct Malformed {
    /// What is wrong with it.
    pub what: String,
    /// How to fix it.
    pub hint: String,
}

impl Malformed {
    /// An error with what is wrong, and how to fix it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// A part of the sidecar could not be set up.
#[derive(Debug, Error)]
#[error("{what}: {why}")]
pub struct SetupError {
    /// What was being set up.
    pub what: String,
    /// Why it failed, and how to fix it.
    pub why: String,
}
