//! RFC 5861: stale responses during a revalidation, and after an error.

use std::time::Duration;

use crate::support::scene::{assert_cache, cache_status, ttl};
use crate::support::{Point, Reply, Request, Response, Scene, eventually};

const ROUTE: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\n";

fn route(keys: &str) -> String {
    format!("{ROUTE}{keys}\n")
}

/// Responds by path: `/max-age=1_stale-if-error=60` has these directives, and a validator.
fn old(request: &Request) -> Response {
    let control = request.path[1..].replace('_', ", ");
    Response::ok("old").header("etag", "\"1\"").header("cache-control", &control)
}

fn new(_: &Request) -> Response {
    Response::ok("new").header("etag", "\"2\"").header("cache-control", "max-age=60")
}

async fn warm(rules: &str, paths: &[&str]) -> Scene {
    let scene = Scene::start(rules, old).await;
    for path in paths {
        scene.fill(path).await;
    }
    scene.until_stale();
    scene
}

fn assert_stale(reply: &Reply, case: &str) {
    assert_cache(reply, "STALE", case);
    assert_eq!((reply.status, reply.text()), (200, "old"), "{case}");
    assert!(ttl(reply) <= 0, "{case}: {}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_what_is_stale_is_served_at_once_and_fetched_anew_behind() {
    let path = "/max-age=1_stale-while-revalidate=60";
    let scene = warm(ROUTE, &[path]).await;
    scene.answers(new);
    let hold = scene.hold("GET", path, Point::Before);
    // The origin does not respond: these requests would hang if they waited for it.
    for _ in 0..20 {
        let reply = scene.get(path).await;
        assert_stale(&reply, path);
        let status = cache_status(&reply);
        assert_eq!(status[0], "hit", "{status:?}");
        assert!(
            status.iter().any(|parameter| parameter == "detail=\"stale-while-revalidate\""),
            "{status:?}"
        );
        assert!(
            reply.header("age").parse::<u64>().is_ok_and(|age| age >= 1),
            "{}",
            reply.header("age")
        );
    }
    hold.arrived().await;
    hold.release();
    eventually("the new one is served", Duration::from_secs(10), || async {
        let reply = scene.get(path).await;
        reply.cache() == "HIT" && reply.text() == "new"
    })
    .await;
    assert_eq!(scene.count(path), 2, "one refresh for all");
    assert_eq!(
        scene.last(path).header("if-none-match").as_deref(),
        Some("\"1\""),
        "the refresh asks whether anything changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_304_behind_makes_it_fresh_again() {
    let path = "/max-age=1_stale-while-revalidate=60";
    let scene = warm(ROUTE, &[path]).await;
    scene.answers(|_| {
        Response::status(304, "").header("etag", "\"1\"").header("cache-control", "max-age=60")
    });
    assert_stale(&scene.get(path).await, path);
    eventually("it is fresh again", Duration::from_secs(10), || async {
        scene.get(path).await.cache() == "HIT"
    })
    .await;
    assert_eq!((scene.get(path).await.text(), scene.count(path)), ("old", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_without_a_validator_it_is_fetched_anew_as_a_whole() {
    let path = "/a";
    let scene = Scene::start(ROUTE, |_| {
        Response::ok("old").header("cache-control", "max-age=2, stale-while-revalidate=60")
    })
    .await;
    scene.fill(path).await;
    scene.until_stale();
    scene.until_stale();
    scene.answers(new);
    assert_stale(&scene.get(path).await, path);
    eventually("the new one is served", Duration::from_secs(10), || async {
        scene.get(path).await.text() == "new"
    })
    .await;
    assert!(scene.last(path).header("if-none-match").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_the_window_ends() {
    let paths = [
        "/max-age=1_stale-while-revalidate=1",
        "/max-age=1_stale-while-revalidate=60",
        "/max-age=1",
    ];
    let scene = warm(ROUTE, &paths).await;
    scene.until_stale();
    scene.answers(new);
    for (path, expected) in paths.into_iter().zip(["new", "old", "new"]) {
        let reply = scene.get(path).await;
        assert_eq!(
            (reply.text(), reply.cache() == "STALE"),
            (expected, expected == "old"),
            "{path}: {}",
            reply.cache_status()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_route_says_it_where_the_app_does_not() {
    let paths = [
        "/max-age=1",
        "/max-age=1_stale-while-revalidate=0",
        "/max-age=1_stale-while-revalidate=x",
    ];
    let scene = warm(&route("stale_while_revalidate = \"1m\""), &paths).await;
    scene.answers(new);
    for (path, expected) in paths.into_iter().zip(["old", "new", "new"]) {
        let reply = scene.get(path).await;
        assert_eq!(
            (reply.text(), reply.cache() == "STALE"),
            (expected, expected == "old"),
            "{path}: {}",
            reply.cache_status()
        );
    }
    // Zero turns the route's windows off; the origin's directives still apply.
    let paths = ["/max-age=1", "/max-age=1_stale-while-revalidate=60"];
    let scene = warm(&route("stale_while_revalidate = \"0s\""), &paths).await;
    scene.answers(new);
    for (path, expected) in paths.into_iter().zip(["new", "old"]) {
        assert_eq!(scene.get(path).await.text(), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_refresh_that_fails_is_nobodys_error() {
    let path = "/max-age=1_stale-while-revalidate=60";
    let scene = warm(ROUTE, &[path]).await;
    for failure in
        [|_: &Request| Response::status(500, "broken"), |_: &Request| Response::hang_up()]
    {
        scene.answers(failure);
        let before = scene.count(path);
        eventually("a refresh was tried", Duration::from_secs(10), || async {
            assert_stale(&scene.get(path).await, path);
            scene.count(path) > before
        })
        .await;
        assert_stale(&scene.get(path).await, "after the failure");
    }
    scene.answers(new);
    eventually("a later refresh succeeds", Duration::from_secs(10), || async {
        let reply = scene.get(path).await;
        assert_eq!(reply.status, 200);
        reply.text() == "new"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_purge_voids_it_and_the_refresh_under_way() {
    let path = "/max-age=1_stale-while-revalidate=60";
    let scene = warm(ROUTE, &[path]).await;
    scene.answers(
        |request| if request.method == "PUT" { Response::ok("written") } else { old(request) },
    );
    // The response to the refresh is from before the write.
    let hold = scene.hold("GET", path, Point::After);
    assert_stale(&scene.get(path).await, path);
    hold.arrived().await;
    assert_eq!(scene.send("PUT", path, &[], "x").await.text(), "written");
    scene.answers(new);
    hold.release();
    for _ in 0..5 {
        let reply = scene.get(path).await;
        assert_eq!((reply.status, reply.text()), (200, "new"), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_the_client_may_refuse_what_is_stale() {
    let path = "/max-age=1_stale-while-revalidate=60";
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "min-fresh=1"),
    ] {
        let scene = warm(ROUTE, &[path]).await;
        scene.answers(new);
        let reply = scene.ask(path, &[(name, value)]).await;
        assert_eq!(reply.text(), "new", "{value}: {}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_what_is_stale_stands_in_for_an_error() {
    let paths = ["/max-age=1_stale-if-error=60", "/max-age=1"];
    let scene = warm(ROUTE, &paths).await;
    for status in [500, 502, 503, 504] {
        scene.answers(move |_| Response::status(status, "broken"));
        let reply = scene.get(paths[0]).await;
        assert_stale(&reply, "stale-if-error");
        let said = cache_status(&reply);
        for expected in ["fwd=stale".to_owned(), format!("fwd-status={status}")] {
            assert!(said.contains(&expected), "{expected} in {said:?}");
        }
        let plain = scene.get(paths[1]).await;
        assert_eq!(
            (plain.status, plain.text()),
            (status, "broken"),
            "{}",
            plain.header("cache-status")
        );
    }
    for failure in [|_: &Request| Response::hang_up(), |_: &Request| Response::status(503, "")] {
        scene.answers(failure);
        assert_stale(&scene.get(paths[0]).await, "a broken connection, or no body");
    }
    scene.answers(new);
    assert_eq!(scene.get(paths[0]).await.text(), "new", "the app is asked each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_what_is_no_error_replaces_what_is_stale() {
    let path = "/max-age=1_stale-if-error=60";
    for status in [404, 410, 403] {
        let scene = warm(ROUTE, &[path]).await;
        scene.answers(move |_| Response::status(status, "gone"));
        for _ in 0..2 {
            let reply = scene.get(path).await;
            assert_eq!((reply.status, reply.text()), (status, "gone"), "{}", reply.cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_the_window_ends() {
    let paths = ["/max-age=1_stale-if-error=1", "/max-age=1_stale-if-error=60"];
    let scene = warm(ROUTE, &paths).await;
    scene.until_stale();
    scene.answers(|_| Response::status(503, "broken"));
    assert_eq!(scene.get(paths[0]).await.text(), "broken");
    assert_stale(&scene.get(paths[1]).await, paths[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_a_route_says_it_where_the_app_does_not() {
    let paths = ["/max-age=1", "/max-age=1_stale-if-error=0"];
    let scene = warm(&route("stale_if_error = \"10m\""), &paths).await;
    scene.answers(|_| Response::status(503, "broken"));
    assert_stale(&scene.get(paths[0]).await, paths[0]);
    let own = scene.get(paths[1]).await;
    assert_eq!((own.status, own.text()), (503, "broken"), "{}", own.header("cache-status"));
    // A window longer than limits.stale keeps the entry for as long as it says.
    let scene = warm(
        &format!("[limits]\nstale = \"100ms\"\n{}", route("stale_if_error = \"10m\"")),
        &paths[..1],
    )
    .await;
    scene.answers(|_| Response::status(503, "broken"));
    assert_stale(&scene.get(paths[0]).await, "limits.stale is shorter");
}

/// RFC 5861 4 defines the directive for requests too; here a request can only restrict what it is
/// served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_a_request_cannot_ask_for_what_is_stale() {
    let scene = warm(ROUTE, &["/max-age=1"]).await;
    scene.answers(|_| Response::status(503, "broken"));
    let reply =
        scene.ask("/max-age=1", &[("cache-control", "stale-if-error=3600, max-stale=3600")]).await;
    assert_eq!((reply.status, reply.text()), (503, "broken"), "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_a_route_that_ignores_the_origin_has_its_own_windows() {
    let rules = route("ttl = \"1s\"\norigin = \"ignore\"\nstale_while_revalidate = \"1m\"");
    let scene = warm(&rules, &["/no-cache_private"]).await;
    scene.answers(|_| Response::ok("new").header("cache-control", "no-cache, private"));
    assert_stale(&scene.get("/no-cache_private").await, "the app's no-cache does not count");
    eventually("the new one is served", Duration::from_secs(10), || async {
        scene.get("/no-cache_private").await.text() == "new"
    })
    .await;
}
