//! The tag records in Redis: reads them, and runs the scripts that change them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock::{Clock, Wall, millis};
use crate::coherence::stamp::{Nonce, Stamp};
use crate::coherence::tag_record::{RecordSnapshot, TagRecord, parse_nonce, refused_nonce};
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::redis::{CallError, RedisClient, ReplyWait, ScriptReply};
use crate::telemetry::metrics::Counter;

pub use peers::ServerRole;
pub use switches::{SharedSwitch, SwitchSent};

use layout::{RecordKeys, RecordScripts};
use record_seal::{RecordSeal, SealContext};
use redis_clock::{CLOCK_TOLERANCE, RedisClock, ahead_at_least};
use replies::{step_from, time_from, unexpected_reply};
use seen_records::{SeenRecords, SeenStep};

mod layout;
mod peers;
mod purges;
mod record_seal;
mod redis_clock;
mod replies;
mod seen_records;
mod switches;

/// How long a record lives while no entry carries its tag: longer than any fill.
const IDLE_RECORD: Duration = Duration::from_hours(1);

/// How much longer than the entry its records live.
const RECORD_MARGIN: Duration = Duration::from_mins(10);

/// How long the generation, the step, the clock and the list of sidecars live without heartbeats:
/// longer than any entry.
const SHARED_TTL: Duration = Duration::from_hours(400 * 24);

/// The most tags that one script changes.
pub const MAX_BATCH_TAGS: usize = 128;

/// The result of one read: an entry, if one was asked for, and tag records.
#[derive(Debug)]
pub struct FetchedRecords {
    /// The bytes of the entry.
    pub entry: Option<Bytes>,
    /// The records; `None` when the generation or the step is missing, so that nothing can be
    /// proven.
    pub reading: Option<RecordSnapshot>,
}

/// The tag records in Redis.
#[derive(Debug)]
pub struct RecordStore {
    client: Arc<RedisClient>,
    keys: RecordKeys,
    scripts: RecordScripts,
    fence: ArcSwap<Arc<str>>,
    clock_there: RedisClock,
    seal: RecordSeal,
    seen: SeenRecords,
    clock: Clock,
    /// Records refused because their seals are wrong, or older than what was seen.
    pub refused: Arc<Counter>,
}

/// The stamp for a response, and the clock by which other sidecars will read its times.
#[derive(Debug)]
pub struct CommittedStamp {
    /// The stamp.
    pub stamp: Stamp,
    /// How far Redis's clock is at least ahead of this process's count, in milliseconds.
    pub redis_ahead_ms: i64,
}

/// What became of a commit.
enum CommitReply {
    Stamped(CommittedStamp),
    /// A tag was purged since it was read.
    Purged,
    /// Records with these nonces do not count.
    Refused(Vec<(Tag, Box<str>)>),
}

