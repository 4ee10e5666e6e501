//! How many variants `Vary` may make of one key: a stranger chooses the headers that a response
//! varies by, and so the number of its copies.
//!
//! Knows the hashes of the variants that this sidecar stored, newest last, and nothing of their
//! contents.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::policy::key::KeyHash;
use crate::telemetry::metrics::Counter;

/// Of how many keys the variants are counted at once. One that falls out is counted anew.
const MAX_KEYS: usize = 10_000;

/// The variants of the keys that have some.
#[derive(Debug)]
pub struct Variants {
    max: usize,
    known: Cache<KeyHash, Arc<[KeyHash]>>,
    /// A list is read, changed and put back by one at a time.
    changing: Mutex<()>,
    /// Variants dropped because their key had too many.
    pub dropped: Arc<Counter>,
}

impl Variants {
    /// At most so many for each key.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            max: most.max(1),
            known: Cache::new(MAX_KEYS),
            changing: Mutex::default(),
            dropped: Arc::default(),
        }
    }

    /// Notes that a variant is stored; gives back the oldest one when there are too many, for it to
    /// be dropped.
    #[must_use]
    pub fn record(&self, key: KeyHash, variant: KeyHash) -> Option<KeyHash> {
        // It guards no data of its own.
        let _changing = self.changing.lock();
        let known = self.known.get(&key).unwrap_or_default();
        let mut now: Vec<KeyHash> =
            known.iter().copied().filter(|other| *other != variant).collect();
        let oldest = (now.len() >= self.max).then(|| now.remove(0));
        now.push(variant);
        self.known.insert(key, now.into());
        if oldest.is_some() {
            self.dropped.inc();
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn hash(number: u8) -> KeyHash {
        KeyHash([number; 32])
    }

    #[test]
    fn the_oldest_variant_makes_room_for_the_newest() {
        let variants = Variants::new(2);
        let key = hash(0);
        assert_eq!((variants.record(key, hash(1)), variants.record(key, hash(2))), (None, None));
        assert_eq!(variants.record(key, hash(1)), None, "stored again, it is the newest");
        assert_eq!(variants.record(key, hash(3)), Some(hash(2)));
        assert_eq!(variants.record(hash(9), hash(3)), None, "another key has variants of its own");
        assert_eq!(variants.dropped.get(), 1);
    }

    #[test]
    fn any_number_of_variants_leaves_as_many_as_are_allowed() {
        let variants = Variants::new(64);
        let dropped = (0..=255).filter_map(|number| variants.record(hash(0), hash(number))).count();
        assert_eq!(dropped, 256 - 64);
    }
}
