//! What to cache next: requests that no route matches, by template of their paths, with the time
//! that the app spends on them and the share that a cache would have answered.
//!
//! The request path leaves a note of each request in a bounded queue; everything else happens after
//! its response, in a task of its own that ends when the queue is empty.
//!
//! What it costs is bounded: at high rates it looks at samples ([`sample`]).
//!
//! SECURITY: strangers choose paths, queries and headers. Of them only names are kept, folded
//! ([`fold`]) and bounded ([`tree`]); values are told apart by hashes with a key of this process.

pub mod callers;
pub mod causes;
pub mod facts;
pub mod fold;
pub mod learn;
pub mod marks;
pub mod observation;
pub mod rehearsal;
mod repeats;
pub mod sample;
pub mod trail;
pub mod tree;

use std::hash::{BuildHasher as _, DefaultHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::fold::PathPart;
use self::observation::{RequestFacts, ResponseFacts, UnroutedNote};
use self::repeats::Repeats;
use self::sample::{ReadSampler, SampledRead};
use self::trail::{Trail, TrailEvent, TrailFacts, TrailKind, TrailRead, TrailSnapshot};
use self::tree::{PathTemplate, TemplateTree};
use crate::policy::request_target;
use crate::telemetry::metrics::Counter;

pub use self::repeats::{Seen, TTL};

/// The most requests that wait to be counted.
pub const MAX_QUEUE: usize = 1024;
/// How long the task that counts them waits for more.
const PAUSE: Duration = Duration::from_millis(20);
/// How many it counts before it lets others run.
const BATCH: usize = 64;
/// After this time, what was counts half.
pub const HALF_LIFE: Duration = Duration::from_hours(1);
/// The largest body that is digested, in bytes.
pub const MAX_DIGESTED: u64 = 64 * 1024;
/// How many bytes of bodies are digested within a second.
pub const MAX_DIGESTED_PER_SECOND: u64 = 4 * 1024 * 1024;

/// Counts of what has reached a limit.
#[derive(Clone, Debug, Default)]
pub struct UncachedCounters {
    /// Requests that were not counted, because too many waited.
    pub queue_full: Arc<Counter>,
    /// Reads that were not looked at, because others of a sample stand for them.
    pub unsampled: Arc<Counter>,
    /// Templates that have given their places to others.
    pub evicted: Arc<Counter>,
    /// Templates that have a place now.
    pub templates: Arc<AtomicUsize>,
    /// Requests that have no place in the trail, or have lost it.
    pub trail: Arc<Counter>,
}

/// The requests that no route matches.
#[derive(Debug)]
pub struct Uncached {
    began: Instant,
    hasher: RandomState,
    queue: Mutex<Vec<UnroutedNote>>,
    is_draining: AtomicBool,
    state: Mutex<State>,
    /// Numbers what happens to requests, so that it is known what overlaps.
    steps: AtomicU64,
    sampler: ReadSampler,
    /// The second, from the start, for which bytes are counted; and the bytes.
    digesting: (AtomicU64, AtomicU64),
    /// Counts of what has reached a limit.
    pub counters: UncachedCounters,
}

#[derive(Debug, Default)]
struct State {
    tree: TemplateTree,
    repeats: Repeats,
    trail: Trail,
    totals: Totals,
    /// When it was halved, in milliseconds from the start.
    halved: u64,
}

/// All reads without a route, those without a template too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Reads, of which some are estimated.
    pub requests: u64,
    /// Those that were looked at; as many as there are reads unless they stand for others.
    pub observed: u64,
    /// The time that the app took for them, in microseconds.
    pub micros: u64,
    /// Reads that have no template: the app has not found what they asked for.
    pub unplaced: u64,
}

/// What is known now.
#[derive(Clone, Debug)]
pub struct UncachedSnapshot {
    /// All templates, in no order.
    pub templates: Vec<PathTemplate>,
    /// The sums.
    pub totals: Totals,
}

