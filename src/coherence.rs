//! Coherence: what proves an entry current, and what makes it no longer so. On one sidecar, or on
//! several that share a Redis.
//!
//! The protocol between sidecars is the [`core`]'s; the `keeper` carries its commands out, and
//! `mutation` purges by it. Here is what fills and hits ask.
//!
//! Invariants:
//! 1. *A purge kills every fill it overlaps.* A fill reads the state of its tags before the app is
//!    asked ([`Coherence::read_local`], `Store::consult`); [`Coherence::commit`] refuses what was
//!    read before a purge of any of its tags, those named by the response included.
//! 2. *A proof is bound to the way it was made.* A local proof ends when Redis comes back, and one
//!    from Redis ends when it is lost: by the epoch, which moves at every such change.
//! 3. *A purge is never forgotten.* Either Redis has it when [`Coherence::committed`] returns, or
//!    the journal has it and nothing that Redis vouches for is served by this sidecar until it was
//!    replayed.
//! 4. *The table is trusted for what it was told.* An entry is served without a look at Redis only
//!    if the state of its tags in the local table is what it was before Redis vouched for it, while
//!    a lease was held then, is held now, and none was lost in between ([`Coherence::holds`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, Wall};
use crate::coherence::core::{CoherenceStatus, Core, CoreCommand, CoreEvent, LeaseSettings, Phase};
use crate::coherence::durable_journal::DurableJournal;
use crate::coherence::journal::MAX_TAGS;
use crate::coherence::lease::AtomicLeaseState;
use crate::coherence::message::Process;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::tag_record::RecordSnapshot;
use crate::coherence::tag_table::{PurgedSince, TagTable};
use crate::error::SetupError;
use crate::outcome::Reason;
use crate::policy::tag::Tag;
use crate::redis::{CallError, OnLoss};
use crate::telemetry::metrics::Counter;

pub use crate::coherence::mutation::{PendingMutation, WriteRefused};
pub use crate::coherence::purge_kind::PurgeKind;
pub use crate::coherence::tag_snapshot::{LocalTagSnapshot, TagSnapshot};
pub use crate::coherence::validation::{LocalProof, Proof, SharedProof, TagWatch};

pub mod core;
mod driver;
mod durable_journal;
pub mod journal;
mod lease;
pub mod local_snapshot;
pub mod message;
mod mutation;
pub mod purge_kind;
pub mod redis_records;
pub mod tag_record;
mod tag_snapshot;
pub mod tag_table;
mod validation;

/// After so many missed deadlines in a row Redis counts as lost; a broken connection counts at
/// once.
const MAX_MISSED_DEADLINES: u32 = 3;

/// What coherence rests on at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoherenceMode {
    /// No Redis is configured: the local table is the truth.
    Local,
    /// The records in Redis are the truth.
    Shared,
    /// Redis is lost: the local table holds for what this sidecar fills itself, for a short time.
    Degraded,
}

/// Counts of what coherence does.
#[derive(Clone, Debug, Default)]
pub struct CoherenceCounters {
    /// Tags purged.
    pub purged_tags: Arc<Counter>,
    /// Times Redis was lost.
    pub losses: Arc<Counter>,
    /// Times it was rejoined.
    pub rejoins: Arc<Counter>,
    /// Times it was rejoined under another primary than before.
    pub fences: Arc<Counter>,
    /// Heartbeats sent.
    pub heartbeats: Arc<Counter>,
    /// Leases that ended before they were renewed.
    pub leases_lost: Arc<Counter>,
    /// Purges that all other sidecars acknowledged.
    pub acknowledged: Arc<Counter>,
    /// Purges that waited for the end of a lease.
    pub purges_released_by_lease_expiry: Arc<Counter>,
    /// Microseconds that purges waited for other sidecars.
    pub waited_us: Arc<Counter>,
    /// Purges that went into the journal.
    pub journal_writes: Arc<Counter>,
    /// Tags replayed from the journal.
    pub replayed: Arc<Counter>,
    /// Fills that a purge killed.
    pub fills_purged: Arc<Counter>,
    /// Mutations taken as committed because their sidecar died.
    pub orphans: Arc<Counter>,
    /// Sidecars that were taken for dead.
    pub peers_evicted: Arc<Counter>,
    /// Requests that found no recent proof of contact with Redis.
    pub heartbeat_timeouts: Arc<Counter>,
}

