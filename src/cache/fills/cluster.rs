//! Coalescing across all sidecars that share a Redis: who fills a key holds its lease there, and
//! the others wait to hear of its end.
//!
//! Invariants:
//! - *Correctness rests on none of this.* A lease only says who asks the app. Nobody is ever given
//!   another sidecar's bytes: who waited looks into the store again, and what is found there is
//!   judged as always. Redis lost, slow or lying costs the app requests, nothing else.
//! - A lease is of a key *and* of the state of its tags ([`FillName`]): who read them after a purge
//!   does not wait for a fill from before it.
//! - A waiter is registered before it finds the lease taken, while the ear is listening; the
//!   lease's end and the message of it are one step in Redis. So no message is missed, or the ear
//!   tells of a gap, which wakes every waiter at once.
//! - A lease ends when it is dropped, in whatever way the fill ended. It is renewed at a third of
//!   its time as long as it is held, so that that of a sidecar which died ends by itself after
//!   [`FILL_LOCK_TTL`]. A waiter does not ask Redis about it before that time is over.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`), and a waiter's place
//!   goes with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use crate::cache::entry::Nonce;
use crate::clock::millis;
use crate::coherence::{Coherence, CoherenceMode, TagSnapshot};
use crate::policy::key::KeyHash;
use crate::redis::subscriber::{BusEvent, Subscriber};
use crate::redis::{CallError, RedisClient, Script, ScriptReply};
use crate::telemetry::metrics::Counter;
use crate::units::hex;

/// How long a lease lives that nobody renews.
pub const FILL_LOCK_TTL: Duration = Duration::from_secs(5);

/// What a fill is of, in the words of all sidecars: a key, and the state of the tags that were read
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillName([u8; 32]);

impl FillName {
    /// The name of a fill. None where the reading is not of Redis, or not whole: then nobody else
    /// can have read the same.
    #[must_use]
    pub fn from_snapshot(hash: KeyHash, read: &TagSnapshot) -> Option<Self> {
        let TagSnapshot::Shared(_, reading) = read else { return None };
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(&hash.0);
        part(&reading.generation.0);
        part(reading.fence.as_bytes());
        for (tag, _) in &reading.records {
            part(tag.as_str().as_bytes());
            match reading.nonce(tag) {
                Some(nonce) => part(&nonce.0),
                // Of a tag without a record it can only be said that no purge at all came between
                // (as in `TagSnapshot::may_join`).
                None => part(&reading.seq?.to_be_bytes()),
            }
        }
        Some(Self(digest.finalize().into()))
    }

    fn parse(hex: &[u8]) -> Option<Self> {
        let hex: &[u8; 64] = hex.try_into().ok()?;
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .filter(|_| !digit.is_ascii_uppercase())
                .and_then(|d| u8::try_from(d).ok())
        };
        let mut name = [0; 32];
        for (byte, pair) in name.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(name))
    }
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// Its response is stored.
    Stored,
    /// Its response is not for storing, and the next one will hardly be.
    Uncacheable,
    /// Nothing was stored: the app failed, or a purge came between.
    NotStored,
}

impl RemoteOutcome {
    const ALL: [Self; 3] = [Self::Stored, Self::Uncacheable, Self::NotStored];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Uncacheable => "uncacheable",
            Self::NotStored => "nothing",
        }
    }
}

/// The message that a fill has ended: `NAME FATE`.
fn message(name: FillName, fate: RemoteOutcome) -> Bytes {
    format!("{} {}", hex(&name.0), fate.as_str()).into()
}

/// Reads such a message. What does not look like one is none: anybody may publish.
fn parse(message: &[u8]) -> Option<(FillName, RemoteOutcome)> {
    let (name, fate) = message.split_at_checked(64)?;
    let fate = RemoteOutcome::ALL
        .into_iter()
        .find(|known| fate.strip_prefix(b" ") == Some(known.as_str().as_bytes()))?;
    Some((FillName::parse(name)?, fate))
}

/// Who waits for which fill, each with a number of its own.
type WaitersByFill = HashMap<FillName, Vec<(u64, oneshot::Sender<RemoteOutcome>)>>;

/// Those who wait for fills of others.
#[derive(Debug, Default)]
struct Waiters {
    waiting: Mutex<WaitersByFill>,
    next: AtomicU64,
}

