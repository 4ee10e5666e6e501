//! Numbered regressions of the snapshot of the memory tier with Redis: what is restored is judged by
//! the records of its tags, and is fresh for as long as it was.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sidecache::app::Clock;
use tempfile::TempDir;

use crate::support::scene::{assert_cache, ttl};
use crate::support::{Client, Origin, RedisServer, Reply, Response, Sidecar, eventually, metric};

const ROUTE: &str = "[[routes]]\npath = \"/{name}\"\nttl = \"10s\"\nscope = \"public\"\ntags = \
    [\"t:{name}\"]\n";

const HOUR: i64 = 3_600_000;

/// A sidecar with Redis and a snapshot.
struct Stage {
    redis: RedisServer,
    origin: Origin,
    sidecar: Sidecar,
    clock: Clock,
    path: PathBuf,
    _folder: TempDir,
}

impl Stage {
    async fn start(more: &str) -> Self {
        let folder = TempDir::new().expect("a temporary directory can be made");
        let path = folder.path().join("snapshot");
        let (redis, clock) = (RedisServer::start(), Clock::manual());
        // No validator: the records alone decide.
        let origin = Origin::start(|_| Response::ok("1"));
        let text =
            format!("[memory]\nsnapshot = \"{}\"\n{}{more}{ROUTE}", path.display(), redis.table());
        let sidecar = Sidecar::start_at(clock.clone(), origin.address, &text).await;
        let stage = Self { redis, origin, sidecar, clock, path, _folder: folder };
        stage.joined().await;
        stage
    }

    /// Returns when it uses Redis.
    async fn joined(&self) {
        eventually("Redis is in use", Duration::from_secs(10), || async {
            metric(self.sidecar.admin, "sidecache_redis_up").await == 1
        })
        .await;
    }

    async fn get(&self, path: &str) -> Reply {
        Client::new(self.sidecar.address).get(path, &[]).await
    }

    async fn fill(&self, path: &str) {
        eventually("it is stored", Duration::from_secs(10), || async {
            self.get(path).await.cache() == "HIT"
        })
        .await;
    }

    async fn start_again(&mut self, clock: &Clock) {
        self.sidecar.start_again(clock).await;
        self.joined().await;
    }

    async fn restored(&self) -> u64 {
        metric(self.sidecar.admin, "sidecache_snapshot_restored_total").await
    }

    fn count(&self, path: &str) -> usize {
        self.origin.seen(path).len()
    }

    /// Takes the entries out of Redis, and leaves the records.
    fn lose_entries(&self) {
        let keys = self.redis.command("KEYS *:e:*").expect("Redis answers");
        for key in keys.lines().filter(|key| key.contains(":e:")) {
            self.redis.command(&format!("DEL {key}")).expect("Redis answers");
        }
    }
}

/// 789. With Redis what was restored is a hit at once if the records of its tags agree, and no hit
///      after a purge that nobody here has heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r789_what_is_restored_is_judged_by_its_records() {
    let mut stage = Stage::start("").await;
    for path in ["/same", "/purged", "/uri"] {
        stage.fill(path).await;
    }
    stage.sidecar.stop().await;
    stage.lose_entries();
    let others = format!("{}{ROUTE}", stage.redis.table());
    let other = Sidecar::start(stage.origin.address, &others).await;
    eventually("the other one uses Redis", Duration::from_secs(10), || async {
        metric(other.admin, "sidecache_redis_up").await == 1
    })
    .await;
    other.admin_ok("/purge", &json!({ "tags": ["t:purged"] })).await;
    Client::new(other.address).send("POST", "/uri", &[], "").await;
    let counts = ["/same", "/purged", "/uri"].map(|path| stage.count(path));
    stage.origin.answers(|_| Response::ok("2"));

    let clock = stage.clock.clone();
    stage.start_again(&clock).await;
    assert_eq!(stage.restored().await, 3);
    let reply = stage.get("/same").await;
    assert!(reply.is("HIT", "1"), "{}", reply.cache_status());
    assert!(reply.cache_status().contains("detail=memory"), "{}", reply.cache_status());
    assert_eq!(stage.count("/same"), counts[0], "nobody was asked");
    for path in ["/purged", "/uri"] {
        let reply = stage.get(path).await;
        assert!(reply.is("MISS", "2"), "{path}: {}", reply.cache_status());
    }
    // From now on it hears of purges itself.
    other.admin_ok("/purge", &json!({ "tags": ["t:same"] })).await;
    assert!(stage.get("/same").await.is("MISS", "2"));
}

