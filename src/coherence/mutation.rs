//! Mutations and purges: mutations are marked before the origin gets them, and purges reach every
//! peer before the response goes out.
//!
//! Invariants:
//! - [`Coherence::mark`] returns a mutation only if no peer can have treated its mark as orphaned
//!   by then; the caller forwards the mutation at once.
//! - In doubt (Redis does not reply, and is not lost) a write waits for its mark and for its purge,
//!   for `wait_timeout` each; then it fares as if Redis were lost. How long the peers take is
//!   bounded by their leases.
//! - [`Coherence::committed`] returns when no sidecar serves older responses any more. If the purge
//!   cannot reach Redis, it returns when the leases of all peers at the loss have expired, with the
//!   purge in the journal. The same holds for [`Coherence::purge_with`] and
//!   [`Coherence::purge_everything`]; after a soft purge no sidecar serves older responses as
//!   fresh.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::coherence::core::{
    Core, CoreEvent, MonotonicTime, Phase, Released, ReplayBatch, Subscribers,
};
use crate::coherence::hit_guard::HitGuard;
use crate::coherence::message::{Message, OperationId, PeerId};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::redis_records::{MAX_BATCH_TAGS, RecordStore};
use crate::coherence::tag_table::TagGuard as TableGuard;
use crate::coherence::waiters::Waiter;
use crate::coherence::{AbandonedMark, Coherence, CoherenceMode};
use crate::policy::tag::Tag;
use crate::redis::{CallError, WritePolicy};

/// How many marks that were given up are remembered. Further ones end at their deadlines.
const MAX_ABANDONED_MARKS: usize = 1024;

/// A wait for the peers. Dropping it ends the wait.
pub(super) struct ReleaseWait<'a> {
    coherence: &'a Coherence,
    id: OperationId,
    release: oneshot::Receiver<Released>,
}

impl Drop for ReleaseWait<'_> {
    fn drop(&mut self) {
        let mut guarded = self.coherence.core();
        guarded.core.forget_wait(self.id);
        guarded.waiters.remove(&self.id);
    }
}

impl ReleaseWait<'_> {
    async fn released(mut self) -> Released {
        let began = self.coherence.clock.now();
        // The core releases every operation that it expects.
        let how = (&mut self.release).await.unwrap_or(Released::LeaseExpired);
        let counters = &self.coherence.counters;
        let waited = self.coherence.clock.now().saturating_duration_since(began).as_micros();
        counters.waited_us.add(u64::try_from(waited).unwrap_or(u64::MAX));
        match how {
            Released::Acknowledged => counters.acknowledged.inc(),
            Released::LeaseExpired | Released::PublishFailed => {
                counters.purges_released_by_lease_expiry.inc();
            }
        }
        how
    }
}

/// A write was refused because its purge could not have reached the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRefused;

/// A mutation in progress.
#[derive(Debug)]
pub struct PendingMutation {
    id: OperationId,
    tags: Vec<Tag>,
    guarded: bool,
    /// The id under which it is marked in Redis, and until when.
    marked: Option<(PeerId, MonotonicTime)>,
    /// Whether it is in the journal, because it could not be marked.
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
    pub(super) fn phase(&self) -> Phase {
        self.core().core.phase()
    }

    fn refuses_writes(&self) -> bool {
        self.records()
            .is_some_and(|shared| shared.client().settings().writes == WritePolicy::Refuse)
    }

    /// Whether a mutation with this guard keeps hits away.
    #[must_use]
    pub fn keeps_hits_away(&self, guard: HitGuard) -> bool {
        match guard {
            HitGuard::Never => false,
            HitGuard::IfRefusing => self.refuses_writes(),
            HitGuard::Always => true,
        }
    }

