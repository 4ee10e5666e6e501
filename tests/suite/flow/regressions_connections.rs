//! Numbered regressions of connections to the origin: what one client did on a connection must not
//! matter to the next one.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue};
use sidecache::app::Clock;

use crate::support::{
    Bodies, Client, RawOrigin, RawRequest, RawResponse, Reply, Sidecar, Socket, client, eventually,
    metric,
};

const SECOND: Duration = Duration::from_secs(1);

/// A connection of an origin that logs in connections.
#[derive(Default)]
struct Login {
    challenged: bool,
    user: Option<String>,
}

/// `NTLM 1` is the first message, `NTLM 3 alice` the third; `Negotiate alice` is one message alone.
fn log_in(login: &mut Login, request: &RawRequest) -> RawResponse {
    let credential = request.field("authorization");
    let words: Vec<&str> = credential.split(' ').collect();
    match words[..] {
        ["NTLM", "1"] => {
            login.challenged = true;
            return RawResponse::new("401 Unauthorized", "WWW-Authenticate: NTLM 2\r\n", "");
        }
        ["NTLM", "3", user] if login.challenged => login.user = Some(user.to_owned()),
        ["Negotiate", user] => login.user = Some(user.to_owned()),
        _ => {}
    }
    match &login.user {
        Some(user) => RawResponse::new("200 OK", "Cache-Control: max-age=60\r\n", user),
        None if request.line().contains("/open") => {
            RawResponse::new("200 OK", "Cache-Control: max-age=60\r\n", "nobody")
        }
        None => RawResponse::new(
            "401 Unauthorized",
            "WWW-Authenticate: NTLM\r\nWWW-Authenticate: Negotiate\r\n",
            "nobody",
        ),
    }
}

const NTLM_1: &[(&str, &str)] = &[("authorization", "NTLM 1")];
const NTLM_3: &[(&str, &str)] = &[("authorization", "NTLM 3 alice")];
const NEGOTIATE: &[(&str, &str)] = &[("authorization", "Negotiate alice")];

/// The three messages, on one connection of the client.
async fn logged_in(client: &mut Client, path: &str) -> Reply {
    assert_eq!(client.get(path, &[]).await.status, 401);
    let challenge = client.get(path, NTLM_1).await;
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, "NTLM 2"));
    client.get(path, NTLM_3).await
}

fn route(path: &str, more: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nttl = \"1m\"\n{more}\n")
}

/// 300. NTLM and Negotiate log in the connection to the origin, and the next client that got this
///      connection was that user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r300_a_connection_that_is_logged_in_is_its_clients_alone() {
    for messages in [&[NTLM_1, NTLM_3][..], &[NEGOTIATE]] {
        let origin = RawOrigin::start(Bodies::Read, log_in).await;
        let sidecar = Sidecar::start(origin.address, "").await;
        let mut alice = Client::new(sidecar.address);
        for message in messages {
            alice.get("/a", message).await;
        }
        // Later requests of the same client need no credential.
        for method in ["GET", "POST", "HEAD", "DELETE", "GET"] {
            let reply = alice.send(method, "/mine", &[], "").await;
            assert_eq!(reply.status, 200, "{method}");
        }
        let own = origin.connections("GET /mine");
        assert_eq!(own, [own[0], own[0]], "the client keeps its connection");
        for stranger in 0..5 {
            let reply = Client::new(sidecar.address).get("/a", &[]).await;
            assert_eq!((reply.status, reply.text()), (401, "nobody"), "stranger {stranger}");
        }
        assert_eq!(alice.get("/mine", &[]).await.text(), "alice");
        assert_eq!(metric(sidecar.admin, "sidecache_upstream_pinned").await, 1);
    }
}

/// 301. What the origin answered on a connection that was logged in was stored, for everybody who
///      shares the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r301_nothing_is_stored_that_came_on_a_connection_that_is_logged_in() {
    for scope in ["private", "shared", "public"] {
        let origin = RawOrigin::start(Bodies::Read, log_in).await;
        let rules = route("/open/{*rest}", &format!("scope = \"{scope}\""));
        let sidecar = Sidecar::start(origin.address, &rules).await;
        let mut alice = Client::new(sidecar.address);
        // The first message finds a route: it is not answered from it.
        assert_eq!(alice.get("/open/0", NTLM_1).await.status, 401, "{scope}");
        assert_eq!(alice.get("/open/1", NTLM_3).await.text(), "alice", "{scope}");
        for path in ["/open/1", "/open/2", "/open/2"] {
            let reply = alice.get(path, &[]).await;
            assert_eq!((reply.text(), reply.cache()), ("alice", "BYPASS"), "{scope} {path}");
            let status = reply.cache_status();
            assert!(status.contains("connection login"), "{scope} {path}: {status}");
        }
        for path in ["/open/1", "/open/2"] {
            let reply = Client::new(sidecar.address).get(path, &[]).await;
            assert_eq!((reply.text(), reply.cache()), ("nobody", "MISS"), "{scope} {path}");
        }
        // And what is stored for others is not served to her: the origin knows her.
        assert_eq!(alice.get("/open/2", &[]).await.text(), "alice", "{scope}");
    }
}

