//! Shadow mode: what the cache would have done, and where that would have been wrong, found out
//! without storing or serving anything.
//!
//! Owns a table of what would be stored: digests, times, tags, and which callers have seen which
//! body. Never holds a body, and is asked by nobody what to answer. [`history`] concludes,
//! [`advice`] says what would mend it.
//!
//! Bounded: keys by `limits.shadow_keys`, callers of a key by [`history::LANES`], writes by
//! [`mutations::MOST`], routes by [`MAX_ROUTES`], examples by [`findings::EXAMPLES`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::clock::Wall;
use crate::coherence::local_snapshot::SnapshotProof;
use crate::outcome::Reason;
use crate::policy::credential::AuthorizedClients;
use crate::policy::key::KeyHash;
use crate::policy::plan::PolicyRules;
use crate::policy::route::RouteMode;
use crate::policy::tag::Tag;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::{Counter, Metrics};

use advice::Subject;
use findings::{FindingKind, MAX_SUSPECTS, RouteShadow, Sighting, StaleChange};
use history::{Caller, Digest, History, Observation, StaleFinding, StepSpan, Stored};
use mutations::{Mutations, Steps, TrackedMutation};
use report::{RouteReport, ShadowReport};

pub mod advice;
pub mod digest;
pub mod findings;
pub mod history;
pub mod mutations;
pub mod report;

/// The most routes that are watched, over all reloads.
pub const MAX_ROUTES: usize = 1024;

/// The longest path that is remembered, in bytes.
pub const MAX_PATH: usize = 256;

/// What would be stored under a key, besides what its [`History`] knows.
#[derive(Debug)]
pub struct ShadowEntry {
    /// Its times.
    pub times: Times,
    /// What it may be used for when it is no longer fresh.
    pub leeway: Leeway,
    /// What must still hold for it to be current.
    pub proof: SnapshotProof,
    /// Its tags.
    pub tags: Box<[Tag]>,
}

#[derive(Debug, Default)]
struct KeyState {
    history: History,
    entry: Option<Arc<ShadowEntry>>,
    /// The change that made what is stored out of date, and whether writes explain it.
    blame: Option<(u64, bool)>,
    /// How many answers of this key were put down to writes, and to its scope.
    explained: u64,
    scope: u64,
}

/// What is kept under the hash of a key.
#[derive(Clone, Debug)]
enum ShadowSlot {
    /// The key has variants.
    Vary(Arc<VarySpec>),
    Key(Arc<Mutex<KeyState>>),
}

/// Counts what the table pushes out.
#[derive(Clone, Debug)]
struct Evictions(Arc<Counter>);

impl Lifecycle<u128, ShadowSlot> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: u128, _: ShadowSlot) {
        self.0.inc();
    }
}

/// A finding, made for the first time for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its kind.
    pub finding: FindingKind,
    /// The route's pattern.
    pub route: String,
    /// What was found, in a sentence.
    pub text: String,
}

/// Who hears of findings.
type FindingListener = Box<dyn Fn(&Notice) + Send + Sync>;

/// Counts of what reaches a limit.
#[derive(Clone, Debug, Default)]
pub struct ShadowCounters {
    /// Keys forgotten for others.
    pub evicted: Arc<Counter>,
    /// Callers of a key forgotten for others.
    pub callers_forgotten: Arc<Counter>,
    /// Routes that are not watched, because too many are.
    pub routes: Arc<Counter>,
}

/// A whole answer of the app to a request in shadow.
#[derive(Debug)]
pub struct ObservedResponse<'a> {
    /// The route that took the request.
    pub route: &'a RouteShadow,
    /// The path that was asked for.
    pub path: &'a str,
    /// The key, with what the response varies by.
    pub key: KeyHash,
    /// The answer.
    pub observation: Observation,
    /// What would have been served in its place.
    pub served: Option<&'a Arc<ShadowEntry>>,
    /// How often the local table has purged by now.
    pub purges: u64,
    /// The time.
    pub now: Wall,
}

/// What an answer would leave in the store.
#[derive(Debug)]
pub struct ShadowSample {
    /// The key before `Vary` narrows it.
    pub primary: KeyHash,
    /// What the response varies by.
    pub vary: VarySpec,
    /// The hash of the key that it answers.
    pub key: KeyHash,
    /// To whom it was.
    pub caller: Caller,
    /// What it was; unknown of one whose body has not come by.
    pub digest: Option<Digest>,
    /// When it was fetched.
    pub span: StepSpan,
    /// The rest.
    pub entry: ShadowEntry,
}

