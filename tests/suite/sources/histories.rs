//! The histories of runs whose writer is a client of the database, which no sidecar sees: how old a
//! read is at most, while connections to the database break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use rand::Rng as _;
use tokio::time::{Instant, sleep};

use super::mysql_shop::{MysqlShop, change};
use super::shop::{CAMPAIGNS, ROUTES, Shop, listening};
use crate::support::history::{History, Kind, Log, Operation, Violation};
use crate::support::{Client, Fault, FaultProxy, RedisServer, Sidecar};

/// How old a read may be while all sources listen.
const CALM_BOUND: Duration = Duration::from_secs(1);

/// A marker, or a reading, every 250 ms may take a second; then `degraded_ttl`.
const DEGRADED_TTL: Duration = Duration::from_millis(500);
const BROKEN_BOUND: Duration = Duration::from_millis(1_250 + 500);

/// What the tests grant a machine with much else to do.
const MARGIN: Duration = Duration::from_millis(500);

/// A shop with its database.
enum AnyShop {
    Postgres(Shop),
    Mysql(MysqlShop),
}

impl AnyShop {
    const fn port(&self) -> u16 {
        match self {
            Self::Postgres(shop) => shop.server.port,
            Self::Mysql(shop) => shop.server.port,
        }
    }

    const fn origin(&self) -> SocketAddr {
        match self {
            Self::Postgres(shop) => shop.origin.address,
            Self::Mysql(shop) => shop.origin.address,
        }
    }

    fn source_at(&self, port: u16, lines: &str) -> String {
        match self {
            Self::Postgres(_) => Shop::source_at(port, lines),
            Self::Mysql(_) => MysqlShop::source_at(port, lines),
        }
    }

    async fn writer(&self) -> Writer {
        match self {
            Self::Postgres(shop) => Writer::Postgres(shop.server.client().await),
            Self::Mysql(shop) => Writer::Mysql(shop.server.client().await),
        }
    }
}

/// The one client that writes.
enum Writer {
    Postgres(tokio_postgres::Client),
    Mysql(mysql_async::Conn),
}

impl Writer {
    /// Counts a campaign's version up, and returns it.
    async fn change(&mut self, id: i32) -> i64 {
        match self {
            Self::Postgres(sql) => {
                let change = format!("{} RETURNING version", change(id));
                sql.query_one(&change, &[]).await.expect("the row is there").get(0)
            }
            Self::Mysql(sql) => {
                sql.query_drop(change(id)).await.expect("the row is there");
                let version = format!("SELECT version FROM campaigns WHERE id = {id}");
                let version = sql.query_first(version).await.expect("the table is there");
                version.expect("the row is there")
            }
        }
    }
}

struct Run {
    shop: AnyShop,
    _redis: RedisServer,
    proxies: Vec<FaultProxy>,
    sidecars: Vec<Sidecar>,
    log: Arc<Log>,
    ended: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Run {
    /// Two sidecars of one Redis, each with its own way to the database.
    async fn begin(shop: AnyShop) -> Self {
        let redis = RedisServer::start();
        let (mut proxies, mut sidecars) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let proxy = FaultProxy::start(shop.port()).await;
            let lines = format!("degraded_ttl = \"{}ms\"", DEGRADED_TTL.as_millis());
            let source = shop.source_at(proxy.address.port(), &lines);
            let rules = format!("{}\n{ROUTES}\n{source}", redis.table());
            let sidecar = Sidecar::spawn(shop.origin(), &rules).await;
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
        let sql = shop.writer().await;
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

async fn write(mut sql: Writer, log: Arc<Log>, ended: Arc<AtomicBool>) {
    while !ended.load(SeqCst) {
        let id = rand::thread_rng().gen_range(1..=CAMPAIGNS);
        let sent = Instant::now();
        let version = sql.change(id).await;
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

async fn calm(shop: AnyShop) {
    let run = Run::begin(shop).await;
    sleep(Duration::from_secs(5)).await;
    judge("calm", &run.end().await, CALM_BOUND);
}

async fn broken(shop: AnyShop) {
    let run = Run::begin(shop).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1416_no_read_is_older_than_a_second_while_the_sources_listen() {
    calm(AnyShop::Postgres(Shop::open().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1417_no_read_is_older_than_the_bound_while_connections_break() {
    broken(AnyShop::Postgres(Shop::open().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1450_no_read_of_a_mariadb_is_older_than_a_second_while_the_sources_listen() {
    calm(AnyShop::Mysql(MysqlShop::open().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1451_no_read_of_a_mariadb_is_older_than_the_bound_while_connections_break() {
    broken(AnyShop::Mysql(MysqlShop::open().await)).await;
}
