//! Coalescing: one fill per key at a time; who asks meanwhile reads the same growing body.
//!
//! Invariants:
//! - At most one fill of a key is registered at a time. A fill's end in any way, a panic included, wakes everybody (`Lead` in `Drop`).
//! - A follower joins only a fill that read the same state of the same tags (`Read::may_join`): a purge in between starts a new fill.
//! - A follower shares only the variant that its own request asks for: the fill's `Vary` is known with its head, not before.
//! - No client's departure ends a fill that is going to be stored, and none ends another client's response.
//! - What the bodies of all fills keep is bounded by `limits.fills`.
//! - A fill that waits for another sidecar's ([`across`]) keeps its place: who asks meanwhile waits with it, and looks again with it.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`); who may not wait goes to the app alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use crate::cache::fills::cluster::{Fate, Lease};
use crate::clock::Wall;
use crate::coherence::Read;
use crate::outcome::Reason;
use crate::policy::key::KeyHash;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::Counter;

pub use crate::cache::fills::shared_body::{Budget, Growing, Pushed, Reader, Writing};

pub mod cluster;
mod shared_body;

/// For how long a key is known to be uncacheable, so that its requests do not queue for one another.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(10);

/// For how long after a failure of the app no background refresh of the key is begun.
const REST: Duration = Duration::from_secs(1);

/// An app that takes so long to fail is not waited for again while something stale can stand in: it is asked in the background.
const SLOW: Duration = Duration::from_secs(1);

/// For how long beyond its own duration such a failure is remembered.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// How often a fill that waits for another sidecar looks whether anybody still waits with it.
const GLANCE: Duration = Duration::from_millis(500);

/// How many such keys are remembered, of either kind.
const REMEMBERED: usize = 10_000;

/// What a fill is of: a key, and, where only its own caller may have the answer, that caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlightKey {
    /// The key's hash.
    pub hash: KeyHash,
    /// The credential that is not admitted.
    pub caller: Option<[u8; 32]>,
}

/// The head of a fill that may be shared.
#[derive(Clone, Debug)]
pub struct SharedHead {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without what only the leader may have.
    pub headers: HeaderMap,
    /// Seconds of freshness at the start.
    pub ttl: i64,
    /// Whether it is a stored response that the app has confirmed.
    pub revalidated: bool,
    /// Whether its response named tags that the request did not tell.
    pub more_tags: bool,
    /// The headers that the response varies by.
    pub vary: VarySpec,
    /// The key of the variant that the leader asked for.
    pub variant: KeyHash,
}

/// How far a fill is.
#[derive(Clone, Debug)]
enum Stage {
    /// The app has not answered yet.
    Asked,
    /// The head may be shared, and the body grows.
    Open(Arc<SharedHead>, Growing),
    /// What came is not for sharing: followers go alone.
    Alone,
    /// Another sidecar has filled: what it made may be in the store.
    LookAgain,
    /// The app did not answer.
    Failed(Reason),
}

/// A failure of the app to answer for a key.
#[derive(Clone, Copy, Debug)]
struct Failure {
    reason: Reason,
    took: Duration,
    at: Wall,
}

#[derive(Debug)]
struct Flight {
    read: Read,
    stage: watch::Receiver<Stage>,
}

/// What a follower got to hear.
#[derive(Debug)]
pub enum Joined {
    /// The same response, as it comes.
    Shared(Arc<SharedHead>, Reader),
    /// A response that varies, and this is not the follower's variant.
    OtherVariant(Arc<SharedHead>),
    /// Go to the app alone.
    Alone,
    /// Another sidecar has filled: look into the store again.
    LookAgain,
    /// The app did not answer the leader.
    Failed(Reason),
}

/// What to do about a key that is not stored.
#[derive(Debug)]
pub enum Part {
    /// Fetch it, for all.
    Lead(Lead),
    /// Wait for the one who fetches it.
    Follow(Follow),
    /// Fetch it for oneself.
    Alone,
}