/// What an audit found.
#[derive(Clone, Copy, Debug)]
pub enum AuditOutcome<'a> {
    /// The app answers as was served.
    Same,
    /// Nothing: the app failed, a purge came meanwhile, or the body differs by itself.
    Unclear,
    /// The app answers otherwise.
    Stale {
        /// The path.
        path: &'a str,
        /// The tags of what was served.
        tags: &'a [Tag],
        /// When that was fetched.
        fetched: Wall,
    },
}

/// Shadow mode of one sidecar.
pub struct Shadow {
    /// Numbers what happens.
    pub steps: Arc<Steps>,
    /// The latest writes.
    pub mutations: Arc<Mutations>,
    /// The credentials that would be admitted.
    pub authorized_clients: AuthorizedClients,
    /// What has reached a limit.
    pub counters: ShadowCounters,
    table: Cache<u128, ShadowSlot, UnitWeighter, DefaultHashBuilder, Evictions>,
    routes: Mutex<HashMap<Box<str>, Arc<RouteShadow>>>,
    metrics: Arc<Metrics>,
    listener: OnceLock<FindingListener>,
}

impl Shadow {
    /// Room for this many keys and admissions. The counters of a route are shown in `metrics` once
    /// it is watched.
    #[must_use]
    pub fn new(keys: usize, admissions: usize, metrics: Arc<Metrics>) -> Self {
        let (counters, steps) = (ShadowCounters::default(), Arc::new(Steps::default()));
        let evictions = Evictions(Arc::clone(&counters.evicted));
        Self {
            mutations: Arc::new(Mutations::new(Arc::clone(&steps))),
            steps,
            authorized_clients: AuthorizedClients::new(admissions),
            table: Cache::with(
                keys,
                keys as u64,
                UnitWeighter,
                DefaultHashBuilder::default(),
                evictions,
            ),
            counters,
            routes: Mutex::default(),
            metrics,
            listener: OnceLock::new(),
        }
    }

