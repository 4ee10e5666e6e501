//! Numbered regressions of revalidated, stale and partial responses, and of responses to POST;
//! continued from `regressions.rs`.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::scene::{assert_cache, cache_status};
use crate::support::{Client, Point, RedisServer, Request, Response, Scene, eventually, waiting};

const PUBLIC: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\n";

fn told(request: &Request) -> Response {
    let target = request
        .query
        .as_ref()
        .map_or_else(|| request.path.clone(), |query| format!("{}?{query}", request.path));
    let seen = ["authorization", "cookie", "x-odd"]
        .map(|name| request.header(name).unwrap_or_default())
        .concat();
    Response::ok(format!("for {seen} {:?}", request.query))
        .header("content-location", &target)
        .header("cache-control", "max-age=60")
}

/// 19. The response to a POST, which the origin made for one user, was stored for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r019_an_answer_to_a_post_that_saw_more_than_a_get_shows_is_not_stored() {
    let rules = format!("{PUBLIC}query = [\"page\"]\ndrop_headers = [\"x-odd\"]\nttl = \"1m\"\n");
    for secret in
        [("authorization", "Bearer alice"), ("cookie", "session=alice"), ("x-odd", "alice")]
    {
        let scene = Scene::start(&rules, told).await;
        assert!(
            scene.send("POST", "/a", &[secret], "x").await.text().contains("alice"),
            "the app has seen it"
        );
        let other = scene.get("/a").await;
        assert!(!other.text().contains("alice"), "{secret:?}: {}", other.header("cache-status"));
    }
    let scene = Scene::start(&rules, told).await;
    scene.send("POST", "/a?user=alice", &[], "x").await;
    assert!(!scene.get("/a").await.text().contains("alice"), "a parameter that no key has seen");
    for status in [201, 204] {
        scene.answers(move |request| match request.method.as_str() {
            "POST" => Response::status(status, "")
                .header("content-location", "/c")
                .header("cache-control", "max-age=60"),
            _ => Response::ok("whole"),
        });
        scene.send("POST", "/c", &[], "x").await;
        assert_eq!(
            scene.get("/c").await.text(),
            "whole",
            "only a 200 has the content of the target"
        );
    }
    scene.answers(told);
    scene.send("POST", "/b", &[("cache-control", "no-store")], "x").await;
    assert_cache(&scene.get("/b").await, "MISS", "RFC 9111 5.2.1.5");
}

/// 20. In scope `shared`, a request that bypassed the cache, with a header that is in no key,
///     authorized its caller for shared entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r020_a_header_that_no_key_has_seen_admits_to_nothing_else() {
    for vary in [false, true] {
        let rules = "[fields]\ntenant = { header = \"x-tenant\" }\n\n[[routes]]\npath = \
            \"/a\"\nttl = \"1m\"\nscope = \"shared\"\nkey = [\"tenant\"]\n";
        let scene = Scene::start(rules, move |request| {
            let mallory = request.header("authorization").as_deref() == Some("Bearer mallory");
            let account = request
                .header("x-account-id")
                .or_else(|| request.header("x-tenant"))
                .unwrap_or_default();
            let answer = if mallory && account != "globex" {
                Response::status(403, "no")
            } else {
                Response::ok(format!("data of {account}"))
            };
            if vary { answer.header("vary", "x-account-id") } else { answer }
        })
        .await;
        let alice = [("x-tenant", "acme"), ("authorization", "Bearer alice")];
        scene.ask("/a", &alice).await;
        assert_cache(&scene.ask("/a", &alice).await, "HIT", "alice is admitted");
        let mallory = [("x-tenant", "acme"), ("authorization", "Bearer mallory")];
        assert_eq!(scene.ask("/a", &mallory).await.status, 403);
        for _ in 0..2 {
            let other =
                scene.ask("/a", &[mallory[0], mallory[1], ("x-account-id", "globex")]).await;
            assert_eq!(
                (other.status, other.text()),
                (200, "data of globex"),
                "{}",
                other.header("cache-status")
            );
        }
        let plain = scene.ask("/a", &mallory).await;
        assert_eq!(
            plain.status,
            403,
            "vary {vary}: {} {}",
            plain.text(),
            plain.header("cache-status")
        );
    }
}

/// 21. A response that the origin had replaced or withdrawn was served stale again when the origin
///     was unreachable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r021_what_the_app_has_withdrawn_does_not_come_back_stale() {
    for (status, control) in [
        (404, "no-store"),
        (410, ""),
        (401, ""),
        (301, ""),
        (200, "no-store"),
        (200, "private"),
        (304, "no-store"),
    ] {
        let scene = Scene::start(PUBLIC, |_| {
            Response::ok("old")
                .header("etag", "\"1\"")
                .header("cache-control", "max-age=1, stale-if-error=600")
        })
        .await;
        scene.fill("/a").await;
        scene.until_stale();
        scene.answers(move |_| {
            Response::status(status, "").header("etag", "\"1\"").header("cache-control", control)
        });
        let withdrawn = scene.get("/a").await;
        assert_eq!(
            withdrawn.status,
            if status == 304 { 200 } else { status },
            "{}",
            withdrawn.header("cache-status")
        );
        scene.answers(|_| Response::status(503, "broken"));
        let gone = scene.get("/a").await;
        assert_eq!(gone.status, 503, "{status} {control}: {}", gone.header("cache-status"));
    }
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("old").header("etag", "\"1\"").header("cache-control", "max-age=1")
    })
    .await;
    scene.fill("/a").await;
    scene.until_stale();
    scene.answers(|_| {
        Response::ok("new").header("set-cookie", "a=b").header("cache-control", "max-age=1")
    });
    assert_eq!(scene.get("/a").await.text(), "new");
    scene.answers(|_| Response::hang_up());
    assert_eq!(
        scene.get("/a").await.status,
        502,
        "an answer that sets a cookie is a newer one all the same"
    );
}

