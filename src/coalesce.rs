//! Coalescing: one fill per key at a time; who asks meanwhile reads the same growing body.
//!
//! Invariants:
//! - At most one fill of a key is registered at a time. A fill's end in any way, a panic included, wakes everybody (`Lead` in `Drop`).
//! - A follower joins only a fill that read the same state of the same tags (`Read::may_join`): a purge in between starts a new fill.
//! - A follower shares only the variant that its own request asks for: the fill's `Vary` is known with its head, not before.
//! - No client's departure ends a fill that is going to be stored, and none ends another client's response.
//! - What the bodies of all fills keep is bounded by `limits.fills`.
//! - Waiting is bounded in number (`limits.waiters`) and time (`limits.wait`); who may not wait goes to the app alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use crate::clock::Wall;
use crate::coherence::Read;
use crate::key::KeyHash;
use crate::metrics::Counter;
use crate::outcome::Reason;
use crate::vary::VarySpec;

pub use crate::coalesce::growing::{Budget, Growing, Pushed, Reader, Writing};

mod growing;

/// For how long a key is known to be uncacheable, so that its requests do not queue for one another.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(10);

/// For how long after a failure of the app no background refresh of the key is begun.
const REST: Duration = Duration::from_secs(1);

/// An app that takes so long to fail is not waited for again while something stale can stand in: it is asked in the background.
const SLOW: Duration = Duration::from_secs(1);