/// 302. The same through a proxy, and over HTTP/2, where one connection carries requests of several
///      clients: nobody is next on the connection to the origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r302_where_clients_share_a_connection_nobody_is_next_on_it() {
    for http2 in [false, true] {
        let origin = RawOrigin::start(Bodies::Read, log_in).await;
        let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
        let keys = if http2 { &[][..] } else { &trusted };
        let rules = route("/open/{*rest}", "scope = \"private\"");
        let sidecar = Sidecar::start_with(Clock::system(), origin.address, keys, &rules).await;
        let mut proxy =
            if http2 { Client::http2(sidecar.address) } else { Client::new(sidecar.address) };
        for path in ["/a", "/open/a"] {
            let reply = proxy.get(path, NEGOTIATE).await;
            assert_eq!((reply.text(), reply.cache()), ("alice", "BYPASS"), "{http2} {path}");
            assert_eq!(proxy.get(path, &[]).await.text(), "nobody", "{http2} {path}");
            assert_eq!(proxy.send("POST", path, NEGOTIATE, "x").await.text(), "alice");
            assert_eq!(proxy.get(path, &[]).await.text(), "nobody", "{http2} {path}");
        }
        assert_eq!(metric(sidecar.admin, "sidecache_upstream_pinned").await, 0);
    }
}

/// 303. Connections that belong to clients are bounded. Beyond the bound each request has a
///      connection for itself, which ends after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r303_connections_of_clients_are_bounded() {
    let origin = RawOrigin::start(Bodies::Read, log_in).await;
    let sidecar = Sidecar::start(origin.address, "[limits]\npinned = 1\n").await;
    let reached =
        || metric(sidecar.admin, "sidecache_limit_reached_total{limit=\"limits.pinned\"}");
    let (mut alice, mut bob) = (Client::new(sidecar.address), Client::new(sidecar.address));
    assert_eq!(logged_in(&mut alice, "/a").await.text(), "alice");
    assert_eq!(reached().await, 0);
    // One message is enough to log in, and three are not.
    assert_eq!(bob.get("/b", &[("authorization", "Negotiate bob")]).await.text(), "bob");
    assert_eq!(bob.get("/b", NTLM_1).await.status, 401);
    assert_eq!(bob.get("/b", &[("authorization", "NTLM 3 bob")]).await.status, 401);
    assert_eq!(reached().await, 3);
    assert_eq!(Client::new(sidecar.address).get("/b", &[]).await.text(), "nobody");
    assert_eq!(alice.get("/a", &[]).await.text(), "alice");
    drop(alice);
    eventually("the place is free", 10 * SECOND, || async {
        metric(sidecar.admin, "sidecache_upstream_pinned").await == 0
    })
    .await;
    assert_eq!(logged_in(&mut bob, "/b").await.text(), "alice");
}

/// 304. What is no login of a connection binds none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r304_a_challenge_and_other_credentials_bind_no_connection() {
    let origin = RawOrigin::start(Bodies::Read, log_in).await;
    let sidecar = Sidecar::start(origin.address, "").await;
    let mut client = Client::new(sidecar.address);
    for credential in [
        ("x-none", ""),
        ("authorization", "Basic eDp5"),
        ("authorization", "Bearer NTLM"),
        ("proxy-authorization", "NTLM 1"),
    ] {
        let reply = client.get("/a", &[credential]).await;
        let challenges: Vec<&[u8]> =
            reply.headers.get_all("www-authenticate").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(
            (reply.status, challenges),
            (401, vec![&b"NTLM"[..], b"Negotiate"]),
            "{credential:?}"
        );
        assert_eq!(metric(sidecar.admin, "sidecache_upstream_pinned").await, 0);
    }
    assert_eq!(Client::new(sidecar.address).get("/a", &[]).await.status, 401);
    assert_eq!(origin.connections("GET /a"), [0; 5], "one connection serves them all");
}