/// 22. The same during a background refresh: the old response was served for the whole window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r022_a_refresh_that_finds_it_gone_ends_what_is_stale() {
    let redis = RedisServer::start();
    for tier in [String::new(), redis.table()] {
        let scene = Scene::start(&format!("{tier}\n{PUBLIC}"), |_| {
            Response::ok("old").header("cache-control", "max-age=1, stale-while-revalidate=600")
        })
        .await;
        scene.fill("/a").await;
        scene.until_stale();
        scene.answers(|_| Response::status(404, "gone"));
        assert_cache(&scene.get("/a").await, "STALE", "served while the app is asked");
        eventually("the app's word counts", Duration::from_secs(10), || async {
            scene.get("/a").await.status == 404
        })
        .await;
        assert_eq!(scene.get("/a").await.status, 404);
    }
}

/// 23. One 5xx kept requests from sharing fills for ten seconds, even after a good response was
///     stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r023_a_failure_does_not_end_coalescing() {
    let scene = Scene::start(PUBLIC, |_| Response::status(500, "broken")).await;
    assert_eq!(scene.get("/a").await.status, 500);
    scene.answers(|_| Response::ok("good").header("cache-control", "max-age=60"));
    let hold = scene.hold("GET", "/a", Point::Before);
    let mut crowd = JoinSet::new();
    for _ in 0..20 {
        let address = scene.sidecar.address;
        crowd.spawn(async move { Client::new(address).get("/a", &[]).await });
    }
    hold.arrived().await;
    waiting(scene.sidecar.admin, 19).await;
    hold.release();
    while let Some(reply) = crowd.join_next().await {
        assert_eq!(reply.expect("no panic").text(), "good");
    }
    assert_eq!(scene.count("/a"), 2, "the failure, and one fill for all");
}

/// 24. A range or a HEAD of a stored response was not served from it if the origin failed or could
///     only revalidate it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r024_parts_and_heads_have_the_same_rights_as_the_whole() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("0123456789")
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=1, stale-if-error=600")
    })
    .await;
    scene.fill("/a").await;
    scene.until_stale();
    scene.answers(|_| Response::status(503, "broken"));
    let part = scene.ask("/a", &[("range", "bytes=2-4")]).await;
    assert_cache(&part, "STALE", "a part");
    assert_eq!(
        (part.status, part.text(), part.header("content-range")),
        (206, "234", "bytes 2-4/10")
    );
    let head = scene.send("HEAD", "/a", &[], "").await;
    assert_cache(&head, "STALE", "a head");
    assert!(
        cache_status(&head).contains(&"fwd-status=503".to_owned()),
        "{}",
        head.header("cache-status")
    );

    scene.answers(|_| {
        Response::status(304, "").header("etag", "\"1\"").header("cache-control", "max-age=60")
    });
    let part = scene.ask("/a", &[("range", "bytes=-2")]).await;
    assert_cache(&part, "REVALIDATED", "a part of what is confirmed");
    assert_eq!(
        (part.status, part.text(), part.header("content-range")),
        (206, "89", "bytes 8-9/10")
    );
    assert!(
        cache_status(&part).contains(&"fwd=stale".to_owned()),
        "{}",
        part.header("cache-status")
    );
}

/// 25. If an origin varies on a header only when it is present, a client could evict the response
///     stored without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r025_a_strangers_header_pushes_nothing_out() {
    let scene = Scene::start(PUBLIC, |request| {
        let answer = Response::ok("data").header("cache-control", "max-age=60");
        if request.header("x-odd").is_some() { answer.header("vary", "x-odd") } else { answer }
    })
    .await;
    scene.fill("/a").await;
    // The first of its kind passes, and shows that the origin varies on the header. From then on it
    // is in the key.
    for (value, cache) in [("1", "BYPASS"), ("1", "MISS"), ("1", "HIT"), ("2", "MISS")] {
        let reply = scene.ask("/a", &[("x-odd", value)]).await;
        assert_cache(&reply, cache, value);
        assert_cache(&scene.get("/a").await, "HIT", "as before");
    }
}

/// 26. A HEAD that was forwarded because only a stale response was stored left a rejected caller
///     authorized; and an origin that does not support HEAD, or rejected one caller, ended the
///     stored response for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r026_a_head_ends_what_it_speaks_of_and_nothing_else() {
    let answer = |_: &Request| {
        Response::ok("old")
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=1, public, stale-if-error=600")
    };
    let rules = "[[routes]]\npath = \"/a\"\nscope = \"shared\"\n";
    for status in [403, 405] {
        let scene = Scene::start(rules, answer).await;
        let (alice, bob) = ([("authorization", "Bearer alice")], [("authorization", "Bearer bob")]);
        scene.ask("/a", &bob).await;
        scene.ask("/a", &alice).await;
        scene.until_stale();
        scene.answers(move |_| Response::status(status, ""));
        assert_eq!(scene.send("HEAD", "/a", &alice, "").await.status, status);
        scene.answers(|_| Response::status(503, "broken"));
        assert_cache(
            &scene.ask("/a", &bob).await,
            "STALE",
            "what is stored is still there for others",
        );
        let again = scene.ask("/a", &alice).await;
        assert_eq!(
            again.status,
            if status == 403 { 503 } else { 200 },
            "{status}: {}",
            again.header("cache-status")
        );
    }
}
