//! Numbered regressions of a second attack on the finished sidecar: what of one caller's response
//! reached another caller beside the body, and who a caller is taken for.

use std::time::Duration;

use crate::support::client::Reply;
use crate::support::scene::{assert_cache, date};
use crate::support::{Client, Point, Request, Response, Scene};

const ALICE: [(&str, &str); 1] = [("authorization", "Bearer alice")];
const BOB: [(&str, &str); 1] = [("authorization", "Bearer bob")];

/// Response headers that say who the caller is.
const OWN: [&str; 3] = ["x-auth-user", "authorization", "x-csrf-token"];

fn shared(more: &str) -> String {
    format!("[[routes]]\npath = \"/{{*rest}}\"\nttl = \"5m\"\nscope = \"shared\"\n{more}\n")
}

fn name(request: &Request) -> String {
    request.header("authorization").unwrap_or_default().replace("Bearer ", "")
}

fn own(response: Response, request: &Request) -> Response {
    OWN.iter().fold(response, |response, header| response.header(header, &name(request)))
}

fn assert_own(reply: &Reply, who: &str, case: &str) {
    for header in OWN {
        assert_eq!(reply.header(header), who, "{case}: {}", reply.header("cache-status"));
    }
}

/// 400. A caller who had been given the same body got the head of the last caller's response: its
///      name, its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r400_the_head_of_a_response_is_shared_like_its_body() {
    let scene = Scene::start(&shared(""), |request| own(Response::ok("data"), request)).await;
    for _ in 0..3 {
        assert_own(&scene.ask("/a", &ALICE).await, "alice", "alice");
        assert_own(&scene.ask("/a", &BOB).await, "bob", "bob");
        assert_own(&scene.get("/a").await, "", "nobody");
    }
    let again = scene.get("/a").await;
    assert_cache(&again, "HIT", "the last one stays");
    // By the operator's word, everything is shared, the head too.
    let scene =
        Scene::start(&shared("admit = \"route\""), |request| own(Response::ok("data"), request))
            .await;
    for who in [ALICE, BOB, ALICE] {
        scene.ask("/a", &who).await;
    }
    let alice = scene.ask("/a", &ALICE).await;
    assert_cache(&alice, "HIT", "by route");
}

/// 401. What differs at each response and says nothing of the caller keeps nobody from sharing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r401_times_and_ids_of_requests_keep_nobody_from_sharing() {
    let scene = Scene::start(&shared("admit_for = \"10s\""), |request| {
        let answer = if request.header("if-none-match").is_some() {
            Response::status(304, "")
        } else {
            Response::ok("data")
        };
        let number = request.number.to_string();
        ["x-request-id", "server-timing", "cf-ray", "x-runtime", "via", "traceparent"]
            .iter()
            .fold(answer, |answer, header| answer.header(header, &number))
            .header("last-modified", &date(-3600 - i64::try_from(request.number).unwrap_or(0)))
            .header("etag", if request.number % 2 == 0 { "\"1\"" } else { "W/\"1\"" })
    })
    .await;
    for who in [ALICE, BOB] {
        assert_cache(&scene.ask("/a", &who).await, "MISS", who[0].1);
    }
    for who in [ALICE, BOB] {
        assert_cache(&scene.ask("/a", &who).await, "HIT", who[0].1);
    }
    scene.clock.advance(Duration::from_secs(11));
    for who in [ALICE, BOB] {
        let reply = scene.ask("/a", &who).await;
        assert!(["REVALIDATED", "MISS"].contains(&reply.cache()), "{}", reply.cache());
    }
    for who in [ALICE, BOB] {
        assert_cache(&scene.ask("/a", &who).await, "HIT", who[0].1);
    }
}

/// A route whose entry both callers are authorized for, and which is stale; from here on the origin
/// confirms it, with a head for each caller.
async fn both_authorized() -> Scene {
    let scene = Scene::start(&shared("admit_for = \"1h\"").replace("5m", "1s"), |_| {
        Response::ok("data").header("etag", "\"1\"")
    })
    .await;
    for who in [ALICE, BOB] {
        scene.ask("/a", &who).await;
    }
    for who in [ALICE, BOB] {
        assert_cache(&scene.ask("/a", &who).await, "HIT", who[0].1);
    }
    scene.until_stale();
    scene.answers(|request| {
        let answer = if request.header("if-none-match").is_some() {
            Response::status(304, "")
        } else {
            Response::ok("data")
        };
        own(answer.header("etag", "\"1\""), request)
    });
    scene
}

/// 402. A 304 to one caller put its head on what all others were given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r402_the_head_of_a_304_is_for_its_caller() {
    let scene = both_authorized().await;
    let bob = scene.ask("/a", &BOB).await;
    assert_cache(&bob, "REVALIDATED", "bob");
    assert_own(&bob, "bob", "the 304 itself");
    let bob = scene.ask("/a", &BOB).await;
    assert_cache(&bob, "HIT", "bob stays authorized");
    assert_own(&bob, "bob", "bob's hit");
    assert_own(&scene.ask("/a", &ALICE).await, "alice", "alice");
    assert_own(&scene.ask("/a", &BOB).await, "bob", "bob again");
}

