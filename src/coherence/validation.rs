//! Proofs: what must still be true for an entry to be served, and whether it is.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;

use crate::clock::Wall;
use crate::coherence::Coherence;
use crate::coherence::stamp::{Stamp, find_from};
use crate::coherence::tag_table::{PurgedSince, TagState};
use crate::outcome::Reason;
use crate::policy::tag::Tag;
use crate::redis::ReplyWait;
use crate::units::allocated;

/// What must still be true for an entry to be served.
#[derive(Debug)]
pub enum Proof {
    /// The local table must still say the same of its tags.
    Local(LocalProof),
    /// The records in Redis must still say the same of its tags.
    Shared(SharedProof),
}

/// The states of some tags. Inline for the usual few, so that a hit needs no pointer to find them.
pub(super) type TagStates = SmallVec<[(Arc<TagState>, u64); 5]>;

/// A proof by the local table.
#[derive(Debug)]
pub struct LocalProof {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) states: TagStates,
    /// When trust ends, while Redis is lost.
    pub(super) until: Option<Instant>,
}

/// A proof by the records in Redis.
#[derive(Debug)]
pub struct SharedProof {
    /// What the records said.
    pub stamp: Stamp,
    /// What the local table said before the records were last seen to agree with the stamp.
    pub(super) leased: ArcSwapOption<LeasedSnapshot>,
}

/// What the local table said, under a lease.
#[derive(Debug)]
pub(super) struct LeasedSnapshot {
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) states: TagStates,
}

/// What the local table said of some tags, under a lease, before a read of Redis.
#[derive(Debug)]
pub struct TagWatch {
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) states: Vec<(Tag, Arc<TagState>, u64)>,
}

impl TagWatch {
    /// What it said of the tags of this stamp; `None` unless it includes all of them.
    fn leased_snapshot(&self, stamp: &Stamp) -> Option<Arc<LeasedSnapshot>> {
        let mut from = 0;
        let mut seen = |tag: &Tag| {
            find_from(&self.states, &mut from, |(name, _, _)| name == tag)
                .map(|(_, state, purged)| (Arc::clone(state), *purged))
        };
        let states: Option<TagStates> = stamp.tags.iter().map(|(tag, _)| seen(tag)).collect();
        Some(Arc::new(LeasedSnapshot {
            session: self.session,
            generation: self.generation,
            states: states?,
        }))
    }

    /// Both together, if they belong to the same session.
    #[must_use]
    pub fn merge(mut self, more: Self) -> Option<Self> {
        let same = self.session == more.session && self.generation == more.generation;
        self.states.extend(more.states);
        same.then_some(self)
    }
}

impl SharedProof {
    /// A proof by this stamp, which Redis validated after the watch began.
    #[must_use]
    pub fn new(mut stamp: Stamp, watch: Option<&TagWatch>) -> Self {
        let leased = watch.and_then(|watch| watch.leased_snapshot(&stamp));
        if let Some(leased) = &leased {
            // The table has each name once already.
            for ((tag, _), (state, _)) in stamp.tags.iter_mut().zip(&leased.states) {
                tag.clone_from(state.name());
            }
        }
        let leased = ArcSwapOption::from(leased);
        Self { stamp, leased }
    }

    /// Notes that Redis has validated the stamp again, after the watch began.
    pub fn renew(&self, watch: Option<&TagWatch>) {
        if let Some(leased) = watch.and_then(|watch| watch.leased_snapshot(&self.stamp)) {
            self.leased.store(Some(leased));
        }
    }
}

impl Proof {
    /// The memory of what it points to. The first entries of a tag bear what its state takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Local(local) => weight_of(&local.states),
            Self::Shared(proof) => {
                // With two counts of references.
                let snapshot = allocated(size_of::<LeasedSnapshot>() + 2 * size_of::<usize>());
                let leased = proof.leased.load();
                let states = leased.as_ref().map_or(0, |leased| weight_of(&leased.states));
                let texts = proof.stamp.tags.iter().map(|(tag, _)| tag.weight()).sum::<usize>();
                snapshot + states + allocated(size_of_val(&*proof.stamp.tags)) + texts
            }
        }
    }
}

fn weight_of(states: &TagStates) -> usize {
    let list = if states.spilled() { allocated(size_of_val(&**states)) } else { 0 };
    // Held by this proof, by that of the entry that it replaces, and by what read the tags.
    let own = states.iter().filter(|(state, _)| Arc::strong_count(state) <= 3);
    list + own.map(|(state, _)| state.weight()).sum::<usize>()
}

