//! Counts the busiest of things whose names clients choose: tags, and the subjects of bypass
//! reasons. Bounded, so the counts of rare names are estimates.
//!
//! Knows names and numbers, not what they stand for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::telemetry::log::printable;

/// How many tags are counted at once.
const MAX_TAGS: usize = 256;
/// After the first hits ([`EXACT_HITS`]), one hit in so many is counted, on behalf of all of them.
const SAMPLE_INTERVAL: u64 = 32;
/// How many hits are counted one by one before sampling begins.
const EXACT_HITS: u64 = 4096;
/// The most pairs of route and reason whose subjects are counted.
const MAX_REASON_KEYS: usize = 1024;
/// The most subjects counted for each pair.
const MAX_SUBJECTS: usize = 16;
/// The longest name that is counted, in bytes. Longer names are truncated.
const MAX_NAME_BYTES: usize = 256;

/// The counts of one tag. They include the counts of the tag whose place it took, if it took one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagCounts {
    /// The tag.
    pub tag: String,
    /// Entries stored with it.
    pub stored: u64,
    /// Hits on such entries. Sampled after the first few thousand.
    pub hits: u64,
    /// Purges of the tag.
    pub purged: u64,
}

impl TagCounts {
    const fn sum(&self) -> u64 {
        self.stored + self.hits + self.purged
    }
}

/// A route and a reason.
type ReasonKey = (String, &'static str);

/// What happened to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagEvent {
    /// An entry was stored.
    Stored,
    /// So many hits on entries with the tag.
    Hit(u64),
    /// The tag was purged.
    Purged,
}

/// The busiest tags (space-saving counters: Metwally, Agrawal, El Abbadi, 2005), and the subjects
/// of reasons.
#[derive(Debug)]
pub struct HotTags {
    /// How many hits are still counted one by one. Rarely written.
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
    /// How many hits this one is counted as. `None`, mostly: the hit is not sampled. `random`
    /// returns any number; it is called only once sampling has begun.
    #[must_use]
    pub fn sample_hit(&self, random: impl FnOnce() -> u64) -> Option<u64> {
        if self.exact_left.load(Ordering::Relaxed) > 0 {
            // Two threads may both take the last exact count, or one more. That is accurate enough
            // for people.
            let left = self.exact_left.fetch_sub(1, Ordering::Relaxed);
            if left > EXACT_HITS {
                self.exact_left.store(0, Ordering::Relaxed);
            }
            return Some(1);
        }
        random().is_multiple_of(SAMPLE_INTERVAL).then_some(SAMPLE_INTERVAL)
    }

    /// Counts an event for each of these tags.
    pub fn record<'a>(&self, tags: impl IntoIterator<Item = &'a str>, event: TagEvent) {
        let mut known = self.tags.lock();
        for tag in tags {
            let tag = truncate(tag);
            let at = known
                .iter()
                .position(|counts| counts.tag == tag)
                .unwrap_or_else(|| slot_for(&mut known, tag));
            let counts = &mut known[at];
            match event {
                TagEvent::Stored => counts.stored += 1,
                TagEvent::Hit(times) => counts.hits += times,
                TagEvent::Purged => counts.purged += 1,
            }
        }
    }

    /// Up to `most` tags, the busiest first.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<TagCounts> {
        let mut known = self.tags.lock().clone();
        known.sort_by(|one, two| two.sum().cmp(&one.sum()).then_with(|| one.tag.cmp(&two.tag)));
        known.truncate(most);
        for counts in &mut known {
            show(&mut counts.tag);
        }
        known
    }

    /// Counts the subject of a reason on a route: the name of a header or a field.
    pub fn subject(&self, route: &str, reason: &'static str, subject: &str) {
        let (mut subjects, subject) = (self.subjects.lock(), truncate(subject));
        let at = (route.to_owned(), reason);
        if !subjects.contains_key(&at) && subjects.len() >= MAX_REASON_KEYS {
            return;
        }
        let known = subjects.entry(at).or_default();
        if let Some((_, count)) = known.iter_mut().find(|(name, _)| name == subject) {
            *count += 1;
        } else if known.len() < MAX_SUBJECTS {
            known.push((subject.to_owned(), 1));
        } else if let Some(rarest) = known.iter_mut().min_by_key(|(_, count)| *count) {
            // The new subject takes the place of the rarest.
            *rarest = (subject.to_owned(), rarest.1 + 1);
        }
    }

    /// The subjects of a reason on a route with their counts, the most frequent first.
    #[must_use]
    pub fn subjects(&self, route: &str, reason: &'static str) -> Vec<(String, u64)> {
        let mut known =
            self.subjects.lock().get(&(route.to_owned(), reason)).cloned().unwrap_or_default();
        known.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
        for (subject, _) in &mut known {
            show(subject);
        }
        known
    }
}