    /// From now on `tell` hears of findings, of each kind on each route at most once a minute. It
    /// must not wait. Only the first call counts.
    pub fn set_listener(&self, tell: impl Fn(&Notice) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(tell));
    }

    /// Forgets what would be stored, and all findings: the rules are others now. Metrics go on.
    pub fn reset(&self) {
        self.table.clear();
        for route in self.routes.lock().values() {
            *route.findings() = findings::Findings::default();
        }
    }

    /// The route of this pattern; none when too many are watched.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<Arc<RouteShadow>> {
        let mut routes = self.routes.lock();
        if let Some(route) = routes.get(name) {
            return Some(Arc::clone(route));
        }
        if routes.len() >= MAX_ROUTES {
            self.counters.routes.inc();
            return None;
        }
        let route = Arc::new(RouteShadow::new(name));
        routes.insert(name.into(), Arc::clone(&route));
        drop(routes);
        route.show_in(&self.metrics);
        Some(route)
    }

    /// A write is about to be forwarded.
    #[must_use]
    pub fn begin_mutation(
        &self,
        method: &Method,
        path: &str,
        tags: &[Tag],
        now: Wall,
    ) -> TrackedMutation {
        self.mutations.begin(method, path, tags, now)
    }

    /// What would be stored for a request, and the hash of its key, as far as it is known what it
    /// varies by.
    #[must_use]
    pub fn find(
        &self,
        primary: KeyHash,
        variant: impl Fn(&VarySpec) -> KeyHash,
    ) -> (KeyHash, Option<Arc<ShadowEntry>>) {
        match self.table.get(&index(primary)) {
            Some(ShadowSlot::Vary(spec)) => {
                let key = variant(&spec);
                let entry = match self.table.get(&index(key)) {
                    Some(ShadowSlot::Key(state)) => state.lock().entry.clone(),
                    _ => None,
                };
                (key, entry)
            }
            Some(ShadowSlot::Key(state)) => (primary, state.lock().entry.clone()),
            None => (primary, None),
        }
    }

    /// Whether a key's answers are known to vary by this header.
    #[must_use]
    pub fn varies_by(&self, primary: KeyHash, name: &http::HeaderName) -> bool {
        matches!(self.table.get(&index(primary)), Some(ShadowSlot::Vary(spec)) if spec.covers(name))
    }

    /// Whether what would have been served is not what the app has answered.
    #[must_use]
    pub fn differs(&self, key: KeyHash, served: &Arc<ShadowEntry>, digest: Digest) -> bool {
        let Some(ShadowSlot::Key(state)) = self.table.get(&index(key)) else { return false };
        let state = state.lock();
        let stored = state.history.stored().and_then(|stored| stored.digest);
        is_same(state.entry.as_ref(), Some(served)) && stored.is_some_and(|stored| stored != digest)
    }

    /// Takes note of a whole answer.
    pub fn record_response(&self, answered: &ObservedResponse<'_>) {
        let (route, now) = (answered.route, answered.now);
        let state = self.state(answered.key);
        let mut state = state.lock();
        let hit = answered.observation.hit
            && answered.served.is_some()
            && is_same(state.entry.as_ref(), answered.served);
        let look = Observation { hit, ..answered.observation };
        let verdict =
            state.history.observe(&look, &|span| self.writes_since(span, answered.purges));
        if verdict.forgot_caller {
            self.counters.callers_forgotten.inc();
        }
        let mut notices = Vec::new();
        let mut findings = route.findings();
        if verdict.turned_volatile {
            findings.turn_volatile(index(answered.key), state.explained, state.scope);
            (state.explained, state.scope, state.blame) = (0, 0, None);
        }
        if let (Some(stale), Some(served)) = (verdict.stale, answered.served) {
            route.counters.stale.inc();
            match stale {
                StaleFinding::Changed { since } => {
                    let doubtful = state.history.is_volatile()
                        || (findings.is_volatile() && !state.history.has_stayed());
                    let after = if doubtful {
                        Vec::new()
                    } else {
                        self.mutations.suspects(Ok(since.sent), &served.tags, MAX_SUSPECTS)
                    };
                    let explained = !after.is_empty();
                    state.explained += u64::from(explained);
                    let text = after
                        .first()
                        .map(|write| stale_text(answered.path, &write.method, &write.path));
                    let age = now.since(served.times.received);
                    let change = StaleChange {
                        id: 0,
                        key: index(answered.key),
                        path: path(answered.path),
                        at: now,
                        age,
                        after,
                        responses: 0,
                    };
                    state.blame = Some((findings.change(change), explained));
                    notices.extend(text.map(|text| (FindingKind::Stale, text)));
                }
                StaleFinding::Still => {
                    let explained = state.blame.is_some_and(|(_, explained)| explained);
                    state.explained += u64::from(explained);
                    findings.still(state.blame.map(|(change, _)| change), explained);
                }
            }
        }
        if verdict.scope {
            route.counters.scope.inc();
            state.scope += 1;
            findings.record_scope(Sighting {
                key: index(answered.key),
                path: path(answered.path),
                at: now,
            });
            notices.push((
                FindingKind::Scope,
                format!(
                    "two callers who would share an entry get different bodies of {}",
                    answered.path
                ),
            ));
        }
        drop((state, findings));
        for (kind, text) in notices {
            self.notify(route, kind, text, now);
        }
    }

    /// Puts an answer in the place of what would be stored.
    pub fn store_sample(&self, kept: ShadowSample) {
        let ShadowSample { primary, vary, key, caller, digest, span, entry } = kept;
        if !vary.is_empty()
            && !matches!(self.table.get(&index(primary)), Some(ShadowSlot::Vary(known)) if *known == vary)
        {
            self.table.insert(index(primary), ShadowSlot::Vary(Arc::new(vary)));
        }
        let state = self.state(key);
        let mut state = state.lock();
        state.history.store(Some(Stored::new(caller, digest, span)));
        state.entry = Some(Arc::new(entry));
        state.blame = None;
    }

    /// What would be stored is no longer what the app would say, and what it says is not to be
    /// stored.
    pub fn forget(&self, key: KeyHash) {
        if let Some(ShadowSlot::Key(state)) = self.table.get(&index(key)) {
            let mut state = state.lock();
            state.history.store(None);
            (state.entry, state.blame) = (None, None);
        }
    }

    /// Takes note of an audit.
    pub fn record_audit(&self, route: &RouteShadow, audit: AuditOutcome<'_>, now: Wall) {
        let mut findings = route.findings();
        findings.audited += 1;
        match audit {
            AuditOutcome::Same => route.counters.audits_same.inc(),
            AuditOutcome::Unclear => route.counters.audits_unclear.inc(),
            AuditOutcome::Stale { path: asked, tags, fetched } => {
                route.counters.audits_stale.inc();
                findings.audited_stale += 1;
                let after = self.mutations.suspects(Err(fetched), tags, MAX_SUSPECTS);
                let text = match after.first() {
                    Some(write) => format!(
                        "{asked} was served out of date after {} {}",
                        write.method, write.path
                    ),
                    None => format!(
                        "{asked} was served out of date, and no write that passed here explains it"
                    ),
                };
                findings.change(StaleChange {
                    id: 0,
                    key: 0,
                    path: path(asked),
                    at: now,
                    age: now.since(fetched),
                    after,
                    responses: 0,
                });
                drop(findings);
                self.notify(route, FindingKind::Audit, text, now);
            }
        }
    }

    /// What was found so far, and what would mend it. `line` tells where the route of a pattern
    /// stands in the file, from 1.
    #[must_use]
    pub fn report(
        &self,
        rules: &PolicyRules,
        line: &dyn Fn(&str) -> Option<usize>,
    ) -> ShadowReport {
        let known: HashMap<Box<str>, Arc<RouteShadow>> = self.routes.lock().clone();
        let mut subjects = Vec::new();
        for route in rules.routes.iter() {
            let findings =
                known.get(route.name()).map(|route| route.findings().clone()).unwrap_or_default();
            let watched = route.spec.mode == RouteMode::Shadow
                || (route.spec.mode == RouteMode::On && route.spec.audit > 0.0);
            if watched || findings.stale > 0 || findings.scope > 0 {
                subjects.push(Subject { route, findings, line: line(route.name()) });
            }
        }
        let told = |subject: &Subject<'_>| {
            let spec = &subject.route.spec;
            RouteReport::new(
                subject.route.name(),
                spec.mode.as_str(),
                spec.scope.as_str(),
                &subject.findings,
            )
        };
        ShadowReport {
            routes: subjects.iter().map(told).collect(),
            advice: advice::advise(&subjects),
        }
    }

    /// Findings, audits, and audits that found something out of date, over all routes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        self.routes.lock().values().map(|route| route.findings()).fold(
            (0, 0, 0),
            |(found, audited, stale), route| {
                (
                    found + route.stale + route.scope,
                    audited + route.audited,
                    stale + route.audited_stale,
                )
            },
        )
    }

    /// How many keys would be stored, or are known by their callers alone.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    fn writes_since(&self, span: &StepSpan, purges: u64) -> usize {
        // What others wrote is known by their purges alone; our own purges are not counted twice.
        let others = usize::try_from(purges.saturating_sub(span.purges)).unwrap_or(usize::MAX);
        match self.mutations.since(span) {
            0 => others,
            ours => ours,
        }
    }

    fn notify(&self, route: &RouteShadow, finding: FindingKind, text: String, now: Wall) {
        let Some(first) = route.findings().is_due(finding, now) else { return };
        if first {
            tracing::warn!(finding = finding.as_str(), route = &*route.name, "{text}");
        }
        if let Some(tell) = self.listener.get() {
            tell(&Notice { finding, route: route.name.to_string(), text });
        }
    }

    fn state(&self, key: KeyHash) -> Arc<Mutex<KeyState>> {
        if let Some(ShadowSlot::Key(state)) = self.table.get(&index(key)) {
            return state;
        }
        // Two that come here at once: the later one's knowledge stays, which costs nothing but a
        // look.
        let state = Arc::<Mutex<KeyState>>::default();
        self.table.insert(index(key), ShadowSlot::Key(Arc::clone(&state)));
        state
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("keys", &self.table.len()).finish_non_exhaustive()
    }
}

