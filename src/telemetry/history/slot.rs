//! What is kept of one step: small numbers, because there are thousands of slots.

use std::time::Duration;

use super::interval::Interval;
use super::reading::SlotStatus;
use crate::clock::millis;
use crate::outcome::Disposition;
use crate::telemetry::metrics::Latency;

/// The least time that a slot must cover to be shown, in milliseconds: a rate over less is noise.
pub(super) const MIN_COVERED_MS: u32 = 1000;

/// The numbers of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistorySlot {
    /// Which step since 1970.
    pub(super) index: u64,
    pub(super) bytes_from_cache: u64,
    pub(super) bytes_from_origin: u64,
    pub(super) memory_bytes: u64,
    pub(super) memory_entries: u64,
    pub(super) requests: [u32; Disposition::ALL.len()],
    /// How much of the step was observed, in milliseconds; 0 where nothing was.
    pub(super) covered_ms: u32,
    pub(super) server_errors: u32,
    pub(super) app_failures: u32,
    pub(super) evictions: u32,
    hit_p50: PackedMs,
    hit_p95: PackedMs,
    origin_p50: PackedMs,
    origin_p95: PackedMs,
    redis: PackedMs,
    pub(super) status: SlotStatus,
}

/// Milliseconds; negative stands for none. Half the size of an `Option<f32>`.
#[derive(Clone, Copy, Debug)]
struct PackedMs(f32);

impl Default for PackedMs {
    fn default() -> Self {
        Self::new(None)
    }
}

impl PackedMs {
    fn new(duration: Option<Duration>) -> Self {
        // To a microsecond: more digits would only make the JSON longer.
        Self(duration.map_or(-1.0, |duration| (duration.as_secs_f32() * 1e6).round() / 1e3))
    }

    fn get(self) -> Option<f32> {
        (self.0 >= 0.0).then_some(self.0)
    }
}

impl HistorySlot {
    pub(super) fn new(index: u64, interval: &Interval) -> Self {
        let traffic = &interval.traffic;
        let of = |latency: &Latency, q| PackedMs::new(latency.quantile(q));
        Self {
            index,
            bytes_from_cache: traffic.bytes_from_cache,
            bytes_from_origin: traffic.bytes_from_origin,
            memory_bytes: interval.memory_bytes,
            memory_entries: interval.memory_entries,
            requests: traffic.requests.map(small),
            covered_ms: small(millis(interval.covered)),
            server_errors: small(traffic.server_errors),
            app_failures: small(interval.app_failures),
            evictions: small(interval.evictions),
            hit_p50: of(&traffic.hit, 0.5),
            hit_p95: of(&traffic.hit, 0.95),
            origin_p50: of(&traffic.origin, 0.5),
            origin_p95: of(&traffic.origin, 0.95),
            redis: PackedMs::new(interval.round_trip()),
            status: interval.status,
        }
    }

    /// Whether enough of the step was observed to be shown.
    pub(super) fn is_shown(&self) -> bool {
        self.covered_ms >= MIN_COVERED_MS
    }

    /// The median of HIT and STALE in milliseconds, and what 95 % did not exceed.
    pub(super) fn hit_ms(&self) -> [Option<f32>; 2] {
        [self.hit_p50.get(), self.hit_p95.get()]
    }

    /// The same of the origin.
    pub(super) fn origin_ms(&self) -> [Option<f32>; 2] {
        [self.origin_p50.get(), self.origin_p95.get()]
    }

    /// The mean round trip to Redis in milliseconds.
    pub(super) fn redis_ms(&self) -> Option<f32> {
        self.redis.get()
    }

    /// How many requests were served from stored responses, of how many that could have been, and
    /// of how many in all.
    pub(super) fn hits(&self) -> (u32, u32, u32) {
        let count = |disposition: Disposition| self.requests[disposition as usize];
        let hits = [Disposition::Hit, Disposition::Stale, Disposition::Revalidated]
            .map(count)
            .into_iter()
            .fold(0, u32::saturating_add);
        let cacheable = hits.saturating_add(count(Disposition::Miss));
        (hits, cacheable, cacheable.saturating_add(count(Disposition::Bypass)))
    }
}

/// A count of one step: more than four thousand million stay at that.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
