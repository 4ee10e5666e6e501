//! What the tests stand on: real processes, an origin that does as it is told, and a client.
//! Nothing here knows what is being tested.

pub mod abuse;
pub mod child;
pub mod client;
pub mod command;
pub mod demo;
pub mod departures;
pub mod exposition;
pub mod fault_proxy;
pub mod flow;
pub mod frail_app;
pub mod history;
pub mod http1;
pub mod issuer;
pub mod mariadb;
pub mod nginx;
pub mod origin;
pub mod patient_app;
pub mod postgres;
pub mod process;
pub mod raw_origin;
pub mod redis;
pub mod redis_cluster;
pub mod redis_kinds;
pub mod redis_node;
pub mod redis_sentinel;
pub mod running;
pub mod scene;
pub mod sidecar;
pub mod tls;
pub mod traffic;
pub mod upgrades;

pub use client::{Client, Crowd, Reply, Socket, WireClient};
pub use command::CommandLine;
pub use fault_proxy::{Fault, FaultProxy};
pub use mariadb::MariaDbServer;
pub use origin::{Origin, Point, Request, Response};
pub use postgres::PostgresServer;
pub use raw_origin::{Bodies, RawOrigin, RawRequest, RawResponse};
pub use redis::RedisServer;
pub use scene::Scene;
pub use sidecar::Sidecar;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits at least for what has to happen: a machine with much else to do is slow, and
/// nothing that is waited for is a promise about time. A test of such a promise compares what
/// [`eventually`] returns.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long a soak runs, which takes its seconds from a variable; zero where there is none.
pub fn soak_time() -> Duration {
    let seconds = std::env::var("SIDECACHE_SOAK").ok();
    let seconds = seconds.map(|text| text.parse().expect("SIDECACHE_SOAK is a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Asks again and again until `check` says yes, and returns how long that took. Panics when it has
/// not by `within`, or by [`PATIENCE`] if that is longer.
pub async fn eventually<F, Fut>(what: &str, within: Duration, mut check: F) -> Duration
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    let within = within.max(PATIENCE);
    loop {
        if check().await {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A metric of the sidecar with this admin listener, by its whole name.
pub async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let reply = Client::of_admin(admin).get("/metrics", &[]).await;
    let mut lines = reply.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.and_then(|number| number.split('.').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("there is no metric {name}"))
}

/// Returns when so many requests wait for the heads of fills.
pub async fn waiting(admin: SocketAddr, requests: u64) {
    eventually("they wait for a fill", Duration::from_secs(10), || async {
        metric(admin, "sidecache_fill_waiters").await == requests
    })
    .await;
}

/// Returns when so many requests in all have joined a fill that had a head.
pub async fn joined(admin: SocketAddr, requests: u64) {
    eventually("they read along", Duration::from_secs(10), || async {
        metric(admin, "sidecache_collapsed_total").await == requests
    })
    .await;
}
