//! Reads that are not GETs: POST and the like on routes with `read_only`, whose body is in the key.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::flow::Flow;
use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, Point, Reply, Request, Response, Scene, eventually, metric, waiting,
};

type Headers<'a> = &'a [(&'a str, &'a str)];

const WAIT: Duration = Duration::from_secs(30);

const ROUTES: &str = r#"
[fields]
id = { body = "/filter/id" }

[limits]
read_body = "1KiB"

[[routes]]
path      = "/search"
ttl       = "5m"
scope     = "public"
methods   = ["POST"]
read_only = true
key       = ["body"]
tags      = ["search"]

[[routes]]
path      = "/pick"
ttl       = "5m"
scope     = "public"
methods   = ["GET", "POST"]
read_only = true
key       = ["id?"]
tags      = ["picked:{id?}"]

[[routes]]
path      = "/dav/{*rest}"
ttl       = "5m"
scope     = "public"
methods   = ["GET", "PROPFIND", "REPORT", "QUERY", "SEARCH"]
read_only = true
key       = ["body"]

[[routes]]
path      = "/mine"
ttl       = "5m"
methods   = ["POST"]
read_only = true
key       = ["body"]

[[purges]]
path = "/{*rest}"
tags = ["search"]

[[purges]]
path = "/write"
tags = ["picked:{id}"]
"#;

const JSON: (&str, &str) = ("content-type", "application/json");
const XML: (&str, &str) = ("content-type", "application/xml");

/// Says what it got, and how often it was asked before.
fn echo(request: &Request) -> Response {
    let body = String::from_utf8_lossy(&request.body);
    Response::ok(format!("{} {body} {}", request.method, request.number))
}

