//! Observes what keeps requests from the cache besides the rules: parts of keys that differ each
//! time, cookies that the origin sets. For operators alone; nothing is decided by it. Hits do not
//! get here.

use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderName, SET_COOKIE};

use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::cookie_header;
use crate::policy::plan::{KeyParts, Lookup, Plan};
use crate::policy::route::Route;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::context::LookupContext;
use crate::proxy::resources::Resources;

/// How many cookies of one response are counted by name.
const MAX_COOKIES: usize = 16;

/// How many repeated headers of one request are counted by name.
const MAX_REPEATED: usize = 16;

/// Under which headers are counted that no field could read as they came.
const UNKEYABLE: &str = "unkeyable header";

/// Observes a lookup that found nothing, and its outcome.
pub(super) fn observe_miss(
    resources: &Resources,
    context: &LookupContext<'_>,
    reason: Reason,
    outcome: &Outcome,
) {
    // Without the part that differs, this request would have found what an earlier one has stored.
    let by_key = matches!(reason, Reason::NotStored | Reason::VaryMiss | Reason::NotAdmitted);
    if !by_key || !outcome.stored || outcome.disposition != Disposition::Miss {
        return;
    }
    let ttl = outcome.ttl.and_then(|ttl| u64::try_from(ttl).ok()).unwrap_or_default();
    let config = context.request.config;
    if let Some(parts) = key_parts(resources, config, context.lookup) {
        let route = context.lookup.route;
        observe_parts(resources, config, route, &parts, Duration::from_secs(ttl));
    }
}

/// The parts of a key, unless there are too many, which is counted.
pub(super) fn key_parts<'a>(
    resources: &Resources,
    config: &ActiveConfig,
    lookup: &'a Lookup<'_>,
) -> Option<KeyParts<'a>> {
    let parts = lookup.key_parts(config.varying_keys.hasher());
    if parts.is_none() {
        resources.counters.keys_unobserved.inc();
    }
    parts
}

/// What the key of a request of a route in shadow is made of, where it would be a miss. Headers
/// that no key has seen are observed.
pub(super) fn shadowed_parts(
    resources: &Resources,
    context: &LookupContext<'_>,
    is_miss: bool,
) -> Option<KeyParts<'static>> {
    let config = context.request.config;
    if !context.lookup.unknown.is_empty() {
        observe_unkeyed(resources, context);
    }
    let parts = is_miss.then(|| key_parts(resources, config, context.lookup));
    parts.flatten().map(KeyParts::into_owned)
}

/// Observes a miss with these parts, whose response is fresh for so long.
pub(super) fn observe_parts(
    resources: &Resources,
    config: &ActiveConfig,
    route: &Route,
    parts: &KeyParts<'_>,
    fresh_for: Duration,
) {
    let now = resources.clock.wall();
    let rolls = |name: &str| config.rolling_cookies.rolls(name);
    let hits = || resources.route_hits(config, route);
    let times = (now, now.after(fresh_for));
    config.varying_keys.observe(route.id, parts, times, &rolls, hits);
}

impl Resources {
    /// The cookies that keep responses of a route from being stored, the most frequent first.
    #[must_use]
    pub fn set_cookies(&self, route: &Route) -> Vec<(String, u64)> {
        self.hot_tags.subjects(route.name(), Reason::SetCookie.as_str())
    }

    /// The headers of a route's requests that no field could read, and how often they came so.
    #[must_use]
    pub fn unkeyable_headers(&self, route: &Route) -> Vec<(String, u64)> {
        self.hot_tags.subjects(route.name(), UNKEYABLE)
    }

    /// How many requests of a route were hits, or would have been in shadow.
    #[must_use]
    pub fn route_hits(&self, config: &ActiveConfig, route: &Route) -> u64 {
        config.table.total(route.id, Disposition::Hit) + self.shadow.would_hit(route.name())
    }
}

/// Observes a request that was passed because of headers that no key has seen.
pub(super) fn observe_unkeyed(resources: &Resources, context: &LookupContext<'_>) {
    let (lookup, keys) = (context.lookup, &context.request.config.varying_keys);
    keys.observe_unkeyed(lookup.route.id, &lookup.unkeyed_parts(keys.hasher()));
    record_repeated(resources, lookup, &context.parts.headers);
}

/// Observes the plan of a request of a route in shadow.
pub(super) fn observe_plan(resources: &Resources, plan: &Plan<'_>) {
    if let Plan::Pass(route, outcome) = plan {
        record_removed(resources, *route, outcome);
    }
}

/// Counts the header of a request that passes because `Connection` names it.
pub(super) fn record_removed(resources: &Resources, route: Option<&Arc<Route>>, outcome: &Outcome) {
    if let Some(route) = route
        && outcome.reason == Some(Reason::UnkeyedHeader)
        && let Some(name) = &outcome.subject
    {
        record_unkeyable(resources, route, name);
    }
}

/// Counts the headers of a request that no key has seen and that come more than once: a field that
/// reads one would refuse the request.
fn record_repeated(resources: &Resources, lookup: &Lookup<'_>, headers: &HeaderMap) {
    let is_repeated = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    for name in lookup.unknown.iter().filter(is_repeated).take(MAX_REPEATED) {
        record_unkeyable(resources, lookup.route, name.as_str());
    }
}

/// Counts a header that no field could read as it came.
fn record_unkeyable(resources: &Resources, route: &Route, name: &str) {
    resources.hot_tags.subject(route.name(), UNKEYABLE, name);
}

/// The cookies of a request that is about to be forwarded, if it has any.
pub(super) fn cookies_of(headers: &HeaderMap) -> HeaderMap {
    let lines = headers.get_all(COOKIE).iter();
    lines.map(|line| (COOKIE, line.clone())).collect()
}

/// Counts the cookies that a response of a route sets, so that it is not stored.
pub(super) fn record_set_cookies(resources: &Resources, route: &Route, response: &HeaderMap) {
    for line in response.get_all(SET_COOKIE).iter().take(MAX_COOKIES) {
        if let Some((name, _)) = cookie_header::set_cookie(line.as_bytes()) {
            let name = String::from_utf8_lossy(name);
            resources.hot_tags.subject(route.name(), Reason::SetCookie.as_str(), &name);
        }
    }
}
