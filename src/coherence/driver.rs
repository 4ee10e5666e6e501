//! The driver: the task that connects to Redis, subscribes to the bus, and carries out the core's
//! commands.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{RUNNING_STEP, wait_while_running};
use crate::coherence::core::{CoreCommand, CoreEvent, MonotonicTime, PeerEnd, Phase, ReplayBatch};
use crate::coherence::message::{Message, OperationId, PeerId, Process};
use crate::coherence::redis_records::{RecordStore, ServerRole};
use crate::coherence::{Coherence, CoherenceMode};
use crate::policy::tag::Tag;
use crate::redis::subscriber::{BusEvent, Subscriber};
use crate::redis::{CallError, ReplyWait};

/// The delay between two attempts to connect: it starts here and doubles up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(25);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(250);

/// How often it is found out why there is no connection.
const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(2);

/// How long to sleep when nothing is due.
const IDLE_SLEEP: Duration = Duration::from_secs(1);

/// The shortest sleep.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// How long announcing the shutdown to peers may take.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(100);

impl Coherence {
    /// Runs coherence with Redis and the peers until `stop`. Does nothing without Redis.
    pub async fn drive(self: Arc<Self>, stop: CancellationToken) {
        let queue = self.queue.lock().take();
        let (Some(shared), Some(queue)) = (&self.records, queue) else { return };
        let subscriber = self.subscribe(shared);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.run_commands(queue) => {}
            () = self.connect(shared) => {}
        }
        drop(subscriber);
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.announce_leave(shared)).await;
    }

    fn subscribe(self: &Arc<Self>, shared: &RecordStore) -> Subscriber {
        let coherence: Weak<Self> = Arc::downgrade(self);
        let inbox = shared.inbox(self.core().core.me().process);
        let channels = vec![shared.bus().to_owned(), inbox];
        shared.client().subscribe(channels, move |event| {
            let Some(coherence) = coherence.upgrade() else { return };
            match event {
                BusEvent::Listening => {
                    coherence.switch_news.notify_one();
                    coherence.handle(CoreEvent::Listening);
                }
                BusEvent::Lagged => {
                    coherence.switch_news.notify_one();
                    coherence.handle(CoreEvent::Lagged);
                }
                BusEvent::Message(bytes) => {
                    let Some(message) = Message::parse(&bytes) else { return };
                    if message == Message::SwitchesChanged {
                        coherence.switch_news.notify_one();
                    } else {
                        if let Some(records) = coherence.records() {
                            records.note_message(&message, &bytes);
                        }
                        coherence.handle(CoreEvent::Message(message));
                    }
                }
            }
        })
    }

    /// Tells the peers not to wait for this sidecar.
    async fn announce_leave(&self, shared: &RecordStore) {
        let peer = self.core().core.me();
        self.handle(CoreEvent::Lagged);
        let leave = Message::Leave { of: peer.process, gone: true };
        let _ = shared.forget(peer, Some(&leave)).await;
    }

    /// Carries out the core's commands, and sends it ticks.
    async fn run_commands(self: &Arc<Self>, mut queue: mpsc::UnboundedReceiver<CoreCommand>) {
        let mut tasks = JoinSet::new();
        loop {
            let next = self.core().core.next_deadline();
            let wait = next.map_or(IDLE_SLEEP, |next| {
                next.saturating_sub(self.lease_state.now()).clamp(MIN_SLEEP, IDLE_SLEEP)
            });
            let planned = self.lease_state.now() + wait;
            tokio::select! {
                biased;
                Some(command) = queue.recv() => {
                    tasks.spawn(Arc::clone(self).run_command(command));
                    continue;
                }
                Some(_) = tasks.join_next() => continue,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => self.record_stall(planned),
            }
            if next.is_some_and(|next| next <= self.lease_state.now()) {
                self.handle(CoreEvent::Tick);
            }
        }
    }

    /// Counts a timer that fired late: this process was stopped, or got no processor.
    fn record_stall(&self, planned: MonotonicTime) {
        let late = self.lease_state.now().saturating_sub(planned);
        if late > RUNNING_STEP {
            self.counters.stalls.inc();
            self.counters.stalled_us.add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            tracing::debug!(?late, "this process was stopped or got no processor");
        }
    }

    async fn run_command(self: Arc<Self>, command: CoreCommand) {
        let Some(shared) = &self.records else { return };
        match command {
            CoreCommand::Heartbeat { number, peer, register } => {
                self.send_heartbeat(shared, number, peer, register).await;
            }
            CoreCommand::Ack { to, id, inbox } => self.acknowledge(shared, to, id, inbox).await,
            CoreCommand::RequestAck(id) => {
                let message = self.core().waiters.get(&id).map(|waiter| waiter.message.clone());
                if let Some(message) = message.flatten() {
                    // Fail open: the operation is then released when the peers' leases expire.
                    let _ = self.record_result(shared.publish(&message).await);
                }
            }
            CoreCommand::Evict(peer, PeerEnd::Left) => {
                tracing::debug!(%peer, "a peer has ended");
                // Fail open: as below.
                let _ = self.evict_peer(shared, peer).await;
            }
            CoreCommand::Evict(peer, PeerEnd::Silent) => {
                tracing::warn!(
                    %peer,
                    "a peer is silent for longer than its lease; its pending mutations count as \
                    committed"
                );
                self.counters.peers_evicted.inc();
                // Fail open: other peers that notice do the same, and the id stays registered until
                // one of them succeeds.
                let _ = self.evict_peer(shared, peer).await;
            }
            CoreCommand::Forget(peer) => {
                if self.evict_peer(shared, peer).await.is_ok() {
                    let _ = self.record_result(shared.forget(peer, None).await);
                }
            }
            CoreCommand::Withdraw(peer) => {
                // Fail open: peers then wait until the lease of this id expires.
                let leave = Message::Leave { of: peer.process, gone: false };
                let _ = self.record_result(shared.forget(peer, Some(&leave)).await);
            }
            CoreCommand::Replay(batch) => self.replay(shared, batch).await,
            // These concern this process alone and were carried out at once.
            CoreCommand::Invalidate(_) | CoreCommand::Release(..) => {}
        }
    }

    async fn send_heartbeat(
        &self,
        shared: &RecordStore,
        number: u64,
        peer: PeerId,
        register: bool,
    ) {
        self.counters.heartbeats.inc();
        let sent = self.lease_state.now();
        let reply = self.record_result(shared.heartbeat(peer, number, register).await);
        if reply.is_ok() {
            let took = self.lease_state.now().saturating_sub(sent);
            self.round_trips.note(took, shared.client().settings().deadline);
        }
        if let Err(error @ CallError::Reply(_)) = &reply {
            self.mark_lost("it replied with an error");
            self.tell_fault(error);
        }
        let reply = reply.ok().map(|(reply, longest)| {
            if self.core().core.raise_longest_lease(longest) {
                tracing::warn!(
                    ?longest,
                    "a peer has a longer lease; purges wait that long if it does not acknowledge"
                );
            }
            reply
        });
        self.handle(CoreEvent::HeartbeatReply(number, reply));
    }

    /// Tells a sidecar alone that its operation was done here: told to all, the acknowledgements of
    /// one purge would grow with the square of how many sidecars there are.
    async fn acknowledge(&self, shared: &RecordStore, to: Process, id: OperationId, inbox: bool) {
        let acknowledgement = Message::Ack { to, id, of: self.core().core.me().process };
        let told = if inbox {
            shared.tell(to, &acknowledgement).await
        } else {
            shared.publish(&acknowledgement).await
        };
        // Fail open: the peer then waits until our lease expires.
        let _ = self.record_result(told);
    }

    /// Evicts a peer, and purges the tags of its pending mutations.
    async fn evict_peer(&self, shared: &RecordStore, peer: PeerId) -> Result<(), CallError> {
        for (id, tags, guarded) in self.record_result(shared.evict(peer).await)? {
            self.counters.orphans.inc();
            // A guarded mutation keeps hits away until its deadline: its sidecar may be alive and
            // may yet deliver the response.
            self.purge_on_behalf(shared, (!guarded).then_some((id, peer)), &tags).await?;
        }
        Ok(())
    }

    /// Purges what the journal holds.
    async fn replay(&self, shared: &RecordStore, batch: ReplayBatch) {
        // The file may already hold purges that the core gets later; those are then replayed twice.
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

    /// Connects whenever Redis is lost, and notices the loss.
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
            match self.phase() {
                Phase::Lost => return,
                Phase::Joined => self.unmark_abandoned(shared).await,
                Phase::Joining(_) => {}
            }
            tokio::select! {
                () = changed => {}
                why = shared.client().broken() => self.mark_lost(why),
            }
        }
    }

    /// Returns when a primary was found. A sidecar that starts serves nothing by itself before it
    /// is known that Redis cannot be reached: when an attempt has failed, and `loss_after` is over;
    /// or when none has come to an end for as long as a connection may take.
    async fn reconnect(&self, shared: &RecordStore, first: bool) {
        let (settings, failed) = (shared.client().settings(), AtomicBool::new(false));
        let mut finding = std::pin::pin!(self.find_primary(shared, first, &failed));
        let mut waited = Duration::ZERO;
        while waited < settings.connect_time() && !failed.load(SeqCst) {
            if wait_while_running(settings.loss_after, &mut finding).await.is_some() {
                return;
            }
            waited += settings.loss_after;
        }
        self.mark_unreachable(first);
        finding.await;
    }

    fn mark_unreachable(&self, first: bool) {
        if self.mode() != CoherenceMode::Rejoining {
            return;
        }
        if first && !self.faults.tell() {
            tracing::warn!("Redis is unreachable; serving without it until it responds");
        }
        self.mark_lost("it cannot be reached");
    }

    async fn find_primary(&self, shared: &RecordStore, first: bool, failed: &AtomicBool) {
        let mut wait = MIN_RETRY_DELAY;
        let loss_after = shared.client().settings().loss_after;
        let (began, mut diagnosed) = (self.lease_state.now(), None::<MonotonicTime>);
        loop {
            // fred does not reconnect here; every retry rebuilds the client and looks the primary
            // up again.
            shared.client().renew();
            match self.try_connect(shared).await {
                Ok(server) => {
                    let new = self.core().core.fence().is_some_and(|fence| *fence != *server.fence);
                    if new {
                        self.counters.fences.inc();
                    }
                    tracing::debug!(fence = server.fence, new, "a primary replied");
                    return self.handle(CoreEvent::PrimaryFound {
                        fence: server.fence.into(),
                        again: !first,
                        promoted: server.promoted,
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "Redis cannot be reached");
                    failed.store(true, SeqCst);
                    let now = self.lease_state.now();
                    let is_due = |last| now.saturating_sub(last) >= DIAGNOSIS_INTERVAL;
                    if diagnosed.is_none_or(is_due) {
                        diagnosed = Some(now);
                        self.faults.note(shared.client().diagnose(&error).await);
                    }
                    // A connection that is back at once is no news.
                    if self.lease_state.now().saturating_sub(began) >= loss_after {
                        self.faults.tell();
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }

    async fn try_connect(&self, shared: &RecordStore) -> Result<ServerRole, CallError> {
        // A break before this point is over. A break after it ends the trust that begins here.
        let _ = shared.client().broken().now_or_never();
        shared.client().connected().await?;
        let server = shared.role().await?;
        if server.role != "master" {
            return Err(CallError::Reply(format!(
                "it is a {}, and records are never read from a replica",
                server.role
            )));
        }
        shared.trust(&server.fence);
        shared.init(ReplyWait::Patient).await?;
        Ok(server)
    }

    /// Returns when hits from memory can skip Redis. At once without Redis.
    pub async fn wait_for_lease(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() == CoherenceMode::Local || self.has_lease() {
                return;
            }
            notified.await;
        }
    }

    /// Returns when Redis is the truth, for the first time or again. At once without Redis.
    pub async fn wait_until_joined(&self) {
        loop {
            let notified = self.joined.notified();
            if matches!(self.mode(), CoherenceMode::Local | CoherenceMode::Shared) {
                return;
            }
            notified.await;
        }
    }
}
