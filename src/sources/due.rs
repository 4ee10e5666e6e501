//! The purges of one source that are due: those that come together are made together, and beyond a
//! number of tags the families of all of them are purged instead. None is dropped.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::coherence::Released;
use crate::policy::tag::Tag;

/// How many tags of one source may wait.
pub const MAX_WAITING_TAGS: usize = 10_000;

/// How much may be told within [`BURST_TIME`] and is still read. What comes beyond purges the
/// families of all tags.
const MAX_BURST: usize = 500;

/// The time in which that much may be told.
const BURST_TIME: Duration = Duration::from_millis(100);

/// What is told lately.
#[derive(Debug, Default)]
pub(super) struct Burst {
    since: Option<Instant>,
    events: usize,
}

/// Whether there is room for one more thing that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BurstRoom {
    /// It is read.
    Free,
    /// It is the first one that is not.
    Reached,
    /// It is not, like others before it.
    Exceeded,
}

impl Burst {
    /// Counts one more.
    pub(super) fn note(&mut self, now: Instant) -> BurstRoom {
        let is_over =
            self.since.is_none_or(|since| now.saturating_duration_since(since) >= BURST_TIME);
        if is_over {
            *self = Self { since: Some(now), events: 0 };
        }
        self.events += 1;
        match self.events.cmp(&(MAX_BURST + 1)) {
            std::cmp::Ordering::Less => BurstRoom::Free,
            std::cmp::Ordering::Equal => BurstRoom::Reached,
            std::cmp::Ordering::Greater => BurstRoom::Exceeded,
        }
    }
}

/// Some of the templates of a source, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TemplateSet(u64);

impl TemplateSet {
    /// All of them.
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn insert(&mut self, at: usize) {
        self.0 |= 1 << at;
    }

    pub(super) const fn contains(self, at: usize) -> bool {
        self.0 >> at & 1 == 1
    }

    pub(super) const fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What is due.
#[derive(Debug, Default)]
pub(super) struct WaitingPurges {
    /// Tags that were named.
    pub(super) tags: HashSet<Tag>,
    /// The templates whose families are purged whole.
    pub(super) families: TemplateSet,
    /// The session whose hearing is proven once this is purged.
    pub(super) proves: Option<u64>,
    /// When the first of it was told.
    pub(super) since: Option<Instant>,
    /// Those who wait until it is purged.
    pub(super) waiters: Vec<oneshot::Sender<Released>>,
}

impl WaitingPurges {
    /// Adds tags and families. Says whether there were too many tags.
    pub(super) fn add(&mut self, tags: Vec<Tag>, families: TemplateSet, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.families.join(families);
        if self.families == TemplateSet::ALL {
            self.tags = HashSet::new();
            return false;
        }
        self.tags.extend(tags);
        let has_too_many = self.tags.len() > MAX_WAITING_TAGS;
        if has_too_many {
            (self.tags, self.families) = (HashSet::new(), TemplateSet::ALL);
        }
        has_too_many
    }

    /// What is due now, if anything is.
    pub(super) fn take(&mut self) -> Option<Self> {
        let is_due = !self.tags.is_empty()
            || !self.families.is_empty()
            || !self.waiters.is_empty()
            || self.proves.is_some();
        is_due.then(|| std::mem::take(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(from: usize, to: usize) -> Vec<Tag> {
        (from..to).map(|n| Tag::new(&format!("t{n}"))).collect()
    }

    #[test]
    fn what_is_read_of_a_storm_is_bounded() {
        let (mut burst, now) = (Burst::default(), crate::clock::Clock::system().now());
        let rooms: Vec<BurstRoom> = (0..MAX_BURST + 3).map(|_| burst.note(now)).collect();
        assert!(rooms[..MAX_BURST].iter().all(|room| *room == BurstRoom::Free));
        let last = [BurstRoom::Reached, BurstRoom::Exceeded, BurstRoom::Exceeded];
        assert_eq!(rooms[MAX_BURST..], last);
        assert_eq!(burst.note(now + BURST_TIME), BurstRoom::Free);
    }

    #[test]
    fn what_waits_is_bounded_and_none_is_dropped() {
        let (mut due, now) = (WaitingPurges::default(), crate::clock::Clock::system().now());
        assert!(due.take().is_none());
        assert!(!due.add(tags(0, 2), TemplateSet::default(), now));
        assert!(!due.add(tags(1, 3), TemplateSet::default(), now));
        assert_eq!(due.tags.len(), 3, "the same tag waits once");
        let mut second = TemplateSet::default();
        second.insert(1);
        assert!(!due.add(Vec::new(), second, now));
        let taken = due.take().expect("something is due");
        assert!(taken.families.contains(1) && !taken.families.contains(0));
        assert!(due.take().is_none());
        assert!(!due.add(tags(0, MAX_WAITING_TAGS), TemplateSet::default(), now));
        assert!(due.add(tags(MAX_WAITING_TAGS, MAX_WAITING_TAGS + 1), second, now));
        assert!(!due.add(tags(0, 9), TemplateSet::default(), now), "it is told once");
        let taken = due.take().expect("the families of all");
        assert_eq!((taken.tags.len(), taken.families), (0, TemplateSet::ALL));
    }
}
