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

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::coherence::core::{CoherenceStatus, Core, CoreCommand, CoreEvent, LeaseSettings, Phase};
use crate::coherence::durable_journal::DurableJournal;
use crate::coherence::journal::MAX_TAGS;
use crate::coherence::lease::AtomicLeaseState;
use crate::coherence::message::Process;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::tag_table::TagTable;
use crate::coherence::waiters::CoreWithWaiters;
use crate::error::SetupError;
use crate::redis::{CallError, OnLoss};
use crate::telemetry::metrics::Counter;

pub use crate::coherence::mutation::{PendingMutation, WriteRefused};
pub use crate::coherence::purge_kind::PurgeKind;
pub use crate::coherence::tag_snapshot::{LocalTagSnapshot, TagSnapshot};
pub use crate::coherence::validation::{LocalProof, Proof, SharedProof, TagWatch};

mod commit;
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
pub mod stamp;
pub mod tag_record;
mod tag_snapshot;
pub mod tag_table;
mod validation;
mod waiters;

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
    core: Mutex<CoreWithWaiters>,
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
            core: Mutex::new(CoreWithWaiters::new(Core::new(
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
            self.core().core.add_to_journal(left);
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
        self.core().core.status()
    }

    /// Why this sidecar is slower than it could be; nothing where it is not.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let shared = self.records.as_ref()?;
        if self.mode() == CoherenceMode::Degraded {
            let why = *self.loss_reason.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(match self.core().core.phase() {
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
        let mut guarded = self.core();
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
            *self.loss_reason.lock().unwrap_or_else(PoisonError::into_inner) = why;
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

    fn core(&self) -> std::sync::MutexGuard<'_, CoreWithWaiters> {
        // The core is whole between any two statements that could panic.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
