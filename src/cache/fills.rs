//! Coalescing: one fill per key at a time; who asks meanwhile reads the same growing body.
//!
//! Invariants:
//! - At most one fill of a key is registered at a time. A fill's end in any way, a panic included,
//!   wakes everybody (`Leader` in `Drop`).
//! - A follower joins only a fill that read the same state of the same tags
//!   (`TagSnapshot::may_join`): a purge in between starts a new fill.
//! - A follower shares only the variant that its own request asks for: the fill's `Vary` is known
//!   with its head, not before.
//! - No client's departure ends a fill that is going to be stored, and none ends another client's
//!   response.
//! - What the bodies of all fills keep is bounded by `limits.fills`.
//! - A fill that waits for another sidecar's ([`across`]) keeps its place: who asks meanwhile waits
//!   with it, and looks again with it.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`); who may not wait
//!   goes to the app alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use crate::cache::fills::cluster::{FillLock, RemoteOutcome};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::key::KeyHash;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::Counter;

pub use crate::cache::fills::shared_body::{
    BodyReader, BodyWriter, Budget, PushOutcome, SharedBody,
};

pub mod cluster;
mod shared_body;

/// For how long a key is known to be uncacheable, so that its requests do not queue for one
/// another.
const UNCACHEABLE_TTL: Duration = Duration::from_secs(10);

/// For how long after a failure of the app no background refresh of the key is begun.
const REFRESH_BACKOFF: Duration = Duration::from_secs(1);

/// An app that takes so long to fail is not waited for again while something stale can stand in: it
/// is asked in the background.
const SLOW_FAILURE: Duration = Duration::from_secs(1);

/// For how long beyond its own duration such a failure is remembered.
const SLOW_FAILURE_TTL: Duration = Duration::from_secs(10);

/// How often a fill that waits for another sidecar looks whether anybody still waits with it.
const FOLLOWER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How many such keys are remembered, of either kind.
const MAX_REMEMBERED_KEYS: usize = 10_000;

/// What a fill is of: a key, and, where only its own caller may have the answer, that caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillKey {
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
enum FillStage {
    /// The app has not answered yet.
    Fetching,
    /// The head may be shared, and the body grows.
    Open(Arc<SharedHead>, SharedBody),
    /// What came is not for sharing: followers go alone.
    Alone,
    /// Another sidecar has filled: what it made may be in the store.
    RetryLookup,
    /// The app did not answer.
    Failed(Reason),
}

/// A failure of the app to answer for a key.
#[derive(Clone, Copy, Debug)]
struct FetchFailure {
    reason: Reason,
    fetch_duration: Duration,
    at: Wall,
}

#[derive(Debug)]
struct Fill {
    snapshot: TagSnapshot,
    stage: watch::Receiver<FillStage>,
}

/// What a follower got to hear.
#[derive(Debug)]
pub enum JoinOutcome {
    /// The same response, as it comes.
    Shared(Arc<SharedHead>, BodyReader),
    /// A response that varies, and this is not the follower's variant.
    OtherVariant(Arc<SharedHead>),
    /// Go to the app alone.
    Alone,
    /// Another sidecar has filled: look into the store again.
    RetryLookup,
    /// The app did not answer the leader.
    Failed(Reason),
}

/// What to do about a key that is not stored.
#[derive(Debug)]
pub enum FillRole {
    /// Fetch it, for all.
    Leader(Leader),
    /// Wait for the one who fetches it.
    Follower(Follower),
    /// Fetch it for oneself.
    Alone,
}

/// Counts of what coalescing does.
#[derive(Clone, Debug, Default)]
pub struct FillCounters {
    /// Fills begun.
    pub fills: Arc<Counter>,
    /// Requests that joined a fill.
    pub collapsed: Arc<Counter>,
    /// Requests that went alone because too many wait.
    pub waiters_rejected: Arc<Counter>,
    /// Requests that went alone because they waited too long.
    pub wait_timeouts: Arc<Counter>,
}

/// All fills under way.
#[derive(Debug)]
pub struct Fills {
    map: Mutex<HashMap<FillKey, Arc<Fill>>>,
    uncacheable: Cache<FillKey, Wall>,
    failed: Cache<FillKey, FetchFailure>,
    waiters: Arc<Semaphore>,
    most_waiters: usize,
    wait: Duration,
    /// What the bodies of all fills may keep.
    pub budget: Budget,
    /// What it has done.
    pub counters: FillCounters,
}