impl Coherence {
    /// Whether an entry is current by the local table. One that was purged softly is not.
    pub fn validate_local(&self, proof: &LocalProof) -> Result<(), Reason> {
        if self.soft_purged_at_local(proof)?.is_some() { Err(Reason::Purged) } else { Ok(()) }
    }

    /// When a soft purge made an entry stale that is otherwise current by the local table; `None`
    /// if none did.
    pub fn soft_purged_at_local(&self, proof: &LocalProof) -> Result<Option<Wall>, Reason> {
        if proof.epoch != self.epoch() {
            return Err(Reason::Unverifiable);
        }
        let mut soft_purged_at: Option<Wall> = None;
        let mut compare = |since| match since {
            PurgedSince::Unchanged => Ok(()),
            PurgedSince::SoftPurged(at) => {
                soft_purged_at = Some(soft_purged_at.map_or(at, |first| first.min(at)));
                Ok(())
            }
            PurgedSince::HardPurged => Err(Reason::Purged),
        };
        compare(self.table.since(proof.generation))?;
        if proof.until.is_some_and(|until| self.clock.now() >= until) {
            // More than stale: it is unknown whether the entry was purged.
            return Err(Reason::Unverifiable);
        }
        for (state, purged) in &proof.states {
            compare(state.since(*purged))?;
            if state.is_guarded() {
                return Err(Reason::MutationPending);
            }
        }
        Ok(soft_purged_at)
    }

    /// Whether an entry that Redis has validated is current by the local table, so that a hit can
    /// skip Redis.
    #[must_use]
    pub fn is_current_locally(&self, proof: &SharedProof) -> bool {
        let leased = proof.leased.load();
        let Some(leased) = &*leased else { return false };
        // In this order: see the invariant in `lease.rs`.
        self.lease_state.has_lease()
            && self.lease_state.session() == leased.session
            && self.table.generation() == leased.generation
            && leased
                .states
                .iter()
                .all(|(state, purged)| state.last_purge() == *purged && !state.is_guarded())
    }

    /// The tags of an entry, and whether each is in the state in which the entry was stored. For
    /// people to read.
    pub async fn current_tags(&self, proof: &Proof) -> Vec<(Tag, bool)> {
        match proof {
            Proof::Local(local) => {
                let is_current = local.generation == self.table.generation();
                let states = local.states.iter();
                states
                    .map(|(state, purged)| {
                        (state.name().clone(), is_current && state.last_purge() == *purged)
                    })
                    .collect()
            }
            Proof::Shared(SharedProof { stamp, .. }) => {
                let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
                let snapshot = match &self.records {
                    Some(shared) => self
                        .record_result(shared.fetch(None, &tags, ReplyWait::Prompt).await)
                        .ok()
                        .and_then(|fetched| fetched.reading),
                    None => None,
                };
                let snapshot = snapshot.filter(|snapshot| snapshot.generation == stamp.generation);
                let is_current = |tag: &Tag, nonce| {
                    snapshot.as_ref().is_some_and(|snapshot| snapshot.nonce(tag) == Some(nonce))
                };
                stamp
                    .tags
                    .iter()
                    .map(|(tag, nonce)| (tag.clone(), is_current(tag, *nonce)))
                    .collect()
            }
        }
    }

    /// A proof that holds until one of these tags is purged. It says nothing of what was purged
    /// before now, so what it is for must be confirmed in another way.
    #[must_use]
    pub fn prove_from_now(&self, tags: &[Tag]) -> LocalProof {
        // The epoch comes first, as in `read_local`.
        let (epoch, generation) = (self.epoch(), self.table.generation());
        let states = tags.iter().map(|tag| self.table.snapshot(tag));
        let states = states.map(|(_, state, purged)| (state, purged)).collect();
        LocalProof { epoch, generation, states, until: None }
    }

    /// Notes the state of tags before Redis is read; `None` without a lease.
    #[must_use]
    pub fn watch_tags(&self, tags: &[Tag]) -> Option<TagWatch> {
        // The session comes first: a lease found after it belongs to that session or to a later
        // one, which makes the watch useless but not wrong.
        let session = self.lease_state.session();
        if !self.lease_state.has_lease() {
            return None;
        }
        let generation = self.table.generation();
        let states = tags.iter().map(|tag| self.table.snapshot(tag)).collect();
        Some(TagWatch { session, generation, states })
    }
}
