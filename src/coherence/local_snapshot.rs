//! What the local table alone says of some tags, and whether it still says so: for who serves
//! nobody, and so need not ask Redis.
//!
//! The table is told of every purge while this sidecar is by itself, and under a lease where
//! several share a Redis. Without a lease nothing is said; what was said in another session, mode
//! or epoch no longer holds.

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
    /// The same as a reading.
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
    /// Reads the state of some tags from the local table, if it is told of every purge.
    #[must_use]
    pub fn local_snapshot(&self, tags: &[Tag]) -> Option<LocalSnapshot> {
        // The session first, and the cells after the lease: see `watch_tags`.
        let session = match self.mode() {
            CoherenceMode::Shared => Some(self.lease_state.session()),
            CoherenceMode::Local | CoherenceMode::Degraded => None,
        };
        if session.is_some() && !self.lease_state.has_lease() {
            return None;
        }
        match self.read_local(tags) {
            TagSnapshot::Local(read) => Some(LocalSnapshot { snapshot: read, session }),
            TagSnapshot::Shared(..) | TagSnapshot::Unverifiable => None,
        }
    }

    /// What must still be said for something with these tags, fetched since the glance, to be
    /// current; none if one of them was purged.
    #[must_use]
    pub fn prove_snapshot(&self, glance: &LocalSnapshot, tags: &[Tag]) -> Option<SnapshotProof> {
        let held = SnapshotProof {
            proof: self.commit_local(&glance.snapshot, tags)?,
            session: glance.session,
        };
        self.is_in_session(&held).then_some(held)
    }

    /// Whether it is still said.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check_snapshot(&self, held: &SnapshotProof) -> Result<(), Reason> {
        if self.is_in_session(held) {
            self.validate_local(&held.proof)
        } else {
            Err(Reason::Unverifiable)
        }
    }

    /// How often the local table has purged.
    #[must_use]
    pub fn purges(&self) -> u64 {
        self.table.seq()
    }

    fn is_in_session(&self, held: &SnapshotProof) -> bool {
        // In this order: see the gate's invariant.
        held.session.is_none_or(|session| {
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
        let glance =
            coherence.local_snapshot(std::slice::from_ref(&a)).expect("nobody else purges");
        let held =
            coherence.prove_snapshot(&glance, std::slice::from_ref(&a)).expect("no purge came");
        let purges = coherence.purges();
        coherence.purge(std::slice::from_ref(&b)).await;
        assert_eq!(coherence.check_snapshot(&held), Ok(()));
        assert!(coherence.purges() > purges && glance.purges() == purges);
        assert!(
            coherence.prove_snapshot(&glance, &[a.clone(), b]).is_none(),
            "a tag that was not read, after any purge"
        );
        coherence.purge(std::slice::from_ref(&a)).await;
        assert_eq!(coherence.check_snapshot(&held), Err(Reason::Purged));
        assert!(coherence.prove_snapshot(&glance, &[a]).is_none());
    }
}
