//! What this process has seen of Redis: nothing there may be older.
//!
//! Invariants:
//! - Only what was seen before a read was sent counts against its reply: replies may overtake each
//!   other, and messages.
//! - What a sealed record or the step itself has shown is a proof. What a message on the bus says
//!   is a hint: anybody may publish.
//! - Memory is bounded: of the tags that were purged or read, the latest [`MAX_SEEN_TAGS`] or so
//!   are remembered. Without a secret it is the step alone, since then no record proves anything.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quick_cache::sync::Cache;
use serde::Deserialize;

use crate::coherence::message::Message;
use crate::policy::tag::Tag;

/// For how many tags it is remembered when they were purged or sealed last.
pub(super) const MAX_SEEN_TAGS: usize = 65_536;

/// How many purges may come between a step that was read and one that a message states.
const MAX_STEPS_AHEAD: u64 = 1_000_000;

/// The steps that this process has seen.
#[derive(Debug)]
pub(super) struct SeenRecords {
    highest: AtomicU64,
    /// The step of the latest purge of everything.
    everything: AtomicU64,
    tags: Option<Cache<u64, SeenStep>>,
    names: RandomState,
}

/// A step that the record of a tag must not be older than.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeenStep {
    pub(super) seq: u64,
    /// Whether it was read, and not only heard of.
    pub(super) proven: bool,
}

/// The step of a purge, in the message about it.
#[derive(Deserialize)]
struct PurgeStep {
    seq: Option<u64>,
}

impl SeenRecords {
    /// Of tags, too, if their records are `sealed`.
    pub(super) fn new(sealed: bool) -> Self {
        Self {
            highest: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            tags: sealed.then(|| Cache::new(MAX_SEEN_TAGS)),
            names: RandomState::new(),
        }
    }

    /// The highest step so far.
    pub(super) fn highest(&self) -> u64 {
        self.highest.load(SeqCst)
    }

    /// Notes a step that was read.
    pub(super) fn note_step(&self, seq: u64) {
        self.highest.fetch_max(seq, SeqCst);
    }

    /// What the records of these tags must not be older than.
    pub(super) fn of_tags(&self, tags: &[Tag]) -> Vec<SeenStep> {
        let Some(seen) = &self.tags else { return Vec::new() };
        let everything = SeenStep { seq: self.everything.load(SeqCst), proven: false };
        tags.iter()
            .map(|tag| seen.get(&self.name(tag)).unwrap_or_default().max(everything))
            .collect()
    }

    /// Notes the step for which the record of a tag was sealed.
    pub(super) fn note_sealed(&self, tag: &Tag, seq: u64) {
        self.raise(tag, SeenStep { seq, proven: true });
    }

    /// Notes the step of a purge that was published.
    pub(super) fn note_purge(&self, message: &Message, bytes: &[u8]) {
        let (Message::Invalidate { tags, .. }, Some(_)) = (message, &self.tags) else { return };
        let Ok(PurgeStep { seq: Some(seq) }) = serde_json::from_slice(bytes) else { return };
        if seq > self.highest().saturating_add(MAX_STEPS_AHEAD) {
            return;
        }
        match tags {
            None => {
                self.everything.fetch_max(seq, SeqCst);
            }
            Some(tags) => {
                for tag in tags {
                    self.raise(tag, SeenStep { seq, proven: false });
                }
            }
        }
    }

    /// Forgets everything: this is another Redis, or the records have gone back.
    pub(super) fn reset(&self) {
        self.highest.store(0, SeqCst);
        self.everything.store(0, SeqCst);
        if let Some(seen) = &self.tags {
            seen.clear();
        }
    }

    fn raise(&self, tag: &Tag, to: SeenStep) {
        let Some(seen) = &self.tags else { return };
        let name = self.name(tag);
        if seen.get(&name).is_none_or(|known| known < to) {
            seen.insert(name, to);
        }
    }

    fn name(&self, tag: &Tag) -> u64 {
        self.names.hash_one(tag.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::message::{OperationId, Process};

    fn purge(tags: Option<&[&str]>, seq: u64) -> (Message, Vec<u8>) {
        let tags = tags.map(|tags| tags.iter().map(|tag| Tag::new(tag)).collect());
        let message = Message::invalidate(Process(1), OperationId(2), tags);
        let text = String::from_utf8(message.to_bytes()).expect("JSON");
        // As the script that publishes it does.
        let published = format!("{},\"seq\":{seq}}}", &text[..text.len() - 1]);
        assert_eq!(Message::parse(published.as_bytes()).as_ref(), Some(&message));
        (message, published.into_bytes())
    }

    fn note(seen: &SeenRecords, tags: Option<&[&str]>, seq: u64) {
        let (message, bytes) = purge(tags, seq);
        seen.note_purge(&message, &bytes);
    }

    #[test]
    fn the_latest_step_of_each_tag_counts() {
        let seen = SeenRecords::new(true);
        seen.note_step(100);
        let tags = ["a", "b", "c"].map(Tag::new);
        seen.note_sealed(&tags[0], 90);
        note(&seen, Some(&["a", "b"]), 101);
        seen.note_sealed(&tags[1], 99);
        let step = |seq, proven| SeenStep { seq, proven };
        assert_eq!(seen.of_tags(&tags), [step(101, false), step(101, false), step(0, false)]);
        seen.note_sealed(&tags[0], 101);
        note(&seen, None, 95);
        assert_eq!(seen.of_tags(&tags), [step(101, true), step(101, false), step(95, false)]);
        seen.reset();
        assert_eq!((seen.highest(), seen.of_tags(&tags)), (0, vec![SeenStep::default(); 3]));
    }

    #[test]
    fn a_forged_step_from_afar_is_ignored() {
        let seen = SeenRecords::new(true);
        seen.note_step(100);
        note(&seen, Some(&["a"]), 100 + MAX_STEPS_AHEAD + 1);
        note(&seen, None, u64::MAX);
        assert_eq!(seen.of_tags(&[Tag::new("a")]), [SeenStep::default()]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let seen = SeenRecords::new(true);
        for number in 0..3 * MAX_SEEN_TAGS as u64 {
            seen.note_sealed(&Tag::new(&format!("t{number}")), number + 1);
        }
        let kept = seen.tags.as_ref().map_or(0, Cache::len);
        assert!((MAX_SEEN_TAGS / 2..=MAX_SEEN_TAGS).contains(&kept), "{kept}");
        assert!(SeenRecords::new(false).of_tags(&[Tag::new("a")]).is_empty());
    }
}
