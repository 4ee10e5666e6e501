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
use super::histogram::Histogram;
use super::latency::{Latency, nanos};
use crate::outcome::{Disposition, LifetimeSource, Outcome, Reason};

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
    /// The origin.
    Origin,
    /// The sidecar itself: a page that says what is wrong.
    Sidecar,
}

impl BodySource {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Origin => "app",
            Self::Sidecar => "sidecar",
        }
    }

    /// All sources, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Cache, Self::Origin, Self::Sidecar];

    /// Where the body of the response with this outcome came from. Where nothing was stored and
    /// the origin has not answered, the sidecar has written it.
    #[must_use]
    pub const fn from_outcome(outcome: &Outcome) -> Self {
        match outcome.disposition {
            Disposition::Hit | Disposition::Stale | Disposition::Revalidated => Self::Cache,
            Disposition::Miss | Disposition::Bypass if outcome.fwd_status.is_some() => Self::Origin,
            Disposition::Miss | Disposition::Bypass => Self::Sidecar,
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
    const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Bypass, Self::Origin];

    const fn from_disposition(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Hit | Disposition::Stale => Self::Hit,
            Disposition::Miss | Disposition::Revalidated => Self::Miss,
            Disposition::Bypass => Self::Bypass,
        }
    }
}

/// The classes of statuses, in order.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The columns of one disposition: without a reason, one for each class of statuses, so that a hit
/// increments one number for both; then one for each reason with which a request may end.
const REASONS: usize = CLASSES.len() + POSITIONS.1;
/// The position of each reason among those with which a request may end, and how many these are.
const POSITIONS: ([usize; Reason::ALL.len()], usize) = {
    let (mut positions, mut at, mut count) = ([usize::MAX; Reason::ALL.len()], 0, 0);
    while at < positions.len() {
        if Reason::ALL[at].ends_requests() {
            positions[at] = count;
            count += 1;
        }
        at += 1;
    }
    (positions, count)
};
/// The reasons with which a request may end, by their positions.
const ENDING: [Reason; POSITIONS.1] = {
    let (mut ending, mut at) = ([Reason::ALL[0]; POSITIONS.1], 0);
    while at < Reason::ALL.len() {
        if POSITIONS.0[at] != usize::MAX {
            ending[POSITIONS.0[at]] = Reason::ALL[at];
        }
        at += 1;
    }
    ending
};
/// The first column of each kind of number. The numbers that a hit increments come first, so that
/// they lie close together.
/// The sums of the four histograms, in nanoseconds, are the first.
const SAVED: usize = TimedAs::ALL.len();
const BYTES: usize = SAVED + 1;
/// Classes of statuses of requests with a reason.
const STATUSES: usize = BYTES + BodySource::ALL.len();
const COUNTS: usize = STATUSES + CLASSES.len();
const COLUMNS: usize = COUNTS + Disposition::ALL.len() * REASONS;
/// The distance from one stripe to the next: the columns, and a gap of two cache lines, so that two
/// threads never share a line.
const STRIDE: usize = (COLUMNS + 16).next_multiple_of(16);

