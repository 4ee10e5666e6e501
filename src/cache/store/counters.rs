//! Counts of what the store does.

use std::sync::Arc;

use crate::telemetry::metrics::Counter;

/// Counts of what the store does.
#[derive(Clone, Debug, Default)]
pub struct StoreCounters {
    /// Entries stored.
    pub stored: Arc<Counter>,
    /// Entries found but refused, because a tag of theirs was purged.
    pub refused_stale: Arc<Counter>,
    /// Bytes in Redis that were no entry.
    pub decode_errors: Arc<Counter>,
}
