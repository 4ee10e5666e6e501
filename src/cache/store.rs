//! Two tiers as one: looks entries up, judges them by the records of their tags, and stores what a
//! fill brings.
//!
//! Invariants:
//! - What [`Store::consult`] gives back as found was current when it was judged, and is the answer
//!   to this very key. It may be stale, by its age or since a soft purge, and says so. Everything
//!   else is not found, with the reason.
//! - What a soft purge has touched is neither at hand, nor newer than anything, nor vouched for
//!   under a lease: it is found by [`Store::consult`] alone, and then it is not fresh.
//! - The state of the tags that it gives back was read before the entry was judged: what a fill
//!   learns of that entry (a 304) is stored only if nothing was purged since.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::entry::packed;
use crate::cache::entry::packed::{Seal, Unpacked};
use crate::cache::entry::{Entry, Stamp, VaryMark};
use crate::cache::store::memory::{CachedEntry, Memory, MemorySlot};
use crate::cache::store::variants::Variants;
use crate::clock::{Wall, millis};
use crate::coherence::redis_records::RecordStore;
use crate::coherence::tag_record::{EntryVerdict, RecordSnapshot};
use crate::coherence::{Coherence, CoherenceMode, Proof, SharedProof, TagSnapshot, TagWatch};
use crate::outcome::{Reason, Tier};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::redis::OnLoss;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::Counter;

pub use crate::cache::store::lookup::Candidate;

mod lookup;
pub mod memory;
pub mod variants;

/// What a lookup brought.
#[derive(Debug)]
pub struct LookupResult {
    /// The key of the variant that the request asks for, as far as it is known.
    pub key: Key,
    /// The entry, if there is one that is current.
    pub candidate: Option<Candidate>,
    /// Why there is none.
    pub miss_reason: Reason,
    /// The state of the tags, for the fill that follows.
    pub snapshot: TagSnapshot,
}

/// What is looked for: a request, or a fill whose request is gone.
pub trait LookupKey: Sync {
    /// The key before `Vary` narrows it.
    fn key(&self) -> &Key;
    /// The tags that the request itself tells.
    fn tags(&self) -> Vec<Tag>;
    /// The key of the variant that the request asks for.
    fn variant(&self, spec: &VarySpec) -> Key;
}

impl LookupKey for Lookup<'_> {
    fn key(&self) -> &Key {
        &self.key
    }

    fn tags(&self) -> Vec<Tag> {
        Lookup::tags(self)
    }

    fn variant(&self, spec: &VarySpec) -> Key {
        Lookup::variant(self, spec)
    }
}

/// What a fill wants to store.
#[derive(Debug)]
pub struct PendingEntry {
    /// The key before `Vary` narrows it.
    pub primary: Key,
    /// The headers that the response varies by.
    pub vary: VarySpec,
    /// The hash of the key that the entry answers.
    pub hash: KeyHash,
    /// The response.
    pub entry: Entry,
    /// Its tags, those that the response named included.
    pub tags: Vec<Tag>,
}

/// Counts of what the store does.
#[derive(Clone, Debug, Default)]
pub struct StoreCounters {
    /// Entries stored.
    pub stored: Arc<Counter>,
    /// Entries found but refused, because a tag of theirs was purged.
    pub refused_stale: Arc<Counter>,
    /// Bytes in Redis that were no entry.
    pub decode_errors: Arc<Counter>,
}

/// The tiers.
#[derive(Debug)]
pub struct Store {
    /// The tier in this process.
    pub memory: Memory,
    coherence: Arc<Coherence>,
    seal: Seal,
    max_object: u64,
    /// The variants of the keys that have some.
    pub variants: Variants,
    /// What it has done.
    pub counters: StoreCounters,
}

impl Store {
    /// A store of these tiers.
    #[must_use]
    pub fn new(
        memory: Memory,
        coherence: Arc<Coherence>,
        seal: Seal,
        max_object: u64,
        max_variants: usize,
    ) -> Self {
        Self {
            memory,
            coherence,
            seal,
            max_object,
            variants: Variants::new(max_variants),
            counters: StoreCounters::default(),
        }
    }