impl Waiters {
    fn register(self: &Arc<Self>, name: FillName) -> WaiterSlot {
        let id = self.next.fetch_add(1, Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().entry(name).or_default().push((id, tell));
        WaiterSlot { waiters: Arc::clone(self), name, id, outcome: told }
    }

    fn on_event(&self, heard: &BusEvent) {
        match heard {
            BusEvent::Message(bytes) => {
                let Some((name, fate)) = parse(bytes) else { return };
                let waiting = self.waiting.lock().remove(&name).unwrap_or_default();
                for (_, tell) in waiting {
                    // Who has given up does not hear it.
                    let _ = tell.send(fate);
                }
            }
            BusEvent::Listening => {}
            // Dropped, the senders wake everybody.
            BusEvent::Lagged => drop(std::mem::take(&mut *self.waiting.lock())),
        }
    }
}

/// A place on the board. Dropped, it is gone.
#[derive(Debug)]
struct WaiterSlot {
    waiters: Arc<Waiters>,
    name: FillName,
    id: u64,
    outcome: oneshot::Receiver<RemoteOutcome>,
}

impl Drop for WaiterSlot {
    fn drop(&mut self) {
        let mut map = self.waiters.waiting.lock();
        if let Some(waiting) = map.get_mut(&self.name) {
            waiting.retain(|(id, _)| *id != self.id);
            if waiting.is_empty() {
                map.remove(&self.name);
            }
        }
    }
}

/// Counts of what collapsing across sidecars does.
#[derive(Clone, Debug, Default)]
pub struct ClusterFillCounters {
    /// Leases taken.
    pub locks: Arc<Counter>,
    /// Waits for the fill of another sidecar.
    pub waits: Arc<Counter>,
    /// Waits that took too long.
    pub wait_timeouts: Arc<Counter>,
    /// Waits not begun because too many wait.
    pub waiters_rejected: Arc<Counter>,
    /// Times that messages may have been missed.
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

/// What came of asking for a lease.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is ours.
    Locked(FillLock),
    /// Another holds it.
    HeldElsewhere(FillWait),
    /// Nobody can say, or nobody would hear of its end: go on without.
    Unavailable,
}

/// How the wait for one's turn ended.
#[derive(Debug)]
pub enum LockOutcome {
    /// Fill, for all sidecars.
    Locked(FillLock),
    /// Fill, for this sidecar alone.
    FillLocally,
    /// Another sidecar has filled, with this fate.
    Filled(RemoteOutcome),
}

impl ClusterFills {
    /// Coalescing over the Redis of this coherence; nothing without one. So many may wait, each for
    /// so long. Needs a tokio runtime; `tasks` carries what ends leases, for the drain to wait for.
    #[must_use]
    pub fn new(
        coherence: Arc<Coherence>,
        waiters: usize,
        wait: Duration,
        tasks: TaskTracker,
    ) -> Option<Arc<Self>> {
        let link = Arc::clone(coherence.records()?.client());
        let namespace = &link.settings().namespace;
        let (prefix, channel) = (format!("{{{namespace}}}:l:"), format!("{{{namespace}}}:filled"));
        let (board, counters) = (Arc::<Waiters>::default(), ClusterFillCounters::default());
        let ear = link.subscribe(channel.clone(), {
            let (board, gaps) = (Arc::clone(&board), Arc::clone(&counters.lags));
            move |heard| {
                if heard == BusEvent::Lagged {
                    gaps.inc();
                }
                board.on_event(&heard);
            }
        });
        let scripts = LockScripts {
            take: Script::new(&[include_str!("lua/take.lua")]),
            renew: Script::new(&[include_str!("lua/renew.lua")]),
            release: Script::new(&[include_str!("lua/release.lua")]),
        };
        let waiters = Arc::new(Semaphore::new(waiters.min(Semaphore::MAX_PERMITS)));
        Some(Arc::new(Self {
            client: link,
            coherence,
            subscriber: ear,
            waiting: board,
            scripts,
            prefix,
            channel: channel.into(),
            wait_permits: waiters,
            wait,
            tasks,
            counters,
        }))
    }

    /// Whether the ends of others' fills are heard.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.subscriber.is_listening()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.waiting.lock().values().map(Vec::len).sum()
    }

