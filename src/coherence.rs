//! Coherence: what proves a stored response current, on one sidecar or on several that share a
//! Redis.
//!
//! The protocol between sidecars is the [`core`]; `driver` carries out its commands, `mutation`
//! marks and purges, `commit` turns what a fill has read into a proof, and `validation` checks
//! proofs. This file holds the state that they share.
//!
//! Invariants:
//! 1. *A purge ends every fill it overlaps.* A fill reads the state of its tags before the origin
//!    gets its request ([`Coherence::read_local`], `Store::lookup`); [`Coherence::commit`] refuses
//!    it if any of its tags was purged since, including tags named by the response.
//! 2. *A proof is bound to the way it was made.* A local proof ends when Redis comes back, and a
//!    proof by Redis ends when Redis is lost: the epoch changes each time.
//! 3. *A purge is never forgotten.* When [`Coherence::committed`] returns, the purge is in Redis or
//!    in the journal. While it is in the journal, this sidecar serves nothing on the strength of
//!    records in Redis until it was replayed.
//! 4. *The local table is trusted under a lease alone.* A hit skips Redis only if the local table
//!    says of its tags what it said before Redis validated the entry, a lease was held then and is
//!    held now, and none was lost in between ([`Coherence::is_current_locally`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::coherence::core::{
    CoherenceStatus, Core, CoreCommand, CoreEvent, LeaseSettings, Phase, ReplayBatch, Truth,
};
use crate::coherence::durable_journal::DurableJournal;
use crate::coherence::fault_notices::FaultNotices;
use crate::coherence::journal::MAX_TAGS;
use crate::coherence::lease::AtomicLeaseState;
use crate::coherence::message::{OperationId, PeerId, Process};
use crate::coherence::purge_observer::PurgeObserver;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::room::RedisRoom;
use crate::coherence::round_trips::RoundTrips;
use crate::coherence::tag_table::TagTable;
use crate::coherence::waiters::CoreWithWaiters;
use crate::error::SetupError;
use crate::policy::tag::Tag;
use crate::redis::{CallError, OnLoss, RedisSettings, WritePolicy};
use crate::telemetry::metrics::Counter;

pub use crate::coherence::commit::Committed;
pub use crate::coherence::core::Released;
pub use crate::coherence::hit_guard::HitGuard;
pub use crate::coherence::mutation::PendingMutation;
pub use crate::coherence::purge_kind::PurgeKind;
pub use crate::coherence::tag_snapshot::TagSnapshot;
pub use crate::coherence::validation::{LocalProof, Proof, SharedProof, TagWatch};

mod adoption;
mod commit;
pub mod core;
mod driver;
mod durable_journal;
mod fault_notices;
mod hit_guard;
pub mod journal;
mod journal_set;
mod known_state;
mod lease;
pub mod local_snapshot;
pub mod message;
mod mutation;
mod on_behalf;
pub mod purge_kind;
mod purge_observer;
pub mod redis_records;
mod room;
mod round_trips;
pub mod stamp;
pub mod tag_record;
mod tag_snapshot;
pub mod tag_table;
mod validation;
mod waiters;

/// For how long after the last contact a sidecar may serve from memory what it fills while Redis is
/// lost, where writes through others wait for it (`writes = "refuse"`).
const OWN_TABLE_LIMIT: Duration = Duration::from_mins(1);

/// Which source of truth is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoherenceMode {
    /// No Redis is configured: the local table is the truth.
    Local,
    /// The records in Redis are the truth.
    Shared,
    /// Redis is lost: the local table vouches for what this sidecar fills itself, for a short time.
    Degraded,
    /// Redis is back and not trusted yet: nothing vouches for anything.
    Rejoining,
}

