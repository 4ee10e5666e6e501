//! The keeper: the task that connects to Redis, listens to the bus, and carries out what the core commands.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coherence::core::{Batch, Command, Event, Phase};
use crate::coherence::message::{Id, Message, Node, Process};
use crate::coherence::redis_records::{Look, Shared};
use crate::coherence::{Coherence, Mode};
use crate::policy::tag::Tag;
use crate::redis::CallError;
use crate::redis::subscriber::{Ear, Heard};

/// How long to wait between two tries to connect: from this, doubling, up to [`SLOWEST_TRY`].
const FASTEST_TRY: Duration = Duration::from_millis(25);
const SLOWEST_TRY: Duration = Duration::from_millis(250);

/// How long to sleep where nothing is to be done.
const IDLE: Duration = Duration::from_secs(1);

/// How long to sleep at the least.
const SOON: Duration = Duration::from_millis(1);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);

impl Coherence {
    /// Keeps up with Redis and the other sidecars until `stop`. Does nothing without Redis.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(shared), Some(queue)) = (&self.shared, queue) else { return };
        let ear = self.listen(shared);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.carry_out(queue) => {}
            () = self.connect(shared) => {}
        }
        drop(ear);
        let _ = tokio::time::timeout(FAREWELL, self.take_leave(shared)).await;
    }

    fn listen(self: &Arc<Self>, shared: &Shared) -> Ear {
        let coherence: Weak<Self> = Arc::downgrade(self);
        shared.link().listen(shared.bus().to_owned(), move |heard| {
            let Some(coherence) = coherence.upgrade() else { return };
            match heard {
                Heard::Listening => coherence.handle(Event::Listening),
                Heard::Gap => coherence.handle(Event::Gap),
                Heard::Message(bytes) => {
                    if let Some(message) = Message::parse(&bytes) {
                        coherence.handle(Event::Heard(message));
                    }
                }
            }
        })
    }

    /// The others need not wait for who goes.
    async fn take_leave(&self, shared: &Shared) {
        let node = self.core().core.me();
        self.handle(Event::Gap);
        let _ = shared.forget(node, Some(&Message::Quit { of: node.process })).await;
    }

    /// Carries out what the core commands, and tells it the time.
    async fn carry_out(self: &Arc<Self>, mut queue: mpsc::UnboundedReceiver<Command>) {
        let mut tasks = JoinSet::new();
        loop {
            let next = self.core().core.next();
            let wait = next.map_or(IDLE, |next| next.saturating_sub(self.gate.now()).clamp(SOON, IDLE));
            tokio::select! {
                biased;
                Some(command) = queue.recv() => {
                    tasks.spawn(Arc::clone(self).run(command));
                    continue;
                }
                Some(_) = tasks.join_next() => continue,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if next.is_some_and(|next| next <= self.gate.now()) {
                self.handle(Event::Tick);
            }
        }
    }

    async fn run(self: Arc<Self>, command: Command) {
        let Some(shared) = &self.shared else { return };
        match command {
            Command::Beat { number, node, register } => self.beat(shared, number, node, register).await,
            Command::Ack(to, id) => self.acknowledge(shared, to, id).await,
            Command::Ask(id) => {
                let by = self.core().core.me().process;
                // Fail open: who waits for it waits until the others' leases are over.
                let _ = self.watch(shared.say(&Message::Distrust { by, id, tags: Some(Vec::new()) }).await);
            }
            Command::StrikeOut(node) => {
                tracing::warn!(%node, "another sidecar is silent for longer than its lease; its mutations under way count as committed");
                self.counters.peers_evicted.inc();
                // Fail open: whoever else has noticed does it, too, and its name stays until it is done.
                let _ = self.take_over(shared, node).await;
            }
            Command::Forget(node) => {
                if self.take_over(shared, node).await.is_ok() {
                    let _ = self.watch(shared.forget(node, None).await);
                }
            }
            Command::Withdraw(node) => {
                // Fail open: who waits for it waits until its lease is over.
                let _ = self.watch(shared.forget(node, Some(&Message::Quit { of: node.process })).await);
            }
            Command::Replay(batch) => self.replay(shared, batch).await,
            // These concern this process alone, and were carried out at once.
            Command::Distrust(_) | Command::Release(..) => {}
        }
    }

    async fn beat(&self, shared: &Shared, number: u64, node: Node, register: bool) {
        self.counters.beats.inc();
        let answer = self.watch(shared.beat(node, number, register).await);
        if let Err(CallError::Answer(error)) = &answer {
            tracing::debug!(error, "Redis refuses a heartbeat");
            self.lose("it answers with errors");
        }
        let answer = answer.ok().map(|(beaten, longest)| {
            if self.core().core.waits_for(longest) {
                tracing::warn!(?longest, "another sidecar has a longer lease; purges wait that long where it does not acknowledge");
            }
            beaten
        });
        self.handle(Event::Beaten(number, answer));
    }

    async fn acknowledge(&self, shared: &Shared, to: Process, id: Id) {
        let of = self.core().core.me().process;
        // Fail open: who waits for it waits until our lease is over.
        let _ = self.watch(shared.say(&Message::Ack { to, id, of }).await);
    }

    /// Strikes a name out, and purges what was under way under it.
    async fn take_over(&self, shared: &Shared, node: Node) -> Result<(), CallError> {
        for (id, tags, guarded) in self.watch(shared.strike(node).await)? {
            self.counters.orphans.inc();
            // What keeps hits away does so until its deadline: its sidecar may live, and answer its client.
            self.purge_for(shared, (!guarded).then_some((id, node)), &tags).await?;
        }
        Ok(())
    }

    /// Purges what the journal held.
    async fn replay(&self, shared: &Shared, batch: Batch) {
        // It may hold more, whose turn in the core comes later: then that is replayed twice.
        let written = self.kept.batch();
        let tags: Vec<Tag> = batch.tags.iter().chain(&written.tags).cloned().collect::<BTreeSet<Tag>>().into_iter().collect();
        let replayed = async {
            if batch.everything || written.everything {
                self.purge_everything_for(shared).await?;
            }
            self.purge_for(shared, None, &tags).await
        };
        let done = replayed.await;
        match &done {
            Ok(()) => {
                self.counters.replayed.add(tags.len() as u64);
                self.kept.replayed(&written).await;
            }
            Err(error) => tracing::debug!(%error, "the journal could not be replayed"),
        }
        self.handle(Event::Replayed(batch, done.is_ok()));
    }

    /// Connects whenever Redis is lost, and notices when it is.
    async fn connect(&self, shared: &Shared) {
        let mut first = true;
        loop {
            self.reconnect(shared, first).await;
            first = false;
            self.watch_over(shared).await;
        }
    }

    /// Returns when Redis is lost.
    async fn watch_over(&self, shared: &Shared) {
        loop {
            let changed = self.joined.notified();
            if self.core().core.phase() == Phase::Lost {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = shared.link().broken() => self.lose("the connection broke"),
            }
        }
    }

    /// Returns when a primary was found.
    async fn reconnect(&self, shared: &Shared, first: bool) {
        let mut wait = FASTEST_TRY;
        loop {
            // What is lost is never mended by itself: each try may need another client, or another primary.
            shared.link().renew();
            match self.try_connect(shared).await {
                Ok(look) => {
                    let new = self.core().core.fence().is_some_and(|fence| *fence != *look.fence);
                    if new {
                        self.counters.fences.inc();
                    }
                    tracing::debug!(fence = look.fence, new, "a primary answers");
                    return self.handle(Event::Found { fence: look.fence.into(), again: !first, promoted: look.promoted });
                }
                Err(error) => tracing::debug!(%error, "Redis is not there"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(SLOWEST_TRY);
        }
    }

    async fn try_connect(&self, shared: &Shared) -> Result<Look, CallError> {
        // What broke before this look is over; what breaks from here on ends the trust that it begins.
        let _ = shared.link().broken().now_or_never();
        let look = shared.look().await?;
        if look.role != "master" {
            return Err(CallError::Answer(format!("it is a {}, and records are never read from a replica", look.role)));
        }
        shared.trust(&look.fence);
        shared.begin().await?;
        Ok(look)
    }

    /// Ends when hits from memory need no look at Redis. At once without Redis.
    pub async fn leased(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() == Mode::Local || self.has_lease() {
                return;
            }
            notified.await;
        }
    }

    /// Ends when Redis is the truth for the first time, or again. At once without Redis.
    pub async fn joined(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() != Mode::Degraded {
                return;
            }
            notified.await;
        }
    }
}