    /// The largest response that can be stored in any tier.
    #[must_use]
    pub fn largest(&self) -> u64 {
        if self.coherence.records().is_some() {
            self.max_object
        } else {
            self.max_object.min(self.memory.largest())
        }
    }

    /// Looks a request up.
    pub async fn lookup(&self, sought: &impl LookupKey, now: Wall) -> LookupResult {
        match (self.coherence.mode(), self.coherence.records()) {
            // Boxed: what waits for Redis is large, and hits from memory alone should not carry it
            // around.
            (CoherenceMode::Shared, Some(shared)) => {
                Box::pin(self.lookup_shared(shared, sought, now)).await
            }
            (CoherenceMode::Degraded, _) if self.coherence.on_loss() == OnLoss::Bypass => {
                LookupResult {
                    key: sought.key().clone(),
                    candidate: None,
                    miss_reason: Reason::CacheUnavailable,
                    snapshot: TagSnapshot::Unverifiable,
                }
            }
            _ => self.lookup_local(sought, now),
        }
    }

    /// Whether memory has a fresh entry under this hash that is newer than the one received then,
    /// and current by this reading of its tags. A hint that it is worth looking again.
    #[must_use]
    pub fn has_newer(
        &self,
        hash: KeyHash,
        received: Option<Wall>,
        read: &TagSnapshot,
        now: Wall,
    ) -> bool {
        let Some(MemorySlot::Entry(resident)) = self.memory.peek(hash) else { return false };
        let times = &resident.entry.times;
        let current = match (&resident.proof, read) {
            (Proof::Local(proof), _) => self.coherence.validate_local(proof).is_ok(),
            (Proof::Shared(proof), TagSnapshot::Shared(_, reading)) => {
                matches!(reading.validate(&proof.stamp), EntryVerdict::Current)
            }
            _ => false,
        };
        current && times.is_fresh(now) && received.is_none_or(|received| times.received > received)
    }

    /// Reads the state of tags.
    pub async fn read(&self, tags: &[Tag]) -> TagSnapshot {
        match (self.coherence.mode(), self.coherence.records()) {
            (CoherenceMode::Shared, Some(shared)) => {
                let epoch = self.coherence.epoch();
                if !self.coherence.has_contact().await {
                    return TagSnapshot::Unverifiable;
                }
                let fetched = self.coherence.record_result(shared.fetch(None, tags).await).ok();
                fetched
                    .and_then(|fetched| fetched.reading)
                    .map_or(TagSnapshot::Unverifiable, |reading| {
                        TagSnapshot::Shared(epoch, reading)
                    })
            }
            _ => self.coherence.read_local(tags),
        }
    }

    /// What memory holds for a request and needs nobody's word to be served: the shortest way to a
    /// hit.
    #[must_use]
    pub fn lookup_memory(&self, lookup: &Lookup<'_>, now: Wall) -> Option<Arc<CachedEntry>> {
        let (_, resident, _) = self.find_in_memory(lookup);
        let resident = resident?;
        let current = match (&resident.proof, self.coherence.mode()) {
            (Proof::Local(proof), CoherenceMode::Local | CoherenceMode::Degraded) => {
                self.coherence.validate_local(proof).is_ok()
            }
            (Proof::Shared(proof), CoherenceMode::Shared) => {
                self.coherence.is_current_locally(proof)
            }
            _ => false,
        };
        (current && resident.entry.times.is_fresh(now)).then_some(resident)
    }

    fn lookup_local(&self, sought: &impl LookupKey, now: Wall) -> LookupResult {
        let (key, kept, varies) = self.find_in_memory(sought);
        let read = self.coherence.read_local(&sought.tags());
        match kept.ok_or(not_stored(varies)).and_then(|resident| self.validate_local(resident, now))
        {
            Ok(found) => {
                let why = if found.fresh { Reason::NotStored } else { Reason::Expired };
                LookupResult { key, candidate: Some(found), miss_reason: why, snapshot: read }
            }
            Err(why) => LookupResult { key, candidate: None, miss_reason: why, snapshot: read },
        }
    }

    fn validate_local(&self, resident: Arc<CachedEntry>, now: Wall) -> Result<Candidate, Reason> {
        let Proof::Local(proof) = &resident.proof else { return Err(Reason::Unverifiable) };
        let softened = self
            .coherence
            .soft_purged_at_local(proof)
            .inspect_err(|_| self.counters.refused_stale.inc())?;
        Candidate::new(resident, Tier::Memory, softened, now)
    }

