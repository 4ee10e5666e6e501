//! Responses to clients: those made of stored responses, those that the request's conditions and
//! ranges shorten, and those that the sidecar makes itself.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED,
};
use http::{Response, StatusCode};

use crate::cache::entry::Entry;
use crate::clock::{Clock, Wall};
use crate::outcome::{Outcome, Reason};
use crate::policy::route::{Route, RouteMode, Routes};
use crate::policy::scope::Scope;
use crate::semantics::body::Body;
use crate::semantics::cache_status;
use crate::semantics::conditional;
use crate::semantics::conditional::ConditionOutcome;
use crate::semantics::range;
use crate::semantics::request_fields::RequestFields;
use crate::upstream::UpstreamError;

pub use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE};

/// The hash of the key, with debug headers.
pub(crate) const X_CACHE_KEY: HeaderName = HeaderName::from_static("x-cache-key");
/// The tags that a write has purged, with debug headers.
pub(crate) const X_CACHE_PURGED: HeaderName = HeaderName::from_static("x-cache-purged");
/// The route, with debug headers.
pub(crate) const X_CACHE_ROUTE: HeaderName = HeaderName::from_static("x-cache-route");
/// The tags of the request, with debug headers.
pub(crate) const X_CACHE_TAGS: HeaderName = HeaderName::from_static("x-cache-tags");

/// What was done with a request: its response, and what to record of it.
pub(crate) struct ProxyResponse {
    pub(crate) response: Response<Body>,
    pub(crate) outcome: Outcome,
    /// The index of its route.
    pub(crate) route: Option<usize>,
}

impl ProxyResponse {
    /// The origin could not be reached, or did not answer.
    pub(super) fn upstream_failure(
        error: &UpstreamError,
        outcome: &Outcome,
        route: Option<usize>,
    ) -> Self {
        let reason = error.reason();
        let outcome = Outcome {
            reason: Some(reason),
            subject: error.detail().map(Into::into),
            ..outcome.clone().with_failure(error.cause())
        };
        Self { response: failure(reason, &outcome), outcome, route }
    }

    /// A header that a key, tag or rule reads came twice, or would not reach the origin: a 400, not
    /// a guess.
    pub(super) fn refused_header(route: Option<&Arc<Route>>, header: &HeaderName) -> Self {
        let why =
            format!("the header {header} must come once, and must not be named in Connection");
        let outcome = Outcome::bypass_with(Reason::BadRequest, header.as_str());
        Self {
            response: refusal(StatusCode::BAD_REQUEST, &why, &outcome),
            outcome,
            route: route.map(|route| route.id),
        }
    }
}

/// The response from a stored one to a request with these headers, which have these fields.
/// `head_only` for HEAD. `ranges` is the most parts that a GET with `Range` may ask for; `None`
/// where the request has no such field, or it does not count.
#[must_use]
pub fn hit(
    entry: &Entry,
    (request, fields): (&HeaderMap, RequestFields),
    head_only: bool,
    now: Wall,
    outcome: &Outcome,
    ranges: Option<usize>,
) -> Response<Body> {
    let status = cache_status::stored_status(entry.head.origin_status(), outcome);
    let age = cache_status::age(entry.times.age(now).as_secs());
    let mut headers = entry.head.filled(age, status);
    cache_status::set_stored_word(&mut headers, outcome);
    let body = if head_only { Body::empty() } else { Body::full(entry.body.clone()) };
    let response = if fields.has(RequestFields::CONDITION) {
        conditional(request, entry.status, headers, body)
    } else {
        assemble(entry.status, headers, body)
    };
    match ranges {
        // RFC 9110 14.2: of a GET only.
        Some(most) if !head_only => apply_range(response, request, &entry.body, most),
        _ => response,
    }
}

/// A response, or a 304 in its place where the request's conditions ask for no more.
#[must_use]
pub fn conditional(
    request: &HeaderMap,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    conditional_with(request, (status, headers, body), |headers| {
        conditional::not_modified_headers(&headers, [AGE, X_CACHE, CACHE_STATUS])
    })
}

/// The same for what the origin has just sent to this request: the 304 keeps all that is not about
/// the content, above all the cookies.
#[must_use]
pub fn conditional_of_fetched(
    request: &HeaderMap,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    conditional_with(request, (status, headers, body), conditional::without_content_headers)
}

/// A response, or the 304 in its place with what `slim` leaves of its head.
fn conditional_with(
    request: &HeaderMap,
    (status, headers, body): (StatusCode, HeaderMap, Body),
    slim: impl FnOnce(HeaderMap) -> HeaderMap,
) -> Response<Body> {
    if status != StatusCode::OK
        || !conditional::has_conditions(request)
        || !not_modified(&headers, request)
    {
        return assemble(status, headers, body);
    }
    assemble(StatusCode::NOT_MODIFIED, slim(headers), Body::empty())
}

