//! The tags' records in Redis: reading them, and the scripts that change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock::{Clock, Wall, millis};
use crate::coherence::core::{HeartbeatReply, RegisteredPeer, Registration, Subscribers};
use crate::coherence::message::{Message, OperationId, PeerId};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::stamp::{Nonce, Stamp};
use crate::coherence::tag_record::{RecordSnapshot, TagRecord};
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::redis::{CallError, RedisClient, Script, ScriptReply};

/// How long a record lives when nothing that carries its tag is stored: longer than any fill.
const IDLE_RECORD: Duration = Duration::from_hours(1);

/// How much longer than the entry its records live.
const RECORD_MARGIN: Duration = Duration::from_mins(10);

/// How many tags one script changes at the most.
pub const MAX_BATCH_TAGS: usize = 128;

/// The names of the keys.
#[derive(Debug)]
struct RecordKeys {
    entry: String,
    tag: String,
    generation: Bytes,
    seq: Bytes,
    nodes: Bytes,
    marks: String,
    bus: String,
}

impl RecordKeys {
    fn new(namespace: &str) -> Self {
        Self {
            entry: format!("{namespace}:e:"),
            tag: format!("{{{namespace}}}:t:"),
            generation: format!("{{{namespace}}}:gen").into(),
            seq: format!("{{{namespace}}}:seq").into(),
            nodes: format!("{{{namespace}}}:nodes").into(),
            marks: format!("{{{namespace}}}:m:"),
            bus: format!("{{{namespace}}}:bus"),
        }
    }

    fn tag(&self, tag: &Tag) -> Bytes {
        [&self.tag, tag.as_str()].concat().into()
    }

    fn marks(&self, node: PeerId) -> Bytes {
        [&self.marks, node.to_string().as_str()].concat().into()
    }
}

#[derive(Debug)]
struct RecordScripts {
    init: Script,
    role: Script,
    heartbeat: Script,
    mark: Script,
    purge: Script,
    purge_oom: Script,
    unmark: Script,
    purge_all: Script,
    evict: Script,
    forget: Script,
    seed: Script,
    commit: Script,
}

impl Default for RecordScripts {
    fn default() -> Self {
        let script = |text: &str| Script::new(&[include_str!("lua/lib.lua"), text]);
        Self {
            init: script(include_str!("lua/init.lua")),
            role: script(include_str!("lua/role.lua")),
            heartbeat: script(include_str!("lua/heartbeat.lua")),
            mark: script(include_str!("lua/mark.lua")),
            purge: script(include_str!("lua/purge.lua")),
            purge_oom: script(include_str!("lua/purge_oom.lua")),
            unmark: script(include_str!("lua/unmark.lua")),
            purge_all: script(include_str!("lua/purge_all.lua")),
            evict: script(include_str!("lua/evict.lua")),
            forget: script(include_str!("lua/forget.lua")),
            seed: script(include_str!("lua/seed.lua")),
            commit: script(include_str!("lua/commit.lua")),
        }
    }
}

/// What a look at Redis told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRole {
    /// Its replication id.
    pub fence: String,
    /// `master` or `slave`.
    pub role: String,
    /// Whether it was a replica before.
    pub promoted: bool,
}

/// What one reading brought: the values asked for besides, and the records.
#[derive(Debug)]
pub struct FetchedRecords {
    /// The bytes under an entry's key, where one was asked for.
    pub entry: Option<Bytes>,
    /// The records; `None` when the generation or the step is missing, so that nothing can be
    /// proven.
    pub reading: Option<RecordSnapshot>,
}