impl Uncached {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let hasher = RandomState::new();
        Self {
            began: now,
            sampler: ReadSampler::new(hasher.hash_one(0)),
            hasher,
            queue: Mutex::default(),
            is_draining: AtomicBool::new(false),
            state: Mutex::default(),
            steps: AtomicU64::new(1),
            digesting: Default::default(),
            counters: UncachedCounters::default(),
        }
    }

    /// A hash with the key of this process; never 0.
    pub fn hash(&self, value: &impl Hash) -> u64 {
        self.hasher.hash_one(value).max(1)
    }

    /// A hasher with the key of this process.
    pub fn hasher(&self) -> DefaultHasher {
        self.hasher.build_hasher()
    }

    /// Milliseconds from the start; never 0.
    #[must_use]
    pub fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The next step of all requests.
    pub fn step(&self) -> u64 {
        self.steps.fetch_add(1, Ordering::Relaxed)
    }

    /// How a read with this keyed hash at this time, in milliseconds, is looked at; `None` if it is
    /// not, because others stand for it.
    pub fn sample(&self, key: u64, now: u64) -> Option<SampledRead> {
        let chosen = self.sampler.choose(key, now);
        if chosen.is_none() {
            self.counters.unsampled.inc();
        }
        chosen
    }

    /// Whether only samples are looked at now, in milliseconds.
    #[must_use]
    pub fn is_sampling(&self, now: u64) -> bool {
        self.sampler.is_sampling(now)
    }

    /// Whether so many bytes more may be digested in this second.
    pub fn may_digest(&self, bytes: u64, now: Instant) -> bool {
        let (second, sum) = &self.digesting;
        let this = self.millis(now) / 1000;
        if second.swap(this, Ordering::Relaxed) != this {
            sum.store(0, Ordering::Relaxed);
        }
        sum.fetch_add(bytes, Ordering::Relaxed) < MAX_DIGESTED_PER_SECOND
    }

    /// Notes a request. It is counted later, and not at all if too many wait.
    pub fn note(self: &Arc<Self>, observation: UnroutedNote) {
        {
            let mut queue = self.queue.lock();
            if queue.len() >= MAX_QUEUE {
                drop(queue);
                self.counters.queue_full.inc();
                return;
            }
            queue.push(observation);
        }
        if self.is_draining.swap(true, Ordering::AcqRel) {
            return;
        }
        // Without a runtime, whoever reads the numbers counts.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.is_draining.store(false, Ordering::Release);
            return;
        };
        let own = Arc::clone(self);
        runtime.spawn(async move { own.drain().await });
    }

    async fn drain(&self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let waiting = std::mem::take(&mut *self.queue.lock());
            if waiting.is_empty() {
                self.is_draining.store(false, Ordering::Release);
                // One that came meanwhile has started no other task.
                if self.queue.lock().is_empty() || self.is_draining.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            }
            let mut waiting = waiting.into_iter().peekable();
            while waiting.peek().is_some() {
                self.count(waiting.by_ref().take(BATCH));
                tokio::task::yield_now().await;
            }
        }
    }

    fn count(&self, observations: impl Iterator<Item = UnroutedNote>) {
        let mut state = self.state.lock();
        let (before, forgotten) = (state.tree.evicted(), state.trail.forgotten());
        for observation in observations {
            state.count(&observation, |value| self.hash(value));
        }
        self.counters.evicted.add(state.tree.evicted() - before);
        self.counters.trail.add(state.trail.forgotten() - forgotten);
        self.counters.templates.store(state.tree.len(), Ordering::Relaxed);
    }

    /// The operator has purged these tags. `now` is when.
    pub fn purged(&self, tags: &[&str], now: Instant) {
        let (step, at) = (self.step(), self.millis(now));
        self.state.lock().trail.purge(tags, step, at);
    }

    /// How many templates are counted, and the sums.
    #[must_use]
    pub fn summary(&self) -> (usize, Totals) {
        let state = self.state.lock();
        (state.tree.len(), state.totals)
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> UncachedSnapshot {
        let waiting = std::mem::take(&mut *self.queue.lock());
        self.count(waiting.into_iter());
        let state = self.state.lock();
        UncachedSnapshot { templates: state.tree.templates(), totals: state.totals }
    }

    /// The trail, and the template of each of its paths.
    #[must_use]
    pub fn trail(&self) -> (TrailSnapshot, Vec<Option<Vec<PathPart>>>) {
        let waiting = std::mem::take(&mut *self.queue.lock());
        self.count(waiting.into_iter());
        let mut state = self.state.lock();
        let snapshot = state.trail.snapshot();
        let templates = snapshot.paths.iter().map(|path| state.tree.template_of(path)).collect();
        drop(state);
        (snapshot, templates)
    }
}

