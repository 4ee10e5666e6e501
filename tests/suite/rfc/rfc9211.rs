//! RFC 9211: the contents of `Cache-Status`.

use crate::support::scene::{assert_cache, cache_status, ttl};
use crate::support::{Point, Reply, Response, Scene, waiting};

const ROUTE: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\npass_headers = \
    [\"x-v\"]\n[[routes]]\npath = \"/off\"\nmode = \"off\"\n";

fn data(control: &str) -> Response {
    Response::ok("data").header("etag", "\"1\"").header("cache-control", control)
}

/// Asserts that the sidecar's member has these parameters, among others, and none of those.
#[track_caller]
fn assert_said(reply: &Reply, has: &[&str], lacks: &[&str]) {
    let said = cache_status(reply);
    for expected in has {
        assert!(said.iter().any(|parameter| parameter == expected), "{expected} in {said:?}");
    }
    for name in lacks {
        assert!(
            !said.iter().any(|parameter| parameter.split('=').next() == Some(name)),
            "no {name} in {said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_1_a_hit_says_how_long_it_is_fresh() {
    let scene = Scene::start(ROUTE, |_| data("max-age=600")).await;
    scene.fill("/a").await;
    let hit = scene.get("/a").await;
    assert_said(&hit, &["hit", "detail=memory"], &["fwd", "fwd-status", "stored", "collapsed"]);
    assert!((500..=600).contains(&ttl(&hit)), "{}", ttl(&hit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_2_a_miss_says_why_it_went_forward() {
    let scene = Scene::start(ROUTE, |request| match request.path.as_str() {
        "/vary" => data("max-age=600").header("vary", "x-v"),
        "/stale" => data("max-age=0"),
        "/no-store" => data("no-store"),
        _ => data("max-age=600"),
    })
    .await;
    let miss = scene.get("/a").await;
    assert_said(&miss, &["fwd=uri-miss", "fwd-status=200", "stored"], &["hit", "collapsed"]);
    assert!((500..=600).contains(&ttl(&miss)), "{}", ttl(&miss));
    assert_said(
        &scene.ask("/a", &[("cache-control", "no-cache")]).await,
        &["fwd=request"],
        &["hit"],
    );

    scene.get("/vary").await;
    assert_said(&scene.ask("/vary", &[("x-v", "1")]).await, &["fwd=vary-miss", "stored"], &["hit"]);

    scene.get("/stale").await;
    assert_said(&scene.get("/stale").await, &["fwd=stale", "fwd-status=200", "stored"], &["hit"]);

    assert_said(
        &scene.get("/no-store").await,
        &["fwd=uri-miss", "fwd-status=200"],
        &["hit", "stored"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_2_what_the_cache_takes_no_part_in_says_so() {
    let scene = Scene::start(ROUTE, |_| data("max-age=600")).await;
    let off = scene.get("/off").await;
    assert_cache(&off, "BYPASS", "/off");
    assert_said(&off, &["fwd=bypass", "detail=\"mode off\""], &["hit", "stored"]);
    let unkeyed = scene.ask("/a", &[("x-account-id", "7")]).await;
    assert_said(
        &unkeyed,
        &["fwd=bypass", "detail=\"unkeyed header x-account-id\""],
        &["hit", "stored"],
    );
    assert_said(
        &scene.send("PUT", "/a", &[], "x").await,
        &["fwd=method", "fwd-status=200"],
        &["hit", "stored"],
    );
    assert_said(
        &scene.ask("/a", &[("cache-control", "no-store")]).await,
        &["fwd=request"],
        &["hit", "stored"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_3_a_confirmed_entry_says_what_the_app_said() {
    let scene = Scene::start(ROUTE, |_| data("max-age=0")).await;
    scene.fill("/a").await;
    scene.answers(|_| {
        Response::status(304, "").header("etag", "\"1\"").header("cache-control", "max-age=600")
    });
    let confirmed = scene.get("/a").await;
    assert_cache(&confirmed, "REVALIDATED", "/a");
    assert_said(&confirmed, &["fwd=stale", "fwd-status=304", "stored"], &["hit"]);
    assert!((500..=600).contains(&ttl(&confirmed)), "the new one: {}", ttl(&confirmed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_4_what_is_stale_has_a_negative_ttl() {
    let scene = Scene::start(ROUTE, |_| {
        data("max-age=60, stale-if-error=600, stale-while-revalidate=120").header("age", "100")
    })
    .await;
    scene.fill("/a").await;
    let hold = scene.hold("GET", "/a", Point::Before);
    let stale = scene.get("/a").await;
    assert_cache(&stale, "STALE", "within stale-while-revalidate");
    assert_said(
        &stale,
        &["hit", "detail=\"stale-while-revalidate\""],
        &["fwd", "fwd-status", "stored"],
    );
    assert!((-60..=-40).contains(&ttl(&stale)), "{}", ttl(&stale));
    drop(hold);

    let scene =
        Scene::start(ROUTE, |_| data("max-age=60, stale-if-error=600").header("age", "100")).await;
    scene.fill("/a").await;
    scene.answers(|_| Response::status(503, ""));
    let stale = scene.get("/a").await;
    assert_cache(&stale, "STALE", "within stale-if-error");
    assert_said(&stale, &["fwd=stale", "fwd-status=503"], &["hit", "stored"]);
    assert!((-60..=-40).contains(&ttl(&stale)), "{}", ttl(&stale));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_6_those_who_wait_for_anothers_fill_say_collapsed() {
    let scene = Scene::start(ROUTE, |_| data("max-age=600")).await;
    let hold = scene.hold("GET", "/a", Point::Before);
    let leader = scene.get("/a");
    let followers = async {
        hold.arrived().await;
        let released = async {
            // A request that came too late would be a HIT.
            waiting(scene.sidecar.admin, 2).await;
            hold.release();
        };
        let (first, second, ()) = tokio::join!(scene.get("/a"), scene.get("/a"), released);
        [first, second]
    };
    let (leader, followers) = tokio::join!(leader, followers);
    assert_said(&leader, &["fwd=uri-miss", "stored"], &["hit", "collapsed"]);
    for follower in &followers {
        assert_cache(follower, "MISS", "a follower");
        assert_said(follower, &["fwd=uri-miss", "collapsed"], &["hit", "stored"]);
    }
    assert_eq!(scene.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_7_the_key_is_shown_for_debugging_alone() {
    for debug in [true, false] {
        let scene =
            Scene::start(&format!("[debug]\nheaders = {debug}\n{ROUTE}"), |_| data("max-age=600"))
                .await;
        scene.fill("/a").await;
        let hit = scene.get("/a").await;
        assert_cache(&hit, "HIT", "the second");
        let key = cache_status(&hit).into_iter().find(|parameter| parameter.starts_with("key="));
        assert_eq!(key.is_some(), debug, "{}", hit.header("cache-status"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_each_cache_adds_its_member_behind_those_before() {
    let scene = Scene::start(ROUTE, |request| {
        let answer = data(if request.path == "/stale" { "max-age=0" } else { "max-age=600" });
        answer
            .header("cache-status", "origin; hit; ttl=5")
            .header("cache-status", "middle; fwd=miss")
    })
    .await;
    let all = |reply: &Reply| {
        let lines: Vec<_> = reply
            .headers
            .get_all("cache-status")
            .iter()
            .map(|line| line.to_str().expect("text").to_owned())
            .collect();
        lines.join(", ")
    };
    for path in ["/a", "/stale"] {
        for _ in 0..2 {
            let reply = scene.get(path).await;
            let line = all(&reply);
            assert!(
                line.starts_with("origin; hit; ttl=5, middle; fwd=miss, sidecache; "),
                "{path}: {line}"
            );
            assert_eq!(line.matches("sidecache").count(), 1, "{path}: {line}");
        }
    }
    scene.answers(|_| {
        Response::status(304, "")
            .header("etag", "\"1\"")
            .header("cache-status", "origin; hit; ttl=6")
    });
    let confirmed = scene.get("/stale").await;
    assert_cache(&confirmed, "REVALIDATED", "/stale");
    let line = all(&confirmed);
    assert!(
        line.starts_with("origin; hit; ttl=") && line.contains(", sidecache; fwd=stale"),
        "{line}"
    );
    assert_eq!(line.matches("sidecache").count(), 1, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_an_app_that_cannot_be_reached_is_named_in_the_detail() {
    let scene = Scene::start(ROUTE, |_| data("max-age=1")).await;
    scene.fill("/a").await;
    scene.until_stale();
    scene.origin_goes_away().await;
    let stale = scene.get("/a").await;
    assert_cache(&stale, "STALE", "/a");
    assert_said(
        &stale,
        &["fwd=stale", "detail=\"upstream unreachable\""],
        &["hit", "stored", "fwd-status"],
    );
    let nothing = scene.get("/b").await;
    assert_eq!(nothing.status, 502);
    assert_said(
        &nothing,
        &["fwd=uri-miss", "detail=\"upstream unreachable\""],
        &["hit", "stored", "fwd-status"],
    );
}
