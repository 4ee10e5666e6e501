//! Redis killed, frozen, refusing, restarted, with 200 clients at work: requests go on, each in its
//! time, and hits come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, RedisServer, Response, Sidecar, eventually};

const CLIENTS: u64 = 200;
/// How long the app takes for each answer.
const APP: Duration = Duration::from_millis(50);
/// What the sidecar may add to it, whatever Redis does: its deadline is a tenth of a second at
/// most. A request that misses it waits for TCP or for Redis itself, which takes many times as
/// long.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// When the lease of another sidecar is over for sure: 2 s, and what clocks may differ by.
const LEASE: Duration = Duration::from_millis(2050);
/// When silence counts as a loss: `loss_after`, and a deadline before it.
const SILENCE: Duration = Duration::from_millis(1100);
/// Within two seconds of Redis's return there are hits again on a quiet machine. Later than this
/// they wait for something that does not come.
const RETURN: Duration = Duration::from_secs(5);
/// Clients are at work when they have sent so many more requests: some seconds' worth, three of
/// each.
const AT_WORK: u64 = 3 * CLIENTS;

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    requests: u64,
    failures: Vec<String>,
    slowest: Duration,
    slow: Vec<String>,
}

/// Clients that read, and now and then write, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Load {
    fn start(sidecar: &Sidecar) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |number| {
            let client = Client::new(sidecar.address);
            tokio::spawn(work(client, number, Arc::clone(&stop), Arc::clone(&answered)))
        };
        let clients = (0..CLIENTS).map(start).collect();
        Self { stop, answered, clients }
    }

    /// Returns when the clients have had their answers to so many more requests.
    async fn goes_on(&self) {
        let goal = self.answered.load(Ordering::SeqCst) + AT_WORK;
        let answered = || async { self.answered.load(Ordering::SeqCst) >= goal };
        eventually("the clients are at work", Duration::from_secs(20), answered).await;
    }

    /// Stops the clients, and fails if a request failed or took too long.
    async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for client in self.clients {
            let seen = client.await.expect("a client does not panic");
            all.requests += seen.requests;
            all.failures.extend(seen.failures);
            all.slow.extend(seen.slow);
            all.slowest = all.slowest.max(seen.slowest);
        }
        assert!(all.requests > CLIENTS, "only {} requests", all.requests);
        assert!(
            all.failures.is_empty(),
            "{} of {} requests failed: {:?}",
            all.failures.len(),
            all.requests,
            &all.failures[..all.failures.len().min(5)]
        );
        assert!(
            all.slow.is_empty(),
            "{} of {} requests were slow: {:?}",
            all.slow.len(),
            all.requests,
            &all.slow[..all.slow.len().min(5)]
        );
        println!("{} requests, the slowest took {:?}", all.requests, all.slowest);
    }
}

async fn work(
    mut client: Client,
    number: u64,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Seen {
    let mut seen = Seen::default();
    // Not all at once: the clients are at different points of their rounds.
    sleep(Duration::from_millis(number * 5)).await;
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = (number * 7 + round) % 50;
        let (method, path) = if (number + round).is_multiple_of(20) {
            ("PUT", format!("/w/{name}"))
        } else {
            ("GET", format!("/v/{name}"))
        };
        let start = Instant::now();
        let result = client.try_send(method, &path, &[], "").await;
        let took = start.elapsed();
        seen.requests += 1;
        answered.fetch_add(1, Ordering::SeqCst);
        seen.slowest = seen.slowest.max(took);
        match result {
            Ok(reply) if reply.status == 200 => {
                // A write is answered when no other sidecar can serve from before it: where Redis
                // cannot tell them, when their leases are over.
                let waits = if method == "PUT" { SILENCE + LEASE } else { Duration::ZERO };
                if took > APP + ALLOWANCE + waits {
                    seen.slow
                        .push(format!("{method} {path} took {took:?}: {}", reply.cache_status()));
                }
            }
            Ok(reply) => seen.failures.push(format!(
                "{method} {path}: {} {}",
                reply.status,
                reply.cache_status()
            )),
            Err(error) => seen.failures.push(format!("{method} {path}: {error}")),
        }
        // The pace of a client.
        sleep(Duration::from_millis(250)).await;
    }
    seen
}

/// An app and two sidecars on one Redis. The second is there to see what the first has stored.
struct Stage {
    app: Origin,
    first: Sidecar,
    second: Sidecar,
    probes: AtomicU64,
}

