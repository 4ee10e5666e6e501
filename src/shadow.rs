//! Shadow mode: finds out what the cache would have done, and where that would have been wrong,
//! without storing or serving anything.
//!
//! Owns a table of what would be stored: digests, times, tags, and which callers got which body.
//! Never holds a body, and never influences a response. [`history`] draws the conclusions,
//! [`advice`] suggests remedies.
//!
//! Bounded: keys by `limits.shadow_keys`, callers of a key by [`history::MAX_CALLERS`], writes by
//! [`mutations::MAX_MUTATIONS`], routes by [`MAX_ROUTES`], examples by [`findings::MAX_EXAMPLES`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::authorized_clients::AuthorizedClients;
use crate::policy::key::KeyHash;
use crate::policy::plan::PolicyRules;
use crate::policy::route::RouteMode;
use crate::policy::tag::Tag;
use crate::semantics::times::Times;
use crate::semantics::vary::VarySpec;
use crate::telemetry::metrics::{Counter, Metrics};

use advice::Subject;
use findings::{FindingKind, MAX_SUSPECTS, RouteShadow, ScopeEvidence, Sighting, StaleChange};
use history::{Digest, Observation, StaleFinding, StepSpan};
use language_pages::LanguagePages;
use languages::{LanguageFinding, LanguageSample};
use mutations::{Mutations, Steps, TrackedMutation};
use parking_lot::{Mutex, MutexGuard};
use report::{RouteReport, ShadowReport};
use source_purges::SourcePurges;
use table::{ShadowTable, is_same, lock};

pub use observed::{AuditOutcome, ObservedResponse, RefusedResponse};
pub use table::{FoundSample, ShadowEntry, ShadowSample};

pub mod advice;
mod audits;
pub mod digest;
pub mod findings;
pub mod history;
mod language_pages;
pub mod languages;
pub mod mutations;
mod observed;
mod path;
pub mod report;
pub mod source_purges;
mod table;
mod told;
mod write_advice;
pub mod write_answers;

/// The most routes that are watched, over all reloads.
pub const MAX_ROUTES: usize = 1024;

/// A finding that has not been reported for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its kind.
    pub finding: FindingKind,
    /// The route's pattern.
    pub route: String,
    /// The finding, in a sentence.
    pub text: String,
}

/// Receives findings.
type FindingListener = Box<dyn Fn(&Notice) + Send + Sync>;

/// Counts of limits that were reached.
#[derive(Clone, Debug, Default)]
pub struct ShadowCounters {
    /// Keys evicted to make room for others.
    pub evicted: Arc<Counter>,
    /// Callers of a key evicted to make room for others.
    pub callers_forgotten: Arc<Counter>,
    /// Routes that are not watched, because there are too many.
    pub routes: Arc<Counter>,
    /// Languages that are not remembered, because their route has too many.
    pub languages: Arc<Counter>,
}

/// Shadow mode of one sidecar.
pub struct Shadow {
    /// Numbers the events.
    pub steps: Arc<Steps>,
    /// The latest writes.
    pub mutations: Arc<Mutations>,
    /// The credentials that would be authorized.
    pub authorized_clients: AuthorizedClients,
    /// Counts of limits that were reached.
    pub counters: ShadowCounters,
    table: ShadowTable,
    pages: LanguagePages,
    source_purges: Mutex<SourcePurges>,
    routes: Mutex<HashMap<Box<str>, Arc<RouteShadow>>>,
    metrics: Arc<Metrics>,
    listener: OnceLock<FindingListener>,
}

impl Shadow {
    /// Room for this many keys and authorized clients. The counters of a route appear in `metrics`
    /// once it is watched.
    #[must_use]
    pub fn new(keys: usize, clients: usize, metrics: Arc<Metrics>) -> Self {
        let (counters, steps) = (ShadowCounters::default(), Arc::new(Steps::default()));
        Self {
            mutations: Arc::new(Mutations::new(Arc::clone(&steps))),
            steps,
            authorized_clients: AuthorizedClients::new(clients),
            table: ShadowTable::new(keys, &counters.evicted),
            pages: LanguagePages::new(keys, &counters.evicted),
            counters,
            source_purges: Mutex::default(),
            routes: Mutex::default(),
            metrics,
            listener: OnceLock::new(),
        }
    }

