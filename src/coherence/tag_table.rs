//! The local table of tags: one cell for each tag that an entry or a fill of this process holds.
//!
//! Invariants:
//! - An entry is current if and only if every one of its cells says what it said when the fill began.
//! - A purge either finds a tag's cell, or moves `seq` before the cell is made; so a fill that first learns of the tag
//!   from its response notices by `seq` that it may have missed a purge.
//! - A cell lives as long as somebody holds it, so the table is bounded by what is stored and under way.
//! - A soft purge moves what every purge moves. Who finds something moved, and then no hard purge since, knows that soft ones alone moved it:
//!   a hard purge says so before it moves anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::clock::Wall;
use crate::policy::tag::Tag;

const SHARDS: usize = 16;

/// What purges have done to something.
#[derive(Debug, Default)]
struct Purges {
    /// The step of the last one; 0 for none.
    last: AtomicU64,
    /// The step of the last hard one.
    hard: AtomicU64,
    /// When the last soft one was, in milliseconds of [`Wall`].
    softened: AtomicU64,
}

/// What has come of something since its state was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing: it is current.
    Nothing,
    /// Soft purges alone, the last one then: it is stale.
    Softened(Wall),
    /// A hard purge: it is void.
    Voided,
}

impl Purges {
    fn last(&self) -> u64 {
        self.last.load(SeqCst)
    }

    fn since(&self, noted: u64) -> Since {
        if self.last() == noted {
            return Since::Nothing;
        }
        // After the last one was found to have moved: see the table's invariants.
        if self.hard.load(SeqCst) > noted { Since::Voided } else { Since::Softened(Wall(self.softened.load(SeqCst))) }
    }

    /// A purge at this step: a soft one, if it comes with a time.
    fn note(&self, step: u64, softened: Option<Wall>) {
        match softened {
            Some(at) => self.softened.fetch_max(at.0, SeqCst),
            None => self.hard.fetch_max(step, SeqCst),
        };
        self.last.fetch_max(step, SeqCst);
    }
}

/// One tag's state in this process.
#[derive(Debug, Default)]
pub struct Cell {
    purges: Purges,
    /// Mutations under way whose rule says `guard = "bypass"`.
    guards: AtomicU32,
}

impl Cell {
    /// The step of the last purge, hard or soft; 0 for none since the cell was made.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.purges.last()
    }

    /// What has come since it was last purged at this step.
    #[must_use]
    pub fn since(&self, purged: u64) -> Since {
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
pub struct Guarded(Arc<Cell>);

impl Guarded {
    fn new(cell: Arc<Cell>) -> Self {
        cell.guards.fetch_add(1, SeqCst);
        Self(cell)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.guards.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<Tag, Weak<Cell>>,
    /// Sweep when the shard has grown to this.
    sweep_at: usize,
}

/// All cells.
#[derive(Debug)]
pub struct Table {
    shards: Vec<Mutex<Shard>>,
    /// One step per purge. Starts at 1, so that 0 is before every purge.
    seq: AtomicU64,
    /// Those of everything.
    everything: Purges,
}

impl Default for Table {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard { cells: HashMap::new(), sweep_at: 64 })).collect();
        Self { shards, seq: AtomicU64::new(1), everything: Purges::default() }
    }
}

impl Table {
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
    pub fn since(&self, generation: u64) -> Since {
        self.everything.since(generation)
    }

    /// The cell of a tag, and whether it was made just now.
    pub fn cell(&self, tag: &Tag) -> (Arc<Cell>, bool) {
        self.with_shard(tag, |shard| {
            if let Some(cell) = shard.cells.get(tag).and_then(Weak::upgrade) {
                return (cell, false);
            }
            if shard.cells.len() >= shard.sweep_at {
                shard.cells.retain(|_, cell| cell.strong_count() > 0);
                // A quarter of dead cells at the most, for a sweep that costs each new cell four steps.
                shard.sweep_at = (shard.cells.len() + shard.cells.len() / 4).max(64);
            }
            let cell = Arc::new(Cell::default());
            shard.cells.insert(tag.clone(), Arc::downgrade(&cell));
            (cell, true)
        })
    }

    /// A tag with its cell, and what that says.
    pub fn state(&self, tag: &Tag) -> (Tag, Arc<Cell>, u64) {
        let (cell, _) = self.cell(tag);
        let purged = cell.purged();
        (tag.clone(), cell, purged)
    }

