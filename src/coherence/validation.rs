//! What must still be true for an entry to be served.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;

use crate::clock::Wall;
use crate::coherence::Coherence;
use crate::coherence::stamp::Stamp;
use crate::coherence::tag_table::{PurgedSince, TagState};
use crate::outcome::Reason;
use crate::policy::tag::Tag;

/// What must still be true for an entry to be served.
#[derive(Debug)]
pub enum Proof {
    /// The cells of its tags say what they said.
    Local(LocalProof),
    /// The records of its tags in Redis say what they said.
    Shared(SharedProof),
}

/// The state of some cells: inline for the usual few, since a hit should not have to look for them.
pub(super) type TagStates = SmallVec<[(Arc<TagState>, u64); 3]>;

/// A proof by the local table.
#[derive(Debug)]
pub struct LocalProof {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) states: TagStates,
    /// The end of trust, when Redis is lost.
    pub(super) until: Option<Instant>,
}

/// A proof by the records in Redis.
#[derive(Debug)]
pub struct SharedProof {
    /// What the records said.
    pub stamp: Stamp,
    /// What the local table said before the records were last seen to say so.
    pub(super) leased: ArcSwapOption<LeasedSnapshot>,
}

/// What the local table said, under a lease.
#[derive(Debug)]
pub(super) struct LeasedSnapshot {
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) states: TagStates,
}

/// What the local table says of some tags, under a lease, before Redis is asked about them.
#[derive(Debug)]
pub struct TagWatch {
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) states: Vec<(Tag, Arc<TagState>, u64)>,
}

impl TagWatch {
    /// What it says of the tags of this stamp; none when it does not speak of all of them.
    fn leased_snapshot(&self, stamp: &Stamp) -> Option<Arc<LeasedSnapshot>> {
        let seen = |tag: &Tag| {
            self.states
                .iter()
                .find(|(name, _, _)| name == tag)
                .map(|(_, cell, purged)| (Arc::clone(cell), *purged))
        };
        let cells: Option<TagStates> = stamp.tags.iter().map(|(tag, _)| seen(tag)).collect();
        Some(Arc::new(LeasedSnapshot {
            session: self.session,
            generation: self.generation,
            states: cells?,
        }))
    }

    /// Both, if they are of one session.
    #[must_use]
    pub fn merge(mut self, more: Self) -> Option<Self> {
        let same = self.session == more.session && self.generation == more.generation;
        self.states.extend(more.states);
        same.then_some(self)
    }
}

impl SharedProof {
    /// A proof by this stamp, which Redis vouched for after the watch began.
    #[must_use]
    pub fn new(stamp: Stamp, watch: Option<&TagWatch>) -> Self {
        let leased = ArcSwapOption::from(watch.and_then(|watch| watch.leased_snapshot(&stamp)));
        Self { stamp, leased }
    }

    /// Redis has vouched for it again, after the watch began.
    pub fn renew(&self, watch: Option<&TagWatch>) {
        if let Some(leased) = watch.and_then(|watch| watch.leased_snapshot(&self.stamp)) {
            self.leased.store(Some(leased));
        }
    }
}

impl Proof {
    /// How much memory it takes beside the entry.
    #[must_use]
    pub fn weight(&self) -> usize {
        // A cell with its name in the table, shared by some entries.
        const CELL: usize = 176;
        match self {
            Self::Local(local) => local.states.len() * CELL,
            Self::Shared(proof) => {
                128 + proof
                    .stamp
                    .tags
                    .iter()
                    .map(|(tag, _)| tag.as_str().len() + 48 + CELL)
                    .sum::<usize>()
            }
        }
    }
}

impl Coherence {
    /// Whether an entry is current by the local table. One that was purged softly is not.
    pub fn validate_local(&self, proof: &LocalProof) -> Result<(), Reason> {
        if self.soft_purged_at_local(proof)?.is_some() { Err(Reason::Purged) } else { Ok(()) }
    }

    /// Since when a soft purge has made an entry stale that is otherwise current by the local
    /// table; nothing where none has.
    pub fn soft_purged_at_local(&self, proof: &LocalProof) -> Result<Option<Wall>, Reason> {
        if proof.epoch != self.epoch() {
            return Err(Reason::Unverifiable);
        }
        let mut softened: Option<Wall> = None;
        let mut compare = |since| match since {
            PurgedSince::Unchanged => Ok(()),
            PurgedSince::SoftPurged(at) => {
                softened = Some(softened.map_or(at, |first| first.min(at)));
                Ok(())
            }
            PurgedSince::HardPurged => Err(Reason::Purged),
        };
        compare(self.table.since(proof.generation))?;
        if proof.until.is_some_and(|until| self.clock.now() >= until) {
            // Not merely stale: nobody can say any more whether it was purged.
            return Err(Reason::Unverifiable);
        }
        for (cell, purged) in &proof.states {
            compare(cell.since(*purged))?;
            if cell.is_guarded() {
                return Err(Reason::MutationPending);
            }
        }
        Ok(softened)
    }

    /// Whether an entry that Redis vouched for is current by the local table, so that Redis need
    /// not be asked.
    #[must_use]
    pub fn is_current_locally(&self, proof: &SharedProof) -> bool {
        let leased = proof.leased.load();
        let Some(leased) = &*leased else { return false };
        // In this order: see the gate's invariant.
        self.lease_state.has_lease()
            && self.lease_state.session() == leased.session
            && self.table.generation() == leased.generation
            && leased
                .states
                .iter()
                .all(|(cell, purged)| cell.last_purge() == *purged && !cell.is_guarded())
    }

    /// An entry's tags, and which of them are as they were when it was stored; for people to read.
    /// `names` are those of an entry of this process, in the order in which it was stored; one from
    /// Redis knows its own.
    pub async fn current_tags(&self, proof: &Proof, names: &[Tag]) -> Vec<(Tag, bool)> {
        match proof {
            Proof::Local(local) => {
                let stands = local.generation == self.table.generation();
                let cells = names.iter().zip(&local.states);
                cells
                    .map(|(tag, (cell, purged))| {
                        (tag.clone(), stands && cell.last_purge() == *purged)
                    })
                    .collect()
            }
            Proof::Shared(SharedProof { stamp, .. }) => {
                let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
                let reading = match &self.records {
                    Some(shared) => self
                        .record_result(shared.fetch(None, &tags).await)
                        .ok()
                        .and_then(|fetched| fetched.reading),
                    None => None,
                };
                let reading = reading.filter(|reading| reading.generation == stamp.generation);
                let stands = |tag: &Tag, nonce| {
                    reading.as_ref().is_some_and(|reading| reading.nonce(tag) == Some(nonce))
                };
                stamp.tags.iter().map(|(tag, nonce)| (tag.clone(), stands(tag, *nonce))).collect()
            }
        }
    }

    /// Begins to watch tags, before Redis is asked about them; none without a lease.
    #[must_use]
    pub fn watch_tags(&self, tags: &[Tag]) -> Option<TagWatch> {
        // The session first: a lease that is found in force after it is that session's, or a later
        // one's, which makes the watch worthless but not wrong.
        let session = self.lease_state.session();
        if !self.lease_state.has_lease() {
            return None;
        }
        let generation = self.table.generation();
        let cells = tags.iter().map(|tag| self.table.snapshot(tag)).collect();
        Some(TagWatch { session, generation, states: cells })
    }
}