impl RecordStore {
    /// The records that this client reaches.
    #[must_use]
    pub fn new(client: Arc<RedisClient>, clock: Clock) -> Self {
        let keys = RecordKeys::new(&client.settings().namespace);
        let fence = ArcSwap::from_pointee(Arc::from(""));
        let secret = client.settings().secret.as_ref().map(|secret| secret.expose().as_bytes());
        let seal = RecordSeal::new(secret);
        let seen = SeenRecords::new(seal.is_keyed());
        Self {
            client,
            keys,
            scripts: RecordScripts::default(),
            fence,
            clock_there: RedisClock::default(),
            seal,
            seen,
            clock,
            refused: Arc::default(),
        }
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Arc<RedisClient> {
        &self.client
    }

    fn fence(&self) -> Arc<str> {
        Arc::clone(&self.fence.load())
    }

    /// A time of Redis's clock by this process's count, at the earliest that it can have been;
    /// `None` if it is still to come, so that it says nothing.
    #[must_use]
    pub fn local_time(&self, there: Wall) -> Option<Wall> {
        self.clock_there.local(there, self.clock.wall())
    }

    /// The time by Redis's clock of something that was received at this time by this process's
    /// count, at the earliest.
    #[must_use]
    pub fn redis_time(&self, here: Wall) -> Wall {
        self.clock_there.there(here, &self.clock)
    }

    /// The key of an entry in Redis.
    #[must_use]
    pub fn entry_key(&self, hash: KeyHash) -> Bytes {
        [self.keys.entry.as_str(), &hash.to_hex()].concat().into()
    }

    /// Reads an entry, if one is asked for, and the records of some tags, in one round trip.
    pub async fn fetch(
        &self,
        entry: Option<KeyHash>,
        tags: &[Tag],
        wait: ReplyWait,
    ) -> Result<FetchedRecords, CallError> {
        let mut keys = Vec::with_capacity(tags.len() + 3);
        keys.push(self.keys.generation.clone());
        keys.push(self.keys.seq.clone());
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        // What is seen while the call is in flight says nothing of its reply.
        let (highest, seen) = (self.seen.highest(), self.seen.of_tags(tags));
        let (values, entry) =
            self.client.fetch(keys, entry.map(|hash| self.entry_key(hash)), wait).await?;
        let text = |value: &Option<Bytes>| {
            value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned)
        };
        let generation = values.first().and_then(|value| Nonce::from_hex(value.as_deref()?));
        let seq = values.get(1).and_then(text).and_then(|text| step_from(&text));
        if let Some(seq) = seq {
            if seq < highest {
                return Err(self.went_back());
            }
            self.seen.note_step(seq);
        }
        if generation.is_none() || seq.is_none() {
            // Flushed, evicted or damaged. New values match nothing that was stored before.
            match self.init(wait).await {
                // Redis cannot create them while it is out of memory or the slot is moving. Stored
                // entries are still validated by their nonces.
                Err(CallError::OutOfMemory | CallError::Moving) => {}
                created => created?,
            }
        }
        let Some(generation) = generation else {
            return Ok(FetchedRecords { entry, reading: None });
        };
        let now = self.clock.wall();
        let mut reading = RecordSnapshot {
            generation,
            seq,
            records: Vec::with_capacity(tags.len()),
            refused: Vec::new(),
            fence: self.fence(),
            redis_ms: self.clock_there.at_earliest(now),
            latest_ms: self.clock_there.at_latest(now),
        };
        for (at, (tag, value)) in tags.iter().zip(&values[2..]).enumerate() {
            let seen = seen.get(at).copied().unwrap_or_default();
            let record = match value {
                Some(value) => self.accept(tag, value, seen, &mut reading)?,
                None => None,
            };
            reading.records.push((tag.clone(), record));
        }
        Ok(FetchedRecords { entry, reading: Some(reading) })
    }

    /// A record, if it counts. A sealed one that does not is noted, to be replaced.
    fn accept(
        &self,
        tag: &Tag,
        value: &[u8],
        seen: SeenStep,
        reading: &mut RecordSnapshot,
    ) -> Result<Option<TagRecord>, CallError> {
        let Some(record) = TagRecord::parse(value) else { return Ok(None) };
        if self.seal.accepts_record(tag, &record, reading.generation) {
            let Some(seal) = &record.seal else { return Ok(Some(record)) };
            if seal.seq >= seen.seq {
                self.seen.note_sealed(tag, seal.seq);
                return Ok(Some(record));
            }
            if seen.proven && *record.fence == *reading.fence {
                return Err(self.went_back());
            }
        }
        if record.seal.is_some() && self.seal.is_keyed() {
            let text = std::str::from_utf8(value).ok();
            let nonce = text.and_then(|text| text.split(' ').nth(1)).unwrap_or_default();
            self.refused.inc();
            tracing::debug!(%tag, "the seal of a tag record is wrong, or too old");
            reading.refused.push((tag.clone(), nonce.into()));
        }
        Ok(None)
    }

    /// Redis is older than this process has seen it.
    fn went_back(&self) -> CallError {
        self.seen.reset();
        CallError::WentBack
    }

    /// Reads the bytes of an entry alone.
    pub async fn fetch_entry(
        &self,
        hash: KeyHash,
        wait: ReplyWait,
    ) -> Result<Option<Bytes>, CallError> {
        self.client.get(self.entry_key(hash), wait).await
    }