/// Coherence of one sidecar.
#[derive(Debug)]
pub struct Coherence {
    table: TagTable,
    records: Option<RecordStore>,
    lease_state: AtomicLeaseState,
    core: Mutex<mutation::CoreWithWaiters>,
    journal: DurableJournal,
    missed_deadlines: AtomicU32,
    commands: mpsc::UnboundedSender<CoreCommand>,
    /// For the keeper, which takes it.
    queue: Mutex<Option<mpsc::UnboundedReceiver<CoreCommand>>>,
    /// Why Redis was lost last.
    loss_reason: Mutex<&'static str>,
    /// Something has changed that the keeper minds.
    wake: Notify,
    /// Redis is joined, or contact with it was proven.
    joined: Notify,
    clock: Clock,
    /// What it has done.
    pub counters: CoherenceCounters,
}

impl Coherence {
    /// Coherence of a sidecar by itself, or of several that share these records.
    #[must_use]
    pub fn new(shared: Option<RecordStore>, clock: Clock) -> Self {
        let settings = shared.as_ref().map_or_else(
            || LeaseSettings::new(Duration::ZERO, Duration::ZERO),
            |shared| {
                LeaseSettings::new(
                    shared.client().settings().lease,
                    shared.client().settings().rejoin_grace,
                )
            },
        );
        let gate = AtomicLeaseState::new(u64::from(shared.is_some()), clock.clone());
        // As many as there are purges, beats and deaths within the deadline of a call: what runs
        // them does not wait.
        let (commands, queue) = mpsc::unbounded_channel();
        Self {
            table: TagTable::default(),
            records: shared,
            lease_state: gate,
            core: Mutex::new(mutation::CoreWithWaiters::new(Core::new(
                Process(rand::random()),
                settings,
                MAX_TAGS,
            ))),
            journal: DurableJournal::default(),
            missed_deadlines: AtomicU32::new(0),
            commands,
            queue: Mutex::new(Some(queue)),
            loss_reason: Mutex::new("it has not answered yet"),
            wake: Notify::new(),
            joined: Notify::new(),
            clock,
            counters: CoherenceCounters::default(),
        }
    }

    /// The same with a journal in a file, as far as the settings name one: what a sidecar that died
    /// has left in it is replayed before Redis is trusted.
    pub fn with_journal(mut self) -> Result<Self, SetupError> {
        if let Some(path) =
            self.records.as_ref().and_then(|shared| shared.client().settings().journal.clone())
        {
            let (kept, left) = DurableJournal::open(&path)?;
            self.core.lock().core.add_to_journal(left);
            self.journal = kept;
        }
        Ok(self)
    }

    /// Lines of the journal that could not be written to its file.
    #[must_use]
    pub const fn journal_failures(&self) -> &Arc<Counter> {
        &self.journal.failures
    }

    /// What coherence rests on.
    #[must_use]
    pub fn mode(&self) -> CoherenceMode {
        match (&self.records, self.epoch() % 2) {
            (None, _) => CoherenceMode::Local,
            (Some(_), 0) => CoherenceMode::Shared,
            (Some(_), _) => CoherenceMode::Degraded,
        }
    }