impl Stage {
    async fn set(redis: &RedisServer) -> Self {
        let app = Origin::slow(APP, versioned());
        let rules = format!("{}\n{VERSIONED_RULES}", redis.table());
        let first = Sidecar::spawn(app.address, &rules).await;
        let second = Sidecar::spawn(app.address, &rules).await;
        Self { app, first, second, probes: AtomicU64::new(0) }
    }

    /// Returns when what one sidecar has stored is a hit through the other: Redis is in use.
    async fn hits_through_redis(&self, within: Duration) {
        let took =
            eventually("what one sidecar stores is a hit through the other", within, || async {
                let path = format!("/v/probe-{}", self.probes.fetch_add(1, Ordering::Relaxed));
                Client::new(self.first.address).get(&path, &[]).await;
                Client::new(self.second.address).get(&path, &[]).await.cache() == "HIT"
            })
            .await;
        println!("hits through Redis after {took:?}");
        assert!(self.app.total() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_killed_and_restarted_costs_no_request() {
    let mut redis = RedisServer::start();
    let stage = Stage::set(&redis).await;
    stage.hits_through_redis(Duration::from_secs(10)).await;
    let load = Load::start(&stage.first);
    load.goes_on().await;
    redis.kill();
    // From now on connections to it are refused; this is how long.
    sleep(Duration::from_secs(4)).await;
    redis.restart();
    stage.hits_through_redis(RETURN).await;
    load.goes_on().await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_restarted_at_once_costs_no_request() {
    let mut redis = RedisServer::start();
    let stage = Stage::set(&redis).await;
    stage.hits_through_redis(Duration::from_secs(10)).await;
    let load = Load::start(&stage.first);
    for _ in 0..3 {
        load.goes_on().await;
        redis.restart();
        stage.hits_through_redis(RETURN).await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_frozen_for_ten_seconds_costs_no_request() {
    let redis = RedisServer::start();
    let stage = Stage::set(&redis).await;
    stage.hits_through_redis(Duration::from_secs(10)).await;
    let load = Load::start(&stage.first);
    load.goes_on().await;
    redis.freeze();
    // How long it is frozen.
    sleep(Duration::from_secs(10)).await;
    redis.thaw();
    stage.hits_through_redis(RETURN).await;
    load.goes_on().await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_absent_at_start_is_used_when_it_comes() {
    let mut redis = RedisServer::absent();
    let stage = Stage::set(&redis).await;
    let load = Load::start(&stage.first);
    // How long it is absent.
    sleep(Duration::from_secs(3)).await;
    redis.restart();
    stage.hits_through_redis(RETURN).await;
    load.goes_on().await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_while_redis_is_lost_go_through_and_are_seen_by_the_same_sidecar() {
    let mut redis = RedisServer::start();
    let stage = Stage::set(&redis).await;
    stage.hits_through_redis(Duration::from_secs(10)).await;
    let mut client = Client::new(stage.first.address);
    client.get("/v/a", &[]).await;
    redis.kill();
    for version in 1..=20 {
        assert_eq!(client.send("PUT", "/w/a", &[], "").await.status, 200);
        let read = client.get("/v/a", &[]).await;
        assert_eq!(read.text(), version.to_string(), "{}", read.header("cache-status"));
    }
    // What was stored before the loss must not come back with Redis.
    redis.restart();
    stage.hits_through_redis(RETURN).await;
    assert_eq!(client.get("/v/a", &[]).await.text(), "20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1063_a_purge_that_others_cannot_be_told_of_says_so() {
    let mut redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("x"));
    let rules =
        format!("{}\n[purge_requests]\nfrom = [\"127.0.0.1\"]\n{VERSIONED_RULES}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    let purge = async || {
        let by_admin = sidecar.admin_ok("/purge", &json!({ "tags": ["a"] })).await;
        let by_request = Client::new(sidecar.address).send("PURGE", "/v/a", &[], "").await;
        (by_admin["pending"].as_bool(), by_request.status, by_request.text().trim().to_owned())
    };
    eventually("Redis is told of purges", RETURN, async || purge().await.0 == Some(false)).await;
    assert_eq!(purge().await.1, 200);
    redis.kill();
    eventually("Redis is lost", RETURN, async || {
        let (pending, status, text) = purge().await;
        pending == Some(true) && status == 202 && text.contains("Redis cannot be reached")
    })
    .await;
    redis.restart();
    eventually("Redis is told again", RETURN, async || purge().await == told()).await;
}

/// What is answered when all have been told.
fn told() -> (Option<bool>, u16, String) {
    (Some(false), 200, "200 OK: purged".to_owned())
}
