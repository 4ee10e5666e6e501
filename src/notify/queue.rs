//! The purges that one receiver has not been told of yet.
//!
//! Invariant: what is added is taken, again and again, until it is told. Beyond [`MAX_WAITING`]
//! tags everything is told in their place; nothing is dropped.

use std::collections::HashSet;
use std::time::Instant;

use super::message::NotifyBatch;
use crate::policy::tag::Tag;

/// How many tags may wait.
pub const MAX_WAITING: usize = 10_000;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct WaitingTags {
    tags: HashSet<Tag>,
    everything: bool,
    since: Option<Instant>,
}

impl WaitingTags {
    /// Adds tags, or everything for `None`. Says whether there were too many tags.
    pub(super) fn add(&mut self, tags: Option<&[Tag]>, now: Instant) -> bool {
        let own = tags.map(|tags| tags.iter().filter(|tag| !tag.is_caller()));
        if let Some(own) = own {
            if !self.everything {
                self.tags.extend(own.cloned());
            }
        } else {
            self.tag_everything();
        }
        let has_too_many = self.tags.len() > MAX_WAITING;
        if has_too_many {
            self.tag_everything();
        }
        if !self.is_empty() {
            self.since.get_or_insert(now);
        }
        has_too_many
    }

    fn tag_everything(&mut self) {
        (self.tags, self.everything) = (HashSet::new(), true);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.everything && self.tags.is_empty()
    }

    /// How many tags wait; one for everything.
    pub(super) fn len(&self) -> usize {
        self.tags.len() + usize::from(self.everything)
    }

    /// When the first of it was added.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes at most so many tags, or everything.
    pub(super) fn take(&mut self, most: usize) -> Option<NotifyBatch> {
        if self.everything {
            *self = Self::default();
            return Some(NotifyBatch::Everything);
        }
        let batch: Vec<Tag> = self.tags.iter().take(most).cloned().collect();
        for tag in &batch {
            self.tags.remove(tag);
        }
        if self.tags.is_empty() {
            self.since = None;
        }
        (!batch.is_empty()).then_some(NotifyBatch::Tags(batch))
    }

    /// Adds what waits elsewhere.
    pub(super) fn join(&mut self, other: Self) {
        let Some(since) = other.since else { return };
        let tags: Vec<Tag> = other.tags.into_iter().collect();
        self.since = Some(self.since.map_or(since, |own| own.min(since)));
        self.add(if other.everything { None } else { Some(&tags) }, since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(from: usize, to: usize) -> Vec<Tag> {
        (from..to).map(|n| Tag::new(&format!("t{n}"))).collect()
    }

    #[test]
    fn what_waits_is_taken_in_parts_and_beyond_a_number_everything_is() {
        let (mut waiting, now) = (WaitingTags::default(), crate::clock::Clock::system().now());
        assert!(!waiting.add(Some(&[Tag::for_caller("x")]), now) && waiting.is_empty());
        assert_eq!((waiting.since(), waiting.take(3)), (None, None));
        for _ in 0..2 {
            assert!(!waiting.add(Some(&tags(0, 5)), now));
        }
        assert_eq!((waiting.len(), waiting.since()), (5, Some(now)));
        for expected in [3, 2] {
            let Some(NotifyBatch::Tags(taken)) = waiting.take(3) else { panic!("tags") };
            assert_eq!(taken.len(), expected);
        }
        assert!(waiting.is_empty() && waiting.since().is_none());
        assert!(!waiting.add(Some(&tags(0, MAX_WAITING)), now));
        assert!(waiting.add(Some(&tags(MAX_WAITING, MAX_WAITING + 1)), now));
        assert!(!waiting.add(Some(&tags(0, 9)), now), "it is told once");
        assert_eq!((waiting.len(), waiting.take(3)), (1, Some(NotifyBatch::Everything)));
        assert!(waiting.is_empty());
        let mut other = WaitingTags::default();
        other.add(None, now);
        waiting.add(Some(&tags(0, 2)), now);
        waiting.join(other);
        assert_eq!(waiting.take(1), Some(NotifyBatch::Everything));
    }
}
