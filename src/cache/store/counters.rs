//! Counts of what the store does.

use std::sync::Arc;

use crate::telemetry::metrics::Counter;

/// Counts of what the store does.
#[derive(Clone, Debug, Default)]
pub struct StoreCounters {
    /// Entries stored.
    pub stored: Arc<Counter>,
    /// Entries found but refused, because one of their tags was purged.
    pub refused_stale: Arc<Counter>,
    /// Values in Redis that were not valid entries.
    pub decode_errors: Arc<Counter>,
}