/// The counts of one route. About 3 KiB for each stripe; there are at most as many stripes as
/// cores. Besides, a quarter of a KiB for each power of two of durations that has occurred, of each
/// kind; of hits, in each stripe.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    stripes: usize,
    // Ordered by stripe, then by column.
    numbers: Box<[AtomicU64]>,
    /// By stripe.
    hits: Box<[Histogram]>,
    /// By [`TimedAs`], of what is not a hit. Threads share them: a request to the origin takes
    /// so long that contention for a cache line is nothing beside it.
    others: [Histogram; 3],
    /// See [`RowView::lifetime`]: 0 if nothing was stored; else the milliseconds times the number
    /// of sources, plus the source, plus 1.
    lifetime: AtomicU64,
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
    /// Bytes of bodies that the sidecar itself has written.
    pub bytes_from_sidecar: u64,
    /// How long the response that was stored last is fresh, and by whose word.
    pub lifetime: Option<(Duration, LifetimeSource)>,
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
        Self {
            name,
            stripes,
            numbers: (0..stripes * STRIDE).map(|_| AtomicU64::new(0)).collect(),
            hits: (0..stripes).map(|_| Histogram::default()).collect(),
            others: Default::default(),
            lifetime: AtomicU64::new(0),
        }
    }

    /// Counts a request.
    #[inline]
    pub(super) fn request(&self, record: &RequestRecord) {
        let stripe = self.stripe();
        let lane = self.lane(stripe);
        let (first, class) = (COUNTS + record.disposition as usize * REASONS, class(record.status));
        match record.reason {
            Some(reason) if reason.ends_requests() => {
                add(lane, first + CLASSES.len() + POSITIONS.0[reason as usize], 1);
                add(lane, STATUSES + class, 1);
            }
            _ => add(lane, first + class, 1),
        }
        self.time(stripe, TimedAs::from_disposition(record.disposition), record.duration);
        if let Some(saved) = record.saved {
            add(lane, SAVED, nanos(saved));
        }
    }

    /// Counts a response of the origin.
    #[inline]
    pub(super) fn origin(&self, duration: Duration) {
        self.time(self.stripe(), TimedAs::Origin, duration);
    }

    /// Counts bytes of a response's body.
    #[inline]
    pub(super) fn bytes(&self, source: BodySource, bytes: u64) {
        add(self.lane(self.stripe()), BYTES + source as usize, bytes);
    }

    /// Notes how long a response that is being stored is fresh.
    pub(super) fn stored(&self, lifetime: Duration, from: LifetimeSource) {
        let sources = LifetimeSource::ALL.len() as u64;
        let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let seen = millis.saturating_mul(sources).saturating_add(from as u64 + 1);
        self.lifetime.store(seen, Ordering::Relaxed);
    }

    pub(super) fn lifetime(&self) -> Option<(Duration, LifetimeSource)> {
        let seen = self.lifetime.load(Ordering::Relaxed).checked_sub(1)?;
        let sources = LifetimeSource::ALL.len() as u64;
        let from = LifetimeSource::ALL.into_iter().find(|from| *from as u64 == seen % sources)?;
        Some((Duration::from_millis(seen / sources), from))
    }

    /// How many requests ended in this disposition.
    pub(super) fn count(&self, disposition: Disposition) -> u64 {
        let first = COUNTS + disposition as usize * REASONS;
        (first..first + REASONS).map(|column| self.sum(column)).sum()
    }

    /// A snapshot. Of a route that nobody has asked for it takes hardly any time: a file may have
    /// thousands, and some are read every few seconds.
    pub(super) fn view(&self) -> RowView {
        let sums = self.sums();
        let mut classes: [u64; CLASSES.len()] = std::array::from_fn(|class| sums[STATUSES + class]);
        let mut requests = Vec::new();
        for disposition in Disposition::ALL {
            let first = COUNTS + disposition as usize * REASONS;
            let (plain, by_reason) = sums[first..first + REASONS].split_at(CLASSES.len());
            for (total, count) in classes.iter_mut().zip(plain) {
                *total = total.wrapping_add(*count);
            }
            let plain = (disposition, None, plain.iter().sum());
            let by_reason = ENDING.iter().zip(by_reason);
            let by_reason = by_reason.map(|(reason, count)| (disposition, Some(*reason), *count));
            let all = std::iter::once(plain).chain(by_reason);
            requests.extend(all.filter(|(.., count)| *count > 0));
        }
        let latency = |timed| self.latency(timed, sums[timed as usize]);
        RowView {
            name: Arc::clone(&self.name),
            requests,
            classes,
            hit: latency(TimedAs::Hit),
            miss: latency(TimedAs::Miss),
            bypass: latency(TimedAs::Bypass),
            origin: latency(TimedAs::Origin),
            bytes_from_cache: sums[BYTES + BodySource::Cache as usize],
            bytes_from_origin: sums[BYTES + BodySource::Origin as usize],
            bytes_from_sidecar: sums[BYTES + BodySource::Sidecar as usize],
            lifetime: self.lifetime(),
            saved: Duration::from_nanos(sums[SAVED]),
        }
    }

    /// The sum of each column over all stripes.
    fn sums(&self) -> [u64; COLUMNS] {
        let mut sums = [0; COLUMNS];
        for stripe in 0..self.stripes {
            for (sum, number) in sums.iter_mut().zip(self.lane(stripe)) {
                *sum = u64::wrapping_add(*sum, number.load(Ordering::Relaxed));
            }
        }
        sums
    }

    fn latency(&self, timed: TimedAs, nanos: u64) -> Latency {
        let histograms = match timed {
            TimedAs::Hit => &*self.hits,
            other => std::slice::from_ref(self.shared(other)),
        };
        Latency::new(Histogram::sum(histograms), Duration::from_nanos(nanos))
    }

    /// The histogram of something that is not a hit.
    #[inline]
    fn shared(&self, timed: TimedAs) -> &Histogram {
        &self.others[timed as usize - 1]
    }

    #[inline]
    fn time(&self, stripe: usize, timed: TimedAs, duration: Duration) {
        let nanos = nanos(duration);
        match timed {
            TimedAs::Hit => self.hits[stripe].count(nanos),
            other => self.shared(other).count(nanos),
        }
        add(self.lane(stripe), timed as usize, nanos);
    }

    fn sum(&self, column: usize) -> u64 {
        (0..self.stripes).fold(0, |sum: u64, stripe| {
            sum.wrapping_add(self.numbers[stripe * STRIDE + column].load(Ordering::Relaxed))
        })
    }

    /// The stripe that the calling thread counts in.
    #[inline]
    fn stripe(&self) -> usize {
        stripe() % self.stripes
    }

    #[inline]
    fn lane(&self, stripe: usize) -> &[AtomicU64] {
        let first = stripe * STRIDE;
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

#[cfg(test)]
mod tests;
