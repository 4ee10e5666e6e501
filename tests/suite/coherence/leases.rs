//! Leases: what a hit and a purge cost while several sidecars share a Redis.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, RedisServer, Response, Sidecar, eventually, metric};

const LONG_ENOUGH: Duration = Duration::from_secs(10);
/// How long a lease is.
const LEASE: Duration = Duration::from_secs(2);

/// Sidecars that share this Redis, each with a lease, each knowing of the others.
async fn leased(redis: &RedisServer, app: &Origin, many: u64, more: &str) -> Vec<Sidecar> {
    let rules = format!("{}{more}{VERSIONED_RULES}", redis.table());
    let mut sidecars = Vec::new();
    for _ in 0..many {
        sidecars.push(Sidecar::spawn(app.address, &rules).await);
    }
    for sidecar in &sidecars {
        eventually("it holds a lease and knows the others", LONG_ENOUGH, async || {
            metric(sidecar.admin, "sidecache_lease_held").await == 1
                && metric(sidecar.admin, "sidecache_peers").await == many - 1
        })
        .await;
    }
    sidecars
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_under_a_lease_asks_redis_for_nothing() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let sidecars = leased(&redis, &app, 1, "").await;
    let mut client = Client::new(sidecars[0].address);
    eventually("there are hits", LONG_ENOUGH, async || {
        Client::new(sidecars[0].address).get("/v/a", &[]).await.cache() == "HIT"
    })
    .await;
    let calls = async || {
        let idle = metric(sidecars[0].admin, "sidecache_redis_heartbeats_total").await;
        metric(sidecars[0].admin, "sidecache_redis_calls_total").await - idle
    };
    let (before, start) = (calls().await, Instant::now());
    for _ in 0..2_000 {
        assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
    }
    let (grown, took) = (calls().await - before, start.elapsed());
    // The ear's two words to itself in a second, and one more at the edge.
    assert!(grown <= 2 * (took.as_secs() + 1) + 1, "{grown} calls for 2,000 hits in {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_of_a_variant_under_a_lease_asks_redis_for_nothing() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("text").header("vary", "x-flavour"));
    let sidecars = leased(&redis, &app, 1, "").await;
    let mut client = Client::new(sidecars[0].address);
    let sweet = [("x-flavour", "sweet")];
    for _ in 0..2 {
        client.get("/v/a", &sweet).await;
    }
    assert_eq!(client.get("/v/a", &sweet).await.cache(), "HIT");
    let before = metric(sidecars[0].admin, "sidecache_redis_calls_total").await;
    let start = Instant::now();
    for _ in 0..500 {
        assert_eq!(client.get("/v/a", &sweet).await.cache(), "HIT");
    }
    let grown = metric(sidecars[0].admin, "sidecache_redis_calls_total").await - before;
    assert!(grown < 500 / 4 + 10 * (start.elapsed().as_secs() + 1), "{grown} calls for 500 hits");
}

/// Writes one after another. How long they take is measured by `benches/figures.rs`.
async fn write(sidecars: &[Sidecar], times: usize) {
    let mut client = Client::new(sidecars[0].address);
    for _ in 0..times {
        assert_eq!(client.send("PUT", "/w/a", &[], "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_purge_is_acknowledged_by_three_sidecars_and_waits_for_no_lease() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let sidecars = leased(&redis, &app, 3, "").await;
    write(&sidecars, 100).await;
    assert!(metric(sidecars[0].admin, "sidecache_purges_acknowledged_total").await >= 100);
    assert_eq!(
        metric(sidecars[0].admin, "sidecache_purges_released_by_lease_expiry_total").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_guarded_write_waits_for_the_others_twice_and_no_longer() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let sidecars = leased(&redis, &app, 3, "writes = \"refuse\"\n").await;
    write(&sidecars, 100).await;
    // Once for the mark, once for the purge; never until a lease is over.
    assert!(metric(sidecars[0].admin, "sidecache_purges_acknowledged_total").await >= 200);
    assert_eq!(
        metric(sidecars[0].admin, "sidecache_purges_released_by_lease_expiry_total").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_write_right_after_the_start_waits_for_nobody_in_vain() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let rules = format!("{}writes = \"refuse\"\n{VERSIONED_RULES}", redis.table());
    let mut sidecars = Vec::new();
    for _ in 0..3 {
        sidecars.push(Sidecar::spawn(app.address, &rules).await);
    }
    for round in 0..20 {
        for (number, sidecar) in sidecars.iter().enumerate() {
            let start = Instant::now();
            let reply = Client::new(sidecar.address).send("PUT", "/w/a", &[], "").await;
            let took = start.elapsed();
            println!("round {round}, sidecar {number}: {} after {took:?}", reply.status);
            // Whoever waits in vain does so until a lease is over, which takes two seconds.
            assert!(reply.status == 200 && took < LEASE, "{} after {took:?}", reply.status);
        }
    }
}
