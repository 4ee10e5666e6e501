//! The memory tier: entries of this process, bounded by bytes.
//!
//! Knows nothing of freshness or purges: the caller validates what it returns.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::cache::entry::{Entry, VaryMark};
use crate::coherence::Proof;
use crate::policy::key::{Key, KeyHash};
use crate::telemetry::metrics::Counter;
use crate::units::allocated;

pub use crate::policy::key::SlotIndex;

/// How large the tier may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySettings {
    /// Bytes for the whole tier; 0 turns it off.
    pub size: u64,
    /// The largest response that is stored, in bytes.
    pub max_object: u64,
}

/// An entry in memory, with the proof that it was current when it was stored.
// In this order: a hit has just written to the counts of the `Arc`, which stand before `hits`, so
// that counting it touches no other cache line.
#[derive(Debug)]
#[repr(C)]
pub struct CachedEntry {
    hits: AtomicU64,
    /// What it takes of the tier's limit. Weighed once: the tier subtracts what it has added.
    weight: u64,
    /// What must still hold for the entry to be current.
    pub proof: Proof,
    /// The stored response.
    pub entry: Entry,
}

impl CachedEntry {
    /// An entry that nobody was served yet.
    #[must_use]
    pub fn new(entry: Entry, proof: Proof) -> Self {
        // With two counts of references.
        let itself = allocated(size_of::<Self>() + 2 * size_of::<usize>());
        let weight = (SLOT_BYTES + itself + entry.weight() + proof.weight()) as u64;
        Self { hits: AtomicU64::new(0), weight, proof, entry }
    }

    /// Counts a client that was served it.
    pub fn record_hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    /// How many clients were served it from this process's memory, since it was stored or last
    /// revalidated.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }
}

/// The value under a key.
#[derive(Clone, Debug)]
pub enum MemorySlot {
    /// A response.
    Entry(Arc<CachedEntry>),
    /// The key has variants.
    Vary(Arc<VaryMark>),
}

#[derive(Clone, Debug)]
struct ByteWeighter;

/// The cost of a slot besides its value: the cache's own slot with the key, its index, and their
/// room to grow.
const SLOT_BYTES: usize = 96;

impl Weighter<u128, MemorySlot> for ByteWeighter {
    fn weight(&self, _: &u128, slot: &MemorySlot) -> u64 {
        match slot {
            MemorySlot::Entry(cached) => cached.weight,
            MemorySlot::Vary(mark) => (SLOT_BYTES + mark.weight()) as u64,
        }
    }
}

/// Counts evictions, and drops values as the cache's default lifecycle does: outside of the lock.
#[derive(Clone, Debug)]
struct EvictionCounter {
    evicted: Arc<Counter>,
    usual: DefaultLifecycle<u128, MemorySlot>,
}

impl Lifecycle<u128, MemorySlot> for EvictionCounter {
    type RequestState =
        <DefaultLifecycle<u128, MemorySlot> as Lifecycle<u128, MemorySlot>>::RequestState;

    // Unlike `on_evict`, it is not called for replaced values.
    fn before_evict(&self, _: &mut Self::RequestState, _: &u128, _: &mut MemorySlot) {
        self.evicted.inc();
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: u128, slot: MemorySlot) {
        self.usual.on_evict(state, key, slot);
    }
}

/// A slot is a keyed hash already, and is not hashed once more.
#[derive(Clone, Copy, Debug, Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "half of it is as good a hash")]
    fn write_u128(&mut self, slot: u128) {
        self.0 = slot as u64;
    }
}

type MemoryCache =
    Cache<u128, MemorySlot, ByteWeighter, BuildHasherDefault<SlotHasher>, EvictionCounter>;

/// The tier.
#[derive(Debug)]
pub struct Memory {
    cache: Option<MemoryCache>,
    limit: u64,
    largest: u64,
    /// Entries refused because they are too large for the tier.
    pub refused: Arc<Counter>,
    /// Entries and vary marks evicted to make room for others.
    pub evicted: Arc<Counter>,
}

