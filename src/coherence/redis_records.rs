//! The tag records in Redis: reads them, and runs the scripts that change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock::{Clock, millis};
use crate::coherence::stamp::{Nonce, Stamp};
use crate::coherence::tag_record::{RecordSnapshot, TagRecord};
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::redis::{CallError, RedisClient, ScriptReply};

pub use peers::ServerRole;

use layout::{RecordKeys, RecordScripts};
use replies::unexpected_reply;

mod layout;
mod peers;
mod purges;
mod replies;

/// How long a record lives while no entry carries its tag: longer than any fill.
const IDLE_RECORD: Duration = Duration::from_hours(1);

/// How much longer than the entry its records live.
const RECORD_MARGIN: Duration = Duration::from_mins(10);

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
    /// How far Redis's clock is ahead of ours, in milliseconds.
    ahead_ms: AtomicI64,
    clock: Clock,
}

impl RecordStore {
    /// The records that this client reaches.
    #[must_use]
    pub fn new(client: Arc<RedisClient>, clock: Clock) -> Self {
        let keys = RecordKeys::new(&client.settings().namespace);
        let fence = ArcSwap::from_pointee(Arc::from(""));
        Self {
            client,
            keys,
            scripts: RecordScripts::default(),
            fence,
            ahead_ms: AtomicI64::new(0),
            clock,
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

    fn redis_ms(&self) -> u64 {
        self.clock.wall().0.saturating_add_signed(self.ahead_ms.load(Relaxed))
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
    ) -> Result<FetchedRecords, CallError> {
        let mut keys = Vec::with_capacity(tags.len() + 3);
        keys.push(self.keys.generation.clone());
        keys.push(self.keys.seq.clone());
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        let (mut values, entry) =
            self.client.fetch(keys, entry.map(|hash| self.entry_key(hash))).await?;
        let text = |value: &Option<Bytes>| {
            value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned)
        };
        let generation = values.first().and_then(|value| Nonce::from_hex(value.as_deref()?));
        let plausible = |seq: &String| seq.len() <= 16 && seq.bytes().all(|b| b.is_ascii_digit());
        let seq = values.get(1).and_then(text).filter(plausible).and_then(|seq| seq.parse().ok());
        if generation.is_none() || seq.is_none() {
            // Flushed, evicted or damaged. New values match nothing that was stored before.
            match self.init().await {
                // Redis cannot create them while it is out of memory or the slot is moving. Stored
                // entries are still validated by their nonces.
                Err(CallError::OutOfMemory | CallError::Moving) => {}
                created => created?,
            }
        }
        let Some(generation) = generation else {
            return Ok(FetchedRecords { entry, reading: None });
        };
        let found = values.split_off(2);
        let records = tags
            .iter()
            .cloned()
            .zip(found.iter().map(|value| value.as_deref().and_then(TagRecord::parse)))
            .collect();
        let reading = RecordSnapshot {
            generation,
            seq,
            records,
            fence: self.fence(),
            redis_ms: self.redis_ms(),
        };
        Ok(FetchedRecords { entry, reading: Some(reading) })
    }

    /// Reads the bytes of an entry alone.
    pub async fn fetch_entry(&self, hash: KeyHash) -> Result<Option<Bytes>, CallError> {
        self.client.get(self.entry_key(hash)).await
    }

    /// Creates the generation and the step where they are missing.
    pub async fn init(&self) -> Result<(), CallError> {
        let keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        self.client
            .run(&self.scripts.init, keys, vec![Nonce::random().to_hex().into()])
            .await
            .map(drop)
    }

    /// Creates the records that a read found missing, so that the fill depends on its own tags
    /// alone: without them, a purge of any tag would keep it from being stored.
    pub async fn seed(&self, reading: &mut RecordSnapshot) -> Result<(), CallError> {
        let absent: Vec<Tag> = reading
            .records
            .iter()
            .map(|(tag, _)| tag)
            .filter(|tag| reading.nonce(tag).is_none())
            .cloned()
            .collect();
        for batch in absent.chunks(MAX_BATCH_TAGS) {
            let head = vec![idle_ttl(), Bytes::copy_from_slice(reading.fence.as_bytes())];
            let ScriptReply::Many(nonces) = self
                .client
                .run(&self.scripts.seed, self.with_seq(batch), with_nonces(head, batch))
                .await?
            else {
                return Err(unexpected_reply());
            };
            for (tag, nonce) in
                batch.iter().zip(nonces.iter().filter_map(|nonce| Nonce::from_hex(nonce)))
            {
                reading.add_seeded(tag, nonce);
            }
        }
        Ok(())
    }

    /// The stamp for a response that was fetched after this read; `None` if a tag was purged since.
    pub async fn commit(
        &self,
        reading: &RecordSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<Option<Stamp>, CallError> {
        let mut keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        let Some(seq) = reading.seq else { return Ok(None) };
        let ttl = millis(lifetime.saturating_add(RECORD_MARGIN)).max(millis(IDLE_RECORD));
        let fence = Bytes::copy_from_slice(reading.fence.as_bytes());
        let mut args: Vec<Bytes> = vec![
            seq.to_string().into(),
            reading.generation.to_hex().into(),
            ttl.to_string().into(),
            fence,
        ];
        for tag in tags {
            args.push(
                reading
                    .nonce(tag)
                    .map_or_else(|| Bytes::from_static(b"-"), |nonce| nonce.to_hex().into()),
            );
            args.push(Nonce::random().to_hex().into());
        }
        let ScriptReply::Many(nonces) =
            self.client.run_patiently(&self.scripts.commit, keys, args).await?
        else {
            return Ok(None);
        };
        let nonces: Option<Vec<Nonce>> =
            nonces.iter().map(|nonce| Nonce::from_hex(nonce)).collect();
        match nonces {
            Some(nonces) if nonces.len() == tags.len() => Ok(Some(Stamp {
                generation: reading.generation,
                tags: tags.iter().cloned().zip(nonces).collect(),
            })),
            _ => Err(unexpected_reply()),
        }
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

fn idle_ttl() -> Bytes {
    millis(IDLE_RECORD).to_string().into()
}

fn with_nonces(mut head: Vec<Bytes>, tags: &[Tag]) -> Vec<Bytes> {
    head.extend(tags.iter().map(|_| Bytes::from(Nonce::random().to_hex())));
    head
}