/// Text cut to at most so many bytes, at the end of a character.
#[must_use]
pub fn truncate(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn path(path: &str) -> Box<str> {
    truncate(path, MAX_PATH).into()
}

fn stale_text(asked: &str, method: &Method, path: &str) -> String {
    format!(
        "{asked} would have been out of date after {method} {path}, which purges none of its tags"
    )
}

fn is_same(one: Option<&Arc<ShadowEntry>>, two: Option<&Arc<ShadowEntry>>) -> bool {
    one.zip(two).is_some_and(|(one, two)| Arc::ptr_eq(one, two))
}

fn index(key: KeyHash) -> u128 {
    let (half, _) = key.0.split_at(16);
    half.try_into().map_or(0, u128::from_be_bytes)
}

/// How long a suspicion waits where other sidecars write too: the purge of a write that the app has
/// committed may be on its way.
pub const SETTLE_DELAY: Duration = Duration::from_secs(1);

/// Whether a status says something of the target: what the app says to those whom it turns away, or
/// in trouble, does not.
#[must_use]
pub const fn is_telling(status: http::StatusCode) -> bool {
    !matches!(status.as_u16(), 206 | 304 | 401 | 403 | 407 | 408 | 421 | 425 | 429 | 500..)
}

/// Why a body has no digest, as far as that says whether it would be stored.
#[must_use]
pub const fn unstorable(reason: Reason) -> Option<Reason> {
    match reason {
        // The client left: nobody knows how it would have ended.
        Reason::ClientGone => None,
        reason => Some(reason),
    }
}