impl Memory {
    /// An empty tier.
    #[must_use]
    pub fn new(settings: MemorySettings) -> Self {
        let (refused, evicted) = (Arc::default(), Arc::default());
        if settings.size == 0 {
            return Self { cache: None, limit: 0, largest: 0, refused, evicted };
        }
        let cores = available_parallelism().map_or(1, usize::from);
        // The capacity is split evenly over shards, and a value larger than a shard is dropped
        // silently, so large objects need few shards.
        let room = settings.size / settings.max_object.saturating_mul(16).max(1);
        let shards =
            usize::try_from(room).unwrap_or(usize::MAX).clamp(1, 4 * cores).next_power_of_two();
        let shards = if shards > 1 && shards as u64 > room { shards / 2 } else { shards };
        // The cache remembers about as many evicted keys as it expects items.
        let items = usize::try_from(settings.size / 2048).unwrap_or(usize::MAX).clamp(64, 1 << 22);
        let options = OptionsBuilder::new()
            .weight_capacity(settings.size)
            .estimated_items_capacity(items)
            .shards(shards)
            .build();
        let (hasher, lifecycle) = (
            BuildHasherDefault::default(),
            EvictionCounter { evicted: Arc::clone(&evicted), usual: DefaultLifecycle::default() },
        );
        let cache = match options {
            Ok(options) => Cache::with_options(options, ByteWeighter, hasher, lifecycle),
            Err(_) => Cache::with(items, settings.size, ByteWeighter, hasher, lifecycle),
        };
        // The largest response, with its head, its key and its tags.
        let object = usize::try_from(settings.max_object.saturating_add(64 * 1024));
        let object = allocated(object.unwrap_or(usize::MAX)) as u64;
        let largest = (settings.size / shards as u64).saturating_sub(1024).min(object);
        Self { cache: Some(cache), limit: settings.size, largest, refused, evicted }
    }