    /// Purges tags: everything that carries one of them is void.
    pub fn purge<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) {
        self.note(tags, None);
    }

    /// Purges tags softly: everything that carries one of them is stale since then.
    pub fn soften<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, at: Wall) {
        self.note(tags, Some(at));
    }

    fn note<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, softened: Option<Wall>) {
        // First the step, then the cells: see the second invariant.
        let step = self.next_step();
        for tag in tags {
            let cell = self.with_shard(tag, |shard| shard.cells.get(tag).and_then(Weak::upgrade));
            if let Some(cell) = cell {
                cell.purges.note(step, softened);
            }
        }
    }

    /// Empties the cache logically.
    pub fn purge_everything(&self) {
        self.everything.note(self.next_step(), None);
    }

    /// Makes everything stale since then.
    pub fn soften_everything(&self, at: Wall) {
        self.everything.note(self.next_step(), Some(at));
    }

    fn next_step(&self) -> u64 {
        self.seq.fetch_add(1, SeqCst) + 1
    }

    /// Keeps hits on these tags away until the guards are dropped.
    pub fn guard<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) -> Vec<Guarded> {
        tags.into_iter().map(|tag| Guarded::new(self.cell(tag).0)).collect()
    }

    /// How many cells are remembered, the dead ones that no sweep has met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).cells.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with_shard<R>(&self, tag: &Tag, act: impl FnOnce(&mut Shard) -> R) -> R {
        let sum = tag.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let index = usize::try_from(sum >> 32).unwrap_or_default() % SHARDS;
        // A shard is whole between any two statements that could panic, so a poisoned lock still guards a good map.
        act(&mut self.shards[index].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_reaches_the_cell_that_is_held() {
        let table = Table::default();
        let (tag, other) = (Tag::new("a"), Tag::new("b"));
        let ((cell, made), (bystander, _)) = (table.cell(&tag), table.cell(&other));
        let before = cell.purged();
        table.purge([&tag]);
        assert!(made && cell.purged() > before);
        assert_eq!(bystander.purged(), 0);
        assert!(!table.cell(&tag).1, "the cell is held, so it is found again");
    }

    #[test]
    fn a_purge_of_a_tag_that_nobody_holds_moves_the_step() {
        let table = Table::default();
        let before = table.seq();
        table.purge([&Tag::new("a")]);
        assert!(table.seq() > before && table.is_empty());
    }

    #[test]
    fn a_soft_purge_moves_the_cell_and_tells_when() {
        let table = Table::default();
        let tag = Tag::new("a");
        let (cell, _) = table.cell(&tag);
        let noted = cell.purged();
        assert_eq!(cell.since(noted), Since::Nothing);
        table.soften([&tag], Wall(7));
        assert_ne!(cell.purged(), noted, "whoever compares finds it moved");
        assert_eq!(cell.since(noted), Since::Softened(Wall(7)));
        let renewed = cell.purged();
        assert_eq!(cell.since(renewed), Since::Nothing);
        table.soften([&tag], Wall(9));
        assert_eq!((cell.since(noted), cell.since(renewed)), (Since::Softened(Wall(9)), Since::Softened(Wall(9))));
    }

    #[test]
    fn a_hard_purge_voids_what_soft_ones_before_and_after_it_touched() {
        for order in [[true, false], [false, true]] {
            let table = Table::default();
            let tag = Tag::new("a");
            let (cell, _) = table.cell(&tag);
            let (noted, generation) = (cell.purged(), table.generation());
            for soft in order {
                if soft {
                    table.soften([&tag], Wall(7));
                    table.soften_everything(Wall(7));
                } else {
                    table.purge([&tag]);
                    table.purge_everything();
                }
            }
            assert_eq!((cell.since(noted), table.since(generation)), (Since::Voided, Since::Voided), "soft first: {}", order[0]);
        }
    }

    #[test]
    fn everything_is_softened_apart_from_its_tags() {
        let table = Table::default();
        let (cell, _) = table.cell(&Tag::new("a"));
        let (noted, generation, step) = (cell.purged(), table.generation(), table.seq());
        table.soften_everything(Wall(7));
        assert_eq!((cell.since(noted), table.since(generation)), (Since::Nothing, Since::Softened(Wall(7))));
        assert!(table.generation() != generation && table.seq() > step, "fills under way find that it moved");
    }

    #[test]
    fn the_table_forgets_what_nobody_holds() {
        let table = Table::default();
        let held: Vec<_> = (0..100).map(|n| table.cell(&Tag::new(&format!("held{n}")))).collect();
        for n in 0..100_000 {
            drop(table.cell(&Tag::new(&format!("passing{n}"))));
        }
        assert!(table.len() < 5_000, "{}", table.len());
        assert!(held.iter().enumerate().all(|(n, _)| !table.cell(&Tag::new(&format!("held{n}"))).1));
    }

    #[test]
    fn a_guard_ends_when_it_is_dropped() {
        let table = Table::default();
        let tag = Tag::new("a");
        let (cell, _) = table.cell(&tag);
        let guards = table.guard([&tag, &tag]);
        assert!(cell.is_guarded());
        drop(guards);
        assert!(!cell.is_guarded());
    }
}
