//! A tag's record in Redis, and what a read of several records proves.
//!
//! A record is text, so that `redis-cli GET` shows it: `1 NONCE SEQ FENCE PENDING`, where `PENDING`
//! is `-` or a list of `ID:DEADLINE:GUARD` joined by commas. Deadlines are in milliseconds of
//! Redis's own clock. The Lua scripts write it. With a secret, the nonce is sealed:
//! `NONCE.STEP.MAC`, and `NONCE.STEP.MAC~HALF` after a soft purge, which gives it another second
//! half.

use std::sync::Arc;
use std::time::Duration;

use crate::coherence::stamp::{Nonce, Stamp, find_from};
use crate::outcome::Reason;
use crate::policy::tag::Tag;

/// The seal of a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonceSeal {
    /// The nonce that was sealed.
    pub nonce: Nonce,
    /// The step for which it was sealed.
    pub seq: u64,
    /// The MAC.
    pub mac: [u8; 16],
}

/// The parts of a tag's record that readers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The state of the tag.
    pub nonce: Nonce,
    /// The seal of the nonce, if it has one.
    pub seal: Option<NonceSeal>,
    /// The step of the purge that made it.
    pub seq: u64,
    /// The replication id of the primary that wrote it.
    pub fence: Box<str>,
    /// The earliest deadline of a pending mutation.
    pub pending_until: Option<u64>,
    /// Whether a pending mutation keeps hits away.
    pub guarded: bool,
}

impl TagRecord {
    /// Parses a record. A malformed one counts as missing.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let (nonce, seal) = parse_nonce(words.next()?)?;
        let seq = words.next()?.parse().ok()?;
        let fence = words.next()?.into();
        let pending = words.next()?;
        let mut record = Self { nonce, seal, seq, fence, pending_until: None, guarded: false };
        for item in pending.split(',').filter(|item| *item != "-") {
            let mut parts = item.rsplitn(3, ':');
            record.guarded |= parts.next()? == "b";
            let deadline = parts.next()?.parse().ok()?;
            record.pending_until =
                Some(record.pending_until.map_or(deadline, |until| until.min(deadline)));
        }
        words.next().is_none().then_some(record)
    }
}

/// A nonce, bare or sealed.
#[must_use]
pub fn parse_nonce(text: &str) -> Option<(Nonce, Option<NonceSeal>)> {
    let Some((nonce, rest)) = text.split_once('.') else {
        return Some((Nonce::from_hex(text.as_bytes())?, None));
    };
    let nonce = Nonce::from_hex(nonce.as_bytes())?;
    let (seq, mac) = rest.split_once('.')?;
    let (mac, half) =
        mac.split_once('~').map_or((mac, None), |(mac, half)| (mac, Some(half.as_bytes())));
    let mac = Nonce::from_hex(mac.as_bytes())?.0;
    let seal = NonceSeal { nonce, seq: seq.parse().ok()?, mac };
    let nonce = match half {
        None => nonce,
        Some(half) => Nonce::from_hex(&[&text.as_bytes()[..16], half].concat())?,
    };
    Some((nonce, Some(seal)))
}

/// The generation and the records of some tags, from one read.
#[derive(Clone, Debug)]
pub struct RecordSnapshot {
    /// The generation.
    pub generation: Nonce,
    /// The step of the latest purge; `None` when Redis has lost it, so that nothing can be stored.
    pub seq: Option<u64>,
    /// The records; `None` where there is none that can be trusted.
    pub records: Vec<(Tag, Option<TagRecord>)>,
    /// Sealed nonces that were refused, to be replaced.
    pub refused: Vec<(Tag, Box<str>)>,
    /// The fence that the reader trusts.
    pub fence: Arc<str>,
    /// Redis's clock at the time of the read, in milliseconds.
    pub redis_ms: u64,
    /// The same at the latest; the other is at the earliest.
    pub latest_ms: u64,
}

