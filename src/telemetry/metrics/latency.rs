//! Durations: the buckets of histograms, and the statistics that can be derived from their counts.
//!
//! Knows neither what is measured nor where the counts are kept while they grow.

use std::time::Duration;

/// The buckets' upper bounds in nanoseconds, inclusive. They range from a hit in memory to an
/// origin that hangs.
pub(super) const BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// One bucket for each bound, and one for longer durations.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of a duration. A linear search: most responses of a busy cache are in the first
/// bucket.
#[inline]
pub(super) fn bucket(nanos: u64) -> usize {
    BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

/// A duration in whole nanoseconds.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A snapshot of a histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// One count for each bucket, not cumulative.
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Latency {
    pub(super) const fn new(counts: [u64; BUCKETS], sum: Duration) -> Self {
        Self { counts, sum }
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the durations.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// The mean. `None` if there are no durations.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| Duration::from_nanos(nanos(self.sum) / count))
    }

    /// The duration that a share `q` (0 to 1) of them did not exceed. `None` if there are none.
    ///
    /// An estimate: durations are assumed to be spread evenly within their bucket, as in
    /// Prometheus' `histogram_quantile`. For a quantile beyond the last bound it returns that
    /// bound, because nothing more is known.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * as_f64(count);
        let (mut below, mut lower) = (0, 0);
        for (here, upper) in self.counts.into_iter().zip(BOUNDS) {
            if here > 0 && as_f64(below + here) >= rank {
                let within = ((rank - as_f64(below)) / as_f64(here)).clamp(0.0, 1.0);
                return Some(
                    Duration::from_nanos(lower)
                        + Duration::from_nanos(upper - lower).mul_f64(within),
                );
            }
            (below, lower) = (below + here, upper);
        }
        Some(Duration::from_nanos(lower))
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What was counted since an earlier snapshot of the same histogram. No count is below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|at| self.counts[at].saturating_sub(earlier.counts[at])),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// Each bound in seconds, with the number of durations that did not exceed it. The last bound
    /// is infinity.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS
            .into_iter()
            .map(|bound| Duration::from_nanos(bound).as_secs_f64())
            .chain([f64::INFINITY]);
        bounds.zip(self.counts).scan(0, |below, (bound, here)| {
            *below += here;
            Some((bound, *below))
        })
    }
}

/// Exact for counts below 2^53. Above that it loses digits, which an estimate can.
#[allow(clippy::cast_precision_loss, reason = "an estimate of many needs no last digit")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations: &[u64]) -> Latency {
        let mut counts = [0; BUCKETS];
        for micros in durations {
            counts[bucket(micros * 1000)] += 1;
        }
        Latency::new(counts, Duration::from_micros(durations.iter().sum()))
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert!(BOUNDS.is_sorted());
        for (at, bound) in BOUNDS.into_iter().enumerate() {
            assert_eq!((bucket(bound), bucket(bound + 1)), (at, at + 1));
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BOUNDS.len()));
    }

    #[test]
    fn an_empty_histogram_has_neither_mean_nor_quantile() {
        let nothing = Latency::default();
        assert_eq!((nothing.count(), nothing.mean(), nothing.quantile(0.5)), (0, None, None));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_by_its_rank() {
        // Four in (5, 10] ms, and one in (50, 100] ms.
        let latency = of(&[6_000, 7_000, 8_000, 9_000, 60_000]);
        assert_eq!((latency.count(), latency.sum()), (5, Duration::from_millis(90)));
        assert_eq!(latency.mean(), Some(Duration::from_millis(18)));
        assert_eq!(latency.quantile(0.4), Some(Duration::from_micros(7_500)));
        assert_eq!(latency.quantile(0.8), Some(Duration::from_millis(10)));
        assert_eq!(latency.quantile(0.9), Some(Duration::from_millis(75)));
        assert_eq!(latency.quantile(1.0), Some(Duration::from_millis(100)));
        // Not the lower bound of an empty bucket.
        assert_eq!(latency.quantile(0.0), Some(Duration::from_millis(5)));
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_that_bound() {
        let latency = of(&[60_000_000]);
        assert_eq!((latency.quantile(0.5), latency.count()), (Some(Duration::from_secs(10)), 1));
        assert_eq!(latency.cumulative().last(), Some((f64::INFINITY, 1)));
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        let (earlier, between) = (of(&[50, 6_000]), of(&[7_000, 8_000]));
        let mut later = earlier.clone();
        later.add(&between);
        assert_eq!(later.since(&earlier), between);
        assert_eq!(earlier.since(&later).count(), 0, "no count is below zero");
    }

    #[test]
    fn histograms_add_up() {
        let mut all = of(&[50, 6_000]);
        all.add(&of(&[7_000]));
        assert_eq!((all.clone(), all.count()), (of(&[50, 6_000, 7_000]), 3));
        let counts: Vec<u64> = all.cumulative().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[4], counts[6], counts[16]), (1, 1, 3, 3));
    }
}
