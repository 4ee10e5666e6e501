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

use bytes::Bytes;

use crate::cache::entry::packed::Seal;
use crate::cache::entry::{Entry, VaryMark, packed};
use crate::cache::store::counters::StoreCounters;
use crate::cache::store::lookup::{find_in_memory, not_stored};
use crate::cache::store::memory::{CachedEntry, Memory, MemorySlot};
use crate::cache::store::shared_lookup::SharedLookup;
use crate::cache::store::variants::Variants;
use crate::clock::{Wall, millis};
use crate::coherence::tag_record::EntryVerdict;
use crate::coherence::{Coherence, CoherenceMode, Proof, SharedProof, TagSnapshot};
use crate::outcome::{Reason, Tier};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::redis::OnLoss;
use crate::semantics::vary::VarySpec;

pub use crate::cache::store::lookup::{Candidate, LookupKey, LookupResult};

mod counters;
mod lookup;
pub mod memory;
mod shared_lookup;
pub mod variants;

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
                let lookup = SharedLookup {
                    memory: &self.memory,
                    coherence: &self.coherence,
                    records: shared,
                    seal: &self.seal,
                    counters: &self.counters,
                };
                Box::pin(lookup.lookup(sought, now)).await
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
        let (_, resident, _) = find_in_memory(&self.memory, lookup);
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
        let (key, kept, varies) = find_in_memory(&self.memory, sought);
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