/// 305. The connection ends with either side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r305_a_connection_of_a_client_ends_with_either_side() {
    let origin = RawOrigin::start(Bodies::Read, |login: &mut Login, request: &RawRequest| {
        let answer = log_in(login, request);
        // It leaves a while after the response, as servers do with idle connections.
        RawResponse { close: request.line().contains("/bye"), ..answer }
    })
    .await;
    let sidecar = Sidecar::start(origin.address, "").await;
    let pinned = || metric(sidecar.admin, "sidecache_upstream_pinned");
    let mut alice = Client::new(sidecar.address);
    assert_eq!(logged_in(&mut alice, "/a").await.text(), "alice");
    assert_eq!(pinned().await, 1);
    drop(alice);
    eventually("it ends with the client", 10 * SECOND, || async {
        pinned().await == 0 && origin.open() <= 1
    })
    .await;

    let mut alice = Client::new(sidecar.address);
    assert_eq!(logged_in(&mut alice, "/a").await.text(), "alice");
    assert_eq!(alice.get("/bye", &[]).await.text(), "alice");
    eventually("it ends with the origin", 10 * SECOND, || async { pinned().await == 0 }).await;
    // The client's connection still is none that shares: it has to log in again, and can.
    assert_eq!(logged_in(&mut alice, "/a").await.text(), "alice");
    assert_eq!(alice.get("/a", &[]).await.text(), "alice");
    assert_eq!(Client::new(sidecar.address).get("/a", &[]).await.text(), "nobody");
}

/// 306. A write on such a connection purges like any other, and its response is not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r306_a_write_on_a_connection_of_a_client_purges_and_stores_nothing() {
    let origin = RawOrigin::start(Bodies::Read, |login: &mut Login, request: &RawRequest| {
        log_in(login, request);
        let user = login.user.clone().unwrap_or_else(|| "nobody".to_owned());
        let located = "Cache-Control: max-age=60\r\nContent-Location: /open/1\r\n";
        RawResponse::new("200 OK", located, &user)
    })
    .await;
    let sidecar = Sidecar::start(origin.address, &route("/open/{id}", "scope = \"public\"")).await;
    let mut stranger = Client::new(sidecar.address);
    stranger.get("/open/1", &[]).await;
    assert_eq!(stranger.get("/open/1", &[]).await.cache(), "HIT");
    let mut alice = Client::new(sidecar.address);
    alice.get("/a", NEGOTIATE).await;
    // In a body of its own size, in one of unknown size, and in none.
    for body in ["x=1", ""] {
        assert_eq!(alice.send("POST", "/open/1", &[], body).await.text(), "alice");
        let reply = stranger.get("/open/1", &[]).await;
        assert_eq!((reply.text(), reply.cache()), ("nobody", "MISS"));
    }
    let mut login = origin.connections("POST /open/1");
    login.extend(origin.connections("GET /a"));
    login.dedup();
    assert_eq!(login.len(), 1, "all of it on one connection");
}

/// A request of this method whose body is a request for `/hidden`.
fn with_hidden(method: &str, target: &str, chunked: bool) -> String {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let (framing, body) = if chunked {
        (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        )
    } else {
        (format!("Content-Length: {}", hidden.len()), hidden.to_owned())
    };
    format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n{framing}\r\n\r\n{body}")
}

/// An origin that leaves bodies unread, and takes its time for what it finds in them.
fn leave_unread((): &mut (), request: &RawRequest) -> RawResponse {
    let line = request.line();
    let (_, path) = line.split_once(' ').unwrap_or_default();
    let response = RawResponse::new("200 OK", "Cache-Control: max-age=60\r\n", path);
    let delay = if path == "/hidden" { 60 } else { 0 };
    RawResponse { delay: Duration::from_millis(delay), ..response }
}

/// 310. An origin that leaves the body of a GET unread takes it for the next request, whose response
///      went to whoever was next, and was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r310_a_body_that_the_origin_leaves_unread_is_nobodys_next_request() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X-OTHER"] {
        for chunked in [false, true] {
            let origin = RawOrigin::start(Bodies::LeftUnread, leave_unread).await;
            let rules = route("/c/{id}", "scope = \"public\"");
            let sidecar = Sidecar::start(origin.address, &rules).await;
            for round in 0..10 {
                let mut attacker = Socket::connect(sidecar.address).await;
                attacker.send(with_hidden(method, "/x", chunked)).await;
                attacker.until("\r\n\r\n").await;
                let path = format!("/c/{round}");
                for _ in 0..2 {
                    let reply = Client::new(sidecar.address).get(&path, &[]).await;
                    assert_eq!(reply.text(), path, "{method} {chunked} {round}");
                }
            }
        }
    }
}

