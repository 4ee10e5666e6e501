//! Coalescing: one fill per key at a time; requests that arrive during it read the same shared
//! body.
//!
//! Invariants:
//! - At most one fill of a key is registered at a time. However a fill ends, even by a panic, all
//!   its followers are woken (`Leader` in `Drop`).
//! - A follower joins only a fill that took the same snapshot of the same tags
//!   (`TagSnapshot::may_join`): after a purge, a new fill starts.
//! - A follower shares only the variant that its own request selects: the `Vary` of a fill is known
//!   only when its head has arrived.
//! - A client that leaves neither ends a fill that is going to be stored, nor another client's
//!   response.
//! - `limits.fills` bounds the bytes that the bodies of all fills keep.
//! - A fill that waits for another sidecar's ([`cluster`]) stays registered: requests that arrive
//!   meanwhile wait with it, and then repeat the lookup with it.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`); a request that may
//!   not wait goes to the origin alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use crate::cache::fills::cluster::{FillLock, RemoteOutcome};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::key::KeyHash;
use crate::semantics::digest::Digest;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::Counter;

pub use crate::cache::fills::shared_body::{
    BodyReader, BodyWriter, Budget, PushOutcome, SharedBody,
};

pub mod cluster;
mod shared_body;

/// How long a key counts as uncacheable, so that its requests do not wait for one another.
const UNCACHEABLE_TTL: Duration = Duration::from_secs(10);

/// How long no background refresh of a key starts after the origin has failed.
const REFRESH_BACKOFF: Duration = Duration::from_secs(1);

/// If the origin takes this long to fail, requests do not wait for it again while a stale response
/// can stand in: the next fetch runs in the background.
const SLOW_FAILURE: Duration = Duration::from_secs(1);

/// How long such a failure is remembered, in addition to its own duration.
const SLOW_FAILURE_TTL: Duration = Duration::from_secs(10);

/// How often a fill that waits for another sidecar checks whether it still has followers.
const FOLLOWER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How many uncacheable keys are remembered, and how many failures.
const MAX_REMEMBERED_KEYS: usize = 10_000;

/// What a fill is for: a key and, if only one caller may have the response, that caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillKey {
    /// The key's hash.
    pub hash: KeyHash,
    /// The credential of a client that is not authorized for shared entries.
    pub caller: Option<[u8; 32]>,
}

/// The head of a fill that may be shared.
#[derive(Clone, Debug)]
pub struct SharedHead {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those that only the leader may have.
    pub headers: HeaderMap,
    /// Seconds of freshness at the start.
    pub ttl: i64,
    /// Whether it is a stored response that the origin has revalidated.
    pub revalidated: bool,
    /// Whether the response has tags that do not follow from the request.
    pub more_tags: bool,
    /// The headers that the response varies on.
    pub vary: VarySpec,
    /// The key of the variant that the leader requested.
    pub variant: KeyHash,
    /// The digest of this status, this head and the body, where clients are authorized by it and it
    /// is known already: the origin has confirmed what is stored.
    pub digest: Option<Digest>,
}

/// The progress of a fill.
#[derive(Clone, Debug)]
enum FillStage {
    /// The origin has not responded yet.
    Fetching,
    /// The head may be shared, and the body is arriving.
    Open(Arc<SharedHead>, SharedBody),
    /// The response may not be shared: followers go alone.
    Alone,
    /// Another sidecar has filled the key: its response may be in the store.
    RetryLookup,
    /// The origin did not respond.
    Failed(Reason),
}

/// A failure of the origin to respond for a key.
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

/// The result of following a fill.
#[derive(Debug)]
pub enum JoinOutcome {
    /// The same response, as it arrives.
    Shared(Arc<SharedHead>, BodyReader),
    /// A response that varies, in another variant than the follower's.
    OtherVariant(Arc<SharedHead>),
    /// A response that this follower may not share with the leader.
    OtherCaller,
    /// Fetch from the origin alone.
    Alone,
    /// Another sidecar has filled the key: repeat the lookup.
    RetryLookup,
    /// The origin did not respond to the leader.
    Failed(Reason),
}

/// The validators of a stored response: `ETag`, and without it `Last-Modified`.
type Validators = Option<HeaderValue>;

fn validators(stored: &HeaderMap) -> Validators {
    stored.get(ETAG).or_else(|| stored.get(LAST_MODIFIED)).cloned()
}

/// The part that a request takes in filling a key.
#[derive(Debug)]
pub enum FillRole {
    /// Fetch it, for all.
    Leader(Leader),
    /// Wait for the leader.
    Follower(Follower),
    /// Fetch it for this request only.
    Alone,
}

/// Counts of what coalescing does.
#[derive(Clone, Debug, Default)]
pub struct FillCounters {
    /// Fills begun.
    pub fills: Arc<Counter>,
    /// Requests that joined a fill.
    pub collapsed: Arc<Counter>,
    /// Requests that went alone because too many were waiting.
    pub waiters_rejected: Arc<Counter>,
    /// Requests that went alone because they waited too long.
    pub wait_timeouts: Arc<Counter>,
}

