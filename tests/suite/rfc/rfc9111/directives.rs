//! Section 5.2: the client's directives, and those of the origin that no other section covers.

use super::{PUBLIC, lines, not_reused, public, reused};
use crate::support::scene::assert_cache;
use crate::support::{Response, Scene};

/// Fresh for a minute, already ten seconds old, and revalidated on request.
async fn fresh(rules: &str) -> Scene {
    Scene::start(rules, |request| {
        let confirmed = request.header("if-none-match").is_some();
        let answer = if confirmed { Response::status(304, "") } else { Response::ok("data") };
        answer.header("etag", "\"1\"").header("cache-control", "max-age=60").header("age", "10")
    })
    .await
}

fn control(value: &str) -> [(&str, &str); 1] {
    [("cache-control", value)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_requests_that_accept_what_is_stored_get_it() {
    let scene = fresh(PUBLIC).await;
    scene.fill("/a").await;
    let accepting = [
        "max-age=60",
        "max-age=3600",
        "max-stale",
        "max-stale=60",
        "min-fresh=10",
        "only-if-cached",
        "no-transform",
        "anything",
    ];
    for value in accepting {
        assert_cache(&scene.ask("/a", &control(value)).await, "HIT", value);
    }
    assert_eq!(scene.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_requests_that_want_something_newer_reach_the_app() {
    let scene = fresh(PUBLIC).await;
    scene.fill("/a").await;
    let wanting = [
        "max-age=0",
        "max-age=5",
        "max-age=x",
        "min-fresh=55",
        "min-fresh=9999",
        "no-cache",
        "No-Cache",
        "max-age=0, max-stale",
    ];
    for (already, value) in wanting.into_iter().enumerate() {
        let reply = scene.ask("/a", &control(value)).await;
        assert!(
            ["MISS", "REVALIDATED"].contains(&reply.cache()),
            "{value}: {}",
            reply.cache_status()
        );
        assert_eq!((reply.status, reply.text()), (200, "data"), "{value}");
        assert_eq!(scene.count("/a"), already + 2, "{value}");
        assert_cache(&scene.get("/a").await, "HIT", "others are served meanwhile");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_2_max_stale_does_not_make_stale_acceptable() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("data").header("etag", "\"1\"").header("cache-control", "max-age=0")
    })
    .await;
    scene.fill("/a").await;
    for (already, value) in ["max-stale", "max-stale=3600"].into_iter().enumerate() {
        let reply = scene.ask("/a", &control(value)).await;
        assert!(
            ["MISS", "REVALIDATED"].contains(&reply.cache()),
            "{value}: {}",
            reply.cache_status()
        );
        assert_eq!(scene.count("/a"), already + 2, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_4_no_cache_is_not_answered_with_something_stale() {
    let rules = public("stale_while_revalidate = \"1m\"\nstale_if_error = \"1m\"");
    let scene = fresh(&rules).await;
    scene.fill("/a").await;
    scene.origin_goes_away().await;
    let reply = scene.ask("/a", &control("no-cache")).await;
    assert!((502..=504).contains(&reply.status), "{} {}", reply.status, reply.cache_status());
    assert_cache(&scene.get("/a").await, "HIT", "others are served what is fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_5_no_store_stores_nothing() {
    let scene = fresh(PUBLIC).await;
    let reply = scene.ask("/a", &control("no-store")).await;
    assert_eq!((reply.status, reply.text()), (200, "data"));
    assert!(!reply.cache_status().contains("stored"), "{}", reply.cache_status());
    assert_cache(&scene.get("/a").await, "MISS", "nothing was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_7_only_if_cached_never_reaches_the_app() {
    let scene = Scene::start(PUBLIC, |request| {
        let control = if request.path == "/fresh" { "max-age=60" } else { "max-age=0" };
        Response::ok("data").header("etag", "\"1\"").header("cache-control", control)
    })
    .await;
    for path in ["/fresh", "/stale"] {
        scene.fill(path).await;
    }
    for (path, status) in [("/fresh", 200), ("/stale", 504), ("/nothing", 504)] {
        let asked = scene.count(path);
        let reply = scene.ask(path, &control("only-if-cached")).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.cache_status());
        assert_eq!(scene.count(path), asked, "{path}");
    }
    let wanting = scene.ask("/fresh", &control("only-if-cached, no-cache")).await;
    assert_eq!((wanting.status, scene.count("/fresh")), (504, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_1_a_route_may_ignore_what_the_client_says() {
    let scene = fresh(&public("client_cache_control = \"ignore\"")).await;
    assert_cache(&scene.ask("/a", &control("no-store")).await, "MISS", "stored all the same");
    let reload: [&[(&str, &str)]; 7] = [
        &control("no-cache"),
        &control("no-store"),
        &control("max-age=0"),
        &control("min-fresh=9999"),
        &[("pragma", "no-cache")],
        &[("cache-control", "no-cache"), ("pragma", "no-cache")],
        &control("only-if-cached"),
    ];
    for headers in reload {
        assert_cache(&scene.ask("/a", headers).await, "HIT", &format!("{headers:?}"));
    }
    assert_eq!(scene.count("/a"), 1);
    let nothing = scene.ask("/b", &control("only-if-cached")).await;
    assert_eq!(nothing.status, 200, "the app is asked: {}", nothing.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_2_4_no_cache_is_confirmed_at_each_use() {
    for value in [
        "no-cache",
        "no-cache, max-age=60",
        "max-age=60, no-cache",
        "max-age=60, no-cache=\"set-cookie\"",
    ] {
        let scene = Scene::start(PUBLIC, move |request| {
            let answer = if request.header("if-none-match").is_some() {
                Response::status(304, "")
            } else {
                Response::ok("data")
            };
            answer.header("etag", "\"1\"").header("cache-control", value)
        })
        .await;
        scene.fill("/a").await;
        for asked in 2..4 {
            let reply = scene.get("/a").await;
            assert_cache(&reply, "REVALIDATED", value);
            assert_eq!((reply.text(), scene.count("/a")), ("data", asked), "{value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_2_what_must_not_be_stored_is_not() {
    let values = [
        "no-store",
        "no-store, max-age=60, public",
        "No-Store, max-age=60",
        "max-age=60, private",
        "max-age=60, private=\"x-user\"",
        "max-age=60, private, public",
        "max-age=60; no-store",
        "max-age=60, e=\"unended, no-store",
    ];
    let cases = values.map(|value| (200, lines(&[("cache-control", value), ("etag", "\"1\"")])));
    not_reused(PUBLIC, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_2_3_what_is_unknown_is_passed_over() {
    let values = [
        "max-age=60, community=\"UCI\"",
        "max-age=60, immutable",
        "max-age=60, no-transform",
        "max-age=60, x-no-store",
    ];
    reused(PUBLIC, &values.map(|value| (200, lines(&[("cache-control", value)])))).await;
    let scene = fresh(PUBLIC).await;
    scene.fill("/a").await;
    assert_cache(
        &scene.ask("/a", &[("cache-control", "nothing-to-see-here"), ("pragma", "foo")]).await,
        "HIT",
        "of a request too",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_4_pragma_means_nothing_in_a_response() {
    let scene = fresh(PUBLIC).await;
    scene.answers(|_| {
        Response::ok("data").header("cache-control", "max-age=60").header("pragma", "no-cache")
    });
    scene.fill("/a").await;
    assert_cache(&scene.get("/a").await, "HIT", "Pragma: no-cache");
}
