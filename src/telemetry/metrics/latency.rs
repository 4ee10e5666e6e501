//! A snapshot of a histogram of durations, and the statistics that can be derived from it.
//!
//! Knows neither what is measured nor where the counts are kept while they grow.

use std::time::Duration;

use super::buckets::{BOUND_BUCKETS, BOUNDS, range};
use super::portion::Portion;

/// A duration in whole nanoseconds.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A snapshot of a histogram of durations.
///
/// Percentiles are within 1.6 % of the duration that had that rank (within 16 ns below a
/// microsecond). Durations of more than 73 minutes count as that. A snapshot takes 16 bytes for
/// each bucket that is not empty, of which there are about a thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The buckets that are not empty, in order, with their counts, not cumulative.
    counts: Vec<(u16, u64)>,
    sum: Duration,
}

impl Latency {
    /// The counts of buckets above 0, in order.
    pub(super) const fn new(counts: Vec<(u16, u64)>, sum: Duration) -> Self {
        Self { counts, sum }
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
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
    /// The middle of the bucket that it lies in.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        // 0.14 times 50 is a little more than 7, and the 7th duration is meant.
        let rank = q.clamp(0.0, 1.0) * as_f64(self.count()) * (1.0 - 4.0 * f64::EPSILON);
        let mut up_to = 0;
        let reached = |(_, count): &&(u16, u64)| {
            up_to += *count;
            as_f64(up_to) >= rank
        };
        // The last one, if rounding has made the rank greater than the number of durations.
        let (bucket, _) = self.counts.iter().find(reached).or(self.counts.last())?;
        let (shortest, longest) = range(usize::from(*bucket))?;
        let is_open = longest == u64::MAX;
        Some(Duration::from_nanos(if is_open { shortest } else { shortest.midpoint(longest) }))
    }

    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.counts.extend(&other.counts);
        // Fast on two sorted runs.
        self.counts.sort_by_key(|(bucket, _)| *bucket);
        self.counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
    }

    /// The durations that were counted after an earlier snapshot of the same histogram. A count
    /// that has fallen, as after a restart, is taken for none.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.counts.iter().peekable();
        let left = |(bucket, count): &(u16, u64)| {
            while before.next_if(|(other, _)| other < bucket).is_some() {}
            let gone = before.next_if(|(other, _)| other == bucket).map_or(0, |(_, gone)| *gone);
            let left = count.saturating_sub(gone);
            (left > 0).then_some((*bucket, left))
        };
        let counts = self.counts.iter().filter_map(left).collect();
        Self { counts, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Takes a part of the durations out, evenly from the shortest to the longest.
    pub(super) fn take(&mut self, portion: Portion) -> Self {
        let (mut passed, mut gone, mut taken) = (0_u64, 0, Vec::new());
        self.counts.retain_mut(|(bucket, count)| {
            passed = passed.saturating_add(*count);
            // Rounded over all so far, so that many buckets of one duration each lose some, too.
            let part = (portion.of(passed) - gone).min(*count);
            gone += part;
            if part > 0 {
                taken.push((*bucket, part));
            }
            *count -= part;
            *count > 0
        });
        let sum = Duration::from_nanos(portion.of(nanos(self.sum)));
        self.sum = self.sum.saturating_sub(sum);
        Self { counts: taken, sum }
    }

    /// Each bound of `/metrics` in seconds, with the exact number of durations that did not exceed
    /// it. The last bound is infinity.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let (mut rest, mut below) = (self.counts.iter().peekable(), 0);
        let bounds = BOUNDS.into_iter().map(|bound| Duration::from_nanos(bound).as_secs_f64());
        let buckets = bounds.zip(BOUND_BUCKETS).chain([(f64::INFINITY, usize::MAX)]);
        buckets.map(move |(bound, last)| {
            while let Some((_, count)) = rest.next_if(|(at, _)| usize::from(*at) <= last) {
                below += count;
            }
            (bound, below)
        })
    }
}

/// The buckets of a native histogram of Prometheus.
///
/// In schema 3 a bucket with index `i` holds the seconds above `2^((i-1)/8)` and up to `2^(i/8)`:
/// each is 9 % wide. Ours are between 1.6 % and 3.1 % wide, and their bounds are powers of two of
/// nanoseconds, so none of them ends where a native one does. Each of ours goes whole into the
/// native bucket that its middle lies in, so that the counts add up; a duration is then at most
/// 1.6 % beyond a bound of its native bucket, which is less than a fifth of that bucket's width.
/// Schema 4 (4.4 %) would have some buckets of one of ours alone: more precision than there is.
///
/// Below a microsecond our buckets are wider than that in proportion, so that all of them are in
/// the zero bucket. What took longer than 73 minutes is in the bucket in which those begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NativeBuckets {
    /// The durations up to [`Self::ZERO_THRESHOLD`].
    pub(super) zero: u64,
    /// The buckets that are not empty, by their index.
    pub(super) positive: Vec<(i32, u64)>,
}

impl NativeBuckets {
    /// Each power of two has `2^3` buckets.
    pub(super) const SCHEMA: i32 = 3;
    /// In seconds: `2^-20`, which ends a native bucket. 954 ns.
    pub(super) const ZERO_THRESHOLD: f64 = 1.0 / (1 << 20) as f64;
}

