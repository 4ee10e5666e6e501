//! The ids that are missing among those that were read: their rows may be committed later, or
//! never.
//!
//! Invariants:
//! - An id leaves the set by its row, or because it was missing for long and no open transaction
//!   holds it. Nothing else removes one.
//! - The ranges do not touch each other, so the set is as small as it can be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Ids from the first to the last one, both included.
pub(super) type IdRange = (u64, u64);

/// Ids whose rows were not read.
#[derive(Debug, Default)]
pub(super) struct MissingIds {
    /// By the first id: the last one, and since when they are waited for.
    ranges: BTreeMap<u64, (u64, Instant)>,
}

impl MissingIds {
    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The lowest one.
    pub(super) fn first(&self) -> Option<u64> {
        self.ranges.keys().next().copied()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = IdRange> {
        self.ranges.iter().map(|(first, (last, _))| (*first, *last))
    }

    /// Adds ids that are not in the set. None, where the first one is above the last.
    pub(super) fn add(&mut self, (first, last): IdRange, now: Instant) {
        if first <= last {
            self.ranges.insert(first, (last, now));
        }
    }

    /// Takes one out, and says whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some((first, (last, since))) = self.ranges.range(..=id).next_back() else {
            return false;
        };
        let (first, last, since) = (*first, *last, *since);
        if id > last {
            return false;
        }
        self.ranges.remove(&first);
        if first < id {
            self.ranges.insert(first, (id - 1, since));
        }
        if id < last {
            self.ranges.insert(id + 1, (last, since));
        }
        true
    }

    /// Those that have been waited for for that long, so many of them at most.
    pub(super) fn overdue(&self, limit: Duration, now: Instant, most: usize) -> Vec<IdRange> {
        let is_overdue = |since: Instant| now.saturating_duration_since(since) >= limit;
        let overdue = self.ranges.iter().filter(|(_, (_, since))| is_overdue(*since));
        overdue.map(|(first, (last, _))| (*first, *last)).take(most).collect()
    }

    /// Gives up these ranges, but for the ids in them that are held, which are in order: they are
    /// waited for from now on. Where not all that are held could be told, those above the last one
    /// are kept, too.
    pub(super) fn give_up(&mut self, asked: &[IdRange], held: &HeldIds, now: Instant) {
        let mut held_ids = held.ids.iter().copied().peekable();
        for (first, last) in asked {
            self.ranges.remove(first);
            while let Some(id) = held_ids.next_if(|id| id <= last) {
                let mut end = id;
                while held_ids.next_if(|next| *next <= *last && *next == end + 1).is_some() {
                    end += 1;
                }
                self.add((id, end), now);
            }
            if let Some(told) = held.ids.last().filter(|_| held.has_more) {
                self.add(((*first).max(told + 1), *last), now);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }
}

/// Missing ids that open transactions hold.
#[derive(Debug, Default)]
pub(super) struct HeldIds {
    /// In order.
    pub(super) ids: Vec<u64>,
    /// Whether there may be more above them.
    pub(super) has_more: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const LIMIT: Duration = Duration::from_mins(1);

    fn ranges(missing: &MissingIds) -> Vec<IdRange> {
        missing.ranges().collect()
    }

    #[test]
    fn a_row_takes_its_id_out_of_its_range() {
        let (mut missing, now) = (MissingIds::default(), Clock::system().now());
        missing.add((5, 9), now);
        missing.add((12, 12), now);
        missing.add((20, 19), now);
        assert!(missing.remove(7) && !missing.remove(7) && !missing.remove(10));
        assert_eq!(ranges(&missing), [(5, 6), (8, 9), (12, 12)]);
        assert!(missing.remove(5) && missing.remove(9) && missing.remove(12));
        assert_eq!((ranges(&missing), missing.first()), (vec![(6, 6), (8, 8)], Some(6)));
        assert!(missing.remove(6) && missing.remove(8) && missing.len() == 0);
        missing.add((1, u64::MAX), now);
        assert!(missing.remove(u64::MAX) && missing.remove(1));
    }

    #[test]
    fn what_no_transaction_holds_is_given_up_in_time() {
        let (mut missing, now) = (MissingIds::default(), Clock::system().now());
        missing.add((1, 9), now);
        missing.add((20, 29), now + LIMIT);
        assert_eq!(missing.overdue(LIMIT, now + LIMIT / 2, 9), []);
        let asked = missing.overdue(LIMIT, now + LIMIT, 9);
        assert_eq!(asked, [(1, 9)]);
        let held = HeldIds { ids: vec![2, 3, 4, 8], has_more: false };
        missing.give_up(&asked, &held, now + LIMIT);
        assert_eq!(ranges(&missing), [(2, 4), (8, 8), (20, 29)]);
        assert_eq!(missing.overdue(LIMIT, now + LIMIT, 9), [], "they are waited for anew");
        assert_eq!(missing.overdue(LIMIT, now + LIMIT * 2, 2).len(), 2);
    }

    #[test]
    fn what_could_not_be_told_is_kept() {
        let (mut missing, now) = (MissingIds::default(), Clock::system().now());
        missing.add((1, 9), now);
        missing.add((20, 29), now);
        missing.add((40, 49), now);
        let asked = missing.overdue(LIMIT, now + LIMIT, 9);
        let held = HeldIds { ids: vec![2, 21, 22], has_more: true };
        missing.give_up(&asked, &held, now + LIMIT);
        assert_eq!(ranges(&missing), [(2, 2), (21, 22), (23, 29), (40, 49)]);
    }

    proptest! {
        /// Whatever is committed in whatever order, the set holds what was passed over and not
        /// read.
        #[test]
        fn the_set_is_what_a_set_of_ids_would_be(
            ids in prop::collection::vec((1_u64..60, any::<bool>()), 0..80)
        ) {
            let (mut missing, now) = (MissingIds::default(), Clock::system().now());
            let (mut model, mut high) = (BTreeSet::new(), 0);
            for (id, _) in ids {
                if id > high {
                    missing.add((high + 1, id - 1), now);
                    model.extend(high + 1..id);
                    high = id;
                } else {
                    prop_assert_eq!(missing.remove(id), model.remove(&id));
                }
                let held: BTreeSet<u64> = missing.ranges().flat_map(|(a, b)| a..=b).collect();
                prop_assert_eq!(&held, &model);
            }
        }
    }
}
