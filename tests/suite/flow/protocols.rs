//! The protocols of clients and origins, through the sidecar: HTTP/1.0, 1.1 and 2, trailers, early
//! hints, TLS to the origin, conditions, variants, cookies, and many requests at once. The drain is
//! in `drain.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::support::child::ChildSidecar;
use crate::support::client::exchange;
use crate::support::http1::status;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::tls::Certificates;
use crate::support::{Client, Origin, Point, Reply, Response, Sidecar, Socket, waiting};

/// A route of this path and these settings.
fn route(path: &str, settings: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nttl = \"5m\"\n{settings}\n")
}

// HTTP/2, by prior knowledge.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_client_gets_misses_hits_and_writes() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::http2(sidecar.address);
    for (cache, text) in [("MISS", "0"), ("HIT", "0"), ("HIT", "0")] {
        let reply = client.send("GET", "/v/a", &[], "").await;
        assert_eq!((reply.status, reply.cache(), reply.text()), (200, cache, text));
        assert!(reply.trailers.is_none());
    }
    let put = client.send("PUT", "/w/a", &[], "").await;
    assert_eq!((put.status, put.text()), (200, "1"));
    let reply = client.send("GET", "/v/a", &[], "").await;
    assert_eq!((reply.cache(), reply.text()), ("MISS", "1"));
    // One cache for both versions: `:authority` and `Host` are the same part of the key.
    assert_eq!(Client::new(sidecar.address).get("/v/a", &[]).await.cache(), "HIT");
    // Several cookie lines become one header for the origin (RFC 9113 8.2.3).
    let split = client.send("GET", "/elsewhere", &[("cookie", "a=1"), ("cookie", "b=2")], "").await;
    assert_eq!(split.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_streams_are_answered_side_by_side() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let hold = app.hold("GET", "/v/slow", Point::Before);
    let mut client = Client::http2(sidecar.address);
    let slow = tokio::spawn({
        let mut beside = client.beside().await;
        async move { beside.get("/v/slow", &[]).await }
    });
    hold.arrived().await;
    assert_eq!(client.get("/v/quick", &[]).await.status, 200);
    hold.release();
    assert_eq!(slow.await.expect("the stream is answered").text(), "0");
}

// Trailers.