/// Counts of what coalescing does.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Fills begun.
    pub fills: Arc<Counter>,
    /// Requests that joined a fill.
    pub collapsed: Arc<Counter>,
    /// Requests that went alone because too many wait.
    pub crowded: Arc<Counter>,
    /// Requests that went alone because they waited too long.
    pub waited_out: Arc<Counter>,
}

/// All fills under way.
#[derive(Debug)]
pub struct Flights {
    map: Mutex<HashMap<FlightKey, Arc<Flight>>>,
    uncacheable: Cache<FlightKey, Wall>,
    failed: Cache<FlightKey, Failure>,
    waiters: Arc<Semaphore>,
    most_waiters: usize,
    wait: Duration,
    /// What the bodies of all fills may keep.
    pub budget: Budget,
    /// What it has done.
    pub counters: Counters,
}

impl Flights {
    /// No fills yet; so many followers in all may wait for so long, and all bodies together keep so many bytes.
    #[must_use]
    pub fn new(waiters: usize, wait: Duration, bytes: u64) -> Arc<Self> {
        let most_waiters = waiters.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            map: Mutex::default(),
            uncacheable: Cache::new(REMEMBERED),
            failed: Cache::new(REMEMBERED),
            waiters: Arc::new(Semaphore::new(most_waiters)),
            most_waiters,
            wait,
            budget: Budget::new(bytes),
            counters: Counters::default(),
        })
    }

    /// Which part a request takes that read this of its tags.
    #[must_use]
    pub fn part(self: &Arc<Self>, key: FlightKey, read: &Read, now: Wall) -> Part {
        if matches!(read, Read::Unproven) || self.is_uncacheable(&key, now) {
            return Part::Alone;
        }
        let mut map = self.lock();
        if let Some(flight) = map.get(&key) {
            // More tags may turn up in the response; that is looked at when its head is there.
            if read.may_join(&flight.read, false) {
                let Ok(permit) = Arc::clone(&self.waiters).try_acquire_owned() else {
                    self.counters.crowded.inc();
                    return Part::Alone;
                };
                return Part::Follow(Follow { flight: Arc::clone(flight), wait: self.wait, flights: Arc::clone(self), _permit: permit });
            }
        }
        // A fill that began before a purge makes room for this one; its own followers stay with it.
        let (tell, stage) = watch::channel(Stage::Asked);
        let flight = Arc::new(Flight { read: read.clone(), stage });
        map.insert(key, Arc::clone(&flight));
        self.counters.fills.inc();
        Part::Lead(Lead { key, flight, tell, flights: Arc::clone(self), lease: None })
    }

    /// Whether the app failed to answer for this key a moment ago.
    #[must_use]
    pub fn is_resting(&self, key: &FlightKey, now: Wall) -> bool {
        self.failed.get(key).is_some_and(|failure| now < failure.at.after(REST))
    }

    /// Why the app took long to fail for this key lately, if it did: it is better asked in the background.
    #[must_use]
    pub fn failed_slowly(&self, key: &FlightKey, now: Wall) -> Option<Reason> {
        let failure = self.failed.get(key)?;
        (failure.took >= SLOW && now < failure.at.after(failure.took + SLOW_FOR)).then_some(failure.reason)
    }

    /// A response under this key is stored: its requests wait for one another again.
    pub fn is_cacheable(&self, hash: KeyHash) {
        self.uncacheable.remove(&FlightKey { hash, caller: None });
    }

    fn is_uncacheable(&self, key: &FlightKey, now: Wall) -> bool {
        match self.uncacheable.get(key) {
            Some(until) if now < until => true,
            Some(_) => {
                self.uncacheable.remove(key);
                false
            }
            None => false,
        }
    }

    /// How many fills are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many requests wait for the head of a fill.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.most_waiters - self.waiters.available_permits()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FlightKey, Arc<Flight>>> {
        // The map is whole between any two statements that could panic.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to fetch a key for all. Dropped, it ends the fill and wakes everybody.
#[derive(Debug)]
pub struct Lead {
    key: FlightKey,
    flight: Arc<Flight>,
    tell: watch::Sender<Stage>,
    flights: Arc<Flights>,
    /// The same right among all sidecars. It ends after the flight, and so when what was to be stored is stored.
    lease: Option<Lease>,
}