/// Counts of coherence events.
#[derive(Clone, Debug, Default)]
pub struct CoherenceCounters {
    /// Purged tags.
    pub purged_tags: Arc<Counter>,
    /// Losses of Redis.
    pub losses: Arc<Counter>,
    /// Rejoins.
    pub rejoins: Arc<Counter>,
    /// Times that a sidecar of another protocol was met.
    pub other_protocols: Arc<Counter>,
    /// Rejoins under another primary than before.
    pub fences: Arc<Counter>,
    /// Heartbeats sent.
    pub heartbeats: Arc<Counter>,
    /// Leases that ended before they were renewed.
    pub leases_lost: Arc<Counter>,
    /// Purges that all peers acknowledged.
    pub acknowledged: Arc<Counter>,
    /// Purges that waited until a lease expired.
    pub purges_released_by_lease_expiry: Arc<Counter>,
    /// Microseconds that purges waited for peers.
    pub waited_us: Arc<Counter>,
    /// Purges that went into the journal.
    pub journal_writes: Arc<Counter>,
    /// Tags replayed from the journal.
    pub replayed: Arc<Counter>,
    /// Fills that a purge ended.
    pub fills_purged: Arc<Counter>,
    /// Mutations that count as committed because their sidecar died.
    pub orphans: Arc<Counter>,
    /// Peers that were evicted.
    pub peers_evicted: Arc<Counter>,
    /// Requests that found no recent proof of contact with Redis.
    pub heartbeat_timeouts: Arc<Counter>,
    /// Times that this process was stopped or got no processor for a while.
    pub stalls: Arc<Counter>,
    /// Microseconds that these took.
    pub stalled_us: Arc<Counter>,
    /// Summaries of this sidecar that were published.
    pub summaries_published: Arc<Counter>,
    /// Summaries that could not be published.
    pub summaries_failed: Arc<Counter>,
    /// Readings of the summaries of all sidecars.
    pub summary_reads: Arc<Counter>,
    /// Readings that failed.
    pub summary_read_failures: Arc<Counter>,
    /// Values in the place of summaries that are none.
    pub summaries_unreadable: Arc<Counter>,
}

/// A mark that may be on its way although its mutation was given up.
#[derive(Debug)]
struct AbandonedMark {
    id: OperationId,
    peer: PeerId,
    tags: Vec<Tag>,
}

/// The coherence state of one sidecar.
#[derive(Debug)]
pub struct Coherence {
    table: TagTable,
    records: Option<RecordStore>,
    lease_state: AtomicLeaseState,
    core: Mutex<CoreWithWaiters>,
    journal: DurableJournal,
    commands: mpsc::UnboundedSender<CoreCommand>,
    /// Taken by the driver.
    queue: Mutex<Option<mpsc::UnboundedReceiver<CoreCommand>>>,
    round_trips: RoundTrips,
    room: RedisRoom,
    /// Why Redis was lost the last time.
    loss_reason: Mutex<&'static str>,
    /// Why it cannot be used, as far as that was found out and told.
    faults: FaultNotices,
    /// Marks of mutations that were given up before a reply came, with their tags.
    abandoned_marks: Mutex<Vec<AbandonedMark>>,
    /// Wakes the driver.
    wake: Notify,
    /// Tells that the lease state has changed.
    joined: Notify,
    /// Tells that the switches in Redis may have changed.
    pub(crate) switch_news: Notify,
    clock: Clock,
    purge_observer: PurgeObserver,
    /// What was counted so far.
    pub counters: CoherenceCounters,
}

impl Coherence {
    /// Coherence of a sidecar by itself, or of several that share these records.
    #[must_use]
    pub fn new(shared: Option<RecordStore>, clock: Clock) -> Self {
        let settings = shared.as_ref().map_or_else(
            || LeaseSettings::new(Duration::ZERO, Duration::ZERO),
            |shared| lease_settings(shared.client().settings()),
        );
        let core = Core::new(Process(rand::random()), settings, MAX_TAGS);
        let lease_state = AtomicLeaseState::new(core.lease_state().epoch, clock.clone());
        // Bounded by the number of purges, heartbeats and evictions within the deadline of a call:
        // the driver starts each command without waiting.
        let (commands, queue) = mpsc::unbounded_channel();
        Self {
            table: TagTable::default(),
            records: shared,
            lease_state,
            core: Mutex::new(CoreWithWaiters::new(core)),
            journal: DurableJournal::default(),
            commands,
            queue: Mutex::new(Some(queue)),
            round_trips: RoundTrips::default(),
            room: RedisRoom::default(),
            loss_reason: Mutex::new("it has not replied yet"),
            faults: FaultNotices::default(),
            abandoned_marks: Mutex::default(),
            wake: Notify::new(),
            joined: Notify::new(),
            switch_news: Notify::new(),
            clock,
            purge_observer: PurgeObserver::default(),
            counters: CoherenceCounters::default(),
        }
    }