/// An origin whose responses are a body in two pieces and one trailer.
fn trailing_origin() -> Origin {
    Origin::start(|_| {
        let response = Response::new().chunked("Trailer: x-checksum\r\n").piece(b"one ");
        response.piece(b"two").end_with("x-checksum: abc\r\n")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_and_what_ends_in_them_is_not_stored() {
    let origin = trailing_origin();
    let sidecar = Sidecar::start(origin.address, VERSIONED_RULES).await;
    let mut client = Client::http2(sidecar.address);
    for (method, path) in [("GET", "/elsewhere"), ("POST", "/w/a")] {
        let reply = client.send(method, path, &[("te", "trailers")], "").await;
        assert_eq!(reply.text(), "one two");
        assert_eq!(
            reply.trailers.expect("trailers over HTTP/2")["x-checksum"],
            "abc",
            "{method} {path}"
        );
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: app.test\r\nTE: trailers\r\nConnection: \
            TE\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = String::from_utf8_lossy(&exchange(sidecar.address, request.as_bytes()).await)
            .to_lowercase();
        assert!(answer.contains("\r\n0\r\nx-checksum: abc\r\n\r\n"), "{answer}");
    }
    for _ in 0..2 {
        let reply = client.send("GET", "/v/a", &[("te", "trailers")], "").await;
        assert_eq!((reply.cache(), reply.text()), ("MISS", "one two"));
    }
}

// Early hints, 100-continue, HTTP/1.0, TLS to the app.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_hints_of_the_app_break_nothing() {
    let app = Origin::raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early \
            Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    );
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    for (path, cache) in [("/elsewhere", "BYPASS"), ("/v/a", "MISS"), ("/v/a", "HIT")] {
        let reply = client.get(path, &[]).await;
        assert_eq!((reply.status, reply.text(), reply.cache()), (200, "hello", cache), "{path}");
        assert_eq!(reply.header("link"), "", "what was a hint is no part of the response");
    }
    let reply = Client::http2(sidecar.address).get("/v/b", &[]).await;
    assert_eq!((reply.status, reply.text()), (200, "hello"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_waits_for_100_continue_is_told_to_go_on() {
    let app = Origin::start(versioned());
    // One path whose body a purge rule reads, one whose body is only passed on.
    let rules = format!(
        "{VERSIONED_RULES}[fields]\nx = {{ body = \"/x\" }}\n[[purges]]\npath = \
        \"/read/{{name}}\"\ntags = [\"v:{{x}}\"]\n"
    );
    let sidecar = Sidecar::start(app.address, &rules).await;
    for path in ["/w/a", "/read/a"] {
        let mut socket = Socket::connect(sidecar.address).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Type: \
            application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        );
        socket.send(head).await;
        assert!(socket.until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "), "{path}");
        socket.send(b"{\"x\":\"a\"}").await;
        assert!(socket.until("x-cache: BYPASS").await.starts_with("HTTP/1.1 200 "), "{path}");
        assert_eq!(app.count("POST", path), 1);
    }
    let odd =
        b"POST /w/a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\nExpect: miracles\r\n\r\n";
    assert_eq!(status(&exchange(sidecar.address, odd).await), 417);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_client_gets_a_length_or_the_end() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for cache in ["MISS", "HIT"] {
        let answer =
            exchange(sidecar.address, b"GET /v/a HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(
            text.to_lowercase().contains(&format!("x-cache: {}", cache.to_lowercase())),
            "{text}"
        );
        assert!(
            text.ends_with("\r\n\r\n0") && !text.to_lowercase().contains("transfer-encoding"),
            "{text}"
        );
    }
    // A body in chunks would be garbage to a client of HTTP/1.0.
    let origin = trailing_origin();
    let sidecar = Sidecar::start(origin.address, VERSIONED_RULES).await;
    for path in ["/v/a", "/elsewhere"] {
        let request = format!("GET {path} HTTP/1.0\r\nHost: app.test\r\n\r\n");
        let answer = String::from_utf8_lossy(&exchange(sidecar.address, request.as_bytes()).await)
            .into_owned();
        assert!(answer.ends_with("\r\n\r\none two"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_behind_https_is_reached_when_its_authority_is_trusted() {
    let certificates = Certificates::new();
    let origin = Origin::tls(&certificates, |request| Response::ok(request.path.clone()));
    let port = origin.address.port();
    let start = async |ca: &Certificates| {
        ChildSidecar::spawn(
            &format!("url = \"https://localhost:{port}\"\nca_file = \"{}\"", ca.ca().display()),
            VERSIONED_RULES,
        )
        .await
    };
    let sidecar = start(&certificates).await;
    let mut client = Client::new(sidecar.address);
    for (method, path, cache) in [
        ("GET", "/v/a", "MISS"),
        ("GET", "/v/a", "HIT"),
        ("POST", "/w/a", "BYPASS"),
        ("GET", "/v/a", "MISS"),
    ] {
        let reply = client.send(method, path, &[], "").await;
        assert_eq!((reply.status, reply.text(), reply.cache()), (200, path, cache));
    }
    let strangers = Certificates::new();
    let stranger = start(&strangers).await;
    assert_eq!(
        Client::new(stranger.address).get("/v/a", &[]).await.status,
        502,
        "an app that nobody vouches for is not spoken to"
    );
}

// HEAD and conditions.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_from_a_get() {
    let app = Origin::start(|_| Response::ok("hello").header("etag", "\"1\""));
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    let cold = client.send("HEAD", "/v/a", &[], "").await;
    assert_eq!((cold.status, cold.cache(), cold.body.len()), (200, "MISS", 0));
    assert_eq!(client.get("/v/a", &[]).await.cache(), "MISS", "a HEAD brings no body to store");
    let head = client.send("HEAD", "/v/a", &[], "").await;
    assert_eq!(
        (head.status, head.cache(), head.header("content-length"), head.body.len()),
        (200, "HIT", "5", 0)
    );
    assert_eq!(head.header("etag"), "\"1\"");
    assert_eq!((app.count("HEAD", "/v/a"), app.count("GET", "/v/a")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_are_answered_from_the_entry_and_never_reach_a_fill() {
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let app = Origin::start(|request| {
        // An origin that evaluates conditions would respond to a fill with 304.
        if request.header("if-none-match").is_some()
            || request.header("if-modified-since").is_some()
        {
            return Response::status(304, "");
        }
        Response::ok("hello").header("etag", "\"1\"").header("last-modified", MODIFIED)
    });
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    for (path, condition) in [
        ("/v/a", ("if-none-match", "W/\"1\"")),
        ("/v/b", ("if-modified-since", MODIFIED)),
        ("/v/c", ("if-none-match", "*")),
    ] {
        let cold = client.get(path, &[condition]).await;
        assert_eq!((cold.status, cold.cache(), cold.body.len()), (304, "MISS", 0), "{path}");
        let whole = client.get(path, &[]).await;
        assert_eq!(
            (whole.status, whole.cache(), whole.text()),
            (200, "HIT", "hello"),
            "{path}: the whole entry was stored"
        );
        let warm = client.get(path, &[condition]).await;
        assert_eq!((warm.status, warm.cache(), warm.body.len()), (304, "HIT", 0), "{path}");
        assert_eq!(warm.header("etag"), "\"1\"");
        assert_eq!(app.count("GET", path), 1);
    }
    let changed = client.get("/v/a", &[("if-none-match", "\"2\"")]).await;
    assert_eq!((changed.status, changed.cache(), changed.text()), (200, "HIT", "hello"));
    // RFC 9110 13.1.3: the date counts only without a tag.
    let both =
        client.get("/v/a", &[("if-none-match", "\"2\""), ("if-modified-since", MODIFIED)]).await;
    assert_eq!(both.status, 200);
    let elsewhere = client.get("/elsewhere", &[("if-none-match", "\"1\"")]).await;
    assert_eq!(elsewhere.status, 304, "around the cache the app judges");
}

// Variants.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_language_has_its_own_variant() {
    let app = Origin::start(|request| {
        Response::ok(request.header("accept-language").unwrap_or_default())
            .header("vary", "Accept-Language")
    });
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    for cache in ["MISS", "HIT", "HIT"] {
        for language in ["de", "en"] {
            let reply = client.get("/v/a", &[("accept-language", language)]).await;
            assert_eq!(
                (reply.cache(), reply.text()),
                (cache, language),
                "{}",
                reply.cache_status()
            );
        }
        let reply = client.get("/v/a", &[]).await;
        assert_eq!((reply.cache(), reply.text()), (cache, ""), "{}", reply.cache_status());
    }
    assert_eq!(app.count("GET", "/v/a"), 3);
    // A write purges all of them.
    client.send("POST", "/w/a", &[], "").await;
    for language in ["de", "en"] {
        assert_eq!(client.get("/v/a", &[("accept-language", language)]).await.cache(), "MISS");
    }
}

/// SECURITY: a header that `Connection` lists never reaches the origin, so it must not select the
/// variant under which the response is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_that_connection_names_poisons_no_variant() {
    let echo = |request: &crate::support::origin::Request| {
        let said =
            format!("{:?} {:?}", request.header("accept-language"), request.header("accept"));
        Response::ok(said).header("vary", "Accept-Language")
    };
    let app = Origin::start(echo);
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    for (name, value) in [("accept-language", "de"), ("accept", "text/html")] {
        let path = format!("/v/{name}");
        client.get(&path, &[(name, value), ("connection", &format!("keep-alive, {name}"))]).await;
        let honest = client.get(&path, &[(name, value)]).await;
        assert!(honest.text().contains(value), "{name}: {} got {}", honest.cache(), honest.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accept_on_two_lines_is_not_accept_on_one() {
    let app = Origin::start(|request| Response::ok(request.header("accept").unwrap_or_default()));
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(
        client.get("/v/a", &[("accept", "*/*"), ("accept", "text/plain")]).await.text(),
        "*/*,text/plain"
    );
    assert_eq!(client.get("/v/a", &[("accept", "text/plain")]).await.text(), "text/plain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vary_cookie_keeps_callers_of_a_shared_route_apart() {
    let app = Origin::start(|request| {
        Response::ok(request.header("cookie").unwrap_or_default()).header("vary", "Cookie")
    });
    let sidecar = Sidecar::start(app.address, &route("/shared", "scope = \"shared\"")).await;
    let mut client = Client::new(sidecar.address);
    // The first answer admits the caller, the second may be stored for them.
    for round in 0..3 {
        for cookie in ["sid=alice", "sid=bob"] {
            let reply = client.get("/shared", &[("cookie", cookie)]).await;
            assert_eq!(reply.text(), cookie, "round {round}: {}", reply.cache_status());
            assert!(round < 2 || reply.cache() == "HIT", "round {round}: {}", reply.cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gzip_without_vary_is_for_those_alone_who_accept_it() {
    let app = Origin::start(|request| match request.header("accept-encoding") {
        Some(codings) if codings.contains("gzip") => {
            Response::ok("(squeezed)").header("content-encoding", "gzip")
        }
        _ => Response::ok("plain"),
    });
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    let gzip = [("accept-encoding", "gzip, br")];
    assert_eq!(client.get("/v/a", &gzip).await.text(), "(squeezed)");
    assert_eq!((client.get("/v/a", &gzip).await.cache()), "HIT");
    let plain = client.get("/v/a", &[]).await;
    assert_eq!(
        (plain.text(), plain.header("content-encoding")),
        ("plain", ""),
        "{}",
        plain.header("cache-status")
    );
    let refused = client.get("/v/a", &[("accept-encoding", "gzip;q=0")]).await;
    assert_eq!(refused.header("content-encoding"), "", "{}", refused.header("cache-status"));
}

// Cookies.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_that_sets_a_cookie_is_never_stored() {
    let app = Origin::start(|_| {
        Response::ok("hello")
            .header("set-cookie", "sid=1")
            .header("cache-control", "public, max-age=60")
    });
    for scope in ["private", "shared", "public"] {
        let sidecar =
            Sidecar::start(app.address, &route("/a", &format!("scope = \"{scope}\""))).await;
        let mut client = Client::new(sidecar.address);
        for _ in 0..3 {
            let reply = client.get("/a", &[]).await;
            assert_eq!(
                (reply.cache(), reply.header("set-cookie")),
                ("MISS", "sid=1"),
                "{scope}: {}",
                reply.cache_status()
            );
        }
    }
    assert_eq!(app.count("GET", "/a"), 9);
}

/// Sends these requests at once while the origin is held; returns the responses.
async fn at_once(
    sidecar: &Sidecar,
    app: &Origin,
    path: &'static str,
    arrivals: u64,
    headers: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Reply> {
    let hold = app.hold("GET", path, Point::Before);
    let mut asking = JoinSet::new();
    for number in 0..50 {
        let (headers, address) = (headers(number), sidecar.address);
        asking.spawn(async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Client::new(address).get(path, &headers).await
        });
    }
    for _ in 0..arrivals {
        hold.arrived().await;
    }
    waiting(sidecar.admin, 50 - arrivals).await;
    hold.release();
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripped_cookie_reaches_one_of_fifty_at_the_most() {
    let serial = AtomicU64::new(0);
    let app = Origin::start(move |_| {
        let cookie = format!("sid={}", serial.fetch_add(1, Ordering::Relaxed));
        Response::ok("hello").header("set-cookie", &cookie)
    });
    let sidecar = Sidecar::start(
        app.address,
        &route("/a", "scope = \"public\"\nstrip_set_cookie = [\"sid\"]"),
    )
    .await;
    let replies = at_once(&sidecar, &app, "/a", 1, |_| Vec::new()).await;
    assert!(replies.iter().all(|reply| reply.text() == "hello"));
    let cookies: Vec<&str> = replies
        .iter()
        .map(|reply| reply.header("set-cookie"))
        .filter(|cookie| !cookie.is_empty())
        .collect();
    assert!(cookies.len() <= 1, "{cookies:?}");
    assert_eq!(app.count("GET", "/a"), 1);
    let later = Client::new(sidecar.address).get("/a", &[]).await;
    assert_eq!((later.cache(), later.header("set-cookie")), ("HIT", ""));
}

// Many at once, and bodies that break off.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_misses_at_once_are_one_request_to_the_app() {
    let app = Origin::start(|_| Response::ok("hello"));
    let sidecar = Sidecar::start(app.address, &route("/a", "")).await;
    let replies = at_once(&sidecar, &app, "/a", 1, |_| Vec::new()).await;
    assert!(replies.iter().all(|reply| (reply.status, reply.text()) == (200, "hello")));
    assert_eq!(app.count("GET", "/a"), 1);
    let collapsed =
        replies.iter().filter(|reply| reply.cache_status().contains("collapsed")).count();
    assert!(collapsed >= 45, "only {collapsed} say that they followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_misses_of_fifty_callers_are_one_request_each() {
    let app =
        Origin::start(|request| Response::ok(request.header("authorization").unwrap_or_default()));
    for scope in ["private", "shared"] {
        let sidecar =
            Sidecar::start(app.address, &route("/a", &format!("scope = \"{scope}\""))).await;
        let before = app.count("GET", "/a");
        let token = |number: usize| format!("Bearer the-same-beginning-{number}");
        let replies =
            at_once(&sidecar, &app, "/a", 50, |number| vec![("authorization", token(number))])
                .await;
        let mut texts: Vec<&str> = replies.iter().map(Reply::text).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 50, "{scope}: each has their own");
        assert_eq!(app.count("GET", "/a") - before, 50, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_break_off_are_never_stored() {
    let answers: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nhello",
    ];
    for answer in answers {
        let app = Origin::raw(answer);
        let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
        for _ in 0..3 {
            let reply = Client::new(sidecar.address).try_send("GET", "/v/a", &[], "").await;
            let said = String::from_utf8_lossy(answer);
            assert!(
                reply.as_ref().is_err() || reply.as_ref().is_ok_and(|reply| reply.status == 502),
                "{said}: {reply:?}"
            );
        }
    }
    // A body that ends with the connection may be whole; nobody can tell.
    let app = Origin::raw(b"HTTP/1.1 200 OK\r\n\r\nto the end");
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    for _ in 0..2 {
        let reply = Client::new(sidecar.address).get("/v/a", &[]).await;
        assert_eq!((reply.cache(), reply.text()), ("MISS", "to the end"));
    }
}
