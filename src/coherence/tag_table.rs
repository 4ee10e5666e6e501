//! The local table: one [`TagState`] for each tag that an entry or a fill of this process holds.
//!
//! Invariants:
//! - An entry is current if and only if all its tag states say what they said when its fill began.
//! - A purge either finds the state of a tag, or advances `seq` before the state is created. So a
//!   fill that learns of a tag from its response sees by `seq` that it may have missed a purge.
//! - A tag state lives as long as something holds it, so the table is bounded by what is stored and
//!   in progress.
//! - A soft purge advances everything that a hard purge does. A reader that sees a change, and then
//!   no hard purge, knows that only soft purges came: a hard purge records itself before it
//!   advances anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::clock::Wall;
use crate::policy::tag::Tag;
use crate::units::allocated;

const SHARD_COUNT: usize = 16;

/// The steps of the purges of one tag, or of everything.
#[derive(Debug, Default)]
struct PurgeSteps {
    /// The step of the last purge; 0 for none.
    last: AtomicU64,
    /// The step of the last hard purge.
    hard: AtomicU64,
    /// When the last soft purge was, in milliseconds of [`Wall`].
    soft_purged_at: AtomicU64,
}

/// Which purges came since a step was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgedSince {
    /// None: the entry is current.
    Unchanged,
    /// Soft purges only, the last one at this time: the entry is stale.
    SoftPurged(Wall),
    /// A hard purge: the entry is invalid.
    HardPurged,
}

impl PurgeSteps {
    fn last(&self) -> u64 {
        self.last.load(SeqCst)
    }

    fn since(&self, noted: u64) -> PurgedSince {
        if self.last() == noted {
            return PurgedSince::Unchanged;
        }
        // Read after `last` was seen to change: see the invariants of the table.
        if self.hard.load(SeqCst) > noted {
            PurgedSince::HardPurged
        } else {
            PurgedSince::SoftPurged(Wall(self.soft_purged_at.load(SeqCst)))
        }
    }

    /// Records a purge at this step: a soft one if it comes with a time.
    fn record(&self, step: u64, soft_purged_at: Option<Wall>) {
        match soft_purged_at {
            Some(at) => self.soft_purged_at.fetch_max(at.0, SeqCst),
            None => self.hard.fetch_max(step, SeqCst),
        };
        self.last.fetch_max(step, SeqCst);
    }
}

/// One tag's state in this process.
#[derive(Debug)]
pub struct TagState {
    /// The tag, for people to read: no hit reads it.
    name: Tag,
    purges: PurgeSteps,
    /// Mutations in progress whose rule says `guard = "bypass"`.
    guards: AtomicU32,
}

impl TagState {
    fn new(name: Tag) -> Self {
        Self { name, purges: PurgeSteps::default(), guards: AtomicU32::new(0) }
    }

    /// The tag.
    #[must_use]
    pub const fn name(&self) -> &Tag {
        &self.name
    }

    /// The step of the last purge, hard or soft; 0 for none since the state was created.
    #[must_use]
    pub fn last_purge(&self) -> u64 {
        self.purges.last()
    }

    /// Which purges came since the last purge was at this step.
    #[must_use]
    pub fn since(&self, purged: u64) -> PurgedSince {
        self.purges.since(purged)
    }

    /// The memory that it takes, with its name and its place in the table.
    #[must_use]
    pub fn weight(&self) -> usize {
        // A slot and its control byte, in a table that is two thirds full.
        let slot = (size_of::<(Tag, Weak<Self>)>() + 1) * 3 / 2;
        allocated(size_of::<Self>() + 2 * size_of::<usize>()) + self.name.weight() + slot
    }

    /// Whether a mutation keeps hits away.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.guards.load(SeqCst) > 0
    }
}

/// Keeps hits on a tag away until it is dropped.
#[derive(Debug)]
pub struct TagGuard(Arc<TagState>);

impl TagGuard {
    fn new(state: Arc<TagState>) -> Self {
        state.guards.fetch_add(1, SeqCst);
        Self(state)
    }
}

