//! The stage of a run: an app that counts versions, a Redis, three sidecars that each reach it
//! through a fault proxy of their own, and readers and writers that never stop. A run is calm, then
//! broken, then healed, and ends with a look at every key.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::verdict::{Ended, HITS, Round, WRITES_IN_FAULT};
use crate::support::child::ChildSidecar;
use crate::support::history::{History, Kind, Log, Operation};
use crate::support::origin::versioned;
use crate::support::{Client, Fault, FaultProxy, Origin, RedisServer, eventually, soak_time};

/// How many sidecars share the Redis.
pub const SIDECARS: usize = 3;
/// How many keys are read and written: few, so that fills and writes meet.
pub const KEYS: usize = 8;

/// For how many milliseconds writers pause.
const OFTEN: Range<u64> = 20..60;
const READERS: u64 = 4;
const WRITERS: u64 = 2;
/// An answer of the app takes up to this long after it has read or changed the version, so that
/// fills and writes overlap.
const APP: Duration = Duration::from_millis(5);
/// How long a run is watched before its fault, and after it is healed and there were hits again.
const CALM: Duration = Duration::from_millis(1_200);
/// How many writes there are to be after the fault at the least.
const WRITES: usize = 8;
/// No request takes so long: what has not been answered by then is a failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// Hits come back within this time in every run. How soon they should is another test's matter.
const RETURN: Duration = Duration::from_secs(15);

/// Reads are cached for longer than any run without a soak, and every write through a sidecar
/// purges what it changes.
pub const RULES: &str = r#"
[[routes]]
path  = "/v/{key}"
ttl   = "60s"
scope = "public"
tags  = ["v:{key}"]

[[purges]]
path = "/v/{key}"
tags = ["v:{key}"]
"#;

/// What the readers and writers have in common.
struct Play {
    log: Arc<Log>,
    sidecars: [std::net::SocketAddr; SIDECARS],
    /// Which sidecars are asked.
    asked: [AtomicBool; SIDECARS],
    stop: AtomicBool,
}

/// Everything of one run. Dropping it ends all processes.
pub struct Stage {
    /// The app, which can hold requests.
    pub app: Origin,
    /// Behind all the proxies.
    pub redis: RedisServer,
    /// The way of each sidecar to Redis.
    pub proxies: [FaultProxy; SIDECARS],
    /// The sidecars.
    pub sidecars: [ChildSidecar; SIDECARS],
    play: Arc<Play>,
    workers: Vec<JoinHandle<()>>,
}

impl Stage {
    /// A stage on which every sidecar has had hits, with these lines of `[redis]`. Its readers and
    /// writers are at work.
    pub async fn set(redis_lines: &str) -> Self {
        Self::paced(redis_lines, OFTEN).await
    }

    /// The same with writers that pause for so many milliseconds.
    pub async fn paced(redis_lines: &str, pause: Range<u64>) -> Self {
        Self::set_behind(redis_lines, pause, Fault::None).await
    }

    /// The same with links to Redis that are so from the start.
    pub async fn set_behind(redis_lines: &str, pause: Range<u64>, links: Fault) -> Self {
        let redis = RedisServer::start();
        let app = Origin::varying(Duration::ZERO..=APP, versioned());
        let proxies = [
            FaultProxy::start(redis.port).await,
            FaultProxy::start(redis.port).await,
            FaultProxy::start(redis.port).await,
        ];
        for proxy in &proxies {
            proxy.set(links);
        }
        let upstream = format!("url = \"http://{}\"", app.address);
        let spawn = |proxy: &FaultProxy| {
            let rules =
                format!("[redis]\nurl = \"redis://{}/0\"\n{redis_lines}\n{RULES}", proxy.address);
            let upstream = upstream.clone();
            async move { ChildSidecar::spawn(&upstream, &rules).await }
        };
        let [one, two, three] = &proxies;
        let (one, two, three) = tokio::join!(spawn(one), spawn(two), spawn(three));
        let sidecars = [one, two, three];
        let play = Arc::new(Play {
            log: Arc::default(),
            sidecars: sidecars.each_ref().map(|sidecar| sidecar.address),
            asked: [const { AtomicBool::new(true) }; SIDECARS],
            stop: AtomicBool::new(false),
        });
        let readers = (0..READERS)
            .map(|worker| tokio::spawn(work(Arc::clone(&play), Kind::Read, 2..6, worker)))
            .collect();
        let mut stage =
            Self { app, redis, proxies, sidecars, play: Arc::clone(&play), workers: readers };
        // Whoever has hits has joined, and need not refuse a write.
        stage.has_hits(Instant::now()).await;
        let writers = (0..WRITERS).map(|worker| {
            tokio::spawn(work(Arc::clone(&play), Kind::Write, pause.clone(), READERS + worker))
        });
        stage.workers.extend(writers);
        stage
    }

    /// Stages the fault once, or again and again for a soak, and returns when it is healed, the
    /// clients are still, and all is looked at.
    pub async fn run(mut self, fault: impl AsyncFn(&mut Self)) -> Ended {
        let until = Instant::now() + soak_time();
        let mut rounds = Vec::new();
        loop {
            let begun = Instant::now();
            sleep(CALM).await;
            let broken = Instant::now();
            fault(&mut self).await;
            let healed = Instant::now();
            self.has_hits(healed).await;
            let hit_again = Instant::now();
            sleep(CALM).await;
            // A write that was begun under the fault may have kept its writer waiting for the end
            // of a lease.
            eventually("there are writes again", RETURN, || async {
                self.play.log.writes_since(hit_again) >= WRITES
            })
            .await;
            // The first hits may be the last of what a sidecar served by itself; then it waits.
            eventually("there are hits again", RETURN, || async {
                self.play.log.hits_since(hit_again) >= HITS
            })
            .await;
            rounds.push(Round { begun, broken, healed, hit_again, over: Instant::now() });
            if Instant::now() >= until {
                return self.end(rounds).await;
            }
        }
    }

