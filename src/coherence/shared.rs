//! The tags' records in Redis: reading them, and the scripts that change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock::{Clock, millis};
use crate::coherence::record::{Reading, Record};
use crate::entry::{Nonce, Stamp};
use crate::key::KeyHash;
use crate::store::redis::{CallError, Link, Returned, Script};
use crate::tag::Tag;

/// How long a record lives when nothing that carries its tag is stored: longer than any fill.
const IDLE_RECORD: Duration = Duration::from_hours(1);

/// How much longer than the entry its records live.
const RECORD_MARGIN: Duration = Duration::from_mins(10);

/// How many tags one script changes at the most.
const BATCH: usize = 128;

/// The names of the keys.
#[derive(Debug)]
struct Keys {
    entry: String,
    tag: String,
    generation: Bytes,
    seq: Bytes,
}

impl Keys {
    fn new(namespace: &str) -> Self {
        Self {
            entry: format!("{namespace}:e:"),
            tag: format!("{{{namespace}}}:t:"),
            generation: format!("{{{namespace}}}:gen").into(),
            seq: format!("{{{namespace}}}:seq").into(),
        }
    }

    fn tag(&self, tag: &Tag) -> Bytes {
        [&self.tag, tag.as_str()].concat().into()
    }
}

#[derive(Debug)]
struct Scripts {
    begin: Script,
    look: Script,
    mark: Script,
    purge: Script,
    unmark: Script,
    settle: Script,
    seed: Script,
    commit: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        let script = |text: &str| Script::new(&[include_str!("lib.lua"), text]);
        Self {
            begin: script(include_str!("begin.lua")),
            look: script(include_str!("look.lua")),
            mark: script(include_str!("mark.lua")),
            purge: script(include_str!("purge.lua")),
            unmark: script(include_str!("unmark.lua")),
            settle: script(include_str!("settle.lua")),
            seed: script(include_str!("seed.lua")),
            commit: script(include_str!("commit.lua")),
        }
    }
}

/// What a look at Redis told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its replication id.
    pub fence: String,
    /// `master` or `slave`.
    pub role: String,
}

/// What one reading brought: the values asked for besides, and the records.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes under an entry's key, where one was asked for.
    pub entry: Option<Bytes>,
    /// The records; `None` when the generation or the step is missing, so that nothing can be proven.
    pub reading: Option<Reading>,
}

/// The records.
#[derive(Debug)]
pub struct Shared {
    link: Arc<Link>,
    keys: Keys,
    scripts: Scripts,
    fence: ArcSwap<Arc<str>>,
    /// How far Redis's clock is ahead of ours, in milliseconds.
    ahead_ms: AtomicI64,
    clock: Clock,
}

impl Shared {
    /// The records behind this link.
    #[must_use]
    pub fn new(link: Arc<Link>, clock: Clock) -> Self {
        let keys = Keys::new(&link.settings().namespace);
        let fence = ArcSwap::from_pointee(Arc::from(""));
        Self { link, keys, scripts: Scripts::default(), fence, ahead_ms: AtomicI64::new(0), clock }
    }

    /// The link.
    #[must_use]
    pub const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn fence(&self) -> Arc<str> {
        Arc::clone(&self.fence.load())
    }

    fn redis_ms(&self) -> u64 {
        self.clock.wall().0.saturating_add_signed(self.ahead_ms.load(Relaxed))
    }

    /// The key of an entry.
    #[must_use]
    pub fn entry_key(&self, hash: KeyHash) -> Bytes {
        [self.keys.entry.as_str(), &hash.to_hex()].concat().into()
    }