/// All fills in flight.
#[derive(Debug)]
pub struct Fills {
    map: Mutex<HashMap<FillKey, Arc<Fill>>>,
    uncacheable: Cache<FillKey, Wall>,
    refused: Cache<FillKey, Wall>,
    unconfirmed: Cache<KeyHash, Validators>,
    failed: Cache<FillKey, FetchFailure>,
    waiters: Arc<Semaphore>,
    most_waiters: usize,
    wait: Duration,
    /// The bytes that the bodies of all fills may keep.
    pub budget: Budget,
    /// What coalescing has done.
    pub counters: FillCounters,
}

impl Fills {
    /// No fills yet. At most `waiters` followers in all wait, each at most for `wait`, and all
    /// bodies together keep at most `bytes`.
    #[must_use]
    pub fn new(waiters: usize, wait: Duration, bytes: u64) -> Arc<Self> {
        let most_waiters = waiters.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            map: Mutex::default(),
            uncacheable: Cache::new(MAX_REMEMBERED_KEYS),
            refused: Cache::new(MAX_REMEMBERED_KEYS),
            unconfirmed: Cache::new(MAX_REMEMBERED_KEYS),
            failed: Cache::new(MAX_REMEMBERED_KEYS),
            waiters: Arc::new(Semaphore::new(most_waiters)),
            most_waiters,
            wait,
            budget: Budget::new(bytes),
            counters: FillCounters::default(),
        })
    }

    /// The part that a request with this snapshot of its tags takes.
    #[must_use]
    pub fn role(self: &Arc<Self>, key: FillKey, snapshot: &TagSnapshot, now: Wall) -> FillRole {
        if matches!(snapshot, TagSnapshot::Unverifiable) || self.is_uncacheable(&key, now) {
            return FillRole::Alone;
        }
        let mut map = self.lock();
        if let Some(fill) = map.get(&key) {
            // The response may bring more tags; `Follower::join` checks that when the head is
            // there.
            if snapshot.may_join(&fill.snapshot, false) {
                let Ok(permit) = Arc::clone(&self.waiters).try_acquire_owned() else {
                    self.counters.waiters_rejected.inc();
                    return FillRole::Alone;
                };
                return FillRole::Follower(Follower {
                    fill: Arc::clone(fill),
                    wait: self.wait,
                    fills: Arc::clone(self),
                    _permit: permit,
                });
            }
        }
        // A fill that began before a purge is replaced by this one; its followers stay with it.
        let (sender, stage) = watch::channel(FillStage::Fetching);
        let fill = Arc::new(Fill { snapshot: snapshot.clone(), stage });
        map.insert(key, Arc::clone(&fill));
        self.counters.fills.inc();
        FillRole::Leader(Leader { key, fill, stage: sender, fills: Arc::clone(self), lock: None })
    }

    /// The origin refused the request of a fill: for a while no fill of the key is tried.
    pub fn refuse(&self, key: FillKey, now: Wall) {
        self.refused.insert(key, now.after(UNCACHEABLE_TTL));
    }

    /// Whether the origin refused the request of a fill of this key a moment ago.
    #[must_use]
    pub fn is_refused(&self, key: &FillKey, now: Wall) -> bool {
        self.refused.get(key).is_some_and(|until| now < until)
    }

    /// The origin answered the validators of this stored head with a 304 that confirms something
    /// else: they are not sent again.
    pub fn mark_unconfirmed(&self, hash: KeyHash, stored: &HeaderMap) {
        self.unconfirmed.insert(hash, validators(stored));
    }

    /// Whether the validators of this stored head have failed to confirm it.
    #[must_use]
    pub fn is_unconfirmed(&self, hash: KeyHash, stored: &HeaderMap) -> bool {
        self.unconfirmed.get(&hash).is_some_and(|failed| failed == validators(stored))
    }

    /// Whether the origin failed to respond for this key a moment ago.
    #[must_use]
    pub fn is_backing_off(&self, key: &FillKey, now: Wall) -> bool {
        self.failed.get(key).is_some_and(|failure| now < failure.at.after(REFRESH_BACKOFF))
    }

    /// Why the origin recently took long to fail for this key, if it did: the next fetch should run
    /// in the background.
    #[must_use]
    pub fn failed_slowly(&self, key: &FillKey, now: Wall) -> Option<Reason> {
        let failure = self.failed.get(key)?;
        (failure.fetch_duration >= SLOW_FAILURE
            && now < failure.at.after(failure.fetch_duration + SLOW_FAILURE_TTL))
        .then_some(failure.reason)
    }

    /// A response under this key was stored: its requests may wait for one another again.
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

    /// The number of fills in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// The number of requests that wait for the head of a fill.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.most_waiters - self.waiters.available_permits()
    }

    /// Whether no fill is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<FillKey, Arc<Fill>>> {
        // The map is consistent between any two statements that could panic.
        self.map.lock()
    }
}

