//! What a receiver of notifications has been told, for operators.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Wall;
use crate::telemetry::metrics::Counter;

/// What a receiver was told.
#[derive(Clone, Debug, Default)]
pub struct NotifyCounters {
    /// Requests that were accepted.
    pub sent: Arc<Counter>,
    /// Tags that were told.
    pub tags: Arc<Counter>,
    /// Times that everything was told.
    pub everything: Arc<Counter>,
    /// Requests that failed, and are sent again.
    pub failures: Arc<Counter>,
    /// Requests that the receiver cannot take as they are: everything is told in their place.
    pub rejected: Arc<Counter>,
}

/// What a receiver has not been told yet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyView {
    /// Its name.
    pub name: Arc<str>,
    /// The word for its kind.
    pub kind: &'static str,
    /// How many tags wait; one for everything.
    pub waiting: usize,
    /// For how long.
    pub waits: Duration,
    /// When a request was accepted last.
    pub sent_at: Option<Wall>,
    /// Why requests fail at present.
    pub why: Option<String>,
    /// How often they have, one after the other.
    pub failures: u32,
}

impl NotifyView {
    /// Why what is purged here may still be served there; `None` if it is not.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let why = self.why.as_deref().filter(|_| self.failures >= MANY_FAILURES)?;
        Some(format!(
            "{} ({}) is not told of purges, and may serve what was purged: {why}; {} wait",
            self.name, self.kind, self.waiting
        ))
    }
}

/// How many failures in a row are told as a degradation.
const MANY_FAILURES: u32 = 3;