    /// Asks for the lease, and waits for the one who holds it. May be dropped at any time.
    pub async fn lock_or_wait(self: &Arc<Self>, name: FillName) -> LockOutcome {
        let turn = async {
            loop {
                match self.try_lock(name).await {
                    LockAttempt::Locked(lease) => return LockOutcome::Locked(lease),
                    LockAttempt::Unavailable => return LockOutcome::FillLocally,
                    LockAttempt::HeldElsewhere(waiting) => match waiting.finished().await {
                        WaitOutcome::Filled(fate) => return LockOutcome::Filled(fate),
                        WaitOutcome::Lagged => return LockOutcome::FillLocally,
                        // Its holder has renewed it, or has died, and somebody takes it over.
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

    /// Asks for the lease. May be dropped at any time.
    pub async fn try_lock(self: &Arc<Self>, name: FillName) -> LockAttempt {
        // Fail open: without Redis, or without an ear to hear of the end, each sidecar fills for
        // itself.
        if self.coherence.mode() != CoherenceMode::Shared {
            return LockAttempt::Unavailable;
        }
        // Registered first, and only then sure that the ear listens: a gap from here on wakes this
        // place.
        let place = self.waiting.register(name);
        if !self.is_listening() {
            return LockAttempt::Unavailable;
        }
        let Ok(permit) = Arc::clone(&self.wait_permits).try_acquire_owned() else {
            self.counters.waiters_rejected.inc();
            return LockAttempt::Unavailable;
        };
        // From before the call: whatever becomes of it, what may be ours is released.
        let mut lease = FillLock::new(self, name);
        let args = vec![lease.owner.clone(), millis(FILL_LOCK_TTL).to_string().into()];
        let Ok(ScriptReply::One(answer)) = self.run(&self.scripts.take, &lease.key, args).await
        else {
            return LockAttempt::Unavailable;
        };
        if *answer == *b"-" {
            self.counters.locks.inc();
            lease.start_renewal();
            return LockAttempt::Locked(lease);
        }
        lease.is_held = false;
        let left = std::str::from_utf8(&answer)
            .ok()
            .and_then(|left| left.parse().ok())
            .map(Duration::from_millis);
        match left.filter(|left| *left <= FILL_LOCK_TTL) {
            Some(left) => {
                self.counters.waits.inc();
                LockAttempt::HeldElsewhere(FillWait {
                    slot: place,
                    remaining: left,
                    _permit: permit,
                })
            }
            // No lease that was made here; it might never end.
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

/// The right to fetch a key for all sidecars. Dropped, it ends, and those who wait are told.
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
    fn new(across: &Arc<ClusterFills>, name: FillName) -> Self {
        let key = [across.prefix.as_str(), &hex(&name.0)].concat().into();
        let owner = Nonce::random().to_hex().into();
        Self {
            fills: Arc::clone(across),
            name,
            key,
            owner,
            is_held: true,
            outcome: RemoteOutcome::NotStored,
            renewal: None,
        }
    }

    /// What the others will be told.
    pub const fn set_outcome(&mut self, fate: RemoteOutcome) {
        self.outcome = fate;
    }

    /// Renews it from now on.
    fn start_renewal(&mut self) {
        let (across, key, owner) = (Arc::clone(&self.fills), self.key.clone(), self.owner.clone());
        self.renewal = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(FILL_LOCK_TTL / 3).await;
                // Fail open: unrenewed it ends, and another sidecar may ask the app as well.
                let _ = across
                    .run(
                        &across.scripts.renew,
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
        // Without a runtime nothing can be sent any more: it ends by itself.
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| self.is_held)
        else {
            return;
        };
        let (across, key) = (Arc::clone(&self.fills), self.key.clone());
        let publish = Bytes::from_static(across.client.publish_command().as_bytes());
        let args = vec![
            self.owner.clone(),
            across.channel.clone(),
            message(self.name, self.outcome),
            publish,
        ];
        let release = async move {
            // Fail open: unreleased it ends by itself.
            let _ = across.run(&across.scripts.release, &key, args).await;
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
    /// The lease would have ended by now if nobody had renewed it.
    LockExpired,
}

impl FillWait {
    /// Waits, at most until the lease would end.
    pub async fn finished(mut self) -> WaitOutcome {
        match tokio::time::timeout(self.remaining, &mut self.slot.outcome).await {
            Ok(Ok(fate)) => WaitOutcome::Filled(fate),
            Ok(Err(_)) => WaitOutcome::Lagged,
            Err(_) => WaitOutcome::LockExpired,
        }
    }
}

#[cfg(test)]
mod tests;
