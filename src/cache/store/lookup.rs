//! A stored response that was found and judged: how stale it is, which the end of its freshness
//! says, or a soft purge before that.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::{Reason, Tier};
use crate::semantics::early_refresh;

/// A stored response that is not void: no hard purge has touched what it is made of.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The entry.
    pub cached: Arc<CachedEntry>,
    /// Where it was found.
    pub tier: Tier,
    /// Whether it is fresh as well. If not, it may be confirmed by the app, or stand in for it.
    pub fresh: bool,
    /// When a soft purge has made it stale. Never of what is fresh.
    pub soft_purged_at: Option<Wall>,
}

impl Candidate {
    /// What was found in this tier, and made stale by a soft purge then, if it is still of any use.
    /// What the app may confirm is: a soft purge ends the windows in which it is served, not how
    /// long it is kept.
    pub(super) fn new(
        resident: Arc<CachedEntry>,
        tier: Tier,
        softened: Option<Wall>,
        now: Wall,
    ) -> Result<Self, Reason> {
        let fresh = softened.is_none() && resident.entry.times.is_fresh(now);
        let kept = fresh || !resident.entry.retained_for(now).is_zero();
        if kept {
            Ok(Self { cached: resident, tier, fresh, soft_purged_at: softened })
        } else {
            Err(Reason::Expired)
        }
    }

    /// What is left of its freshness, in milliseconds; negative since its end, which a soft purge
    /// brings forward and never puts off.
    #[must_use]
    pub fn ttl_ms(&self, now: Wall) -> i64 {
        let left = self.cached.entry.times.ttl_ms(now);
        let softened = self
            .soft_purged_at
            .map(|at| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX));
        softened.map_or(left, |ago| left.min(-ago))
    }

    /// Whether it is no longer fresh, but not for longer than `window`.
    #[must_use]
    pub fn is_within(&self, window: Duration, now: Wall) -> bool {
        early_refresh::is_open(self.ttl_ms(now), window)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::entry::{Entry, EntryMetadata, Nonce, Stamp};
    use crate::coherence::{Proof, SharedProof};
    use crate::semantics::times::{Leeway, Times};

    const WINDOW: Duration = Duration::from_millis(100);

    /// Received at 1,000, fresh for half a second, kept for two.
    fn resident() -> Arc<CachedEntry> {
        let times = Times {
            received: Wall(1_000),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_millis(500),
        };
        let leeway = Leeway { keep: Duration::from_secs(2), ..Leeway::default() };
        let facts = EntryMetadata {
            times,
            leeway,
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let entry =
            Entry::compact(b"key", StatusCode::OK, &HeaderMap::new(), &[Bytes::new()], facts);
        let stamp = Stamp { generation: Nonce([0; 16]), tags: Box::default() };
        Arc::new(CachedEntry { entry, proof: Proof::Shared(SharedProof::new(stamp, None)) })
    }

    fn found(softened: Option<u64>, now: u64) -> Candidate {
        Candidate::new(resident(), Tier::Memory, softened.map(Wall), Wall(now)).expect("it is kept")
    }

    #[test]
    fn a_window_begins_with_the_soft_purge() {
        assert!(!found(Some(1_200), 1_200).fresh, "no moment of freshness is left");
        for (now, open) in [(1_200, true), (1_299, true), (1_300, false), (1_510, false)] {
            assert_eq!(found(Some(1_200), now).is_within(WINDOW, Wall(now)), open, "{now}");
        }
        assert_eq!(found(Some(1_200), 1_250).ttl_ms(Wall(1_250)), -50);
        assert!(
            !found(Some(1_200), 1_200).is_within(Duration::ZERO, Wall(1_200)),
            "a window of nothing is none"
        );
        assert!(found(Some(1_201), 1_200).is_within(WINDOW, Wall(1_200)), "a clock that lags");
    }

    #[test]
    fn a_soft_purge_puts_no_end_off() {
        for (now, open) in [(1_560, true), (1_599, true), (1_600, false), (1_640, false)] {
            assert_eq!(found(Some(1_550), now).is_within(WINDOW, Wall(now)), open, "{now}");
        }
        assert_eq!(found(Some(1_550), 1_560).ttl_ms(Wall(1_560)), -60);
    }

    #[test]
    fn without_a_soft_purge_its_own_freshness_counts() {
        assert!(found(None, 1_499).fresh && !found(None, 1_500).fresh);
        assert!(
            !found(None, 1_499).is_within(WINDOW, Wall(1_499))
                && found(None, 1_500).is_within(WINDOW, Wall(1_500))
        );
    }

    #[test]
    fn what_was_purged_softly_is_kept_to_be_confirmed() {
        assert!(!found(Some(1_001), 3_499).is_within(WINDOW, Wall(3_499)));
        let gone = Candidate::new(resident(), Tier::Memory, Some(Wall(1_001)), Wall(3_500));
        assert_eq!(gone.map(|found| found.fresh), Err(Reason::Expired));
    }
}
