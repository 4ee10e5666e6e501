//! What the trail remembers of a request: only where the file has no routes, so that a sidecar with
//! routes pays nothing for it.

use std::net::Ipv4Addr;

use http::header::{
    CONTENT_DISPOSITION, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName,
    HeaderValue, LINK, LOCATION, SET_COOKIE,
};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::clock::Wall;
use crate::policy::cookie_header::cookie_pieces;
use crate::policy::jwt::UnverifiedToken;
use crate::policy::route::headers::{IMPLICIT, NEGOTIATED};
use crate::policy::session::{UnverifiedSession, sessions_set_by};
use crate::policy::{cache_groups, plan};
use crate::proxy::context::RequestContext;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::freshness;
use crate::telemetry::log::printable;
use crate::uncached::Uncached;
use crate::uncached::callers::{MAX_SIGNED, SeenClaim, SessionCookie, SessionFacts, TokenFacts};
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
    let token = UnverifiedToken::of_request(headers);
    let claims = token.iter().flat_map(|token| &token.claims).map(|(name, value)| SeenClaim {
        name: name.clone(),
        key: uncached.hash(name),
        value: uncached.hash(value),
    });
    Some(Box::new(TrailFacts {
        claims: claims.collect(),
        token: token.as_ref().map(|token| TokenFacts {
            algorithm: token.algorithm,
            issuer: token.issuer.clone(),
            audience: token.audience.clone(),
        }),
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

/// A session cookie of a read, and a keyed hash of who asks: its payload counts in its place.
pub(super) struct CookieSession {
    session: UnverifiedSession,
    caller: u64,
}

/// The session cookie of a read, if it looks signed.
pub(super) fn session_of(
    uncached: &Uncached,
    context: &RequestContext<'_>,
    headers: &HeaderMap,
) -> Option<CookieSession> {
    let session = UnverifiedSession::of_request(headers).filter(|_| is_on(context))?;
    let others: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| cookie_pieces(line.as_bytes()))
        .filter(|(name, _)| *name != session.cookie.as_bytes())
        .map(|(_, piece)| piece)
        .collect();
    let mut rest = headers.clone();
    rest.remove(COOKIE);
    if let Ok(line) = HeaderValue::from_bytes(&others.join(&b"; "[..])) {
        rest.insert(COOKIE, line);
    }
    let rest = context.config.rules.caller(&rest).map(|caller| caller.0);
    let caller = uncached.hash(&(rest, &session.cookie, &session.payload));
    Some(CookieSession { session, caller })
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
    session: Option<CookieSession>,
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
    let may_overrule = (status == StatusCode::NOT_MODIFIED
        || freshness::is_heuristically_cacheable(status))
        && !directives.no_store
        && !is_targeted;
    let is_storable = may_overrule && !directives.no_cache;
    let sets_none = !headers.contains_key(SET_COOKIE);
    (facts.is_storable, facts.may_overrule) = (is_storable && sets_none, may_overrule && sets_none);
    let signed = sessions_set_by(headers).take(MAX_SIGNED);
    facts.signed = signed.map(|signed| uncached.hash(&signed)).collect();
    facts.session = session.map(|CookieSession { session, caller }| {
        let renewal = session.renewed_by(headers, now);
        let keeps = sets_none || renewal.is_some();
        SessionFacts {
            value: uncached.hash(&(session.cookie.as_bytes(), &*session.value)),
            cookie: SessionCookie { name: session.cookie, format: session.format },
            caller,
            is_renewed: renewal.is_some(),
            kept_for: renewal.and_then(|renewal| renewal.kept_for),
            is_storable: is_storable && keeps,
            may_overrule: may_overrule && keeps,
        }
    });
    if is_digested {
        let named = READ_BY_CLIENTS.iter().map(HeaderName::as_str).chain(NUMBERS);
        let values: Vec<Vec<&[u8]>> = named
            .map(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect())
            .collect();
        facts.head = uncached.hash(&values);
    }
}
