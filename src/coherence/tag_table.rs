//! The local table of tags: one cell for each tag that an entry or a fill of this process holds.
//!
//! Invariants:
//! - An entry is current if and only if every one of its cells says what it said when the fill
//!   began.
//! - A purge either finds a tag's cell, or moves `seq` before the cell is made; so a fill that
//!   first learns of the tag from its response notices by `seq` that it may have missed a purge.
//! - A cell lives as long as somebody holds it, so the table is bounded by what is stored and under
//!   way.
//! - A soft purge moves what every purge moves. Who finds something moved, and then no hard purge
//!   since, knows that soft ones alone moved it: a hard purge says so before it moves anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::clock::Wall;
use crate::policy::tag::Tag;

const SHARD_COUNT: usize = 16;

/// What purges have done to something.
#[derive(Debug, Default)]
struct PurgeSteps {
    /// The step of the last one; 0 for none.
    last: AtomicU64,
    /// The step of the last hard one.
    hard: AtomicU64,
    /// When the last soft one was, in milliseconds of [`Wall`].
    soft_purged_at: AtomicU64,
}

/// What has come of something since its state was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgedSince {
    /// Nothing: it is current.
    Unchanged,
    /// Soft purges alone, the last one then: it is stale.
    SoftPurged(Wall),
    /// A hard purge: it is void.
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
        // After the last one was found to have moved: see the table's invariants.
        if self.hard.load(SeqCst) > noted {
            PurgedSince::HardPurged
        } else {
            PurgedSince::SoftPurged(Wall(self.soft_purged_at.load(SeqCst)))
        }
    }

    /// A purge at this step: a soft one, if it comes with a time.
    fn record(&self, step: u64, softened: Option<Wall>) {
        match softened {
            Some(at) => self.soft_purged_at.fetch_max(at.0, SeqCst),
            None => self.hard.fetch_max(step, SeqCst),
        };
        self.last.fetch_max(step, SeqCst);
    }
}

/// One tag's state in this process.
#[derive(Debug, Default)]
pub struct TagState {
    purges: PurgeSteps,
    /// Mutations under way whose rule says `guard = "bypass"`.
    guards: AtomicU32,
}

impl TagState {
    /// The step of the last purge, hard or soft; 0 for none since the cell was made.
    #[must_use]
    pub fn last_purge(&self) -> u64 {
        self.purges.last()
    }

    /// What has come since it was last purged at this step.
    #[must_use]
    pub fn since(&self, purged: u64) -> PurgedSince {
        self.purges.since(purged)
    }

    /// Whether hits are to wait for a mutation.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.guards.load(SeqCst) > 0
    }
}

/// Keeps hits on a tag away while it lives.
#[derive(Debug)]
pub struct TagGuard(Arc<TagState>);

impl TagGuard {
    fn new(cell: Arc<TagState>) -> Self {
        cell.guards.fetch_add(1, SeqCst);
        Self(cell)
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
    /// Sweep when the shard has grown to this.
    sweep_at: usize,
}

/// All cells.
#[derive(Debug)]
pub struct TagTable {
    shards: Vec<Mutex<Shard>>,
    /// One step per purge. Starts at 1, so that 0 is before every purge.
    seq: AtomicU64,
    /// Those of everything.
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

    /// What has come of everything since this generation.
    #[must_use]
    pub fn since(&self, generation: u64) -> PurgedSince {
        self.everything.since(generation)
    }

    /// The cell of a tag, and whether it was made just now.
    pub fn tag_state(&self, tag: &Tag) -> (Arc<TagState>, bool) {
        self.with_shard(tag, |shard| {
            if let Some(cell) = shard.states.get(tag).and_then(Weak::upgrade) {
                return (cell, false);
            }
            if shard.states.len() >= shard.sweep_at {
                shard.states.retain(|_, cell| cell.strong_count() > 0);
                // A quarter of dead cells at the most, for a sweep that costs each new cell four
                // steps.
                shard.sweep_at = (shard.states.len() + shard.states.len() / 4).max(64);
            }
            let cell = Arc::new(TagState::default());
            shard.states.insert(tag.clone(), Arc::downgrade(&cell));
            (cell, true)
        })
    }

