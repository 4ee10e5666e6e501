//! Turns what a fill has read about its tags into a proof, if nothing was purged in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::coherence::redis_records::CommittedStamp;
use crate::coherence::tag_record::RecordSnapshot;
use crate::coherence::tag_snapshot::{LocalTagSnapshot, TagSnapshot};
use crate::coherence::validation::{LocalProof, Proof, SharedProof};
use crate::coherence::{Coherence, CoherenceMode};
use crate::outcome::Reason;
use crate::policy::tag::Tag;

/// The proof for a response, and the clock by which other sidecars will read it.
#[derive(Debug)]
pub struct Committed {
    /// The proof.
    pub proof: Proof,
    /// How far the clock of Redis was at least ahead of this process's count when the proof was
    /// made, in milliseconds.
    pub redis_ahead_ms: i64,
}

impl Coherence {
    /// Reads the state of some tags from the local table.
    #[must_use]
    pub fn read_local(&self, tags: &[Tag]) -> TagSnapshot {
        let at = self.clock.now();
        // The epoch comes first and the tag states come after the step: a change in between makes
        // the snapshot stale, never too fresh.
        let (epoch, generation, seq) = (self.epoch(), self.table.generation(), self.table.seq());
        let states = tags.iter().map(|tag| self.table.snapshot(tag)).collect();
        TagSnapshot::Local(LocalTagSnapshot { epoch, generation, seq, states, at })
    }

    /// The proof for a response with these tags, if none of them was purged since they were read.
    pub async fn commit(
        &self,
        read: &TagSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<Committed, Reason> {
        let committed = match read {
            TagSnapshot::Local(local) => self
                .commit_local(local, tags)
                .map(|proof| Committed { proof: Proof::Local(proof), redis_ahead_ms: 0 })
                .ok_or(Reason::PurgedDuringFill),
            TagSnapshot::Shared(epoch, snapshot) => {
                self.commit_shared(*epoch, snapshot, tags, lifetime).await
            }
            TagSnapshot::Unverifiable => Err(Reason::Unverifiable),
        };
        if matches!(committed, Err(Reason::PurgedDuringFill)) {
            self.counters.fills_purged.inc();
        }
        committed
    }

    pub(super) fn commit_local(&self, read: &LocalTagSnapshot, tags: &[Tag]) -> Option<LocalProof> {
        let mut states = SmallVec::with_capacity(tags.len());
        let mut unread = false;
        for tag in tags {
            if let Some((_, state, purged)) = read.states.iter().find(|(name, _, _)| name == tag) {
                states.push((Arc::clone(state), *purged));
            } else {
                unread = true;
                let (state, _) = self.table.tag_state(tag);
                let purged = state.last_purge();
                if purged > read.seq {
                    return None;
                }
                states.push((state, purged));
            }
        }
        // A purge of a tag that nobody holds only moves the step. It is read after the tag states
        // were made: see the invariants of the table.
        if unread && self.table.seq() != read.seq {
            return None;
        }
        let until = self.trusted_until(read);
        let proof = LocalProof { epoch: read.epoch, generation: read.generation, states, until };
        match self.validate_local(&proof) {
            Ok(()) | Err(Reason::MutationPending) => Some(proof),
            Err(_) => None,
        }
    }

    /// When trust ends in what is stored after this read, while Redis is lost. Counted from before
    /// the origin got the request: a write through another sidecar may have followed at once.
    fn trusted_until(&self, read: &LocalTagSnapshot) -> Option<Instant> {
        (self.mode() == CoherenceMode::Degraded).then(|| self.own_table_until(read.at))
    }

    /// The rest of the freshness of a stored response, of which its own times say that it is
    /// `ttl_ms`, in milliseconds: less where trust in it ends before, because Redis is lost.
    #[must_use]
    pub fn limit_ttl_ms(&self, proof: &Proof, ttl_ms: i64) -> i64 {
        match proof {
            Proof::Local(LocalProof { until: Some(until), .. }) => ttl_ms.min(self.ms_to(*until)),
            Proof::Local(_) | Proof::Shared(_) => ttl_ms,
        }
    }

    /// The same for a response that is about to be stored after this read.
    #[must_use]
    pub fn limit_new_ttl_ms(&self, read: &TagSnapshot, ttl_ms: i64) -> i64 {
        match read {
            TagSnapshot::Local(local) => {
                self.trusted_until(local).map_or(ttl_ms, |until| ttl_ms.min(self.ms_to(until)))
            }
            TagSnapshot::Shared(..) | TagSnapshot::Unverifiable => ttl_ms,
        }
    }

    /// Milliseconds until then; negative after it.
    fn ms_to(&self, then: Instant) -> i64 {
        let now = self.clock.now();
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match then.checked_duration_since(now) {
            Some(left) => ms(left),
            None => -ms(now.duration_since(then)),
        }
    }

    /// Until when something may be served that was read at that time while Redis is lost.
    fn own_table_until(&self, read_at: Instant) -> Instant {
        let until = read_at + self.degraded_ttl();
        let bound = self.core().core.own_table_until();
        self.lease_state.instant(bound).map_or(until, |bound| until.min(bound))
    }

    fn degraded_ttl(&self) -> Duration {
        self.records
            .as_ref()
            .map_or(Duration::ZERO, |shared| shared.client().settings().degraded_ttl)
    }

    async fn commit_shared(
        &self,
        epoch: u64,
        snapshot: &RecordSnapshot,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<Committed, Reason> {
        let Some(shared) = &self.records else { return Err(Reason::Unverifiable) };
        if epoch != self.epoch() {
            return Err(Reason::Unverifiable);
        }
        let watch = self.watch_tags(tags);
        match self.record_result(shared.commit(snapshot, tags, lifetime).await) {
            Ok(Some(CommittedStamp { stamp, redis_ahead_ms })) => Ok(Committed {
                proof: Proof::Shared(SharedProof::new(stamp, watch.as_ref())),
                redis_ahead_ms,
            }),
            Ok(None) => Err(Reason::PurgedDuringFill),
            // Fail open: the client gets the response; it is only not stored.
            Err(_) => Err(Reason::StoreFailed),
        }
    }
}
