//! Mutations and purges: marked before the app sees them, made known to every other sidecar before
//! their answers go out.
//!
//! Invariants:
//! - [`Coherence::mark`] returns a mutation only if nobody can have taken its mark for orphaned at
//!   that moment; what it returns is to be forwarded at once.
//! - [`Coherence::committed`] returns when no sidecar serves from before it any more, or when Redis
//!   cannot be told: then after all trust that others had in Redis at the loss has ended, and with
//!   the purge in the journal. So do [`Coherence::purge_with`] and [`Coherence::purge_everything`];
//!   after a soft one no sidecar serves from before it as fresh.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::coherence::core::{
    Core, CoreEvent, MonotonicTime, Phase, Released, ReplayBatch, Subscribers,
};
use crate::coherence::message::{Message, OperationId, PeerId};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::redis_records::{MAX_BATCH_TAGS, RecordStore};
use crate::coherence::tag_table::TagGuard as TableGuard;
use crate::coherence::{Coherence, CoherenceMode};
use crate::policy::tag::Tag;
use crate::redis::{CallError, WritePolicy};

/// How often a purge that Redis answers with an error is tried before it is kept for the rejoin.
const MAX_PURGE_ATTEMPTS: usize = 3;

/// The core, and who waits for what it releases.
#[derive(Debug)]
pub(super) struct CoreWithWaiters {
    pub(super) core: Core,
    waiters: HashMap<OperationId, oneshot::Sender<Released>>,
}

impl CoreWithWaiters {
    pub(super) fn new(core: Core) -> Self {
        Self { core, waiters: HashMap::new() }
    }

    pub(super) fn release(&mut self, id: OperationId, how: Released) {
        if let Some(tell) = self.waiters.remove(&id) {
            // Who has given up does not hear it.
            let _ = tell.send(how);
        }
    }
}

/// A place among those who wait for the others. Dropped, it is gone.
struct ReleaseWait<'a> {
    coherence: &'a Coherence,
    id: OperationId,
    release: oneshot::Receiver<Released>,
}

impl Drop for ReleaseWait<'_> {
    fn drop(&mut self) {
        let mut guarded = self.coherence.core.lock();
        guarded.core.forget_wait(self.id);
        guarded.waiters.remove(&self.id);
    }
}

impl ReleaseWait<'_> {
    async fn released(mut self) -> Released {
        let began = self.coherence.clock.now();
        // The core releases whatever it expects.
        let how = (&mut self.release).await.unwrap_or(Released::LeaseExpired);
        let counters = &self.coherence.counters;
        let waited = self.coherence.clock.now().saturating_duration_since(began).as_micros();
        counters.waited_us.add(u64::try_from(waited).unwrap_or(u64::MAX));
        match how {
            Released::Acknowledged => counters.acknowledged.inc(),
            Released::LeaseExpired | Released::PublishFailed => {
                counters.purges_released_by_lease_expiry.inc()
            }
        }
        how
    }
}

/// A write was refused because its purge could not be made known to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRefused;

/// A mutation under way.
#[derive(Debug)]
pub struct PendingMutation {
    id: OperationId,
    tags: Vec<Tag>,
    guarded: bool,
    /// The name under which it is marked in Redis, and until when.
    marked: Option<(PeerId, MonotonicTime)>,
    /// Whether it is written down, because it could not be marked.
    journaled: bool,
    _guards: Vec<TableGuard>,
}

impl PendingMutation {
    /// The tags that it will purge.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    fn mark(&self) -> Option<(OperationId, PeerId)> {
        Some((self.id, self.marked?.0))
    }
}

impl Coherence {
    fn phase(&self) -> Phase {
        self.core.lock().core.phase()
    }

    fn refuses_writes(&self) -> bool {
        self.records()
            .is_some_and(|shared| shared.client().settings().writes == WritePolicy::Refuse)
    }

    /// Begins a mutation: its tags are marked before the app sees it.
    pub async fn mark(
        &self,
        tags: Vec<Tag>,
        guarded: bool,
        within: Duration,
    ) -> Result<PendingMutation, WriteRefused> {
        let guards = if guarded { self.table.guard(&tags) } else { Vec::new() };
        let mut pending = PendingMutation {
            id: OperationId(rand::random()),
            tags,
            guarded,
            marked: None,
            journaled: false,
            _guards: guards,
        };
        let Some(shared) = &self.records else { return Ok(pending) };
        let refuse = self.refuses_writes();
        // Who would rather refuse a write than serve a stale read keeps hits away until the purge
        // is proven: Redis may be lost between the mark and the purge.
        pending.guarded |= refuse;
        for _ in 0..MAX_PURGE_ATTEMPTS {
            if self.phase() == Phase::Lost {
                break;
            }
            let (node, at, epoch) = self.current_identity();
            match self.mark_as(shared, &pending, node, within, pending.guarded).await {
                Ok(()) => {
                    pending.marked = Some((node, at + within));
                    if self.is_mark_valid(node, at, epoch) {
                        return Ok(pending);
                    }
                    // Stopped for longer than a lease, or Redis was lost: whoever took us for dead
                    // has purged for a mutation that the app has not seen yet.
                }
                Err(
                    CallError::OutOfMemory
                    | CallError::Moving
                    | CallError::NodeDown(_)
                    | CallError::Reply(_),
                ) => break,
                // What cannot be marked can hardly be purged: do not spend a second deadline on
                // finding that out.
                Err(_) => self.mark_lost("a mutation could not be marked"),
            }
        }
        if refuse {
            return Err(WriteRefused);
        }
        // Written ahead: a crash between the app's commit and the purge forgets nothing.
        pending.journaled = self.journal.intend(pending.id, &pending.tags).await;
        Ok(pending)
    }

