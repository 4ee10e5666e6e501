//! Responses to clients: heads of hits, what is added to what the app sent, and the only map from
//! errors to statuses.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use http::{Response, StatusCode};

use crate::cache::entry::Entry;
use crate::clock::Wall;
use crate::outcome::{Disposition, Outcome, Reason};
use crate::semantics::body::Body;
use crate::semantics::conditional;
use crate::semantics::conditional::ConditionOutcome;
use crate::semantics::range;

pub use crate::cache::entry::{CACHE_STATUS, X_CACHE};

/// The hash of the key, with debug headers.
pub(crate) const X_CACHE_KEY: HeaderName = HeaderName::from_static("x-cache-key");
/// The tags that a write has purged, with debug headers.
pub(crate) const X_CACHE_PURGED: HeaderName = HeaderName::from_static("x-cache-purged");
/// The route, with debug headers.
pub(crate) const X_CACHE_ROUTE: HeaderName = HeaderName::from_static("x-cache-route");
/// The tags of the request, with debug headers.
pub(crate) const X_CACHE_TAGS: HeaderName = HeaderName::from_static("x-cache-tags");

/// Answers from a stored response. `head_only` for HEAD; `ranges` says how many parts of it a GET
/// with `Range` may have at most, `None` that there is no such field or that it does not count.
#[must_use]
pub fn hit(
    entry: &Entry,
    request: &HeaderMap,
    head_only: bool,
    now: Wall,
    outcome: &Outcome,
    ranges: Option<usize>,
) -> Response<Body> {
    let mut headers = entry.headers.clone();
    let age = entry.times.age(now).as_secs();
    headers.insert(AGE, number(age));
    let status = if outcome.disposition == Disposition::Hit {
        hit_status(entry.headers.get(CACHE_STATUS), outcome)
    } else {
        headers.insert(X_CACHE, HeaderValue::from_static(outcome.disposition.as_str()));
        appended_status(entry.headers.get(CACHE_STATUS), outcome)
    };
    headers.insert(CACHE_STATUS, status);
    let body = if head_only { Body::empty() } else { Body::full(entry.body.clone()) };
    let response = conditional(request, entry.status, headers, body);
    match ranges {
        // RFC 9110 14.2: of a GET only.
        Some(most) if !head_only => apply_range(response, request, &entry.body, most),
        _ => response,
    }
}

/// A response, or a 304 in its place where the request's own conditions ask for no more.
#[must_use]
pub fn conditional(
    request: &HeaderMap,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    if status != StatusCode::OK
        || !conditional::has_conditions(request)
        || !not_modified(&headers, request)
    {
        return assemble(status, headers, body);
    }
    let mut slim = conditional::not_modified_headers(&headers);
    for name in [AGE, X_CACHE, CACHE_STATUS] {
        if let Some(value) = headers.get(&name) {
            slim.insert(name, value.clone());
        }
    }
    assemble(StatusCode::NOT_MODIFIED, slim, Body::empty())
}

/// The parts of a 200 that the request asks for; any other response, a 304 too, is left as it is: a
/// Range counts after the conditions, and where the answer without it is a 200 (RFC 9110 13.2.2,
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
    let asked = range::requested_range(request, &parts.headers, whole.len(), most);
    let (status, pieces) = range::respond(&asked, &mut parts.headers, whole);
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

/// The commonest line, written without the formatting machinery: `sidecache; hit; ttl=243;
/// detail=memory`.
fn hit_status(upstream: Option<&HeaderValue>, outcome: &Outcome) -> HeaderValue {
    let upstream = upstream.filter(|value| !value.is_empty());
    let (Some(tier), Some(ttl), None) = (outcome.tier, outcome.ttl, upstream) else {
        return appended_status(upstream, outcome);
    };
    let mut digits = itoa::Buffer::new();
    let mut line = Vec::with_capacity(64);
    line.extend_from_slice(b"sidecache; hit; ttl=");
    line.extend_from_slice(digits.format(ttl).as_bytes());
    line.extend_from_slice(b"; detail=");
    line.extend_from_slice(tier.as_str().as_bytes());
    value(Bytes::from(line))
}

/// Marks a response that the app sent. What the app, or another cache before it, says of itself in
/// `Cache-Status` stays in front.
pub fn set_cache_status(headers: &mut HeaderMap, outcome: &Outcome) {
    let status = appended_status(None, outcome);
    headers.append(CACHE_STATUS, status);
    headers.insert(X_CACHE, HeaderValue::from_static(outcome.disposition.as_str()));
}

/// Says something else of a response that was marked before.
pub fn replace_cache_status(headers: &mut HeaderMap, outcome: &Outcome) {
    take_own_cache_status(headers);
    set_cache_status(headers, outcome);
}

