//! A stored response is served for its ttl and no longer, from either tier.

use std::time::Duration;

use sidecache::app::Clock;

use crate::support::{Client, Origin, RedisServer, Response, Sidecar};

const TTL: Duration = Duration::from_mins(1);
const ROUTE: &str = "[[routes]]\npath = \"/v/{name}\"\nttl = \"1m\"\nscope = \"public\"\n";

/// A sidecar in front of this origin, both by one clock.
async fn sidecar(origin: &Origin, rules: &str) -> (Sidecar, Clock) {
    let clock = Clock::manual();
    origin.follow(&clock);
    (Sidecar::start_at(clock.clone(), origin.address, rules).await, clock)
}

/// Requests at once, again, shortly before the end of the ttl, and after it.
async fn expires_after_its_ttl(origin: &Origin, (sidecar, clock): &(Sidecar, Clock)) {
    let mut client = Client::new(sidecar.address);
    let first = client.get("/v/a", &[]).await;
    assert_eq!(first.cache(), "MISS");
    for _ in 0..2 {
        let again = client.get("/v/a", &[]).await;
        assert_eq!(again.cache(), "HIT", "{}", again.cache_status());
        clock.advance(TTL / 3);
    }
    clock.advance(TTL / 3 + Duration::from_secs(1));
    let late = client.get("/v/a", &[]).await;
    assert_eq!(late.cache(), "MISS", "{}", late.cache_status());
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT", "stored anew");
    assert_eq!(origin.count("GET", "/v/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_memory() {
    let app = Origin::start(|_| Response::ok("here"));
    let sidecar = sidecar(&app, ROUTE).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_redis() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("here"));
    let rules = format!("[memory]\nsize = \"0\"\n{}\n{ROUTE}", redis.table());
    let sidecar = sidecar(&app, &rules).await;
    expires_after_its_ttl(&app, &sidecar).await;
    // Redis itself drops the entry soon after `limits.stale` (10 minutes): nothing is stored
    // without an expiry.
    let keys = redis.command("KEYS sidecache:e:*").expect("Redis answers");
    for key in keys.lines().filter(|line| line.starts_with("sidecache:e:")) {
        let answer = redis.command(&format!("PTTL {key}")).expect("Redis answers");
        let left: i64 =
            answer.trim().trim_start_matches(':').parse().expect("PTTL answers a number");
        assert!(left == -2 || (0..=660_000).contains(&left), "{key} lives for another {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_with_both_tiers() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("here"));
    let sidecar = sidecar(&app, &format!("{}\n{ROUTE}", redis.table())).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_age_of_the_app_wins_over_the_routes_ttl() {
    let app = Origin::start(|_| Response::ok("here").header("cache-control", "max-age=60"));
    let sidecar = sidecar(&app, &ROUTE.replace("1m", "5m")).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_of_the_route_wins_where_the_origin_is_ignored() {
    let app = Origin::start(|_| Response::ok("here").header("cache-control", "no-cache, private"));
    let respected = Sidecar::start(app.address, ROUTE).await;
    let mut client = Client::new(respected.address);
    for _ in 0..2 {
        assert_ne!(client.get("/v/b", &[]).await.cache(), "HIT", "the app's word counts");
    }
    let ignored = sidecar(&app, &ROUTE.replace("ttl", "origin = \"ignore\"\nttl")).await;
    expires_after_its_ttl(&app, &ignored).await;
}