    /// Marks the tags of a mutation, and tells the others where they are to keep hits away from now
    /// on.
    async fn mark_as(
        &self,
        shared: &RecordStore,
        pending: &PendingMutation,
        node: PeerId,
        within: Duration,
        tell: bool,
    ) -> Result<(), CallError> {
        let (mark, guarded) = ((pending.id, node), pending.guarded);
        for batch in pending.tags.chunks(MAX_BATCH_TAGS) {
            if tell {
                let told = self
                    .publish_with(Some(batch), async |message| {
                        shared.mark(mark, batch, within, guarded, Some(&message)).await
                    })
                    .await?;
                told.released().await;
            } else {
                self.record_result(shared.mark(mark, batch, within, guarded, None).await)?;
            }
        }
        Ok(())
    }

    fn current_identity(&self) -> (PeerId, MonotonicTime, u64) {
        let guarded = self.core.lock();
        (guarded.core.me(), self.lease_state.now(), guarded.core.lease_state().epoch)
    }

    /// Whether a mark that was made then under this name stands for sure.
    fn is_mark_valid(&self, node: PeerId, at: MonotonicTime, epoch: u64) -> bool {
        let guarded = self.core.lock();
        guarded.core.me() == node && guarded.core.is_mark_valid(at, epoch, self.lease_state.now())
    }

    /// Moves the deadline of a mutation that takes long, and marks it under the present name.
    pub async fn renew(&self, pending: &mut PendingMutation, within: Duration) {
        if let (Some(shared), true) = (&self.records, pending.marked.is_some())
            && self.phase() != Phase::Lost
        {
            let (node, at, _) = self.current_identity();
            // Nobody is told again, so that the app's answer does not wait for it. Fail open: an
            // unrenewed mark is taken as committed by the others, which costs hits, not
            // correctness.
            if self.mark_as(shared, pending, node, within, false).await.is_ok() {
                pending.marked = Some((node, at + within));
            }
        }
    }

    /// How often a mutation under way is to be renewed.
    #[must_use]
    pub fn renew_every(&self, within: Duration) -> Duration {
        let lease = self.records().map_or(within, |shared| shared.client().settings().lease);
        (lease / 2).min(within / 3).max(Duration::from_millis(10))
    }

    /// The mutation was committed, or may have been: its tags are purged before this returns.
    pub async fn committed(&self, pending: PendingMutation) {
        let how = self.purge_under(pending.mark(), &pending.tags, PurgeKind::Hard).await;
        self.withdraw(&pending);
        let guarded_until = pending.marked.map(|(_, until)| until);
        if how == Released::PublishFailed
            && self.refuses_writes()
            && guarded_until.is_some_and(|until| self.lease_state.now() >= until)
        {
            // The mark that kept hits away has run out, and the purge is not known to anybody.
            self.wait_until_joined().await;
        }
    }

    /// The app refused the mutation: nothing is purged.
    pub async fn refused(&self, pending: PendingMutation) {
        self.withdraw(&pending);
        if let (Some(shared), Some(mark)) = (&self.records, pending.mark())
            && self.phase() != Phase::Lost
        {
            for batch in pending.tags.chunks(MAX_BATCH_TAGS) {
                // Fail open: the mark ends by its deadline.
                let _ = self.record_result(shared.unmark(mark, batch).await);
            }
        }
    }

    fn withdraw(&self, pending: &PendingMutation) {
        if pending.journaled {
            self.journal.withdraw(pending.id);
        }
    }

    /// Purges tags: what carries one of them is void.
    pub async fn purge(&self, tags: &[Tag]) {
        self.purge_with(tags, PurgeKind::Hard).await;
    }

    /// Purges tags: what carries one of them is void, or stale.
    ///
    /// While Redis is lost, a soft purge is soft in this sidecar, and goes into the journal as a
    /// hard one.
    pub async fn purge_with(&self, tags: &[Tag], kind: PurgeKind) {
        self.purge_under(None, tags, kind).await;
    }

    /// Purges all that is stored. While Redis is lost, as [`Coherence::purge_with`].
    pub async fn purge_everything(&self, kind: PurgeKind) {
        self.purge_table(None, kind);
        if let Some(shared) = &self.records {
            self.purge_batch(shared, None, None, kind).await;
        }
    }

