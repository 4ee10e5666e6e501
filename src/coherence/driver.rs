//! The keeper: the task that connects to Redis, listens to the bus, and carries out what the core
//! commands.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coherence::core::{CoreCommand, CoreEvent, Phase, ReplayBatch};
use crate::coherence::message::{Message, OperationId, PeerId, Process};
use crate::coherence::redis_records::{RecordStore, ServerRole};
use crate::coherence::{Coherence, CoherenceMode};
use crate::policy::tag::Tag;
use crate::redis::CallError;
use crate::redis::subscriber::{BusEvent, Subscriber};

/// How long to wait between two tries to connect: from this, doubling, up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(25);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(250);

/// How long to sleep where nothing is to be done.
const IDLE_SLEEP: Duration = Duration::from_secs(1);

/// How long to sleep at the least.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// How long a farewell may take.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(100);

impl Coherence {
    /// Keeps up with Redis and the other sidecars until `stop`. Does nothing without Redis.
    pub async fn drive(self: Arc<Self>, stop: CancellationToken) {
        let queue = self.queue.lock().take();
        let (Some(shared), Some(queue)) = (&self.records, queue) else { return };
        let ear = self.subscribe(shared);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.run_commands(queue) => {}
            () = self.connect(shared) => {}
        }
        drop(ear);
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.announce_leave(shared)).await;
    }

    fn subscribe(self: &Arc<Self>, shared: &RecordStore) -> Subscriber {
        let coherence: Weak<Self> = Arc::downgrade(self);
        shared.client().subscribe(shared.bus().to_owned(), move |heard| {
            let Some(coherence) = coherence.upgrade() else { return };
            match heard {
                BusEvent::Listening => coherence.handle(CoreEvent::Listening),
                BusEvent::Lagged => coherence.handle(CoreEvent::Lagged),
                BusEvent::Message(bytes) => {
                    if let Some(message) = Message::parse(&bytes) {
                        coherence.handle(CoreEvent::Message(message));
                    }
                }
            }
        })
    }

    /// The others need not wait for who goes.
    async fn announce_leave(&self, shared: &RecordStore) {
        let node = self.core.lock().core.me();
        self.handle(CoreEvent::Lagged);
        let _ = shared.forget(node, Some(&Message::Leave { of: node.process })).await;
    }

    /// Carries out what the core commands, and tells it the time.
    async fn run_commands(self: &Arc<Self>, mut queue: mpsc::UnboundedReceiver<CoreCommand>) {
        let mut tasks = JoinSet::new();
        loop {
            let next = self.core.lock().core.next_deadline();
            let wait = next.map_or(IDLE_SLEEP, |next| {
                next.saturating_sub(self.lease_state.now()).clamp(MIN_SLEEP, IDLE_SLEEP)
            });
            tokio::select! {
                biased;
                Some(command) = queue.recv() => {
                    tasks.spawn(Arc::clone(self).run_command(command));
                    continue;
                }
                Some(_) = tasks.join_next() => continue,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if next.is_some_and(|next| next <= self.lease_state.now()) {
                self.handle(CoreEvent::Tick);
            }
        }
    }

    async fn run_command(self: Arc<Self>, command: CoreCommand) {
        let Some(shared) = &self.records else { return };
        match command {
            CoreCommand::Heartbeat { number, node, register } => {
                self.send_heartbeat(shared, number, node, register).await
            }
            CoreCommand::Ack(to, id) => self.acknowledge(shared, to, id).await,
            CoreCommand::RequestAck(id) => {
                let by = self.core.lock().core.me().process;
                // Fail open: who waits for it waits until the others' leases are over.
                let _ = self.record_result(
                    shared.publish(&Message::Invalidate { by, id, tags: Some(Vec::new()) }).await,
                );
            }
            CoreCommand::Evict(node) => {
                tracing::warn!(%node, "another sidecar is silent for longer than its lease; its mutations under way count as committed");
                self.counters.peers_evicted.inc();
                // Fail open: whoever else has noticed does it, too, and its name stays until it is
                // done.
                let _ = self.evict_peer(shared, node).await;
            }
            CoreCommand::Forget(node) => {
                if self.evict_peer(shared, node).await.is_ok() {
                    let _ = self.record_result(shared.forget(node, None).await);
                }
            }
            CoreCommand::Withdraw(node) => {
                // Fail open: who waits for it waits until its lease is over.
                let _ = self.record_result(
                    shared.forget(node, Some(&Message::Leave { of: node.process })).await,
                );
            }
            CoreCommand::Replay(batch) => self.replay(shared, batch).await,
            // These concern this process alone, and were carried out at once.
            CoreCommand::Invalidate(_) | CoreCommand::Release(..) => {}
        }
    }

    async fn send_heartbeat(
        &self,
        shared: &RecordStore,
        number: u64,
        node: PeerId,
        register: bool,
    ) {
        self.counters.heartbeats.inc();
        let answer = self.record_result(shared.heartbeat(node, number, register).await);
        if let Err(CallError::Reply(error)) = &answer {
            tracing::debug!(error, "Redis refuses a heartbeat");
            self.mark_lost("it answers with errors");
        }
        let answer = answer.ok().map(|(beaten, longest)| {
            if self.core.lock().core.raise_longest_lease(longest) {
                tracing::warn!(?longest, "another sidecar has a longer lease; purges wait that long where it does not acknowledge");
            }
            beaten
        });
        self.handle(CoreEvent::HeartbeatReply(number, answer));
    }

    async fn acknowledge(&self, shared: &RecordStore, to: Process, id: OperationId) {
        let of = self.core.lock().core.me().process;
        // Fail open: who waits for it waits until our lease is over.
        let _ = self.record_result(shared.publish(&Message::Ack { to, id, of }).await);
    }

    /// Strikes a name out, and purges what was under way under it.
    async fn evict_peer(&self, shared: &RecordStore, node: PeerId) -> Result<(), CallError> {
        for (id, tags, guarded) in self.record_result(shared.evict(node).await)? {
            self.counters.orphans.inc();
            // What keeps hits away does so until its deadline: its sidecar may live, and answer its
            // client.
            self.purge_on_behalf(shared, (!guarded).then_some((id, node)), &tags).await?;
        }
        Ok(())
    }

    /// Purges what the journal held.
    async fn replay(&self, shared: &RecordStore, batch: ReplayBatch) {
        // It may hold more, whose turn in the core comes later: then that is replayed twice.
        let written = self.journal.batch();
        let tags: Vec<Tag> = batch
            .tags
            .iter()
            .chain(&written.tags)
            .cloned()
            .collect::<BTreeSet<Tag>>()
            .into_iter()
            .collect();
        let replayed = async {
            if batch.everything || written.everything {
                self.purge_everything_on_behalf(shared).await?;
            }
            self.purge_on_behalf(shared, None, &tags).await
        };
        let done = replayed.await;
        match &done {
            Ok(()) => {
                self.counters.replayed.add(tags.len() as u64);
                self.journal.replayed(&written).await;
            }
            Err(error) => tracing::debug!(%error, "the journal could not be replayed"),
        }
        self.handle(CoreEvent::Replayed(batch, done.is_ok()));
    }

    /// Connects whenever Redis is lost, and notices when it is.
    async fn connect(&self, shared: &RecordStore) {
        let mut first = true;
        loop {
            self.reconnect(shared, first).await;
            first = false;
            self.watch_connection(shared).await;
        }
    }

    /// Returns when Redis is lost.
    async fn watch_connection(&self, shared: &RecordStore) {
        loop {
            let changed = self.joined.notified();
            if self.core.lock().core.phase() == Phase::Lost {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = shared.client().broken() => self.mark_lost("the connection broke"),
            }
        }
    }

    /// Returns when a primary was found.
    async fn reconnect(&self, shared: &RecordStore, first: bool) {
        let mut wait = MIN_RETRY_DELAY;
        loop {
            // What is lost is never mended by itself: each try may need another client, or another
            // primary.
            shared.client().renew();
            match self.try_connect(shared).await {
                Ok(look) => {
                    let new =
                        self.core.lock().core.fence().is_some_and(|fence| *fence != *look.fence);
                    if new {
                        self.counters.fences.inc();
                    }
                    tracing::debug!(fence = look.fence, new, "a primary answers");
                    return self.handle(CoreEvent::PrimaryFound {
                        fence: look.fence.into(),
                        again: !first,
                        promoted: look.promoted,
                    });
                }
                Err(error) => tracing::debug!(%error, "Redis is not there"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }

    async fn try_connect(&self, shared: &RecordStore) -> Result<ServerRole, CallError> {
        // What broke before this look is over; what breaks from here on ends the trust that it
        // begins.
        let _ = shared.client().broken().now_or_never();
        let look = shared.role().await?;
        if look.role != "master" {
            return Err(CallError::Reply(format!(
                "it is a {}, and records are never read from a replica",
                look.role
            )));
        }
        shared.trust(&look.fence);
        shared.init().await?;
        Ok(look)
    }

    /// Ends when hits from memory need no look at Redis. At once without Redis.
    pub async fn wait_for_lease(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() == CoherenceMode::Local || self.has_lease() {
                return;
            }
            notified.await;
        }
    }

    /// Ends when Redis is the truth for the first time, or again. At once without Redis.
    pub async fn wait_until_joined(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() != CoherenceMode::Degraded {
                return;
            }
            notified.await;
        }
    }
}
