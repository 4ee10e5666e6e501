//! The busiest of things whose names strangers choose: tags, and what bypasses speak of. Bounded,
//! so the counts of rare names are estimates.
//!
//! Knows names and numbers; not what they stand for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many tags are counted at once.
const MAX_TAGS: usize = 256;
/// Of so many hits the tags of one are counted for all, once there was traffic to speak of.
const SAMPLE_INTERVAL: u64 = 32;
/// The first hits, each of which is counted.
const EXACT_HITS: u64 = 4096;
/// Of how many routes and reasons the subjects are counted.
const MAX_REASON_KEYS: usize = 1024;
/// How many subjects each of them has.
const MAX_SUBJECTS: usize = 8;
/// The longest name that is counted, in bytes; longer ones are cut.
const MAX_NAME_BYTES: usize = 256;

/// What was counted of one tag. The numbers may be too high by what a tag that made room for it
/// had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagCounts {
    /// The tag.
    pub tag: String,
    /// Entries stored with it.
    pub stored: u64,
    /// Hits on such entries; after the first few thousand counted by samples.
    pub hits: u64,
    /// Purges of it.
    pub purged: u64,
}

impl TagCounts {
    const fn sum(&self) -> u64 {
        self.stored + self.hits + self.purged
    }
}

/// A route, and a reason.
type ReasonKey = (String, &'static str);

/// What happened to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagEvent {
    /// An entry was stored.
    Stored,
    /// Entries were hit so many times.
    Hit(u64),
    /// It was purged.
    Purged,
}

/// The busiest tags (space-saving counters: Metwally, Agrawal, El Abbadi, 2005), and the subjects
/// of reasons.
#[derive(Debug)]
pub struct HotTags {
    /// How many hits are still counted one by one. Mostly read.
    exact_left: AtomicU64,
    tags: Mutex<Vec<TagCounts>>,
    subjects: Mutex<HashMap<ReasonKey, Vec<(String, u64)>>>,
}

impl Default for HotTags {
    fn default() -> Self {
        Self {
            exact_left: AtomicU64::new(EXACT_HITS),
            tags: Mutex::default(),
            subjects: Mutex::default(),
        }
    }
}

impl HotTags {
    /// For how many hits this one is to be counted; for none, mostly. `dice` gives any number, and
    /// is asked under load alone.
    #[must_use]
    pub fn sample_hit(&self, dice: impl FnOnce() -> u64) -> Option<u64> {
        if self.exact_left.load(Ordering::Relaxed) > 0 {
            // Two at once may both take the last one, or one more: the counts are for people to
            // read.
            let left = self.exact_left.fetch_sub(1, Ordering::Relaxed);
            if left > EXACT_HITS {
                self.exact_left.store(0, Ordering::Relaxed);
            }
            return Some(1);
        }
        dice().is_multiple_of(SAMPLE_INTERVAL).then_some(SAMPLE_INTERVAL)
    }

    /// Counts a deed.
    pub fn record<'a>(&self, tags: impl IntoIterator<Item = &'a str>, deed: TagEvent) {
        let mut known = self.tags.lock();
        for tag in tags {
            let tag = truncate(tag);
            let at = known
                .iter()
                .position(|busy| busy.tag == tag)
                .unwrap_or_else(|| slot_for(&mut known, tag));
            let busy = &mut known[at];
            match deed {
                TagEvent::Stored => busy.stored += 1,
                TagEvent::Hit(times) => busy.hits += times,
                TagEvent::Purged => busy.purged += 1,
            }
        }
    }

    /// The busiest tags, at most so many, the busiest first.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<TagCounts> {
        let mut known = self.tags.lock().clone();
        known.sort_by(|one, two| two.sum().cmp(&one.sum()).then_with(|| one.tag.cmp(&two.tag)));
        known.truncate(most);
        known
    }

    /// Counts what a reason on a route speaks of: the name of a header, of a field.
    pub fn subject(&self, route: &str, reason: &'static str, subject: &str) {
        let (mut places, subject) = (self.subjects.lock(), truncate(subject));
        let at = (route.to_owned(), reason);
        if !places.contains_key(&at) && places.len() >= MAX_REASON_KEYS {
            return;
        }
        let known = places.entry(at).or_default();
        if let Some((_, count)) = known.iter_mut().find(|(name, _)| name == subject) {
            *count += 1;
        } else if known.len() < MAX_SUBJECTS {
            known.push((subject.to_owned(), 1));
        } else if let Some(rarest) = known.iter_mut().min_by_key(|(_, count)| *count) {
            // The rarest makes room.
            *rarest = (subject.to_owned(), rarest.1 + 1);
        }
    }

    /// The subjects of a reason on a route with their counts, the most frequent first.
    #[must_use]
    pub fn subjects(&self, route: &str, reason: &'static str) -> Vec<(String, u64)> {
        let mut known =
            self.subjects.lock().get(&(route.to_owned(), reason)).cloned().unwrap_or_default();
        known.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
        known
    }
}

