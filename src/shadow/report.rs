//! What the admin API tells of shadow mode: the shape of `GET /shadow`.

use serde::Serialize;

use crate::shadow::findings::{Findings, Sighting, StaleChange};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowReport {
    /// The routes in shadow, those whose hits are audited, and those of which something was found.
    pub routes: Vec<RouteReport>,
    /// What would mend it.
    pub advice: Vec<Advice>,
}

/// What was seen of one route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteReport {
    /// Its pattern.
    pub route: String,
    /// Its mode.
    pub mode: &'static str,
    /// GET and HEAD requests in shadow.
    pub requests: u64,
    /// How many of them would have been answered from the cache.
    pub would_hit: u64,
    /// How many would have asked the app.
    pub would_miss: u64,
    /// Of how many the cache would have taken no part.
    pub would_bypass: u64,
    /// Hits among hits and misses; none without either.
    pub hit_rate: Option<f64>,
    /// Why answers would not have been stored.
    pub not_stored: Vec<NotStored>,
    /// Answers that would have been out of date.
    pub stale: StaleReport,
    /// Answers that would have been another caller's.
    pub scope: ScopeReport,
    /// Hits that were asked for again.
    pub audit: AuditReport,
}

/// How many answers would not have been stored for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotStored {
    /// The reason's words.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Answers that would have been out of date.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StaleReport {
    /// How many.
    pub count: u64,
    /// How many of them no write that passed here explains.
    pub unexplained: u64,
    /// The latest changes that made them so.
    pub examples: Vec<StaleExample>,
}

/// A change that no purge has followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StaleExample {
    /// The path that was asked for, cut to 256 bytes.
    pub path: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// How old the stored answer was by then, in seconds.
    pub age_s: f64,
    /// The writes that may have made the change, the latest first.
    pub after: Vec<Write>,
}

/// A write before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Write {
    /// Its method.
    pub method: String,
    /// Its path, cut to 256 bytes.
    pub path: String,
    /// How long before the change was seen it ended, in milliseconds.
    pub ms_before: u64,
}

/// Answers that would have been another caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeReport {
    /// How many.
    pub count: u64,
    /// The route's scope.
    pub scope: &'static str,
    /// The latest of them.
    pub examples: Vec<ScopeExample>,
}

/// A path whose body differs between callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeExample {
    /// The path, cut to 256 bytes.
    pub path: String,
    /// When that was seen, in milliseconds since the epoch.
    pub at_ms: u64,
}

/// Hits that were asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// How many.
    pub asked: u64,
    /// How many of them were out of date.
    pub stale: u64,
}

/// Lines for `proxy.toml`, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The route they are for.
    pub route: String,
    /// Why, in a sentence.
    pub why: String,
    /// The lines.
    pub toml: String,
    /// Where the route stands in the file, from 1, as far as that is known.
    pub line: Option<usize>,
}

impl RouteReport {
    /// What is said of a route of this mode and scope.
    #[must_use]
    pub fn new(route: &str, mode: &'static str, scope: &'static str, findings: &Findings) -> Self {
        let asked = findings.hits + findings.misses;
        Self {
            route: route.to_owned(),
            mode,
            requests: asked + findings.bypasses,
            would_hit: findings.hits,
            would_miss: findings.misses,
            would_bypass: findings.bypasses,
            hit_rate: (asked > 0).then(|| ratio(findings.hits, asked)),
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
        }
    }
}

impl ScopeExample {
    fn from_sighting(sighting: &Sighting) -> Self {
        Self { path: sighting.path.to_string(), at_ms: sighting.at.0 }
    }
}

#[allow(clippy::cast_precision_loss, reason = "no count of requests comes near 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
