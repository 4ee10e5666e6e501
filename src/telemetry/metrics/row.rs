//! All counts of one route: a row of fixed size that many threads increment at once. The position
//! of each number is computed.
//!
//! Knows the closed enums of `outcome` and its own name. Knows neither what a route is nor other
//! rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use http::StatusCode;

use super::counter::{STRIPES, stripe};
use super::latency::{BUCKETS, Latency, bucket, nanos};
use crate::outcome::{Disposition, Reason};

/// What is counted of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord {
    /// What happened to it.
    pub disposition: Disposition,
    /// Why.
    pub reason: Option<Reason>,
    /// The status of its response.
    pub status: StatusCode,
    /// From its head to the head of its response.
    pub duration: Duration,
    /// How long the origin would have taken, if a stored response made a request to it unnecessary.
    pub saved: Option<Duration>,
}

/// Where a response's body came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySource {
    /// A stored response.
    Cache,
    /// The origin, or the sidecar itself in its place.
    Origin,
}

impl BodySource {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Origin => "app",
        }
    }

    /// Where the body of a response of this disposition came from.
    #[must_use]
    pub const fn from_disposition(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Hit | Disposition::Stale | Disposition::Revalidated => Self::Cache,
            Disposition::Miss | Disposition::Bypass => Self::Origin,
        }
    }
}

/// The histogram that a duration is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimedAs {
    /// Served from a stored response.
    Hit,
    /// Fetched from the origin, on a route that caches.
    Miss,
    /// The request bypassed the cache.
    Bypass,
    /// The origin's own time.
    Origin,
}

impl TimedAs {
    const fn from_disposition(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Hit | Disposition::Stale => Self::Hit,
            Disposition::Miss | Disposition::Revalidated => Self::Miss,
            Disposition::Bypass => Self::Bypass,
        }
    }
}

/// The columns of one histogram: its buckets, then the sum in nanoseconds.
const HISTOGRAM: usize = BUCKETS + 1;
/// The classes of statuses, in order.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The columns of one disposition: without a reason, one for each class of statuses, so that a hit
/// increments one number for both; then one for each reason.
const REASONS: usize = CLASSES.len() + Reason::ALL.len();
/// The first column of each kind of number. The numbers that a hit increments come first, so that
/// they lie close together.
const SAVED: usize = 4 * HISTOGRAM;
const BYTES: usize = SAVED + 1;
/// Classes of statuses of requests with a reason.
const STATUSES: usize = BYTES + 2;
const COUNTS: usize = STATUSES + CLASSES.len();
const COLUMNS: usize = COUNTS + Disposition::ALL.len() * REASONS;
/// The distance from one stripe to the next: the columns, and a gap of two cache lines, so that two
/// threads never share a line.
const STRIDE: usize = (COLUMNS + 16).next_multiple_of(16);

/// The counts of one route. About 3 KiB for each stripe; there are at most as many stripes as
/// cores.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    stripes: usize,
    // Ordered by stripe, then by column.
    numbers: Box<[AtomicU64]>,
}

/// A snapshot of the counts of one route.
#[derive(Clone, Debug)]
pub struct RowView {
    /// The route's name; `none` for requests without a route, `other` for routes beyond
    /// [`MAX_ROWS`](super::MAX_ROWS).
    pub name: Arc<str>,
    /// How many requests ended in which disposition, and why. Only counts above 0.
    pub requests: Vec<(Disposition, Option<Reason>, u64)>,
    /// How many responses had a status of each class, from 1xx to 5xx.
    pub classes: [u64; CLASSES.len()],
    /// Durations of requests that were HIT or STALE.
    pub hit: Latency,
    /// Durations of requests that were MISS or REVALIDATED.
    pub miss: Latency,
    /// Durations of requests that bypassed the cache.
    pub bypass: Latency,
    /// Durations at the origin, to the head of its response.
    pub origin: Latency,
    /// Bytes of bodies that came from stored responses.
    pub bytes_from_cache: u64,
    /// Bytes of bodies that came from the origin.
    pub bytes_from_origin: u64,
    /// The time that hits would have taken at the origin.
    pub saved: Duration,
}

impl RowView {
    /// How many requests ended in this disposition.
    #[must_use]
    pub fn count(&self, disposition: Disposition) -> u64 {
        self.requests.iter().filter(|(of, ..)| *of == disposition).map(|(.., count)| count).sum()
    }
}

