//! Requests that violate HTTP, or stretch its rules, do not reach the origin in a form that it
//! could interpret differently.

use crate::support::client::exchange;
use crate::support::http1::status;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Sidecar};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Rejected requests: their bytes, and the statuses that are allowed in the response.
const REFUSED: &[(&str, &[u8], &[u16])] = &[
    ("two Hosts", b"GET /a HTTP/1.1\r\nHost: app.test\r\nHost: other.test\r\n\r\n", &[400]),
    ("the same Host twice", b"GET /a HTTP/1.1\r\nHost: app.test\r\nHost: app.test\r\n\r\n", &[400]),
    ("no Host", b"GET /a HTTP/1.1\r\n\r\n", &[400]),
    ("a Host of two words", b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
    ("a Host with a path", b"GET /a HTTP/1.1\r\nHost: a/../c\r\n\r\n", &[400]),
    ("a Host with a user", b"GET /a HTTP/1.1\r\nHost: user@a\r\n\r\n", &[400]),
    ("absolute-form with a user", b"GET http://u@a/a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("absolute-form without Host", b"GET http://app.test/a HTTP/1.1\r\n\r\n", &[400]),
    (
        "absolute-form with two Hosts",
        b"GET http://a/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    ),
    ("authority-form", b"GET app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n", &[400]),
    ("an asterisk for a GET", b"GET * HTTP/1.1\r\nHost: app.test\r\n\r\n", &[400]),
    ("a target without a slash", b"GET a HTTP/1.1\r\nHost: app.test\r\n\r\n", &[400]),
    ("CONNECT", b"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n", &[400, 405, 501]),
    (
        "CL, then TE",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: \
        6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        &[400],
    ),
    (
        "TE, then CL",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: \
        chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
        &[400],
    ),
    (
        "TE, in another case, then CL",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\ntRANSFER-eNCODING: chunked\r\ncONTENT-lENGTH: \
            6\r\n\r\n0\r\n\r\nX",
        &[400],
    ),
    (
        "two different CLs",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: \
        1\r\nContent-Length: 2\r\n\r\nxx",
        &[400],
    ),
    (
        "CL with a sign",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: +5\r\n\r\nhello",
        &[400],
    ),
    (
        "TE beginning with a comma",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: \
        ,chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE of two codings",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: gzip, \
        chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE twice",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: \
            chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE of no known coding",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: \
        xchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE in quotes",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: \
        \"chunked\"\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE not ending in chunked",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked, \
            identity\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE with a space before the colon",
        b"POST /a HTTP/1.1\r\nHost: \
        app.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "TE on a folded line",
        b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding:\r\n \
        chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "TE in HTTP/1.0",
        b"POST /a HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: \
        chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "Host named by Connection",
        b"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: host\r\n\r\n",
        &[400],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_requests_are_refused_and_the_app_sees_nothing() {
    let app = Origin::raw(OK);
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut wrong = Vec::new();
    for (name, bytes, expected) in REFUSED {
        let before = app.received().len();
        let answer = exchange(sidecar.address, bytes).await;
        let status = status(&answer);
        let seen = app.received().split_off(before);
        if !expected.contains(&status) || !seen.is_empty() {
            wrong.push(format!(
                "{name}: {status}, the app has seen {:?}",
                String::from_utf8_lossy(&seen)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Checks the test itself: a proper request does reach the origin.
    let answer = exchange(sidecar.address, b"GET /proper HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert!(String::from_utf8_lossy(&app.received()).starts_with("GET /proper HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absolute_form_of_the_same_host_is_the_path() {
    let app = Origin::raw(OK);
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let answer = exchange(
        sidecar.address,
        b"GET http://app.test/proper?a=1 HTTP/1.1\r\nHost: app.test\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), 200);
    assert!(String::from_utf8_lossy(&app.received()).starts_with("GET /proper?a=1 HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_to_h2c_is_not_passed_on() {
    let app = Origin::raw(OK);
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let request = b"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, \
        HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\nGET \
        /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let answer = exchange(sidecar.address, request).await;
    assert_eq!(status(&answer), 200);
    let seen = String::from_utf8_lossy(&app.received()).to_lowercase();
    let head = seen.split("\r\n\r\n").next().unwrap_or_default();
    assert!(head.starts_with("get /a "), "{seen}");
    assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_connection_names_end_here() {
    let app = Origin::raw(OK);
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let request = b"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: x-hop, close\r\nX-Hop: \
        secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-End: kept\r\n\r\n";
    let answer = exchange(sidecar.address, request).await;
    assert_eq!(status(&answer), 200);
    let seen = String::from_utf8_lossy(&app.received()).to_lowercase();
    for gone in ["x-hop", "keep-alive:", "proxy-connection"] {
        assert!(!seen.contains(gone), "{gone} was passed on: {seen}");
    }
    assert!(seen.contains("x-end: kept"), "{seen}");
    assert!(!seen.contains("via: "), "only with `[upstream] via = true`: {seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_of_a_get_is_not_the_next_request() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    client.get("/v/a", &[]).await;
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
    let inner = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    // Once for a path that is stored, once for one that is not.
    for path in ["/v/a", "/v/b"] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        );
        let answer = exchange(sidecar.address, request.as_bytes()).await;
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count();
        assert_eq!(answers, 1, "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(app.count("GET", "/smuggled"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_answer_is_neither_stored_nor_passed_off_as_whole() {
    let app = Origin::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for _ in 0..2 {
        let mut client = Client::new(sidecar.address);
        let reply = client.try_send("GET", "/v/a", &[], "").await;
        assert!(
            reply.as_ref().is_err() || reply.as_ref().is_ok_and(|reply| reply.status == 502),
            "{reply:?}"
        );
    }
    assert!(
        app.received().windows(8).filter(|bytes| bytes == b"GET /v/a").count() >= 2,
        "the app was asked each time"
    );
}
