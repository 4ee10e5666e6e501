//! Coalescing across all sidecars that share a Redis: the sidecar that fills a key holds its lock
//! there, and the others wait for a message that the fill has ended.
//!
//! Invariants:
//! - *Correctness does not depend on any of this.* A lock only decides which sidecar fetches from
//!   the origin. No sidecar gets another's bytes: after waiting, it repeats the lookup, and the
//!   entry found is validated as always. If Redis is lost, slow or wrong, the only cost is more
//!   requests to the origin.
//! - A lock is for a key *and* for the state of its tags ([`FillName`]): a sidecar that has read
//!   them after a purge does not wait for a fill from before it.
//! - A waiter is registered before it finds the lock taken, and while the subscriber is listening;
//!   the release of the lock and the message about it are one step in Redis. So no message is
//!   missed, unless the subscriber reports a lag, which wakes all waiters at once.
//! - A lock is released when it is dropped, however the fill ended. While held, it is renewed after
//!   every third of its lifetime, so the lock of a sidecar that died expires after
//!   [`FILL_LOCK_TTL`]. A waiter does not ask Redis about a lock before it would expire.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`); a waiter is
//!   unregistered when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::cache::fills::cluster::message::message;
use crate::cache::fills::cluster::waiters::{WaiterSlot, Waiters};
use crate::clock::millis;
use crate::coherence::stamp::Nonce;
use crate::coherence::{Coherence, CoherenceMode};
use crate::redis::subscriber::{BusEvent, Subscriber};
use crate::redis::{CallError, RedisClient, Script, ScriptReply};
use crate::telemetry::metrics::Counter;
use crate::units::hex;

pub use crate::cache::fills::cluster::message::{FillName, RemoteOutcome};

mod message;
mod waiters;

/// The lifetime of a lock that is not renewed.
pub const FILL_LOCK_TTL: Duration = Duration::from_secs(5);

/// Counts of what coalescing across sidecars does.
#[derive(Clone, Debug, Default)]
pub struct ClusterFillCounters {
    /// Locks taken.
    pub locks: Arc<Counter>,
    /// Waits for the fill of another sidecar.
    pub waits: Arc<Counter>,
    /// Waits that timed out.
    pub wait_timeouts: Arc<Counter>,
    /// Waits rejected because too many were waiting.
    pub waiters_rejected: Arc<Counter>,
    /// How often messages may have been missed.
    pub lags: Arc<Counter>,
}

#[derive(Debug)]
struct LockScripts {
    take: Script,
    renew: Script,
    release: Script,
}

/// Coalescing with the other sidecars.
#[derive(Debug)]
pub struct ClusterFills {
    client: Arc<RedisClient>,
    coherence: Arc<Coherence>,
    subscriber: Subscriber,
    waiting: Arc<Waiters>,
    scripts: LockScripts,
    prefix: String,
    channel: Bytes,
    wait_permits: Arc<Semaphore>,
    wait: Duration,
    tasks: TaskTracker,
    /// What it has done.
    pub counters: ClusterFillCounters,
}

/// The result of trying to take a lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// This sidecar holds it.
    Locked(FillLock),
    /// Another sidecar holds it.
    HeldElsewhere(FillWait),
    /// Redis did not reply, or the end of the other fill might go unnoticed: fill without a lock.
    Unavailable,
}

/// The result of waiting for a lock.
#[derive(Debug)]
pub enum LockOutcome {
    /// Fill for all sidecars.
    Locked(FillLock),
    /// Fill for this sidecar only.
    FillLocally,
    /// Another sidecar has filled the key, with this outcome.
    Filled(RemoteOutcome),
}

impl ClusterFills {
    /// Coalescing over the Redis of `coherence`; `None` if it has none. At most `waiters` wait,
    /// each at most for `wait`. Needs a tokio runtime; `tasks` runs the releases of locks, so that
    /// the drain waits for them.
    #[must_use]
    pub fn new(
        coherence: Arc<Coherence>,
        waiters: usize,
        wait: Duration,
        tasks: TaskTracker,
    ) -> Option<Arc<Self>> {
        let client = Arc::clone(coherence.records()?.client());
        let namespace = &client.settings().namespace;
        let (prefix, channel) = (format!("{{{namespace}}}:l:"), format!("{{{namespace}}}:filled"));
        let (waiting, counters) = (Arc::<Waiters>::default(), ClusterFillCounters::default());
        let subscriber = client.subscribe(vec![channel.clone()], {
            let (waiting, lags) = (Arc::clone(&waiting), Arc::clone(&counters.lags));
            move |event| {
                if event == BusEvent::Lagged {
                    lags.inc();
                }
                waiting.on_event(&event);
            }
        });
        let scripts = LockScripts {
            take: Script::new(&[include_str!("lua/take.lua")]),
            renew: Script::new(&[include_str!("lua/renew.lua")]),
            release: Script::new(&[include_str!("lua/release.lua")]),
        };
        let waiters = Arc::new(Semaphore::new(waiters.min(Semaphore::MAX_PERMITS)));
        Some(Arc::new(Self {
            client,
            coherence,
            subscriber,
            waiting,
            scripts,
            prefix,
            channel: channel.into(),
            wait_permits: waiters,
            wait,
            tasks,
            counters,
        }))
    }