    /// Creates the generation and the step where they are missing, and notes Redis's clock.
    pub async fn init(&self, wait: ReplyWait) -> Result<(), CallError> {
        let keys =
            vec![self.keys.seq.clone(), self.keys.generation.clone(), self.keys.clock.clone()];
        let args = clock_args().to_vec();
        self.client.run_waiting(wait, &self.scripts.init, keys, args).await.map(drop)
    }

    /// Creates the records that a read found missing, so that the fill depends on its own tags
    /// alone: without them, a purge of any tag would keep it from being stored.
    pub async fn seed(
        &self,
        reading: &mut RecordSnapshot,
        wait: ReplyWait,
    ) -> Result<(), CallError> {
        let absent: Vec<Tag> = reading
            .records
            .iter()
            .map(|(tag, _)| tag)
            .filter(|tag| reading.nonce(tag).is_none())
            .cloned()
            .collect();
        let fence = Arc::clone(&reading.fence);
        let Some(context) = self.seal_context(reading) else { return Ok(()) };
        let context = SealContext { fence: &fence, ..context };
        for batch in absent.chunks(MAX_BATCH_TAGS) {
            let mut args = vec![idle_ttl(), Bytes::copy_from_slice(fence.as_bytes())];
            args.push(if self.seal.is_keyed() {
                context.seq.to_string().into()
            } else {
                Bytes::from_static(b"-")
            });
            for tag in batch {
                args.push(self.seal.fresh(tag, context).into());
                args.push(reading.refused_nonce(tag).to_owned().into());
            }
            let keys = self.with_seq(batch);
            let reply = self.client.run_waiting(wait, &self.scripts.seed, keys, args).await?;
            let ScriptReply::Many(nonces) = reply else { return Err(unexpected_reply()) };
            for (tag, nonce) in batch.iter().zip(nonces) {
                let nonce = std::str::from_utf8(&nonce).ok().and_then(parse_nonce);
                if let Some((nonce, seal)) = nonce
                    && self.seal.accepts(tag, seal.as_ref(), (context.generation, &fence))
                {
                    reading.add_seeded(tag, nonce);
                }
            }
        }
        Ok(())
    }

