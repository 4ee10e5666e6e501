//! Browses the memory tier for an operator: walks over all entries in slices, and keeps the places
//! of the first few by an order.
//!
//! Invariants:
//! - No lock is held between two entries, and a slice ends after [`SLICE`] of them, so that the
//!   caller can let requests go first.
//! - A scan takes memory for [`MAX_LISTED`] places and holds no entry: what is evicted meanwhile is
//!   freed.
//! - It changes nothing: neither the hits of an entry, nor what is evicted next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::iter::Fuse;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::store::Store;
use crate::cache::store::memory::{CachedEntry, Memory, MemorySlot, SlotIndex};
use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::glob::Glob;
use crate::policy::key;
use crate::policy::key::view::path_of;
use crate::policy::tag::Tag;

/// How many entries are looked at before others may go on.
pub const SLICE: usize = 256;

/// The most entries that one scan lists.
pub const MAX_LISTED: usize = 1000;

/// Which entries come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanOrder {
    /// Those with the most hits.
    #[default]
    Hottest,
    /// Those that take the most memory.
    Largest,
    /// Those that were stored last.
    Newest,
    /// Those that were stored first.
    Oldest,
    /// Those whose freshness ends next; what is not fresh comes last.
    Expiring,
}

impl ScanOrder {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Hottest, Self::Largest, Self::Newest, Self::Oldest, Self::Expiring];

    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hottest => "hottest",
            Self::Largest => "largest",
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Expiring => "expiring",
        }
    }
}

/// What an entry is good for now, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It can be served.
    Fresh,
    /// Its freshness has ended, but it may be revalidated, or stand in.
    Stale,
    /// A soft purge made it stale.
    SoftPurged,
    /// It was purged: it is never served again.
    Purged,
    /// A write that may purge it is in progress.
    WritePending,
    /// Only Redis can tell: it is asked at the next request.
    Unverified,
    /// It is past all use.
    Expired,
}

impl EntryState {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Stale,
        Self::SoftPurged,
        Self::Purged,
        Self::WritePending,
        Self::Unverified,
        Self::Expired,
    ];

    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::SoftPurged => "soft purged",
            Self::Purged => "purged",
            Self::WritePending => "write pending",
            Self::Unverified => "unverified",
            Self::Expired => "expired",
        }
    }
}

/// Which entries are listed: those that meet all conditions.
#[derive(Clone, Debug, Default)]
pub struct ScanFilter {
    /// They carry this tag.
    pub tag: Option<Tag>,
    /// A route with one of these fingerprints stored them.
    pub routes: Option<Box<[[u8; 8]]>>,
    /// Their path matches.
    pub path: Option<Glob>,
}

impl ScanFilter {
    fn matches(&self, cached: &CachedEntry) -> bool {
        let canonical = &cached.entry.key;
        let routes = self.routes.as_deref();
        routes.is_none_or(|routes| {
            key::route_of(canonical).is_some_and(|route| routes.contains(&route))
        }) && self.path.as_ref().is_none_or(|path| path.matches(path_of(canonical)))
            && self.tag.as_ref().is_none_or(|tag| cached.proof.tags().any(|own| own == tag))
    }
}

/// The place of an entry in an order: the greatest comes first. Two entries never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanPlace {
    rank: u64,
    index: SlotIndex,
}

impl fmt::Display for ScanPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:032x}", self.rank, self.index.0)
    }
}

/// A text that is not the place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl FromStr for ScanPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (rank, index) = text.split_once('-').ok_or(NoPlace)?;
        if !is_hex(rank) || !is_hex(index) || index.len() != 32 {
            return Err(NoPlace);
        }
        Ok(Self {
            rank: u64::from_str_radix(rank, 16).map_err(|_| NoPlace)?,
            index: SlotIndex(u128::from_str_radix(index, 16).map_err(|_| NoPlace)?),
        })
    }
}

/// What is to be listed.
#[derive(Clone, Debug, Default)]
pub struct ScanRequest {
    /// Which entries.
    pub filter: ScanFilter,
    /// Which of them first.
    pub order: ScanOrder,
    /// How many; at most [`MAX_LISTED`].
    pub limit: usize,
    /// The place of the last entry of the list before this one.
    pub after: Option<ScanPlace>,
}

/// What matches, whether it is listed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanTotals {
    /// Entries.
    pub entries: u64,
    /// The bytes that they take of the tier's limit.
    pub bytes: u64,
    /// Entries by [`EntryState`].
    pub states: [u64; EntryState::ALL.len()],
}

/// A walk over the memory tier.
pub struct MemoryScan<'a> {
    store: &'a Store,
    request: ScanRequest,
    slots: Fuse<Box<dyn Iterator<Item = (SlotIndex, MemorySlot)> + Send + 'a>>,
    /// The first entries so far, the last of them on top.
    first: BinaryHeap<Reverse<ScanPlace>>,
    /// How many entries there are behind `request.after`.
    eligible: u64,
    totals: ScanTotals,
    looked_at: u64,
}

/// What a scan has found.
#[derive(Clone, Debug)]
pub struct ScanResult {
    /// The places of the entries, the first one first.
    pub places: Vec<ScanPlace>,
    /// What matches.
    pub totals: ScanTotals,
    /// How many entries were looked at.
    pub looked_at: u64,
    /// Behind which place the next list begins; `None` at the end.
    pub next: Option<ScanPlace>,
}

/// An entry that is listed.
#[derive(Clone, Debug)]
pub struct ListedEntry {
    /// The entry.
    pub cached: Arc<CachedEntry>,
    /// What it is good for.
    pub state: EntryState,
    /// The freshness that holds now, in milliseconds; negative after its end.
    pub ttl_ms: i64,
    /// The bytes that it takes of the tier's limit.
    pub bytes: u64,
}