/// A place for one more tag: a new one, or that of the least busy, whose count it inherits.
fn slot_for(known: &mut Vec<TagCounts>, tag: &str) -> usize {
    if known.len() < MAX_TAGS {
        known.push(TagCounts { tag: tag.to_owned(), ..TagCounts::default() });
        return known.len() - 1;
    }
    let least = known.iter().enumerate().min_by_key(|(_, busy)| busy.sum()).map_or(0, |(at, _)| at);
    tag.clone_into(&mut known[least].tag);
    least
}

fn truncate(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_tag_stays_among_any_number_of_others() {
        let insight = HotTags::default();
        for at in 0..10_000 {
            insight.record([format!("passing{at}").as_str()], TagEvent::Stored);
            insight.record(["busy"], TagEvent::Hit(16));
        }
        let busiest = insight.busiest(1);
        assert_eq!((busiest[0].tag.as_str(), busiest[0].hits), ("busy", 160_000));
        assert_eq!(insight.busiest(usize::MAX).len(), MAX_TAGS);
    }

    #[test]
    fn the_first_hits_are_counted_one_by_one_and_the_others_by_samples() {
        let insight = HotTags::default();
        for _ in 0..EXACT_HITS {
            assert_eq!(insight.sample_hit(|| unreachable!("no dice")), Some(1));
        }
        let counted: u64 =
            (0..10 * SAMPLE_INTERVAL).filter_map(|roll| insight.sample_hit(|| roll)).sum();
        assert_eq!(counted, 10 * SAMPLE_INTERVAL);
    }

    #[test]
    fn a_crowd_at_the_end_of_the_first_hits_does_not_begin_anew() {
        let insight = HotTags::default();
        insight.exact_left.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(insight.sample_hit(|| 1), Some(1));
        assert_eq!(insight.sample_hit(|| 1), None, "what fell below nothing is nothing");
    }

    #[test]
    fn deeds_are_told_apart() {
        let insight = HotTags::default();
        insight.record(["a", "b"], TagEvent::Stored);
        insight.record(["a"], TagEvent::Purged);
        let expected = TagCounts { tag: "a".into(), stored: 1, hits: 0, purged: 1 };
        assert_eq!(insight.busiest(9)[0], expected);
    }

    #[test]
    fn the_most_frequent_subjects_are_kept() {
        let insight = HotTags::default();
        for at in 0..1000 {
            insight.subject("/a", "unkeyed header", "x-usual");
            insight.subject("/a", "unkeyed header", &format!("x-{at}"));
        }
        let subjects = insight.subjects("/a", "unkeyed header");
        assert_eq!(subjects[0], ("x-usual".to_owned(), 1000));
        assert_eq!(subjects.len(), MAX_SUBJECTS);
        for at in 0..2 * MAX_REASON_KEYS {
            insight.subject(&format!("/{at}"), "missing field", "tenant");
        }
        assert!(insight.subjects.lock().len() <= MAX_REASON_KEYS);
    }
}
