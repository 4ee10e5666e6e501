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

use http::{HeaderName, Method};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::credential::AuthorizedClients;
use crate::policy::key::KeyHash;
use crate::policy::plan::PolicyRules;
use crate::policy::route::RouteMode;
use crate::policy::tag::Tag;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::{Counter, Metrics};

use advice::Subject;
use findings::{FindingKind, MAX_SUSPECTS, RouteShadow, Sighting, StaleChange};
use history::{Digest, Observation, StaleFinding, StepSpan};
use mutations::{Mutations, Steps, TrackedMutation};
use parking_lot::{Mutex, MutexGuard};
use report::{RouteReport, ShadowReport};
use table::{ShadowTable, index, is_same, lock};

pub use table::{ShadowEntry, ShadowSample};

pub mod advice;
pub mod digest;
pub mod findings;
pub mod history;
pub mod mutations;
mod path;
pub mod report;
mod table;

/// The most routes that are watched, over all reloads.
pub const MAX_ROUTES: usize = 1024;

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
    table: ShadowTable,
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
        Self {
            mutations: Arc::new(Mutations::new(Arc::clone(&steps))),
            steps,
            authorized_clients: AuthorizedClients::new(admissions),
            table: ShadowTable::new(keys, &counters.evicted),
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
        for route in self.lock().values() {
            *route.findings() = findings::Findings::default();
        }
    }

    /// The route of this pattern; none when too many are watched.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<Arc<RouteShadow>> {
        let mut routes = self.lock();
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
        self.table.find(primary, variant)
    }

    /// Whether a key's responses are known to vary by this header.
    #[must_use]
    pub fn varies_by(&self, primary: KeyHash, name: &HeaderName) -> bool {
        self.table.varies_by(primary, name)
    }

    /// Whether the response that would have been served differs from the origin's.
    #[must_use]
    pub fn differs(&self, key: KeyHash, served: &Arc<ShadowEntry>, digest: Digest) -> bool {
        self.table.differs(key, served, digest)
    }

    /// Replaces what would be stored under a key by a new response.
    pub fn store_sample(&self, sample: ShadowSample) {
        self.table.store(sample);
    }

    /// Forgets what would be stored under a key: the origin's response has changed, and the new one
    /// may not be stored.
    pub fn forget(&self, key: KeyHash) {
        self.table.forget(key);
    }

    /// Takes note of a whole answer.
    pub fn record_response(&self, answered: &ObservedResponse<'_>) {
        let (route, now) = (answered.route, answered.now);
        let state = self.table.state(answered.key);
        let mut state = lock(&state);
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
                        path: path::remembered(answered.path),
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
                path: path::remembered(answered.path),
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
                    path: path::remembered(asked),
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
        let known: HashMap<Box<str>, Arc<RouteShadow>> = self.lock().clone();
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
        self.lock().values().map(|route| route.findings()).fold(
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<RouteShadow>>> {
        // The map is whole between any two statements that could panic.
        self.routes.lock()
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("keys", &self.table.len()).finish_non_exhaustive()
    }
}

fn stale_text(asked: &str, method: &Method, path: &str) -> String {
    format!(
        "{asked} would have been out of date after {method} {path}, which purges none of its tags"
    )
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