    /// What fresh nonces are sealed for; `None` without a step to seal them for.
    fn seal_context<'a>(&self, reading: &'a RecordSnapshot) -> Option<SealContext<'a>> {
        let seq = if self.seal.is_keyed() { reading.seq? } else { 0 };
        Some(SealContext { generation: reading.generation, fence: &reading.fence, seq })
    }

    /// The stamp for a response that was fetched after this read; `None` if a tag was purged since.
    pub async fn commit(
        &self,
        reading: &RecordSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<Option<CommittedStamp>, CallError> {
        let refused = match self.try_commit(reading, tags, lifetime, &[]).await? {
            CommitReply::Stamped(stamp) => return Ok(Some(stamp)),
            CommitReply::Purged => return Ok(None),
            CommitReply::Refused(nonces) => nonces,
        };
        self.refused.add(refused.len() as u64);
        // Sealed for an earlier generation, or by somebody else: as good as absent. Nothing else
        // would ever replace the records of tags that only responses name. Boxed: it is rare.
        match Box::pin(self.try_commit(reading, tags, lifetime, &refused)).await? {
            CommitReply::Stamped(stamp) => Ok(Some(stamp)),
            CommitReply::Purged | CommitReply::Refused(_) => Ok(None),
        }
    }

    /// The same, where the script takes records with these nonces for absent.
    async fn try_commit(
        &self,
        reading: &RecordSnapshot,
        tags: &[Tag],
        lifetime: Duration,
        refused: &[(Tag, Box<str>)],
    ) -> Result<CommitReply, CallError> {
        let mut keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        let (Some(seq), Some(context)) = (reading.seq, self.seal_context(reading)) else {
            return Ok(CommitReply::Purged);
        };
        let ttl = millis(lifetime.saturating_add(RECORD_MARGIN)).max(millis(IDLE_RECORD));
        let mut args: Vec<Bytes> = vec![
            seq.to_string().into(),
            reading.generation.to_hex().into(),
            ttl.to_string().into(),
            Bytes::copy_from_slice(reading.fence.as_bytes()),
        ];
        for tag in tags {
            args.push(
                reading
                    .nonce(tag)
                    .map_or_else(|| Bytes::from_static(b"-"), |nonce| nonce.to_hex().into()),
            );
            args.push(self.seal.fresh(tag, context).into());
            args.push(refused_nonce(refused, tag).to_owned().into());
        }
        let words = match self.client.run_patiently(&self.scripts.commit, keys, args).await? {
            ScriptReply::Many(words) => words,
            ScriptReply::One(seq) => {
                // Boxed: it is rare, and every fill would carry its future.
                Box::pin(self.seal_absent(reading, tags, refused, &seq)).await?;
                return Ok(CommitReply::Purged);
            }
            ScriptReply::Nil => return Ok(CommitReply::Purged),
        };
        let after = self.clock.wall();
        let Some((time, nonces)) = words.split_first().filter(|(_, list)| list.len() == tags.len())
        else {
            return Err(unexpected_reply());
        };
        let mut stamped = Vec::with_capacity(tags.len());
        let mut refused = Vec::new();
        for (tag, text) in tags.iter().zip(nonces) {
            let text = std::str::from_utf8(text).map_err(|_| unexpected_reply())?;
            let Some((nonce, seal)) = parse_nonce(text) else { return Err(unexpected_reply()) };
            if !self.seal.accepts(tag, seal.as_ref(), (reading.generation, &reading.fence)) {
                refused.push((tag.clone(), text.into()));
                continue;
            }
            // SECURITY: the script compares steps, but cannot tell who wrote them.
            if reading.nonce(tag).is_none() && seal.is_some_and(|seal| seal.seq > seq) {
                return Ok(CommitReply::Purged);
            }
            stamped.push((tag.clone(), nonce));
        }
        if !refused.is_empty() {
            return Ok(CommitReply::Refused(refused));
        }
        let stamp = Stamp { generation: reading.generation, tags: stamped.into() };
        let redis_ahead_ms = ahead_at_least(self.clock.as_moved(time_from(time)?), after);
        Ok(CommitReply::Stamped(CommittedStamp { stamp, redis_ahead_ms }))
    }

    /// Seals the records that a fill found absent, for the next one: for the present step, since
    /// those of the fill were sealed for an earlier one.
    async fn seal_absent(
        &self,
        reading: &RecordSnapshot,
        tags: &[Tag],
        refused: &[(Tag, Box<str>)],
        seq: &[u8],
    ) -> Result<(), CallError> {
        let absent = tags.iter().filter(|tag| reading.nonce(tag).is_none());
        let mut present = RecordSnapshot {
            seq: std::str::from_utf8(seq).ok().and_then(step_from),
            records: absent.map(|tag| (tag.clone(), None)).collect(),
            refused: refused.to_vec(),
            ..reading.clone()
        };
        self.seed(&mut present, ReplyWait::Prompt).await
    }

    fn fence_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.fence().as_bytes())
    }

    fn with_seq(&self, tags: &[Tag]) -> Vec<Bytes> {
        std::iter::once(self.keys.seq.clone())
            .chain(tags.iter().map(|tag| self.keys.tag(tag)))
            .collect()
    }
}

/// What the scripts need that note the time of Redis's clock.
fn clock_args() -> [Bytes; 3] {
    let [tolerance, ttl] =
        [CLOCK_TOLERANCE, SHARED_TTL].map(|time| millis(time).to_string().into());
    [Nonce::random().to_hex().into(), tolerance, ttl]
}

fn idle_ttl() -> Bytes {
    millis(IDLE_RECORD).to_string().into()
}

fn with_nonces(mut head: Vec<Bytes>, tags: &[Tag]) -> Vec<Bytes> {
    head.extend(tags.iter().map(|_| Bytes::from(Nonce::random().to_hex())));
    head
}
