//! RFC 9875: groups of responses, and their invalidation.

use std::time::Duration;

use crate::support::client::exchange;
use crate::support::scene::assert_cache;
use crate::support::{Client, Origin, RedisServer, Request, Response, Scene, Sidecar, eventually};

const ROUTE: &str = "[[routes]]\npath = \"/r/{*rest}\"\nscope = \"public\"\n";

/// A GET of `/r/NAME` is in the groups that its query names; the response to a write has the fields
/// that the write's header names.
fn app(request: &Request) -> Response {
    if request.method == "GET" {
        let groups = request.query.as_deref().unwrap_or_default();
        let groups: Vec<_> = groups
            .split('+')
            .filter(|group| !group.is_empty())
            .map(|group| format!("\"{group}\""))
            .collect();
        let answer =
            Response::ok("data").header("cache-control", "max-age=60").header("etag", "\"1\"");
        return if groups.is_empty() {
            answer
        } else {
            answer.header("cache-groups", &groups.join(", "))
        };
    }
    let status = request.header("x-status").map_or(200, |status| status.parse().expect("a status"));
    match request.header("x-invalidate") {
        Some(groups) => Response::status(status, "").header("cache-group-invalidation", &groups),
        None => Response::status(status, ""),
    }
}

async fn warm(scene: &Scene, paths: &[&str]) {
    for path in paths {
        scene.get(path).await;
        assert_cache(&scene.get(path).await, "HIT", path);
    }
}

async fn write(scene: &Scene, invalidate: &str) {
    assert_eq!(scene.send("POST", "/w", &[("x-invalidate", invalidate)], "x").await.status, 200);
}

const ALL: [&str; 5] = ["/r/1?a", "/r/2?a+b", "/r/3?b", "/r/4?A", "/r/5"];