/// The right to fetch a key for all. Dropping it ends the fill and wakes all followers.
#[derive(Debug)]
pub struct Leader {
    key: FillKey,
    fill: Arc<Fill>,
    stage: watch::Sender<FillStage>,
    fills: Arc<Fills>,
    /// The lock among all sidecars. It is released after the fill has ended, and so after the
    /// response is stored.
    lock: Option<FillLock>,
}

impl Leader {
    /// The origin has responded: forgets its earlier failure.
    pub fn clear_failure(&self) {
        self.fills.failed.remove(&self.key);
    }

    /// Adds the lock among all sidecars.
    #[must_use]
    pub fn with_lock(mut self, lock: FillLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Returns when no request of this process follows. New followers may still join.
    pub async fn until_no_followers(&self) {
        // The fill itself holds one receiver, from which followers clone theirs. Their own waiting
        // is bounded.
        while self.has_followers() {
            tokio::time::sleep(FOLLOWER_CHECK_INTERVAL).await;
        }
    }

    /// Whether a request of this process follows.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        self.stage.receiver_count() > 1
    }

    /// The response was stored.
    pub const fn mark_stored(&mut self) {
        if let Some(lock) = &mut self.lock {
            lock.set_outcome(RemoteOutcome::Stored);
        }
    }

    /// Another sidecar has filled the key: all followers repeat the lookup.
    pub fn retry_lookup(mut self) {
        self.mark_stored();
        self.finish(FillStage::RetryLookup);
    }

    /// The head may be shared: followers read the body from here on.
    pub fn share(&self, head: SharedHead, body: SharedBody) {
        self.stage.send_replace(FillStage::Open(Arc::new(head), body));
    }

    /// The body turned out too large to be stored, after it was shared. Remembers the key as
    /// uncacheable, and releases the waiters of other sidecars.
    pub fn remember_uncacheable(&mut self, now: Wall) {
        self.fills.uncacheable.insert(self.key, now.after(UNCACHEABLE_TTL));
        if let Some(mut lock) = self.lock.take() {
            lock.set_outcome(RemoteOutcome::Uncacheable);
        }
    }

    /// The response may not be shared. Remembers the key, so that its next requests do not wait.
    pub fn finish_uncacheable(mut self, now: Wall) {
        self.remember_uncacheable(now);
        self.finish(FillStage::Alone);
    }

    /// The response may not be shared, but the next one may be.
    pub fn finish_unshared(self) {
        self.finish(FillStage::Alone);
    }

    /// The app did not answer, or with a failure, after so long. It is remembered for a while.
    pub fn fail(self, reason: Reason, took: Duration, now: Wall) {
        self.fills.failed.insert(self.key, FetchFailure { reason, fetch_duration: took, at: now });
        self.finish(FillStage::Failed(reason));
    }

    /// Ends the fill for its followers. It is unregistered before they wake: otherwise a follower
    /// that repeats its lookup at once would join the fill that has just failed.
    fn finish(&self, stage: FillStage) {
        self.leave();
        self.stage.send_replace(stage);
    }

    /// Unregisters the fill: from here on a request for the key starts a new one.
    fn leave(&self) {
        let mut map = self.fills.lock();
        // A newer fill may have taken the place.
        if map.get(&self.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
            map.remove(&self.key);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.leave();
        self.stage.send_if_modified(|stage| {
            let unresolved = matches!(stage, FillStage::Fetching);
            if unresolved {
                *stage = FillStage::Alone;
            }
            unresolved
        });
    }
}

/// A follower of a fill.
#[derive(Debug)]
pub struct Follower {
    fill: Arc<Fill>,
    wait: Duration,
    fills: Arc<Fills>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for the head of the fill. `snapshot` is the follower's own of its tags; `variant`
    /// computes the key of its own variant; `may_share` says whether it may have this response.
    pub async fn join(
        self,
        snapshot: &TagSnapshot,
        variant: impl Fn(&VarySpec) -> KeyHash,
        may_share: impl Fn(&SharedHead) -> bool,
    ) -> JoinOutcome {
        let mut stage = self.fill.stage.clone();
        let ended = tokio::time::timeout(
            self.wait,
            stage.wait_for(|stage| !matches!(stage, FillStage::Fetching)),
        )
        .await;
        let joined = match ended.map(|stage| stage.map(|stage| stage.clone())) {
            // SECURITY: the leader's response may be in another language, or for another user.
            Ok(Ok(FillStage::Open(head, _))) if variant(&head.vary) != head.variant => {
                JoinOutcome::OtherVariant(head)
            }
            // SECURITY: the leader's response may be for its own caller alone.
            Ok(Ok(FillStage::Open(head, _))) if !may_share(&head) => JoinOutcome::OtherCaller,
            Ok(Ok(FillStage::Open(head, body)))
                if snapshot.may_join(&self.fill.snapshot, head.more_tags) =>
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
    /// Whether the follower has to fetch from the origin.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self, Self::Alone)
    }
}

#[cfg(test)]
mod tests;