    /// What memory holds for the request, the key of its variant, and whether the key has variants.
    fn find_in_memory(&self, sought: &impl LookupKey) -> (Key, Option<Arc<CachedEntry>>, bool) {
        match self.memory.get(sought.key()) {
            Some(MemorySlot::Entry(resident)) => (sought.key().clone(), Some(resident), false),
            Some(MemorySlot::Vary(mark)) => {
                let key = sought.variant(&mark.spec);
                let kept = match self.memory.get(&key) {
                    Some(MemorySlot::Entry(resident)) => Some(resident),
                    _ => None,
                };
                (key, kept, true)
            }
            None => (sought.key().clone(), None, false),
        }
    }

    async fn lookup_shared(
        &self,
        shared: &RecordStore,
        sought: &impl LookupKey,
        now: Wall,
    ) -> LookupResult {
        let epoch = self.coherence.epoch();
        let (key, kept, varies) = self.find_in_memory(sought);
        if !self.coherence.has_contact().await {
            return LookupResult {
                key,
                candidate: None,
                miss_reason: Reason::CacheUnavailable,
                snapshot: TagSnapshot::Unverifiable,
            };
        }
        let looked = match kept {
            Some(resident) if resident.entry.times.is_fresh(now) => {
                self.lookup_shared_memory(shared, sought, &key, resident, now).await
            }
            _ => self.lookup_redis(shared, sought, key.clone(), varies, now).await,
        };
        match looked {
            // Read from whom? The connection may be another one by now, to a promoted replica that
            // has not heard of the latest purges.
            Some(TierLookup { key, .. }) if self.coherence.epoch() != epoch => LookupResult {
                key,
                candidate: None,
                miss_reason: Reason::Unverifiable,
                snapshot: TagSnapshot::Unverifiable,
            },
            Some(TierLookup { key, candidate: found, miss_reason: why, mut reading }) => {
                if let (false, Some(reading)) =
                    (found.as_ref().is_some_and(|found| found.fresh), &mut reading)
                {
                    // Fail open: unseeded, the fill is stored if nothing at all is purged
                    // meanwhile.
                    let _ = self.coherence.record_result(shared.seed(reading).await);
                }
                let read = reading.map_or(TagSnapshot::Unverifiable, |reading| {
                    TagSnapshot::Shared(epoch, reading)
                });
                LookupResult { key, candidate: found, miss_reason: why, snapshot: read }
            }
            // Fail open: Redis did not answer in time, so this request goes to the app, and its
            // answer is not stored.
            None => LookupResult {
                key,
                candidate: None,
                miss_reason: Reason::CacheUnavailable,
                snapshot: TagSnapshot::Unverifiable,
            },
        }
    }

    /// An entry of the memory tier, judged by one reading of the records.
    async fn lookup_shared_memory(
        &self,
        shared: &RecordStore,
        sought: &impl LookupKey,
        key: &Key,
        resident: Arc<CachedEntry>,
        now: Wall,
    ) -> Option<TierLookup> {
        let mut tags = sought.tags();
        if let Proof::Shared(proof) = &resident.proof {
            for (tag, _) in &proof.stamp.tags {
                if !tags.contains(tag) {
                    tags.push(tag.clone());
                }
            }
            let watch = self.coherence.watch_tags(&tags);
            let reading =
                self.coherence.record_result(shared.fetch(None, &tags).await).ok()?.reading;
            let verdict =
                reading.as_ref().map_or(EntryVerdict::Refused(Reason::Purged), |reading| {
                    reading.validate(&proof.stamp)
                });
            match self.settle_verdict(verdict, &tags).await {
                Ok(None) => {
                    proof.renew(watch.as_ref());
                    let found = Candidate {
                        cached: resident,
                        tier: Tier::Memory,
                        fresh: true,
                        soft_purged_at: None,
                    };
                    return Some(TierLookup {
                        key: key.clone(),
                        candidate: Some(found),
                        miss_reason: Reason::NotStored,
                        reading,
                    });
                }
                Err(Reason::MutationPending) => {
                    return Some(TierLookup {
                        key: key.clone(),
                        candidate: None,
                        miss_reason: Reason::MutationPending,
                        reading,
                    });
                }
                Ok(Some(_)) | Err(_) => {}
            }
        }
        // Another sidecar may have stored a newer one.
        self.lookup_redis(shared, sought, key.clone(), false, now).await
    }

