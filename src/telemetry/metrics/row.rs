//! All numbers of one route: a fixed row that many threads count in at once, each number found by
//! arithmetic.
//!
//! Knows the closed enums of `outcome`, and its name; not what a route is, and not who else has a
//! row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::counter::{STRIPES, stripe};
use super::latency::{BUCKETS, Latency, bucket, nanos};
use crate::outcome::{Disposition, Reason};

/// What there is to say of a request that has been answered.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord {
    /// What happened to it.
    pub disposition: Disposition,
    /// Why.
    pub reason: Option<Reason>,
    /// From its head to the head of its response.
    pub duration: Duration,
    /// How long the app would have taken, where a stored response spared asking it.
    pub saved: Option<Duration>,
}

/// Where a response's body came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySource {
    /// A stored response.
    Cache,
    /// The app, or the sidecar itself in its place.
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

/// What a request's time is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimedAs {
    /// Answered from a stored response.
    Hit,
    /// The app was asked, on a route that caches.
    Miss,
    /// The cache took no part.
    Bypass,
    /// The app's own time.
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

/// Columns of one histogram: its buckets, then the sum in nanoseconds.
const HISTOGRAM: usize = BUCKETS + 1;
/// Columns of one disposition: no reason, then each reason.
const REASONS: usize = Reason::ALL.len() + 1;
/// The first column of each kind of number. What a hit counts comes first, so that it lies close
/// together.
const SAVED: usize = 4 * HISTOGRAM;
const BYTES: usize = SAVED + 1;
const COUNTS: usize = BYTES + 2;
const COLUMNS: usize = COUNTS + Disposition::ALL.len() * REASONS;
/// From one stripe to the next: the columns, and a gap of a cache-line pair, so that two threads
/// never share a line.
const STRIDE: usize = (COLUMNS + 16).next_multiple_of(16);

/// The numbers of one route. About 3 KiB for each stripe; there are no more stripes than cores.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    stripes: usize,
    // By stripe, then column.
    numbers: Box<[AtomicU64]>,
}

/// The numbers of one route, as they stood when they were read.
#[derive(Clone, Debug)]
pub struct RowView {
    /// The route's name; `none` for requests without a route, `other` for routes beyond
    /// [`MAX_ROWS`](super::MAX_ROWS).
    pub name: Arc<str>,
    /// How many requests ended how, and why: what happened at least once.
    pub requests: Vec<(Disposition, Option<Reason>, u64)>,
    /// The time of requests answered HIT or STALE.
    pub hit: Latency,
    /// The time of requests answered MISS or REVALIDATED.
    pub miss: Latency,
    /// The time of requests that the cache took no part in.
    pub bypass: Latency,
    /// The app's own time, to the head of its response.
    pub origin: Latency,
    /// Bytes of bodies that came from stored responses.
    pub bytes_from_cache: u64,
    /// Bytes of bodies that came from the app.
    pub bytes_from_origin: u64,
    /// What hits would have taken at the app.
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
    pub(super) fn request(&self, seen: &RequestRecord) {
        let lane = self.lane();
        let reason = seen.reason.map_or(0, |reason| reason as usize + 1);
        add(lane, COUNTS + seen.disposition as usize * REASONS + reason, 1);
        time(lane, TimedAs::from_disposition(seen.disposition), seen.duration);
        if let Some(saved) = seen.saved {
            add(lane, SAVED, nanos(saved));
        }
    }

    /// Counts an answer of the app.
    #[inline]
    pub(super) fn origin(&self, took: Duration) {
        time(self.lane(), TimedAs::Origin, took);
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

    /// All numbers.
    pub(super) fn view(&self) -> RowView {
        let requests = Disposition::ALL.iter().enumerate().flat_map(|(at, disposition)| {
            (0..REASONS).filter_map(move |reason| {
                let count = self.sum(COUNTS + at * REASONS + reason);
                let reason = reason.checked_sub(1).map(|reason| Reason::ALL[reason]);
                (count > 0).then_some((*disposition, reason, count))
            })
        });
        RowView {
            name: Arc::clone(&self.name),
            requests: requests.collect(),
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

    /// The numbers that the calling thread counts in.
    #[inline]
    fn lane(&self) -> &[AtomicU64] {
        let first = stripe() % self.stripes * STRIDE;
        &self.numbers[first..first + COLUMNS]
    }
}

#[inline]
fn add(lane: &[AtomicU64], column: usize, n: u64) {
    lane[column].fetch_add(n, Ordering::Relaxed);
}

#[inline]
fn time(lane: &[AtomicU64], timed: TimedAs, took: Duration) {
    let (first, nanos) = (timed as usize * HISTOGRAM, nanos(took));
    add(lane, first + bucket(nanos), 1);
    add(lane, first + BUCKETS, nanos);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stripes: usize) -> Row {
        Row::with_stripes("/a".into(), stripes)
    }

    fn seen(disposition: Disposition, reason: Option<Reason>) -> RequestRecord {
        RequestRecord { disposition, reason, duration: Duration::from_micros(10), saved: None }
    }

    #[test]
    fn discriminants_are_positions_in_all() {
        // `request` goes by the discriminant, `view` by the position.
        assert!(
            Disposition::ALL
                .iter()
                .enumerate()
                .all(|(at, disposition)| *disposition as usize == at)
        );
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }

    #[test]
    fn every_combination_has_a_place_of_its_own() {
        let row = row(2);
        let reasons = || std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some));
        let all: Vec<_> = Disposition::ALL
            .into_iter()
            .flat_map(|disposition| reasons().map(move |reason| (disposition, reason)))
            .collect();
        for (times, (disposition, reason)) in all.iter().enumerate() {
            for _ in 0..=times {
                row.request(&seen(*disposition, *reason));
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
    fn times_are_kept_by_what_happened() {
        let row = row(1);
        for (ms, disposition) in (1..).zip(Disposition::ALL) {
            row.request(&RequestRecord {
                duration: Duration::from_millis(ms),
                ..seen(disposition, None)
            });
        }
        row.origin(Duration::from_secs(20));
        let view = row.view();
        let told = |latency: &Latency| (latency.count(), latency.sum());
        assert_eq!(told(&view.hit), (2, Duration::from_millis(1 + 2)), "HIT and STALE");
        assert_eq!(told(&view.miss), (2, Duration::from_millis(3 + 4)), "REVALIDATED and MISS");
        assert_eq!(told(&view.bypass), (1, Duration::from_millis(5)));
        assert_eq!(told(&view.origin), (1, Duration::from_secs(20)));
    }

    #[test]
    fn bytes_and_savings_add_up() {
        let row = row(2);
        row.bytes(BodySource::Cache, 1000);
        row.bytes(BodySource::Origin, 30);
        row.bytes(BodySource::Cache, 1);
        row.request(&RequestRecord {
            saved: Some(Duration::from_millis(250)),
            ..seen(Disposition::Hit, None)
        });
        row.request(&RequestRecord {
            saved: Some(Duration::from_millis(500)),
            ..seen(Disposition::Hit, None)
        });
        let view = row.view();
        assert_eq!(
            (view.bytes_from_cache, view.bytes_from_origin, view.saved),
            (1001, 30, Duration::from_millis(750))
        );
    }

    #[test]
    fn no_count_of_many_threads_is_lost() {
        let row = Arc::new(row(2));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let row = Arc::clone(&row);
                thread::spawn(move || {
                    (0..1000).for_each(|_| row.request(&seen(Disposition::Hit, None)))
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