/// 403. A caller that waited for another caller's revalidation got that one's head.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r403_who_waits_for_another_callers_304_gets_a_head_of_its_own() {
    let scene = both_authorized().await;
    let hold = scene.hold("GET", "/a", Point::Before);
    let ask = |who: [(&'static str, &'static str); 1]| {
        let mut client = Client::new(scene.sidecar.address);
        tokio::spawn(async move { client.get("/a", &who).await })
    };
    let alice = ask(ALICE);
    hold.arrived().await;
    let bob = ask(BOB);
    // What waits shows nowhere.
    tokio::time::sleep(Duration::from_millis(200)).await;
    hold.release();
    assert_own(&alice.await.expect("no panic"), "alice", "the leader");
    assert_own(&bob.await.expect("no panic"), "bob", "the follower");
}

/// 404. Where a trusted proxy named no address, or named it in `Forwarded`, the client was taken for
///      the proxy: strangers shared an entry, and the origin was told the proxy's address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r404_a_client_is_never_taken_for_the_proxy() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    let rules = "[fields]\noffice = { client = \"address\" }\n\n[[routes]]\npath = \"/{*rest}\"\n\
                 ttl = \"5m\"\nscope = \"public\"\nkey = [\"office\"]\n";
    let scene = Scene::start_with(&trusted, rules, |request| {
        Response::ok(request.header("x-forwarded-for").unwrap_or_default())
    })
    .await;
    let nobody: [&[(&str, &str)]; 11] = [
        &[],
        &[("x-forwarded-for", "")],
        &[("x-forwarded-for", "unknown")],
        &[("x-forwarded-for", "evil")],
        &[("x-forwarded-for", "6.6.6.6, evil")],
        &[("x-forwarded-for", "6.6.6.6, evil, 127.0.0.1")],
        &[("x-real-ip", "evil")],
        &[("forwarded", "for=unknown")],
        &[("forwarded", "for=_hidden, for=127.0.0.1")],
        &[("forwarded", "for=9.9.9.9;for=8.8.8.8")],
        &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=9.9.9.9")],
    ];
    for headers in nobody {
        let reply = scene.ask("/a", headers).await;
        let status = reply.header("cache-status");
        assert_cache(&reply, "BYPASS", &format!("{headers:?}: {status}"));
        assert!(status.contains("missing field") && status.contains("office"), "{status}");
    }
    for (forwarded, address) in [
        ("for=9.9.9.9", "9.9.9.9"),
        ("For=\"9.9.9.8:4711\";proto=https", "9.9.9.8"),
        ("for=6.6.6.6, by=10.0.0.1 ; for=\"[2001:db8::1]:80\", for=127.0.0.1", "2001:db8::1"),
    ] {
        let reply = scene.ask("/a", &[("forwarded", forwarded)]).await;
        assert_cache(&reply, "MISS", forwarded);
        assert_eq!(reply.text(), address, "{forwarded}");
        // The same client, told in another way.
        let headers = [("x-forwarded-for", address), ("forwarded", forwarded)];
        assert_cache(&scene.ask("/a", &headers).await, "HIT", forwarded);
    }
}

/// 405. A redirect to the login was no refusal where it was written in another case or with escapes,
///      or where the login has a host of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r405_a_login_is_known_however_it_is_written() {
    for location in [
        "/LOGIN",
        "/%6Cogin?next=/a",
        "/connect/authorize?client_id=1",
        "/oauth2/authorize",
        "/authorize?x",
        "/Account/LogOn",
        "/signin-oidc",
        "/SSO/start",
        "/auth",
        "https://login.example.test/tenant/v2",
        "https://accounts.example.test/o",
        "https://IDP.example.test:8443/",
    ] {
        let scene = Scene::start(&shared(""), |_| Response::ok("data")).await;
        for who in [ALICE, BOB] {
            scene.ask("/a", &who).await;
            assert_cache(&scene.ask("/a", &who).await, "HIT", location);
        }
        let to = location.to_owned();
        scene.answers(move |request| {
            if name(request) == "bob" {
                Response::status(302, "").header("location", &to)
            } else {
                Response::ok("data")
            }
        });
        let reload = [BOB[0], ("cache-control", "no-cache")];
        assert_eq!(scene.ask("/a", &reload).await.status, 302, "{location}");
        assert_eq!(scene.ask("/a", &BOB).await.status, 302, "{location}: bob is turned away");
        assert_cache(&scene.ask("/a", &ALICE).await, "HIT", location);
    }
}

/// 406. A response of the sidecar's own to a HEAD over HTTP/2 came with a body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r406_no_response_to_a_head_has_a_body() {
    let scene = Scene::start(&shared("").replace("shared", "public"), |_| {
        Response::ok("0123456789").header("etag", "\"1\"")
    })
    .await;
    let many = [("x-many", "1"); 150];
    let only_if_cached = [("cache-control", "only-if-cached")];
    let cases = [(&only_if_cached[..], 504), (&[("expect", "200-ok")], 417), (&many, 431)];
    for (headers, status) in cases {
        for mut client in [Client::new(scene.sidecar.address), Client::http2(scene.sidecar.address)]
        {
            let reply = client.try_send("HEAD", "/a", headers, "").await;
            let reply = reply.unwrap_or_else(|error| panic!("{headers:?}: {error}"));
            assert_eq!((reply.status, reply.text()), (status, ""), "{headers:?}");
        }
    }
}
