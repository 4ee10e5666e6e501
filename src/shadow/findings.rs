//! The findings of one route: counts, and the latest examples.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::tag::Tag;
use crate::shadow::languages::LanguageFindings;
use crate::shadow::mutations::Suspect;
use crate::shadow::source_purges::{LateSource, ToldBySources};
use crate::telemetry::metrics::{Counter, Metrics};

/// How many changes are kept for a route, and how many paths with an unsafe scope.
pub const MAX_EXAMPLES: usize = 16;

/// How many writes are kept for a change.
pub const MAX_SUSPECTS: usize = 8;

/// How long further findings of the same kind on the same route are not reported.
const NOTICE_INTERVAL: Duration = Duration::from_mins(1);

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FindingKind {
    /// A response would have been stale.
    Stale,
    /// A response would have been another caller's.
    Scope,
    /// A response was stale.
    Audit,
    /// Bodies depend on the language, or never did.
    Languages,
}

impl FindingKind {
    /// The name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Scope => "scope",
            Self::Audit => "audit",
            Self::Languages => "languages",
        }
    }
}

/// What the cache would have done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOutcome {
    /// It would have served a stored response.
    Hit,
    /// It would have fetched from the origin.
    Miss,
    /// It would have passed the request.
    Bypass,
}

/// A change that no purge followed.
#[derive(Clone, Debug)]
pub struct StaleChange {
    /// Its number.
    pub id: u64,
    /// The key that changed.
    pub key: u128,
    /// The path of the request.
    pub path: Box<str>,
    /// When the change was seen.
    pub at: Wall,
    /// The age of the stored response at that time.
    pub age: Duration,
    /// The writes that may have caused it, the latest first.
    pub after: Vec<Suspect>,
    /// How many responses would have been stale because of it.
    pub responses: u64,
    /// The tags of the stored response.
    pub tags: Box<[Tag]>,
    /// The source that told of it afterwards.
    pub late: Option<LateSource>,
}

/// A key whose callers should not share an entry.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The key.
    pub key: u128,
    /// Its path.
    pub path: Box<str>,
    /// What shows it.
    pub evidence: ScopeEvidence,
    /// When it was last seen.
    pub at: Wall,
}

/// What shows that callers who share an entry should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeEvidence {
    /// The origin sends them different bodies.
    Bodies,
    /// The origin turns one of them away.
    Refusal,
}

impl ScopeEvidence {
    /// The word in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bodies => "bodies",
            Self::Refusal => "refusal",
        }
    }
}

/// Counts of a route since its findings were reset, and the latest examples.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Requests that would have been hits.
    pub hits: u64,
    /// Requests that would have been misses.
    pub misses: u64,
    /// Requests that would have been passes.
    pub bypasses: u64,
    /// Responses that would have been, or were, stale.
    pub stale: u64,
    /// How many of them no write explains, and no source.
    pub unexplained: u64,
    /// What sources have told.
    pub told: ToldBySources,
    /// The latest changes, the newest last.
    pub changes: VecDeque<StaleChange>,
    /// Responses that would have been another caller's.
    pub scope: u64,
    /// The latest keys with such responses, the newest last.
    pub sightings: VecDeque<Sighting>,
    /// Keys whose bodies change without writes.
    pub volatile: u64,
    /// Hits that were fetched again to compare them.
    pub audited: u64,
    /// How many of them were stale.
    pub audited_stale: u64,
    /// Whether bodies depend on `Accept-Language`.
    pub languages: LanguageFindings,
    not_stored: BTreeMap<u8, u64>,
    next: u64,
    last_noticed: [Option<Wall>; 4],
}

/// The same counts as metrics, which are never reset.
#[derive(Clone, Debug, Default)]
pub struct RouteCounters {
    /// Requests that would have been hits.
    pub hits: Arc<Counter>,
    /// Requests that would have been misses.
    pub misses: Arc<Counter>,
    /// Requests that would have been passes.
    pub bypasses: Arc<Counter>,
    /// Responses that would have been stale.
    pub stale: Arc<Counter>,
    /// Responses that would have been another caller's.
    pub scope: Arc<Counter>,
    /// Audits whose response was the same.
    pub audits_same: Arc<Counter>,
    /// Audits that found a stale response.
    pub audits_stale: Arc<Counter>,
    /// Audits in which the origin refused what was served.
    pub audits_refused: Arc<Counter>,
    /// Audits without a conclusion.
    pub audits_unclear: Arc<Counter>,
    /// Responses with the same body as in other languages.
    pub languages_same: Arc<Counter>,
    /// Responses with another body than in other languages.
    pub languages_different: Arc<Counter>,
}