/// Whether an entry may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryVerdict {
    /// It is current.
    Current,
    /// It was purged softly, so long ago, and is otherwise current: it is stale.
    SoftPurged(Duration),
    /// It may not be served, for this reason.
    Refused(Reason),
    /// A tag has a pending mutation past its deadline: its sidecar died, so the mutation counts as
    /// committed.
    Orphaned,
    /// The read did not include all tags of the entry.
    Incomplete,
}

impl RecordSnapshot {
    fn record(&self, tag: &Tag) -> Option<&Option<TagRecord>> {
        self.records.iter().find(|(name, _)| name == tag).map(|(_, record)| record)
    }

    /// Whether an entry with this stamp is current. Reasons to refuse it come before reasons to
    /// call it stale.
    #[must_use]
    pub fn validate(&self, stamp: &Stamp) -> EntryVerdict {
        let mut soft_purged_at: Option<u64> = None;
        // Returns whether the entry may still be served in some way.
        let mut compare = |now: Nonce, then: Nonce| {
            let since = now.soft_purged_from(then);
            soft_purged_at = soft_purged_at.into_iter().chain(since).min();
            now == then || since.is_some()
        };
        if !compare(self.generation, stamp.generation) {
            return EntryVerdict::Refused(Reason::Purged);
        }
        let mut from = 0;
        for (tag, nonce) in &stamp.tags {
            let found = find_from(&self.records, &mut from, |(name, _)| name == tag);
            let Some((_, record)) = found else { return EntryVerdict::Incomplete };
            // Absent, unreadable, or written by another primary: a miss.
            let Some(record) = record.as_ref().filter(|record| *record.fence == *self.fence) else {
                return EntryVerdict::Refused(Reason::Purged);
            };
            if !compare(record.nonce, *nonce) {
                return EntryVerdict::Refused(Reason::Purged);
            }
            if record.pending_until.is_some_and(|until| until < self.redis_ms) {
                return EntryVerdict::Orphaned;
            }
            if record.guarded {
                return EntryVerdict::Refused(Reason::MutationPending);
            }
        }
        soft_purged_at.map_or(EntryVerdict::Current, |at| {
            EntryVerdict::SoftPurged(Duration::from_millis(self.latest_ms.saturating_sub(at)))
        })
    }

    /// Tags of an entry that this read did not include.
    #[must_use]
    pub fn unread_tags(&self, stamp: &Stamp) -> Vec<Tag> {
        stamp
            .tags
            .iter()
            .map(|(tag, _)| tag)
            .filter(|tag| self.record(tag).is_none())
            .cloned()
            .collect()
    }

    /// The nonce of a tag, if its record can be trusted.
    #[must_use]
    pub fn nonce(&self, tag: &Tag) -> Option<Nonce> {
        self.record(tag)?
            .as_ref()
            .filter(|record| *record.fence == *self.fence)
            .map(|record| record.nonce)
    }

    /// The sealed nonce of this tag that was refused; `-` if there is none.
    #[must_use]
    pub fn refused_nonce(&self, tag: &Tag) -> &str {
        refused_nonce(&self.refused, tag)
    }

    /// Adds a record that was created after the read.
    pub fn add_seeded(&mut self, tag: &Tag, nonce: Nonce) {
        let record = TagRecord {
            nonce,
            seal: None,
            seq: self.seq.unwrap_or_default(),
            fence: (*self.fence).into(),
            pending_until: None,
            guarded: false,
        };
        if let Some((_, record_slot)) = self.records.iter_mut().find(|(name, _)| name == tag) {
            *record_slot = Some(record);
        }
    }

    /// Whether two requests have read the same state of the same tags, so that they may share a
    /// fill.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let same_step = self.seq.is_some() && self.seq == other.seq;
        self.generation == other.generation
            && self.fence == other.fence
            && self.records.len() == other.records.len()
            && self.records.iter().all(|(tag, _)| match (self.nonce(tag), other.nonce(tag)) {
                (Some(one), Some(two)) => one == two,
                (None, None) => same_step,
                _ => false,
            })
    }
}

