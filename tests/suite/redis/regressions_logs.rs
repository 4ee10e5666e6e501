//! Numbered regressions about what the log and `/ready` say of Redis: one WARN for each change,
//! with the right reason, in the words of this program.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Fault, FaultProxy, Origin, RedisServer, Sidecar, eventually, metric};

const WITHIN: Duration = Duration::from_secs(15);

/// A sidecar of the real binary behind a proxy in front of Redis.
struct Link {
    redis: RedisServer,
    proxy: FaultProxy,
    sidecar: Sidecar,
    _app: Origin,
}

impl Link {
    async fn start(fault: Fault, lines: &str, tables: &str) -> Self {
        let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
        let proxy = FaultProxy::start(redis.port).await;
        proxy.set(fault);
        let url = format!("[redis]\nurl = \"redis://{}/0\"\n{lines}", proxy.address);
        let rules = format!("{url}{tables}{VERSIONED_RULES}");
        let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
        Self { redis, proxy, sidecar, _app: app }
    }

    async fn in_use(&self) {
        eventually("Redis is in use", WITHIN, || async {
            metric(self.sidecar.admin, "sidecache_redis_up").await == 1
        })
        .await;
    }

    async fn says(&self, words: &str) {
        eventually(words, WITHIN, || async { self.sidecar.said().contains(words) }).await;
    }

    fn lines(&self, words: &str) -> Vec<String> {
        self.sidecar.said().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    async fn ready(&self) -> String {
        self.sidecar.admin_get("/ready").await.text().to_owned()
    }
}

/// 626. The client of Redis logged each broken connection once more, with paths of the machine that
///      had built it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r626_a_broken_connection_is_one_warning() {
    for (log, lost) in [
        ("[log]\nlevel = \"info\"\n", "WARN sidecache::coherence: Redis is lost"),
        ("[log]\nlevel = \"debug,sidecache=info\"\nformat = \"json\"\n", "\"Redis is lost"),
    ] {
        let link = Link::start(Fault::None, "", log).await;
        link.in_use().await;
        for round in 1..=2 {
            link.proxy.set(Fault::Cut);
            eventually("it is told", WITHIN, || async { link.lines(lost).len() == round }).await;
            link.proxy.set(Fault::None);
            link.in_use().await;
        }
        let said = link.sidecar.said();
        assert!(link.lines("Redis is lost").len() == 2, "{said}");
        for word in ["fred", "log.", ".rs"] {
            assert!(!said.contains(word), "{word}: {said}");
        }
    }
}

/// 627. A Redis that was silent or slow was said to have an ACL that forbids the channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r627_only_a_redis_that_replies_is_said_to_forbid_the_channel() {
    for fault in [Fault::Freeze, Fault::Delay(Duration::from_millis(350))] {
        let link = Link::start(fault, "", "").await;
        // Eight attempts at least.
        sleep(Duration::from_secs(6)).await;
        assert!(link.lines("ACL").is_empty(), "{fault:?}: {}", link.sidecar.said());
    }
    let link = Link::start(Fault::Freeze, "", "").await;
    link.redis.command("ACL SETUSER default resetchannels").expect("redis answers");
    link.proxy.set(Fault::None);
    link.says("the ACL of Redis refuses the channel").await;
    sleep(Duration::from_secs(2)).await;
    // Some versions of Redis and Valkey also refuse the scripts that publish, which is told besides.
    let refused = link.lines("the ACL of Redis refuses the channel").len();
    assert_eq!(refused, 1, "{}", link.sidecar.said());
    link.redis.command("ACL SETUSER default allchannels").expect("redis answers");
    eventually("it has a lease", WITHIN, || async {
        metric(link.sidecar.admin, "sidecache_lease_held").await == 1
    })
    .await;
}

/// 628. What the client of Redis says itself when it is stopped was taken for a reply of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r628_a_silent_redis_has_not_replied_with_an_error() {
    let lines = "loss_after = \"300ms\"\nlease = \"200ms\"\nrejoin_grace = \"0s\"\n";
    let link = Link::start(Fault::None, lines, "").await;
    for round in 1..=5 {
        link.in_use().await;
        link.proxy.set(Fault::Freeze);
        eventually("it is told", WITHIN, || async {
            let read = Client::new(link.sidecar.address).get(&format!("/v/{round}"), &[]).await;
            assert_eq!(read.status, 200);
            link.lines("Redis is lost").len() == round
        })
        .await;
        link.proxy.set(Fault::None);
    }
    for line in link.lines("Redis is lost") {
        assert!(line.contains("it did not reply to anything for longer than loss_after"), "{line}");
    }
}

/// 629. Where every reply takes longer than `deadline`, nothing said why there were no hits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r629_a_redis_that_is_slower_than_the_deadline_is_told() {
    let lines = "deadline = \"100ms\"\nlease = \"1s\"\n";
    let link = Link::start(Fault::None, lines, "").await;
    link.in_use().await;
    eventually("it has a lease", WITHIN, || async {
        metric(link.sidecar.admin, "sidecache_lease_held").await == 1
    })
    .await;
    assert!(!link.ready().await.contains("deadline"));
    link.proxy.set(Fault::Delay(Duration::from_millis(75)));
    let told = "to reply, longer than `deadline` (100ms): what needs it goes to the origin; write \
                deadline = ";
    link.says(told).await;
    let ready = link.ready().await;
    assert!(ready.contains(told), "{ready}");
    let metrics = link.sidecar.admin_get("/metrics").await.text().to_owned();
    let least = metrics
        .lines()
        .find_map(|line| line.strip_prefix("sidecache_redis_round_trip_seconds "))
        .and_then(|value| value.parse::<f64>().ok())
        .expect("the gauge has a value");
    assert!((0.15..1.0).contains(&least), "{least}");
    sleep(Duration::from_secs(2)).await;
    assert!(link.lines("Redis is lost").is_empty(), "{}", link.sidecar.said());
    link.proxy.set(Fault::None);
    link.says("Redis replies within `deadline` (100ms) again").await;
    let ready = link.ready().await;
    assert!(!ready.contains("deadline"), "{ready}");
    assert_eq!(link.lines(told).len(), 1, "{}", link.sidecar.said());
}
