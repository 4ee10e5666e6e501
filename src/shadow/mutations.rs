//! The latest writes that this sidecar forwarded: those that may have changed a response.
//!
//! A write is recorded before the origin sees it. A write that the origin rejected is removed
//! again; every other may have changed something.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use http::Method;
use parking_lot::{Mutex, MutexGuard};

use crate::clock::Wall;
use crate::policy::tag::Tag;
use crate::shadow::history::{StepNumber, StepSpan};
use crate::shadow::path;
use crate::shadow::write_answers::WriteAnswers;

/// How many writes are kept.
pub const MAX_MUTATIONS: usize = 1024;

/// Numbers the events.
#[derive(Debug, Default)]
pub struct Steps(AtomicU64);

impl Steps {
    /// The next number.
    pub fn next(&self) -> StepNumber {
        self.0.fetch_add(1, SeqCst) + 1
    }
}

#[derive(Debug)]
struct MutationRecord {
    began: StepNumber,
    /// `None` while it is in flight.
    ended: Option<StepNumber>,
    at: Wall,
    method: Method,
    path: Box<str>,
    tags: Vec<Tag>,
}

#[derive(Debug, Default)]
struct Ring {
    /// In the order in which they began.
    records: VecDeque<MutationRecord>,
    /// The latest end of the evicted writes. A write that was evicted while in flight may end at
    /// any time.
    forgotten: Option<StepNumber>,
}

/// A write that may have changed a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its method.
    pub method: Method,
    /// Its path, cut to [`path::MAX_PATH`] bytes.
    pub path: Box<str>,
    /// When it ended, or when it began if it is still in flight.
    pub at: Wall,
}

/// The latest writes.
#[derive(Debug)]
pub struct Mutations {
    /// What the origin answered to writes.
    pub answers: WriteAnswers,
    ring: Mutex<Ring>,
    steps: Arc<Steps>,
}

/// A write in flight. Dropping it means that it has ended and may have changed something.
#[derive(Debug)]
pub struct TrackedMutation {
    mutations: Arc<Mutations>,
    began: StepNumber,
    refused: bool,
}

impl Mutations {
    /// No writes yet.
    #[must_use]
    pub fn new(steps: Arc<Steps>) -> Self {
        Self { answers: WriteAnswers::default(), ring: Mutex::default(), steps }
    }

    /// Records a write that is about to be forwarded and will purge these tags.
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        tags: &[Tag],
        now: Wall,
    ) -> TrackedMutation {
        let mut ring = self.lock();
        // Under the lock, so that the ring is in the order of the steps.
        let began = self.steps.next();
        if ring.records.len() >= MAX_MUTATIONS
            && let Some(old) = ring.records.pop_front()
        {
            ring.forgotten = ring.forgotten.max(Some(old.ended.unwrap_or(StepNumber::MAX)));
        }
        let record = MutationRecord {
            began,
            ended: None,
            at: now,
            method: method.clone(),
            path: path::remembered(path),
            tags: tags.to_vec(),
        };
        ring.records.push_back(record);
        drop(ring);
        TrackedMutation { mutations: Arc::clone(self), began, refused: false }
    }

    /// How many writes overlap the time from the beginning of this span until now.
    #[must_use]
    pub fn since(&self, span: &StepSpan) -> usize {
        let ring = self.lock();
        let known = ring
            .records
            .iter()
            .rev()
            .filter(|record| record.ended.is_none_or(|ended| ended >= span.sent))
            .count();
        if ring.forgotten.is_some_and(|forgotten| forgotten >= span.sent) {
            known.saturating_add(MAX_MUTATIONS)
        } else {
            known
        }
    }

    /// Whether a write in flight will purge one of these tags.
    #[must_use]
    pub fn will_purge(&self, tags: &[Tag]) -> bool {
        self.lock().records.iter().any(|record| record.ended.is_none() && touches(record, tags))
    }

    /// The latest `most` writes that may have changed a response with these tags, and purged none
    /// of them, since a step or, if there is none, since a time. The latest comes first.
    #[must_use]
    pub fn suspects(
        &self,
        since: Result<StepNumber, Wall>,
        tags: &[Tag],
        most: usize,
    ) -> Vec<Suspect> {
        let ring = self.lock();
        let later = |record: &&MutationRecord| match since {
            Ok(step) => record.ended.is_none_or(|ended| ended >= step),
            Err(wall) => record.ended.is_none() || record.at >= wall,
        };
        let mut found: Vec<Suspect> = Vec::new();
        for record in
            ring.records.iter().rev().filter(later).filter(|record| !touches(record, tags))
        {
            if found.iter().any(|known| known.method == record.method && known.path == record.path)
            {
                continue;
            }
            found.push(Suspect {
                method: record.method.clone(),
                path: record.path.clone(),
                at: record.at,
            });
            if found.len() == most {
                break;
            }
        }
        found
    }

    fn end(&self, mutation: &TrackedMutation) {
        let mut ring = self.lock();
        let ended = self.steps.next();
        let Ok(at) = ring.records.binary_search_by_key(&mutation.began, |record| record.began)
        else {
            return;
        };
        if mutation.refused {
            ring.records.remove(at);
        } else if let Some(record) = ring.records.get_mut(at) {
            record.ended = Some(ended);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // The ring is consistent between any two statements that could panic.
        self.ring.lock()
    }
}

