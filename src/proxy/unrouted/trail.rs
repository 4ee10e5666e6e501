//! What the trail remembers of a request: only where the file has no routes, so that a sidecar with
//! routes pays nothing for it.

use std::net::Ipv4Addr;

use http::header::{
    CONTENT_DISPOSITION, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK,
    LOCATION, SET_COOKIE,
};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::clock::Wall;
use crate::policy::route::headers::{IMPLICIT, NEGOTIATED};
use crate::policy::{cache_groups, plan};
use crate::proxy::context::RequestContext;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::freshness;
use crate::telemetry::log::printable;
use crate::uncached::Uncached;
use crate::uncached::facts::is_unkeyed;
use crate::uncached::marks;
use crate::uncached::observation::MAX_HEADER;
use crate::uncached::trail::{MAX_GROUPS, MAX_HEADERS, RequestSender, TrailFacts};

/// Headers of a response that clients read. The others, such as the id of a request, differ between
/// responses that are the same.
const READ_BY_CLIENTS: [HeaderName; 5] =
    [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_DISPOSITION, LINK, LOCATION];

/// The same, without constants: those of lists in pages, and of what other sites may read.
const NUMBERS: [&str; 9] = [
    "x-total-count",
    "x-total",
    "x-total-pages",
    "x-page",
    "x-per-page",
    "x-next-page",
    "x-count",
    "x-pagination",
    "access-control-allow-origin",
];

fn is_on(context: &RequestContext<'_>) -> bool {
    context.config.rules.routes.iter().next().is_none()
}

/// Of a read, before it is sent.
pub(super) fn of_read(
    uncached: &Uncached,
    context: &RequestContext<'_>,
    parts: &Parts,
) -> Option<Box<TrailFacts>> {
    if !is_on(context) {
        return None;
    }
    let (headers, uri) = (&parts.headers, &parts.uri);
    let (query, marks) = marks::split(uri.query().unwrap_or_default());
    let host = plan::authority(uri, headers);
    let values = |name: &str| -> Vec<&[u8]> {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    };
    let negotiated: Vec<Vec<&[u8]>> =
        NEGOTIATED.iter().chain(IMPLICIT).map(|name| values(name)).collect();
    let unkeyed = || headers.keys().filter(|name| is_unkeyed(name.as_str()));
    let caller = context.config.rules.caller(headers);
    Some(Box::new(TrailFacts {
        began: uncached.step(),
        page: uncached.hash(&(&*host, uri.path(), query, negotiated)),
        host: uncached.hash(&host),
        sender: sender(context, headers),
        marks: if marks.is_empty() { 0 } else { uncached.hash(&marks) },
        caller: caller.map_or(0, |caller| uncached.hash(&caller.0)),
        headers: unkeyed()
            .take(MAX_HEADERS)
            .map(|name| {
                let shown = printable(name.as_str(), MAX_HEADER).to_string();
                (shown.into(), uncached.hash(&values(name.as_str())))
            })
            .collect(),
        has_more_headers: unkeyed().nth(MAX_HEADERS).is_some(),
        is_get: parts.method == Method::GET,
        ..TrailFacts::default()
    }))
}

/// Of a write, before it is sent.
pub(super) fn of_write(
    uncached: &Uncached,
    context: &RequestContext<'_>,
    parts: &Parts,
) -> Option<Box<TrailFacts>> {
    let facts = || TrailFacts {
        began: uncached.step(),
        host: uncached.hash(&plan::authority(&parts.uri, &parts.headers)),
        sender: sender(context, &parts.headers),
        ..TrailFacts::default()
    };
    is_on(context).then(|| Box::new(facts()))
}

/// Whether a proxy has written for whom it asks, and by which protocol or host.
fn sender(context: &RequestContext<'_>, headers: &HeaderMap) -> RequestSender {
    let is_forwarded = headers.contains_key("x-forwarded-for")
        && (headers.contains_key("x-forwarded-proto") || headers.contains_key("x-forwarded-host"));
    match context.peer.addr.ip() {
        _ if context.peer.trusted => RequestSender::Trusted,
        Some(address) if address == Ipv4Addr::LOCALHOST && is_forwarded => {
            RequestSender::LocalProxy
        }
        Some(address) if address == Ipv4Addr::LOCALHOST => RequestSender::Local,
        _ => RequestSender::Any,
    }
}

/// Keyed hashes of the cache groups that a field of this response names. More than
/// [`MAX_GROUPS`] count as none, and so does what cannot be read: the sidecar would not purge
/// either.
pub(super) fn groups(
    uncached: &Uncached,
    host: u64,
    headers: &HeaderMap,
    field: &HeaderName,
) -> Vec<u64> {
    if !headers.contains_key(field) {
        return Vec::new();
    }
    let groups = cache_groups::groups(headers, field).unwrap_or_default();
    if groups.len() > MAX_GROUPS {
        return Vec::new();
    }
    groups.iter().map(|group| uncached.hash(&(host, group))).collect()
}

/// Adds what the head of the response says. `is_digested` says whether its body is digested.
pub(super) fn complete(
    facts: &mut TrailFacts,
    uncached: &Uncached,
    (status, headers): (StatusCode, &HeaderMap),
    is_digested: bool,
    now: Wall,
) {
    facts.ended = uncached.step();
    let directives = CacheControl::from_headers(headers);
    let lifetime = freshness::lifetime(&directives, headers, now);
    facts.lifetime = lifetime.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    // What is meant for caches of this kind is not read here.
    let is_targeted = headers.contains_key("cdn-cache-control");
    facts.may_overrule = (status == StatusCode::NOT_MODIFIED
        || freshness::is_heuristically_cacheable(status))
        && !directives.no_store
        && !is_targeted
        && !headers.contains_key(SET_COOKIE);
    facts.is_storable = facts.may_overrule && !directives.no_cache;
    if is_digested {
        let named = READ_BY_CLIENTS.iter().map(HeaderName::as_str).chain(NUMBERS);
        let values: Vec<Vec<&[u8]>> = named
            .map(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect())
            .collect();
        facts.head = uncached.hash(&values);
    }
}