/// For how long beyond its own duration such a failure is remembered.
const SLOW_FOR: Duration = Duration::from_secs(10);

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
        Arc::new(Self {
            map: Mutex::default(),
            uncacheable: Cache::new(REMEMBERED),
            failed: Cache::new(REMEMBERED),
            waiters: Arc::new(Semaphore::new(waiters.min(Semaphore::MAX_PERMITS))),
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
        Part::Lead(Lead { key, flight, tell, flights: Arc::clone(self) })
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
}

impl Lead {
    /// The app has answered: what it failed before is forgotten.
    pub fn answered(&self) {
        self.flights.failed.remove(&self.key);
    }

    /// The head may be shared: followers read along from here on.
    pub fn open(&self, head: SharedHead, body: Growing) {
        self.tell.send_replace(Stage::Open(Arc::new(head), body));
    }

    /// The body turned out too large to be stored, after it was shared. The key is remembered as uncacheable.
    pub fn remember_uncacheable(&self, now: Wall) {
        self.flights.uncacheable.insert(self.key, now.after(UNCACHEABLE_FOR));
    }

    /// What came is not for sharing. The key is remembered, so that its next requests do not queue.
    pub fn uncacheable(self, now: Wall) {
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
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::coherence::Coherence;
    use crate::tag::Tag;

    fn key() -> FlightKey {
        FlightKey { hash: KeyHash([7; 32]), caller: None }
    }

    fn head(more_tags: bool) -> SharedHead {
        let (vary, variant) = (VarySpec::default(), KeyHash([7; 32]));
        SharedHead { status: StatusCode::OK, headers: HeaderMap::new(), ttl: 1, revalidated: false, more_tags, vary, variant }
    }

    fn same(_: &VarySpec) -> KeyHash {
        KeyHash([7; 32])
    }

    fn flights() -> (Arc<Flights>, Coherence, Tag) {
        (Flights::new(10, Duration::from_secs(5), 1000), Coherence::new(None, Clock::system()), Tag::new("a"))
    }

    fn lead(part: Part) -> Lead {
        match part {
            Part::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn follow(part: Part) -> Follow {
        match part {
            Part::Follow(follow) => follow,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_second_to_ask_follows_the_first() {
        let (flights, coherence, tag) = flights();
        let read = coherence.read_local(&[tag]);
        let lead = lead(flights.part(key(), &read, Wall(0)));
        let follow = follow(flights.part(key(), &read, Wall(0)));
        lead.open(head(false), Growing::new(1000, 100, &Budget::new(u64::MAX)));
        assert!(matches!(follow.join(&read, same).await, Joined::Shared(..)));
        drop(lead);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_follower_of_another_variant_does_not_get_the_leaders() {
        let (flights, coherence, tag) = flights();
        let read = coherence.read_local(&[tag]);
        let lead = lead(flights.part(key(), &read, Wall(0)));
        let follow = follow(flights.part(key(), &read, Wall(0)));
        lead.open(head(false), Growing::new(1000, 100, &Budget::new(u64::MAX)));
        assert!(matches!(follow.join(&read, |_| KeyHash([8; 32])).await, Joined::OtherVariant(_)));
    }

    #[tokio::test]
    async fn a_purge_in_between_starts_a_new_fill() {
        let (flights, coherence, tag) = flights();
        let before = coherence.read_local(std::slice::from_ref(&tag));
        let first = lead(flights.part(key(), &before, Wall(0)));
        coherence.purge(std::slice::from_ref(&tag)).await;
        let after = coherence.read_local(&[tag]);
        let second = lead(flights.part(key(), &after, Wall(0)));
        drop(first);
        assert_eq!(flights.len(), 1, "the end of the old fill leaves the new one in its place");
        let follow = follow(flights.part(key(), &after, Wall(0)));
        second.open(head(false), Growing::new(1000, 100, &Budget::new(u64::MAX)));
        assert!(matches!(follow.join(&after, same).await, Joined::Shared(..)));
    }

    #[tokio::test]
    async fn a_purge_of_a_tag_that_only_the_response_names_keeps_followers_out() {
        let (flights, coherence, tag) = flights();
        let before = coherence.read_local(std::slice::from_ref(&tag));
        let lead = lead(flights.part(key(), &before, Wall(0)));
        coherence.purge(&[Tag::new("named by the response")]).await;
        let after = coherence.read_local(&[tag]);
        let follow = follow(flights.part(key(), &after, Wall(0)));
        lead.open(head(true), Growing::new(1000, 100, &Budget::new(u64::MAX)));
        assert!(follow.join(&after, same).await.is_alone());
    }

    #[tokio::test]
    async fn a_leader_that_dies_wakes_everybody() {
        let (flights, coherence, tag) = flights();
        let read = coherence.read_local(&[tag]);
        let lead = lead(flights.part(key(), &read, Wall(0)));
        let follow = follow(flights.part(key(), &read, Wall(0)));
        drop(lead);
        assert!(follow.join(&read, same).await.is_alone());
    }

    #[tokio::test]
    async fn an_uncacheable_key_is_remembered_for_a_while() {
        let (flights, coherence, tag) = flights();
        let read = coherence.read_local(&[tag]);
        let first = lead(flights.part(key(), &read, Wall(0)));
        let follow = follow(flights.part(key(), &read, Wall(0)));
        first.uncacheable(Wall(0));
        assert!(follow.join(&read, same).await.is_alone());
        assert!(matches!(flights.part(key(), &read, Wall(9_999)), Part::Alone));
        assert!(matches!(flights.part(key(), &read, Wall(10_000)), Part::Lead(_)));
    }

    #[tokio::test]
    async fn a_failure_is_told_to_followers_and_remembered_for_a_moment() {
        let (flights, coherence, tag) = flights();
        let read = coherence.read_local(&[tag]);
        let first = lead(flights.part(key(), &read, Wall(0)));
        let follow = follow(flights.part(key(), &read, Wall(0)));
        first.fail(Reason::UpstreamBroken, Duration::ZERO, Wall(0));
        assert!(matches!(follow.join(&read, same).await, Joined::Failed(Reason::UpstreamBroken)));
        assert!(flights.is_resting(&key(), Wall(999)) && !flights.is_resting(&key(), Wall(1_000)));
        assert_eq!(flights.failed_slowly(&key(), Wall(0)), None, "it did not take long, so it is asked again each time");

        let second = lead(flights.part(key(), &read, Wall(0)));
        second.fail(Reason::UpstreamTimeout, Duration::from_secs(5), Wall(5_000));
        assert_eq!(flights.failed_slowly(&key(), Wall(19_999)), Some(Reason::UpstreamTimeout), "5 s, and 10 s more");
        assert_eq!(flights.failed_slowly(&key(), Wall(20_000)), None);
        let third = lead(flights.part(key(), &read, Wall(6_000)));
        third.answered();
        assert!(flights.failed_slowly(&key(), Wall(6_000)).is_none() && !flights.is_resting(&key(), Wall(5_500)));
    }

    #[tokio::test]
    async fn the_number_of_followers_is_bounded() {
        let coherence = Coherence::new(None, Clock::system());
        let flights = Flights::new(1, Duration::from_secs(5), 1000);
        let read = coherence.read_local(&[Tag::new("a")]);
        let _lead = lead(flights.part(key(), &read, Wall(0)));
        let _follow = follow(flights.part(key(), &read, Wall(0)));
        assert!(matches!(flights.part(key(), &read, Wall(0)), Part::Alone));
        assert_eq!(flights.counters.crowded.get(), 1);
    }
}
