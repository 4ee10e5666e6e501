//! Observes what keeps requests from the cache besides the rules: parts of keys that differ each
//! time, cookies that the origin sets. For operators alone; nothing is decided by it. Hits do not
//! get here.

use std::time::Duration;

use http::header::{COOKIE, HeaderMap, SET_COOKIE};

use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::cookie_header;
use crate::policy::plan::{KeyParts, Lookup};
use crate::policy::route::Route;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::context::LookupContext;
use crate::proxy::resources::Resources;

/// How many cookies of one response are counted by name.
const MAX_COOKIES: usize = 16;

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
        observe_unkeyed(config, context.lookup);
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

    /// How many requests of a route were hits, or would have been in shadow.
    #[must_use]
    pub fn route_hits(&self, config: &ActiveConfig, route: &Route) -> u64 {
        config.table.total(route.id, Disposition::Hit) + self.shadow.would_hit(route.name())
    }
}

/// Observes a request that was passed because of headers that no key has seen.
pub(super) fn observe_unkeyed(config: &ActiveConfig, lookup: &Lookup<'_>) {
    let keys = &config.varying_keys;
    keys.observe_unkeyed(lookup.route.id, &lookup.unkeyed_parts(keys.hasher()));
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