impl Row {
    pub(super) fn new(name: Arc<str>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_stripes(name, cores.min(STRIPES))
    }

    fn with_stripes(name: Arc<str>, stripes: usize) -> Self {
        Self { name, stripes, numbers: (0..stripes * STRIDE).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts a request.
    #[inline]
    pub(super) fn request(&self, record: &RequestRecord) {
        let lane = self.lane();
        let (first, class) = (COUNTS + record.disposition as usize * REASONS, class(record.status));
        match record.reason {
            None => add(lane, first + class, 1),
            Some(reason) => {
                add(lane, first + CLASSES.len() + reason as usize, 1);
                add(lane, STATUSES + class, 1);
            }
        }
        time(lane, TimedAs::from_disposition(record.disposition), record.duration);
        if let Some(saved) = record.saved {
            add(lane, SAVED, nanos(saved));
        }
    }

    /// Counts a response of the origin.
    #[inline]
    pub(super) fn origin(&self, duration: Duration) {
        time(self.lane(), TimedAs::Origin, duration);
    }

    /// Counts bytes of a response's body.
    #[inline]
    pub(super) fn bytes(&self, source: BodySource, bytes: u64) {
        add(self.lane(), BYTES + source as usize, bytes);
    }

    /// How many requests ended in this disposition.
    pub(super) fn count(&self, disposition: Disposition) -> u64 {
        let first = COUNTS + disposition as usize * REASONS;
        (first..first + REASONS).map(|column| self.sum(column)).sum()
    }

    /// A snapshot.
    pub(super) fn view(&self) -> RowView {
        let first = |disposition: Disposition| COUNTS + disposition as usize * REASONS;
        let mut classes: [u64; CLASSES.len()] =
            std::array::from_fn(|class| self.sum(STATUSES + class));
        let mut requests = Vec::new();
        for disposition in Disposition::ALL {
            let (first, mut plain) = (first(disposition), 0);
            for (class, total) in classes.iter_mut().enumerate() {
                let count = self.sum(first + class);
                (*total, plain) = (total.wrapping_add(count), plain + count);
            }
            let by_reason = Reason::ALL.iter().enumerate().map(|(at, reason)| {
                (disposition, Some(*reason), self.sum(first + CLASSES.len() + at))
            });
            let all = std::iter::once((disposition, None, plain)).chain(by_reason);
            requests.extend(all.filter(|(.., count)| *count > 0));
        }
        RowView {
            name: Arc::clone(&self.name),
            requests,
            classes,
            hit: self.latency(TimedAs::Hit),
            miss: self.latency(TimedAs::Miss),
            bypass: self.latency(TimedAs::Bypass),
            origin: self.latency(TimedAs::Origin),
            bytes_from_cache: self.sum(BYTES + BodySource::Cache as usize),
            bytes_from_origin: self.sum(BYTES + BodySource::Origin as usize),
            saved: Duration::from_nanos(self.sum(SAVED)),
        }
    }

    fn latency(&self, timed: TimedAs) -> Latency {
        let first = timed as usize * HISTOGRAM;
        Latency::new(
            std::array::from_fn(|at| self.sum(first + at)),
            Duration::from_nanos(self.sum(first + BUCKETS)),
        )
    }

    fn sum(&self, column: usize) -> u64 {
        (0..self.stripes).fold(0, |sum: u64, stripe| {
            sum.wrapping_add(self.numbers[stripe * STRIDE + column].load(Ordering::Relaxed))
        })
    }

    /// The stripe that the calling thread counts in.
    #[inline]
    fn lane(&self) -> &[AtomicU64] {
        let first = stripe() % self.stripes * STRIDE;
        &self.numbers[first..first + COLUMNS]
    }
}

/// The position of a status in [`CLASSES`]. None is outside: the sidecar answers nothing else.
#[inline]
fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

#[inline]
fn add(lane: &[AtomicU64], column: usize, n: u64) {
    lane[column].fetch_add(n, Ordering::Relaxed);
}

#[inline]
fn time(lane: &[AtomicU64], timed: TimedAs, duration: Duration) {
    let (first, nanos) = (timed as usize * HISTOGRAM, nanos(duration));
    add(lane, first + bucket(nanos), 1);
    add(lane, first + BUCKETS, nanos);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stripes: usize) -> Row {
        Row::with_stripes("/a".into(), stripes)
    }

    fn record(disposition: Disposition, reason: Option<Reason>) -> RequestRecord {
        let (status, duration) = (StatusCode::OK, Duration::from_micros(10));
        RequestRecord { disposition, reason, status, duration, saved: None }
    }

    #[test]
    fn discriminants_are_positions_in_all() {
        // `request` uses the discriminant, `view` the position.
        assert!(
            Disposition::ALL
                .iter()
                .enumerate()
                .all(|(at, disposition)| *disposition as usize == at)
        );
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }

    #[test]
    fn every_combination_has_a_column_of_its_own() {
        let row = row(2);
        let reasons = || std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some));
        let all: Vec<_> = Disposition::ALL
            .into_iter()
            .flat_map(|disposition| reasons().map(move |reason| (disposition, reason)))
            .collect();
        for (times, (disposition, reason)) in all.iter().enumerate() {
            for _ in 0..=times {
                row.request(&record(*disposition, *reason));
            }
        }
        let expected: Vec<_> = (1..)
            .zip(all)
            .map(|(times, (disposition, reason))| (disposition, reason, times))
            .collect();
        let view = row.view();
        assert_eq!(view.requests, expected);
        assert_eq!(view.count(Disposition::Stale), row.count(Disposition::Stale));
        assert_eq!(
            (view.saved, view.bytes_from_cache, view.bytes_from_origin, view.origin.count()),
            (Duration::ZERO, 0, 0, 0)
        );
    }

    #[test]
    fn every_response_has_a_class_with_a_reason_or_without() {
        let row = row(2);
        for (status, times) in [(101, 1), (204, 2), (304, 3), (404, 4), (599, 5), (999, 6)] {
            for reason in [None, Some(Reason::NoRoute)] {
                let status = StatusCode::from_u16(status).unwrap();
                for _ in 0..times {
                    row.request(&RequestRecord { status, ..record(Disposition::Bypass, reason) });
                }
            }
        }
        let view = row.view();
        assert_eq!(view.classes, [2, 4, 6, 8, 22]);
        let by_reason = |reason| (Disposition::Bypass, reason, 21);
        assert_eq!(view.requests, [by_reason(None), by_reason(Some(Reason::NoRoute))]);
    }

    #[test]
    fn durations_are_counted_by_disposition() {
        let row = row(1);
        for (ms, disposition) in (1..).zip(Disposition::ALL) {
            row.request(&RequestRecord {
                duration: Duration::from_millis(ms),
                ..record(disposition, None)
            });
        }
        row.origin(Duration::from_secs(20));
        let view = row.view();
        let summary = |latency: &Latency| (latency.count(), latency.sum());
        assert_eq!(summary(&view.hit), (2, Duration::from_millis(1 + 2)), "HIT and STALE");
        assert_eq!(summary(&view.miss), (2, Duration::from_millis(3 + 4)), "REVALIDATED and MISS");
        assert_eq!(summary(&view.bypass), (1, Duration::from_millis(5)));
        assert_eq!(summary(&view.origin), (1, Duration::from_secs(20)));
    }

    #[test]
    fn bytes_and_savings_add_up() {
        let row = row(2);
        row.bytes(BodySource::Cache, 1000);
        row.bytes(BodySource::Origin, 30);
        row.bytes(BodySource::Cache, 1);
        row.request(&RequestRecord {
            saved: Some(Duration::from_millis(250)),
            ..record(Disposition::Hit, None)
        });
        row.request(&RequestRecord {
            saved: Some(Duration::from_millis(500)),
            ..record(Disposition::Hit, None)
        });
        let view = row.view();
        assert_eq!(
            (view.bytes_from_cache, view.bytes_from_origin, view.saved),
            (1001, 30, Duration::from_millis(750))
        );
    }

    #[test]
    fn no_increment_of_many_threads_is_lost() {
        let row = Arc::new(row(2));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let row = Arc::clone(&row);
                thread::spawn(move || {
                    (0..1000).for_each(|_| row.request(&record(Disposition::Hit, None)));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((row.count(Disposition::Hit), row.view().hit.count()), (4000, 4000));
    }

    #[test]
    fn a_route_costs_little_memory() {
        let per_stripe = STRIDE * size_of::<AtomicU64>();
        assert!(per_stripe <= 4096, "{per_stripe} bytes per route and stripe");
    }
}
