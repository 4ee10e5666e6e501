//! Redis is far away: every reply takes a good part of `deadline`, or longer than it, all the time.
//! It still caches, and no read is stale.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::{KEYS, RULES, SIDECARS, Stage};
use crate::support::child::ChildSidecar;
use crate::support::history::{Kind, Window};
use crate::support::origin::versioned;
use crate::support::{Client, Fault, FaultProxy, Origin, RedisServer, eventually, exposition};

/// The writers of the stage stay away: those here write at a pace of their own.
const NEVER: std::ops::Range<u64> = 3_600_000..3_600_001;
/// How long nothing is written after a write.
const PAUSE: Duration = Duration::from_millis(330);
/// How many writes there are.
const WRITES: usize = 16;

/// Readers read, keys are written in turn, and each byte takes this long each way. Returns what
/// share of the reads were hits, in percent.
async fn hits_at(delay: Duration) -> usize {
    let stage = Stage::paced("", NEVER).await;
    stage.proxies.iter().for_each(|proxy| proxy.set(Fault::Delay(delay)));
    let mut clients = std::array::from_fn::<_, SIDECARS, _>(|sidecar| stage.client(sidecar));
    let from = Instant::now();
    for turn in 0..WRITES {
        let key = format!("k{}", turn % KEYS);
        let written = clients[turn % SIDECARS].ask(Kind::Write, &key).await;
        assert!(written.succeeded(), "a write fails: {}", written.said);
        sleep(PAUSE).await;
    }
    let history = stage.history();
    let outdated: Vec<String> = history.stale_reads().iter().map(ToString::to_string).collect();
    assert!(outdated.is_empty(), "stale reads: {outdated:#?}");
    let counts = history.counts(Some(Window { from, to: Instant::now() }));
    println!("with {delay:?} each way: {counts:?}");
    assert_eq!((counts.failures, counts.server_errors), (0, 0), "every read is answered");
    counts.hits * 100 / counts.reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_and_most_are_hits_behind_a_round_trip_of_most_of_the_deadline() {
    let hits = hits_at(Duration::from_millis(35)).await;
    assert!(hits >= 80, "{hits} % of the reads were hits");
}

/// Nothing was stored again once it was purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r623_a_round_trip_longer_than_the_deadline_leaves_hits() {
    let hits = hits_at(Duration::from_millis(150)).await;
    assert!(hits >= 50, "{hits} % of the reads were hits");
}

/// How many clients read, each a key of its own, and how often.
const READERS: usize = 8;
const READS: usize = 20;

/// One sidecar, far from Redis.
struct Far {
    app: Origin,
    _redis: RedisServer,
    proxy: FaultProxy,
    sidecar: ChildSidecar,
}

impl Far {
    async fn start(redis_lines: &str, tables: &str) -> Self {
        let (app, redis) = (Origin::start(versioned()), RedisServer::start());
        let proxy = FaultProxy::start(redis.port).await;
        let upstream = format!("url = \"http://{}\"", app.address);
        let address = proxy.address;
        let redis_table = format!("[redis]\nurl = \"redis://{address}/0\"\n{redis_lines}");
        let rules = format!("{redis_table}\n{tables}\n{RULES}");
        let sidecar = ChildSidecar::spawn(&upstream, &rules).await;
        Self { app, _redis: redis, proxy, sidecar }
    }

    /// Returns when a key is a hit.
    async fn becomes_a_hit(&self, key: &str) {
        let path = format!("/v/{key}");
        eventually("it is a hit", Duration::from_secs(5), || async {
            Client::new(self.sidecar.address).get(&path, &[]).await.cache() == "HIT"
        })
        .await;
    }

    async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let admin = self.sidecar.admin.expect("its metrics have an address");
        let answer = Client::of_admin(admin).get("/metrics", &[]).await;
        let read = exposition::read(answer.text(), exposition::Format::Text);
        read.expect("what the sidecar answers is an exposition").sum(name, labels)
    }
}

/// A read that came while another one was on its way waited for that one's reply, and then had less
/// than a round trip left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r622_reads_beside_one_another_take_one_round_trip_each() {
    // Each hit reads Redis.
    let far = Far::start("connections = 1", "[memory]\nsize = \"0\"").await;
    for key in 0..READERS {
        far.becomes_a_hit(&format!("k{key}")).await;
    }
    far.proxy.set(Fault::Delay(Duration::from_millis(35)));
    let read = async |key: usize| {
        let (mut client, mut hits) = (Client::new(far.sidecar.address), 0);
        for _ in 0..READS {
            // Apart from one another, as readers are.
            sleep(Duration::from_millis(7 * key as u64)).await;
            let reply = client.get(&format!("/v/k{key}"), &[]).await;
            hits += usize::from(reply.cache() == "HIT");
        }
        hits
    };
    let hits: usize = futures_util::future::join_all((0..READERS).map(read)).await.iter().sum();
    assert!(hits * 10 >= READERS * READS * 9, "{hits} of {} reads were hits", READERS * READS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r624_what_was_purged_is_a_hit_again_behind_a_redis_that_is_always_late() {
    let far = Far::start("", "").await;
    far.becomes_a_hit("a").await;
    far.proxy.set(Fault::Delay(Duration::from_millis(150)));
    let mut client = Client::new(far.sidecar.address);
    for version in 1..4 {
        assert!(client.try_send("PUT", "/v/a", &[], "").await.is_ok_and(|put| put.status < 300));
        let read = client.get("/v/a", &[]).await;
        assert_eq!((read.text(), read.cache()), (&*version.to_string(), "BYPASS"));
        far.becomes_a_hit("a").await;
        let read = client.get("/v/a", &[]).await;
        assert_eq!((read.text(), read.cache()), (&*version.to_string(), "HIT"));
    }
    assert!(far.sum("sidecache_late_fills_total", &[]).await >= 3.0);
    // Only a GET is filled so, and only where a fill is for it.
    let before = far.sum("sidecache_late_fills_total", &[]).await;
    client.try_send("HEAD", "/v/head", &[], "").await.expect("it is answered");
    client.get("/v/part", &[("range", "bytes=0-0")]).await;
    client.get("/v/only", &[("cache-control", "only-if-cached")]).await;
    client.get("/v/not", &[("cache-control", "no-store")]).await;
    sleep(Duration::from_secs(1)).await;
    let after = far.sum("sidecache_late_fills_total", &[]).await;
    assert!(after - before < 1.0, "{} more late fills", after - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r625_while_redis_hangs_no_more_keys_wait_for_it_than_may_be_refreshed() {
    let far = Far::start("loss_after = \"20s\"", "[limits]\nrefreshes = 2").await;
    far.becomes_a_hit("a").await;
    far.proxy.set(Fault::Freeze);
    let mut client = Client::new(far.sidecar.address);
    for key in 0..4 {
        assert_eq!(client.get(&format!("/v/k{key}"), &[]).await.status, 200);
        assert_eq!(client.get(&format!("/v/k{key}"), &[]).await.status, 200, "a second time");
    }
    let requests = far.app.total();
    let refused = far.sum("sidecache_limit_reached_total", &[("limit", "limits.refreshes")]).await;
    assert!((3.5..4.5).contains(&refused), "two of four keys wait for Redis: {refused}");
    assert_eq!(far.app.total(), requests, "nothing else is asked of the app meanwhile");
    far.proxy.set(Fault::None);
    far.becomes_a_hit("k3").await;
}