impl fmt::Debug for MemoryScan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryScan").field("request", &self.request).finish_non_exhaustive()
    }
}

impl<'a> MemoryScan<'a> {
    /// Begins a scan.
    #[must_use]
    pub fn new(store: &'a Store, mut request: ScanRequest) -> Self {
        request.limit = request.limit.min(MAX_LISTED);
        store.counters.scans.scans.inc();
        let slots: Box<dyn Iterator<Item = _> + Send + 'a> = Box::new(store.memory.slots());
        Self {
            store,
            first: BinaryHeap::with_capacity(request.limit + 1),
            request,
            slots: slots.fuse(),
            eligible: 0,
            totals: ScanTotals::default(),
            looked_at: 0,
        }
    }

    /// Looks at the next slice. Returns whether there may be more.
    pub fn step(&mut self, wall: Wall, now: Instant) -> bool {
        let mut seen = 0;
        while seen < SLICE {
            let Some((index, slot)) = self.slots.next() else { break };
            seen += 1;
            // The marks of keys with variants are no entries.
            if let MemorySlot::Entry(cached) = slot
                && self.request.filter.matches(&cached)
            {
                self.take(index, &cached, wall, now);
            }
        }
        self.looked_at += seen as u64;
        self.store.counters.scans.entries.add(seen as u64);
        seen == SLICE
    }

    fn take(&mut self, index: SlotIndex, cached: &CachedEntry, wall: Wall, now: Instant) {
        let (state, ttl_ms) = self.store.state_of(cached, wall, now);
        let bytes = Memory::weight_of(cached);
        self.totals.entries += 1;
        self.totals.bytes += bytes;
        self.totals.states[state as usize] += 1;
        let received = cached.entry.times.received.0;
        let rank = match self.request.order {
            ScanOrder::Hottest => cached.hits(),
            ScanOrder::Largest => bytes,
            ScanOrder::Newest => received,
            ScanOrder::Oldest => u64::MAX - received,
            ScanOrder::Expiring => expiring_rank(state, wall, ttl_ms),
        };
        let place = ScanPlace { rank, index };
        if self.request.after.is_some_and(|after| place >= after) {
            return;
        }
        self.eligible += 1;
        if self.first.len() < self.request.limit {
            self.first.push(Reverse(place));
        } else if self.first.peek().is_some_and(|Reverse(last)| place > *last) {
            self.first.pop();
            self.first.push(Reverse(place));
        }
    }

    /// Ends the scan, whether or not it has seen everything.
    #[must_use]
    pub fn finish(self) -> ScanResult {
        // Sorted by `Reverse`, so the greatest place is the first one.
        let mut places: Vec<ScanPlace> =
            self.first.into_sorted_vec().into_iter().map(|Reverse(place)| place).collect();
        let has_more = self.eligible > places.len() as u64;
        // What is stored anew during the scan may be met twice.
        let mut seen = HashSet::with_capacity(places.len());
        places.retain(|place| seen.insert(place.index.0));
        let next = places.last().copied().filter(|_| has_more);
        ScanResult { places, totals: self.totals, looked_at: self.looked_at, next }
    }
}

/// What is fresh comes before what is not, and of it first what ends first. The end of freshness
/// does not move while time passes, so a list can go on behind it.
fn expiring_rank(state: EntryState, wall: Wall, ttl_ms: i64) -> u64 {
    const FRESH: u64 = 1 << 63;
    let end = wall.0.saturating_add_signed(ttl_ms).min(FRESH - 1);
    if state == EntryState::Fresh { FRESH | (FRESH - 1 - end) } else { end }
}

impl Store {
    /// The entry at a place, unless it is gone by now, or no longer what was asked for.
    #[must_use]
    pub fn listed(
        &self,
        place: ScanPlace,
        filter: &ScanFilter,
        wall: Wall,
        now: Instant,
    ) -> Option<ListedEntry> {
        let cached = self.memory.entry_at(place.index).filter(|cached| filter.matches(cached))?;
        let (state, ttl_ms) = self.state_of(&cached, wall, now);
        let bytes = Memory::weight_of(&cached);
        Some(ListedEntry { cached, state, ttl_ms, bytes })
    }

    /// What an entry is good for, and the freshness that holds now in milliseconds.
    fn state_of(&self, cached: &CachedEntry, wall: Wall, now: Instant) -> (EntryState, i64) {
        let entry = &cached.entry;
        let mut ttl_ms = entry.times.ttl_ms(wall);
        // While Redis is lost, an entry is served for less than it is fresh.
        if let Some(trusted) = cached.proof.trusted_for(now) {
            ttl_ms = ttl_ms.min(i64::try_from(trusted.as_millis()).unwrap_or(i64::MAX));
        }
        let state = match self.coherence.known_state(&cached.proof) {
            Err(Reason::Purged) => EntryState::Purged,
            Err(Reason::MutationPending) => EntryState::WritePending,
            Err(_) => EntryState::Unverified,
            Ok(_) if entry.retained_for(wall).is_zero() => EntryState::Expired,
            Ok(Some(at)) => {
                let ago = i64::try_from(wall.since(at).as_millis()).unwrap_or(i64::MAX);
                ttl_ms = ttl_ms.min(-ago);
                EntryState::SoftPurged
            }
            Ok(None) if ttl_ms > 0 => EntryState::Fresh,
            Ok(None) => EntryState::Stale,
        };
        (state, ttl_ms)
    }
}

#[cfg(test)]
mod tests;
