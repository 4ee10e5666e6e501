//! How long things took: the buckets of the histograms, and what can be read from a histogram's
//! counts.
//!
//! Knows nothing of what is measured, nor where the counts are kept while they grow.

use std::time::Duration;

/// The buckets' upper bounds in nanoseconds, inclusive. From a hit in memory to an app that hangs.
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

/// One for each bound, and one for what took longer than the last.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of a duration. What is quick is found quickly: most of a busy cache's answers are in
/// the first bucket.
#[inline]
pub(super) fn bucket(nanos: u64) -> usize {
    BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

/// A duration in whole nanoseconds.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A histogram of durations, as it stood when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// By bucket; not cumulative.
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Latency {
    pub(super) const fn new(counts: [u64; BUCKETS], sum: Duration) -> Self {
        Self { counts, sum }
    }

    /// How many durations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// Their mean; none of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| Duration::from_nanos(nanos(self.sum) / count))
    }

    /// The duration that a share `q` (0 to 1) of them did not exceed; none of nothing.
    ///
    /// An estimate, as good as the buckets are narrow: durations are taken to lie evenly within
    /// theirs, as Prometheus' own `histogram_quantile` has it. Of what lies beyond the last bound,
    /// nothing more is known than that: the answer is the bound.
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

    /// Takes in what another histogram holds.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Each bound in seconds with how many did not exceed it. The last one is infinity, with all.
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

/// Counts below 2^53 lose nothing, and an estimate may.
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
    fn nothing_has_neither_mean_nor_quantile() {
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
        // Not the lower end of a bucket that holds none of them.
        assert_eq!(latency.quantile(0.0), Some(Duration::from_millis(5)));
    }

    #[test]
    fn what_exceeds_the_last_bound_is_told_as_the_bound() {
        let latency = of(&[60_000_000]);
        assert_eq!((latency.quantile(0.5), latency.count()), (Some(Duration::from_secs(10)), 1));
        assert_eq!(latency.cumulative().last(), Some((f64::INFINITY, 1)));
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