/// 311. The same for the bodies that origins expect: where the operator says so, and where the
///      origin refuses the request, and may not have read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r311_a_connection_is_used_again_only_after_bodies_that_are_read() {
    let answer = |(): &mut (), request: &RawRequest| {
        let status = if request.line().contains("/refused") { "422 No" } else { "200 OK" };
        RawResponse::new(status, "", "")
    };
    let again = |keys: &'static [(&'static str, &'static str)], line: &'static str| async move {
        let origin = RawOrigin::start(Bodies::Read, answer).await;
        let sidecar = Sidecar::start_with(Clock::system(), origin.address, keys, "").await;
        let mut client = Client::new(sidecar.address);
        let (method, path) = line.split_once(' ').expect("a method and a path");
        for body in ["x", ""] {
            client.send(method, path, &[], body).await;
        }
        let used = origin.connections(line);
        used[0] == used[1]
    };
    for line in ["POST /a", "PUT /a", "PATCH /a"] {
        assert!(again(&[], line).await, "{line}");
        assert!(!again(&[("[upstream]", "reuse_after_body = false")], line).await, "{line}");
    }
    for line in ["POST /refused", "GET /a", "DELETE /a", "OPTIONS /a", "REPORT /a"] {
        assert!(!again(&[], line).await, "{line}");
    }
}

/// What the origin gets as the request line, if it gets the request.
async fn line_of(sidecar: &Sidecar, origin: &RawOrigin, head: &str) -> (u16, Option<String>) {
    let before = origin.arrivals().len();
    let answer = client::exchange(sidecar.address, head.as_bytes()).await;
    let seen = origin.arrivals();
    let line = seen.get(before).map(|seen| seen.line.clone());
    (crate::support::http1::status(&answer), line)
}

/// 312. The target was cut off where its fragment began, and the request was sent on: a DELETE of
///      `/dav/x/#y` deleted `/dav/x/`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r312_a_fragment_in_a_target_is_refused() {
    let origin =
        RawOrigin::start(Bodies::Read, |(): &mut (), _: &RawRequest| RawResponse::ok("")).await;
    let sidecar = Sidecar::start(origin.address, &route("/a", "scope = \"public\"")).await;
    let end = " HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let mut refused = 0;
    for line in ["POST http://a.test#f", "DELETE /dav/x/#y", "GET /a#b", "GET /a?b#", "HEAD /#"] {
        for before in [
            "",
            "GET /before HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "POST /before HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\n",
        ] {
            let answer =
                client::exchange(sidecar.address, format!("{before}{line}{end}").as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            refused += 1;
            assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 1, "{line} {before}: {answer}");
            assert!(answer.contains("fragment in the request target"), "{line}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 200 ").count(), usize::from(!before.is_empty()));
        }
    }
    assert!(origin.arrivals().iter().all(|seen| seen.line.ends_with("/before")));
    assert_eq!(metric(sidecar.admin, "sidecache_requests_refused_total").await, refused);
    let counted =
        "sidecache_requests_total{route=\"none\",disposition=\"bypass\",reason=\"bad_request\"}";
    assert_eq!(metric(sidecar.admin, counted).await, refused);
}

/// 313. A target without a path is one with the path `/`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r313_an_empty_path_is_the_root() {
    let origin =
        RawOrigin::start(Bodies::Read, |(): &mut (), _: &RawRequest| RawResponse::ok("")).await;
    let sidecar = Sidecar::start(origin.address, &route("/", "scope = \"public\"")).await;
    for (line, sent) in [
        ("GET http://a.test?x", "GET /?x"),
        ("GET http://a.test?", "GET /?"),
        ("POST http://a.test?x=/", "POST /?x=/"),
        ("GET http://a.test", "GET /"),
        ("POST http://a.test", "POST /"),
        ("OPTIONS http://a.test", "OPTIONS /"),
        ("OPTIONS *", "OPTIONS *"),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        assert_eq!(line_of(&sidecar, &origin, &head).await, (200, Some(sent.to_owned())), "{line}");
    }
}