impl Drop for TagGuard {
    fn drop(&mut self) {
        self.0.guards.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, Default)]
struct Shard {
    states: HashMap<Tag, Weak<TagState>>,
    /// The size at which dead states are swept out.
    sweep_at: usize,
}

/// The states of all tags.
#[derive(Debug)]
pub struct TagTable {
    shards: Vec<Mutex<Shard>>,
    /// The step of the latest purge. Starts at 1, so that 0 comes before every purge.
    seq: AtomicU64,
    /// Purges of everything.
    everything: PurgeSteps,
}

impl Default for TagTable {
    fn default() -> Self {
        let shards = (0..SHARD_COUNT)
            .map(|_| Mutex::new(Shard { states: HashMap::new(), sweep_at: 64 }))
            .collect();
        Self { shards, seq: AtomicU64::new(1), everything: PurgeSteps::default() }
    }
}

impl TagTable {
    /// The step of the latest purge.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq.load(SeqCst)
    }

    /// Changes when everything is purged, hard or soft.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.everything.last()
    }

    /// Which purges of everything came since this generation.
    #[must_use]
    pub fn since(&self, generation: u64) -> PurgedSince {
        self.everything.since(generation)
    }

    /// The state of a tag, and whether it was created just now.
    pub fn tag_state(&self, tag: &Tag) -> (Arc<TagState>, bool) {
        self.with_shard(tag, |shard| {
            if let Some(state) = shard.states.get(tag).and_then(Weak::upgrade) {
                return (state, false);
            }
            if shard.states.len() >= shard.sweep_at {
                shard.states.retain(|_, state| state.strong_count() > 0);
                // At most a quarter of the states are dead, and a sweep costs four steps for each
                // new state.
                shard.sweep_at = (shard.states.len() + shard.states.len() / 4).max(64);
            }
            let state = Arc::new(TagState::new(tag.clone()));
            shard.states.insert(tag.clone(), Arc::downgrade(&state));
            (state, true)
        })
    }

    /// A tag with its state, and the step of its last purge.
    pub fn snapshot(&self, tag: &Tag) -> (Tag, Arc<TagState>, u64) {
        let (state, _) = self.tag_state(tag);
        let purged = state.last_purge();
        (tag.clone(), state, purged)
    }

    /// Purges tags: entries that carry one of them are invalid.
    pub fn purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) {
        self.apply_purge(tags, None);
    }

    /// Purges tags softly: entries that carry one of them are stale from this time on.
    pub fn soft_purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, at: Wall) {
        self.apply_purge(tags, Some(at));
    }

    fn apply_purge<'a>(
        &self,
        tags: impl IntoIterator<Item = &'a Tag>,
        soft_purged_at: Option<Wall>,
    ) {
        // The step comes before the states: see the second invariant.
        let step = self.next_step();
        for tag in tags {
            let state = self.with_shard(tag, |shard| shard.states.get(tag).and_then(Weak::upgrade));
            if let Some(state) = state {
                state.purges.record(step, soft_purged_at);
            }
        }
    }

    /// Makes all entries invalid.
    pub fn purge_everything(&self) {
        self.everything.record(self.next_step(), None);
    }

    /// Makes all entries stale from this time on.
    pub fn soft_purge_everything(&self, at: Wall) {
        self.everything.record(self.next_step(), Some(at));
    }

    fn next_step(&self) -> u64 {
        self.seq.fetch_add(1, SeqCst) + 1
    }

    /// Keeps hits on these tags away until the guards are dropped.
    pub fn guard<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) -> Vec<TagGuard> {
        tags.into_iter().map(|tag| TagGuard::new(self.tag_state(tag).0)).collect()
    }

    /// Whether something holds the state of a tag.
    #[must_use]
    pub fn is_held(&self, tag: &Tag) -> bool {
        self.with_shard(tag, |shard| {
            shard.states.get(tag).is_some_and(|state| state.strong_count() > 0)
        })
    }

    /// How many states the table holds, including dead ones not yet swept out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().states.len()).sum()
    }

    fn with_shard<R>(&self, tag: &Tag, act: impl FnOnce(&mut Shard) -> R) -> R {
        let sum = tag.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        let index = usize::try_from(sum >> 32).unwrap_or_default() % SHARD_COUNT;
        act(&mut self.shards[index].lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_reaches_the_state_that_is_held() {
        let table = TagTable::default();
        let (tag, other) = (Tag::new("a"), Tag::new("b"));
        let ((state, made), (bystander, _)) = (table.tag_state(&tag), table.tag_state(&other));
        let before = state.last_purge();
        table.purge([&tag]);
        assert!(made && state.last_purge() > before);
        assert_eq!(bystander.last_purge(), 0);
        assert!(!table.tag_state(&tag).1, "the state is held, so it is found again");
    }

    #[test]
    fn a_purge_of_a_tag_without_a_state_advances_the_step() {
        let table = TagTable::default();
        let before = table.seq();
        table.purge([&Tag::new("a")]);
        assert!(table.seq() > before && table.len() == 0);
    }

    #[test]
    fn a_soft_purge_advances_the_state_and_says_when() {
        let table = TagTable::default();
        let tag = Tag::new("a");
        let (state, _) = table.tag_state(&tag);
        let noted = state.last_purge();
        assert_eq!(state.since(noted), PurgedSince::Unchanged);
        table.soft_purge([&tag], Wall(7));
        assert_ne!(state.last_purge(), noted, "a reader that compares sees the change");
        assert_eq!(state.since(noted), PurgedSince::SoftPurged(Wall(7)));
        let renewed = state.last_purge();
        assert_eq!(state.since(renewed), PurgedSince::Unchanged);
        table.soft_purge([&tag], Wall(9));
        assert_eq!(
            (state.since(noted), state.since(renewed)),
            (PurgedSince::SoftPurged(Wall(9)), PurgedSince::SoftPurged(Wall(9)))
        );
    }

    #[test]
    fn a_hard_purge_wins_over_soft_ones_before_and_after_it() {
        for order in [[true, false], [false, true]] {
            let table = TagTable::default();
            let tag = Tag::new("a");
            let (state, _) = table.tag_state(&tag);
            let (noted, generation) = (state.last_purge(), table.generation());
            for soft in order {
                if soft {
                    table.soft_purge([&tag], Wall(7));
                    table.soft_purge_everything(Wall(7));
                } else {
                    table.purge([&tag]);
                    table.purge_everything();
                }
            }
            assert_eq!(
                (state.since(noted), table.since(generation)),
                (PurgedSince::HardPurged, PurgedSince::HardPurged),
                "soft first: {}",
                order[0]
            );
        }
    }

    #[test]
    fn a_soft_purge_of_everything_leaves_the_tag_states_alone() {
        let table = TagTable::default();
        let (state, _) = table.tag_state(&Tag::new("a"));
        let (noted, generation, step) = (state.last_purge(), table.generation(), table.seq());
        table.soft_purge_everything(Wall(7));
        assert_eq!(
            (state.since(noted), table.since(generation)),
            (PurgedSince::Unchanged, PurgedSince::SoftPurged(Wall(7)))
        );
        assert!(
            table.generation() != generation && table.seq() > step,
            "fills in progress see the change"
        );
    }

    #[test]
    fn the_table_forgets_states_that_are_not_held() {
        let table = TagTable::default();
        let held: Vec<_> =
            (0..100).map(|n| table.tag_state(&Tag::new(&format!("held{n}")))).collect();
        for n in 0..100_000 {
            drop(table.tag_state(&Tag::new(&format!("passing{n}"))));
        }
        assert!(table.len() < 5_000, "{}", table.len());
        assert!(
            held.iter()
                .enumerate()
                .all(|(n, _)| !table.tag_state(&Tag::new(&format!("held{n}"))).1)
        );
    }

    #[test]
    fn a_guard_ends_when_it_is_dropped() {
        let table = TagTable::default();
        let tag = Tag::new("a");
        let (state, _) = table.tag_state(&tag);
        let guards = table.guard([&tag, &tag]);
        assert!(state.is_guarded());
        drop(guards);
        assert!(!state.is_guarded());
    }
}