    async fn lookup_redis(
        &self,
        shared: &RecordStore,
        sought: &impl LookupKey,
        key: Key,
        varies: bool,
        now: Wall,
    ) -> Option<TierLookup> {
        let tags = sought.tags();
        let mut watch = self.coherence.watch_tags(&tags);
        let fetched =
            self.coherence.record_result(shared.fetch(Some(key.hash()), &tags).await).ok()?;
        let Some(reading) = fetched.reading else {
            return Some(TierLookup {
                key,
                candidate: None,
                miss_reason: Reason::NotStored,
                reading: None,
            });
        };
        let (mut key, mut bytes, mut varies) = (key, fetched.entry, varies);
        // Once for the mark that says what the key varies by, once for the variant.
        for _ in 0..2 {
            let why = match bytes.take().and_then(|bytes| self.unpack(&bytes)) {
                None => not_stored(varies),
                Some(Unpacked::Vary(mark)) if mark.key[..] == *key.canonical() && !varies => {
                    key = sought.variant(&mark.spec);
                    self.memory.insert_vary(sought.key().hash(), Arc::new(mark));
                    varies = true;
                    bytes =
                        self.coherence.record_result(shared.fetch_entry(key.hash()).await).ok()?;
                    continue;
                }
                // SECURITY: two keys with one hash never share an entry, whoever wrote it.
                Some(Unpacked::Entry(entry, stamp)) if entry.key[..] == *key.canonical() => {
                    match self
                        .promote_from_redis(shared, (&reading, watch.take()), *entry, stamp, now)
                        .await?
                    {
                        Ok(found) => {
                            if found.fresh {
                                self.memory.insert(key.hash(), Arc::clone(&found.cached));
                            }
                            let why = if found.fresh { Reason::NotStored } else { Reason::Expired };
                            return Some(TierLookup {
                                key,
                                candidate: Some(found),
                                miss_reason: why,
                                reading: Some(reading),
                            });
                        }
                        Err(why) => why,
                    }
                }
                Some(_) => Reason::NotStored,
            };
            return Some(TierLookup {
                key,
                candidate: None,
                miss_reason: why,
                reading: Some(reading),
            });
        }
        Some(TierLookup {
            key,
            candidate: None,
            miss_reason: Reason::VaryMiss,
            reading: Some(reading),
        })
    }

    async fn promote_from_redis(
        &self,
        shared: &RecordStore,
        (reading, mut watch): (&RecordSnapshot, Option<TagWatch>),
        entry: Entry,
        stamp: Stamp,
        now: Wall,
    ) -> Option<Result<Candidate, Reason>> {
        let unread = reading.unread_tags(&stamp);
        let mut complete = reading.clone();
        if !unread.is_empty() {
            let more_watch = self.coherence.watch_tags(&unread);
            let more =
                self.coherence.record_result(shared.fetch(None, &unread).await).ok()?.reading?;
            if more.generation != reading.generation {
                return Some(Err(Reason::Purged));
            }
            complete.records.extend(more.records);
            watch = watch.zip(more_watch).and_then(|(one, more)| one.merge(more));
        }
        let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
        let softened = match self.settle_verdict(complete.validate(&stamp), &tags).await {
            Ok(ago) => ago.map(|ago| now.before(ago)),
            Err(why) => return Some(Err(why)),
        };
        // What Redis no longer vouches for as fresh is not trusted under a lease either.
        let watch = watch.filter(|_| softened.is_none());
        let proof = Proof::Shared(SharedProof::new(stamp, watch.as_ref()));
        Some(Candidate::new(Arc::new(CachedEntry { entry, proof }), Tier::Redis, softened, now))
    }

