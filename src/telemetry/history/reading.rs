//! What the counters and gauges of a process say at one moment.

use std::time::Duration;

use serde::Serialize;

use crate::telemetry::metrics::TrafficTotals;

/// What the counters and gauges of a process say at one moment. Counters count from its start.
#[derive(Clone, Debug, Default)]
pub struct HistoryReading {
    /// Requests, latencies and bytes.
    pub traffic: TrafficTotals,
    /// Entries removed from memory to make room for others.
    pub evictions: u64,
    /// Requests that the origin gave no whole response to.
    pub app_failures: u64,
    /// Bytes of the entries in memory now.
    pub memory_bytes: u64,
    /// Entries in memory now.
    pub memory_entries: u64,
    /// How long Redis takes to reply now; `None` without Redis, and while it is lost.
    pub redis_round_trip: Option<Duration>,
    /// Whether the process can serve now.
    pub status: SlotStatus,
}

/// Whether the process could serve. In order: of two, a slot has the worse one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotStatus {
    /// All was well.
    #[default]
    Ready,
    /// It served, with restrictions.
    Degraded,
    /// It drained.
    Unready,
}