    /// Readers and writers leave this sidecar alone from now on, but for requests that are under
    /// way.
    pub fn leave(&self, sidecar: usize) {
        self.play.asked[sidecar].store(false, Ordering::SeqCst);
    }

    /// Readers and writers use this sidecar again.
    pub fn use_again(&self, sidecar: usize) {
        self.play.asked[sidecar].store(true, Ordering::SeqCst);
    }

    /// A client of its own for a sidecar.
    pub fn client(&self, sidecar: usize) -> Asker {
        Asker::new(&self.play, sidecar)
    }

    /// All requests so far.
    pub fn history(&self) -> History {
        self.play.log.history()
    }

    /// Returns when every key was written after this was called.
    pub async fn writes_each_key(&self) {
        let now = Instant::now();
        eventually("each key is written", RETURN, || async {
            (0..KEYS).all(|key| self.play.log.written_since(now, &format!("k{key}")))
        })
        .await;
    }

    /// Returns when every sidecar in use has answered a read from the cache that was sent since
    /// then.
    async fn has_hits(&self, since: Instant) {
        eventually("every sidecar has hits", RETURN, || async {
            self.in_use().all(|sidecar| self.play.log.hit_since(since, sidecar))
        })
        .await;
    }

    fn in_use(&self) -> impl Iterator<Item = usize> {
        (0..SIDECARS).filter(|sidecar| self.play.asked[*sidecar].load(Ordering::SeqCst))
    }

    async fn end(mut self, rounds: Vec<Round>) -> Ended {
        self.play.stop.store(true, Ordering::SeqCst);
        for worker in std::mem::take(&mut self.workers) {
            worker.await.expect("no reader or writer panics");
        }
        // Now nothing is under way, and every sidecar must answer what the app has: also of writes
        // that were never answered.
        let mut late = Vec::new();
        let mut app = Client::new(self.app.address);
        for sidecar in self.in_use() {
            let mut client = self.client(sidecar);
            for key in 0..KEYS {
                let truth: u64 = app
                    .get(&path(key), &[])
                    .await
                    .text()
                    .parse()
                    .expect("the app answers a number");
                for _ in 0..2 {
                    let read = client.read(key).await;
                    if read.version != Some(truth) {
                        late.push(format!(
                            "`{}` is {truth}, and {:?} through {sidecar} ({})",
                            read.key, read.version, read.said
                        ));
                    }
                }
            }
        }
        let writes_in_fault = WRITES_IN_FAULT;
        Ended { history: self.play.log.history(), rounds, late, writes_in_fault }
    }
}

/// A client of one sidecar, all of whose requests are in the history.
pub struct Asker {
    client: Client,
    play: Arc<Play>,
    sidecar: usize,
}

impl Asker {
    fn new(play: &Arc<Play>, sidecar: usize) -> Self {
        Self { client: Client::new(play.sidecars[sidecar]), play: Arc::clone(play), sidecar }
    }

    /// Reads a key.
    pub async fn read(&mut self, key: usize) -> Operation {
        self.ask(Kind::Read, &format!("k{key}")).await
    }

    /// Reads or writes a key of this name.
    pub async fn ask(&mut self, kind: Kind, key: &str) -> Operation {
        let method = if kind == Kind::Read { "GET" } else { "PUT" };
        let sent = Instant::now();
        let answer =
            timeout(PATIENCE, self.client.try_send(method, &format!("/v/{key}"), &[], "")).await;
        let done = Instant::now();
        let unanswered = |why: String| (0, None, false, Arc::from(why));
        let (status, version, hit, said) = match answer {
            Ok(Ok(reply)) => (
                reply.status,
                reply.text().parse().ok(),
                reply.cache() == "HIT",
                Arc::from(reply.cache_status()),
            ),
            Ok(Err(error)) => unanswered(error.to_string()),
            Err(_) => unanswered(format!("no answer within {PATIENCE:?}")),
        };
        if status == 0 {
            // Whatever is still to come on that connection belongs to nobody.
            self.client = Client::new(self.play.sidecars[self.sidecar]);
        }
        let operation = Operation {
            kind,
            key: Arc::from(key),
            version,
            sent,
            done,
            through: self.sidecar,
            status,
            hit,
            said,
        };
        self.play.log.push(operation.clone());
        operation
    }
}

fn path(key: usize) -> String {
    format!("/v/k{key}")
}

/// Asks one random sidecar after the other for random keys, until it is told to stop.
async fn work(play: Arc<Play>, kind: Kind, pause: Range<u64>, number: u64) {
    let mut random = StdRng::seed_from_u64(number);
    let mut askers = [0, 1, 2].map(|sidecar| Asker::new(&play, sidecar));
    while !play.stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(random.gen_range(pause.clone()))).await;
        let (sidecar, key) = (random.gen_range(0..SIDECARS), random.gen_range(0..KEYS));
        if play.asked[sidecar].load(Ordering::SeqCst) {
            askers[sidecar].ask(kind, &format!("k{key}")).await;
        }
    }
}
