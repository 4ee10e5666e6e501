//! What this process knows of an entry by itself: its tags, and whether it is current. For people
//! who browse the memory tier: nothing is asked of Redis, and no client is served by it.

use std::time::{Duration, Instant};

use crate::clock::Wall;
use crate::coherence::tag_table::PurgedSince;
use crate::coherence::validation::{LocalProof, Proof, SharedProof};
use crate::coherence::{Coherence, CoherenceMode};
use crate::outcome::Reason;
use crate::policy::tag::Tag;
use crate::redis::OnLoss;

impl Proof {
    /// The tags of the entry.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        let (local, shared) = match self {
            Self::Local(proof) => (Some(proof.tags()), None),
            Self::Shared(proof) => (None, Some(proof.stamp.tags.iter().map(|(tag, _)| tag))),
        };
        local.into_iter().flatten().chain(shared.into_iter().flatten())
    }

    /// How long the entry is trusted from `now` on, where that is limited: what is stored while
    /// Redis is lost. `None` without a limit.
    #[must_use]
    pub fn trusted_for(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Local(proof) => proof.until.map(|until| until.saturating_duration_since(now)),
            Self::Shared(_) => None,
        }
    }
}

impl LocalProof {
    /// The tags of the entry, in the order in which it was stored.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.states.iter().map(|(state, _)| state.name())
    }
}

impl Coherence {
    /// How many tags the local table holds.
    #[must_use]
    pub fn local_tags(&self) -> usize {
        self.table.len()
    }

    /// Whether an entry or a fill of this process carries a tag.
    #[must_use]
    pub fn is_held(&self, tag: &Tag) -> bool {
        self.table.is_held(tag)
    }

    /// When a soft purge made an entry stale; `None` if it is current.
    ///
    /// # Errors
    /// Why it would not be served: it was purged, a write is in progress, or nothing in this
    /// process vouches for it, so that Redis would be asked.
    pub fn known_state(&self, proof: &Proof) -> Result<Option<Wall>, Reason> {
        match (proof, self.mode()) {
            (Proof::Local(_), CoherenceMode::Degraded) if self.on_loss() == OnLoss::Bypass => {
                Err(Reason::Unverifiable)
            }
            (Proof::Local(proof), CoherenceMode::Local | CoherenceMode::Degraded) => {
                self.soft_purged_at_local(proof)
            }
            (Proof::Shared(proof), CoherenceMode::Shared) => self.known_shared_state(proof),
            _ => Err(Reason::Unverifiable),
        }
    }

    fn known_shared_state(&self, proof: &SharedProof) -> Result<Option<Wall>, Reason> {
        let leased = proof.leased.load();
        let Some(leased) = &*leased else { return Err(Reason::Unverifiable) };
        let generation = self.table.since(leased.generation);
        let states = leased.states.iter().map(|(state, purged)| state.since(*purged));
        let mut soft_purged_at: Option<Wall> = None;
        for since in std::iter::once(generation).chain(states) {
            match since {
                PurgedSince::Unchanged => {}
                // No lease is needed to believe in a purge.
                PurgedSince::HardPurged => return Err(Reason::Purged),
                PurgedSince::SoftPurged(at) => {
                    soft_purged_at = Some(soft_purged_at.map_or(at, |first| first.min(at)));
                }
            }
        }
        if !self.lease_state.has_lease() || self.lease_state.session() != leased.session {
            return Err(Reason::Unverifiable);
        }
        if leased.states.iter().any(|(state, _)| state.is_guarded()) {
            return Err(Reason::MutationPending);
        }
        Ok(soft_purged_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::coherence::PurgeKind;

    #[tokio::test]
    async fn a_proof_names_its_tags_and_ends_with_the_next_purge_of_one() {
        let coherence = Coherence::new(None, Clock::manual());
        let tags = [Tag::new("b"), Tag::new("a")];
        coherence.purge(&tags).await;
        let proof = Proof::Local(coherence.prove_from_now(&tags));
        assert_eq!(coherence.known_state(&proof), Ok(None), "what was purged before is past");
        assert_eq!(proof.tags().cloned().collect::<Vec<_>>(), tags);
        let newer = Proof::Local(coherence.prove_from_now(&[Tag::new("c")]));
        coherence.purge(&tags[1..]).await;
        assert_eq!(coherence.known_state(&proof), Err(Reason::Purged));
        assert_eq!(coherence.known_state(&newer), Ok(None));
        coherence.purge_everything(PurgeKind::Hard).await;
        assert_eq!(coherence.known_state(&newer), Err(Reason::Purged));
    }

    #[tokio::test]
    async fn a_soft_purge_is_told_with_its_time() {
        let clock = Clock::manual();
        let coherence = Coherence::new(None, clock.clone());
        let tags = [Tag::new("a")];
        let proof = Proof::Local(coherence.prove_from_now(&tags));
        let before = clock.wall();
        coherence.purge_with(&tags, PurgeKind::Soft).await;
        let Ok(Some(at)) = coherence.known_state(&proof) else { panic!("a soft purge") };
        assert!((before..=clock.wall()).contains(&at), "{at:?}, {before:?}");
        assert_eq!(proof.trusted_for(clock.now()), None);
    }

    #[test]
    fn an_entry_that_redis_proved_is_unknown_without_redis() {
        use crate::coherence::stamp::{Nonce, Stamp};

        let coherence = Coherence::new(None, Clock::manual());
        let tags = [(Tag::new("a"), Nonce([1; 16]))].into();
        let stamp = Stamp { generation: Nonce([0; 16]), tags };
        let proof = Proof::Shared(SharedProof::new(stamp, None));
        assert_eq!(coherence.known_state(&proof), Err(Reason::Unverifiable));
        assert_eq!(proof.tags().map(Tag::as_str).collect::<Vec<_>>(), ["a"]);
    }
}
