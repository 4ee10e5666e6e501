//! What must still be true for an entry to be served.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;

use crate::coherence::stamp::Stamp;
use crate::coherence::tag_table::TagState;
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