impl Latency {
    /// The same durations in native buckets.
    pub(super) fn native(&self) -> NativeBuckets {
        let mut native = NativeBuckets::default();
        for (bucket, count) in &self.counts {
            let Some((shortest, longest)) = range(usize::from(*bucket)) else { continue };
            let middle = if longest == u64::MAX { shortest } else { shortest.midpoint(longest) };
            let seconds = Duration::from_nanos(middle).as_secs_f64();
            if seconds <= NativeBuckets::ZERO_THRESHOLD {
                native.zero += count;
                continue;
            }
            let per_power = f64::from(1 << NativeBuckets::SCHEMA);
            #[allow(clippy::cast_possible_truncation, reason = "between -160 and 100")]
            let index = (seconds.log2() * per_power).ceil() as i32;
            match native.positive.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => native.positive.push((index, *count)),
            }
        }
        native
    }
}

/// Exact for counts below 2^53. Above that it loses digits, which an estimate can.
#[allow(clippy::cast_precision_loss, reason = "an estimate of many needs no last digit")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::histogram::Histogram;

    fn of(micros: &[u64]) -> Latency {
        let histogram = Histogram::default();
        for micros in micros {
            histogram.count(micros * 1000);
        }
        let counts = Histogram::sum(std::slice::from_ref(&histogram));
        Latency::new(counts, Duration::from_micros(micros.iter().sum()))
    }

    fn assert_near(found: Option<Duration>, expected: Duration) {
        let off = found.expect("there are durations").abs_diff(expected);
        assert!(off * 60 <= expected, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn an_empty_histogram_has_neither_mean_nor_quantile() {
        let nothing = Latency::default();
        assert_eq!((nothing.count(), nothing.mean(), nothing.quantile(0.5)), (0, None, None));
    }

    #[test]
    fn a_quantile_is_the_duration_of_that_rank() {
        let latency = of(&[6_000, 7_000, 8_000, 9_000, 60_000]);
        assert_eq!((latency.count(), latency.sum()), (5, Duration::from_millis(90)));
        assert_eq!(latency.mean(), Some(Duration::from_millis(18)));
        for (q, ms) in [(0.0, 6), (0.2, 6), (0.21, 7), (0.5, 8), (0.8, 9), (0.81, 60), (1.0, 60)] {
            assert_near(latency.quantile(q), Duration::from_millis(ms));
        }
    }

    #[test]
    fn a_quantile_beyond_the_last_bucket_is_its_beginning() {
        let latency = of(&[7_200_000_000]);
        let (shown, hour) = (latency.quantile(0.5).unwrap(), Duration::from_hours(1));
        assert!(shown > hour && shown < hour * 2, "{shown:?}");
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
        all.add(&of(&[7_000, 6_000]));
        assert_eq!((all.clone(), all.count()), (of(&[50, 6_000, 6_000, 7_000]), 4));
        let counts: Vec<u64> = all.cumulative().map(|(_, count)| count).collect();
        assert_eq!((counts.len(), counts[0], counts[4], counts[6], counts[16]), (17, 1, 1, 4, 4));
    }

    #[test]
    fn a_snapshot_tells_what_was_counted_since_an_earlier_one() {
        let earlier = of(&[50, 6_000]);
        let mut later = earlier.clone();
        let since = of(&[20, 6_000, 9_000]);
        later.add(&since);
        assert_eq!(later.since(&earlier), since);
        assert_eq!(later.since(&later), Latency::default());
        assert_eq!(earlier.since(&later), Latency::default(), "after a restart");
        assert_eq!(later.since(&Latency::default()), later);
    }

    #[test]
    fn r980_a_rank_that_is_rounded_up_is_that_of_the_duration_meant() {
        let micros: Vec<u64> = (0..50).map(|n| if n < 7 { 1 } else { 1000 }).collect();
        let found = of(&micros).quantile(0.14).expect("there are some");
        assert!(found < Duration::from_micros(2), "{found:?}");
    }

    proptest! {
        #[test]
        fn quantiles_are_within_three_percent(
            // From a microsecond to ten minutes.
            micros in prop::collection::vec((0_u32..30, 1_u64..600).prop_map(|(power, n)| {
                (n << power).min(600_000_000)
            }), 1..60),
            percent in 1_usize..=100,
        ) {
            let (latency, mut sorted) = (of(&micros), micros);
            sorted.sort_unstable();
            let rank = (sorted.len() * percent).div_ceil(100);
            let expected = Duration::from_micros(sorted[rank - 1]);
            #[allow(clippy::cast_precision_loss, reason = "a small number")]
            let found = latency.quantile(percent as f64 / 100.0).unwrap();
            prop_assert!(found.abs_diff(expected) * 100 <= expected * 3, "{found:?} {expected:?}");
        }

        #[test]
        fn counts_for_prometheus_are_exact(
            micros in prop::collection::vec(
                (0_u32..24, 1_u64..20).prop_map(|(power, n)| n << power),
                0..60,
            ),
            bounds in prop::collection::vec(0..BOUNDS.len(), 0..8),
        ) {
            // The bounds themselves as well, which are whole microseconds.
            let bounds = bounds.into_iter().map(|at| BOUNDS[at] / 1000);
            let micros: Vec<u64> = micros.into_iter().chain(bounds).collect();
            for (bound, count) in of(&micros).cumulative() {
                let seconds = |micros: &u64| Duration::from_micros(*micros).as_secs_f64();
                let exact = micros.iter().filter(|micros| seconds(micros) <= bound).count();
                prop_assert_eq!(count, exact as u64, "up to {} s", bound);
            }
        }
    }
}
