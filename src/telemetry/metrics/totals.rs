//! The counts of all routes together, and what was counted between two moments.
//!
//! Knows neither who asks nor how often.

use super::latency::Latency;
use super::portion::Portion;
use super::row::RowView;
use crate::outcome::Disposition;

/// The counts of all routes, and of requests without a route, since the start or between two
/// moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Requests by disposition, in the order of [`Disposition::ALL`].
    pub requests: [u64; Disposition::ALL.len()],
    /// Responses to clients with a status from 500 to 599.
    pub server_errors: u64,
    /// Durations of requests that were HIT or STALE.
    pub hit: Latency,
    /// Durations at the origin, to the head of its response.
    pub origin: Latency,
    /// Bytes of bodies that came from stored responses.
    pub bytes_from_cache: u64,
    /// Bytes of bodies that came from the origin.
    pub bytes_from_origin: u64,
}

impl TrafficTotals {
    /// Adds the counts of one route.
    pub(super) fn add_row(&mut self, row: &RowView) {
        for (total, disposition) in self.requests.iter_mut().zip(Disposition::ALL) {
            *total += row.count(disposition);
        }
        let [.., server_errors] = row.classes;
        self.server_errors += server_errors;
        self.hit.add(&row.hit);
        self.origin.add(&row.origin);
        self.bytes_from_cache += row.bytes_from_cache;
        self.bytes_from_origin += row.bytes_from_origin;
    }

    /// Adds the counts of another time.
    pub fn add(&mut self, other: &Self) {
        for (total, more) in self.requests.iter_mut().zip(other.requests) {
            *total += more;
        }
        self.server_errors += other.server_errors;
        self.hit.add(&other.hit);
        self.origin.add(&other.origin);
        self.bytes_from_cache += other.bytes_from_cache;
        self.bytes_from_origin += other.bytes_from_origin;
    }

    /// Takes `part` of `whole` out, as if all had come evenly. What is taken and what is left add
    /// up to what there was.
    #[must_use]
    pub fn take(&mut self, part: u64, whole: u64) -> Self {
        let portion = Portion { part, whole };
        let take = |count: &mut u64| {
            let taken = portion.of(*count);
            *count -= taken;
            taken
        };
        Self {
            requests: self.requests.each_mut().map(take),
            server_errors: take(&mut self.server_errors),
            hit: self.hit.take(portion),
            origin: self.origin.take(portion),
            bytes_from_cache: take(&mut self.bytes_from_cache),
            bytes_from_origin: take(&mut self.bytes_from_origin),
        }
    }

    /// What was counted since an earlier moment. An increment that was missing then and now counts
    /// is in the difference; no number is below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: std::array::from_fn(|at| {
                self.requests[at].saturating_sub(earlier.requests[at])
            }),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            hit: self.hit.since(&earlier.hit),
            origin: self.origin.since(&earlier.origin),
            bytes_from_cache: self.bytes_from_cache.saturating_sub(earlier.bytes_from_cache),
            bytes_from_origin: self.bytes_from_origin.saturating_sub(earlier.bytes_from_origin),
        }
    }
}