    /// Whether the tier is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.cache.is_some()
    }

    /// The bytes that it may take, including all overhead; 0 if it is off.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The largest entry it takes, in bytes.
    #[must_use]
    pub const fn largest(&self) -> u64 {
        self.largest
    }

    /// The value under exactly this key: the canonical key is compared.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<MemorySlot> {
        let slot = self.cache.as_ref()?.get(&key.slot().0)?;
        let stored = match &slot {
            MemorySlot::Entry(cached) => &cached.entry.key,
            MemorySlot::Vary(mark) => &mark.key,
        };
        // SECURITY: two keys with one slot never share an entry.
        (stored[..] == *key.canonical()).then_some(slot)
    }

    /// The value under this hash, whatever its key.
    #[must_use]
    pub fn peek(&self, hash: KeyHash) -> Option<MemorySlot> {
        self.cache.as_ref()?.peek(&hash.slot.0)
    }

    /// Stores an entry; returns whether it was accepted. Refused entries are counted.
    pub fn insert(&self, hash: KeyHash, cached: Arc<CachedEntry>) -> bool {
        let Some(cache) = &self.cache else { return false };
        let slot = MemorySlot::Entry(cached);
        if ByteWeighter.weight(&0, &slot) > self.largest {
            self.refused.inc();
            cache.remove(&hash.slot.0);
            return false;
        }
        cache.insert(hash.slot.0, slot);
        true
    }

    /// Stores what an earlier process has stored, unless something is stored under this hash
    /// already. Returns whether it is stored now.
    pub fn restore(&self, hash: KeyHash, slot: MemorySlot) -> bool {
        let Some(cache) = &self.cache else { return false };
        if ByteWeighter.weight(&0, &slot) > self.largest {
            self.refused.inc();
            return false;
        }
        match cache.get_value_or_guard(&hash.slot.0, Some(Duration::ZERO)) {
            GuardResult::Guard(guard) => guard.insert(slot).is_ok(),
            GuardResult::Value(_) | GuardResult::Timeout => false,
        }
    }

    /// All entries and vary marks, one by one; a lock is held for one at a time. What is stored
    /// meanwhile may be missing.
    pub fn slots(&self) -> impl Iterator<Item = (SlotIndex, MemorySlot)> + Send + '_ {
        let slots = self.cache.iter().flat_map(MemoryCache::iter);
        slots.map(|(index, slot)| (SlotIndex(index), slot))
    }

    /// The entry at this index, if there is one.
    #[must_use]
    pub fn entry_at(&self, index: SlotIndex) -> Option<Arc<CachedEntry>> {
        match self.cache.as_ref()?.peek(&index.0)? {
            MemorySlot::Entry(cached) => Some(cached),
            MemorySlot::Vary(_) => None,
        }
    }

    /// The bytes that an entry takes of the tier's limit.
    #[must_use]
    pub const fn weight_of(cached: &CachedEntry) -> u64 {
        cached.weight
    }

    /// Stores a vary mark.
    pub fn insert_vary(&self, hash: KeyHash, mark: Arc<VaryMark>) {
        if let Some(cache) = &self.cache {
            cache.insert(hash.slot.0, MemorySlot::Vary(mark));
        }
    }

    /// Removes the value under a key.
    pub fn remove(&self, hash: KeyHash) {
        if let Some(cache) = &self.cache {
            cache.remove(&hash.slot.0);
        }
    }

    /// The number of entries and vary marks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.as_ref().map_or(0, Cache::len)
    }

    /// Whether the tier is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in use, including all overhead.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weight)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::entry::EntryMetadata;
    use crate::clock::Wall;
    use crate::coherence::SharedProof;
    use crate::coherence::stamp::{Nonce, Stamp};
    use crate::policy::key::{KeyPart, KeyWriter};
    use crate::semantics::times::{Leeway, Times};
    use crate::semantics::vary::VarySpec;

    fn key(path: &[u8]) -> Key {
        let mut writer = KeyWriter::default();
        writer.part(KeyPart::Path, path);
        writer.finish()
    }

    fn cached(key: &Key) -> Arc<CachedEntry> {
        let times = Times {
            received: Wall(0),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(1),
        };
        let metadata = EntryMetadata {
            times,
            leeway: Leeway::default(),
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let (headers, body) = (HeaderMap::new(), [bytes::Bytes::new()]);
        let entry = Entry::compact(key.canonical(), StatusCode::OK, &headers, &body, metadata);
        let stamp = Stamp { generation: Nonce([0; 16]), tags: Box::default() };
        Arc::new(CachedEntry::new(entry, Proof::Shared(SharedProof::new(stamp, None))))
    }

    /// A field more, and each entry took 64 bytes more.
    #[test]
    fn r1493_an_entry_fills_its_allocation_and_no_byte_of_the_next_larger_one() {
        let with_counts = size_of::<CachedEntry>() + 2 * size_of::<usize>();
        assert!(
            with_counts <= 384,
            "{with_counts} bytes, for which {} are taken",
            allocated(with_counts)
        );
    }

    #[test]
    fn r1330_two_keys_with_one_slot_never_share_an_entry() {
        let memory = Memory::new(MemorySettings { size: 1 << 20, max_object: 1 << 16 });
        let (mine, other) = (key(b"/mine"), key(b"/other"));
        // As if the two had one slot.
        let at_other = KeyHash { slot: other.slot(), ..mine.hash() };
        assert!(memory.insert(at_other, cached(&mine)));
        assert!(memory.get(&other).is_none(), "an entry of another key was served");
        assert!(memory.peek(at_other).is_some(), "it is there");
        let (mark, spec) = (bytes::Bytes::copy_from_slice(mine.canonical()), VarySpec::default());
        memory.insert_vary(at_other, Arc::new(VaryMark { key: mark, spec }));
        assert!(memory.get(&other).is_none(), "a mark of another key was taken");
        assert!(memory.insert(other.hash(), cached(&other)));
        assert!(matches!(
            memory.get(&other),
            Some(MemorySlot::Entry(found)) if found.entry.key[..] == *other.canonical()
        ));
        assert!(memory.get(&mine).is_none());
    }
}