    /// An entry, if one is asked for, and the records of some tags, in one round trip.
    pub async fn fetch(&self, entry: Option<KeyHash>, tags: &[Tag]) -> Result<Fetched, CallError> {
        let mut keys = Vec::with_capacity(tags.len() + 3);
        keys.push(self.keys.generation.clone());
        keys.push(self.keys.seq.clone());
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        keys.extend(entry.map(|hash| self.entry_key(hash)));
        let mut values = self.link.mget(keys).await?;
        let entry = if entry.is_some() { values.pop().flatten() } else { None };
        let text = |value: &Option<Bytes>| value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned);
        let generation = values.first().and_then(|value| Nonce::from_hex(value.as_deref()?));
        let plausible = |seq: &String| seq.len() <= 16 && seq.bytes().all(|b| b.is_ascii_digit());
        let seq = values.get(1).and_then(text).filter(plausible).and_then(|seq| seq.parse().ok());
        if generation.is_none() || seq.is_none() {
            // Flushed, evicted, or none of ours. Made anew, they match nothing that was stored before.
            match self.begin().await {
                // Without memory Redis cannot make them. What is stored is judged by its nonces all the same.
                Err(CallError::OutOfMemory) => {}
                begun => begun?,
            }
        }
        let Some(generation) = generation else { return Ok(Fetched { entry, reading: None }) };
        let found = values.split_off(2);
        let records = tags.iter().cloned().zip(found.iter().map(|value| value.as_deref().and_then(Record::parse))).collect();
        let reading = Reading { generation, seq, records, fence: self.fence(), redis_ms: self.redis_ms() };
        Ok(Fetched { entry, reading: Some(reading) })
    }

    /// Only the bytes of an entry.
    pub async fn fetch_entry(&self, hash: KeyHash) -> Result<Option<Bytes>, CallError> {
        Ok(self.link.mget(vec![self.entry_key(hash)]).await?.pop().flatten())
    }

    /// Who answers, and what its clock says.
    pub async fn look(&self) -> Result<Look, CallError> {
        let before = self.clock.wall();
        let Returned::Many(values) = self.link.run(&self.scripts.look, vec![self.keys.seq.clone()], Vec::new()).await? else {
            return Err(CallError::Answer("not what the script returns".to_owned()));
        };
        let text = |at: usize| values.get(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        let redis_ms: u64 = text(2).parse().map_err(|_| CallError::Answer("no time".to_owned()))?;
        // Counted from before the question, so that a slow answer makes deadlines look later, never earlier.
        let ahead = i128::from(redis_ms) - i128::from(before.0) - i128::from(millis(self.clock.wall().since(before)));
        self.ahead_ms.store(i64::try_from(ahead).unwrap_or_default(), Relaxed);
        Ok(Look { fence: text(0), role: text(1) })
    }

    /// Trusts the records of this primary from now on.
    pub fn trust(&self, fence: &str) {
        self.fence.store(Arc::new(fence.into()));
    }

    /// Whether records of this primary are trusted.
    #[must_use]
    pub fn trusts(&self, fence: &str) -> bool {
        **self.fence.load().as_ref() == *fence
    }

    /// Makes the generation and the step, where they are missing.
    pub async fn begin(&self) -> Result<(), CallError> {
        let keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        self.link.run(&self.scripts.begin, keys, vec![Nonce::random().to_hex().into()]).await.map(drop)
    }

    /// Empties the cache logically, for every sidecar.
    pub async fn new_generation(&self) -> Result<(), CallError> {
        self.link.put(self.keys.generation.clone(), Nonce::random().to_hex().into(), None).await
    }

    /// Marks tags as having a mutation under way.
    pub async fn mark(&self, id: &str, tags: &[Tag], within: Duration, guarded: bool) -> Result<(), CallError> {
        let guard = if guarded { "b" } else { "m" };
        let head: Vec<Bytes> = vec![id.to_owned().into(), millis(within).to_string().into(), guard.into(), idle_ttl(), self.fence_bytes()];
        for batch in tags.chunks(BATCH) {
            self.link.run(&self.scripts.mark, self.with_seq(batch), with_nonces(head.clone(), batch)).await?;
        }
        Ok(())
    }

    /// Gives tags new nonces, and ends a pending mutation of them.
    pub async fn purge(&self, id: &str, tags: &[Tag]) -> Result<(), CallError> {
        for batch in tags.chunks(BATCH) {
            match self.change(&self.scripts.purge, id, batch).await {
                Err(CallError::OutOfMemory) => {
                    // Deleting is still allowed and means the same: an absent record is a miss, and a lost step stops every fill.
                    let mut keys: Vec<Bytes> = batch.iter().map(|tag| self.keys.tag(tag)).collect();
                    keys.push(self.keys.seq.clone());
                    self.link.unlink(keys).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Ends a pending mutation that changed nothing.
    pub async fn unmark(&self, id: &str, tags: &[Tag]) -> Result<(), CallError> {
        for batch in tags.chunks(BATCH) {
            self.change(&self.scripts.unmark, id, batch).await?;
        }
        Ok(())
    }

    /// Takes mutations whose sidecars died as committed.
    pub async fn settle(&self, tags: &[Tag]) -> Result<(), CallError> {
        for batch in tags.chunks(BATCH) {
            self.change(&self.scripts.settle, "", batch).await?;
        }
        Ok(())
    }

    /// Makes the records that a reading found missing, so that the fill which follows is judged by its own tags alone: without them,
    /// any purge at all would keep it from being stored.
    pub async fn seed(&self, reading: &mut Reading) -> Result<(), CallError> {
        let absent: Vec<Tag> = reading.records.iter().map(|(tag, _)| tag).filter(|tag| reading.nonce(tag).is_none()).cloned().collect();
        for batch in absent.chunks(BATCH) {
            let head = vec![Bytes::new(), idle_ttl(), Bytes::copy_from_slice(reading.fence.as_bytes())];
            let Returned::Many(nonces) = self.link.run(&self.scripts.seed, self.with_seq(batch), with_nonces(head, batch)).await? else {
                return Err(CallError::Answer("not what the script returns".to_owned()));
            };
            for (tag, nonce) in batch.iter().zip(nonces.iter().filter_map(|nonce| Nonce::from_hex(nonce))) {
                reading.seeded(tag, nonce);
            }
        }
        Ok(())
    }

    async fn change(&self, script: &Script, id: &str, tags: &[Tag]) -> Result<(), CallError> {
        let head = vec![id.to_owned().into(), idle_ttl(), self.fence_bytes()];
        self.link.run(script, self.with_seq(tags), with_nonces(head, tags)).await.map(drop)
    }

    /// The stamp for a response that was fetched after this reading; `None` when a tag was purged meanwhile.
    pub async fn commit(&self, reading: &Reading, tags: &[Tag], lifetime: Duration) -> Result<Option<Stamp>, CallError> {
        let mut keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        keys.extend(tags.iter().map(|tag| self.keys.tag(tag)));
        let Some(seq) = reading.seq else { return Ok(None) };
        let ttl = millis(lifetime.saturating_add(RECORD_MARGIN)).max(millis(IDLE_RECORD));
        let fence = Bytes::copy_from_slice(reading.fence.as_bytes());
        let mut args: Vec<Bytes> = vec![seq.to_string().into(), reading.generation.to_hex().into(), ttl.to_string().into(), fence];
        for tag in tags {
            args.push(reading.nonce(tag).map_or_else(|| Bytes::from_static(b"-"), |nonce| nonce.to_hex().into()));
            args.push(Nonce::random().to_hex().into());
        }
        let Returned::Many(nonces) = self.link.run(&self.scripts.commit, keys, args).await? else { return Ok(None) };
        let nonces: Option<Vec<Nonce>> = nonces.iter().map(|nonce| Nonce::from_hex(nonce)).collect();
        match nonces {
            Some(nonces) if nonces.len() == tags.len() => {
                Ok(Some(Stamp { generation: reading.generation, tags: tags.iter().cloned().zip(nonces).collect() }))
            }
            _ => Err(CallError::Answer("not what the script returns".to_owned())),
        }
    }

    fn fence_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.fence().as_bytes())
    }

    fn with_seq(&self, tags: &[Tag]) -> Vec<Bytes> {
        std::iter::once(self.keys.seq.clone()).chain(tags.iter().map(|tag| self.keys.tag(tag))).collect()
    }
}

fn idle_ttl() -> Bytes {
    millis(IDLE_RECORD).to_string().into()
}

fn with_nonces(mut head: Vec<Bytes>, tags: &[Tag]) -> Vec<Bytes> {
    head.extend(tags.iter().map(|_| Bytes::from(Nonce::random().to_hex())));
    head
}