/// Adds the key to what was said in `Cache-Status` (RFC 9211 2.7).
pub fn set_cache_key_header(headers: &mut HeaderMap, key: &str) {
    if let Some(own) = take_own_cache_status(headers) {
        headers.append(
            CACHE_STATUS,
            value(Bytes::from([own.as_bytes(), b"; key=\"", key.as_bytes(), b"\""].concat())),
        );
    }
}

/// Takes away the last line of `Cache-Status`, which is the sidecar's own: it is the nearest to the
/// client (RFC 9211 2).
fn take_own_cache_status(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut lines: Vec<HeaderValue> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
    let own = lines.pop();
    headers.remove(CACHE_STATUS);
    for line in lines {
        headers.append(CACHE_STATUS, line);
    }
    own
}

fn appended_status(upstream: Option<&HeaderValue>, outcome: &Outcome) -> HeaderValue {
    let mut line = String::with_capacity(96);
    if let Some(upstream) =
        upstream.filter(|value| !value.is_empty()).and_then(|value| value.to_str().ok())
    {
        line.push_str(upstream);
        line.push_str(", ");
    }
    line.push_str("sidecache");
    match outcome.disposition {
        Disposition::Hit => line.push_str("; hit"),
        // RFC 9211 2.1, 2.2: `hit` only where the app was not asked.
        Disposition::Stale => {
            line.push_str(if outcome.forwarded { "; fwd=stale" } else { "; hit" })
        }
        Disposition::Revalidated | Disposition::Miss => {
            line.push_str(match outcome.fwd_reason.or(outcome.reason) {
                Some(Reason::Expired | Reason::StaleWhileRevalidate) => "; fwd=stale",
                Some(Reason::VaryMiss) => "; fwd=vary-miss",
                Some(Reason::RequestNoCache) => "; fwd=request",
                Some(Reason::NotAdmitted | Reason::Purged) => "; fwd=miss",
                _ => "; fwd=uri-miss",
            })
        }
        Disposition::Bypass => line.push_str(match outcome.reason {
            Some(Reason::Method | Reason::MethodOverride) => "; fwd=method",
            Some(Reason::RequestNoStore) => "; fwd=request",
            _ => "; fwd=bypass",
        }),
    }
    if let Some(status) = outcome.fwd_status {
        let _ = write!(line, "; fwd-status={status}");
    }
    if let Some(ttl) = outcome.ttl {
        let _ = write!(line, "; ttl={ttl}");
    }
    if outcome.stored {
        line.push_str("; stored");
    }
    if outcome.collapsed {
        line.push_str("; collapsed");
    }
    match (outcome.tier, outcome.detail()) {
        (Some(tier), None) => {
            let _ = write!(line, "; detail={}", tier.as_str());
        }
        (_, Some(detail)) => {
            line.push_str("; detail=\"");
            // What may stand in a string of RFC 9651; header and field names need no more.
            line.extend(detail.to_string().chars().map(|c| {
                if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' }
            }));
            line.push('"');
        }
        (None, None) => {}
    }
    value(Bytes::from(line))
}

/// A response that the sidecar makes itself, because of a failure.
#[must_use]
pub fn failure(reason: Reason, outcome: &Outcome) -> Response<Body> {
    let mut response = plain(
        reason.failure_status(),
        &match &outcome.subject {
            Some(subject) => format!("{}: {subject}", reason.as_str()),
            None => reason.as_str().to_owned(),
        },
    );
    set_cache_status(response.headers_mut(), outcome);
    response
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
    set_cache_status(response.headers_mut(), outcome);
    response
}

/// SECURITY: says nothing of the app's address or of any credential, and is never stored.
fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let text =
        format!("{} {}: {why}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, number(text.len() as u64));
    assemble(status, headers, Body::full(text))
}