/// A watched route.
#[derive(Debug)]
pub struct RouteShadow {
    /// Its pattern.
    pub name: Box<str>,
    /// Its counters.
    pub counters: RouteCounters,
    findings: Mutex<Findings>,
}

impl RouteShadow {
    /// A route without findings.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), counters: RouteCounters::default(), findings: Mutex::default() }
    }

    /// The findings.
    pub fn findings(&self) -> MutexGuard<'_, Findings> {
        // Counts and lists are consistent between any two statements that could panic.
        self.findings.lock()
    }

    /// Registers its counters.
    pub fn show_in(&self, metrics: &Metrics) {
        let counters = &self.counters;
        let register = |metric, help, label, values: &[(&str, &Arc<Counter>)]| {
            for (value, counter) in values {
                let labels = [("route", self.name.to_string()), (label, (*value).to_owned())];
                metrics.register_counter(metric, help, &labels, Arc::clone(counter));
            }
        };
        let requests =
            [("hit", &counters.hits), ("miss", &counters.misses), ("bypass", &counters.bypasses)];
        register(
            "sidecache_shadow_requests",
            "Requests of routes in shadow mode, by what the cache would have done",
            "result",
            &requests,
        );
        let found = [("stale", &counters.stale), ("scope", &counters.scope)];
        register(
            "sidecache_shadow_findings",
            "Responses that would have been stale, and what callers should not share (`scope`)",
            "finding",
            &found,
        );
        let audits = [
            ("same", &counters.audits_same),
            ("stale", &counters.audits_stale),
            ("refused", &counters.audits_refused),
            ("unclear", &counters.audits_unclear),
        ];
        register(
            "sidecache_audits",
            "Hits that were fetched again to compare them, by what was found",
            "result",
            &audits,
        );
        let languages =
            [("same", &counters.languages_same), ("different", &counters.languages_different)];
        register(
            "sidecache_shadow_languages",
            "Responses in shadow mode and audits that were compared with the same page in another \
             language",
            "body",
            &languages,
        );
    }

    /// Records what the cache would have done with a request.
    pub fn record_outcome(&self, outcome: ShadowOutcome) {
        let mut findings = self.findings();
        let (count, counter) = match outcome {
            ShadowOutcome::Hit => (&mut findings.hits, &self.counters.hits),
            ShadowOutcome::Miss => (&mut findings.misses, &self.counters.misses),
            ShadowOutcome::Bypass => (&mut findings.bypasses, &self.counters.bypasses),
        };
        *count += 1;
        counter.inc();
    }

    /// Records why a response would not have been stored.
    pub fn record_not_stored(&self, reason: Reason) {
        *self.findings().not_stored.entry(reason as u8).or_default() += 1;
    }
}

impl Findings {
    /// Why responses would not have been stored, the most frequent reason first.
    pub fn not_stored(&self) -> impl Iterator<Item = (Reason, u64)> {
        let mut all: Vec<(Reason, u64)> = self
            .not_stored
            .iter()
            .filter_map(|(reason, count)| Some((*Reason::ALL.get(usize::from(*reason))?, *count)))
            .collect();
        all.sort_by(|(_, one), (_, two)| two.cmp(one));
        all.into_iter()
    }

    /// Whether bodies of this route change without writes. If so, a change of a key without a
    /// history does not point to a write.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        self.volatile > 0
    }

    /// Records a change, seen with one response. Returns its number.
    pub fn change(&mut self, mut change: StaleChange) -> u64 {
        self.next += 1;
        change.id = self.next;
        change.responses = 1;
        self.stale += 1;
        self.unexplained += u64::from(change.after.is_empty());
        push(&mut self.changes, change);
        self.next
    }

    /// Records one more response that would have been stale because of an earlier change, and
    /// whether writes explain that change.
    pub fn still(&mut self, change: Option<u64>, explained: bool) {
        self.stale += 1;
        self.unexplained += u64::from(!explained);
        if let Some(change) = self.changes.iter_mut().find(|known| Some(known.id) == change) {
            change.responses += 1;
        }
    }

    /// Records that a source has told of changes after they were seen.
    pub fn explain_late(&mut self, late: &LateSource, tags: &[Tag]) {
        for change in &mut self.changes {
            let is_open = change.after.is_empty() && change.late.is_none();
            if is_open && change.tags.iter().any(|tag| tags.contains(tag)) {
                change.late = Some(late.clone());
                self.unexplained = self.unexplained.saturating_sub(change.responses);
                let responses = change.responses;
                self.told.count(&late.source, |told| told.late += responses);
            }
        }
    }

    /// Records a response that would have been another caller's.
    pub fn record_scope(&mut self, sighting: Sighting) {
        self.scope += 1;
        self.sightings.retain(|known| known.key != sighting.key);
        push(&mut self.sightings, sighting);
    }

    /// Records that a key changes without writes, and takes back all conclusions about it.
    pub fn turn_volatile(&mut self, key: u128, explained: u64, scope: u64) {
        self.volatile += 1;
        self.unexplained = (self.unexplained + explained).min(self.stale);
        self.scope = self.scope.saturating_sub(scope);
        self.changes.retain(|change| change.key != key);
        self.sightings.retain(|sighting| sighting.key != key);
    }

    /// `Some` if a finding of this kind should be reported now, with whether it is the first one.
    pub fn is_due(&mut self, kind: FindingKind, now: Wall) -> Option<bool> {
        let last = &mut self.last_noticed[kind as usize];
        if last.is_some_and(|last| now.since(last) < NOTICE_INTERVAL) {
            return None;
        }
        Some(last.replace(now).is_none())
    }
}