    /// Acts on a verdict: orphaned mutations are settled before the entry is refused. Tells how
    /// long ago a soft purge made it stale.
    async fn settle_verdict(
        &self,
        verdict: EntryVerdict,
        tags: &[Tag],
    ) -> Result<Option<Duration>, Reason> {
        match verdict {
            EntryVerdict::Current => Ok(None),
            EntryVerdict::SoftPurged(ago) => Ok(Some(ago)),
            EntryVerdict::Refused(why) => {
                self.counters.refused_stale.inc();
                Err(why)
            }
            EntryVerdict::Incomplete => Err(Reason::NotStored),
            EntryVerdict::Orphaned => {
                // Boxed: it is rare, and every look would carry it around.
                Box::pin(self.coherence.settle(tags)).await;
                Err(Reason::Purged)
            }
        }
    }

    fn unpack(&self, bytes: &Bytes) -> Option<Unpacked> {
        // A slice of fred's read buffer would keep that buffer alive for as long as the entry is in
        // memory.
        let own = if self.memory.is_on() { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
        packed::unpack(&own, &self.seal)
            .inspect_err(|surprise| {
                self.counters.decode_errors.inc();
                tracing::debug!(
                    surprise = surprise.as_str(),
                    "bytes in Redis are not an entry of this version; counted as a miss"
                );
            })
            .ok()
    }

    /// The headers that a key's variants differ by, where memory knows it.
    #[must_use]
    pub fn known_vary(&self, key: &Key) -> Option<Arc<VaryMark>> {
        match self.memory.get(key) {
            Some(MemorySlot::Vary(mark)) => Some(mark),
            _ => None,
        }
    }

    /// Drops what is stored under a key, in all tiers: not because it is wrong, which is for its
    /// tags to say, but because it is of no use.
    pub async fn forget(&self, hash: KeyHash) {
        self.memory.remove(hash);
        if let (CoherenceMode::Shared, Some(shared)) =
            (self.coherence.mode(), self.coherence.records())
        {
            // Fail open: what Redis keeps expires by itself.
            let _ = self
                .coherence
                .record_result(shared.client().unlink(vec![shared.entry_key(hash)]).await);
        }
    }

    /// Stores what a fill brought, unless one of its tags was purged since they were read.
    pub async fn store(
        &self,
        read: &TagSnapshot,
        draft: PendingEntry,
        now: Wall,
    ) -> Result<Arc<CachedEntry>, Reason> {
        let PendingEntry { primary, vary, hash, entry, tags } = draft;
        let left = entry.retained_for(now);
        let proof = self.coherence.commit(read, &tags, left).await?;
        let mark = (!vary.is_empty()).then(|| {
            Arc::new(VaryMark { key: Bytes::copy_from_slice(primary.canonical()), spec: vary })
        });
        if mark.is_some()
            && let Some(oldest) = self.variants.record(primary.hash(), hash)
        {
            self.forget(oldest).await;
        }
        if let (Proof::Shared(SharedProof { stamp, .. }), Some(shared)) =
            (&proof, self.coherence.records())
        {
            let expire = Some(millis(left).max(1));
            let key = shared.entry_key(hash);
            // Fail open: an entry that Redis did not take is still good in memory, its proof
            // stands.
            let put = self.coherence.record_result(
                shared.client().put(key, packed::pack(&entry, stamp, &self.seal), expire).await,
            );
            if put.is_err() && !self.memory.is_on() {
                return Err(Reason::StoreFailed);
            }
            if let Some(mark) = &mark {
                let key = shared.entry_key(primary.hash());
                let _ = self.coherence.record_result(
                    shared.client().put(key, packed::pack_vary(mark, &self.seal), expire).await,
                );
            }
        }
        if let Some(mark) = mark {
            self.memory.insert_vary(primary.hash(), mark);
        }
        let resident = Arc::new(CachedEntry { entry, proof });
        let kept = self.memory.insert(hash, Arc::clone(&resident));
        if !kept && matches!(resident.proof, Proof::Local(_)) {
            return Err(Reason::TooLarge);
        }
        self.counters.stored.inc();
        Ok(resident)
    }
}

struct TierLookup {
    key: Key,
    candidate: Option<Candidate>,
    miss_reason: Reason,
    reading: Option<RecordSnapshot>,
}

const fn not_stored(varies: bool) -> Reason {
    if varies { Reason::VaryMiss } else { Reason::NotStored }
}