    /// Whether the messages of other sidecars are received.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.subscriber.is_listening()
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.lock().values().map(Vec::len).sum()
    }

    /// Takes the lock, waiting for its holder if there is one. Cancel-safe.
    pub async fn lock_or_wait(self: &Arc<Self>, name: FillName) -> LockOutcome {
        let turn = async {
            loop {
                match self.try_lock(name).await {
                    LockAttempt::Locked(lock) => return LockOutcome::Locked(lock),
                    LockAttempt::Unavailable => return LockOutcome::FillLocally,
                    LockAttempt::HeldElsewhere(waiting) => match waiting.finished().await {
                        WaitOutcome::Filled(outcome) => return LockOutcome::Filled(outcome),
                        WaitOutcome::Lagged => return LockOutcome::FillLocally,
                        // Its holder has renewed it, or has died and the lock is free.
                        WaitOutcome::LockExpired => {}
                    },
                }
            }
        };
        tokio::time::timeout(self.wait, turn).await.unwrap_or_else(|_| {
            self.counters.wait_timeouts.inc();
            LockOutcome::FillLocally
        })
    }

    /// Tries to take the lock. Cancel-safe.
    pub async fn try_lock(self: &Arc<Self>, name: FillName) -> LockAttempt {
        // Fail open: without Redis, or without a subscriber to learn of the end, each sidecar fills
        // for itself.
        if self.coherence.mode() != CoherenceMode::Shared {
            return LockAttempt::Unavailable;
        }
        // Register first, and only then check that the subscriber listens: any lag from here on
        // wakes this waiter.
        let slot = self.waiting.register(name);
        if !self.is_listening() {
            return LockAttempt::Unavailable;
        }
        let Ok(permit) = Arc::clone(&self.wait_permits).try_acquire_owned() else {
            self.counters.waiters_rejected.inc();
            return LockAttempt::Unavailable;
        };
        // Created before the call: whatever happens to it, a lock that may be ours is released.
        let mut lock = FillLock::new(self, name);
        let args = vec![lock.owner.clone(), millis(FILL_LOCK_TTL).to_string().into()];
        let Ok(ScriptReply::One(answer)) = self.run(&self.scripts.take, &lock.key, args).await
        else {
            return LockAttempt::Unavailable;
        };
        if *answer == *b"-" {
            self.counters.locks.inc();
            lock.start_renewal();
            return LockAttempt::Locked(lock);
        }
        lock.is_held = false;
        let remaining = std::str::from_utf8(&answer)
            .ok()
            .and_then(|remaining| remaining.parse().ok())
            .map(Duration::from_millis);
        match remaining.filter(|remaining| *remaining <= FILL_LOCK_TTL) {
            Some(remaining) => {
                self.counters.waits.inc();
                LockAttempt::HeldElsewhere(FillWait { slot, remaining, _permit: permit })
            }
            // Not a lock of this program; it might never expire.
            None => LockAttempt::Unavailable,
        }
    }

    async fn run(
        &self,
        script: &Script,
        key: &Bytes,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        self.coherence.record_result(self.client.run(script, vec![key.clone()], args).await)
    }
}

/// The right to fetch a key for all sidecars. Dropping it releases the lock and wakes the waiters.
#[derive(Debug)]
pub struct FillLock {
    fills: Arc<ClusterFills>,
    name: FillName,
    key: Bytes,
    owner: Bytes,
    is_held: bool,
    outcome: RemoteOutcome,
    renewal: Option<tokio::task::JoinHandle<()>>,
}

impl FillLock {
    fn new(fills: &Arc<ClusterFills>, name: FillName) -> Self {
        let key = [fills.prefix.as_str(), &hex(&name.0)].concat().into();
        let owner = Nonce::random().to_hex().into();
        Self {
            fills: Arc::clone(fills),
            name,
            key,
            owner,
            is_held: true,
            outcome: RemoteOutcome::NotStored,
            renewal: None,
        }
    }

    /// Sets the outcome that the other sidecars receive.
    pub const fn set_outcome(&mut self, outcome: RemoteOutcome) {
        self.outcome = outcome;
    }

    /// Renews the lock from now on.
    fn start_renewal(&mut self) {
        let (fills, key, owner) = (Arc::clone(&self.fills), self.key.clone(), self.owner.clone());
        self.renewal = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(FILL_LOCK_TTL / 3).await;
                // Fail open: without renewal it expires, and another sidecar may fetch from the
                // origin too.
                let _ = fills
                    .run(
                        &fills.scripts.renew,
                        &key,
                        vec![owner.clone(), millis(FILL_LOCK_TTL).to_string().into()],
                    )
                    .await;
            }
        }));
    }
}

impl Drop for FillLock {
    fn drop(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        // Without a runtime nothing can be sent any more: the lock expires by itself.
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| self.is_held)
        else {
            return;
        };
        let (fills, key) = (Arc::clone(&self.fills), self.key.clone());
        let publish = Bytes::from_static(fills.client.publish_command().as_bytes());
        let args = vec![
            self.owner.clone(),
            fills.channel.clone(),
            message(self.name, self.outcome),
            publish,
        ];
        let release = async move {
            // Fail open: a lock that is not released expires by itself.
            let _ = fills.run(&fills.scripts.release, &key, args).await;
        };
        self.fills.tasks.spawn_on(release, &runtime);
    }
}

/// A wait for the fill of another sidecar.
#[derive(Debug)]
pub struct FillWait {
    slot: WaiterSlot,
    remaining: Duration,
    _permit: OwnedSemaphorePermit,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// The fill has ended.
    Filled(RemoteOutcome),
    /// The end of the fill may have been missed.
    Lagged,
    /// The lock would have expired by now without renewal.
    LockExpired,
}

impl FillWait {
    /// Waits, at most until the lock would expire.
    pub async fn finished(mut self) -> WaitOutcome {
        match tokio::time::timeout(self.remaining, &mut self.slot.outcome).await {
            Ok(Ok(outcome)) => WaitOutcome::Filled(outcome),
            Ok(Err(_)) => WaitOutcome::Lagged,
            Err(_) => WaitOutcome::LockExpired,
        }
    }
}

#[cfg(test)]
mod tests;