/// Escapes what could do harm where a name is shown.
fn show(name: &mut String) {
    if let Cow::Owned(shown) = printable(name, MAX_NAME_BYTES) {
        *name = shown;
    }
}

/// The index for one more tag: a new slot, or that of the least busy tag, whose counts it inherits.
fn slot_for(known: &mut Vec<TagCounts>, tag: &str) -> usize {
    if known.len() < MAX_TAGS {
        known.push(TagCounts { tag: tag.to_owned(), ..TagCounts::default() });
        return known.len() - 1;
    }
    let least =
        known.iter().enumerate().min_by_key(|(_, counts)| counts.sum()).map_or(0, |(at, _)| at);
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
        let hot_tags = HotTags::default();
        for at in 0..10_000 {
            hot_tags.record([format!("passing{at}").as_str()], TagEvent::Stored);
            hot_tags.record(["busy"], TagEvent::Hit(16));
        }
        let busiest = hot_tags.busiest(1);
        assert_eq!((busiest[0].tag.as_str(), busiest[0].hits), ("busy", 160_000));
        assert_eq!(hot_tags.busiest(usize::MAX).len(), MAX_TAGS);
    }

    #[test]
    fn the_first_hits_are_counted_exactly_and_the_others_are_sampled() {
        let hot_tags = HotTags::default();
        for _ in 0..EXACT_HITS {
            assert_eq!(hot_tags.sample_hit(|| unreachable!("no sampling yet")), Some(1));
        }
        let counted: u64 =
            (0..10 * SAMPLE_INTERVAL).filter_map(|roll| hot_tags.sample_hit(|| roll)).sum();
        assert_eq!(counted, 10 * SAMPLE_INTERVAL);
    }

    #[test]
    fn a_counter_below_zero_does_not_restart_exact_counting() {
        let hot_tags = HotTags::default();
        hot_tags.exact_left.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(hot_tags.sample_hit(|| 1), Some(1));
        assert_eq!(hot_tags.sample_hit(|| 1), None, "below zero counts as zero");
    }

    #[test]
    fn events_are_counted_separately() {
        let hot_tags = HotTags::default();
        hot_tags.record(["a", "b"], TagEvent::Stored);
        hot_tags.record(["a"], TagEvent::Purged);
        let expected = TagCounts { tag: "a".into(), stored: 1, hits: 0, purged: 1 };
        assert_eq!(hot_tags.busiest(9)[0], expected);
    }

    #[test]
    fn the_most_frequent_subjects_are_kept() {
        let hot_tags = HotTags::default();
        for at in 0..1000 {
            hot_tags.subject("/a", "unkeyed header", "x-usual");
            hot_tags.subject("/a", "unkeyed header", &format!("x-{at}"));
        }
        let subjects = hot_tags.subjects("/a", "unkeyed header");
        assert_eq!(subjects[0], ("x-usual".to_owned(), 1000));
        assert_eq!(subjects.len(), MAX_SUBJECTS);
        for at in 0..2 * MAX_REASON_KEYS {
            hot_tags.subject(&format!("/{at}"), "missing field", "tenant");
        }
        assert!(hot_tags.subjects.lock().len() <= MAX_REASON_KEYS);
    }
}
