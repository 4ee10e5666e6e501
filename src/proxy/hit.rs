//! Answers from a stored response: fresh, stale, or just filled by another sidecar.

use http::Method;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};

use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::policy::scope::Scope;
use crate::policy::surrogate::CarriedTags;
use crate::policy::tag::{self, Tag};
use crate::proxy::context::LookupContext;
use crate::proxy::fill::request::StaleCandidate;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::semantics::cache_status;
use crate::semantics::content_coding::{Coding, may_code};
use crate::semantics::negotiation::best_coding;
use crate::telemetry::hot_tags::TagEvent;

/// `min_size` of bodies that would be coded, where nothing is.
const USUAL_MIN_SIZE: u64 = 1 << 10;

/// Serves a fresh response.
pub(super) fn hit(
    resources: &Resources,
    context: &LookupContext<'_>,
    cached: &CachedEntry,
    tier: Tier,
    now: Wall,
) -> ProxyResponse {
    if let Some(times) = resources.hot_tags.sample_hit(rand::random) {
        let tags = context.lookup.tags();
        resources.hot_tags.record(named(&tags), TagEvent::Hit(times));
        // The first ones are looked at one by one.
        if times > 1 {
            note_missed_coding(resources, context, cached, times);
        }
    }
    cached.record_hit();
    let outcome = Outcome {
        tier: Some(tier),
        ttl: Some(resources.ttl_ms(cached, now) / 1000),
        saved: Some(cached.entry.fetch_duration()),
        ..Outcome::new(Disposition::Hit)
    };
    deliver(context, cached, outcome, now)
}

/// Counts the bytes of a hit, which stands for so many, if a coding would make them fewer and the
/// route may have one.
#[cold]
fn note_missed_coding(
    resources: &Resources,
    context: &LookupContext<'_>,
    cached: &CachedEntry,
    times: u64,
) {
    let (lookup, entry) = (context.lookup, &cached.entry);
    if lookup.route.spec.scope == Scope::Private
        || lookup.route.offers().is_some()
        || (entry.body.len() as u64) < USUAL_MIN_SIZE
        || may_code(entry.status, &entry.headers()).is_err()
    {
        return;
    }
    let accepted = context.parts.headers.get(ACCEPT_ENCODING).map(HeaderValue::as_bytes);
    if best_coding(accepted.unwrap_or_default(), &Coding::ALL).is_some() {
        resources.encoder.counters.missed_bytes.add(entry.body.len() as u64 * times);
    }
}

/// Serves a stored response although it is stale.
pub(super) fn serve_stale(
    context: &LookupContext<'_>,
    stale: &StaleCandidate,
    outcome: Outcome,
    now: Wall,
) -> ProxyResponse {
    let cached = &stale.candidate.cached;
    cached.record_hit();
    let outcome = Outcome {
        disposition: Disposition::Stale,
        tier: Some(stale.candidate.tier),
        ttl: Some(stale.candidate.ttl_ms(now).div_euclid(1000)),
        saved: (!outcome.forwarded).then_some(cached.entry.fetch_duration()),
        ..outcome
    };
    deliver(context, cached, outcome, now)
}

/// Serves the stored response in place of that of the origin, which failed for this reason, if it
/// may stand in.
pub(super) fn serve_stale_on_error(
    resources: &Resources,
    context: &LookupContext<'_>,
    stale: Option<&StaleCandidate>,
    outcome: Outcome,
    reason: Reason,
) -> Option<ProxyResponse> {
    let now = resources.clock.wall();
    let stale = stale.filter(|stale| stale.may_serve_for(reason, now))?;
    resources.counters.stale_if_error.inc();
    Some(serve_stale(context, stale, Outcome { reason: Some(reason), ..outcome }, now))
}

/// Serves what another sidecar's fill has stored. To the client it is the same as having followed a
/// fill of this one.
pub(super) fn serve_cluster_fill(
    resources: &Resources,
    context: &LookupContext<'_>,
    cached: &CachedEntry,
    miss_reason: Reason,
) -> ProxyResponse {
    let (entry, now) = (&cached.entry, resources.clock.wall());
    resources.fills.counters.collapsed.inc();
    let outcome = Outcome {
        collapsed: true,
        ttl: Some(resources.ttl_ms(cached, now).div_euclid(1000)),
        fwd_status: Some(entry.status.as_u16()),
        ..Outcome::miss(miss_reason)
    };
    deliver(context, cached, outcome, now)
}

fn deliver(
    context: &LookupContext<'_>,
    cached: &CachedEntry,
    outcome: Outcome,
    now: Wall,
) -> ProxyResponse {
    let head_only = context.parts.method == Method::HEAD;
    let ranges = context.lookup.range.then(|| context.settings().max_ranges);
    let headers = (&context.parts.headers, context.lookup.fields());
    let mut response = response::hit(&cached.entry, headers, head_only, now, &outcome, ranges);
    if !context.settings().surrogates.is_empty() {
        let tags = tag::of_entry(&context.lookup.tags(), &cached.entry.response_tags);
        let carried = CarriedTags { tags: &tags, is_complete: true };
        context.settings().name_tags(context.lookup.route, response.headers_mut(), carried);
    }
    add_debug_headers(context, response.headers_mut());
    ProxyResponse { response, outcome, route: Some(context.route()) }
}

/// The tags that an operator would name.
pub(super) fn named(tags: &[Tag]) -> impl Iterator<Item = &str> {
    tags.iter().filter(|tag| !tag.is_auxiliary()).map(Tag::as_str)
}

/// Shows the key, the route and the tags, where the settings ask for it.
pub(super) fn add_debug_headers(context: &LookupContext<'_>, headers: &mut HeaderMap) {
    if !context.settings().debug.keys {
        return;
    }
    let lookup = context.lookup;
    cache_status::set_cache_key_header(headers, &lookup.key.hash().to_hex());
    let tags = lookup.tags();
    let lines = [
        (response::X_CACHE_KEY, lookup.key.hash().to_hex()),
        (response::X_CACHE_ROUTE, lookup.route.name().to_owned()),
        (response::X_CACHE_TAGS, named(&tags).collect::<Vec<_>>().join(" ")),
    ];
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