/// The records.
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
    /// The records behind this link.
    #[must_use]
    pub fn new(link: Arc<RedisClient>, clock: Clock) -> Self {
        let keys = RecordKeys::new(&link.settings().namespace);
        let fence = ArcSwap::from_pointee(Arc::from(""));
        Self {
            client: link,
            keys,
            scripts: RecordScripts::default(),
            fence,
            ahead_ms: AtomicI64::new(0),
            clock,
        }
    }

    /// The link.
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

    /// The key of an entry.
    #[must_use]
    pub fn entry_key(&self, hash: KeyHash) -> Bytes {
        [self.keys.entry.as_str(), &hash.to_hex()].concat().into()
    }

    /// An entry, if one is asked for, and the records of some tags, in one round trip.
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
            // Flushed, evicted, or none of ours. Made anew, they match nothing that was stored
            // before.
            match self.init().await {
                // Without memory, or while they move, Redis cannot make them. What is stored is
                // judged by its nonces all the same.
                Err(CallError::OutOfMemory | CallError::Moving) => {}
                begun => begun?,
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

    /// Only the bytes of an entry.
    pub async fn fetch_entry(&self, hash: KeyHash) -> Result<Option<Bytes>, CallError> {
        self.client.get(self.entry_key(hash)).await
    }

    /// Who answers, and what its clock says.
    pub async fn role(&self) -> Result<ServerRole, CallError> {
        let before = self.clock.wall();
        // No key: it is the primary that is asked, wherever a moving key is.
        let ScriptReply::Many(values) =
            self.client.run(&self.scripts.role, Vec::new(), Vec::new()).await?
        else {
            return Err(unexpected_reply());
        };
        let text = |at: usize| {
            values
                .get(at)
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        };
        self.set_clock(before, text(2).as_bytes())?;
        Ok(ServerRole { fence: text(0), role: text(1), promoted: text(3) == "1" })
    }

    fn set_clock(&self, before: Wall, time: &[u8]) -> Result<(), CallError> {
        let redis_ms: u64 = std::str::from_utf8(time)
            .ok()
            .and_then(|time| time.parse().ok())
            .ok_or_else(unexpected_reply)?;
        // Counted from before the question, so that a slow answer makes deadlines look later, never
        // earlier.
        let ahead = i128::from(redis_ms)
            - i128::from(before.0)
            - i128::from(millis(self.clock.wall().since(before)));
        self.ahead_ms.store(i64::try_from(ahead).unwrap_or_default(), Relaxed);
        Ok(())
    }

    /// Trusts the records of this primary from now on.
    pub fn trust(&self, fence: &str) {
        self.fence.store(Arc::new(fence.into()));
    }

    /// Makes the generation and the step, where they are missing.
    pub async fn init(&self) -> Result<(), CallError> {
        let keys = vec![self.keys.seq.clone(), self.keys.generation.clone()];
        self.client
            .run(&self.scripts.init, keys, vec![Nonce::random().to_hex().into()])
            .await
            .map(drop)
    }

    /// The channel on which the sidecars speak to each other.
    #[must_use]
    pub fn bus(&self) -> &str {
        &self.keys.bus
    }

    fn publish_args(&self, message: Option<&Message>) -> [Bytes; 3] {
        let bytes = message.map(Message::to_bytes).unwrap_or_default();
        [
            Bytes::from_static(self.client.publish_command().as_bytes()),
            self.keys.bus.clone().into(),
            bytes.into(),
        ]
    }

    /// A sign of life under this name; registers it where a name is to be registered.
    /// With the answer, tells the longest lease of all.
    pub async fn heartbeat(
        &self,
        node: PeerId,
        number: u64,
        register: bool,
    ) -> Result<(HeartbeatReply, Duration), CallError> {
        let message = Message::Heartbeat { of: node.process, number, registered: register };
        let mut args = self.publish_args(Some(&message)).to_vec();
        args.push(if register { node.to_string().into() } else { Bytes::from_static(b"-") });
        args.push(millis(self.client.settings().lease).to_string().into());
        let before = self.clock.wall();
        let words =
            self.run_list(&self.scripts.heartbeat, vec![self.keys.nodes.clone()], args).await?;
        let [fence, role, time, standing, names @ ..] = &words[..] else {
            return Err(unexpected_reply());
        };
        if **role != *b"master" {
            return Err(CallError::Connection("it is a replica now".to_owned()));
        }
        self.set_clock(before, time)?;
        let standing = match &**standing {
            b"known" => Registration::Known,
            b"new" => Registration::New,
            b"struck" => Registration::Evicted,
            _ => Registration::Absent,
        };
        let (longest, mut names) = (longest_lease_from(names), peers_from(names));
        if standing == Registration::New {
            names.push(RegisteredPeer { node, evicted: false });
        }
        Ok((
            HeartbeatReply {
                fence: String::from_utf8_lossy(fence).into(),
                registration: standing,
                names,
            },
            longest,
        ))
    }

    /// Marks tags as having a mutation under way, or moves its deadline. With a message, tells the
    /// others.
    pub async fn mark(
        &self,
        mark: (OperationId, PeerId),
        tags: &[Tag],
        within: Duration,
        guarded: bool,
        message: Option<&Message>,
    ) -> Result<Subscribers, CallError> {
        let (id, node) = mark;
        let guard = if guarded { "b" } else { "m" };
        let kept = [guard, &serde_json::to_string(tags).unwrap_or_default()].concat();
        let mut args = vec![
            id.to_string().into(),
            millis(within).to_string().into(),
            guard.into(),
            idle_ttl(),
            self.fence_bytes(),
            kept.into(),
        ];
        args.extend(self.publish_args(message));
        self.run_published(
            &self.scripts.mark,
            self.with_marks(Some(node), tags),
            with_nonces(args, tags),
        )
        .await
    }

    /// Gives tags new nonces, ends a pending mutation of them, and tells the others. For up to
    /// [`MAX_BATCH_TAGS`] tags.
    pub async fn purge(
        &self,
        mark: Option<(OperationId, PeerId)>,
        tags: &[Tag],
        kind: PurgeKind,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        let id = mark.map(|(id, _)| id.to_string()).unwrap_or_default();
        let mut args = vec![id.into(), idle_ttl(), self.fence_bytes()];
        args.extend(self.publish_args(Some(message)));
        args.push(kind.as_str().into());
        let keys = self.with_marks(mark.map(|(_, node)| node), tags);
        let told =
            self.client.run_replicated(&self.scripts.purge, keys, with_nonces(args, tags)).await;
        self.finish_purge(told, tags.iter().map(|tag| self.keys.tag(tag)), message).await
    }

    /// What became of a purge. Where Redis could not write what it was to, these keys are deleted
    /// instead, and the others told: a hard purge, whatever it was.
    async fn finish_purge(
        &self,
        told: Result<ScriptReply, CallError>,
        purged: impl Iterator<Item = Bytes>,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        match told.and_then(subscribers_from) {
            Err(CallError::Moving) => {
                // Key by key, wherever each of them is; who there is to hear it is known from what
                // was heard.
                self.client.unlink(purged.chain([self.keys.seq.clone()]).collect()).await?;
                self.publish(message).await.map(|()| Subscribers::default())
            }
            Err(CallError::OutOfMemory) => {
                let keys = [self.keys.seq.clone(), self.keys.nodes.clone()]
                    .into_iter()
                    .chain(purged)
                    .collect();
                self.run_published(
                    &self.scripts.purge_oom,
                    keys,
                    self.publish_args(Some(message)).to_vec(),
                )
                .await
            }
            told => told,
        }
    }

    /// Ends a pending mutation that changed nothing. For up to [`MAX_BATCH_TAGS`] tags.
    pub async fn unmark(
        &self,
        (id, node): (OperationId, PeerId),
        tags: &[Tag],
    ) -> Result<(), CallError> {
        let args = vec![id.to_string().into(), idle_ttl(), self.fence_bytes()];
        self.client
            .run(&self.scripts.unmark, self.with_marks(Some(node), tags), args)
            .await
            .map(drop)
    }

    /// Empties the cache logically, for every sidecar, or makes all of it stale.
    pub async fn purge_everything(
        &self,
        kind: PurgeKind,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        let mut args = self.publish_args(Some(message)).to_vec();
        args.extend([kind.as_str().into(), Nonce::random().to_hex().into()]);
        let keys =
            vec![self.keys.seq.clone(), self.keys.generation.clone(), self.keys.nodes.clone()];
        let told = self.client.run_replicated(&self.scripts.purge_all, keys, args).await;
        self.finish_purge(told, std::iter::once(self.keys.generation.clone()), message).await
    }

    /// Says something on the bus.
    pub async fn publish(&self, message: &Message) -> Result<(), CallError> {
        self.client.publish(&self.keys.bus, message.to_bytes().into()).await
    }

    /// Strikes a name out, and tells the marks under it: each mutation with its tags, and whether
    /// it keeps hits away.
    pub async fn evict(
        &self,
        node: PeerId,
    ) -> Result<Vec<(OperationId, Vec<Tag>, bool)>, CallError> {
        let keys = vec![self.keys.nodes.clone(), self.keys.marks(node)];
        let words = self.run_list(&self.scripts.evict, keys, vec![node.to_string().into()]).await?;
        let mark = |pair: &[Bytes]| {
            let id = u64::from_str_radix(std::str::from_utf8(&pair[0]).ok()?, 16).ok()?;
            let (guard, tags) = pair[1].split_first()?;
            Some((OperationId(id), serde_json::from_slice(tags).ok()?, *guard == b'b'))
        };
        Ok(words.chunks_exact(2).filter_map(mark).collect())
    }

    /// Forgets a name and its marks; one's own with a message that it is withdrawn.
    pub async fn forget(&self, node: PeerId, message: Option<&Message>) -> Result<(), CallError> {
        let mut args = vec![node.to_string().into()];
        args.extend(self.publish_args(message));
        self.client
            .run(&self.scripts.forget, vec![self.keys.nodes.clone(), self.keys.marks(node)], args)
            .await
            .map(drop)
    }

    async fn run_published(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Subscribers, CallError> {
        self.client.run(script, keys, args).await.and_then(subscribers_from)
    }

    async fn run_list(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, CallError> {
        self.client.run(script, keys, args).await.and_then(list_from)
    }

    /// Makes the records that a reading found missing, so that the fill which follows is judged by
    /// its own tags alone: without them, any purge at all would keep it from being stored.
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

    /// The stamp for a response that was fetched after this reading; `None` when a tag was purged
    /// meanwhile.
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
        let ScriptReply::Many(nonces) = self.client.run(&self.scripts.commit, keys, args).await?
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

    fn with_marks(&self, node: Option<PeerId>, tags: &[Tag]) -> Vec<Bytes> {
        let marks = node.map_or_else(|| self.keys.seq.clone(), |node| self.keys.marks(node));
        let head = [self.keys.seq.clone(), self.keys.nodes.clone(), marks];
        head.into_iter().chain(tags.iter().map(|tag| self.keys.tag(tag))).collect()
    }

    fn with_seq(&self, tags: &[Tag]) -> Vec<Bytes> {
        std::iter::once(self.keys.seq.clone())
            .chain(tags.iter().map(|tag| self.keys.tag(tag)))
            .collect()
    }
}

fn unexpected_reply() -> CallError {
    CallError::Reply("not what the script returns".to_owned())
}

fn list_from(returned: ScriptReply) -> Result<Vec<Bytes>, CallError> {
    match returned {
        ScriptReply::Many(words) => Ok(words),
        ScriptReply::Nil | ScriptReply::One(_) => Err(unexpected_reply()),
    }
}

/// How many listened, and the list of names; nothing of either where nothing was said.
fn subscribers_from(returned: ScriptReply) -> Result<Subscribers, CallError> {
    let words = list_from(returned)?;
    let Some((listeners, names)) = words.split_first() else { return Ok(Subscribers::default()) };
    let listeners = std::str::from_utf8(listeners)
        .ok()
        .and_then(|listeners| listeners.parse().ok())
        .ok_or_else(unexpected_reply)?;
    Ok(Subscribers { listeners, names: peers_from(names) })
}

/// The list of names: each with its lease, or with what says that it was struck out.
fn peers_from(words: &[Bytes]) -> Vec<RegisteredPeer> {
    words
        .chunks_exact(2)
        .filter_map(|pair| {
            Some(RegisteredPeer { node: PeerId::parse(&pair[0])?, evicted: *pair[1] == *b"0" })
        })
        .collect()
}

/// The longest lease in the list of names.
fn longest_lease_from(words: &[Bytes]) -> Duration {
    let leases =
        words.chunks_exact(2).filter_map(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
    Duration::from_millis(leases.max().unwrap_or_default())
}

fn idle_ttl() -> Bytes {
    millis(IDLE_RECORD).to_string().into()
}

fn with_nonces(mut head: Vec<Bytes>, tags: &[Tag]) -> Vec<Bytes> {
    head.extend(tags.iter().map(|_| Bytes::from(Nonce::random().to_hex())));
    head
}
