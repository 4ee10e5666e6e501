//! The histories of runs whose writer is a client of the database, which no sidecar sees: how old a
//! read is at most, while connections to the database break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rand::Rng as _;
use tokio::time::{Instant, sleep};

use super::shop::{CAMPAIGNS, ROUTES, Shop, listening};
use crate::support::history::{History, Kind, Log, Operation, Violation};
use crate::support::{Client, Fault, FaultProxy, RedisServer, Sidecar};

/// How old a read may be while all sources listen.
const CALM_BOUND: Duration = Duration::from_secs(1);

/// A marker every 250 ms may take a second to come back; then `degraded_ttl`.
const DEGRADED_TTL: Duration = Duration::from_millis(500);
const BROKEN_BOUND: Duration = Duration::from_millis(1_250 + 500);

/// What the tests grant a machine with much else to do.
const MARGIN: Duration = Duration::from_millis(500);

struct Run {
    shop: Shop,
    _redis: RedisServer,
    proxies: Vec<FaultProxy>,
    sidecars: Vec<Sidecar>,
    log: Arc<Log>,
    ended: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Run {
    /// Two sidecars of one Redis, each with its own way to the database.
    async fn begin() -> Self {
        let (shop, redis) = (Shop::open().await, RedisServer::start());
        let (mut proxies, mut sidecars) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let proxy = FaultProxy::start(shop.server.port).await;
            let lines = format!("degraded_ttl = \"{}ms\"", DEGRADED_TTL.as_millis());
            let source = Shop::source_at(proxy.address.port(), &lines);
            let rules = format!("{}\n{ROUTES}\n{source}", redis.table());
            let sidecar = Sidecar::spawn(shop.origin.address, &rules).await;
            listening(&sidecar).await;
            proxies.push(proxy);
            sidecars.push(sidecar);
        }
        let (log, ended) = (Arc::<Log>::default(), Arc::<AtomicBool>::default());
        let mut workers = Vec::new();
        for (through, sidecar) in sidecars.iter().enumerate() {
            for _ in 0..2 {
                let (log, ended) = (Arc::clone(&log), Arc::clone(&ended));
                workers.push(tokio::spawn(read(sidecar.address, through, log, ended)));
            }
        }
        let sql = shop.server.client().await;
        workers.push(tokio::spawn(write(sql, Arc::clone(&log), Arc::clone(&ended))));
        Self { shop, _redis: redis, proxies, sidecars, log, ended, workers }
    }

    async fn end(self) -> History {
        self.ended.store(true, SeqCst);
        for worker in self.workers {
            worker.await.expect("no worker fails");
        }
        drop(self.shop);
        self.log.history()
    }
}

async fn read(address: SocketAddr, through: usize, log: Arc<Log>, ended: Arc<AtomicBool>) {
    let mut client = Client::new(address);
    while !ended.load(SeqCst) {
        let id = rand::thread_rng().gen_range(1..=CAMPAIGNS);
        let sent = Instant::now();
        let reply = client.get(&format!("/campaigns/{id}"), &[]).await;
        log.push(Operation {
            kind: Kind::Read,
            key: id.to_string().into(),
            version: reply.text().parse().ok(),
            sent,
            done: Instant::now(),
            through,
            status: reply.status,
            hit: reply.header("x-cache") == "HIT",
            said: reply.header("cache-status").into(),
        });
        sleep(Duration::from_millis(1)).await;
    }
}

async fn write(sql: tokio_postgres::Client, log: Arc<Log>, ended: Arc<AtomicBool>) {
    while !ended.load(SeqCst) {
        let id = rand::thread_rng().gen_range(1..=CAMPAIGNS);
        let sent = Instant::now();
        let change = "UPDATE campaigns SET version = version + 1 WHERE id = $1 RETURNING version";
        let row = sql.query_one(change, &[&id]).await.expect("the row is there");
        let version: i64 = row.get(0);
        log.push(Operation {
            kind: Kind::Write,
            key: id.to_string().into(),
            version: u64::try_from(version).ok(),
            sent,
            done: Instant::now(),
            through: usize::MAX,
            status: 200,
            hit: false,
            said: "".into(),
        });
        let pause = rand::thread_rng().gen_range(10..60);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Asserts that no read was older than that, and that there were hits and writes to speak of.
fn judge(what: &str, history: &History, bound: Duration) {
    let counts = history.counts(None);
    assert_eq!((counts.server_errors, counts.failures), (0, 0), "{counts:?}");
    assert!(counts.hits * 4 > counts.reads && counts.writes > 50, "{counts:?}");
    let violations = history.stale_reads();
    let oldest = violations.iter().map(Violation::age).max().unwrap_or_default();
    println!("{what}: {counts:?}; {} reads lag, by {oldest:?} at most", violations.len());
    assert!(oldest < bound, "{what}: {oldest:?} is more than {bound:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1416_no_read_is_older_than_a_second_while_the_sources_listen() {
    let run = Run::begin().await;
    sleep(Duration::from_secs(5)).await;
    judge("calm", &run.end().await, CALM_BOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1417_no_read_is_older_than_the_bound_while_connections_break() {
    let run = Run::begin().await;
    sleep(Duration::from_secs(1)).await;
    // Both are broken, one by one and together, in each way.
    for fault in [Fault::Cut, Fault::Freeze, Fault::FreezeAnswers] {
        for broken in [&run.proxies[..1], &run.proxies[1..], &run.proxies[..]] {
            for proxy in broken {
                proxy.set(fault);
            }
            sleep(Duration::from_millis(2_500)).await;
            for proxy in broken {
                proxy.set(Fault::None);
            }
            for sidecar in &run.sidecars {
                listening(sidecar).await;
            }
        }
    }
    judge("broken", &run.end().await, BROKEN_BOUND + MARGIN);
}