    /// Begins a mutation: its tags are marked before the origin gets it.
    pub async fn mark(
        &self,
        tags: Vec<Tag>,
        guard: HitGuard,
        within: Duration,
    ) -> Result<PendingMutation, WriteRefused> {
        let in_table = guard == HitGuard::Always;
        let guards = if in_table { self.table.guard(&tags) } else { Vec::new() };
        let mut pending = PendingMutation {
            id: OperationId(rand::random()),
            tags,
            // With `writes = "refuse"`, hits are kept away until the purge is proven: Redis may be
            // lost between the mark and the purge.
            guarded: self.keeps_hits_away(guard),
            marked: None,
            journaled: false,
            _guards: guards,
        };
        let Some(shared) = &self.records else { return Ok(pending) };
        let refuse = self.refuses_writes();
        let until = self.clock.now() + shared.client().settings().write_wait;
        self.wait_until_known(until).await;
        let mut attempted = None;
        while self.phase() != Phase::Lost {
            let (peer, at, epoch) = self.current_identity();
            attempted = Some(peer);
            match self.mark_as(shared, &pending, peer, (within, until), pending.guarded).await {
                Ok(()) => {
                    pending.marked = Some((peer, at + within));
                    if self.is_mark_valid(peer, at, epoch) {
                        return Ok(pending);
                    }
                    // This process was paused for longer than a lease, or Redis was lost: peers
                    // that evicted it have already purged for this mutation, which the origin has
                    // yet to get.
                }
                // Redis was lost: the loop ends, or goes on with the Redis that is back.
                Err(CallError::Connection(_) | CallError::Lost(_) | CallError::WentBack) => {}
                Err(
                    CallError::Timeout
                    | CallError::OutOfMemory
                    | CallError::Moving
                    | CallError::NodeDown(_)
                    | CallError::Reply(_),
                ) => break,
            }
        }
        if let Some(peer) = attempted.filter(|_| refuse || pending.marked.is_none()) {
            let tags = pending.tags.clone();
            self.abandon_mark(AbandonedMark { id: pending.id, peer, tags });
        }
        if refuse {
            return Err(WriteRefused);
        }
        // Written ahead: a crash between the commit at the origin and the purge loses nothing.
        pending.journaled = self.journal.intend(pending.id, &pending.tags).await;
        Ok(pending)
    }

    /// Marks the tags of a mutation for this long, and tries to until then. Peers are waited for if
    /// hits must be kept away from now on.
    async fn mark_as(
        &self,
        shared: &RecordStore,
        pending: &PendingMutation,
        peer: PeerId,
        (within, until): (Duration, Instant),
        publish: bool,
    ) -> Result<(), CallError> {
        let (mark, guarded) = ((pending.id, peer), pending.guarded);
        for batch in pending.tags.chunks(MAX_BATCH_TAGS) {
            if publish {
                let publishing =
                    self.publish_on(self.register_lease_wait(), Some(batch), async |message| {
                        shared.mark(mark, batch, within, guarded, Some(&message)).await
                    });
                self.by(until, publishing).await?.released().await;
            } else {
                let marking = shared.mark(mark, batch, within, guarded, None);
                self.record_result(self.by(until, marking).await)?;
            }
        }
        Ok(())
    }

    /// Remembers a mark that was given up: it may be on its way, and would keep hits away for as
    /// long as the mutation may have taken.
    fn abandon_mark(&self, mark: AbandonedMark) {
        let mut abandoned = self.abandoned_marks.lock();
        if abandoned.len() < MAX_ABANDONED_MARKS {
            abandoned.push(mark);
        }
        drop(abandoned);
        self.joined.notify_waiters();
    }

    /// Removes the marks that were given up, once Redis is in use: what was on its way has arrived.
    pub(super) async fn unmark_abandoned(&self, shared: &RecordStore) {
        let abandoned = std::mem::take(&mut *self.abandoned_marks.lock());
        for AbandonedMark { id, peer, tags } in abandoned {
            for batch in tags.chunks(MAX_BATCH_TAGS) {
                // Fail open: the mark ends at its deadline.
                let _ = self.record_result(shared.unmark((id, peer), batch).await);
            }
        }
    }