impl TrackedMutation {
    /// Records that it also purged these tags.
    pub fn also_purged(&self, tags: &[Tag]) {
        let mut ring = self.mutations.lock();
        if let Ok(at) = ring.records.binary_search_by_key(&self.began, |record| record.began)
            && let Some(record) = ring.records.get_mut(at)
        {
            record.tags.extend_from_slice(tags);
        }
    }

    /// The origin rejected it, or never received it: nothing has changed.
    pub fn refused(mut self) {
        self.refused = true;
    }

    /// Records that it has ended.
    pub fn ended(self, now: Wall) {
        let mut ring = self.mutations.lock();
        if let Ok(at) = ring.records.binary_search_by_key(&self.began, |record| record.began)
            && let Some(record) = ring.records.get_mut(at)
        {
            record.at = now;
        }
        drop(ring);
    }
}

impl Drop for TrackedMutation {
    fn drop(&mut self) {
        self.mutations.end(self);
    }
}

fn touches(record: &MutationRecord, tags: &[Tag]) -> bool {
    record.tags.iter().any(|tag| tags.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutations() -> (Arc<Mutations>, Arc<Steps>) {
        let steps = Arc::new(Steps::default());
        (Arc::new(Mutations::new(Arc::clone(&steps))), steps)
    }

    fn tag(name: &str) -> Tag {
        Tag::new(name)
    }

    fn paths(suspects: &[Suspect]) -> Vec<&str> {
        suspects.iter().map(|suspect| &*suspect.path).collect()
    }

    #[test]
    fn suspects_are_the_later_writes_that_purged_none_of_the_tags() {
        let (mutations, steps) = mutations();
        let put = |path: &str, tags: &[Tag]| mutations.begin(&Method::PUT, path, tags, Wall(1));
        drop(put("/before", &[]));
        let since = steps.next();
        put("/refused", &[]).refused();
        drop(put("/covered", &[tag("a")]));
        let named = put("/named", &[]);
        named.also_purged(&[tag("a")]);
        named.ended(Wall(5));
        put("/it", &[tag("b")]).ended(Wall(7));
        let under_way = put("/under-way", &[tag("b")]);
        let suspects = mutations.suspects(Ok(since), &[tag("a")], 8);
        assert_eq!(paths(&suspects), ["/under-way", "/it"]);
        assert_eq!(suspects[1].at, Wall(7));
        assert_eq!(paths(&mutations.suspects(Err(Wall(6)), &[tag("a")], 8)), ["/under-way", "/it"]);
        assert_eq!(mutations.suspects(Ok(since), &[tag("a")], 1).len(), 1);
        assert!(mutations.will_purge(&[tag("b")]) && !mutations.will_purge(&[tag("a")]));
        drop(under_way);
        assert!(!mutations.will_purge(&[tag("b")]));
    }

    #[test]
    fn a_write_from_before_that_ends_meanwhile_counts() {
        let (mutations, steps) = mutations();
        let write = mutations.begin(&Method::POST, "/a", &[], Wall(0));
        let span = StepSpan { sent: steps.next(), done: 0, purges: 0 };
        assert_eq!(mutations.since(&span), 1);
        drop(write);
        assert_eq!(mutations.since(&span), 1);
        let span = StepSpan { sent: steps.next(), done: 0, purges: 0 };
        assert_eq!(mutations.since(&span), 0);
    }

    #[test]
    fn the_ring_is_bounded_and_remembers_that_it_evicted() {
        let (mutations, steps) = mutations();
        let early = StepSpan { sent: steps.next(), done: 0, purges: 0 };
        let held = mutations.begin(&Method::POST, "/first", &[], Wall(0));
        for _ in 0..MAX_MUTATIONS {
            drop(mutations.begin(&Method::POST, &"/x".repeat(500), &[], Wall(0)));
        }
        assert_eq!(mutations.lock().records.len(), MAX_MUTATIONS);
        assert!(
            mutations.since(&early) > MAX_MUTATIONS,
            "one that was pushed out may have been in that time"
        );
        assert!(mutations.lock().records.iter().all(|record| record.path.len() <= path::MAX_PATH));
        drop(held);
        assert_eq!(
            mutations.lock().records.len(),
            MAX_MUTATIONS,
            "the end of one that was pushed out ends nothing else"
        );
    }
}
