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
    /// What operators have browsed.
    pub scans: ScanCounters,
}

/// Counts of scans of the memory tier.
#[derive(Clone, Debug, Default)]
pub struct ScanCounters {
    /// Scans begun.
    pub scans: Arc<Counter>,
    /// Entries looked at.
    pub entries: Arc<Counter>,
    /// Scans refused because too many were running.
    pub refused: Arc<Counter>,
    /// Scans that ended early because they took too long.
    pub cut_short: Arc<Counter>,
}