    /// A tag with its cell, and what that says.
    pub fn snapshot(&self, tag: &Tag) -> (Tag, Arc<TagState>, u64) {
        let (cell, _) = self.tag_state(tag);
        let purged = cell.last_purge();
        (tag.clone(), cell, purged)
    }

    /// Purges tags: everything that carries one of them is void.
    pub fn purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) {
        self.apply_purge(tags, None);
    }

    /// Purges tags softly: everything that carries one of them is stale since then.
    pub fn soft_purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, at: Wall) {
        self.apply_purge(tags, Some(at));
    }

    fn apply_purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, softened: Option<Wall>) {
        // First the step, then the cells: see the second invariant.
        let step = self.next_step();
        for tag in tags {
            let cell = self.with_shard(tag, |shard| shard.states.get(tag).and_then(Weak::upgrade));
            if let Some(cell) = cell {
                cell.purges.record(step, softened);
            }
        }
    }

    /// Empties the cache logically.
    pub fn purge_everything(&self) {
        self.everything.record(self.next_step(), None);
    }

    /// Makes everything stale since then.
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

    /// How many cells are remembered, the dead ones that no sweep has met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().states.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    fn a_purge_reaches_the_cell_that_is_held() {
        let table = TagTable::default();
        let (tag, other) = (Tag::new("a"), Tag::new("b"));
        let ((cell, made), (bystander, _)) = (table.tag_state(&tag), table.tag_state(&other));
        let before = cell.last_purge();
        table.purge([&tag]);
        assert!(made && cell.last_purge() > before);
        assert_eq!(bystander.last_purge(), 0);
        assert!(!table.tag_state(&tag).1, "the cell is held, so it is found again");
    }

    #[test]
    fn a_purge_of_a_tag_that_nobody_holds_moves_the_step() {
        let table = TagTable::default();
        let before = table.seq();
        table.purge([&Tag::new("a")]);
        assert!(table.seq() > before && table.is_empty());
    }

    #[test]
    fn a_soft_purge_moves_the_cell_and_tells_when() {
        let table = TagTable::default();
        let tag = Tag::new("a");
        let (cell, _) = table.tag_state(&tag);
        let noted = cell.last_purge();
        assert_eq!(cell.since(noted), PurgedSince::Unchanged);
        table.soft_purge([&tag], Wall(7));
        assert_ne!(cell.last_purge(), noted, "whoever compares finds it moved");
        assert_eq!(cell.since(noted), PurgedSince::SoftPurged(Wall(7)));
        let renewed = cell.last_purge();
        assert_eq!(cell.since(renewed), PurgedSince::Unchanged);
        table.soft_purge([&tag], Wall(9));
        assert_eq!(
            (cell.since(noted), cell.since(renewed)),
            (PurgedSince::SoftPurged(Wall(9)), PurgedSince::SoftPurged(Wall(9)))
        );
    }

    #[test]
    fn a_hard_purge_voids_what_soft_ones_before_and_after_it_touched() {
        for order in [[true, false], [false, true]] {
            let table = TagTable::default();
            let tag = Tag::new("a");
            let (cell, _) = table.tag_state(&tag);
            let (noted, generation) = (cell.last_purge(), table.generation());
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
                (cell.since(noted), table.since(generation)),
                (PurgedSince::HardPurged, PurgedSince::HardPurged),
                "soft first: {}",
                order[0]
            );
        }
    }

    #[test]
    fn everything_is_softened_apart_from_its_tags() {
        let table = TagTable::default();
        let (cell, _) = table.tag_state(&Tag::new("a"));
        let (noted, generation, step) = (cell.last_purge(), table.generation(), table.seq());
        table.soft_purge_everything(Wall(7));
        assert_eq!(
            (cell.since(noted), table.since(generation)),
            (PurgedSince::Unchanged, PurgedSince::SoftPurged(Wall(7)))
        );
        assert!(
            table.generation() != generation && table.seq() > step,
            "fills under way find that it moved"
        );
    }

    #[test]
    fn the_table_forgets_what_nobody_holds() {
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
        let (cell, _) = table.tag_state(&tag);
        let guards = table.guard([&tag, &tag]);
        assert!(cell.is_guarded());
        drop(guards);
        assert!(!cell.is_guarded());
    }
}