/// What a follower of a fill gets of its head: not the cookies, which are the leader's.
pub fn strip_cookies(headers: &mut HeaderMap) {
    headers.remove(SET_COOKIE);
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

fn value(line: Bytes) -> HeaderValue {
    // Made of visible ASCII above; the fallback only keeps a mistake there from becoming a panic.
    HeaderValue::from_maybe_shared(line).unwrap_or_else(|_| HeaderValue::from_static("sidecache"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use http::HeaderName;

    use super::*;
    use crate::cache::entry::EntryMetadata;
    use crate::outcome::Tier;
    use crate::semantics::times::{Leeway, Times};

    fn entry(lines: &[(&'static str, &'static str)]) -> Entry {
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let times = Times {
            received: Wall(0),
            initial_age: Duration::from_secs(2),
            lifetime: Duration::from_mins(1),
        };
        let facts = EntryMetadata {
            times,
            leeway: Leeway::default(),
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        Entry::compact(b"key", StatusCode::OK, &headers, &[Bytes::from_static(b"body")], facts)
    }

    fn status(outcome: &Outcome) -> String {
        let mut headers = HeaderMap::new();
        set_cache_status(&mut headers, outcome);
        headers[CACHE_STATUS].to_str().expect("ascii").to_owned()
    }

    #[test]
    fn a_hit_says_so_with_its_age() {
        let entry = entry(&[("etag", "\"1\"")]);
        let outcome =
            Outcome { tier: Some(Tier::Memory), ttl: Some(48), ..Outcome::new(Disposition::Hit) };
        let response = hit(&entry, &HeaderMap::new(), false, Wall(10_000), &outcome, None);
        assert_eq!(response.headers()[X_CACHE], "HIT");
        assert_eq!(response.headers()[AGE], "12");
        assert_eq!(response.headers()[CACHE_STATUS], "sidecache; hit; ttl=48; detail=memory");
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
    }

    #[test]
    fn a_hit_answers_a_condition() {
        let entry = entry(&[("etag", "\"1\""), ("content-type", "a/b")]);
        let outcome =
            Outcome { tier: Some(Tier::Redis), ttl: Some(1), ..Outcome::new(Disposition::Hit) };
        let mut request = HeaderMap::new();
        request.insert("if-none-match", HeaderValue::from_static("\"1\""));
        let response = hit(&entry, &request, false, Wall(0), &outcome, None);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[X_CACHE], "HIT");
        assert!(
            !response.headers().contains_key(CONTENT_TYPE)
                && !response.headers().contains_key(CONTENT_LENGTH)
        );
    }

    const NEWER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const OLDER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// The answer to a GET with these fields from an entry of the content `body`, and its content.
    fn ranged(
        entry: &Entry,
        fields: &[(&'static str, &'static str)],
        head_only: bool,
    ) -> (Response<()>, String) {
        let request = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let outcome =
            Outcome { tier: Some(Tier::Memory), ttl: Some(48), ..Outcome::new(Disposition::Hit) };
        let (head, body) =
            hit(entry, &request, head_only, Wall(10_000), &outcome, Some(4)).into_parts();
        let content = body.collect().now_or_never().expect("at hand").expect("whole").to_bytes();
        assert_eq!(head.headers[X_CACHE], "HIT");
        assert_eq!(head.headers[CACHE_STATUS], "sidecache; hit; ttl=48; detail=memory");
        (Response::from_parts(head, ()), String::from_utf8(content.to_vec()).expect("text"))
    }

    #[test]
    fn a_hit_answers_a_range() {
        let entry = entry(&[
            ("etag", "\"1\""),
            ("content-type", "a/b"),
            ("cache-control", "max-age=60"),
            ("vary", "accept"),
        ]);
        let (head, content) = ranged(&entry, &[("range", "bytes=1-2")], false);
        assert_eq!((head.status().as_u16(), &*content), (206, "od"));
        for (name, value) in [
            ("content-range", "bytes 1-2/4"),
            ("content-length", "2"),
            ("content-type", "a/b"),
            ("etag", "\"1\""),
            ("cache-control", "max-age=60"),
            ("vary", "accept"),
            ("age", "12"),
        ] {
            assert_eq!(head.headers()[name], value, "{name}");
        }
        let (head, content) = ranged(&entry, &[("range", "bytes=0-0,3-3")], false);
        assert_eq!(head.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(head.headers()[CONTENT_LENGTH].to_str().unwrap(), content.len().to_string());
        assert!(
            head.headers()[CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("multipart/byteranges; boundary=")
        );
        assert!(
            content.contains("Content-Range: bytes 0-0/4\r\n\r\nb\r\n")
                && content.contains("Content-Range: bytes 3-3/4\r\n\r\ny\r\n")
        );
    }

    #[test]
    fn a_hit_answers_416_to_a_range_that_is_not_there() {
        let entry = entry(&[
            ("etag", "\"1\""),
            ("content-type", "a/b"),
            ("cache-control", "max-age=60"),
            ("vary", "accept"),
        ]);
        let (head, content) = ranged(&entry, &[("range", "bytes=4-")], false);
        assert_eq!((head.status().as_u16(), &*content), (416, ""));
        assert_eq!(head.headers()["content-range"], "bytes */4");
        assert_eq!(head.headers()[CONTENT_LENGTH], "0");
        assert_eq!(head.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(head.headers()["vary"], "accept");
        assert!(!head.headers().contains_key(CONTENT_TYPE));
    }

    #[test]
    fn a_range_counts_only_when_if_range_names_the_stored_response() {
        let entry = entry(&[("etag", "\"1\""), ("last-modified", OLDER), ("date", NEWER)]);
        for (condition, status, content) in [
            ("\"1\"", 206, "b"),
            (OLDER, 206, "b"),
            ("\"2\"", 200, "body"),
            ("W/\"1\"", 200, "body"),
            (NEWER, 200, "body"),
        ] {
            let (head, found) =
                ranged(&entry, &[("range", "bytes=0-0"), ("if-range", condition)], false);
            assert_eq!((head.status().as_u16(), &*found), (status, content), "{condition}");
            assert_eq!(head.headers().contains_key("content-range"), status == 206);
        }
        let (head, _) = ranged(&entry, &[("range", "bytes=9-"), ("if-range", "\"2\"")], false);
        assert_eq!(
            head.status(),
            StatusCode::OK,
            "a false condition comes before a range that is not there"
        );
    }

    #[test]
    fn conditions_are_judged_before_ranges() {
        let entry = entry(&[("etag", "\"1\"")]);
        for range in ["bytes=0-0", "bytes=9-", "junk"] {
            let (head, content) =
                ranged(&entry, &[("if-none-match", "\"1\""), ("range", range)], false);
            assert_eq!((head.status().as_u16(), &*content), (304, ""), "{range}");
            assert!(!head.headers().contains_key("content-range"));
        }
        let (head, content) =
            ranged(&entry, &[("if-none-match", "\"2\""), ("range", "bytes=0-0")], false);
        assert_eq!((head.status().as_u16(), &*content), (206, "b"));
    }

    #[test]
    fn a_range_means_nothing_to_head_or_to_another_status() {
        let mut entry = entry(&[]);
        let (head, content) = ranged(&entry, &[("range", "bytes=0-0")], true);
        assert_eq!((head.status().as_u16(), &*content), (200, ""));
        assert_eq!(head.headers()[CONTENT_LENGTH], "4");
        entry.status = StatusCode::NOT_FOUND;
        let (head, content) = ranged(&entry, &[("range", "bytes=0-0")], false);
        assert_eq!((head.status().as_u16(), &*content), (404, "body"));
        entry.status = StatusCode::OK;
        let outcome = Outcome::new(Disposition::Hit);
        let request =
            HeaderMap::from_iter([(http::header::RANGE, HeaderValue::from_static("bytes=0-0"))]);
        assert_eq!(hit(&entry, &request, false, Wall(0), &outcome, None).status(), StatusCode::OK);
    }

    #[test]
    fn every_outcome_is_a_line_of_rfc_9211() {
        assert_eq!(
            status(&Outcome::bypass(Reason::NoRoute)),
            "sidecache; fwd=bypass; detail=\"no route\""
        );
        assert_eq!(
            status(&Outcome::bypass_with(Reason::UnkeyedHeader, "x-account-id")),
            "sidecache; fwd=bypass; detail=\"unkeyed header x-account-id\""
        );
        assert_eq!(
            status(&Outcome::bypass(Reason::Method)),
            "sidecache; fwd=method; detail=\"method\""
        );
        let miss = Outcome {
            stored: true,
            fwd_status: Some(200),
            ttl: Some(300),
            ..Outcome::miss(Reason::NotStored)
        };
        assert_eq!(
            status(&miss),
            "sidecache; fwd=uri-miss; fwd-status=200; ttl=300; stored; detail=\"not stored\""
        );
        assert_eq!(
            status(&Outcome::bypass_with(Reason::MissingField, "a\"\n\\b")),
            "sidecache; fwd=bypass; detail=\"missing field a???b\""
        );
    }

    #[test]
    fn the_apps_own_cache_status_stays_in_front() {
        let entry = entry(&[("cache-status", "origin; hit")]);
        let outcome =
            Outcome { tier: Some(Tier::Memory), ttl: Some(1), ..Outcome::new(Disposition::Hit) };
        let response = hit(&entry, &HeaderMap::new(), true, Wall(0), &outcome, None);
        assert_eq!(
            response.headers()[CACHE_STATUS],
            "origin; hit, sidecache; hit; ttl=1; detail=memory"
        );
    }

    #[test]
    fn failures_have_their_statuses_and_are_never_stored() {
        for (reason, status) in [
            (Reason::UpstreamTimeout, 504),
            (Reason::UpstreamUnreachable, 502),
            (Reason::WriteRefused, 503),
            (Reason::BadRequest, 400),
        ] {
            let response = failure(reason, &Outcome::bypass(reason));
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        }
    }
}
