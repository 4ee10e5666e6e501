//! What the local table alone says of some tags, and whether it still says so. For code that serves
//! no client and therefore need not ask Redis.
//!
//! The table knows every purge while this sidecar runs by itself, or while it holds a lease.
//! Without a lease there is no snapshot, and a snapshot ends with its session, mode or epoch.

use crate::coherence::tag_snapshot::{LocalTagSnapshot, TagSnapshot};
use crate::coherence::validation::LocalProof;
use crate::coherence::{Coherence, CoherenceMode};
use crate::outcome::Reason;
use crate::policy::tag::Tag;

/// What the table says of some tags.
#[derive(Clone, Debug)]
pub struct LocalSnapshot {
    snapshot: LocalTagSnapshot,
    session: Option<u64>,
}

/// What the table said when something was fetched.
#[derive(Debug)]
pub struct SnapshotProof {
    proof: LocalProof,
    session: Option<u64>,
}

impl LocalSnapshot {
    /// The same as a [`TagSnapshot`].
    #[must_use]
    pub fn to_snapshot(&self) -> TagSnapshot {
        TagSnapshot::Local(self.snapshot.clone())
    }

    /// The step of the latest purge.
    #[must_use]
    pub const fn purges(&self) -> u64 {
        self.snapshot.seq
    }
}

impl Coherence {
    /// Reads the state of some tags from the local table, if the table knows every purge.
    #[must_use]
    pub fn local_snapshot(&self, tags: &[Tag]) -> Option<LocalSnapshot> {
        // The session comes first and the tag states after the lease: see `watch_tags`.
        let session = match self.mode() {
            CoherenceMode::Shared => Some(self.lease_state.session()),
            CoherenceMode::Local | CoherenceMode::Degraded => None,
            CoherenceMode::Rejoining => return None,
        };
        if session.is_some() && !self.lease_state.has_lease() {
            return None;
        }
        match self.read_local(tags) {
            TagSnapshot::Local(read) => Some(LocalSnapshot { snapshot: read, session }),
            TagSnapshot::Shared(..) | TagSnapshot::Unverifiable => None,
        }
    }

    /// The proof for something with these tags that was fetched since the snapshot; `None` if one
    /// of them was purged.
    #[must_use]
    pub fn prove_snapshot(&self, snapshot: &LocalSnapshot, tags: &[Tag]) -> Option<SnapshotProof> {
        let proof = SnapshotProof {
            proof: self.commit_local(&snapshot.snapshot, tags)?,
            session: snapshot.session,
        };
        self.is_in_session(&proof).then_some(proof)
    }

    /// Whether the proof still holds.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check_snapshot(&self, proof: &SnapshotProof) -> Result<(), Reason> {
        if self.is_in_session(proof) {
            self.validate_local(&proof.proof)
        } else {
            Err(Reason::Unverifiable)
        }
    }

    /// How many purges the local table has seen.
    #[must_use]
    pub fn purges(&self) -> u64 {
        self.table.seq()
    }

    fn is_in_session(&self, proof: &SnapshotProof) -> bool {
        // In this order: see the invariant in `lease.rs`.
        proof.session.is_none_or(|session| {
            self.lease_state.has_lease() && self.lease_state.session() == session
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn what_is_held_ends_with_a_purge_of_its_tags_alone() {
        let coherence = Coherence::new(None, Clock::manual());
        let (a, b) = (Tag::new("a"), Tag::new("b"));
        let snapshot =
            coherence.local_snapshot(std::slice::from_ref(&a)).expect("there are no peers");
        let proof = coherence
            .prove_snapshot(&snapshot, std::slice::from_ref(&a))
            .expect("nothing was purged");
        let purges = coherence.purges();
        coherence.purge(std::slice::from_ref(&b)).await;
        assert_eq!(coherence.check_snapshot(&proof), Ok(()));
        assert!(coherence.purges() > purges && snapshot.purges() == purges);
        assert!(
            coherence.prove_snapshot(&snapshot, &[a.clone(), b]).is_none(),
            "a tag outside the snapshot cannot be proven after any purge"
        );
        coherence.purge(std::slice::from_ref(&a)).await;
        assert_eq!(coherence.check_snapshot(&proof), Err(Reason::Purged));
        assert!(coherence.prove_snapshot(&snapshot, &[a]).is_none());
    }
}
