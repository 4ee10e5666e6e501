//! Whether a cache would have had the response: which requests were seen within its `ttl`, and
//! what the app answered. In fixed slots, so that no number of paths takes more memory.

use std::time::Duration;

/// The `ttl` of the cache that might be.
pub const TTL: Duration = Duration::from_mins(1);
/// How many requests are remembered, in sets of [`WAYS`].
pub const MAX_REPEATS: usize = 16_384;
/// The places that one request may have.
const WAYS: usize = 4;

/// What was remembered of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, or it was too long ago.
    Nothing,
    /// The response was the same: it would have been a hit.
    Same,
    /// The response was another one.
    Changed {
        /// Whether the caller was another one, too.
        by_caller: bool,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    response: u64,
    caller: u64,
    /// When the response was stored, in milliseconds; 0 for none.
    stored: u64,
    /// When it was last asked for.
    used: u64,
}

/// The requests that were seen lately, by keyed hashes.
#[derive(Debug)]
pub struct Repeats {
    slots: Box<[Slot]>,
}

impl Default for Repeats {
    fn default() -> Self {
        Self { slots: vec![Slot::default(); MAX_REPEATS].into() }
    }
}

impl Repeats {
    /// Notes the response of this caller to the request with this key at this time, in milliseconds
    /// from 1 on, and tells what was there.
    pub fn see(&mut self, key: u64, caller: u64, response: u64, now: u64) -> Seen {
        let sets = self.slots.len() / WAYS;
        let set = usize::try_from(key % sets as u64).unwrap_or(0) * WAYS;
        let ways = &mut self.slots[set..set + WAYS];
        let ttl = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
        let is_fresh = |slot: &Slot| slot.stored > 0 && now.saturating_sub(slot.stored) < ttl;
        let new = Slot { key, response, caller, stored: now, used: now };
        let Some(slot) = ways.iter_mut().find(|slot| slot.stored > 0 && slot.key == key) else {
            // Those first that are of no use any more, then those that were used the longest ago.
            let rank = |slot: &Slot| (is_fresh(slot), slot.used);
            if let Some(slot) = ways.iter_mut().min_by_key(|slot| rank(slot)) {
                *slot = new;
            }
            return Seen::Nothing;
        };
        if !is_fresh(slot) {
            *slot = new;
            return Seen::Nothing;
        }
        slot.used = now;
        if slot.response == response {
            return Seen::Same;
        }
        let by_caller = slot.caller != caller;
        *slot = new;
        Seen::Changed { by_caller }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_counts_for_as_long_as_a_cache_would_keep_it() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.see(1, 0, 7, 1), Seen::Nothing);
        assert_eq!(repeats.see(1, 0, 7, 59_000), Seen::Same);
        assert_eq!(repeats.see(1, 0, 7, 60_001), Seen::Nothing, "hits do not prolong it");
        assert_eq!(repeats.see(1, 0, 7, 60_002), Seen::Same);
        assert_eq!(repeats.see(1, 0, 8, 60_003), Seen::Changed { by_caller: false });
        assert_eq!(repeats.see(1, 5, 9, 60_004), Seen::Changed { by_caller: true });
        assert_eq!(repeats.see(1, 5, 9, 60_005), Seen::Same);
    }

    #[test]
    fn what_is_asked_for_again_and_again_stays_among_strangers() {
        let (mut repeats, mut same) = (Repeats::default(), 0);
        for at in 1..=200_000_u64 {
            let stranger = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63;
            repeats.see(stranger, 0, at, at / 100 + 1);
            if at % 1000 == 0 {
                same += u64::from(repeats.see(17, 0, 1, at / 100 + 1) == Seen::Same);
            }
        }
        assert!(same > 190, "{same} of 200");
        assert_eq!(repeats.slots.len(), MAX_REPEATS);
    }
}