async fn assert_gone(scene: &Scene, gone: &[&str], case: &str) {
    for path in ALL {
        let reply = scene.get(path).await;
        assert_eq!(
            reply.cache() == "HIT",
            !gone.contains(&path),
            "{case}, {path}: {}",
            reply.cache_status()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_write_invalidates_the_groups_that_its_answer_names() {
    let scene = Scene::start(ROUTE, app).await;
    let cases: [(&str, &[&str]); 6] = [
        ("\"a\"", &["/r/1?a", "/r/2?a+b"]),
        ("\"b\"", &["/r/2?a+b", "/r/3?b"]),
        ("\"A\"", &["/r/4?A"]),
        ("\"a\", \"b\"", &["/r/1?a", "/r/2?a+b", "/r/3?b"]),
        ("\"a\";future=1", &["/r/1?a", "/r/2?a+b"]),
        ("\"nobody\"", &[]),
    ];
    for (invalidate, gone) in cases {
        warm(&scene, &ALL).await;
        write(&scene, invalidate).await;
        assert_gone(&scene, gone, invalidate).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_the_field_stays_in_the_response() {
    let scene = Scene::start(ROUTE, app).await;
    for _ in 0..2 {
        assert_eq!(scene.get("/r/2?a+b").await.header("cache-groups"), "\"a\", \"b\"");
    }
    let write = scene.send("POST", "/w", &[("x-invalidate", "\"a\"")], "x").await;
    assert_eq!(write.header("cache-group-invalidation"), "\"a\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_field_that_is_no_list_of_strings_is_ignored() {
    let scene = Scene::start(ROUTE, app).await;
    warm(&scene, &ALL).await;
    for invalidate in ["a", "\"a", "\"a\" \"b\"", "\"a\",", "1", "?1", "(\"a\")", ":YQ==:", ""] {
        write(&scene, invalidate).await;
        assert_gone(&scene, &[], invalidate).await;
    }
    // The same for the field by which a response joins a group.
    for (index, groups) in ["a", "\"a\", b", "\"a", "(\"a\")"].into_iter().enumerate() {
        scene.answers(move |request| {
            if request.method == "GET" {
                Response::ok("data")
                    .header("cache-control", "max-age=60")
                    .header("cache-groups", groups)
            } else {
                app(request)
            }
        });
        let path = format!("/r/odd{index}");
        warm(&scene, &[&path]).await;
        write(&scene, "\"a\"").await;
        assert_cache(&scene.get(&path).await, "HIT", groups);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_only_the_answer_to_an_unsafe_method_invalidates() {
    let scene = Scene::start(
        &format!("{ROUTE}[[routes]]\npath = \"/plain\"\nscope = \"public\"\n"),
        |request| {
            if request.path.starts_with("/r/") {
                app(request)
            } else {
                Response::ok("plain").header("cache-group-invalidation", "\"a\"")
            }
        },
    )
    .await;
    warm(&scene, &ALL).await;
    for (method, path) in
        [("GET", "/plain"), ("GET", "/no-route"), ("HEAD", "/plain"), ("OPTIONS", "/plain")]
    {
        scene.send(method, path, &[], "").await;
        assert_gone(&scene, &[], &format!("{method} {path}")).await;
    }
    scene.send("DELETE", "/no-route", &[], "").await;
    assert_gone(&scene, &["/r/1?a", "/r/2?a+b"], "DELETE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_groups_are_of_one_origin() {
    let scene = Scene::start(ROUTE, app).await;
    let get = b"GET /r/1?a HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let other =
        async || String::from_utf8(exchange(scene.sidecar.address, get).await).expect("text");
    other().await;
    assert!(other().await.contains("x-cache: HIT"));
    warm(&scene, &["/r/1?a"]).await;
    write(&scene, "\"a\"").await;
    assert_cache(&scene.get("/r/1?a").await, "MISS", "here");
    assert!(other().await.contains("x-cache: HIT"), "another origin's group of the same name");
}

/// A group is not one of the operator's tags: its name purges neither a route's tag nor a
/// `Surrogate-Key`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_groups_are_no_other_tags() {
    let scene =
        Scene::start(&format!("{ROUTE}tags = [\"a\"]\n"), |request| match request.path.as_str() {
            "/r/keyed" => Response::ok("data")
                .header("cache-control", "max-age=60")
                .header("surrogate-key", "a"),
            _ => app(request),
        })
        .await;
    warm(&scene, &["/r/keyed", "/r/5"]).await;
    write(&scene, "\"a\"").await;
    for path in ["/r/keyed", "/r/5"] {
        assert_cache(&scene.get(path).await, "HIT", path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_an_invalidated_response_is_not_served_stale_either() {
    let rules = format!("{ROUTE}stale_while_revalidate = \"1m\"\nstale_if_error = \"1m\"\n");
    let scene = Scene::start(&rules, |request| {
        let answer = app(request);
        if request.method == "GET" {
            Response::ok("old")
                .header("cache-groups", "\"a\"")
                .header("etag", "\"1\"")
                .header("cache-control", "max-age=0")
        } else {
            answer
        }
    })
    .await;
    scene.fill("/r/1").await;
    scene.answers(|request| {
        if request.method == "GET" { Response::status(503, "broken") } else { app(request) }
    });
    assert_eq!(scene.get("/r/1").await.text(), "old", "the oracle works");
    write(&scene, "\"a\"").await;
    let reply = scene.get("/r/1").await;
    assert_eq!((reply.status, reply.text()), (503, "broken"), "{}", reply.cache_status());
    scene.origin_goes_away().await;
    assert_eq!(scene.get("/r/1").await.status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_groups_reach_every_sidecar_of_one_redis() {
    let redis = RedisServer::start();
    let app = Origin::start(app);
    let rules = format!("{}\n{ROUTE}", redis.table());
    let first = Sidecar::start(app.address, &rules).await;
    let second = Sidecar::start(app.address, &rules).await;
    for sidecar in [&first, &second] {
        eventually("the cache holds it", Duration::from_secs(10), || async {
            Client::new(sidecar.address).get("/r/1?a", &[]).await.cache() == "HIT"
        })
        .await;
    }
    assert_eq!(
        Client::new(first.address)
            .send("POST", "/w", &[("x-invalidate", "\"a\"")], "x")
            .await
            .status,
        200
    );
    let other = Client::new(second.address).get("/r/1?a", &[]).await;
    assert_cache(&other, "MISS", "through the other");
}