/// 314. Whatever a client offered to change its connection to was passed on, and went past the
///      rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r314_a_connection_changes_only_to_protocols_that_are_named() {
    let answer = |(): &mut (), request: &RawRequest| {
        let upgrade = request.field("upgrade");
        if upgrade.is_empty() {
            return RawResponse::ok(&request.field("connection"));
        }
        let chosen = request.field("x-choose");
        let chosen = if chosen.is_empty() { &upgrade } else { &chosen };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n"
        );
        RawResponse { bytes: head.into_bytes(), ..RawResponse::ok("") }
    };
    let origin = RawOrigin::start(Bodies::Read, answer).await;
    let rules = route("/c/{id}", "scope = \"public\"");
    let strict = Sidecar::start(origin.address, &rules).await;
    let named = [("[upstream]", "upgrades = [\"spice\"]")];
    let named = Sidecar::start_with(Clock::system(), origin.address, &named, &rules).await;
    let offer = |protocol: &str, path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
             Upgrade: {protocol}\r\nHTTP2-Settings: AAM\r\n{more}\r\n"
        )
    };
    for (sidecar, protocol, status) in [
        (&strict, "websocket", 101),
        (&strict, "WebSocket", 101),
        (&strict, "spice", 200),
        (&strict, "h2c", 200),
        (&strict, "websocket, spice", 200),
        (&named, "spice", 101),
        (&named, "websocket", 200),
        (&named, "h2c", 200),
    ] {
        let answer = client::exchange(sidecar.address, offer(protocol, "/x", "").as_bytes()).await;
        assert_eq!(crate::support::http1::status(&answer), status, "{protocol}");
    }
    // The origin chooses among what was offered.
    for chosen in ["spice", "h2c"] {
        let head = offer("websocket", "/x", &format!("X-Choose: {chosen}\r\n"));
        let answer = client::exchange(strict.address, head.as_bytes()).await;
        assert_eq!(crate::support::http1::status(&answer), 502, "{chosen}");
    }
    // On a route it is an ordinary lookup.
    for (round, cache) in ["MISS", "HIT", "HIT"].into_iter().enumerate() {
        let protocol = ["spice", "h2c", "foo/1"][round];
        let answer = client::exchange(strict.address, offer(protocol, "/c/1", "").as_bytes()).await;
        let (_, headers): (_, HeaderMap) = crate::support::http1::head(&answer);
        assert_eq!(headers["x-cache"], cache, "{protocol}");
    }
    let answer = client::exchange(strict.address, offer("websocket", "/c/1", "").as_bytes()).await;
    assert_eq!(crate::support::http1::status(&answer), 101);
}

/// Not a regression, but what the tests above lean on: bytes that come unasked on an idle connection
/// are the response to no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_come_unasked_answer_nobody() {
    for with_response in [true, false] {
        let origin = RawOrigin::start(Bodies::Read, move |(): &mut (), request: &RawRequest| {
            let mut response = RawResponse::ok(request.line().trim_start_matches("GET "));
            let unasked = RawResponse::ok("unasked").bytes;
            if with_response {
                response.bytes.extend(unasked);
            } else {
                response.unasked = unasked;
            }
            response
        })
        .await;
        let sidecar = Sidecar::start(origin.address, &route("/c/{id}", "scope = \"public\"")).await;
        for round in 0..10 {
            let path = format!("/c/{round}");
            for _ in 0..2 {
                let reply = Client::new(sidecar.address).get(&path, &[]).await;
                assert_eq!(reply.text(), path, "{with_response}");
            }
            // They arrive by now.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
}

/// Not a regression either: an origin that answers before it has the whole request may take the rest
/// for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_early_response_is_not_used_again() {
    let origin = RawOrigin::start(Bodies::LeftUnread, |(): &mut (), request: &RawRequest| {
        let line = request.line();
        RawResponse::ok(line.split(' ').nth(1).unwrap_or_default())
    })
    .await;
    let sidecar = Sidecar::start(origin.address, &route("/c/{id}", "scope = \"public\"")).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: app.test\r\n\r\n";
    for round in 0..10 {
        let mut attacker = Socket::connect(sidecar.address).await;
        let length = hidden.len();
        let head =
            format!("POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: {length}\r\n\r\n");
        attacker.send(head).await;
        attacker.until("/x").await;
        // The response is there, and the body comes after it.
        attacker.send(hidden).await;
        let path = format!("/c/{round}");
        for _ in 0..2 {
            let reply = Client::new(sidecar.address).get(&path, &[]).await;
            assert_eq!(reply.text(), path, "{round}");
        }
    }
}
