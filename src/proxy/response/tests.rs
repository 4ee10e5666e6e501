//! Tests of responses made of what is stored.

use std::time::Duration;

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use http::HeaderName;

use super::*;
use crate::cache::entry::EntryMetadata;
use crate::outcome::{Disposition, Tier};
use crate::semantics::times::{Leeway, Times};

/// Headers with the fields that they have.
fn of(headers: &HeaderMap) -> (&HeaderMap, RequestFields) {
    (headers, RequestFields::of(headers))
}

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

#[test]
fn a_hit_says_so_with_its_age() {
    let entry = entry(&[("etag", "\"1\"")]);
    let outcome =
        Outcome { tier: Some(Tier::Memory), ttl: Some(48), ..Outcome::new(Disposition::Hit) };
    let response = hit(&entry, of(&HeaderMap::new()), false, Wall(10_000), &outcome, None);
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
    let response = hit(&entry, of(&request), false, Wall(0), &outcome, None);
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
        hit(entry, of(&request), head_only, Wall(10_000), &outcome, Some(4)).into_parts();
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
    assert_eq!(hit(&entry, of(&request), false, Wall(0), &outcome, None).status(), StatusCode::OK);
}

#[test]
fn the_origins_own_cache_status_stays_in_front() {
    let entry = entry(&[("cache-status", "origin; hit")]);
    let outcome =
        Outcome { tier: Some(Tier::Memory), ttl: Some(1), ..Outcome::new(Disposition::Hit) };
    let response = hit(&entry, of(&HeaderMap::new()), true, Wall(0), &outcome, None);
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
