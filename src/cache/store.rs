//! Two tiers as one store: looks entries up, validates them by the records of their tags, and
//! stores the responses of fills.
//!
//! Invariants:
//! - A candidate from [`Store::lookup`] was current when it was validated, and belongs to this very
//!   key. It may be stale, because of its age or a soft purge, and says so. In all other cases
//!   there is no candidate, and a reason.
//! - An entry that was soft-purged is never served from memory alone, never counts as newer, and is
//!   never vouched for by a lease: only [`Store::lookup`] returns it, and then it is not fresh.
//! - An entry whose tags a deaf source could name is stored for a short time alone.
//! - The snapshot of the tags in a lookup's result was taken before the entry was validated: an
//!   update of that entry (a 304) is stored only if nothing was purged since.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::entry::packed::Seal;
use crate::cache::entry::{Entry, VaryMark};
use crate::cache::store::counters::StoreCounters;
use crate::cache::store::lookup::{find_in_memory, not_stored};
use crate::cache::store::memory::{CachedEntry, Memory, MemorySlot};
use crate::cache::store::packing::Packing;
use crate::cache::store::shared_lookup::SharedLookup;
use crate::cache::store::unheard::UnheardFamilies;
use crate::cache::store::variants::Variants;
use crate::clock::{Wall, millis};
use crate::coherence::tag_record::EntryVerdict;
use crate::coherence::{Coherence, CoherenceMode, Committed, Proof, SharedProof, TagSnapshot};
use crate::outcome::{Reason, Tier};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::redis::{BodyCompression, OnLoss, ReplyWait};
use crate::semantics::vary::VarySpec;

pub use crate::cache::store::lookup::{Candidate, LookupKey, LookupResult};

pub mod counters;
mod lookup;
pub mod memory;
mod packing;
pub mod scan;
mod shared_lookup;
pub mod unheard;
pub mod variants;

/// A response that a fill wants to store.
#[derive(Debug)]
pub struct PendingEntry {
    /// The key before `Vary` narrows it.
    pub primary: Key,
    /// The headers that the response varies on.
    pub vary: VarySpec,
    /// The hash of the key of the entry.
    pub hash: KeyHash,
    /// The response.
    pub entry: Entry,
    /// Its tags, including those in the response.
    pub tags: Vec<Tag>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    /// The memory tier.
    pub memory: Memory,
    coherence: Arc<Coherence>,
    packing: Packing,
    max_object: u64,
    /// The known variants of keys.
    pub variants: Variants,
    /// The families of which changes are not heard of at present.
    pub unheard: UnheardFamilies,
    /// What the store has done.
    pub counters: StoreCounters,
}

impl Store {
    /// A store with these tiers.
    #[must_use]
    pub fn new(
        memory: Memory,
        coherence: Arc<Coherence>,
        seal: Seal,
        max_object: u64,
        max_variants: usize,
    ) -> Self {
        let counters = StoreCounters::default();
        let clock = coherence.clock().clone();
        Self {
            memory,
            coherence,
            packing: Packing::new(seal, max_object, clock, counters.packing.clone()),
            max_object,
            variants: Variants::new(max_variants),
            unheard: UnheardFamilies::default(),
            counters,
        }
    }