    /// Adds the journal file that the settings name, if any: purges that a dead sidecar has left in
    /// it are replayed before Redis is trusted. `beside` says that a predecessor may still have it.
    pub fn with_journal(mut self, beside: bool) -> Result<Self, SetupError> {
        if let Some(path) =
            self.records.as_ref().and_then(|shared| shared.client().settings().journal.clone())
        {
            let (kept, left) = DurableJournal::open(&path, beside)?;
            self.core().core.add_to_journal(left);
            self.journal = kept;
        }
        Ok(self)
    }

    fn journal_paths(&self) -> Option<(PathBuf, PathBuf)> {
        self.journal.paths()
    }

    /// Counts lines of the journal that could not be written to its file.
    #[must_use]
    pub const fn journal_failures(&self) -> &Arc<Counter> {
        &self.journal.failures
    }

    /// Which source of truth is in use.
    #[must_use]
    pub fn mode(&self) -> CoherenceMode {
        match (&self.records, Truth::in_epoch(self.epoch())) {
            (None, _) => CoherenceMode::Local,
            (Some(_), Truth::Records) => CoherenceMode::Shared,
            (Some(_), Truth::OwnTable) => CoherenceMode::Degraded,
            (Some(_), Truth::Nothing) => CoherenceMode::Rejoining,
        }
    }

