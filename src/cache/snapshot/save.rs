//! Writes the snapshot: entry by entry, so that no second copy of the tier comes into being.

use std::io::BufWriter;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use crate::cache::entry::packed::{self, Seal};
use crate::cache::snapshot::file::UnfinishedFile;
use crate::cache::snapshot::format::{SnapshotEncoder, SnapshotHead, SnapshotKey};
use crate::cache::snapshot::{
    LeftOut, Omissions, SnapshotError, SnapshotProver, SnapshotRoutes, SnapshotSettings,
};
use crate::cache::store::Store;
use crate::cache::store::memory::{CachedEntry, MemorySlot};
use crate::clock::{Clock, Wall};
use crate::coherence::stamp::{Nonce, Stamp};
use crate::coherence::{Coherence, CoherenceMode, LocalProof, Proof, SharedProof};
use crate::policy::tag::Tag;
use crate::semantics::revalidation;

/// A tag that the origin's response named, in the stamp of an entry that the origin has to confirm.
pub(super) const NAMED: Nonce = Nonce([1; 16]);
/// Any other tag of it.
const DERIVED: Nonce = Nonce([0; 16]);

/// How many bytes are written at once.
const BUFFER: usize = 256 * 1024;

/// What is written, and for whom.
#[derive(Debug)]
pub struct SnapshotTarget<'a> {
    /// The file and its limits.
    pub settings: &'a SnapshotSettings,
    /// What it is authenticated with.
    pub key: &'a SnapshotKey,
    /// The routes.
    pub routes: &'a SnapshotRoutes,
    /// The entries.
    pub store: &'a Store,
    /// What proves them current.
    pub coherence: &'a Coherence,
    /// Until when entries are added.
    pub until: Instant,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct SavedSnapshot {
    /// How many entries.
    pub entries: u64,
    /// How long the file is.
    pub bytes: u64,
    /// What was left out.
    pub omissions: Omissions,
}

/// Writes what is fresh in the memory tier. Blocks.
pub fn save(target: &SnapshotTarget<'_>) -> Result<SavedSnapshot, SnapshotError> {
    let coherence = target.coherence;
    let prover = match (coherence.mode(), coherence.records()) {
        (CoherenceMode::Local, _) => SnapshotProver::Origin,
        (CoherenceMode::Shared, Some(_)) => SnapshotProver::Records,
        // Nobody knows which purges are missing.
        _ => return Err(SnapshotError::without_redis()),
    };
    let clock = coherence.clock();
    let unfinished = UnfinishedFile::create(&target.settings.path)?;
    let head = SnapshotHead { prover, written: clock.date() };
    let out = BufWriter::with_capacity(BUFFER, &unfinished.file);
    let mut encoder = SnapshotEncoder::begin(out, target.key, head)?;
    let mut omissions = Omissions::default();
    let mut entries = 0;
    for (seen, (_, slot)) in target.store.memory.slots().enumerate() {
        if clock.now() >= target.until {
            let rest = target.store.memory.len().saturating_sub(seen);
            omissions.note(LeftOut::Time, rest as u64);
            break;
        }
        let is_entry = matches!(slot, MemorySlot::Entry(_));
        let room = target.settings.size;
        let packed = target.pack(&slot, prover, clock).and_then(|packed| {
            if encoder.length_with(packed.len()) > room { Err(LeftOut::Size) } else { Ok(packed) }
        });
        match packed {
            Ok(packed) => {
                encoder.record(&packed)?;
                entries += u64::from(is_entry);
            }
            Err(why) if is_entry => omissions.note(why, 1),
            Err(_) => {}
        }
    }
    let (out, bytes) = encoder.finish()?;
    drop(out);
    unfinished.finish()?;
    Ok(SavedSnapshot { entries, bytes, omissions })
}

impl SnapshotTarget<'_> {
    fn pack(
        &self,
        slot: &MemorySlot,
        prover: SnapshotProver,
        clock: &Clock,
    ) -> Result<Bytes, LeftOut> {
        let seal = Seal::default();
        match slot {
            MemorySlot::Vary(mark) => {
                self.routes.judge(&mark.key)?;
                Ok(packed::pack_vary(mark, &seal))
            }
            MemorySlot::Entry(cached) => {
                self.routes.judge(&cached.entry.key)?;
                if !cached.entry.times.is_fresh(clock.wall()) {
                    return Err(LeftOut::Stale);
                }
                // Before it is copied.
                if cached.entry.body.len() as u64 > self.settings.size {
                    return Err(LeftOut::Size);
                }
                let (stamp, received) = self.stamp(cached, prover, clock)?;
                Ok(packed::pack(&cached.entry, &stamp, received, &seal))
            }
        }
    }

    /// What will prove an entry current, and when it was received by the clock that the reader
    /// goes by.
    fn stamp(
        &self,
        cached: &CachedEntry,
        prover: SnapshotProver,
        clock: &Clock,
    ) -> Result<(Stamp, Wall), LeftOut> {
        let received = cached.entry.times.received;
        match (&cached.proof, prover, self.coherence.records()) {
            (Proof::Local(proof), SnapshotProver::Origin, _) => {
                let stamp = self.local_stamp(cached, proof)?;
                Ok((stamp, clock.date_of(received)))
            }
            (Proof::Shared(SharedProof { stamp, .. }), SnapshotProver::Records, Some(records)) => {
                Ok((stamp.clone(), records.redis_time(received)))
            }
            // Filled while Redis was lost.
            _ => Err(LeftOut::Purged),
        }
    }

    fn local_stamp(&self, cached: &CachedEntry, proof: &LocalProof) -> Result<Stamp, LeftOut> {
        let entry = &cached.entry;
        // The two conditions of a fill that revalidates.
        if entry.status != StatusCode::OK || !revalidation::has_validator(&entry.headers()) {
            return Err(LeftOut::Validator);
        }
        self.coherence.validate_local(proof).map_err(|_| LeftOut::Purged)?;
        let with_kind = |tag: Tag| {
            let kind = if entry.response_tags.contains(&tag) { NAMED } else { DERIVED };
            (tag, kind)
        };
        let tags = proof.tags().cloned().map(with_kind).collect();
        Ok(Stamp { generation: DERIVED, tags })
    }
}
