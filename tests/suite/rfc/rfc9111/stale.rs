//! Section 4.2.4: when stale responses may be served, and when not.

use super::{PUBLIC, public};
use crate::support::scene::{assert_cache, cache_status, ttl};
use crate::support::{Reply, Response, Scene};

/// Responds by path: `/max-age=1, must-revalidate` has that `Cache-Control`, and a validator.
fn by_path(request: &crate::support::origin::Request) -> Response {
    let control = request.path[1..].replace('_', ", ");
    Response::ok("old").header("etag", "\"1\"").header("cache-control", &control)
}

fn assert_failed(reply: &Reply, case: &str) {
    assert!(
        (502..=504).contains(&reply.status),
        "{case}: {} {}",
        reply.status,
        reply.cache_status()
    );
    assert_ne!(reply.text(), "old", "{case}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_a_stale_entry_beats_a_502_when_the_app_cannot_be_reached() {
    let scene = Scene::start(PUBLIC, by_path).await;
    let paths = ["/max-age=1", "/max-age=1_public"];
    for path in paths {
        scene.fill(path).await;
    }
    scene.until_stale();
    scene.origin_goes_away().await;
    for path in paths {
        for _ in 0..2 {
            let reply = scene.get(path).await;
            assert_cache(&reply, "STALE", path);
            assert_eq!((reply.status, reply.text()), (200, "old"));
            let status = cache_status(&reply);
            assert!(status.iter().any(|parameter| parameter == "fwd=stale"), "{status:?}");
            assert!(
                status.iter().any(|parameter| parameter == "detail=\"upstream unreachable\""),
                "{status:?}"
            );
            assert!(
                !status.iter().any(|parameter| parameter == "hit"),
                "RFC 9211 2.2: it was not a hit: {status:?}"
            );
            assert!(ttl(&reply) <= 0, "{status:?}");
            assert!(
                reply.header("age").parse::<u64>().is_ok_and(|age| age >= 1),
                "{}",
                reply.header("age")
            );
        }
        let head = scene.send("HEAD", path, &[], "").await;
        assert_eq!(
            (head.status, head.text(), head.header("etag")),
            (200, "", "\"1\""),
            "{}",
            head.header("cache-status")
        );
        let conditional = scene.ask(path, &[("if-none-match", "\"1\"")]).await;
        assert_eq!(conditional.status, 304, "{}", conditional.header("cache-status"));
    }
    assert_failed(&scene.get("/never-asked").await, "nothing is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_a_connection_that_breaks_is_an_app_that_cannot_be_reached() {
    let scene = Scene::start(PUBLIC, by_path).await;
    scene.fill("/max-age=1").await;
    scene.until_stale();
    scene.answers(|_| Response::hang_up());
    let reply = scene.get("/max-age=1").await;
    assert_cache(&reply, "STALE", "the app hangs up");
    assert_eq!((reply.status, reply.text()), (200, "old"));
    scene.answers(|_| Response::ok("new"));
    assert_eq!(scene.get("/max-age=1").await.text(), "new", "it is asked again each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_directives_that_forbid_stale_are_obeyed() {
    let rules = public("stale_while_revalidate = \"1m\"\nstale_if_error = \"1m\"");
    let forbidding = [
        "/max-age=1_must-revalidate",
        "/max-age=1_proxy-revalidate",
        "/s-maxage=1",
        "/max-age=1_no-cache",
        "/no-cache",
        "/max-age=1_must-revalidate_stale-while-revalidate=60_stale-if-error=60",
        "/max-age=1_proxy-revalidate_stale-while-revalidate=60_stale-if-error=60",
        "/s-maxage=1_stale-while-revalidate=60_stale-if-error=60",
        "/no-cache_stale-while-revalidate=60_stale-if-error=60",
    ];
    for rules in [PUBLIC, &*rules] {
        let scene = Scene::start(rules, by_path).await;
        for path in forbidding.iter().chain(&["/max-age=1"]) {
            scene.fill(path).await;
        }
        scene.until_stale();
        scene.answers(|_| Response::status(503, "broken"));
        for path in forbidding {
            let reply = scene.get(path).await;
            assert_eq!(
                (reply.status, reply.text()),
                (503, "broken"),
                "{path}: {}",
                reply.cache_status()
            );
        }
        scene.origin_goes_away().await;
        for path in forbidding {
            assert_failed(&scene.get(path).await, path);
        }
        assert_cache(&scene.get("/max-age=1").await, "STALE", "the oracle works");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_an_error_of_the_app_is_not_hidden_without_leave() {
    let scene = Scene::start(PUBLIC, by_path).await;
    scene.fill("/max-age=0").await;
    for status in [500, 502, 503, 504] {
        scene.answers(move |_| Response::status(status, "broken"));
        let reply = scene.get("/max-age=0").await;
        assert_eq!((reply.status, reply.text()), (status, "broken"), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_a_stale_entry_is_kept_for_a_limited_time() {
    let kept = Scene::start(&format!("[limits]\nstale = \"10m\"\n{PUBLIC}"), by_path).await;
    let dropped = Scene::start(&format!("[limits]\nstale = \"500ms\"\n{PUBLIC}"), by_path).await;
    for scene in [&kept, &dropped] {
        scene.fill("/max-age=1").await;
    }
    for scene in [&kept, &dropped] {
        scene.until_stale();
        scene.until_stale();
        scene.origin_goes_away().await;
    }
    assert_cache(&kept.get("/max-age=1").await, "STALE", "the oracle works");
    assert_failed(&dropped.get("/max-age=1").await, "past limits.stale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_a_purge_voids_what_is_stale() {
    let rules = public(
        "stale_while_revalidate = \"1m\"\nstale_if_error = \"1m\"\ntags = \
        [\"all\"]\n[[purges]]\npath = \"/purge\"\ntags = [\"all\"]",
    );
    let paths =
        ["/max-age=1", "/max-age=1_stale-while-revalidate=60", "/max-age=1_stale-if-error=60"];
    // By the tag, and by the URI itself.
    for by_tag in [true, false] {
        let scene = Scene::start(&rules, by_path).await;
        for path in paths {
            scene.fill(path).await;
        }
        scene.until_stale();
        scene.answers(|request| {
            if request.method == "PUT" {
                Response::ok("written")
            } else {
                Response::status(503, "broken")
            }
        });
        for path in paths {
            let target = if by_tag { "/purge" } else { path };
            assert_eq!(scene.send("PUT", target, &[], "x").await.text(), "written");
        }
        for path in paths {
            let reply = scene.get(path).await;
            assert_eq!(
                (reply.status, reply.text()),
                (503, "broken"),
                "{path}: {}",
                reply.cache_status()
            );
            assert!(
                scene.last(path).header("if-none-match").is_none(),
                "{path}: what was purged is not confirmed"
            );
        }
        scene.origin_goes_away().await;
        for path in paths {
            assert_failed(&scene.get(path).await, path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_what_is_stale_is_still_one_callers_own() {
    let scene = Scene::start("[[routes]]\npath = \"/{*rest}\"\n", |request| {
        Response::ok(request.header("authorization").unwrap_or_default())
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=1")
    })
    .await;
    let callers = ["Bearer alice", "Bearer bob"];
    for who in callers {
        assert_cache(&scene.ask("/a", &[("authorization", who)]).await, "MISS", who);
    }
    scene.until_stale();
    scene.origin_goes_away().await;
    for who in callers {
        let reply = scene.ask("/a", &[("authorization", who)]).await;
        assert_cache(&reply, "STALE", who);
        assert_eq!(reply.text(), who);
    }
    assert_failed(&scene.ask("/a", &[("authorization", "Bearer carol")]).await, "carol");
    assert_failed(&scene.get("/a").await, "nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_a_stale_shared_entry_is_for_the_admitted_alone() {
    let rules =
        "[[routes]]\npath = \"/{*rest}\"\nscope = \"shared\"\nttl = \"1s\"\nadmit_for = \"1m\"\n";
    let scene = Scene::start(rules, |_| Response::ok("old").header("etag", "\"1\"")).await;
    assert_cache(&scene.ask("/a", &[("authorization", "Bearer alice")]).await, "MISS", "alice");
    scene.until_stale();
    scene.origin_goes_away().await;
    let admitted = scene.ask("/a", &[("authorization", "Bearer alice")]).await;
    assert_cache(&admitted, "STALE", "alice");
    assert_failed(&scene.ask("/a", &[("authorization", "Bearer mallory")]).await, "mallory");
}
