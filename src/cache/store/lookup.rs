//! What a lookup asks for and what it finds: a candidate is an entry that is valid, but may be
//! stale because its freshness has ended or because of a soft purge.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::store::memory::{CachedEntry, Memory, MemorySlot};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::{Reason, Tier};
use crate::policy::key::Key;
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::semantics::early_refresh;
use crate::semantics::vary::VarySpec;

/// What a lookup needs to know: a request, or a fill that has outlived its request.
pub trait LookupKey: Sync {
    /// The key before `Vary` narrows it.
    fn key(&self) -> &Key;
    /// The tags that follow from the request alone.
    fn tags(&self) -> Vec<Tag>;
    /// The key of the variant that the request selects.
    fn variant(&self, spec: &VarySpec) -> Key;
}

impl LookupKey for Lookup<'_> {
    fn key(&self) -> &Key {
        &self.key
    }

    fn tags(&self) -> Vec<Tag> {
        Lookup::tags(self)
    }

    fn variant(&self, spec: &VarySpec) -> Key {
        Lookup::variant(self, spec)
    }
}

/// The result of a lookup.
#[derive(Debug)]
pub struct LookupResult {
    /// The key of the variant that the request selects, as far as it is known.
    pub key: Key,
    /// The entry, if there is a valid one.
    pub candidate: Option<Candidate>,
    /// Why there is no fresh entry.
    pub miss_reason: Reason,
    /// The snapshot of the tags, for the fill that follows.
    pub snapshot: TagSnapshot,
}

/// A stored response that is valid: no hard purge has affected it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The entry.
    pub cached: Arc<CachedEntry>,
    /// The tier in which it was found.
    pub tier: Tier,
    /// Whether it is also fresh. If not, the origin may revalidate it, or it may stand in for a
    /// failure.
    pub fresh: bool,
    /// When a soft purge made it stale. Always `None` if it is fresh.
    pub soft_purged_at: Option<Wall>,
}

impl Candidate {
    /// An entry found in this tier, soft-purged at that time, if it is still of use. A soft purge
    /// ends the windows in which an entry is served, but not how long it is kept for revalidation.
    pub(super) fn new(
        cached: Arc<CachedEntry>,
        tier: Tier,
        soft_purged_at: Option<Wall>,
        now: Wall,
    ) -> Result<Self, Reason> {
        let fresh = soft_purged_at.is_none() && cached.entry.times.is_fresh(now);
        let retained = fresh || !cached.entry.retained_for(now).is_zero();
        if retained {
            Ok(Self { cached, tier, fresh, soft_purged_at })
        } else {
            Err(Reason::Expired)
        }
    }

    /// The rest of its freshness, in milliseconds; negative after its end. A soft purge can only
    /// move the end forward.
    #[must_use]
    pub fn ttl_ms(&self, now: Wall) -> i64 {
        let left = self.cached.entry.times.ttl_ms(now);
        let soft_purged_at = self
            .soft_purged_at
            .map(|at| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX));
        soft_purged_at.map_or(left, |ago| left.min(-ago))
    }

    /// Whether it is stale, but for less than `window`.
    #[must_use]
    pub fn is_within(&self, window: Duration, now: Wall) -> bool {
        early_refresh::is_open(self.ttl_ms(now), window)
    }
}

/// The entry in memory for a request, the key of its variant, and whether the key has variants.
pub(super) fn find_in_memory(
    memory: &Memory,
    lookup: &impl LookupKey,
) -> (Key, Option<Arc<CachedEntry>>, bool) {
    match memory.get(lookup.key()) {
        Some(MemorySlot::Entry(cached)) => (lookup.key().clone(), Some(cached), false),
        Some(MemorySlot::Vary(mark)) => {
            let key = lookup.variant(&mark.spec);
            let cached = match memory.get(&key) {
                Some(MemorySlot::Entry(cached)) => Some(cached),
                _ => None,
            };
            (key, cached, true)
        }
        None => (lookup.key().clone(), None, false),
    }
}

pub(super) const fn not_stored(varies: bool) -> Reason {
    if varies { Reason::VaryMiss } else { Reason::NotStored }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::entry::{Entry, EntryMetadata};
    use crate::coherence::stamp::{Nonce, Stamp};
    use crate::coherence::{Proof, SharedProof};
    use crate::semantics::times::{Leeway, Times};

    const WINDOW: Duration = Duration::from_millis(100);

    /// Received at 1,000, fresh for half a second, kept for two.
    fn cached() -> Arc<CachedEntry> {
        let times = Times {
            received: Wall(1_000),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_millis(500),
        };
        let leeway = Leeway { keep: Duration::from_secs(2), ..Leeway::default() };
        let metadata = EntryMetadata {
            times,
            leeway,
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let entry =
            Entry::compact(b"key", StatusCode::OK, &HeaderMap::new(), &[Bytes::new()], metadata);
        let stamp = Stamp { generation: Nonce([0; 16]), tags: Box::default() };
        Arc::new(CachedEntry::new(entry, Proof::Shared(SharedProof::new(stamp, None))))
    }

    fn found(soft_purged_at: Option<u64>, now: u64) -> Candidate {
        Candidate::new(cached(), Tier::Memory, soft_purged_at.map(Wall), Wall(now))
            .expect("it is retained")
    }

    #[test]
    fn a_window_begins_with_the_soft_purge() {
        assert!(!found(Some(1_200), 1_200).fresh, "no freshness is left");
        for (now, open) in [(1_200, true), (1_299, true), (1_300, false), (1_510, false)] {
            assert_eq!(found(Some(1_200), now).is_within(WINDOW, Wall(now)), open, "{now}");
        }
        assert_eq!(found(Some(1_200), 1_250).ttl_ms(Wall(1_250)), -50);
        assert!(
            !found(Some(1_200), 1_200).is_within(Duration::ZERO, Wall(1_200)),
            "an empty window is never open"
        );
        assert!(found(Some(1_201), 1_200).is_within(WINDOW, Wall(1_200)), "a clock that is behind");
    }

    #[test]
    fn a_soft_purge_never_moves_the_end_back() {
        for (now, open) in [(1_560, true), (1_599, true), (1_600, false), (1_640, false)] {
            assert_eq!(found(Some(1_550), now).is_within(WINDOW, Wall(now)), open, "{now}");
        }
        assert_eq!(found(Some(1_550), 1_560).ttl_ms(Wall(1_560)), -60);
    }

    #[test]
    fn without_a_soft_purge_the_freshness_of_the_response_counts() {
        assert!(found(None, 1_499).fresh && !found(None, 1_500).fresh);
        assert!(
            !found(None, 1_499).is_within(WINDOW, Wall(1_499))
                && found(None, 1_500).is_within(WINDOW, Wall(1_500))
        );
    }

    #[test]
    fn a_soft_purged_entry_is_kept_for_revalidation() {
        assert!(!found(Some(1_001), 3_499).is_within(WINDOW, Wall(3_499)));
        let gone = Candidate::new(cached(), Tier::Memory, Some(Wall(1_001)), Wall(3_500));
        assert_eq!(gone.map(|found| found.fresh), Err(Reason::Expired));
    }
}
