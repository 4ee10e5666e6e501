//! The report of shadow mode in the admin API: the shape of `GET /shadow`.

use serde::Serialize;

use crate::policy::edit::Edit;
use crate::policy::rule_place::RulePlace;
use crate::shadow::findings::{Findings, Sighting, StaleChange};
use crate::shadow::languages::{LanguageFinding, LanguageFindings};
use crate::shadow::source_purges::SourceTold;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowReport {
    /// The routes in shadow mode, those whose hits are audited, and those with findings.
    pub routes: Vec<RouteReport>,
    /// Suggested changes of `proxy.toml`.
    pub advice: Vec<Advice>,
}

/// The report of one route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteReport {
    /// Its pattern.
    pub route: String,
    /// Its mode.
    pub mode: &'static str,
    /// GET and HEAD requests in shadow.
    pub requests: u64,
    /// How many of them would have been hits.
    pub would_hit: u64,
    /// How many would have been misses.
    pub would_miss: u64,
    /// How many would have been passes.
    pub would_bypass: u64,
    /// Hits among hits and misses; `None` without either.
    pub hit_rate: Option<f64>,
    /// Why responses would not have been stored.
    pub not_stored: Vec<NotStored>,
    /// Responses that would have been stale.
    pub stale: StaleReport,
    /// Responses that would have been another caller's.
    pub scope: ScopeReport,
    /// Hits that were fetched again to compare them.
    pub audit: AuditReport,
    /// Whether bodies depend on `Accept-Language`.
    pub languages: LanguageReport,
    /// What sources have told.
    pub sources: Vec<SourceReport>,
}

/// What a source has told of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Its name.
    pub source: String,
    /// Changes that it told of before a response would have been stale.
    pub in_time: u64,
    /// Responses that would have been stale until it told.
    pub late: u64,
}

/// How many responses would not have been stored for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotStored {
    /// The reason.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Responses that would have been stale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StaleReport {
    /// How many.
    pub count: u64,
    /// How many of them neither a write through this sidecar nor a source explains.
    pub unexplained: u64,
    /// The latest changes that made them so.
    pub examples: Vec<StaleExample>,
}

/// A change that no purge followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StaleExample {
    /// The path of the request, cut to 256 bytes.
    pub path: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The age of the stored response at that time, in seconds.
    pub age_s: f64,
    /// The writes that may have caused the change, the latest first.
    pub after: Vec<Write>,
    /// The source that told of it afterwards.
    pub source: Option<String>,
    /// How long after the change was seen, in milliseconds.
    pub told_ms_after: Option<u64>,
}

/// A write before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Write {
    /// Its method.
    pub method: String,
    /// Its path, cut to 256 bytes.
    pub path: String,
    /// How long before the change was seen the write ended, in milliseconds.
    pub ms_before: u64,
}

/// Responses that would have been another caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeReport {
    /// How many.
    pub count: u64,
    /// The route's scope.
    pub scope: &'static str,
    /// The latest of them.
    pub examples: Vec<ScopeExample>,
}

/// A path whose callers should not share an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeExample {
    /// The path, cut to 256 bytes.
    pub path: String,
    /// When that was seen, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What shows it: `bodies` that differ, or the `refusal` of a caller.
    pub evidence: &'static str,
}

/// Hits that were fetched again to compare them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// How many.
    pub asked: u64,
    /// How many of them were stale.
    pub stale: u64,
}

/// The same pages in several languages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LanguageReport {
    /// What that shows, with enough evidence: that bodies `never` depended on the language, or that
    /// they do (`differs`).
    pub finding: Option<&'static str>,
    /// Pages that were the same in two languages.
    pub pages: u64,
    /// The languages that were compared and got the same bodies.
    pub languages: Vec<String>,
    /// How often a body was the same in another language.
    pub comparisons: u64,
    /// Pages whose body differed, and it is not known why.
    pub unclear: u64,
    /// Pages whose body depends on the language.
    pub differing: u64,
    /// Whether the origin says itself, in `Vary`, that responses depend on the language. Then there
    /// is no finding.
    pub vary: bool,
}

