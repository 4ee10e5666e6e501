//! The same rules if entries are stored in Redis only.

use super::PUBLIC;
use crate::support::scene::assert_cache;
use crate::support::{RedisServer, Response, Scene, eventually};
use std::time::Duration;

/// A sidecar without a memory tier, whose Redis is trusted.
async fn scene(redis: &RedisServer) -> Scene {
    let rules = format!(
        "[memory]\nsize = \"0\"\n{}\n{PUBLIC}stale_while_revalidate = \"1m\"\n",
        redis.table()
    );
    let scene =
        Scene::start(&rules, |_| Response::ok("probe").header("cache-control", "max-age=60")).await;
    eventually("Redis holds what was stored", Duration::from_secs(10), || async {
        scene.get("/probe").await.cache() == "HIT"
    })
    .await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_an_entry_in_redis_is_confirmed_and_fresh_again() {
    let redis = RedisServer::start();
    let scene = scene(&redis).await;
    scene.answers(|request| match request.header("if-none-match") {
        Some(_) => Response::status(304, "")
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=60")
            .header("x-new", "1"),
        None => Response::ok("data").header("etag", "\"1\"").header("cache-control", "no-cache"),
    });
    scene.fill("/a").await;
    let confirmed = scene.get("/a").await;
    assert_cache(&confirmed, "REVALIDATED", "from Redis");
    assert_eq!((confirmed.text(), confirmed.header("x-new")), ("data", "1"));
    let hit = scene.get("/a").await;
    assert_cache(&hit, "HIT", "what the 304 updated is stored");
    assert_eq!((hit.text(), hit.header("x-new")), ("data", "1"));
    assert!(hit.header("cache-status").ends_with("detail=redis"), "{}", hit.header("cache-status"));
    assert_eq!(scene.count("/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_4_an_entry_in_redis_outlives_its_freshness() {
    let redis = RedisServer::start();
    let scene = scene(&redis).await;
    scene.answers(|request| match request.path.as_str() {
        "/refreshed" if request.header("if-none-match").is_some() => {
            Response::ok("new").header("cache-control", "max-age=60")
        }
        "/refreshed" => {
            Response::ok("old").header("etag", "\"1\"").header("cache-control", "max-age=1")
        }
        _ => Response::ok("old")
            .header("etag", "\"1\"")
            .header("cache-control", "max-age=1, stale-while-revalidate=0"),
    });
    for path in ["/refreshed", "/kept", "/purged"] {
        scene.fill(path).await;
    }
    scene.until_stale();
    let stale = scene.get("/refreshed").await;
    assert_cache(&stale, "STALE", "while it is fetched anew");
    assert_eq!(stale.text(), "old");
    eventually("the refresh has reached Redis", Duration::from_secs(10), || async {
        let reply = scene.get("/refreshed").await;
        reply.cache() == "HIT" && reply.text() == "new"
    })
    .await;
    scene.send("PUT", "/purged", &[], "x").await;
    scene.origin_goes_away().await;
    let kept = scene.get("/kept").await;
    assert_cache(&kept, "STALE", "the app is gone");
    assert_eq!(kept.text(), "old");
    let purged = scene.get("/purged").await;
    assert!(
        (502..=504).contains(&purged.status),
        "{} {}",
        purged.status,
        purged.header("cache-status")
    );
}
