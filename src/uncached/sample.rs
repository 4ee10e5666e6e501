//! Which reads without a route are looked at, when there are too many for all.
//!
//! Up to [`FULL_PER_SECOND`] in a second, all are. Beyond that, and for [`TTL`] after it, two
//! samples are, both chosen with a key of this process, so that nobody can keep out of them:
//!
//! - *One read of [`SAMPLE_EVERY`], for the counts.* It stands for as many. Of each run of so many
//!   reads exactly one is taken.
//! - *All reads of one key of [`SAMPLE_EVERY`], for what a cache would have had* (spatial sampling;
//!   Waldspurger, Park, Garthwaite, Ahmad, 2015). Whether a request repeats an earlier one can only
//!   be told if the earlier one was looked at, too: of a sample of requests hardly any would.
//!
//! A key that comes more often than once in [`HOT_GAP`] is left to the first sample, which sees it
//! often enough to know its repeats. So one key cannot fill the second sample. A read of the first
//! sample alone counts as compared only if what it repeats was seen.

use std::sync::atomic::{AtomicU64, Ordering};

use super::repeats::TTL;
use crate::clock::millis;

/// The most reads in a second of which all are looked at.
pub const FULL_PER_SECOND: u64 = 256;
/// Beyond them, one read, and one key, of so many.
pub const SAMPLE_EVERY: u64 = 64;
/// A key that came within this time, in milliseconds, is one of many requests.
const HOT_GAP: u64 = 1000 * TTL.as_secs() / SAMPLE_EVERY;
/// How many keys of the second sample are remembered by the time when they last came.
const KEYS: usize = 1024;
/// The bits of a remembered time, in milliseconds: 34 years. The rest is of the key.
const TIME_BITS: u32 = 40;

/// How a read that is looked at counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledRead {
    /// For how many reads it stands; 0 if it is only compared.
    pub weight: u64,
    /// Whether all earlier reads of its key were looked at, so that one which repeats none is
    /// known to be the first.
    pub is_complete: bool,
}

impl Default for SampledRead {
    fn default() -> Self {
        Self { weight: 1, is_complete: true }
    }
}

/// Chooses.
#[derive(Debug)]
pub(super) struct ReadSampler {
    /// A random number of this process.
    seed: u64,
    /// The second that is counted, and the reads in it.
    second: (AtomicU64, AtomicU64),
    /// Until when, in milliseconds, only samples are looked at.
    sampling_until: AtomicU64,
    /// Part of a key, and the time when it last came.
    keys: Box<[AtomicU64]>,
}

impl ReadSampler {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            second: Default::default(),
            sampling_until: AtomicU64::new(0),
            keys: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether only samples are looked at now, in milliseconds.
    pub(super) fn is_sampling(&self, now: u64) -> bool {
        now < self.sampling_until.load(Ordering::Relaxed)
    }

    /// How a read with this keyed hash at this time, in milliseconds, is looked at; `None` if it is
    /// not. A few dozen instructions.
    pub(super) fn choose(&self, key: u64, now: u64) -> Option<SampledRead> {
        let (second, reads) = &self.second;
        let this = now / 1000;
        if second.load(Ordering::Relaxed) != this && second.swap(this, Ordering::Relaxed) != this {
            reads.store(0, Ordering::Relaxed);
        }
        let read = reads.fetch_add(1, Ordering::Relaxed);
        if read == FULL_PER_SECOND {
            self.sampling_until.store(now.saturating_add(millis(TTL)), Ordering::Relaxed);
        }
        if !self.is_sampling(now) {
            return Some(SampledRead::default());
        }
        let run = mix(self.seed ^ this.rotate_left(32) ^ (read / SAMPLE_EVERY));
        let is_counted = run % SAMPLE_EVERY == read % SAMPLE_EVERY;
        let is_complete = self.is_chosen(key) && !self.is_hot(key, now);
        let weight = if is_counted { SAMPLE_EVERY } else { 0 };
        (is_counted || is_complete).then_some(SampledRead { weight, is_complete })
    }