impl Lead {
    /// The app has answered: what it failed before is forgotten.
    pub fn answered(&self) {
        self.flights.failed.remove(&self.key);
    }

    /// The same for all sidecars.
    #[must_use]
    pub fn leased(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Ends when nobody in this process follows. Somebody may begin to at any time.
    pub async fn deserted(&self) {
        // One receiver is the flight's own, by which followers join. They have their own bound on waiting.
        while self.tell.receiver_count() > 1 {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// What came is stored.
    pub const fn stored(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.ends_as(Fate::Stored);
        }
    }

    /// Another sidecar has filled: everybody looks into the store again.
    pub fn look_again(mut self) {
        self.stored();
        self.tell.send_replace(Stage::LookAgain);
    }

    /// The head may be shared: followers read along from here on.
    pub fn open(&self, head: SharedHead, body: Growing) {
        self.tell.send_replace(Stage::Open(Arc::new(head), body));
    }

    /// The body turned out too large to be stored, after it was shared. The key is remembered as uncacheable, and other sidecars wait no
    /// longer.
    pub fn remember_uncacheable(&mut self, now: Wall) {
        self.flights.uncacheable.insert(self.key, now.after(UNCACHEABLE_FOR));
        if let Some(mut lease) = self.lease.take() {
            lease.ends_as(Fate::Uncacheable);
        }
    }

    /// What came is not for sharing. The key is remembered, so that its next requests do not queue.
    pub fn uncacheable(mut self, now: Wall) {
        self.remember_uncacheable(now);
        self.tell.send_replace(Stage::Alone);
    }

    /// What came is not for sharing, but the next one may be.
    pub fn not_shared(self) {
        self.tell.send_replace(Stage::Alone);
    }

    /// The app did not answer, or with a failure, after so long. It is remembered for a while.
    pub fn fail(self, reason: Reason, took: Duration, now: Wall) {
        self.flights.failed.insert(self.key, Failure { reason, took, at: now });
        self.tell.send_replace(Stage::Failed(reason));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut map = self.flights.lock();
        // A newer fill may have taken the place.
        if map.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            map.remove(&self.key);
        }
        drop(map);
        self.tell.send_if_modified(|stage| {
            let unresolved = matches!(stage, Stage::Asked);
            if unresolved {
                *stage = Stage::Alone;
            }
            unresolved
        });
    }
}

/// A place among the followers of a fill.
#[derive(Debug)]
pub struct Follow {
    flight: Arc<Flight>,
    wait: Duration,
    flights: Arc<Flights>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Follow {
    /// Waits for the fill's head. `read` is the follower's own reading of its tags; `variant` tells the key of its own variant.
    pub async fn join(self, read: &Read, variant: impl Fn(&VarySpec) -> KeyHash) -> Joined {
        let mut stage = self.flight.stage.clone();
        let answer = tokio::time::timeout(self.wait, stage.wait_for(|stage| !matches!(stage, Stage::Asked))).await;
        let joined = match answer.map(|stage| stage.map(|stage| stage.clone())) {
            // SECURITY: the leader may have been answered in another language, or as another user.
            Ok(Ok(Stage::Open(head, _))) if variant(&head.vary) != head.variant => Joined::OtherVariant(head),
            Ok(Ok(Stage::Open(head, body))) if read.may_join(&self.flight.read, head.more_tags) => match body.reader() {
                Some(reader) => Joined::Shared(head, reader),
                None => Joined::Alone,
            },
            Ok(Ok(Stage::LookAgain)) => Joined::LookAgain,
            Ok(Ok(Stage::Failed(reason))) => Joined::Failed(reason),
            Ok(_) => Joined::Alone,
            Err(_) => {
                self.flights.counters.waited_out.inc();
                Joined::Alone
            }
        };
        if matches!(joined, Joined::Shared(..)) {
            self.flights.counters.collapsed.inc();
        }
        joined
    }
}

impl Joined {
    /// Whether the follower has to go to the app.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self, Self::Alone)
    }
}

#[cfg(test)]
mod tests;