fn push<T>(examples: &mut VecDeque<T>, example: T) {
    if examples.len() >= MAX_EXAMPLES {
        examples.pop_front();
    }
    examples.push_back(example);
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn change(key: u128, after: usize) -> StaleChange {
        let suspect = Suspect { method: Method::PUT, path: "/x".into(), at: Wall(0) };
        StaleChange {
            id: 0,
            key,
            path: "/a".into(),
            at: Wall(9),
            age: Duration::ZERO,
            after: vec![suspect; after],
            responses: 0,
            tags: [Tag::new("a")].into(),
            late: None,
        }
    }

    fn sighting(key: u128) -> Sighting {
        Sighting { key, path: "/a".into(), evidence: ScopeEvidence::Bodies, at: Wall(0) }
    }

    #[test]
    fn responses_count_with_the_change_that_made_them_stale() {
        let mut findings = Findings::default();
        let (explained, unexplained) =
            (findings.change(change(1, 1)), findings.change(change(2, 0)));
        findings.still(Some(explained), true);
        findings.still(Some(unexplained), false);
        findings.still(None, false);
        assert_eq!(
            (findings.stale, findings.unexplained, findings.changes[0].responses),
            (5, 3, 2)
        );
    }

    #[test]
    fn a_source_that_tells_afterwards_explains_what_no_write_does() {
        let mut findings = Findings::default();
        findings.change(change(1, 1));
        let open = findings.change(change(2, 0));
        findings.still(Some(open), false);
        let late = |source: &str| LateSource { source: source.into(), at: Wall(10) };
        findings.explain_late(&late("other"), &[Tag::new("b")]);
        assert_eq!(findings.unexplained, 2);
        for source in ["db", "db-2"] {
            findings.explain_late(&late(source), &[Tag::new("b"), Tag::new("a")]);
            assert_eq!((findings.stale, findings.unexplained), (3, 0));
        }
        let told: Vec<_> = findings.told.iter().map(|(name, told)| (name, told.late)).collect();
        assert_eq!(told, [("db", 2)]);
    }

    #[test]
    fn conclusions_about_a_volatile_key_are_taken_back() {
        let mut findings = Findings::default();
        findings.change(change(1, 1));
        findings.change(change(2, 1));
        findings.record_scope(sighting(1));
        findings.turn_volatile(1, 1, 1);
        assert_eq!((findings.stale, findings.unexplained, findings.scope), (2, 1, 0));
        assert!(
            findings.sightings.is_empty() && findings.changes.iter().all(|change| change.key == 2)
        );
    }

    #[test]
    fn examples_are_bounded_and_findings_are_reported_once_a_minute() {
        let mut findings = Findings::default();
        for key in 0..100 {
            findings.change(change(key, 1));
            findings.record_scope(sighting(key));
        }
        assert_eq!(
            (findings.changes.len(), findings.sightings.len()),
            (MAX_EXAMPLES, MAX_EXAMPLES)
        );
        assert_eq!(findings.is_due(FindingKind::Stale, Wall(0)), Some(true));
        assert_eq!(findings.is_due(FindingKind::Scope, Wall(0)), Some(true));
        assert_eq!(findings.is_due(FindingKind::Stale, Wall(59_999)), None);
        assert_eq!(findings.is_due(FindingKind::Stale, Wall(60_000)), Some(false));
    }
}
