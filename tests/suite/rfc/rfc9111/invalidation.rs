//! Section 4.4: what a write invalidates.

use super::PUBLIC;
use crate::support::client::exchange;
use crate::support::scene::assert_cache;
use crate::support::{Response, Scene};

/// Reads are fresh for a minute; the response to a write has the status and the fields that the
/// request's headers name.
async fn scene() -> Scene {
    Scene::start(PUBLIC, |request| {
        if ["GET", "HEAD", "OPTIONS"].contains(&request.method.as_str()) {
            return Response::ok("data").header("cache-control", "max-age=60");
        }
        let status =
            request.header("x-status").map_or(200, |status| status.parse().expect("a status"));
        ["location", "content-location"].into_iter().fold(
            Response::status(status, ""),
            |answer, name| match request.header(&format!("x-{name}")) {
                Some(value) => answer.header(name, &value),
                None => answer,
            },
        )
    })
    .await
}

async fn warm(scene: &Scene, path: &str) {
    scene.get(path).await;
    assert_cache(&scene.get(path).await, "HIT", path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_4_every_unsafe_method_invalidates_its_target() {
    let scene = scene().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROBNICATE"] {
        for status in ["200", "201", "204", "303"] {
            warm(&scene, "/a").await;
            warm(&scene, "/b").await;
            scene.send(method, "/a", &[("x-status", status)], "").await;
            assert_cache(&scene.get("/a").await, "MISS", &format!("{method} {status}"));
            assert_cache(
                &scene.get("/b").await,
                "HIT",
                &format!("{method} {status}: what was not written to"),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_4_safe_methods_and_refusals_invalidate_nothing() {
    let scene = scene().await;
    warm(&scene, "/a").await;
    for method in ["OPTIONS", "HEAD", "GET"] {
        scene.send(method, "/a", &[], "").await;
        assert_cache(&scene.get("/a").await, "HIT", method);
    }
    for status in ["400", "401", "403", "404", "409", "422", "429"] {
        scene.send("POST", "/a", &[("x-status", status)], "x").await;
        assert_cache(&scene.get("/a").await, "HIT", status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_4_what_location_and_content_location_name_is_invalidated() {
    let scene = scene().await;
    for field in ["x-location", "x-content-location"] {
        for named in [
            "/named",
            "http://app.test/named",
            "named",
            "//app.test/named",
            "./named",
            "/x/../named",
        ] {
            warm(&scene, "/named").await;
            warm(&scene, "/other").await;
            scene.send("POST", "/target", &[(field, named)], "x").await;
            assert_cache(&scene.get("/named").await, "MISS", &format!("{field} {named}"));
            assert_cache(&scene.get("/other").await, "HIT", &format!("{field} {named}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_4_nobody_can_invalidate_another_origin() {
    let scene = scene().await;
    // Two hosts behind one sidecar.
    let other = b"GET /named HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    exchange(scene.sidecar.address, other).await;
    warm(&scene, "/named").await;
    for field in ["x-location", "x-content-location"] {
        for named in ["http://other.test/named", "//other.test/named"] {
            scene.send("POST", "/target", &[(field, named)], "x").await;
            assert_cache(&scene.get("/named").await, "HIT", &format!("{field} {named}: here"));
            let answer =
                String::from_utf8(exchange(scene.sidecar.address, other).await).expect("text");
            assert!(answer.contains("x-cache: HIT"), "{field} {named}: there: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_4_an_unknown_outcome_invalidates() {
    let scene = scene().await;
    for status in ["500", "502", "503"] {
        warm(&scene, "/a").await;
        scene.send("POST", "/a", &[("x-status", status)], "x").await;
        assert_cache(&scene.get("/a").await, "MISS", status);
    }
}
