//! Reads a snapshot and restores its entries: first the whole file, then, once all of it is known
//! to be authentic, its entries.

use std::io::BufReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::entry::packed::{self, Seal, Unpacked};
use crate::cache::entry::{Entry, VaryMark};
use crate::cache::snapshot::file;
use crate::cache::snapshot::format::{SnapshotDecoder, SnapshotKey, broken};
use crate::cache::snapshot::save::NAMED;
use crate::cache::snapshot::{
    LeftOut, Omissions, SnapshotError, SnapshotProver, SnapshotRoutes, SnapshotSettings,
};
use crate::cache::store::Store;
use crate::cache::store::memory::{CachedEntry, MemorySlot};
use crate::clock::{Clock, Wall};
use crate::coherence::stamp::Stamp;
use crate::coherence::{Coherence, CoherenceMode, Proof, SharedProof};
use crate::policy::key::{self, KeyHash};
use crate::policy::tag::Tag;
use crate::semantics::times::Leeway;

/// How many bytes are read at once.
const BUFFER: usize = 256 * 1024;

/// Where a snapshot is read from.
#[derive(Debug)]
pub struct SnapshotSource<'a> {
    /// The file and its limits.
    pub settings: &'a SnapshotSettings,
    /// What it is authenticated with.
    pub key: &'a SnapshotKey,
    /// How many bytes there is room for in memory.
    pub room: u64,
    /// The clock, and when reading has to be done.
    pub clock: &'a Clock,
    /// Until when it has to be read.
    pub until: Instant,
}

/// A snapshot that was read whole. None of its entries is in use.
#[derive(Debug)]
pub struct ReadSnapshot {
    prover: SnapshotProver,
    slots: Vec<Unpacked>,
    omissions: Omissions,
}

/// Takes the snapshot off the disk and reads it; `None` if there is none. Blocks.
pub fn read(source: &SnapshotSource<'_>) -> Result<Option<ReadSnapshot>, SnapshotError> {
    let Some(taken) = file::take(&source.settings.path, source.settings.size)? else {
        return Ok(None);
    };
    let input = BufReader::with_capacity(BUFFER, taken.file);
    let (mut decoder, head) = SnapshotDecoder::begin(input, taken.length, source.key)?;
    let (mut slots, mut omissions) = (Vec::new(), Omissions::default());
    let mut room = source.room;
    while let Some(record) = decoder.next()? {
        if source.clock.now() >= source.until {
            return Err(SnapshotError::too_slow(source.settings.time));
        }
        // The body stays where it was read to: `record` is all the memory that the entry takes. No
        // body in a snapshot is compressed.
        let mut slot = packed::unpack(&record, &Seal::default(), 0).map_err(|_| broken())?;
        if let Unpacked::Entry(entry, _) = &mut slot {
            entry.settle_in(record.len());
        }
        match room.checked_sub(record.len() as u64) {
            Some(left) => {
                room = left;
                slots.push(slot);
            }
            None if matches!(slot, Unpacked::Entry(..)) => omissions.note(LeftOut::Size, 1),
            None => {}
        }
    }
    Ok(Some(ReadSnapshot { prover: head.prover, slots, omissions }))
}

/// Puts the entries of a snapshot into the memory tier. Returns how many, and what was left out.
/// With Redis, it must be in use.
pub fn insert(
    read: ReadSnapshot,
    routes: &SnapshotRoutes,
    store: &Store,
    coherence: &Coherence,
) -> Result<(u64, Omissions), SnapshotError> {
    let is_current = match read.prover {
        SnapshotProver::Origin => coherence.mode() == CoherenceMode::Local,
        SnapshotProver::Records => coherence.mode() == CoherenceMode::Shared,
    };
    if !is_current {
        return Err(SnapshotError::without_redis());
    }
    let (mut restored, mut omissions) = (0, read.omissions);
    for slot in read.slots {
        match slot {
            Unpacked::Vary(mark) => restore_mark(mark, routes, store),
            Unpacked::Entry(entry, stamp) => {
                match restore_entry(*entry, stamp, (routes, store, coherence)) {
                    Ok(()) => restored += 1,
                    Err(why) => omissions.note(why, 1),
                }
            }
        }
    }
    Ok((restored, omissions))
}

fn restore_mark(mark: VaryMark, routes: &SnapshotRoutes, store: &Store) {
    if routes.judge(&mark.key).is_ok() {
        let hash = KeyHash::from_canonical(&mark.key);
        store.memory.restore(hash, MemorySlot::Vary(Arc::new(mark)));
    }
}

fn restore_entry(
    entry: Entry,
    stamp: Stamp,
    (routes, store, coherence): (&SnapshotRoutes, &Store, &Coherence),
) -> Result<(), LeftOut> {
    routes.judge(&entry.key)?;
    let (primary, hash) = (key::primary_hash(&entry.key), KeyHash::from_canonical(&entry.key));
    let cached = match coherence.records() {
        Some(records) => {
            let received = records.local_time(entry.times.received).ok_or(LeftOut::Stale)?;
            by_records(entry, stamp, received, coherence.clock().wall())?
        }
        None => by_origin(entry, &stamp, coherence)?,
    };
    if !store.memory.restore(hash, MemorySlot::Entry(Arc::new(cached))) {
        return Err(LeftOut::Size);
    }
    if primary != hash
        && let Some(oldest) = store.variants.record(primary, hash)
    {
        store.memory.remove(oldest);
    }
    Ok(())
}

/// An entry that the records of its tags prove current, at each use until a lease does.
fn by_records(
    mut entry: Entry,
    stamp: Stamp,
    received: Wall,
    now: Wall,
) -> Result<CachedEntry, LeftOut> {
    entry.times.received = received;
    if !entry.times.is_fresh(now) {
        return Err(LeftOut::Stale);
    }
    Ok(CachedEntry::new(entry, Proof::Shared(SharedProof::new(stamp, None))))
}

/// An entry that the origin must confirm before its first use: nothing is left of its freshness,
/// and there is no window in which it could be served stale. It is kept for as long as it would
/// have been.
fn by_origin(
    mut entry: Entry,
    stamp: &Stamp,
    coherence: &Coherence,
) -> Result<CachedEntry, LeftOut> {
    let clock = coherence.clock();
    let now = clock.wall();
    let since = clock.date().since(entry.times.received);
    entry.times.received = now.before(since);
    entry.leeway = Leeway {
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        unreachable: Duration::ZERO,
        keep: entry.leeway.keep.saturating_add(entry.times.lifetime),
    };
    entry.times.lifetime = Duration::ZERO;
    if entry.retained_for(now).is_zero() {
        return Err(LeftOut::Stale);
    }
    let named = stamp.tags.iter().filter(|(_, kind)| *kind == NAMED);
    entry.response_tags = named.map(|(tag, _)| tag.clone()).collect();
    let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
    Ok(CachedEntry::new(entry, Proof::Local(coherence.prove_from_now(&tags))))
}