    /// Returns when it is known whether Redis can be reached, which a sidecar that starts has to
    /// find out first; or at that time.
    async fn wait_until_known(&self, until: Instant) {
        let known = async {
            loop {
                let changed = self.joined.notified();
                if self.phase() != Phase::Lost || self.mode() != CoherenceMode::Rejoining {
                    return Ok(());
                }
                changed.await;
            }
        };
        let _ = self.by(until, known).await;
    }

    /// The result, or a timeout after that time.
    pub(super) async fn by<T>(
        &self,
        until: Instant,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let left = until.saturating_duration_since(self.clock.now());
        tokio::time::timeout(left, Box::pin(call)).await.unwrap_or(Err(CallError::Timeout))
    }

    fn current_identity(&self) -> (PeerId, MonotonicTime, u64) {
        let guarded = self.core();
        (guarded.core.me(), self.lease_state.now(), guarded.core.lease_state().epoch)
    }

    /// Whether a mark made at that time, under this id, certainly stands.
    fn is_mark_valid(&self, peer: PeerId, at: MonotonicTime, epoch: u64) -> bool {
        let guarded = self.core();
        guarded.core.me() == peer && guarded.core.is_mark_valid(at, epoch, self.lease_state.now())
    }

    /// Extends the deadline of a mutation that takes long, and marks it under the present id.
    pub async fn renew(&self, pending: &mut PendingMutation, within: Duration) {
        if let (Some(shared), true) = (&self.records, pending.marked.is_some())
            && self.phase() != Phase::Lost
        {
            let (peer, at, _) = self.current_identity();
            let until = self.clock.now() + shared.client().settings().deadline;
            // Peers are not waited for again, so that the response does not wait for them. Fail
            // open: peers treat a mark that was not renewed as committed, which costs hits, not
            // correctness.
            if self.mark_as(shared, pending, peer, (within, until), false).await.is_ok() {
                pending.marked = Some((peer, at + within));
            }
        }
    }

    /// How often a mutation in progress has to be renewed.
    #[must_use]
    pub fn renew_every(&self, within: Duration) -> Duration {
        let lease = self.records().map_or(within, |shared| shared.client().settings().lease);
        (lease / 2).min(within / 3).max(Duration::from_millis(10))
    }

    /// The mutation was committed, or may have been: purges its tags before this returns.
    pub async fn committed(&self, pending: PendingMutation) {
        let how = self.purge_under(pending.mark(), &pending.tags, PurgeKind::Hard).await;
        self.withdraw(&pending);
        let guarded_until = pending.marked.map(|(_, until)| until);
        if how == Released::PublishFailed
            && self.refuses_writes()
            && (!pending.guarded
                || guarded_until.is_some_and(|until| self.lease_state.now() >= until))
        {
            // No mark keeps hits away, or it has expired, and no peer knows of the purge.
            self.wait_until_joined().await;
        }
    }

    /// The origin refused the mutation: nothing is purged.
    pub async fn refused(&self, pending: PendingMutation) {
        self.withdraw(&pending);
        if let (Some(shared), Some(mark)) = (&self.records, pending.mark())
            && self.phase() != Phase::Lost
        {
            for batch in pending.tags.chunks(MAX_BATCH_TAGS) {
                // Fail open: the mark ends at its deadline.
                let until = self.clock.now() + shared.client().settings().deadline;
                let _ = self.record_result(self.by(until, shared.unmark(mark, batch)).await);
            }
        }
    }

    fn withdraw(&self, pending: &PendingMutation) {
        if pending.journaled {
            self.journal.withdraw(pending.id);
        }
    }

    /// Purges tags: entries that carry one of them are invalid.
    pub async fn purge(&self, tags: &[Tag]) -> Released {
        self.purge_with(tags, PurgeKind::Hard).await
    }

