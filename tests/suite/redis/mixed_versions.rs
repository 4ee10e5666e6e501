//! Sidecars of several protocols in one namespace. `tests/versions/run` does the same with programs
//! that were built of earlier commits; here the older one is what it would write to Redis.

use std::time::Duration;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, RedisServer, Sidecar, eventually, metric};

const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// What a sidecar of 0.1 does with each heartbeat.
fn older_heartbeat(redis: &RedisServer) {
    for command in [
        "HDEL {sidecache}:nodes -",
        "HSET {sidecache}:nodes 00000000000000fe.0 2000",
        r#"PUBLISH {sidecache}:bus "{\"say\":\"beat\",\"of\":254,\"number\":1,\"registered\":true}""#,
    ] {
        let answer = redis.command(command).expect("redis answers");
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    }
}

fn generation(redis: &RedisServer) -> String {
    redis.command("GET {sidecache}:gen").expect("redis answers")
}

async fn read(sidecar: &Sidecar, path: &str) -> (String, String) {
    let reply = Client::new(sidecar.address).get(path, &[]).await;
    (reply.cache().to_owned(), reply.text().to_owned())
}

async fn hits(sidecar: &Sidecar, path: &str) {
    eventually("there are hits", LONG_ENOUGH, async || read(sidecar, path).await.0 == "HIT").await;
}

/// Nothing is served while a sidecar of another protocol is there, each write purges
/// everything, and `/ready` says why. Before, a tag that it spells otherwise was not purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1347_nothing_is_cached_beside_a_sidecar_of_another_protocol() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let sidecars =
        [Sidecar::start(app.address, &rules).await, Sidecar::start(app.address, &rules).await];
    for sidecar in &sidecars {
        hits(sidecar, "/v/a").await;
    }
    older_heartbeat(&redis);
    for sidecar in &sidecars {
        eventually("it has noticed", LONG_ENOUGH, async || {
            metric(sidecar.admin, "sidecache_other_protocols_total").await == 1
        })
        .await;
        older_heartbeat(&redis);
        let ready = sidecar.admin_get("/ready").await;
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("speaks another protocol"), "{}", ready.text());
        let reply = Client::new(sidecar.address).get("/v/a", &[]).await;
        assert_eq!(reply.cache(), "BYPASS", "{}", reply.cache_status());
        assert!(reply.cache_status().contains("cache unavailable"), "{}", reply.cache_status());
        // A heartbeat of the older one changes the generation as well: so none comes in between.
        let before = generation(&redis);
        let mut client = Client::new(sidecar.address);
        assert_eq!(client.send("PUT", "/w/other", &[], "").await.status, 200);
        assert_ne!(generation(&redis), before, "the older one gave its entries other tags");
    }
    // The older one ends without a word: it is evicted, and all is as before.
    for sidecar in &sidecars {
        hits(sidecar, "/v/a").await;
    }
}

/// What was stored before another version worked alone for a while is not served after it:
/// its purges may have missed these entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1348_entries_from_before_another_version_worked_are_misses() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let rules = format!("{}[memory]\nsize = \"0\"\n{VERSIONED_RULES}", redis.table());
    for is_older_there in [false, true] {
        let mut before = Sidecar::start(app.address, &rules).await;
        hits(&before, "/v/a").await;
        before.stop().await;
        if is_older_there {
            older_heartbeat(&redis);
            redis.command("HDEL {sidecache}:nodes 00000000000000fe.0").expect("redis answers");
            // A purge of `V:a`, which is no tag of the entry.
            redis.command("INCR {sidecache}:seq").expect("redis answers");
        }
        let mut after = Sidecar::start(app.address, &rules).await;
        let expected = if is_older_there { "MISS" } else { "HIT" };
        let first = read(&after, "/v/a").await;
        assert_eq!(first.0, expected, "an older one was there: {is_older_there}");
        hits(&after, "/v/a").await;
        after.stop().await;
    }
}