async fn post(scene: &Scene, path: &str, body: &str) -> Reply {
    scene.send("POST", path, &[JSON], body.to_owned()).await
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[tokio::test]
async fn posts_of_one_value_are_one_entry_and_the_app_gets_its_one_form() {
    let scene = Scene::start(ROUTES, echo).await;
    let first = post(&scene, "/search", "{ \"b\": 1, \"a\": \"\\u0041\" }").await;
    assert_cache(&first, "MISS", "the first");
    assert_eq!(text(&first), "POST {\"a\":\"A\",\"b\":1} 0");
    let second = post(&scene, "/search", r#"{"a":"A","b":1}"#).await;
    assert_cache(&second, "HIT", "the same value");
    assert_eq!(second.body, first.body);
    let over_http2 = Client::http2(scene.sidecar.address)
        .send("POST", "/search", &[JSON], " {\"a\":\"A\", \"b\":1}")
        .await;
    assert_cache(&over_http2, "HIT", "over HTTP/2");
    let other = post(&scene, "/search", r#"{"a":"A","b":2}"#).await;
    assert_cache(&other, "MISS", "another value");
    let got = &scene.seen("/search")[0];
    assert_eq!(got.header("content-length").as_deref(), Some("15"));
    assert_eq!(got.header("content-type").as_deref(), Some("application/json"));
    // No length, and in pieces.
    let head = "POST /search HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let chunks = "6\r\n{\"a\":\"\r\n9\r\nA\",\"b\":1}\r\n0\r\n\r\n";
    let reply = exchange(&scene, &format!("{head}{chunks}")).await;
    assert!(reply.to_ascii_lowercase().contains("x-cache: hit"), "{reply}");
    assert_eq!(scene.count("/search"), 2);
}

/// Sends bytes on a connection of its own, and reads to the end.
async fn exchange(scene: &Scene, bytes: &str) -> String {
    let mut stream = TcpStream::connect(scene.sidecar.address).await.expect("it listens");
    stream.write_all(bytes.as_bytes()).await.expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.expect("it answers");
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let scene = Scene::start(ROUTES, echo).await;
    post(&scene, "/search", "{}").await;
    let head = "POST /search HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n\
                Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(scene.sidecar.address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut interim = [0; 12];
    stream.read_exact(&mut interim).await.expect("it answers");
    assert_eq!(&interim, b"HTTP/1.1 100");
    stream.write_all(b"{}").await.expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.expect("it answers");
    let reply = String::from_utf8_lossy(&reply).to_ascii_lowercase();
    assert!(reply.contains("http/1.1 200") && reply.contains("x-cache: hit"), "{reply}");
}

#[tokio::test]
async fn reads_purge_nothing_and_writes_purge_them() {
    let scene = Scene::start(ROUTES, echo).await;
    post(&scene, "/search", "{}").await;
    // Neither its own URI nor what the rule for every write names.
    for body in ["[1]", "{\"a\":1,\"a\":2}", "{\"x\":1}"] {
        post(&scene, "/search", body).await;
    }
    assert_cache(&post(&scene, "/search", "{}").await, "HIT", "after reads");
    scene.send("PUT", "/other", &[JSON], "{}").await;
    assert_cache(&post(&scene, "/search", "{}").await, "MISS", "after a write with the tag");

    for body in [r#"{"filter":{"id":7},"trace":"a"}"#, r#"{"filter":{"id":8}}"#] {
        assert_cache(&post(&scene, "/pick", body).await, "MISS", body);
    }
    let known = post(&scene, "/pick", r#"{"trace":"b","filter":{"id":7}}"#).await;
    assert_cache(&known, "HIT", "what no key has seen");
    assert_eq!(text(&known), "POST {\"filter\":{\"id\":7}} 0");
    post(&scene, "/write", r#"{"filter":{"id":7}}"#).await;
    for (body, cache) in [(r#"{"filter":{"id":7}}"#, "MISS"), (r#"{"filter":{"id":8}}"#, "HIT")] {
        assert_cache(&post(&scene, "/pick", body).await, cache, body);
    }
    // By their URI, whatever they are told apart by.
    scene.send("DELETE", "/pick", &[], "").await;
    assert_cache(&post(&scene, "/pick", r#"{"filter":{"id":8}}"#).await, "MISS", "its URI");
    assert_cache(&scene.get("/pick").await, "MISS", "GET is another entry");
    assert_cache(&scene.get("/pick").await, "HIT", "GET");
}

#[tokio::test]
async fn what_may_be_another_method_is_a_write() {
    let scene = Scene::start(ROUTES, echo).await;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2000));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let cases: [(Headers<'_>, &str, &str); 6] = [
        (&[JSON, ("x-http-method-override", "DELETE")], "/search", "{}"),
        (&[JSON], "/search?_method=DELETE", "{}"),
        (&[form], "/search", "q=1&_method=DELETE"),
        (&[JSON], "/search", "{\"_method\":\"DELETE\"}"),
        (&[("content-type", "multipart/form-data; boundary=b")], "/search", "--b--"),
        (&[JSON], "/search", &long),
    ];
    for (headers, path, body) in cases {
        post(&scene, "/search", "{}").await;
        assert_cache(&post(&scene, "/search", "{}").await, "HIT", body);
        let reply = scene.send("POST", path, headers, body.to_owned()).await;
        assert_cache(&reply, "BYPASS", path);
        let got = scene.last("/search");
        assert_eq!((&*got.body, &*got.target), (body.as_bytes(), path), "as it came");
        assert_cache(&post(&scene, "/search", "{}").await, "MISS", body);
    }
    let admin = scene.sidecar.admin;
    // Those that name it in their heads are known as writes before.
    assert_eq!(metric(admin, "sidecache_reads_as_writes_total").await, 4);
    let limit = "sidecache_limit_reached_total{limit=\"limits.read_body\"}";
    assert_eq!(metric(admin, limit).await, 1);
}

#[tokio::test]
async fn what_is_not_keyed_reaches_the_app_as_it_came() {
    let scene = Scene::start(ROUTES, echo).await;
    let long = "x".repeat(300_000);
    let cases: [(Headers<'_>, &str, &str); 5] = [
        (&[JSON], "{ \"a\":1,\"a\":2}", "ambiguous body (a member comes twice)"),
        (&[XML], &long, "body too large"),
        (&[XML, ("if-none-match", "\"x\"")], "<a/>", "precondition"),
        (&[XML, ("x-account", "7")], "<a/>", "unkeyed header x-account"),
        (&[XML, ("content-encoding", "gzip")], "<a/>", "unkeyed header content-encoding"),
    ];
    post(&scene, "/search", "{}").await;
    for (headers, body, detail) in cases {
        for _ in 0..2 {
            let reply = scene.send("POST", "/search", headers, body.to_owned()).await;
            assert_cache(&reply, "BYPASS", detail);
            assert!(
                reply.header("cache-status").contains(detail),
                "{}",
                reply.header("cache-status")
            );
            assert_eq!(scene.last("/search").body, body.as_bytes(), "{detail}");
        }
    }
    // In pieces and without a length, too.
    let pieces: Vec<Bytes> = (0..50).map(|_| Bytes::from(vec![b'y'; 1000])).collect();
    let reply =
        Client::new(scene.sidecar.address).upload("QUERY", "/dav/none", stream::iter(pieces)).await;
    assert_eq!(reply.body.len(), "QUERY  0".len() + 50_000);
    assert_cache(&post(&scene, "/search", "{}").await, "HIT", "none of them was a write");
}

#[tokio::test]
async fn equal_bodies_at_the_same_time_are_one_request() {
    let scene = Scene::start(ROUTES, echo).await;
    let hold = scene.hold("POST", "/search", Point::Before);
    let ask = |body: &'static str| {
        let address = scene.sidecar.address;
        tokio::spawn(
            async move { Client::new(address).send("POST", "/search", &[JSON], body).await },
        )
    };
    let leader = ask("{\"a\":1,\"b\":2}");
    hold.arrived().await;
    let followers = [ask("{\"b\":2,\"a\":1}"), ask(" {\"b\":2,\"a\":1}")];
    waiting(scene.sidecar.admin, 2).await;
    hold.release();
    assert_cache(&leader.await.expect("no panic"), "MISS", "the leader");
    for follower in followers {
        let reply = follower.await.expect("no panic");
        assert!(
            reply.header("cache-status").contains("collapsed"),
            "{}",
            reply.header("cache-status")
        );
        assert_eq!(text(&reply), "POST {\"a\":1,\"b\":2} 0");
    }
    assert_eq!(scene.count("/search"), 1);
}

#[tokio::test]
async fn a_stale_post_is_fetched_anew_without_a_condition() {
    let rules = ROUTES.replacen("\"5m\"", "\"1s\"\nstale_while_revalidate = \"1h\"", 1);
    let scene = Scene::start(&rules, |request| echo(request).header("etag", "\"v\"")).await;
    post(&scene, "/search", "{\"a\": 1}").await;
    scene.until_stale();
    let stale = post(&scene, "/search", "{\"a\": 1}").await;
    assert_cache(&stale, "STALE", "while it is fetched");
    eventually("it is fetched anew", WAIT, || async {
        post(&scene, "/search", "{\"a\": 1}").await.cache() == "HIT"
    })
    .await;
    let seen = scene.seen("/search");
    assert_eq!(seen.len(), 2);
    for got in seen {
        assert_eq!(&got.body[..], b"{\"a\":1}");
        assert_eq!(got.header("if-none-match"), None);
    }
    assert_eq!(text(&post(&scene, "/search", "{\"a\": 1}").await), "POST {\"a\":1} 1");
}

#[tokio::test]
async fn a_fill_is_not_sent_twice_where_its_connection_breaks() {
    let scene = Scene::start(ROUTES, echo).await;
    // A connection that is kept.
    post(&scene, "/search", "{}").await;
    scene.answers(|_| Response::hang_up());
    let reply = post(&scene, "/search", "[]").await;
    assert_eq!(reply.status, 502);
    assert_eq!(scene.count("/search"), 2);
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_reaches_the_app() {
    let scene = Scene::start(ROUTES, echo).await;
    let head = "POST /search HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\n\r\n{\"a\"";
    let mut stream = TcpStream::connect(scene.sidecar.address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    drop(stream);
    eventually("it is given up", WAIT, || async {
        metric(scene.sidecar.admin, "sidecache_uploads_unsent_total").await == 1
    })
    .await;
    assert_eq!(scene.count("/search"), 0);
    eventually("its bytes are given back", WAIT, || async {
        metric(scene.sidecar.admin, "sidecache_upload_bytes").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_body_is_given_up() {
    let rules = ROUTES.replacen("read_body = \"1KiB\"", "upload_time = \"1s\"", 1);
    let scene = Scene::start(&rules, echo).await;
    let head = "POST /search HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\n\r\n{\"a\"";
    let mut stream = TcpStream::connect(scene.sidecar.address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let limit = "sidecache_limit_reached_total{limit=\"limits.upload_time\"}";
    eventually("its time is over", WAIT, || async {
        scene.clock.advance(Duration::from_secs(1));
        metric(scene.sidecar.admin, limit).await == 1
    })
    .await;
    assert_eq!(scene.count("/search"), 0);
}

#[tokio::test]
async fn the_safe_methods_with_a_body_are_cached_by_the_same_rule() {
    let scene = Scene::start(ROUTES, echo).await;
    for method in ["PROPFIND", "REPORT", "QUERY", "SEARCH"] {
        let send = |body: &'static str| scene.send(method, "/dav/a", &[XML], body);
        assert_cache(&send("<a/>").await, "MISS", method);
        let hit = send("<a/>").await;
        assert_cache(&hit, "HIT", method);
        assert_eq!(text(&hit), format!("{method} <a/> 0"));
        assert_cache(&send("<b/>").await, "MISS", method);
        let elsewhere = scene.send(method, "/other", &[XML], "<a/>").await;
        assert_cache(&elsewhere, "BYPASS", method);
    }
    scene.send("PUT", "/dav/a", &[], "x").await;
    assert_cache(&scene.send("PROPFIND", "/dav/a", &[XML], "<a/>").await, "MISS", "purged");
    let sent = [XML, ("x-http-method-override", "DELETE")];
    scene.send("REPORT", "/dav/a", &sent, "<a/>").await;
    assert_cache(&scene.send("PROPFIND", "/dav/a", &[XML], "<a/>").await, "MISS", "overridden");
}

#[tokio::test]
async fn callers_do_not_share_and_a_forgery_token_tells_them_apart() {
    let scene = Scene::start(ROUTES, |request| {
        let who = request.header("authorization").unwrap_or_default();
        Response::ok(who + &request.header("x-csrf-token").unwrap_or_default())
    })
    .await;
    let send = async |name: &str, value: &str| {
        scene.send("POST", "/mine", &[JSON, (name, value)], "{}").await
    };
    for name in ["authorization", "x-csrf-token"] {
        for value in ["Bearer one", "Bearer two"] {
            let first = send(name, value).await;
            assert_cache(&first, "MISS", value);
            assert_eq!(text(&first), value);
            let again = send(name, value).await;
            assert_cache(&again, "HIT", value);
            assert_eq!(text(&again), value);
        }
    }
}

#[tokio::test]
async fn shadow_mode_foretells_the_hits_of_posts() {
    let origin = Origin::start(|_| Response::ok("x"));
    let rules = ROUTES.replacen("methods", "mode = \"shadow\"\nmethods", 1);
    let flow = Flow::start(origin.address, &rules).await;
    for body in ["{\"a\":1,\"b\":2}", "{ \"b\":2,\"a\":1}", "{\"a\":1}", "{\"a\":1,\"a\":1}"] {
        let reply = flow.send("POST", "/search", &[JSON], body).await;
        assert_cache(&reply, "BYPASS", body);
        assert_eq!(origin.last("/search").body, body, "as it came");
    }
    let route = flow.route("/search");
    assert_eq!(
        (route.requests, route.would_hit, route.would_miss, route.would_bypass),
        (4, 1, 2, 1),
        "{route:?}"
    );
}

#[tokio::test]
async fn explain_tells_of_a_body_and_finds_what_is_stored() {
    let scene = Scene::start(ROUTES, echo).await;
    post(&scene, "/search", "{\"a\":1}").await;
    let explain = async |kind: &str, data: &str| {
        let question = json!({
            "method": "POST", "target": "/search", "data": data,
            "headers": [["host", "app.test"], ["content-type", kind]],
        });
        scene.sidecar.admin_ok("/explain", &question).await
    };
    let answer = explain("application/json", " {\"a\" : 1} ").await;
    let lines = answer["lines"].to_string();
    assert!(lines.contains("7 bytes reach the origin"), "{lines}");
    assert!(lines.contains("POST /search"), "{lines}");
    assert!(!answer["stored"].is_null(), "{answer}");
    let answer = explain("application/json", "{\"_method\":\"PUT\"}").await;
    assert!(answer["lines"].to_string().contains("names another method"), "{answer}");
    assert!(answer["stored"].is_null(), "{answer}");
    let answer = explain("application/json", "{\"a\":1,\"A\":1}").await;
    assert!(answer["lines"].to_string().contains("a member comes twice"), "{answer}");
}

/// 1054. A POST that does not meet the `match` of its route, or may not, was answered from the cache
///       all the same: the write was lost.
#[tokio::test]
async fn r1054_a_post_that_its_route_does_not_match_is_a_write() {
    let rules = r#"
[[routes]]
path      = "/index.php"
match     = { query.action = "list" }
ttl       = "5m"
scope     = "public"
methods   = ["GET", "POST"]
read_only = true
key       = ["body"]
"#;
    let origin = Origin::start(|_| Response::ok("x"));
    let flow = Flow::start(origin.address, rules).await;
    let send =
        async |query: &str| flow.send("POST", &format!("/index.php?{query}"), &[JSON], "{}").await;
    assert_cache(&send("action=list").await, "MISS", "a read");
    assert_cache(&send("action=list").await, "HIT", "a read");
    for query in ["action=save", "", "action=list&action=save", "%61ction=list", "action[]=list"] {
        for turn in 1..=2 {
            let before = origin.count("POST", "/index.php");
            assert_cache(&send(query).await, "BYPASS", query);
            assert_eq!(origin.count("POST", "/index.php"), before + 1, "{query}, {turn}");
        }
        assert_cache(&send("action=list").await, "MISS", "writes purge their path");
    }
    // Many apps take a parameter of the body before that of the query.
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (kind, body, cache) in [
        (form, "action=save", "BYPASS"),
        (form, "action[]=save", "BYPASS"),
        (form, "action=list&x=1", "MISS"),
        (JSON, "{\"action\":\"save\"}", "BYPASS"),
        (JSON, "{\"action\":\"list\"}", "MISS"),
    ] {
        let reply = flow.send("POST", "/index.php?action=list", &[kind], body).await;
        assert_cache(&reply, cache, body);
    }
}

/// 1055. Guests got no shared entry where the body is in the key.
#[tokio::test]
async fn r1055_guests_share_reads_by_post_and_others_do_not() {
    let rules = r#"
[[routes]]
path      = "/search"
ttl       = "5m"
methods   = ["POST"]
read_only = true
key       = ["body"]
signed_in = { cookie = "in_*" }
"#;
    let scene = Scene::start(rules, |request| {
        Response::ok(request.header("cookie").unwrap_or_else(|| "nobody".to_owned()))
    })
    .await;
    let send = async |fields: &[(&str, &str)]| {
        scene.send("POST", "/search", &[&[JSON], fields].concat(), "{}").await
    };
    for (cookie, cache, body) in [
        ("sid=1", "MISS", "nobody"),
        ("sid=2", "HIT", "nobody"),
        ("in_1=a", "MISS", "in_1=a"),
        ("in_1=b", "MISS", "in_1=b"),
        ("in_1=a", "HIT", "in_1=a"),
    ] {
        let reply = send(&[("cookie", cookie)]).await;
        assert_cache(&reply, cache, cookie);
        assert_eq!(text(&reply), body, "{cookie}");
    }
    let reply = send(&[("cookie", "sid=1"), ("x-csrf-token", "t")]).await;
    assert_cache(&reply, "MISS", "who has a token is no guest");
}

/// 1056. A tag of a number in the body and of a value in the response had one way to write the
///       number: a write that wrote it in another way purged nothing.
#[tokio::test]
async fn r1056_a_tag_of_the_body_and_the_response_has_each_way_to_write_a_number() {
    let rules = r#"
[fields]
id = { body = "/id" }

[[routes]]
path      = "/pick"
ttl       = "5m"
scope     = "public"
methods   = ["POST"]
read_only = true
key       = ["id"]
tags      = ["picked:{id}:{response:/name}"]

[[purges]]
path = "/write"
tags = ["picked:{id}:{response:/name}"]
"#;
    let scene = Scene::start(rules, |_| {
        Response::ok("{\"name\":\"a\"}").header("content-type", "application/json")
    })
    .await;
    for (read, write) in [("1e2", "100"), ("100", "1e2"), ("100.0", "100"), ("7", "7")] {
        let body = format!("{{\"id\":{read}}}");
        assert_cache(&post(&scene, "/pick", &body).await, "MISS", read);
        assert_cache(&post(&scene, "/pick", &body).await, "HIT", read);
        post(&scene, "/write", &format!("{{\"id\":{write}}}")).await;
        assert_cache(&post(&scene, "/pick", &body).await, "MISS", &format!("{read}, {write}"));
    }
}
