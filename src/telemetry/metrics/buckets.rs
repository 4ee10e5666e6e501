//! How durations are divided into buckets: fine enough for percentiles, and cut at the bounds that
//! Prometheus reads, so that one count serves both.
//!
//! Log-linear: each power of two is divided into 32 buckets of equal width, as in HDR histograms.
//! The middle of a bucket is then at most 1/64 (1.6 %) from every duration in it. A bucket that
//! contains one of [`BOUNDS`] is cut in two there, so that the count of what does not exceed that
//! bound is exact.

/// The upper bounds of the buckets of `/metrics` in nanoseconds, inclusive. They range from a hit
/// in memory to an origin that hangs.
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

/// How many buckets divide one power of two, as a power of two.
const DIVISION: u32 = 5;
/// Below this many nanoseconds (2^10, one microsecond) buckets have one width, 32 ns.
const FINEST: u32 = 10;
/// Durations from here (2^42 ns, 73 minutes) share the last bucket.
const LONGEST: u32 = 42;

/// The buckets without the cuts: those below 2^[`FINEST`], those of each power of two, and that of
/// longer durations.
const UNCUT: usize = (1 + (LONGEST - FINEST) as usize) << DIVISION | 1;
/// The number of buckets. Each cut adds one.
pub(super) const BUCKETS: usize = UNCUT + BOUNDS.len();

/// The buckets of the [`BOUNDS`]: a duration exceeds a bound if its bucket comes after that one.
pub(super) const BOUND_BUCKETS: [usize; BOUNDS.len()] = {
    let mut buckets = [0; BOUNDS.len()];
    let mut at = 0;
    while at < BOUNDS.len() {
        // One cut for each lower bound.
        buckets[at] = uncut(BOUNDS[at]) + at;
        at += 1;
    }
    buckets
};

/// The bucket of a duration.
///
/// Both terms never fall as the duration grows, and one of them rises at each border. The linear
/// search is short: most responses of a busy cache are below the first bounds.
#[inline]
pub(super) fn bucket(nanos: u64) -> usize {
    uncut(nanos) + BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

/// The bucket of a duration if there were no cuts.
#[inline]
const fn uncut(nanos: u64) -> usize {
    if nanos >> LONGEST != 0 {
        return UNCUT - 1;
    }
    let power = (nanos | 1 << FINEST).ilog2();
    // Below 2^42 >> 5, so that it fits.
    #[allow(clippy::cast_possible_truncation, reason = "at most 63")]
    let within = (nanos >> (power - DIVISION)) as usize;
    (((power - FINEST) as usize) << DIVISION) + within
}

/// The shortest and the longest duration of a bucket in nanoseconds. `None` for the few numbers
/// that no duration has.
pub(super) fn range(bucket: usize) -> Option<(u64, u64)> {
    (0..=BOUNDS.len()).find_map(|cuts| {
        let (shortest, longest) = uncut_range(bucket.checked_sub(cuts)?);
        let above = cuts.checked_sub(1).map_or(0, |below| BOUNDS[below] + 1);
        let shortest = shortest.max(above);
        let longest = BOUNDS.get(cuts).map_or(longest, |bound| longest.min(*bound));
        (shortest <= longest).then_some((shortest, longest))
    })
}

fn uncut_range(bucket: usize) -> (u64, u64) {
    if bucket >= UNCUT - 1 {
        return (1 << LONGEST, u64::MAX);
    }
    let shortest = |bucket: usize| {
        let (octave, within) = (bucket >> DIVISION, (bucket & ((1 << DIVISION) - 1)) as u64);
        match octave {
            0 => within << (FINEST - DIVISION),
            _ => (within + (1 << DIVISION)) << (octave - 1 + (FINEST - DIVISION) as usize),
        }
    };
    (shortest(bucket), shortest(bucket + 1) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        let ranges: Vec<(u64, u64)> = (0..BUCKETS).filter_map(range).collect();
        assert_eq!(ranges[0].0, 0);
        assert_eq!(*ranges.last().unwrap(), (1 << LONGEST, u64::MAX));
        assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ranges:?}");
        let numbers: Vec<usize> = (0..BUCKETS).filter(|at| range(*at).is_some()).collect();
        for (at, (shortest, longest)) in numbers.into_iter().zip(ranges) {
            assert_eq!((bucket(shortest), bucket(longest)), (at, at), "{shortest}..={longest}");
        }
    }

    #[test]
    fn a_bound_of_prometheus_ends_a_bucket() {
        assert!(BOUNDS.is_sorted());
        for (bound, at) in BOUNDS.into_iter().zip(BOUND_BUCKETS) {
            assert_eq!(bucket(bound), at);
            assert!(bucket(bound + 1) > at, "{bound}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    proptest! {
        #[test]
        fn the_middle_of_a_bucket_is_within_a_64th_of_all_its_durations(
            power in FINEST..LONGEST, low in any::<u64>(),
        ) {
            let nanos = 1 << power | (low & ((1 << power) - 1));
            let (shortest, longest) = range(bucket(nanos)).expect("a duration has it");
            prop_assert!((shortest..=longest).contains(&nanos));
            prop_assert!((longest - shortest) * 32 <= nanos);
        }

        #[test]
        fn a_duration_exceeds_a_bound_if_its_bucket_comes_later(
            nanos in any::<u64>(), shift in 0_u32..64,
        ) {
            let nanos = nanos >> shift;
            for (bound, at) in BOUNDS.into_iter().zip(BOUND_BUCKETS) {
                prop_assert_eq!(nanos <= bound, bucket(nanos) <= at);
            }
        }
    }
}