    /// The number of the present mode's stretch of time.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lease_state.epoch()
    }

    /// The records in Redis.
    #[must_use]
    pub const fn records(&self) -> Option<&RecordStore> {
        self.records.as_ref()
    }

    /// What reads do while Redis is lost.
    #[must_use]
    pub fn on_loss(&self) -> OnLoss {
        self.records
            .as_ref()
            .map_or(OnLoss::Memory, |shared| shared.client().settings().on_redis_loss)
    }

    /// How it stands with the other sidecars.
    #[must_use]
    pub fn status(&self) -> CoherenceStatus {
        self.core.lock().core.status()
    }

    /// Why this sidecar is slower than it could be; nothing where it is not.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let shared = self.records.as_ref()?;
        if self.mode() == CoherenceMode::Degraded {
            let why = *self.loss_reason.lock();
            return Some(match self.core.lock().core.phase() {
                Phase::Lost => format!("redis is lost: {why}"),
                _ => format!(
                    "redis is back, and trusted after rejoin_grace ({:?}); it was lost: {why}",
                    shared.client().settings().rejoin_grace
                ),
            });
        }
        (!self.lease_state.has_lease()).then(|| {
            "no lease: each hit asks redis, because heartbeats do not come back over the bus"
                .to_owned()
        })
    }

    /// Whether hits from memory need no look at Redis.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.lease_state.has_lease()
    }

    /// How many tags the local table knows.
    #[must_use]
    pub fn local_tags(&self) -> usize {
        self.table.len()
    }

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

    /// Whether an entry is current by the local table. One that was purged softly is not.
    pub fn validate_local(&self, proof: &LocalProof) -> Result<(), Reason> {
        if self.soft_purged_at_local(proof)?.is_some() { Err(Reason::Purged) } else { Ok(()) }
    }

    /// Since when a soft purge has made an entry stale that is otherwise current by the local
    /// table; nothing where none has.
    pub fn soft_purged_at_local(&self, proof: &LocalProof) -> Result<Option<Wall>, Reason> {
        if proof.epoch != self.epoch() {
            return Err(Reason::Unverifiable);
        }
        let mut softened: Option<Wall> = None;
        let mut compare = |since| match since {
            PurgedSince::Unchanged => Ok(()),
            PurgedSince::SoftPurged(at) => {
                softened = Some(softened.map_or(at, |first| first.min(at)));
                Ok(())
            }
            PurgedSince::HardPurged => Err(Reason::Purged),
        };
        compare(self.table.since(proof.generation))?;
        if proof.until.is_some_and(|until| self.clock.now() >= until) {
            // Not merely stale: nobody can say any more whether it was purged.
            return Err(Reason::Unverifiable);
        }
        for (cell, purged) in &proof.states {
            compare(cell.since(*purged))?;
            if cell.is_guarded() {
                return Err(Reason::MutationPending);
            }
        }
        Ok(softened)
    }

    /// Whether an entry that Redis vouched for is current by the local table, so that Redis need
    /// not be asked.
    #[must_use]
    pub fn is_current_locally(&self, proof: &SharedProof) -> bool {
        let leased = proof.leased.load();
        let Some(leased) = &*leased else { return false };
        // In this order: see the gate's invariant.
        self.lease_state.has_lease()
            && self.lease_state.session() == leased.session
            && self.table.generation() == leased.generation
            && leased
                .states
                .iter()
                .all(|(cell, purged)| cell.last_purge() == *purged && !cell.is_guarded())
    }

    /// An entry's tags, and which of them are as they were when it was stored; for people to read.
    /// `names` are those of an entry of this process, in the order in which it was stored; one from
    /// Redis knows its own.
    pub async fn current_tags(&self, proof: &Proof, names: &[Tag]) -> Vec<(Tag, bool)> {
        match proof {
            Proof::Local(local) => {
                let stands = local.generation == self.table.generation();
                let cells = names.iter().zip(&local.states);
                cells
                    .map(|(tag, (cell, purged))| {
                        (tag.clone(), stands && cell.last_purge() == *purged)
                    })
                    .collect()
            }
            Proof::Shared(SharedProof { stamp, .. }) => {
                let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
                let reading = match &self.records {
                    Some(shared) => self
                        .record_result(shared.fetch(None, &tags).await)
                        .ok()
                        .and_then(|fetched| fetched.reading),
                    None => None,
                };
                let reading = reading.filter(|reading| reading.generation == stamp.generation);
                let stands = |tag: &Tag, nonce| {
                    reading.as_ref().is_some_and(|reading| reading.nonce(tag) == Some(nonce))
                };
                stamp.tags.iter().map(|(tag, nonce)| (tag.clone(), stands(tag, *nonce))).collect()
            }
        }
    }

    /// Begins to watch tags, before Redis is asked about them; none without a lease.
    #[must_use]
    pub fn watch_tags(&self, tags: &[Tag]) -> Option<TagWatch> {
        // The session first: a lease that is found in force after it is that session's, or a later
        // one's, which makes the watch worthless but not wrong.
        let session = self.lease_state.session();
        if !self.lease_state.has_lease() {
            return None;
        }
        let generation = self.table.generation();
        let cells = tags.iter().map(|tag| self.table.snapshot(tag)).collect();
        Some(TagWatch { session, generation, states: cells })
    }

    /// Whether records may be read: contact with Redis was proven lately, or is now. A sidecar that
    /// was stopped finds out here.
    pub async fn has_contact(&self) -> bool {
        if self.lease_state.has_contact() {
            return true;
        }
        let Some(shared) = &self.records else { return true };
        self.counters.heartbeat_timeouts.inc();
        let proven = async {
            loop {
                let notified = self.joined.notified();
                self.wake.notify_one();
                if self.lease_state.has_contact() || self.mode() == CoherenceMode::Degraded {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(shared.client().settings().deadline, proven).await;
        self.lease_state.has_contact() && self.mode() == CoherenceMode::Shared
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

    fn commit_local(&self, read: &LocalTagSnapshot, tags: &[Tag]) -> Option<LocalProof> {
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

    /// Notes how a call to Redis went.
    pub fn record_result<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        match &result {
            Ok(_) => self.missed_deadlines.store(0, SeqCst),
            Err(CallError::Connection(_)) => self.mark_lost("the connection broke"),
            Err(CallError::Timeout) => {
                if self.missed_deadlines.fetch_add(1, SeqCst) + 1 >= MAX_MISSED_DEADLINES {
                    self.mark_lost("it misses its deadline");
                }
            }
            Err(CallError::Lost(_)) => self.mark_lost("it is of no use"),
            Err(
                CallError::OutOfMemory
                | CallError::Moving
                | CallError::NodeDown(_)
                | CallError::Reply(_),
            ) => {}
        }
        result
    }

    /// Trusts Redis no more. What it vouched for is no longer served.
    pub(crate) fn mark_lost(&self, why: &'static str) {
        self.handle_because(CoreEvent::Lost, why);
    }

    /// Lets the core handle an event, and carries out what it commands: at once what concerns this
    /// process, the rest by the keeper.
    pub(crate) fn handle(&self, event: CoreEvent) {
        self.handle_because(event, "another primary answers, or a purge did not reach it");
    }

    fn handle_because(&self, event: CoreEvent, why: &'static str) {
        let mut guarded = self.core.lock();
        let core = &mut guarded.core;
        let (phase, gate) = (core.phase(), core.lease_state());
        let is_tick = event == CoreEvent::Tick;
        let commands = core.handle(self.lease_state.now(), event);
        let (now, then) = (core.lease_state(), core.phase());
        // First what hits look at, then what is done about it: see the core's commands.
        self.lease_state.publish(now);
        for command in commands {
            match command {
                CoreCommand::Invalidate(Some(tags)) => self.table.purge(&tags),
                CoreCommand::Invalidate(None) => self.table.purge_everything(),
                CoreCommand::Release(id, how) => guarded.release(id, how),
                command => {
                    // Without a keeper there is nobody to carry it out, nor to wait for it.
                    let _ = self.commands.send(command);
                }
            }
        }
        drop(guarded);
        if now.session != gate.session && gate.lease_until > Duration::ZERO {
            self.counters.leases_lost.inc();
        }
        if phase != Phase::Lost && then == Phase::Lost {
            *self.loss_reason.lock() = why;
        }
        if phase == Phase::Joined && then != Phase::Joined {
            self.counters.losses.inc();
            tracing::warn!(why, "Redis is lost; serving from memory and the app until it is back");
        }
        if then == Phase::Joined && phase != Phase::Joined {
            self.missed_deadlines.store(0, SeqCst);
            self.counters.rejoins.inc();
            tracing::info!("Redis is in use");
        }
        if now != gate {
            self.joined.notify_waiters();
        }
        // The keeper, which tells the time, knows of that itself.
        if !is_tick {
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
