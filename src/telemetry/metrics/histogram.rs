//! A histogram that many threads increment. It takes memory for the durations that occur: a
//! quarter of a KiB for each power of two.
//!
//! Knows the buckets, not what is measured. Threads that would contend have one each.

use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;

use super::buckets::{BUCKETS, bucket};

/// How many counts are allocated at once: those of one power of two.
const CHUNK: usize = 32;
const CHUNKS: usize = BUCKETS.div_ceil(CHUNK);

/// Some counts, on cache lines of their own: another thread's may lie beside them. 128 bytes,
/// because current processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Chunk([AtomicU64; CHUNK]);

/// The counts of durations. 272 bytes, and 256 for each power of two (in nanoseconds) that has
/// occurred; less than 9 KiB in all.
pub(super) struct Histogram {
    chunks: [OnceBox<Chunk>; CHUNKS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { chunks: std::array::from_fn(|_| OnceBox::new()) }
    }
}

impl Histogram {
    /// How many bytes it takes if durations of all lengths have occurred.
    #[cfg(test)]
    pub(super) const LARGEST: usize = size_of::<Self>() + CHUNKS * size_of::<Chunk>();

    /// Counts a duration.
    #[inline]
    pub(super) fn count(&self, nanos: u64) {
        let bucket = bucket(nanos);
        let chunk = &self.chunks[bucket / CHUNK];
        let chunk = chunk.get().unwrap_or_else(|| allocate(chunk));
        chunk.0[bucket % CHUNK].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts of several histograms added up: the buckets that are not empty, in order.
    pub(super) fn sum(histograms: &[Self]) -> Vec<(u16, u64)> {
        let mut counts = Vec::new();
        for at in 0..CHUNKS {
            let mut chunks =
                histograms.iter().filter_map(|histogram| histogram.chunks[at].get()).peekable();
            // Most of them never occur: no time is spent on those.
            if chunks.peek().is_none() {
                continue;
            }
            let mut sums = [0_u64; CHUNK];
            for chunk in chunks {
                for (sum, count) in sums.iter_mut().zip(&chunk.0) {
                    *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
                }
            }
            let buckets = (at * CHUNK..).zip(sums).filter(|(_, count)| *count > 0);
            counts.extend(buckets.map(|(bucket, count)| {
                (u16::try_from(bucket).expect("about a thousand buckets"), count)
            }));
        }
        counts
    }

    /// How many bytes it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        size_of::<Self>() + chunks * size_of::<Chunk>()
    }
}

/// Apart, so that the usual case needs no registers for it.
#[cold]
#[inline(never)]
fn allocate(chunk: &OnceBox<Chunk>) -> &Chunk {
    chunk.get_or_init(Box::default)
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Histogram").field(&Self::sum(std::slice::from_ref(self))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_for_the_durations_that_occur() {
        let histogram = Histogram::default();
        assert_eq!(histogram.bytes(), 272);
        for nanos in [70_000, 80_000, 90_000] {
            histogram.count(nanos);
        }
        assert_eq!(histogram.bytes(), 272 + 256, "2^16 to 2^17 ns");
        for shift in 0..64 {
            histogram.count(u64::MAX >> shift);
        }
        assert!(histogram.bytes() <= Histogram::LARGEST);
        const { assert!(Histogram::LARGEST <= 9 * 1024) };
    }

    #[test]
    fn histograms_of_several_threads_add_up() {
        let histograms = [Histogram::default(), Histogram::default(), Histogram::default()];
        for nanos in [0, 5_000_000, u64::MAX] {
            histograms[0].count(nanos);
            histograms[2].count(nanos);
        }
        histograms[0].count(5_000_000);
        let counts = Histogram::sum(&histograms);
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 3, 2]);
        assert_eq!(
            counts.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [
                u16::try_from(bucket(0)).unwrap(),
                u16::try_from(bucket(5_000_000)).unwrap(),
                u16::try_from(BUCKETS - 1).unwrap(),
            ]
        );
    }
}