    /// Purges tags: entries that carry one of them are invalid, or stale after a soft purge.
    ///
    /// While Redis is lost, a soft purge is soft here, and hard in the journal, for the others.
    pub async fn purge_with(&self, tags: &[Tag], kind: PurgeKind) -> Released {
        self.purge_under(None, tags, kind).await
    }

    /// Purges everything. While Redis is lost, as [`Coherence::purge_with`].
    pub async fn purge_everything(&self, kind: PurgeKind) -> Released {
        self.purge_table(None, kind);
        let how = match &self.records {
            Some(shared) => self.purge_batch(shared, None, None, kind).await,
            None => Released::Acknowledged,
        };
        self.purge_observer.told(None);
        how
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
            how = how.max(self.purge_for_other_protocols(shared, kind).await);
        }
        self.purge_observer.told(Some(tags));
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

    /// Purges tags, or everything, in all sidecars.
    pub(super) async fn purge_batch(
        &self,
        shared: &RecordStore,
        mark: Option<(OperationId, PeerId)>,
        tags: Option<&[Tag]>,
        kind: PurgeKind,
    ) -> Released {
        let until = self.clock.now() + shared.client().settings().write_wait;
        self.wait_until_known(until).await;
        while self.phase() != Phase::Lost {
            let send = async |message: Message| match tags {
                Some(tags) => shared.purge(mark, tags, kind, &message).await,
                None => shared.purge_everything(kind, &message).await,
            };
            match self.by(until, self.publish_with(tags, send)).await {
                Ok(wait) => {
                    // Once more: an entry that Redis validated before it had the purge may have
                    // come in between.
                    self.purge_table(tags, kind);
                    return wait.released().await;
                }
                Err(error) => {
                    tracing::debug!(
                        %error,
                        tags = tags.map(<[Tag]>::len),
                        "a purge did not reach Redis"
                    );
                    self.mark_lost("a purge did not reach it in time");
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
        let wait = self.register_wait();
        self.handle(CoreEvent::PublishFailed(wait.id, batch));
        wait.released().await
    }

    /// Calls this with the tags of each purge of this sidecar once it is done; `None`: everything.
    pub fn set_purge_observer(&self, told: impl Fn(Option<&[Tag]>) + Send + Sync + 'static) {
        self.purge_observer.set(Box::new(told));
    }

    /// A wait for everything that peers may serve from before an operation.
    fn register_wait(&self) -> ReleaseWait<'_> {
        self.register(Core::expect)
    }

    /// A wait for what peers may serve under their leases.
    fn register_lease_wait(&self) -> ReleaseWait<'_> {
        self.register(Core::expect_leases)
    }

    fn register(&self, expect: fn(&mut Core, OperationId)) -> ReleaseWait<'_> {
        let id = OperationId(rand::random());
        let (sender, release) = oneshot::channel();
        let mut guarded = self.core();
        expect(&mut guarded.core, id);
        guarded.waiters.insert(id, Waiter::new(sender));
        drop(guarded);
        ReleaseWait { coherence: self, id, release }
    }

    /// Publishes an invalidation of tags, in one step with what `send` does in Redis.
    pub(super) async fn publish_with(
        &self,
        tags: Option<&[Tag]>,
        send: impl AsyncFnOnce(Message) -> Result<Subscribers, CallError>,
    ) -> Result<ReleaseWait<'_>, CallError> {
        self.publish_on(self.register_wait(), tags, send).await
    }

    async fn publish_on<'a>(
        &'a self,
        wait: ReleaseWait<'a>,
        tags: Option<&[Tag]>,
        send: impl AsyncFnOnce(Message) -> Result<Subscribers, CallError>,
    ) -> Result<ReleaseWait<'a>, CallError> {
        let by = self.core().core.me().process;
        let message = Message::invalidate(by, wait.id, tags.map(<[Tag]>::to_vec));
        self.core().keep_message(wait.id, &message);
        let subscribers = self.record_result(send(message).await)?;
        self.handle(CoreEvent::Published(wait.id, subscribers));
        Ok(wait)
    }
}