impl State {
    fn count(&mut self, observation: &UnroutedNote, hash: impl Fn(&(u64, u64)) -> u64) {
        self.age(observation.at);
        let UnroutedNote { path, request, at, took, response, digest, trail } = observation;
        // A path with more than one reading is never cached.
        let normal = request_target::normal_path(path);
        let segments = normal.map(|path| fold::fold(&path));
        // What the app has not found, or refuses, gets no place.
        let may_add = match request {
            RequestFacts::Write(_) => matches!(response.status, 200..=399),
            RequestFacts::Read(_) => response.is_found(),
        };
        if let (Some(path), Some(facts)) = (&segments, trail) {
            self.remember(
                path,
                facts,
                (request, response),
                *at,
                digest.map(|one| hash(&(one, facts.head))),
            );
        }
        let facts = segments.as_ref().and_then(|path| self.tree.facts(path, may_add));
        match request {
            RequestFacts::Write(method) => {
                if let Some(facts) = facts
                    && may_add
                {
                    facts.write(method);
                }
            }
            RequestFacts::Read(read) => {
                let weight = read.sample.weight;
                self.totals.requests += weight;
                self.totals.observed += u64::from(weight > 0);
                let micros = u64::try_from(took.as_micros()).unwrap_or(0);
                self.totals.micros += micros.saturating_mul(weight);
                let Some(facts) = facts else {
                    self.totals.unplaced += weight;
                    return;
                };
                let repeats = &mut self.repeats;
                let seen = digest.map(|digest| {
                    let own = hash(&(read.key, read.caller));
                    let mut see = |key| repeats.see(key, read.caller, digest, *at);
                    (see(own), see(read.key))
                });
                // Where nothing was seen, another one may not have been looked at.
                let is_known =
                    |(own, _): &(Seen, Seen)| read.sample.is_complete || *own != Seen::Nothing;
                facts.read(read, response, *took, seen.filter(is_known));
            }
        }
    }

    fn remember(
        &mut self,
        path: &[PathPart],
        facts: &TrailFacts,
        (request, response): (&RequestFacts, &ResponseFacts),
        at: u64,
        digest: Option<u64>,
    ) {
        self.trail.senders.add(facts.sender);
        self.trail.callers.sign(&facts.signed);
        let kind = match request {
            // A refusal changes nothing; whatever else happened may have.
            RequestFacts::Write(_) if matches!(response.status, 400..=499) => return,
            RequestFacts::Write(_) => TrailKind::Write,
            RequestFacts::Read(_) if !facts.is_get => return,
            RequestFacts::Read(_) => {
                let headers = self.trail.names(&facts.headers);
                let is_accepted = matches!(response.status, 200..=299 | 304);
                let claims = if is_accepted {
                    self.trail.callers.claims(&facts.claims, facts.token.as_ref())
                } else {
                    Box::default()
                };
                let session = facts.session.as_ref().and_then(|it| self.trail.callers.session(it));
                TrailKind::Read(TrailRead {
                    page: facts.page,
                    marks: facts.marks,
                    caller: facts.caller,
                    has_more_headers: facts.has_more_headers || headers.is_none(),
                    headers: headers.unwrap_or_default(),
                    digest: digest.filter(|_| facts.is_exact).unwrap_or(0),
                    status: response.status,
                    is_storable: facts.is_storable,
                    may_overrule: facts.may_overrule,
                    sets_cookie: response.sets_cookie,
                    says_private: response.private,
                    lifetime: facts.lifetime,
                    claims,
                    group: 0,
                    session,
                })
            }
        };
        let (began, ended) = (facts.began, facts.ended);
        let groups = facts.groups.clone().into();
        self.trail.add(path, TrailEvent { began, ended, at, path: 0, groups, kind });
    }

    fn age(&mut self, now: u64) {
        let half_life = u64::try_from(HALF_LIFE.as_millis()).unwrap_or(u64::MAX);
        // After long silence nothing is left; 64 times are enough for any number.
        for _ in 0..64 {
            if now.saturating_sub(self.halved) < half_life {
                return;
            }
            self.halved += half_life;
            self.tree.halve();
            self.totals.requests /= 2;
            self.totals.observed /= 2;
            self.totals.micros /= 2;
            self.totals.unplaced /= 2;
        }
        self.halved = now;
    }
}

#[cfg(test)]
mod tests;