    async fn purge_under(
        &self,
        mark: Option<(OperationId, PeerId)>,
        tags: &[Tag],
        kind: PurgeKind,
    ) -> Released {
        self.counters.purged_tags.add(tags.len() as u64);
        self.purge_table(Some(tags), kind);
        let mut how = Released::Acknowledged;
        if let Some(shared) = &self.records {
            for batch in tags.chunks(MAX_BATCH_TAGS) {
                how = how.max(self.purge_batch(shared, mark, Some(batch), kind).await);
            }
        }
        how
    }

    /// Purges tags, or everything, in this process.
    fn purge_table(&self, tags: Option<&[Tag]>, kind: PurgeKind) {
        match (tags, kind) {
            (Some(tags), PurgeKind::Hard) => self.table.purge(tags),
            (Some(tags), PurgeKind::Soft) => self.table.soft_purge(tags, self.clock.wall()),
            (None, PurgeKind::Hard) => self.table.purge_everything(),
            (None, PurgeKind::Soft) => self.table.soft_purge_everything(self.clock.wall()),
        }
    }

    /// Purges tags, or everything, for all sidecars.
    async fn purge_batch(
        &self,
        shared: &RecordStore,
        mark: Option<(OperationId, PeerId)>,
        tags: Option<&[Tag]>,
        kind: PurgeKind,
    ) -> Released {
        for _ in 0..MAX_PURGE_ATTEMPTS {
            if self.phase() == Phase::Lost {
                break;
            }
            let send = async |message: Message| match tags {
                Some(tags) => shared.purge(mark, tags, kind, &message).await,
                None => shared.purge_everything(kind, &message).await,
            };
            match self.publish_with(tags, send).await {
                Ok(waiting) => {
                    // Once more: what Redis vouched for before it had the purge may have come in
                    // between.
                    self.purge_table(tags, kind);
                    return waiting.released().await;
                }
                Err(error) => {
                    tracing::debug!(%error, tags = tags.map(<[Tag]>::len), "a purge did not reach Redis");
                    self.mark_lost("a purge did not reach it");
                }
            }
        }
        self.counters.journal_writes.inc();
        let batch = if let Some(tags) = tags {
            self.journal.purge(tags).await;
            ReplayBatch { tags: tags.iter().cloned().collect(), everything: false }
        } else {
            self.journal.purge_everything().await;
            ReplayBatch { everything: true, ..ReplayBatch::default() }
        };
        let waiting = self.register_wait();
        self.handle(CoreEvent::PublishFailed(waiting.id, batch));
        waiting.released().await
    }

    fn register_wait(&self) -> ReleaseWait<'_> {
        let id = OperationId(rand::random());
        let (tell, told) = oneshot::channel();
        let mut guarded = self.core.lock();
        guarded.core.expect(id);
        guarded.waiters.insert(id, tell);
        drop(guarded);
        ReleaseWait { coherence: self, id, release: told }
    }

    /// Tells the others to distrust tags, in one step with what `send` does in Redis.
    async fn publish_with(
        &self,
        tags: Option<&[Tag]>,
        send: impl AsyncFnOnce(Message) -> Result<Subscribers, CallError>,
    ) -> Result<ReleaseWait<'_>, CallError> {
        let waiting = self.register_wait();
        let by = self.core.lock().core.me().process;
        let message = Message::Invalidate { by, id: waiting.id, tags: tags.map(<[Tag]>::to_vec) };
        let audience = self.record_result(send(message).await)?;
        self.handle(CoreEvent::Published(waiting.id, audience));
        Ok(waiting)
    }

    /// Purges tags for somebody else: nobody's answer waits for it.
    pub(super) async fn purge_on_behalf(
        &self,
        shared: &RecordStore,
        mark: Option<(OperationId, PeerId)>,
        tags: &[Tag],
    ) -> Result<(), CallError> {
        self.table.purge(tags);
        for batch in tags.chunks(MAX_BATCH_TAGS) {
            drop(
                self.publish_with(Some(batch), async |message| {
                    shared.purge(mark, batch, PurgeKind::Hard, &message).await
                })
                .await?,
            );
            self.table.purge(batch);
        }
        Ok(())
    }

    /// Purges everything for somebody else.
    pub(super) async fn purge_everything_on_behalf(
        &self,
        shared: &RecordStore,
    ) -> Result<(), CallError> {
        drop(
            self.publish_with(None, async |message| {
                shared.purge_everything(PurgeKind::Hard, &message).await
            })
            .await?,
        );
        self.table.purge_everything();
        Ok(())
    }

    /// Takes mutations past their deadline as committed.
    pub async fn settle(&self, tags: &[Tag]) {
        if let (Some(shared), CoherenceMode::Shared) = (&self.records, self.mode()) {
            self.counters.orphans.inc();
            // Fail open: the reader treats the entry as a miss whatever comes of this.
            let _ = self.purge_on_behalf(shared, None, tags).await;
        }
    }
}
