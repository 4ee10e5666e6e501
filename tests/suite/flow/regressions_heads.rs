//! Heads of requests as the world sends them: targets with raw characters, HTTP/1.0 without a host,
//! targets with a host of their own, and what cannot be read at all.

use std::time::Duration;

use crate::support::client::exchange;
use crate::support::http1::status;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Response, Sidecar, eventually};

/// The response to a head of these lines, in lower case.
async fn answer(sidecar: &Sidecar, lines: &[u8]) -> String {
    let request = [lines, b"\r\nConnection: close\r\n\r\n"].concat();
    String::from_utf8_lossy(&exchange(sidecar.address, &request).await).to_lowercase()
}

/// What became of a GET of this target.
async fn cache_of(sidecar: &Sidecar, target: &[u8]) -> String {
    let line = [b"GET ", target, b" HTTP/1.1\r\nHost: app.test"].concat();
    let answer = answer(sidecar, &line).await;
    let word = answer.split("x-cache: ").nth(1).and_then(|rest| rest.lines().next());
    word.unwrap_or_else(|| panic!("{:?}: {answer}", String::from_utf8_lossy(target))).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_character_and_its_escape_are_one_entry_that_either_purges() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for (raw, escaped) in [
        (&b"a\"b"[..], "a%22b"),
        (b"<c>`d`", "%3Cc%3E%60d%60"),
        (b"{e}|^[f]", "%7Be%7D%7C%5E%5Bf%5D"),
        ("ü".as_bytes(), "%C3%BC"),
    ] {
        let path = |start: &str, name: &[u8]| [start.as_bytes(), name].concat();
        let escaped = escaped.as_bytes();
        for (first, second) in [(raw, escaped), (escaped, raw)] {
            let shown = String::from_utf8_lossy(first).into_owned();
            assert_eq!(cache_of(&sidecar, &path("/v/", first)).await, "miss", "{shown}");
            assert_eq!(cache_of(&sidecar, &path("/v/", second)).await, "hit", "{shown}");
            let got = app.requests().pop().expect("a fill").target;
            assert_eq!(got.as_bytes(), path("/v/", escaped), "the origin gets one form");
            let line = [b"PUT /w/", first, b" HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0"];
            assert!(answer(&sidecar, &line.concat()).await.starts_with("http/1.1 200 "));
            assert_eq!(cache_of(&sidecar, &path("/v/", second)).await, "miss", "{shown}");
            let url = format!("http://app.test/v/{}", String::from_utf8_lossy(second));
            sidecar.admin_ok("/purge", &serde_json::json!({ "urls": [url] })).await;
        }
    }
    for (raw, escaped) in [
        (&b"/v/q?q=\"a\""[..], &b"/v/q?q=%22a%22"[..]),
        (b"/v/q?q=<a>{b}|c^`\\", b"/v/q?q=%3Ca%3E%7Bb%7D%7Cc%5E%60%5C"),
        ("/v/q?q=ü".as_bytes(), b"/v/q?q=%C3%BC"),
        (b"/v/q?q=\xfc", b"/v/q?q=%FC"),
    ] {
        let shown = String::from_utf8_lossy(raw).into_owned();
        assert_eq!(cache_of(&sidecar, raw).await, "miss", "{shown}");
        assert_eq!(cache_of(&sidecar, escaped).await, "hit", "{shown}");
        assert_eq!(cache_of(&sidecar, raw).await, "hit", "{shown}");
    }
    assert_eq!(cache_of(&sidecar, b"/v/\xfc").await, "miss", "bytes that are no text");
    assert_eq!(cache_of(&sidecar, b"/v/%fc").await, "hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_has_its_raw_characters_where_the_origin_can_be_sent_them() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    for (sent, got) in [
        (&b"/elsewhere/\"{a}|b^\\?q={c}`|\\"[..], &b"/elsewhere/\"{a}|b^\\?q={c}`|\\"[..]),
        ("/elsewhere/ü?q=ü".as_bytes(), "/elsewhere/ü?q=ü".as_bytes()),
        (b"/elsewhere/<\xfc`?\"", b"/elsewhere/%3C%FC%60?%22"),
    ] {
        let app = Origin::raw(OK);
        let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
        let line = [b"GET ", sent, b" HTTP/1.1\r\nHost: app.test"].concat();
        assert!(answer(&sidecar, &line).await.starts_with("http/1.1 200 "));
        let received = app.received();
        let wanted = [b"GET ", got, b" HTTP/1.1\r\n"].concat();
        assert!(received.starts_with(&wanted), "{:?}", String::from_utf8_lossy(&received));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_has_a_line_a_reason_a_counter_and_a_body() {
    let app = Origin::start(versioned());
    let rules = format!("[log]\naccess = true\n{VERSIONED_RULES}");
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    let long = format!("GET /v/a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET /v/a HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    let secret = "GET /v/a?token=s3cret HTTP/4.0\r\nAuthorization: s3cret\r\n\r\n";
    for (bytes, code, text, line) in [
        (&b"\x16\x03\x01\x02\0\x01\0"[..], 400, "tls", "method=- path=- "),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", 400, "proxy protocol", "method=- path=- "),
        (secret.as_bytes(), 400, "http version", "method=GET path=/v/a "),
        (b"DELETE /v/a HTTP/1.1\r\nA : b\r\n\r\n", 400, "header field", "method=DELETE path=/v/a "),
        (long.as_bytes(), 431, "too large", "method=GET path=/v/a "),
        (many.as_bytes(), 431, "too many", "method=GET path=/v/a "),
    ] {
        let answer = exchange(sidecar.address, bytes).await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert_eq!(status(answer.as_bytes()), code, "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        assert!(body.contains(text), "{answer}");
        eventually("the line is written", Duration::from_secs(10), || async {
            let said = sidecar.said();
            let mut lines = said.lines().filter(|said| said.contains(line));
            lines.any(|said| {
                said.contains(&format!("status={code} ")) && said.to_lowercase().contains(text)
            })
        })
        .await;
    }
    // What can be read is logged as its key and `explain` have it.
    let raw = answer(&sidecar, "GET /v/ü\"{x}?q=\"s3cret\" HTTP/1.1\r\nHost: a".as_bytes()).await;
    assert!(raw.starts_with("http/1.1 200 "), "{raw}");
    let path = "/v/%C3%BC%22%7Bx%7D";
    eventually("the line is written", Duration::from_secs(10), || async {
        sidecar.said().contains(&format!("path={path} "))
    })
    .await;
    for target in ["/v/ü\"{x}?q=\"<>`\"", "/v/%c3%bc%22%7Bx%7D?q=%22%3C%3E%60%22"] {
        let order = serde_json::json!({ "method": "GET", "target": target, "headers": [] });
        let explained = sidecar.admin_ok("/explain", &order).await.to_string();
        assert!(explained.contains(path), "{explained}");
    }
    assert!(!sidecar.said().contains("s3cret"));
    let metrics = sidecar.admin_get("/metrics").await;
    let metrics = metrics.text();
    for (series, count) in [
        ("reason=\"not_http\"", 2),
        ("reason=\"bad_request\"", 2),
        ("reason=\"head_too_large\"", 2),
        ("sidecache_head_errors_total", 4),
        ("limit=\"listen.max_header_bytes\"", 1),
        ("limit=\"listen.max_headers\"", 1),
    ] {
        let mut lines = metrics.lines().filter(|line| line.contains(series));
        assert!(
            lines.any(|line| line.ends_with(&format!(" {count}"))),
            "{series}: {:?}",
            metrics.lines().filter(|line| line.contains(series)).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_without_a_host_is_served_and_never_cached() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for round in 1..=2 {
        let request = b"GET /v/a HTTP/1.0\r\n\r\n";
        let text =
            String::from_utf8_lossy(&exchange(sidecar.address, request).await).to_lowercase();
        assert!(text.starts_with("http/1.0 200 "), "{text}");
        assert!(text.contains("x-cache: bypass") && text.contains("no host"), "{text}");
        assert!(text.ends_with("\r\n\r\n0") && !text.contains("transfer-encoding"), "{text}");
        assert_eq!(app.count("GET", "/v/a"), round);
        let seen = app.last("/v/a");
        let authority = app.address.to_string();
        assert_eq!(seen.header("host").as_ref(), Some(&authority));
        assert_eq!(seen.header("via"), None);
    }
    // Nothing was stored under the origin's own authority either.
    let line = format!("GET /v/a HTTP/1.1\r\nHost: {}", app.address);
    assert!(answer(&sidecar, line.as_bytes()).await.contains("x-cache: miss"));
    assert!(answer(&sidecar, line.as_bytes()).await.contains("x-cache: hit"));
    // What is stored for others is not served.
    let bare =
        String::from_utf8_lossy(&exchange(sidecar.address, b"GET /v/a HTTP/1.0\r\n\r\n").await)
            .to_lowercase();
    assert!(bare.contains("x-cache: bypass"), "{bare}");
    // A write purges by its rules.
    let put = b"PUT /w/a HTTP/1.0\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(status(&exchange(sidecar.address, put).await), 200);
    let reply = answer(&sidecar, line.as_bytes()).await;
    assert!(reply.contains("x-cache: miss") && reply.ends_with("\r\n\r\n1"), "{reply}");
    // HTTP/1.1 has to name a host (RFC 9112 3.2).
    let refused = exchange(sidecar.address, b"GET /v/a HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&refused), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_gets_no_chunks_and_keeps_a_connection_only_with_a_length() {
    let app = Origin::start(|request| {
        let chunked = Response::new().chunked("").piece(b"one ").piece(b"two");
        if request.path.starts_with("/v/whole") { Response::ok("whole") } else { chunked }
    });
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for host in ["", "Host: app.test\r\n"] {
        for path in ["/v/a", "/v/a", "/elsewhere"] {
            let head = format!("GET {path} HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n");
            let text = String::from_utf8_lossy(&exchange(sidecar.address, head.as_bytes()).await)
                .to_lowercase();
            assert!(text.starts_with("http/1.0 200 "), "{text}");
            assert!(text.ends_with("\r\n\r\none two"), "{text}");
            assert!(!text.contains("transfer-encoding"), "{text}");
            // The end of a body without a length is the end of the connection.
            let has_length = text.contains("content-length: 7");
            assert!(has_length || !text.contains("connection: keep-alive"), "{text}");
        }
        let twice = format!(
            "GET /v/whole HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\nHEAD /v/whole \
             HTTP/1.0\r\n{host}\r\n"
        );
        let text = String::from_utf8_lossy(&exchange(sidecar.address, twice.as_bytes()).await)
            .to_lowercase();
        assert_eq!(text.matches("http/1.0 200 ").count(), 2, "{text}");
        assert_eq!(text.matches("content-length: 5").count(), 2, "{text}");
        assert_eq!(text.matches("\r\n\r\nwhole").count(), 1, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_names_the_host_and_its_default_port_goes_without_saying() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let get = async |target: &str, host: &str| {
        let line = format!("GET {target} HTTP/1.1\r\nHost: {host}");
        let answer = answer(&sidecar, line.as_bytes()).await;
        let word = answer.split("x-cache: ").nth(1).and_then(|rest| rest.lines().next());
        word.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    // The received Host is ignored (RFC 9112 3.2.2), by the origin and by the key.
    assert_eq!(get("http://other.test/v/a", "app.test").await, "miss");
    let seen = app.last("/v/a");
    assert_eq!(seen.header("host").as_deref(), Some("other.test"));
    assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("other.test"));
    for same in ["other.test", "OTHER.test", "other.test:80", "other.test:"] {
        assert_eq!(get("/v/a", same).await, "hit", "{same}");
        assert_eq!(get(&format!("http://{same}/v/a"), "app.test").await, "hit", "{same}");
    }
    assert_eq!(get("https://other.test:443/v/a", "app.test").await, "hit");
    for other in ["app.test", "other.test:8080", "other.test:443"] {
        assert_eq!(get("/v/a", other).await, "miss", "{other}");
    }
    // What passes names the same host.
    assert_eq!(get("http://third.test:80/elsewhere", "app.test").await, "bypass");
    let seen = app.last("/elsewhere");
    assert_eq!(seen.header("host").as_deref(), Some("third.test:80"));
    // A write under one spelling purges what is stored under the others.
    assert_eq!(get("/v/b", "app.test").await, "miss");
    let put = b"PUT http://app.test:80/v/b HTTP/1.1\r\nHost: other.test\r\nContent-Length: 0";
    assert!(answer(&sidecar, put).await.starts_with("http/1.1 200 "));
    assert_eq!(get("/v/b", "app.test").await, "miss");
    // HTTP/2 names it in `:authority`.
    let mut client = Client::http2(sidecar.address);
    assert_eq!(client.get("/v/c", &[]).await.cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_asterisk_of_options_reaches_the_origin() {
    const OK: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    for host in ["HTTP/1.1\r\nHost: app.test", "HTTP/1.0"] {
        let app = Origin::raw(OK);
        let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
        let line = format!("OPTIONS * {host}");
        assert!(answer(&sidecar, line.as_bytes()).await.contains(" 204 "));
        let received = String::from_utf8_lossy(&app.received()).into_owned();
        assert!(received.starts_with("OPTIONS * HTTP/1.1\r\n"), "{received}");
    }
}
