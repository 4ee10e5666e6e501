//! The state of tags as a fill reads it before it sends its request to the origin; the response is
//! stored only if nothing has changed since.

use std::sync::Arc;
use std::time::Instant;

use crate::coherence::tag_record::RecordSnapshot;
use crate::coherence::tag_table::TagState;
use crate::policy::tag::Tag;

/// The state of some tags before the origin gets the request.
#[derive(Clone, Debug)]
pub enum TagSnapshot {
    /// From the local table.
    Local(LocalTagSnapshot),
    /// From Redis, in this epoch.
    Shared(u64, RecordSnapshot),
    /// Nothing could be read: the response is not stored.
    Unverifiable,
}

/// A read of the local table.
#[derive(Clone, Debug)]
pub struct LocalTagSnapshot {
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) seq: u64,
    pub(super) states: Vec<(Tag, Arc<TagState>, u64)>,
    pub(super) at: Instant,
}

impl TagSnapshot {
    /// Whether a request that read this may share the response of a fill that read `fill`.
    /// `more_tags` says whether the response carries tags that were not read: for these it must be
    /// certain that no purge at all came between.
    #[must_use]
    pub fn may_join(&self, fill: &Self, more_tags: bool) -> bool {
        match (self, fill) {
            (Self::Local(one), Self::Local(two)) => {
                let same_step = one.seq == two.seq;
                one.epoch == two.epoch
                    && one.generation == two.generation
                    && one.states.len() == two.states.len()
                    && one
                        .states
                        .iter()
                        .zip(&two.states)
                        .all(|((a, _, at), (b, _, then))| a == b && at == then)
                    && (same_step || !more_tags)
            }
            (Self::Shared(epoch, one), Self::Shared(then, two)) => {
                epoch == then
                    && one.agrees_with(two)
                    && ((one.seq.is_some() && one.seq == two.seq) || !more_tags)
            }
            _ => false,
        }
    }
}

impl TagSnapshot {
    /// Whether exactly `purges` purges came since `earlier` was read.
    #[must_use]
    pub fn is_later_by(&self, earlier: &Self, purges: u64) -> bool {
        match (self, earlier) {
            (Self::Local(now), Self::Local(then)) => {
                now.epoch == then.epoch
                    && now.generation == then.generation
                    && now.seq == then.seq + purges
            }
            (Self::Shared(epoch, now), Self::Shared(then_epoch, then)) => {
                let steps = now
                    .seq
                    .zip(then.seq)
                    .is_some_and(|(now, then)| now.checked_sub(then) == Some(purges));
                epoch == then_epoch && now.generation == then.generation && steps
            }
            _ => false,
        }
    }
}
