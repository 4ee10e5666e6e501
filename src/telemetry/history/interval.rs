//! What was counted between two readings, and in several such intervals together.

use std::time::Duration;

use super::reading::{HistoryReading, SlotStatus};
use crate::telemetry::metrics::TrafficTotals;

/// What was counted in the time that is covered. The histograms are whole, so that percentiles of
/// several intervals can be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Interval {
    pub(super) covered: Duration,
    pub(super) traffic: TrafficTotals,
    pub(super) evictions: u64,
    pub(super) app_failures: u64,
    /// The latest.
    pub(super) memory_bytes: u64,
    /// The latest.
    pub(super) memory_entries: u64,
    round_trips: Duration,
    round_trip_count: u32,
    /// The worst.
    pub(super) status: SlotStatus,
}

impl Interval {
    pub(super) fn between(
        covered: Duration,
        earlier: &HistoryReading,
        later: &HistoryReading,
    ) -> Self {
        Self {
            covered,
            traffic: later.traffic.since(&earlier.traffic),
            evictions: later.evictions.saturating_sub(earlier.evictions),
            app_failures: later.app_failures.saturating_sub(earlier.app_failures),
            memory_bytes: later.memory_bytes,
            memory_entries: later.memory_entries,
            round_trips: later.redis_round_trip.unwrap_or_default(),
            round_trip_count: u32::from(later.redis_round_trip.is_some()),
            status: later.status,
        }
    }

    /// Takes `part` of `whole` out of the counts and the time, as if all had come evenly. Both
    /// parts have the gauges, the round trip and the status of the reading at the end.
    pub(super) fn take(&mut self, part: u64, whole: u64) -> Self {
        let covered = self.covered.saturating_mul(small(part)) / small(whole).max(1);
        let take = |count: &mut u64| {
            let taken = u128::from(*count) * u128::from(part) / u128::from(whole.max(1));
            let taken = u64::try_from(taken).unwrap_or(u64::MAX).min(*count);
            *count -= taken;
            taken
        };
        self.covered = self.covered.saturating_sub(covered);
        Self {
            covered,
            traffic: self.traffic.take(part, whole),
            evictions: take(&mut self.evictions),
            app_failures: take(&mut self.app_failures),
            ..self.clone()
        }
    }

    /// Adds one that followed.
    pub(super) fn add(&mut self, next: &Self) {
        self.covered += next.covered;
        self.traffic.add(&next.traffic);
        self.evictions += next.evictions;
        self.app_failures += next.app_failures;
        (self.memory_bytes, self.memory_entries) = (next.memory_bytes, next.memory_entries);
        self.round_trips += next.round_trips;
        self.round_trip_count += next.round_trip_count;
        self.status = self.status.max(next.status);
    }

    /// The mean of the round trips to Redis.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trips.checked_div(self.round_trip_count)
    }
}

/// Milliseconds of an interval, which are few.
fn small(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