/// Suggested lines for `proxy.toml`, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The route they are for.
    pub route: String,
    /// Why, in a sentence.
    pub why: String,
    /// The lines.
    pub toml: String,
    /// The line of the route in the file, from 1, if it is known.
    pub line: Option<usize>,
    /// Its file, if it is an included one.
    pub file: Option<String>,
    /// The same, and what belongs to it, as a diff of the file.
    pub diff: Option<String>,
    /// The changes to try before it is shown. None for advice in words alone.
    #[serde(skip)]
    pub edits: Vec<Edit>,
}

impl Advice {
    /// The line and the file of a rule.
    #[must_use]
    pub fn place(place: Option<&RulePlace>) -> (Option<usize>, Option<String>) {
        (
            place.map(|place| place.line),
            place.and_then(|place| place.file.as_deref().map(str::to_owned)),
        )
    }
}

impl RouteReport {
    /// The report of a route with this mode and scope.
    #[must_use]
    pub fn new(route: &str, mode: &'static str, scope: &'static str, findings: &Findings) -> Self {
        let lookups = findings.hits + findings.misses;
        Self {
            route: route.to_owned(),
            mode,
            requests: lookups + findings.bypasses,
            would_hit: findings.hits,
            would_miss: findings.misses,
            would_bypass: findings.bypasses,
            hit_rate: (lookups > 0).then(|| ratio(findings.hits, lookups)),
            not_stored: findings
                .not_stored()
                .map(|(reason, count)| NotStored { reason: reason.as_str(), count })
                .collect(),
            stale: StaleReport {
                count: findings.stale,
                unexplained: findings.unexplained,
                examples: findings.changes.iter().rev().map(StaleExample::from_change).collect(),
            },
            scope: ScopeReport {
                count: findings.scope,
                scope,
                examples: findings
                    .sightings
                    .iter()
                    .rev()
                    .map(ScopeExample::from_sighting)
                    .collect(),
            },
            audit: AuditReport { asked: findings.audited, stale: findings.audited_stale },
            languages: LanguageReport::from_findings(&findings.languages),
            sources: findings
                .told
                .iter()
                .map(|(source, SourceTold { in_time, late })| SourceReport {
                    source: source.to_owned(),
                    in_time,
                    late,
                })
                .collect(),
        }
    }
}

impl LanguageReport {
    fn from_findings(findings: &LanguageFindings) -> Self {
        Self {
            finding: findings.finding().map(LanguageFinding::as_str),
            pages: findings.pages,
            languages: findings.compared.iter().map(ToString::to_string).collect(),
            comparisons: findings.comparisons,
            unclear: findings.doubtful,
            differing: findings.differing,
            vary: findings.is_said,
        }
    }
}

impl StaleExample {
    fn from_change(change: &StaleChange) -> Self {
        let before = |at: crate::clock::Wall| crate::clock::millis(change.at.since(at));
        Self {
            path: change.path.to_string(),
            at_ms: change.at.0,
            age_s: change.age.as_secs_f64(),
            after: change
                .after
                .iter()
                .map(|write| Write {
                    method: write.method.to_string(),
                    path: write.path.to_string(),
                    ms_before: before(write.at),
                })
                .collect(),
            source: change.late.as_ref().map(|late| late.source.to_string()),
            told_ms_after: change
                .late
                .as_ref()
                .map(|late| crate::clock::millis(late.at.since(change.at))),
        }
    }
}

impl ScopeExample {
    fn from_sighting(sighting: &Sighting) -> Self {
        let evidence = sighting.evidence.as_str();
        Self { path: sighting.path.to_string(), at_ms: sighting.at.0, evidence }
    }
}

#[allow(clippy::cast_precision_loss, reason = "no count of requests comes near 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