impl Fills {
    /// No fills yet; so many followers in all may wait for so long, and all bodies together keep so
    /// many bytes.
    #[must_use]
    pub fn new(waiters: usize, wait: Duration, bytes: u64) -> Arc<Self> {
        let most_waiters = waiters.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            map: Mutex::default(),
            uncacheable: Cache::new(MAX_REMEMBERED_KEYS),
            failed: Cache::new(MAX_REMEMBERED_KEYS),
            waiters: Arc::new(Semaphore::new(most_waiters)),
            most_waiters,
            wait,
            budget: Budget::new(bytes),
            counters: FillCounters::default(),
        })
    }

    /// Which part a request takes that read this of its tags.
    #[must_use]
    pub fn role(self: &Arc<Self>, key: FillKey, read: &TagSnapshot, now: Wall) -> FillRole {
        if matches!(read, TagSnapshot::Unverifiable) || self.is_uncacheable(&key, now) {
            return FillRole::Alone;
        }
        let mut map = self.map.lock();
        if let Some(flight) = map.get(&key) {
            // More tags may turn up in the response; that is looked at when its head is there.
            if read.may_join(&flight.snapshot, false) {
                let Ok(permit) = Arc::clone(&self.waiters).try_acquire_owned() else {
                    self.counters.waiters_rejected.inc();
                    return FillRole::Alone;
                };
                return FillRole::Follower(Follower {
                    fill: Arc::clone(flight),
                    wait: self.wait,
                    fills: Arc::clone(self),
                    _permit: permit,
                });
            }
        }
        // A fill that began before a purge makes room for this one; its own followers stay with it.
        let (tell, stage) = watch::channel(FillStage::Fetching);
        let flight = Arc::new(Fill { snapshot: read.clone(), stage });
        map.insert(key, Arc::clone(&flight));
        self.counters.fills.inc();
        FillRole::Leader(Leader {
            key,
            fill: flight,
            stage: tell,
            fills: Arc::clone(self),
            lock: None,
        })
    }

    /// Whether the app failed to answer for this key a moment ago.
    #[must_use]
    pub fn is_backing_off(&self, key: &FillKey, now: Wall) -> bool {
        self.failed.get(key).is_some_and(|failure| now < failure.at.after(REFRESH_BACKOFF))
    }

    /// Why the app took long to fail for this key lately, if it did: it is better asked in the
    /// background.
    #[must_use]
    pub fn failed_slowly(&self, key: &FillKey, now: Wall) -> Option<Reason> {
        let failure = self.failed.get(key)?;
        (failure.fetch_duration >= SLOW_FAILURE
            && now < failure.at.after(failure.fetch_duration + SLOW_FAILURE_TTL))
        .then_some(failure.reason)
    }

    /// A response under this key is stored: its requests wait for one another again.
    pub fn mark_cacheable(&self, hash: KeyHash) {
        self.uncacheable.remove(&FillKey { hash, caller: None });
    }

    fn is_uncacheable(&self, key: &FillKey, now: Wall) -> bool {
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
        self.map.lock().len()
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
}

/// The right to fetch a key for all. Dropped, it ends the fill and wakes everybody.
#[derive(Debug)]
pub struct Leader {
    key: FillKey,
    fill: Arc<Fill>,
    stage: watch::Sender<FillStage>,
    fills: Arc<Fills>,
    /// The same right among all sidecars. It ends after the flight, and so when what was to be
    /// stored is stored.
    lock: Option<FillLock>,
}

impl Leader {
    /// The app has answered: what it failed before is forgotten.
    pub fn clear_failure(&self) {
        self.fills.failed.remove(&self.key);
    }

    /// The same for all sidecars.
    #[must_use]
    pub fn with_lock(mut self, lease: FillLock) -> Self {
        self.lock = Some(lease);
        self
    }

