//! An explicit-state breadth-first checker: visits every reachable world once, by its fingerprint,
//! and finds a shortest path to the first wrong one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::world::{Action, Note, World};

/// What a run of the checker found.
#[derive(Debug, Default)]
pub struct Found {
    /// How many different worlds were found.
    pub worlds: usize,
    /// How many steps away the farthest one is.
    pub depth: usize,
    /// What happened anywhere.
    pub notes: BTreeMap<Note, usize>,
    /// What is wrong, and a shortest path to it.
    pub wrong: Option<(String, Vec<Action>)>,
    /// Whether the limit was reached before all worlds were visited.
    pub cut: bool,
}

/// Visits every world that this one can become, up to a limit.
pub fn check(start: World, most: usize) -> Found {
    let mut found = Found::default();
    let mut seen: HashMap<u64, (u64, Action), BuildHasherDefault<Folded>> = HashMap::default();
    let root = fingerprint(&start);
    seen.insert(root, (root, Action::Pass));
    let mut frontier = vec![(root, start)];
    let mut actions = Vec::new();
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (parent, world) in &frontier {
            actions.clear();
            world.actions(&mut actions);
            for action in &actions {
                let mut notes = BTreeSet::new();
                let (child, wrong) = world.step(*action, &mut notes);
                for note in notes {
                    *found.notes.entry(note).or_default() += 1;
                }
                if let Some(what) = wrong {
                    let mut way = vec![*action];
                    way.extend(back(&seen, root, *parent));
                    way.reverse();
                    found.wrong = Some((what, way));
                    found.worlds = seen.len();
                    return found;
                }
                let print = fingerprint(&child);
                if let std::collections::hash_map::Entry::Vacant(place) = seen.entry(print) {
                    place.insert((*parent, *action));
                    next.push((print, child));
                }
            }
            if seen.len() > most {
                found.cut = true;
                found.worlds = seen.len();
                return found;
            }
        }
        found.depth += 1;
        frontier = next;
    }
    found.worlds = seen.len();
    found
}

fn back(
    seen: &HashMap<u64, (u64, Action), BuildHasherDefault<Folded>>,
    root: u64,
    mut at: u64,
) -> Vec<Action> {
    let mut way = Vec::new();
    while at != root {
        let (parent, action) = seen[&at];
        way.push(action);
        at = parent;
    }
    way
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = Folded::default();
    world.hash(&mut hasher);
    hasher.finish()
}

/// A fast hash of 64 bits: the chance that two of some million worlds collide is one in a million.
#[derive(Default)]
pub struct Folded(u64);

impl Folded {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(0xd6e8_feb8_6659_fd93_u64);
        let low = u64::try_from(product & u128::from(u64::MAX)).unwrap_or_default();
        let high = u64::try_from(product >> 64).unwrap_or_default();
        self.0 = (low ^ high).rotate_left(23).wrapping_add(word);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.fold(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.fold(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.fold(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.fold(word as u64);
    }

    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.fold(0x5bd1_e995);
        last.0
    }
}
