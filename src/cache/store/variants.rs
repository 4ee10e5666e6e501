//! A limit on how many variants `Vary` may make of one key: clients choose the values of the
//! headers that a response varies on, and so the number of copies.
//!
//! Knows the hashes of the variants that this sidecar stored, newest last, and nothing of their
//! contents.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::policy::key::KeyHash;
use crate::telemetry::metrics::Counter;

/// For how many keys variants are counted at once. The count of an evicted key starts anew.
const MAX_KEYS: usize = 10_000;

/// The known variants of keys.
#[derive(Debug)]
pub struct Variants {
    max: usize,
    known: Cache<KeyHash, Arc<[KeyHash]>>,
    /// Serializes the changes of lists: a list is read, changed and put back.
    changing: Mutex<()>,
    /// Variants dropped because their key had too many.
    pub dropped: Arc<Counter>,
}

impl Variants {
    /// At most so many variants for each key.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            max: most.max(1),
            known: Cache::new(MAX_KEYS),
            changing: Mutex::default(),
            dropped: Arc::default(),
        }
    }

    /// Records that a variant is stored. Returns the oldest one if there are too many, for the
    /// caller to drop.
    #[must_use]
    pub fn record(&self, key: KeyHash, variant: KeyHash) -> Option<KeyHash> {
        // The lock guards no data of its own.
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
        KeyHash::of_byte(number)
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
