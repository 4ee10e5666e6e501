//! From a reading of tags to a proof: what a fill reads before it asks the origin, and what it gets
//! when its response may be stored.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::coherence::tag_record::RecordSnapshot;
use crate::coherence::tag_snapshot::{LocalTagSnapshot, TagSnapshot};
use crate::coherence::validation::{LocalProof, Proof, SharedProof};
use crate::coherence::{Coherence, CoherenceMode};
use crate::outcome::Reason;
use crate::policy::tag::Tag;

impl Coherence {
    /// Reads the state of some tags from the local table.
    #[must_use]
    pub fn read_local(&self, tags: &[Tag]) -> TagSnapshot {
        let at = self.clock.now();
        // The epoch first, the cells after the step: a change in between makes the reading stale,
        // never fresh.
        let (epoch, generation, seq) = (self.epoch(), self.table.generation(), self.table.seq());
        let cells = tags.iter().map(|tag| self.table.snapshot(tag)).collect();
        TagSnapshot::Local(LocalTagSnapshot { epoch, generation, seq, states: cells, at })
    }

    /// The proof for a response with these tags, if none of them was purged since they were read.
    pub async fn commit(
        &self,
        read: &TagSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<Proof, Reason> {
        let proof = match read {
            TagSnapshot::Local(local) => {
                self.commit_local(local, tags).map(Proof::Local).ok_or(Reason::PurgedDuringFill)
            }
            TagSnapshot::Shared(epoch, reading) => {
                self.commit_shared(*epoch, reading, tags, lifetime).await.map(Proof::Shared)
            }
            TagSnapshot::Unverifiable => Err(Reason::Unverifiable),
        };
        if matches!(proof, Err(Reason::PurgedDuringFill)) {
            self.counters.fills_purged.inc();
        }
        proof
    }

    pub(super) fn commit_local(&self, read: &LocalTagSnapshot, tags: &[Tag]) -> Option<LocalProof> {
        let mut cells = SmallVec::with_capacity(tags.len());
        let mut unread = false;
        for tag in tags {
            if let Some((_, cell, purged)) = read.states.iter().find(|(name, _, _)| name == tag) {
                cells.push((Arc::clone(cell), *purged));
            } else {
                unread = true;
                let (cell, _) = self.table.tag_state(tag);
                let purged = cell.last_purge();
                if purged > read.seq {
                    return None;
                }
                cells.push((cell, purged));
            }
        }
        // Of a tag that nobody held, a purge leaves no trace but the step. Read after the cells
        // were made: see the table's invariants.
        if unread && self.table.seq() != read.seq {
            return None;
        }
        // From before the app was asked: another sidecar's write may have come right after.
        let until = (self.mode() == CoherenceMode::Degraded).then(|| read.at + self.degraded_ttl());
        let proof =
            LocalProof { epoch: read.epoch, generation: read.generation, states: cells, until };
        match self.validate_local(&proof) {
            Ok(()) | Err(Reason::MutationPending) => Some(proof),
            Err(_) => None,
        }
    }

    fn degraded_ttl(&self) -> Duration {
        self.records
            .as_ref()
            .map_or(Duration::ZERO, |shared| shared.client().settings().degraded_ttl)
    }

    async fn commit_shared(
        &self,
        epoch: u64,
        reading: &RecordSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<SharedProof, Reason> {
        let Some(shared) = &self.records else { return Err(Reason::Unverifiable) };
        if epoch != self.epoch() {
            return Err(Reason::Unverifiable);
        }
        let watch = self.watch_tags(tags);
        match self.record_result(shared.commit(reading, tags, lifetime).await) {
            Ok(Some(stamp)) => Ok(SharedProof::new(stamp, watch.as_ref())),
            Ok(None) => Err(Reason::PurgedDuringFill),
            // Fail open: the response goes to its client all the same, it is only not stored.
            Err(_) => Err(Reason::StoreFailed),
        }
    }
}
