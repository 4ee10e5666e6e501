//! Which writes change the responses of a template, as far as the trail shows.
//!
//! Between two equal requests of one caller, the app has given one response or two. Of a change,
//! every write between the two is a suspect. One that was the only suspect is proven. One that came
//! alone between two equal responses is cleared: once is enough where another suspect is proven,
//! [`MIN_CLEARED`] times where another one is left. What nobody explains, nobody can purge in time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rehearsal::{Visit, intersect, is_same, shape};

/// How often a write must have changed nothing to be cleared of a change without a proven cause.
const MIN_CLEARED: u64 = 3;

/// A page with its marks, its caller, and the headers that no key has a place for by itself.
type SeenKey<'a> = ((u64, u64), u64, &'a [(u16, u64)]);

/// A write, and the place of its template in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TracedWrite<'a> {
    pub ended: u64,
    pub began: u64,
    /// One in no template has a number of its own.
    pub template: usize,
    /// Keyed hashes of the cache groups that it says to have invalidated.
    pub groups: &'a [u64],
}

/// What changes the responses of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// The templates of the writes that do.
    pub writes: BTreeSet<usize>,
    /// How often a response has changed after a write.
    pub changes: u64,
    /// How often that write said so itself, by a cache group.
    pub by_group: u64,
    /// How often it has changed without one, and the shortest time in which it did, in
    /// milliseconds.
    pub unexplained: u64,
    pub soonest: u64,
}

/// Finds them. The reads are in the order of their beginnings, the writes sorted.
#[must_use]
pub fn causes(reads: &[Visit<'_>], writes: &[TracedWrite<'_>]) -> Causes {
    let mut causes = Causes { soonest: u64::MAX, ..Causes::default() };
    let mut last: HashMap<SeenKey<'_>, &Visit<'_>> = HashMap::new();
    let mut changes: BTreeSet<BTreeSet<usize>> = BTreeSet::new();
    let mut cleared: BTreeMap<usize, u64> = BTreeMap::new();
    for visit in reads {
        let Some(new) = shape(visit.read).filter(|new| new.0 != 200 || new.1 != 0) else {
            continue;
        };
        let page = (visit.read.page, visit.read.marks);
        let key = (page, visit.read.caller, &*visit.read.headers);
        let Some(before) = last.insert(key, visit) else { continue };
        let Some(same) = shape(before.read).and_then(|old| is_same(old, new)) else { continue };
        let span = (before.event.began, visit.event.ended);
        let between = between(writes, span);
        if !same && names_group(writes, span, &before.event.groups) {
            // It is purged, whatever the rules say: nobody else is a suspect.
            causes.changes += 1;
            causes.by_group += 1;
        } else if same {
            // Of several, any one may have undone what another one did.
            if let (1, Some(only)) = (between.len(), between.first()) {
                *cleared.entry(*only).or_default() += 1;
            }
        } else if between.is_empty() {
            causes.unexplained += 1;
            let after = visit.event.at.saturating_sub(before.event.at);
            causes.soonest = causes.soonest.min(after);
        } else {
            causes.changes += 1;
            changes.insert(between);
        }
    }
    let proven: BTreeSet<usize> =
        changes.iter().filter(|one| one.len() == 1).flatten().copied().collect();
    for suspects in &changes {
        let times_needed = if suspects.is_disjoint(&proven) { MIN_CLEARED } else { 1 };
        let is_cleared = |one: &usize| cleared.get(one).is_some_and(|times| *times >= times_needed);
        let left = suspects.iter().filter(|one| !is_cleared(one) || proven.contains(one));
        let left: Vec<usize> = left.copied().collect();
        causes.writes.extend(if left.is_empty() {
            suspects.iter().copied().collect()
        } else {
            left
        });
    }
    causes
}

/// The templates of the writes that were under way between two steps.
fn between(writes: &[TracedWrite<'_>], span: (u64, u64)) -> BTreeSet<usize> {
    under_way(writes, span).map(|write| write.template).collect()
}

/// Whether one of them has invalidated one of these groups.
fn names_group(writes: &[TracedWrite<'_>], span: (u64, u64), groups: &[u64]) -> bool {
    under_way(writes, span).any(|write| intersect(write.groups, groups))
}

fn under_way<'a, 'b>(
    writes: &'a [TracedWrite<'b>],
    (since, until): (u64, u64),
) -> impl Iterator<Item = &'a TracedWrite<'b>> {
    let first = writes.partition_point(|write| write.ended <= since);
    writes[first..].iter().filter(move |write| write.began < until)
}

#[cfg(test)]
mod tests {
    use super::super::trail::{TrailEvent, TrailKind, TrailRead};
    use super::*;

    fn found(reads: &[(u64, u64)], writes: &[(u64, usize)]) -> Causes {
        let events: Vec<TrailEvent> = reads
            .iter()
            .map(|&(at, digest)| {
                let read = TrailRead::example(digest);
                TrailEvent::example(at, TrailKind::Read(read))
            })
            .collect();
        let visits: Vec<Visit<'_>> = events
            .iter()
            .map(|event| match &event.kind {
                TrailKind::Read(read) => Visit { event, read },
                _ => panic!("a read"),
            })
            .collect();
        let mut writes: Vec<TracedWrite> = writes
            .iter()
            .map(|&(at, template)| TracedWrite { began: at, ended: at + 1, template, groups: &[] })
            .collect();
        writes.sort_unstable();
        causes(&visits, &writes)
    }

    #[test]
    fn the_write_between_two_responses_is_the_cause() {
        let causes = found(&[(10, 1), (20, 1), (30, 2)], &[(25, 7)]);
        assert_eq!((causes.writes, causes.unexplained), ([7].into(), 0));
    }

    #[test]
    fn a_write_that_came_alone_and_changed_nothing_is_cleared() {
        let reads = [(10, 1), (20, 1), (30, 2)];
        let known = [(10, 1), (20, 1), (30, 2), (40, 3)];
        let causes = found(&known, &[(15, 8), (25, 7), (26, 8), (35, 7)]);
        assert_eq!(causes.writes, [7].into(), "7 is proven, and 8 came alone once");
        let causes = found(&reads, &[(15, 8), (25, 7), (26, 8)]);
        assert_eq!(causes.writes, [7, 8].into(), "nobody is proven, and once is too little");
        let calm = [(10, 1), (20, 1), (30, 1), (40, 1), (50, 2)];
        let causes = found(&calm, &[(15, 8), (25, 8), (35, 8), (45, 7), (46, 8)]);
        assert_eq!(causes.writes, [7].into());
        // Without that, both are suspects.
        let causes = found(&reads, &[(25, 7), (26, 8)]);
        assert_eq!(causes.writes, [7, 8].into());
        // Nobody else is left.
        let causes = found(&reads, &[(15, 8), (25, 8)]);
        assert_eq!(causes.writes, [8].into());
    }

    #[test]
    fn a_change_without_a_write_is_unexplained() {
        let causes = found(&[(10, 1), (20, 2), (25, 3)], &[(1, 7)]);
        assert_eq!((causes.unexplained, causes.soonest, causes.changes), (2, 5, 0));
    }
}