/// The nonce of this tag among those that were refused; `-` if there is none.
pub(super) fn refused_nonce<'a>(refused: &'a [(Tag, Box<str>)], tag: &Tag) -> &'a str {
    refused.iter().find(|(name, _)| name == tag).map_or("-", |(_, nonce)| nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(nonce: u8, pending: &str) -> Option<TagRecord> {
        TagRecord::parse(format!("1 {} 5 fence {pending}", Nonce([nonce; 16]).to_hex()).as_bytes())
    }

    fn reading(records: Vec<(Tag, Option<TagRecord>)>) -> RecordSnapshot {
        RecordSnapshot {
            generation: Nonce([9; 16]),
            seq: Some(5),
            records,
            refused: Vec::new(),
            fence: "fence".into(),
            redis_ms: 1_000,
            latest_ms: 1_000,
        }
    }

    fn stamp(tags: &[(&str, u8)]) -> Stamp {
        Stamp {
            generation: Nonce([9; 16]),
            tags: tags.iter().map(|(tag, nonce)| (Tag::new(tag), Nonce([*nonce; 16]))).collect(),
        }
    }

    /// With another form of records, `message::PROTOCOL` has another number.
    #[test]
    fn r1349_a_record_of_this_protocol_has_this_text() {
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let mac = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
        let bytes = |from: u8| std::array::from_fn(|at| from + u8::try_from(at).expect("small"));
        let (plain, seal) =
            (Nonce(bytes(0)), |nonce| NonceSeal { nonce, seq: 41, mac: bytes(0xf0) });
        let mut soft = plain;
        soft.0[8..].fill(0xaa);
        let expected = |nonce, seal, pending_until, guarded| TagRecord {
            nonce,
            seal,
            seq: 1_764_000_000_000_001,
            fence: "8c7d".into(),
            pending_until,
            guarded,
        };
        for (nonce, pending, record) in [
            (nonce.to_owned(), "-", expected(plain, None, None, false)),
            (nonce.to_owned(), "0f:1500:m,fe:1200:b", expected(plain, None, Some(1_200), true)),
            (format!("{nonce}.41.{mac}"), "-", expected(plain, Some(seal(plain)), None, false)),
            (
                format!("{nonce}.41.{mac}~aaaaaaaaaaaaaaaa"),
                "0f:1500:m",
                expected(soft, Some(seal(plain)), Some(1_500), false),
            ),
        ] {
            let text = format!("1 {nonce} 1764000000000001 8c7d {pending}");
            assert_eq!(TagRecord::parse(text.as_bytes()), Some(record), "{text}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let record = record(1, "id-1:2000:m,id-2:1500:b").expect("a record");
        assert_eq!((record.seq, record.pending_until, record.guarded), (5, Some(1500), true));
        for broken in ["", "2 x", "1 zz 5 f -", "1 00 5 f -", "1"] {
            assert_eq!(TagRecord::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn an_entry_is_current_while_all_its_nonces_are_unchanged() {
        let entry = stamp(&[("a", 1), ("b", 2)]);
        let with = |a, b| reading(vec![(Tag::new("a"), a), (Tag::new("b"), b)]).validate(&entry);
        assert_eq!(with(record(1, "-"), record(2, "-")), EntryVerdict::Current);
        assert_eq!(with(record(1, "-"), record(3, "-")), EntryVerdict::Refused(Reason::Purged));
        assert_eq!(
            with(record(1, "-"), None),
            EntryVerdict::Refused(Reason::Purged),
            "an absent record is a miss"
        );
        assert_eq!(
            with(record(1, "x:2000:m"), record(2, "-")),
            EntryVerdict::Current,
            "a mark alone does not stop hits"
        );
        assert_eq!(
            with(record(1, "x:2000:b"), record(2, "-")),
            EntryVerdict::Refused(Reason::MutationPending)
        );
        assert_eq!(with(record(1, "x:999:m"), record(2, "-")), EntryVerdict::Orphaned);
        assert_eq!(
            reading(vec![(Tag::new("a"), record(1, "-"))]).validate(&entry),
            EntryVerdict::Incomplete
        );
    }

    /// The state after a soft purge of this one at this time.
    fn soft(nonce: u8, ms: u64) -> Nonce {
        let mut nonce = Nonce([nonce; 16]);
        nonce.0[8..].copy_from_slice(&(ms << 20 | 1).to_be_bytes());
        nonce
    }

    fn soft_record(nonce: u8, ms: u64, pending: &str) -> Option<TagRecord> {
        TagRecord::parse(format!("1 {} 5 fence {pending}", soft(nonce, ms).to_hex()).as_bytes())
    }

    #[test]
    fn an_entry_is_stale_since_the_first_of_its_tags_was_purged_softly() {
        let entry = stamp(&[("a", 1), ("b", 2)]);
        let with = |a, b| reading(vec![(Tag::new("a"), a), (Tag::new("b"), b)]).validate(&entry);
        let ago = |ms| EntryVerdict::SoftPurged(Duration::from_millis(ms));
        assert_eq!(with(soft_record(1, 900, "-"), record(2, "-")), ago(100));
        assert_eq!(with(soft_record(1, 900, "-"), soft_record(2, 700, "-")), ago(300));
        assert_eq!(
            with(soft_record(1, 1_001, "-"), record(2, "-")),
            ago(0),
            "a clock that runs behind"
        );
        let mut everything = reading(vec![
            (Tag::new("a"), record(1, "-")),
            (Tag::new("b"), soft_record(2, 700, "-")),
        ]);
        everything.generation = soft(9, 600);
        assert_eq!(everything.validate(&entry), ago(400));
    }

    #[test]
    fn reasons_to_refuse_come_before_reasons_to_call_stale() {
        let entry = stamp(&[("a", 1), ("b", 2)]);
        let with = |b| {
            reading(vec![(Tag::new("a"), soft_record(1, 900, "-")), (Tag::new("b"), b)])
                .validate(&entry)
        };
        assert_eq!(with(record(3, "-")), EntryVerdict::Refused(Reason::Purged), "hard");
        assert_eq!(
            with(soft_record(3, 900, "-")),
            EntryVerdict::Refused(Reason::Purged),
            "soft after hard"
        );
        assert_eq!(with(None), EntryVerdict::Refused(Reason::Purged));
        assert_eq!(with(record(2, "x:2000:b")), EntryVerdict::Refused(Reason::MutationPending));
        assert_eq!(with(soft_record(2, 900, "x:999:m")), EntryVerdict::Orphaned);
        assert_eq!(
            reading(vec![(Tag::new("a"), soft_record(1, 900, "-"))]).validate(&entry),
            EntryVerdict::Incomplete
        );
    }

    #[test]
    fn a_soft_purge_separates_reads_before_it_from_reads_after_it() {
        let (before, after) = (
            reading(vec![(Tag::new("a"), record(1, "-"))]),
            reading(vec![(Tag::new("a"), soft_record(1, 900, "-"))]),
        );
        assert!(!before.agrees_with(&after));
    }

    #[test]
    fn a_record_of_another_primary_is_no_record() {
        let mut reading = reading(vec![(Tag::new("a"), record(1, "-"))]);
        reading.fence = "promoted".into();
        assert_eq!(reading.validate(&stamp(&[("a", 1)])), EntryVerdict::Refused(Reason::Purged));
        assert_eq!(reading.nonce(&Tag::new("a")), None);
    }

    #[test]
    fn a_follower_joins_only_a_fill_that_read_the_same() {
        let (known, unknown) =
            (|nonce| vec![(Tag::new("a"), record(nonce, "-"))], vec![(Tag::new("a"), None)]);
        let mut later = reading(known(1));
        later.seq = Some(6);
        assert!(reading(known(1)).agrees_with(&later), "only another tag was purged");
        assert!(!reading(known(1)).agrees_with(&reading(known(2))));
        assert!(reading(unknown.clone()).agrees_with(&reading(unknown.clone())));
        let mut later = reading(unknown.clone());
        later.seq = Some(6);
        assert!(!reading(unknown).agrees_with(&later), "this tag may have been purged");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TagRecord::parse(&bytes);
        }
    }
}
