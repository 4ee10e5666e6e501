//! Signatures that were seen lately. One that comes again is a delivery that its sender repeats, or
//! one that somebody has read and sends again. It purges what it purged before, which is harmless;
//! it is accepted only so often.
//!
//! Invariant: a signature that was seen within [`REPEAT_TIME`] is remembered, unless [`MAX_SEEN`]
//! others were seen since.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often one signature may come within [`REPEAT_TIME`].
pub(super) const MAX_REPEATS: u32 = 10;

/// For how long a signature is remembered, at least.
const REPEAT_TIME: Duration = Duration::from_mins(1);

/// How many signatures are remembered, at least.
const MAX_SEEN: usize = 4096;

/// The signatures that were seen lately: those of this time, and those of the time before it.
#[derive(Debug, Default)]
pub(super) struct SeenSignatures {
    since: Option<Instant>,
    current: HashMap<Box<[u8]>, u32>,
    former: HashMap<Box<[u8]>, u32>,
}

impl SeenSignatures {
    /// Counts a signature that was verified, and says whether it is accepted.
    pub(super) fn note(&mut self, signature: &[u8], now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= REPEAT_TIME;
        if is_over || self.current.len() >= MAX_SEEN {
            self.former = std::mem::take(&mut self.current);
            self.since = Some(now);
        }
        let before = self.former.get(signature).copied().unwrap_or(0);
        let count = self.current.entry(signature.into()).or_insert(0);
        *count = count.saturating_add(1);
        before.saturating_add(*count) <= MAX_REPEATS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signature_is_accepted_so_often_in_a_time() {
        let (mut seen, now) = (SeenSignatures::default(), crate::clock::Clock::system().now());
        let may = (0..=MAX_REPEATS).map(|_| seen.note(b"a", now));
        assert_eq!(may.filter(|may| *may).count(), 10);
        assert!(seen.note(b"b", now), "others may");
        // It is remembered for a minute at least, and forgotten when it has not come for two.
        assert!(!seen.note(b"a", now + REPEAT_TIME));
        assert!(seen.note(b"c", now + 2 * REPEAT_TIME));
        assert!(seen.note(b"c", now + 3 * REPEAT_TIME));
        assert!(seen.note(b"a", now + 3 * REPEAT_TIME));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut seen, now) = (SeenSignatures::default(), crate::clock::Clock::system().now());
        for number in 0..5 * MAX_SEEN {
            assert!(seen.note(&number.to_be_bytes(), now));
        }
        assert!(seen.current.len() + seen.former.len() <= 2 * MAX_SEEN);
    }
}
