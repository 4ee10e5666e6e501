//! What is counted of `[identity]`.

use std::sync::Arc;

use super::IdentityFault;
use crate::telemetry::metrics::Counter;

/// Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct IdentityCounters {
    /// Answers that said who the caller is.
    pub known: Arc<Counter>,
    /// Questions without such an answer, by [`IdentityFault`].
    pub faults: [Arc<Counter>; IdentityFault::ALL.len()],
    /// Requests that waited for the answer to another one's question.
    pub joined: Arc<Counter>,
    /// Answers that were forgotten to make room for others.
    pub evicted: Arc<Counter>,
    /// Questions that were not sent, because too many were in flight.
    pub crowded: Arc<Counter>,
    /// Requests that did not wait, because too many waited.
    pub waiters: Arc<Counter>,
}

impl IdentityCounters {
    /// Counts what came of a question.
    pub fn result<T>(&self, result: &Result<T, IdentityFault>) {
        match result {
            Ok(_) => self.known.inc(),
            Err(fault) => self.faults[*fault as usize].inc(),
        }
    }
}
