//! A stored response is served for its ttl and no longer, from either tier.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::{Answer, Client, RedisServer, Sidecar, TestApp};

const TTL: Duration = Duration::from_secs(2);
const ROUTE: &str = "[[routes]]\npath = \"/v/{name}\"\nttl = \"2s\"\nscope = \"public\"\n";

/// Asks at once, again, and after the ttl.
async fn expires_after_its_ttl(app: &TestApp, sidecar: &Sidecar) {
    let mut client = Client::new(sidecar.address);
    let first = client.get("/v/a", &[]).await;
    let stored = Instant::now();
    assert_eq!(first.cache(), "MISS");
    let again = client.get("/v/a", &[]).await;
    // On a machine so slow that the ttl is over already, this says nothing.
    assert!(again.cache() == "HIT" || stored.elapsed() > TTL, "{}", again.header("cache-status"));
    sleep(TTL.saturating_sub(stored.elapsed()) + Duration::from_millis(300)).await;
    let late = client.get("/v/a", &[]).await;
    assert_eq!(late.cache(), "MISS", "{}", late.header("cache-status"));
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT", "stored anew");
    assert_eq!(app.count("GET", "/v/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_memory() {
    let app = TestApp::start(|_| Answer::ok("here")).await;
    let sidecar = Sidecar::start(app.address, ROUTE).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_redis() {
    let redis = RedisServer::start();
    let app = TestApp::start(|_| Answer::ok("here")).await;
    let rules = format!("[memory]\nsize = \"0\"\n{}\n{ROUTE}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    expires_after_its_ttl(&app, &sidecar).await;
    // Redis itself forgets the entry soon after `limits.stale` (10 minutes): nothing is stored without an expiry.
    let keys = redis.command("KEYS sidecache:e:*").expect("Redis answers");
    for key in keys.lines().filter(|line| line.starts_with("sidecache:e:")) {
        let answer = redis.command(&format!("PTTL {key}")).expect("Redis answers");
        let left: i64 = answer.trim().trim_start_matches(':').parse().expect("PTTL answers a number");
        assert!(left == -2 || (0..=660_000).contains(&left), "{key} lives for another {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_with_both_tiers() {
    let redis = RedisServer::start();
    let app = TestApp::start(|_| Answer::ok("here")).await;
    let sidecar = Sidecar::start(app.address, &format!("{}\n{ROUTE}", redis.table())).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_age_of_the_app_wins_over_the_routes_ttl() {
    let app = TestApp::start(|_| Answer::ok("here").header("cache-control", "max-age=2")).await;
    let sidecar = Sidecar::start(app.address, &ROUTE.replace("2s", "5m")).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_of_the_route_wins_where_the_origin_is_ignored() {
    let app = TestApp::start(|_| Answer::ok("here").header("cache-control", "no-cache, private")).await;
    let respected = Sidecar::start(app.address, ROUTE).await;
    let mut client = Client::new(respected.address);
    for _ in 0..2 {
        assert_ne!(client.get("/v/b", &[]).await.cache(), "HIT", "the app's word counts");
    }
    let ignored = Sidecar::start(app.address, &ROUTE.replace("ttl", "origin = \"ignore\"\nttl")).await;
    expires_after_its_ttl(&app, &ignored).await;
}