/// The parts of a 200 that the request asks for. Any other response, a 304 too, is left as it is: a
/// Range counts after the conditions, and where the response without it is a 200 (RFC 9110 13.2.2,
/// 14.2). `whole` is its content.
#[must_use]
pub fn apply_range(
    response: Response<Body>,
    request: &HeaderMap,
    whole: &Bytes,
    most: usize,
) -> Response<Body> {
    if response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let requested = range::requested_range(request, &parts.headers, whole.len(), most);
    let (status, pieces) = range::respond(&requested, &mut parts.headers, whole);
    assemble(status, parts.headers, Body::pieces(pieces))
}

fn not_modified(headers: &HeaderMap, request: &HeaderMap) -> bool {
    let verdict = conditional::evaluate(
        request,
        headers.get(ETAG),
        headers.get(LAST_MODIFIED),
        headers.get(DATE),
    );
    verdict == ConditionOutcome::NotModified
}

/// A response that the sidecar makes itself, because of a failure.
#[must_use]
pub fn failure(reason: Reason, outcome: &Outcome) -> Response<Body> {
    let subject = outcome.subject.iter().map(|subject| format!(": {subject}"));
    let tried = tried(reason).into_iter().map(|tried| {
        format!("\n\nThis is Sidecache, the proxy in front of the application. {tried}")
    });
    let words: String =
        std::iter::once(reason.as_str().to_owned()).chain(subject).chain(tried).collect();
    let mut response = plain(reason.failure_status(), &words);
    cache_status::set_cache_status(response.headers_mut(), outcome);
    response
}

/// What the sidecar has tried, for the body of a response in the origin's place.
///
/// SECURITY: strangers read it. The address and the cause are in the log.
const fn tried(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::UpstreamUnreachable => {
            "It tried to connect to the application, and got no connection. Its log has the \
             address and the cause."
        }
        Reason::UpstreamTimeout => {
            "It sent the request to the application, and got no response in time. Its log has the \
             address and the cause."
        }
        Reason::UpstreamProtocolError => {
            "It sent the request to the application, and the connection broke or what came back \
             is not valid HTTP. Its log has the address and the cause."
        }
        Reason::UpstreamBusy => {
            "All connections that it may use for this request are busy, and none came free in \
             time. The application has not got the request."
        }
        Reason::WriteRefused => {
            "It cannot tell the other instances of the cache about this write at present. The \
             application has not got the request."
        }
        Reason::CacheUnavailable => {
            "The cache is not available at present, and it is configured not to ask the \
             application then."
        }
        _ => return None,
    })
}

/// A request that breaks a rule of HTTP. The connection ends with it, because the two sides may
/// disagree on where the next message starts.
#[must_use]
pub fn refusal(status: StatusCode, why: &str, outcome: &Outcome) -> Response<Body> {
    let mut response = plain(status, why);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(
            http::header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    cache_status::set_cache_status(response.headers_mut(), outcome);
    response
}

/// A response that the sidecar makes itself to a request that is for the cache.
#[must_use]
pub fn own_answer(status: StatusCode, why: &str, outcome: &Outcome) -> Response<Body> {
    let mut response = plain(status, why);
    cache_status::set_cache_status(response.headers_mut(), outcome);
    response
}

/// SECURITY: shows neither the origin's address nor any credential, and is never stored.
fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let text =
        format!("{} {}: {why}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, number(text.len() as u64));
    assemble(status, headers, Body::full(text))
}

/// Tells the client of the freshness of a response what the rule of its route says.
pub(crate) fn tell_browser(routes: &Routes, answered: &mut ProxyResponse, clock: &Clock) {
    let Some(route) = answered.route.and_then(|id| routes.get(id)) else { return };
    let (rule, end) = (route.spec.browser, route.spec.expires_at);
    if rule.is_none() && end.is_none() {
        return;
    }
    if route.mode() != RouteMode::On {
        // Off or only watched, it leaves responses as the origin has them.
        return;
    }
    // The store gives or takes a response whose freshness is known.
    let ttl = answered.outcome.ttl;
    let headers = answered.response.headers_mut();
    if let Some(rule) = rule {
        let is_shared = route.spec.scope == Scope::Public && route.fields.is_empty();
        rule.apply(headers, ttl.is_some(), is_shared);
    }
    if let (Some(end), Some(ttl)) = (end, ttl) {
        end.tell(headers, ttl > 0, &route.response_rules.targeted, clock.date());
    }
}

/// A response of these parts.
#[must_use]
pub fn assemble(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn number(number: u64) -> HeaderValue {
    HeaderValue::from(number)
}

#[cfg(test)]
mod tests;