/// Whatever becomes of the records while the sidecar is away: without them nothing is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r789_without_its_records_nothing_restored_is_served() {
    for how in ["flushed", "restarted", "everything purged", "one record lost"] {
        let mut stage = Stage::start("").await;
        stage.fill("/a").await;
        let clock = stage.clock.clone();
        stage.sidecar.stop().await;
        stage.origin.answers(|_| Response::ok("2"));
        match how {
            "flushed" => drop(stage.redis.command("FLUSHALL")),
            "restarted" => stage.redis.restart(),
            "one record lost" => {
                let keys = stage.redis.command("KEYS *:t:t:a*").expect("Redis answers");
                let key = keys.lines().find(|key| key.contains(":t:")).expect("there is a record");
                stage.redis.command(&format!("DEL {key}")).expect("Redis answers");
            }
            _ => {
                let others = format!("{}{ROUTE}", stage.redis.table());
                let other = Sidecar::start(stage.origin.address, &others).await;
                eventually("the other one uses Redis", Duration::from_secs(10), || async {
                    metric(other.admin, "sidecache_redis_up").await == 1
                })
                .await;
                other.admin_ok("/purge", &json!({ "everything": true })).await;
            }
        }
        stage.start_again(&clock).await;
        assert_eq!(stage.restored().await, 1, "{how}");
        let reply = stage.get("/a").await;
        assert!(reply.is("MISS", "2"), "{how}: {}", reply.cache_status());
    }
}

/// The wall clock of the machine may be set while the sidecar is away: the age of an entry is
/// counted by the clock of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r789_nothing_is_fresh_for_longer_after_a_restart() {
    for (before, stepped, away) in [
        (0, 0, 0),
        (0, -HOUR, 0),
        (0, HOUR, 0),
        (HOUR, 0, 0),
        (-HOUR, -HOUR, 0),
        (0, -HOUR, 5),
        (0, 0, 5),
    ] {
        let case = format!("ahead by {before}, then by {stepped}, {away} s away");
        let mut stage = Stage::start("").await;
        stage.clock.step_wall(before);
        stage.fill("/a").await;
        stage.clock.advance(Duration::from_secs(6));
        stage.sidecar.stop().await;
        stage.lose_entries();
        // The machine's clock in the next process, where 6 s have passed, too, and some more.
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(6 + away));
        clock.step_wall(stepped);
        stage.start_again(&clock).await;
        if away > 4 {
            assert_eq!(stage.restored().await, 0, "{case}");
            assert_cache(&stage.get("/a").await, "MISS", &case);
            continue;
        }
        let hit = stage.get("/a").await;
        assert_cache(&hit, "HIT", &case);
        assert!((1..=4).contains(&ttl(&hit)), "{case}: {}", hit.cache_status());
        clock.advance(Duration::from_secs(5));
        assert_cache(&stage.get("/a").await, "MISS", &case);
    }
}

/// Redis may come later than the sidecar, or not at all; and a snapshot that was written with
/// another secret is void.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r789_a_snapshot_waits_for_redis_and_counts_for_one_secret() {
    let mut stage = Stage::start("secret = \"one-secret-of-many\"\n").await;
    stage.fill("/a").await;
    let clock = stage.clock.clone();
    stage.sidecar.stop().await;
    stage.redis.freeze();
    stage.sidecar.start_again(&clock).await;
    assert_eq!(stage.restored().await, 0);
    stage.redis.thaw();
    eventually("it is restored", Duration::from_secs(10), || async { stage.restored().await == 1 })
        .await;
    stage.joined().await;
    stage.fill("/a").await;
    stage.sidecar.stop().await;
    assert!(stage.path.exists());
    let text = std::fs::read_to_string(&stage.sidecar.file).expect("its file");
    let other = text.replace("one-secret-of-many", "another-secret-now");
    std::fs::write(&stage.sidecar.file, other).expect("its folder can be written to");
    stage.start_again(&clock).await;
    assert_eq!(stage.restored().await, 0);
    let refused = "sidecache_snapshot_refused_total{reason=\"configuration\"}";
    assert_eq!(metric(stage.sidecar.admin, refused).await, 1);
    // Without Redis at the end nothing is written: nobody knows what is missing.
    stage.fill("/b").await;
    stage.redis.kill();
    eventually("Redis is lost", Duration::from_secs(30), || async {
        metric(stage.sidecar.admin, "sidecache_redis_up").await == 0
    })
    .await;
    stage.sidecar.stop().await;
    assert!(!stage.path.exists());
}