    /// Ends when nobody in this process follows. Somebody may begin to at any time.
    pub async fn until_no_followers(&self) {
        // One receiver is the flight's own, by which followers join. They have their own bound on
        // waiting.
        while self.stage.receiver_count() > 1 {
            tokio::time::sleep(FOLLOWER_CHECK_INTERVAL).await;
        }
    }

    /// What came is stored.
    pub const fn mark_stored(&mut self) {
        if let Some(lease) = &mut self.lock {
            lease.set_outcome(RemoteOutcome::Stored);
        }
    }

    /// Another sidecar has filled: everybody looks into the store again.
    pub fn retry_lookup(mut self) {
        self.mark_stored();
        self.stage.send_replace(FillStage::RetryLookup);
    }

    /// The head may be shared: followers read along from here on.
    pub fn share(&self, head: SharedHead, body: SharedBody) {
        self.stage.send_replace(FillStage::Open(Arc::new(head), body));
    }

    /// The body turned out too large to be stored, after it was shared. The key is remembered as
    /// uncacheable, and other sidecars wait no longer.
    pub fn remember_uncacheable(&mut self, now: Wall) {
        self.fills.uncacheable.insert(self.key, now.after(UNCACHEABLE_TTL));
        if let Some(mut lease) = self.lock.take() {
            lease.set_outcome(RemoteOutcome::Uncacheable);
        }
    }

    /// What came is not for sharing. The key is remembered, so that its next requests do not queue.
    pub fn finish_uncacheable(mut self, now: Wall) {
        self.remember_uncacheable(now);
        self.stage.send_replace(FillStage::Alone);
    }

    /// What came is not for sharing, but the next one may be.
    pub fn finish_unshared(self) {
        self.stage.send_replace(FillStage::Alone);
    }

    /// The app did not answer, or with a failure, after so long. It is remembered for a while.
    pub fn fail(self, reason: Reason, took: Duration, now: Wall) {
        self.fills.failed.insert(self.key, FetchFailure { reason, fetch_duration: took, at: now });
        self.stage.send_replace(FillStage::Failed(reason));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut map = self.fills.map.lock();
        // A newer fill may have taken the place.
        if map.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.fill)) {
            map.remove(&self.key);
        }
        drop(map);
        self.stage.send_if_modified(|stage| {
            let unresolved = matches!(stage, FillStage::Fetching);
            if unresolved {
                *stage = FillStage::Alone;
            }
            unresolved
        });
    }
}

/// A place among the followers of a fill.
#[derive(Debug)]
pub struct Follower {
    fill: Arc<Fill>,
    wait: Duration,
    fills: Arc<Fills>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for the fill's head. `read` is the follower's own reading of its tags; `variant` tells
    /// the key of its own variant.
    pub async fn join(
        self,
        read: &TagSnapshot,
        variant: impl Fn(&VarySpec) -> KeyHash,
    ) -> JoinOutcome {
        let mut stage = self.fill.stage.clone();
        let answer = tokio::time::timeout(
            self.wait,
            stage.wait_for(|stage| !matches!(stage, FillStage::Fetching)),
        )
        .await;
        let joined = match answer.map(|stage| stage.map(|stage| stage.clone())) {
            // SECURITY: the leader may have been answered in another language, or as another user.
            Ok(Ok(FillStage::Open(head, _))) if variant(&head.vary) != head.variant => {
                JoinOutcome::OtherVariant(head)
            }
            Ok(Ok(FillStage::Open(head, body)))
                if read.may_join(&self.fill.snapshot, head.more_tags) =>
            {
                match body.reader() {
                    Some(reader) => JoinOutcome::Shared(head, reader),
                    None => JoinOutcome::Alone,
                }
            }
            Ok(Ok(FillStage::RetryLookup)) => JoinOutcome::RetryLookup,
            Ok(Ok(FillStage::Failed(reason))) => JoinOutcome::Failed(reason),
            Ok(_) => JoinOutcome::Alone,
            Err(_) => {
                self.fills.counters.wait_timeouts.inc();
                JoinOutcome::Alone
            }
        };
        if matches!(joined, JoinOutcome::Shared(..)) {
            self.fills.counters.collapsed.inc();
        }
        joined
    }
}

impl JoinOutcome {
    /// Whether the follower has to go to the app.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self, Self::Alone)
    }
}

#[cfg(test)]
mod tests;