    /// From now on `listener` receives findings, at most one a minute for each kind on each route.
    /// It must not block. Only the first call counts.
    pub fn set_listener(&self, listener: impl Fn(&Notice) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Forgets what would be stored, and all findings, because the rules have changed. Metrics
    /// continue.
    pub fn reset(&self) {
        self.table.clear();
        self.pages.clear();
        self.mutations.answers.clear();
        for route in self.lock().values() {
            *route.findings() = findings::Findings::default();
        }
    }

    /// The route of this pattern; `None` if too many are watched.
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

    /// Tracks a write that is about to be forwarded.
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

    /// What would be stored for a request, and the hash of its key, as far as its `Vary` is known.
    #[must_use]
    pub fn find(
        &self,
        primary: KeyHash,
        variant: impl Fn(&VarySpec) -> KeyHash,
    ) -> (KeyHash, Option<FoundSample>) {
        self.table.find(primary, variant)
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

    /// Records a complete response.
    pub fn record_response(&self, response: &ObservedResponse<'_>) {
        let (route, now) = (response.route, response.now);
        let state = self.table.state(response.key);
        let mut state = lock(&state);
        let told_by = self.told_by(&state, response);
        let hit = response.observation.hit
            && response.served.is_some()
            && is_same(state.entry.as_ref(), response.served);
        let observation = Observation { hit, ..response.observation };
        let verdict =
            state.history.observe(&observation, &|span| self.writes_since(span, response.purges));
        if verdict.forgot_caller {
            self.counters.callers_forgotten.inc();
        }
        let mut notices = Vec::new();
        let mut findings = route.findings();
        if let Some(source) = told_by.filter(|_| verdict.stale.is_none()) {
            findings.told.count(&source, |told| told.in_time += 1);
        }
        if verdict.turned_volatile {
            findings.turn_volatile(response.key.half(), state.explained, state.scope);
            (state.explained, state.scope, state.blame) = (0, 0, None);
        }
        if let (Some(stale), Some(served)) = (verdict.stale, response.served) {
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
                    let path = path::remembered(response.path);
                    let text =
                        after.first().map(|write| stale_text(&path, &write.method, &write.path));
                    let age = now.since(served.times.received);
                    let change = StaleChange {
                        id: 0,
                        key: response.key.half(),
                        path,
                        at: now,
                        age,
                        after,
                        responses: 0,
                        tags: served.tags.clone(),
                        late: None,
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
        state.scope += u64::from(verdict.scope);
        drop((state, findings));
        if verdict.scope {
            self.record_scope(route, ScopeEvidence::Bodies, (response.key, response.path), now);
        }
        for (kind, text) in notices {
            self.notify(route, kind, &text, now);
        }
    }

    /// Records that the origin refused what would have been served. Returns whether it is a
    /// finding: the caller's own session may have ended, and what was stored may be gone.
    #[must_use]
    pub fn record_refusal(&self, refused: &RefusedResponse<'_>) -> bool {
        let state = self.table.state(refused.key);
        let mut state = lock(&state);
        let finding = is_same(state.entry.as_ref(), Some(refused.served))
            && state.history.is_refusal_of_another(refused.caller, refused.is_certain);
        state.scope += u64::from(finding);
        drop(state);
        if finding {
            let of = (refused.key, refused.path);
            self.record_scope(refused.route, ScopeEvidence::Refusal, of, refused.now);
        }
        finding
    }

    /// Records that a caller should not share the entry under this key.
    pub fn record_scope(
        &self,
        route: &RouteShadow,
        evidence: ScopeEvidence,
        (key, path): (KeyHash, &str),
        now: Wall,
    ) {
        route.counters.scope.inc();
        let path = path::remembered(path);
        let sighting = Sighting { key: key.half(), path: path.clone(), evidence, at: now };
        route.findings().record_scope(sighting);
        let text = match evidence {
            ScopeEvidence::Bodies => {
                format!("two callers who would share an entry get different bodies of {path}")
            }
            ScopeEvidence::Refusal => {
                format!("the origin refuses {path} to a caller who would share an entry of it")
            }
        };
        self.notify(route, FindingKind::Scope, &text, now);
    }

    /// Compares a response with those of its page in other languages. `page` is the key without the
    /// languages, `purges` how often the local tag table has purged by now.
    pub fn record_languages(
        &self,
        route: &Arc<RouteShadow>,
        page: KeyHash,
        sample: &LanguageSample<'_>,
        purges: u64,
        now: Wall,
    ) {
        let holds = |span: &StepSpan, times: &Times| {
            times.is_fresh(now) && self.writes_since(span, purges) == 0
        };
        let unnamed = &self.counters.languages;
        let (before, after) = self.pages.record(route, page, sample, &holds, unnamed);
        if before == after {
            return;
        }
        let text = match after {
            Some(LanguageFinding::Never) => "the body has never depended on Accept-Language so far",
            Some(LanguageFinding::Differs) => "the body depends on Accept-Language",
            None => "the body may depend on Accept-Language after all",
        };
        self.notify(route, FindingKind::Languages, text, now);
    }

    /// The findings so far, and suggestions.
    #[must_use]
    pub fn report(&self, rules: &PolicyRules) -> ShadowReport {
        let known: HashMap<Box<str>, Arc<RouteShadow>> = self.lock().clone();
        let mut subjects = Vec::new();
        for route in rules.routes.iter() {
            let findings =
                known.get(route.name()).map(|route| route.findings().clone()).unwrap_or_default();
            let watched = route.mode() == RouteMode::Shadow
                || (route.mode() == RouteMode::On && route.spec.audit > 0.0);
            if watched || findings.stale > 0 || findings.scope > 0 {
                let place = Some(route.spec.place.clone());
                subjects.push(Subject { route, findings, place });
            }
        }
        let report_for = |subject: &Subject<'_>| {
            let route = subject.route;
            let (name, scope) = (route.name(), route.spec.scope.as_str());
            RouteReport::new(name, route.mode().as_str(), scope, &subject.findings)
        };
        let mut advised = write_advice::write_advice(&self.mutations.answers, rules);
        advised.extend(advice::advise(&subjects));
        ShadowReport { routes: subjects.iter().map(report_for).collect(), advice: advised }
    }

    /// How many requests of a route would have been hits in shadow.
    #[must_use]
    pub fn would_hit(&self, route: &str) -> u64 {
        self.lock().get(route).map_or(0, |route| route.findings().hits)
    }

    /// The numbers of findings, of audits, and of audits that found a stale response, over all
    /// routes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        let mut totals = (0, 0, 0);
        for route in self.lock().values().map(|route| route.findings()) {
            totals.0 += route.stale + route.scope;
            totals.1 += route.audited;
            totals.2 += route.audited_stale;
        }
        totals
    }

    /// Of how many routes bodies never depended on the language, and of how many they do.
    #[must_use]
    pub fn language_totals(&self) -> (u64, u64) {
        let routes = self.lock();
        let found = |finding: LanguageFinding| {
            let is_found =
                |route: &&Arc<RouteShadow>| route.findings().languages.finding() == Some(finding);
            routes.values().filter(is_found).count() as u64
        };
        (found(LanguageFinding::Never), found(LanguageFinding::Differs))
    }

    /// How many keys are in the table.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    fn writes_since(&self, span: &StepSpan, purges: u64) -> usize {
        // Writes through other sidecars are known only by their purges; our own purges are not
        // counted twice.
        let others = usize::try_from(purges.saturating_sub(span.purges)).unwrap_or(usize::MAX);
        match self.mutations.since(span) {
            0 => others,
            ours => ours,
        }
    }

    fn notify(&self, route: &RouteShadow, finding: FindingKind, text: &str, now: Wall) {
        let Some(first) = route.findings().is_due(finding, now) else { return };
        let text = path::shown_finding(text);
        if first {
            let kind = finding.as_str();
            match finding {
                // Nothing is wrong: there is something to gain.
                FindingKind::Languages => {
                    tracing::info!(finding = kind, route = &*route.name, "{text}");
                }
                FindingKind::Stale | FindingKind::Scope | FindingKind::Audit => {
                    tracing::warn!(finding = kind, route = &*route.name, "{text}");
                }
            }
        }
        if let Some(listener) = self.listener.get() {
            listener(&Notice { finding, route: route.name.to_string(), text });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<RouteShadow>>> {
        // The map is consistent between any two statements that could panic.
        self.routes.lock()
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("keys", &self.table.len()).finish_non_exhaustive()
    }
}

fn stale_text(path: &str, method: &Method, written: &str) -> String {
    format!("{path} would have been stale after {method} {written}, which purges none of its tags")
}

/// How long a suspicion waits if other sidecars forward writes too: the purge of a write that the
/// origin has committed may still be on its way.
pub const SETTLE_DELAY: Duration = Duration::from_secs(1);

/// Whether a status tells something about the resource. Rejections and failures of the origin do
/// not.
#[must_use]
pub const fn is_telling(status: http::StatusCode) -> bool {
    !matches!(status.as_u16(), 206 | 304 | 401 | 403 | 407 | 408 | 421 | 425 | 429 | 500..)
}

/// Why a body without a digest would not be stored, if that is known.
#[must_use]
pub const fn unstorable(reason: Reason) -> Option<Reason> {
    match reason {
        // The client left: it is unknown how the response would have ended.
        Reason::ClientGone => None,
        reason => Some(reason),
    }
}