    /// Whether all reads of this key belong to the second sample. By bits that no other place
    /// chooses a slot by.
    fn is_chosen(&self, key: u64) -> bool {
        mix(self.seed ^ key).is_multiple_of(SAMPLE_EVERY)
    }

    /// Notes that a key of the second sample came, and tells whether it came shortly before.
    fn is_hot(&self, key: u64, now: u64) -> bool {
        let mixed = mix(key);
        let place = usize::try_from(mixed % KEYS as u64).unwrap_or(0);
        let (part, time) = (mixed >> TIME_BITS << TIME_BITS, now & ((1 << TIME_BITS) - 1));
        let before = self.keys[place].swap(part | time, Ordering::Relaxed);
        let last = before & ((1 << TIME_BITS) - 1);
        before >> TIME_BITS << TIME_BITS == part && last > 0 && time.saturating_sub(last) < HOT_GAP
    }
}

/// Spreads a number over all bits (`SplitMix64`; Steele, Lea, Flood, 2014).
const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    #[test]
    fn up_to_the_limit_all_are_looked_at() {
        let sampler = ReadSampler::new(7);
        for second in 0..100 {
            for read in 0..FULL_PER_SECOND {
                let chosen = sampler.choose(mix(read), START + second * 1000 + read);
                assert_eq!(chosen, Some(SampledRead::default()));
            }
        }
        assert!(!sampler.is_sampling(START + 100_000));
    }

    #[test]
    fn beyond_it_one_of_many_is_counted_and_it_stands_for_all() {
        let sampler = ReadSampler::new(7);
        let (mut looked, mut stood, mut all) = (0_u64, 0_u64, 0_u64);
        for second in 0..60 {
            for read in 0..10_000_u64 {
                all += 1;
                // Keys that come but once.
                if let Some(one) = sampler.choose(mix(all), START + second * 1000 + read / 10) {
                    (looked, stood) = (looked + 1, stood + one.weight);
                }
            }
        }
        assert!(stood.abs_diff(all) * 200 < all, "{stood} stand for {all}");
        // Those of the counts, those of the keys, and the first ones.
        assert!(looked < all * 2 / SAMPLE_EVERY + all / 100, "{looked} of {all}");
    }

    #[test]
    fn one_key_in_a_flood_is_looked_at_as_seldom_as_many() {
        for key in 0..200_u64 {
            let sampler = ReadSampler::new(11);
            let chosen = (0..20_000_u64)
                .filter(|read| sampler.choose(mix(key), START + read / 20).is_some());
            let chosen = chosen.count() as u64;
            assert!(chosen < FULL_PER_SECOND + 20_000 / SAMPLE_EVERY + 20, "{key}: {chosen}");
        }
    }

    #[test]
    fn of_a_chosen_key_every_read_is_looked_at_and_of_no_other() {
        let sampler = ReadSampler::new(7);
        let flood = |second: u64| {
            (0..=FULL_PER_SECOND).for_each(|read| {
                sampler.choose(mix(1 << 40 | second << 16 | read), START + second * 1000);
            });
        };
        let mut complete = vec![0; 2000];
        for second in 0..60 {
            flood(second);
            if second % 5 == 0 {
                for (key, count) in complete.iter_mut().enumerate() {
                    let chosen = sampler.choose(mix(key as u64), START + second * 1000 + 1);
                    *count += usize::from(chosen.is_some_and(|chosen| chosen.is_complete));
                }
            }
        }
        assert!(complete.iter().all(|count| [0, 12].contains(count)), "{complete:?}");
        let chosen = complete.iter().filter(|count| **count == 12).count();
        assert!((10..60).contains(&chosen), "{chosen} of 2000");
    }

    #[test]
    fn it_goes_on_for_as_long_as_a_cache_would_remember() {
        let sampler = ReadSampler::new(7);
        (0..=FULL_PER_SECOND).for_each(|read| {
            sampler.choose(mix(read), START);
        });
        let ttl = millis(TTL);
        assert!(sampler.is_sampling(START) && sampler.is_sampling(START + ttl - 1));
        assert!(!sampler.is_sampling(START + ttl));
        assert_eq!(sampler.choose(1, START + ttl), Some(SampledRead::default()));
    }
}