    /// The number of the present epoch: it changes with every loss and rejoin.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lease_state.epoch()
    }

    /// The id of this run of the sidecar.
    #[must_use]
    pub fn process(&self) -> Process {
        self.core().core.me().process
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The records in Redis.
    #[must_use]
    pub const fn records(&self) -> Option<&RecordStore> {
        self.records.as_ref()
    }

    /// How reads behave while Redis is lost.
    #[must_use]
    pub fn on_loss(&self) -> OnLoss {
        self.records
            .as_ref()
            .map_or(OnLoss::Memory, |shared| shared.client().settings().on_redis_loss)
    }

    /// A summary of the protocol's state.
    #[must_use]
    pub fn status(&self) -> CoherenceStatus {
        self.core().core.status()
    }

    /// Why this sidecar is slower than it could be; `None` if it is not.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let shared = self.records.as_ref()?;
        if self.mode() != CoherenceMode::Shared {
            let why = *self.loss_reason.lock();
            return Some(match self.phase() {
                Phase::Lost => match self.faults.current() {
                    Some(fault) => {
                        format!("redis is lost: {why}; {fault}; {}", fault.kind.remedy())
                    }
                    None => format!("redis is lost: {why}"),
                },
                _ if self.is_mixed() => Self::other_protocol(),
                _ => format!(
                    "redis is back, and will be trusted after rejoin_grace ({:?}); it was lost: \
                    {why}",
                    shared.client().settings().rejoin_grace
                ),
            });
        }
        if let Some(why) = self.round_trips.slowness(shared.client().settings().deadline) {
            return Some(why);
        }
        if let Some(why) = self.room.shortage() {
            return Some(why);
        }
        (!self.lease_state.has_lease()).then(|| {
            "no lease: every hit reads redis, because heartbeats do not come back over the bus"
                .to_owned()
        })
    }

    /// The least time that Redis took to reply to one of the last heartbeats; `None` before the
    /// first reply.
    #[must_use]
    pub fn redis_round_trip(&self) -> Option<Duration> {
        self.round_trips.least()
    }

    /// The mean of what Redis took to reply to the last heartbeats: also of replies that this
    /// process read late. `None` before the first reply, and while Redis is not in use.
    #[must_use]
    pub fn mean_redis_round_trip(&self) -> Option<Duration> {
        (self.mode() == CoherenceMode::Shared).then(|| self.round_trips.mean()).flatten()
    }

    /// Whether hits from memory can skip Redis.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.lease_state.has_lease()
    }

    /// Whether records may be read: contact with Redis was proven recently, or is proven within the
    /// deadline of a call. A sidecar that was paused finds out here.
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
                if self.lease_state.has_contact() || self.mode() != CoherenceMode::Shared {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(shared.client().settings().deadline, proven).await;
        self.lease_state.has_contact() && self.mode() == CoherenceMode::Shared
    }

    /// Notes that Redis has stored an entry.
    pub fn record_stored(&self) {
        self.room.note_stored(self.clock.now());
    }

    /// Notes the result of a call to Redis: it may mean that Redis is lost.
    pub fn record_result<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        match &result {
            Err(CallError::Connection(_)) => {
                self.mark_lost(
                    self.records.as_ref().map_or("", |shared| shared.client().loss_reason()),
                );
            }
            Err(error @ CallError::Lost(_)) => {
                self.mark_lost("it cannot be trusted at present");
                self.tell_fault(error);
            }
            Err(CallError::WentBack) => {
                // Nobody knows which purges are missing.
                let everything = ReplayBatch { everything: true, ..ReplayBatch::default() };
                let id = OperationId(rand::random());
                self.handle_because(
                    CoreEvent::PublishFailed(id, everything),
                    "its records have gone back; everything will be purged",
                );
            }
            Err(CallError::OutOfMemory) => self.room.note_refusal(self.clock.now()),
            // A missed deadline may be this process's own fault. Whether Redis is silent is for the
            // probes of its connections to find out.
            Ok(_)
            | Err(
                CallError::Timeout
                | CallError::Moving
                | CallError::NodeDown(_)
                | CallError::Reply(_),
            ) => {}
        }
        result
    }

    /// Ends all trust in Redis. Entries that it vouched for are no longer served.
    pub(crate) fn mark_lost(&self, why: &'static str) {
        self.handle_because(CoreEvent::Lost, why);
    }

    /// Tells what an error reply says, if it is news.
    fn tell_fault(&self, error: &CallError) {
        let fault = self.records.as_ref().and_then(|shared| shared.client().fault_of(error));
        if let Some(fault) = fault {
            self.faults.note(Ok(fault));
            self.faults.tell();
        }
    }

    /// Passes an event to the core, and carries out its commands: those for this process at once,
    /// the rest in the driver.
    pub(crate) fn handle(&self, event: CoreEvent) {
        self.handle_because(event, "another primary replied, or a purge did not reach it");
    }

    fn handle_because(&self, event: CoreEvent, why: &'static str) {
        let mut guarded = self.core();
        let core = &mut guarded.core;
        let (phase_before, before, was_mixed) = (core.phase(), core.lease_state(), core.is_mixed());
        let is_tick = event == CoreEvent::Tick;
        let commands = core.handle(self.lease_state.now(), event);
        let (after, phase) = (core.lease_state(), core.phase());
        let is_first_of_mix = core.is_mixed() && !was_mixed;
        // Hits must see the new lease state before any command is carried out: see `core`.
        self.lease_state.publish(after);
        for command in commands {
            match command {
                CoreCommand::Invalidate(Some(tags)) => self.table.purge(&tags),
                CoreCommand::Invalidate(None) => self.table.purge_everything(),
                CoreCommand::Release(id, how) => guarded.release(id, how),
                command => {
                    // Without a driver nobody carries the command out, and nobody waits for it.
                    let _ = self.commands.send(command);
                }
            }
        }
        drop(guarded);
        if after.session != before.session && before.lease_until > Duration::ZERO {
            self.counters.leases_lost.inc();
        }
        if phase_before != Phase::Lost && phase == Phase::Lost {
            *self.loss_reason.lock() = why;
        }
        if is_first_of_mix {
            self.tell_other_protocol();
        }
        if phase_before == Phase::Joined && phase == Phase::Lost {
            self.counters.losses.inc();
            tracing::warn!(
                why,
                "Redis is lost; serving from memory and the origin until it is back"
            );
        }
        if phase == Phase::Joined && phase_before != Phase::Joined {
            self.counters.rejoins.inc();
            self.faults.end();
            tracing::info!("Redis is in use");
        }
        if after != before || phase != phase_before {
            self.joined.notify_waiters();
        }
        // The driver sends ticks itself and needs no wake-up.
        if !is_tick {
            self.wake.notify_one();
        }
    }

    fn core(&self) -> parking_lot::MutexGuard<'_, CoreWithWaiters> {
        self.core.lock()
    }
}

/// The durations of the protocol, from `[redis]`.
fn lease_settings(settings: &RedisSettings) -> LeaseSettings {
    let mut durations = LeaseSettings::new(settings.lease, settings.rejoin_grace);
    if settings.writes == WritePolicy::Refuse && settings.on_redis_loss == OnLoss::Memory {
        durations.exposure = settings.degraded_ttl;
        durations.absence = OWN_TABLE_LIMIT + settings.lease.max(settings.degraded_ttl);
    }
    durations
}

#[cfg(test)]
mod tests;