    /// The same, with bodies in Redis compressed so.
    #[must_use]
    pub fn with_compression(self, compression: Option<BodyCompression>) -> Self {
        Self { packing: self.packing.with_compression(compression), ..self }
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

    /// What the wall clock says of a time by this process's own count.
    #[must_use]
    pub fn date_of(&self, wall: Wall) -> Wall {
        self.coherence.clock().date_of(wall)
    }

    /// Looks a request up.
    pub async fn lookup(&self, request: &impl LookupKey, now: Wall) -> LookupResult {
        self.lookup_waiting(request, now, ReplyWait::Prompt).await
    }

    /// The same for what no request waits for: what Redis replies after `deadline` counts.
    pub async fn lookup_patiently(&self, request: &impl LookupKey, now: Wall) -> LookupResult {
        self.lookup_waiting(request, now, ReplyWait::Patient).await
    }

    async fn lookup_waiting(
        &self,
        request: &impl LookupKey,
        now: Wall,
        wait: ReplyWait,
    ) -> LookupResult {
        match (self.coherence.mode(), self.coherence.records()) {
            // Boxed: the future of a lookup in Redis is large, and hits from memory should not
            // carry it.
            (CoherenceMode::Shared, Some(shared)) => {
                let lookup = SharedLookup {
                    memory: &self.memory,
                    coherence: &self.coherence,
                    records: shared,
                    packing: &self.packing,
                    counters: &self.counters,
                    wait,
                };
                Box::pin(lookup.lookup(request, now)).await
            }
            (CoherenceMode::Degraded, _) if self.coherence.on_loss() == OnLoss::Bypass => {
                unverifiable(request)
            }
            (CoherenceMode::Rejoining, _) => unverifiable(request),
            _ => self.lookup_local(request, now),
        }
    }

    /// Whether memory has a fresh entry under this hash that is newer than `received`, and current
    /// by this snapshot of its tags. It is a hint that a new lookup is worthwhile.
    #[must_use]
    pub fn has_newer(
        &self,
        hash: KeyHash,
        received: Option<Wall>,
        snapshot: &TagSnapshot,
        now: Wall,
    ) -> bool {
        let Some(MemorySlot::Entry(cached)) = self.memory.peek(hash) else { return false };
        let times = &cached.entry.times;
        let current = match (&cached.proof, snapshot) {
            (Proof::Local(proof), _) => self.coherence.validate_local(proof).is_ok(),
            (Proof::Shared(proof), TagSnapshot::Shared(_, reading)) => {
                matches!(reading.validate(&proof.stamp), EntryVerdict::Current)
            }
            _ => false,
        };
        current && times.is_fresh(now) && received.is_none_or(|received| times.received > received)
    }

    /// Takes a snapshot of tags.
    pub async fn read(&self, tags: &[Tag]) -> TagSnapshot {
        match (self.coherence.mode(), self.coherence.records()) {
            (CoherenceMode::Shared, Some(shared)) => {
                let epoch = self.coherence.epoch();
                if !self.coherence.has_contact().await {
                    return TagSnapshot::Unverifiable;
                }
                let fetched = self
                    .coherence
                    .record_result(shared.fetch(None, tags, ReplyWait::Prompt).await)
                    .ok();
                fetched
                    .and_then(|fetched| fetched.reading)
                    .map_or(TagSnapshot::Unverifiable, |reading| {
                        TagSnapshot::Shared(epoch, reading)
                    })
            }
            (CoherenceMode::Rejoining, _) => TagSnapshot::Unverifiable,
            _ => self.coherence.read_local(tags),
        }
    }

    /// An entry in memory that can be served without asking Redis: the fast path of a hit.
    #[must_use]
    pub fn lookup_memory(&self, lookup: &Lookup<'_>, now: Wall) -> Option<Arc<CachedEntry>> {
        let cached = match self.memory.get(&lookup.key)? {
            MemorySlot::Entry(cached) => cached,
            MemorySlot::Vary(mark) => match self.memory.get(&lookup.variant(&mark.spec))? {
                MemorySlot::Entry(cached) => cached,
                MemorySlot::Vary(_) => return None,
            },
        };
        let current = match (&cached.proof, self.coherence.mode()) {
            (Proof::Local(proof), CoherenceMode::Local | CoherenceMode::Degraded) => {
                self.coherence.validate_local(proof).is_ok()
            }
            (Proof::Shared(proof), CoherenceMode::Shared) => {
                self.coherence.is_current_locally(proof)
            }
            _ => false,
        };
        (current && cached.entry.times.is_fresh(now)).then_some(cached)
    }

    fn lookup_local(&self, request: &impl LookupKey, now: Wall) -> LookupResult {
        let (key, cached, varies) = find_in_memory(&self.memory, request);
        let snapshot = self.coherence.read_local(&request.tags());
        match cached.ok_or(not_stored(varies)).and_then(|cached| self.validate_local(cached, now)) {
            Ok(candidate) => {
                let miss_reason = if candidate.fresh { Reason::NotStored } else { Reason::Expired };
                LookupResult { key, candidate: Some(candidate), miss_reason, snapshot }
            }
            Err(miss_reason) => LookupResult { key, candidate: None, miss_reason, snapshot },
        }
    }

    fn validate_local(&self, cached: Arc<CachedEntry>, now: Wall) -> Result<Candidate, Reason> {
        let Proof::Local(proof) = &cached.proof else { return Err(Reason::Unverifiable) };
        let soft_purged_at = self
            .coherence
            .soft_purged_at_local(proof)
            .inspect_err(|_| self.counters.refused_stale.inc())?;
        Candidate::new(cached, Tier::Memory, soft_purged_at, now)
    }

    /// The headers by which a key's variants differ, if memory knows them.
    #[must_use]
    pub fn known_vary(&self, key: &Key) -> Option<Arc<VaryMark>> {
        match self.memory.get(key) {
            Some(MemorySlot::Vary(mark)) => Some(mark),
            _ => None,
        }
    }

    /// The hash of the key that a request selects, as far as its `Vary` is known.
    pub async fn entry_key(&self, lookup: &Lookup<'_>, now: Wall) -> KeyHash {
        match self.memory.get(&lookup.key) {
            Some(MemorySlot::Vary(mark)) => lookup.variant_hash(&mark.spec),
            Some(MemorySlot::Entry(_)) => lookup.key.hash(),
            // Redis may know.
            None => self.lookup(lookup, now).await.key.hash(),
        }
    }

    /// Drops an entry from all tiers. This is not a purge, which goes by tags: the entry is merely
    /// of no more use.
    pub async fn forget(&self, hash: KeyHash) {
        self.memory.remove(hash);
        if let (CoherenceMode::Shared, Some(shared)) =
            (self.coherence.mode(), self.coherence.records())
        {
            // Fail open: an entry that stays in Redis expires by itself.
            let _ = self
                .coherence
                .record_result(shared.client().unlink(vec![shared.entry_key(hash)]).await);
        }
    }

    /// Stores the response of a fill, unless one of its tags was purged since the snapshot.
    pub async fn store(
        &self,
        snapshot: &TagSnapshot,
        pending: PendingEntry,
        now: Wall,
    ) -> Result<Arc<CachedEntry>, Reason> {
        let PendingEntry { primary, vary, hash, entry, tags } = pending;
        // Before it is committed: see the invariant of `unheard`.
        let entry = match self.unheard.limit(&tags) {
            Some(most) => entry.limited_to(most),
            None => entry,
        };
        let left = entry.retained_for(now);
        let Committed { proof, redis_ahead_ms } =
            self.coherence.commit(snapshot, &tags, left).await?;
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
            let received = Wall(entry.times.received.0.saturating_add_signed(redis_ahead_ms));
            let packed = self.packing.pack(&entry, stamp, received).await;
            // Fail open: an entry that Redis did not accept is still valid in memory, since its
            // proof holds.
            let put = self.coherence.record_result(shared.client().put(key, packed, expire).await);
            match put {
                Ok(()) => self.coherence.record_stored(),
                Err(_) if !self.memory.is_on() => return Err(Reason::StoreFailed),
                Err(_) => {}
            }
            if let Some(mark) = &mark {
                let key = shared.entry_key(primary.hash());
                let _ = self.coherence.record_result(
                    shared.client().put(key, self.packing.pack_vary(mark), expire).await,
                );
            }
        }
        if let Some(mark) = mark {
            self.memory.insert_vary(primary.hash(), mark);
        }
        let cached = Arc::new(CachedEntry::new(entry, proof));
        let accepted = self.memory.insert(hash, Arc::clone(&cached));
        if !accepted && matches!(cached.proof, Proof::Local(_)) {
            return Err(Reason::TooLarge);
        }
        self.counters.stored.inc();
        Ok(cached)
    }
}

/// Nothing vouches for anything: the request goes to the origin, and its response is not stored.
fn unverifiable(request: &impl LookupKey) -> LookupResult {
    LookupResult {
        key: request.key().clone(),
        candidate: None,
        miss_reason: Reason::CacheUnavailable,
        snapshot: TagSnapshot::Unverifiable,
    }
}
