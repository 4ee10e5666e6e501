//! Two sidecars on one Redis, and clients that each read and write a name of their own through
//! both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::origin::{VERSIONED_RULES, versioned};
use super::{Client, Origin, Sidecar, eventually};

const CLIENTS: usize = 8;
/// Of each client two writes through either sidecar, and what it reads meanwhile.
const AT_WORK: u64 = 32 * CLIENTS as u64;

/// An app and two sidecars.
pub struct Pair {
    /// The app.
    pub app: Origin,
    /// Both sidecars.
    pub sidecars: [Sidecar; 2],
    probes: AtomicU64,
}

impl Pair {
    /// Starts them with this `[redis]` table. Without memory, so that each hit is one of Redis.
    pub async fn start(table: &str) -> Self {
        Self::start_with(table, "[memory]\nsize = \"0\"\n").await
    }

    /// The same with memory, whose hits are under leases.
    pub async fn leased(table: &str) -> Self {
        Self::start_with(table, "").await
    }

    async fn start_with(table: &str, memory: &str) -> Self {
        let app = Origin::start(versioned());
        let rules = format!("{table}\n{memory}{VERSIONED_RULES}");
        let sidecars =
            [Sidecar::spawn(app.address, &rules).await, Sidecar::spawn(app.address, &rules).await];
        Self { app, sidecars, probes: AtomicU64::new(0) }
    }

    /// Clients of both.
    pub fn clients(&self) -> [Client; 2] {
        self.sidecars.each_ref().map(|sidecar| Client::new(sidecar.address))
    }

    /// Returns when what each has stored is a hit through the other, and how long that took.
    pub async fn hits_within(&self, within: Duration) -> Duration {
        let took =
            eventually("what one sidecar stores is a hit through the other", within, || async {
                let path = format!("/v/probe-{}", self.probes.fetch_add(1, Ordering::Relaxed));
                let [mut one, mut two] = self.clients();
                one.get(&path, &[]).await;
                two.get(&path, &[]).await.cache() == "HIT"
            })
            .await;
        println!("hits after {took:?}");
        took
    }

    /// A metric of one of the sidecars, by its whole name.
    pub async fn metric(&self, sidecar: usize, name: &str) -> u64 {
        super::metric(self.sidecars[sidecar].admin, name).await
    }

    /// Starts the clients.
    pub fn traffic(&self) -> Traffic {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |number| {
            tokio::spawn(work(self.clients(), number, Arc::clone(&stop), Arc::clone(&answered)))
        };
        let clients = (0..CLIENTS).map(start).collect();
        Traffic { stop, answered, clients }
    }
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Reads that were hits.
    pub hits: usize,
    /// Writes that were answered.
    pub writes: usize,
    /// Answers other than 200, and none at all.
    pub failures: Vec<String>,
    /// Reads older than a write that had been answered.
    pub stale: Vec<String>,
}

/// Clients at work.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Traffic {
    /// Returns when the clients have had their answers to so many more requests as to have written
    /// and read through both sidecars.
    pub async fn goes_on(&self) {
        let goal = self.answered.load(Ordering::SeqCst) + AT_WORK;
        let answered = || async { self.answered.load(Ordering::SeqCst) >= goal };
        eventually("the clients are at work", Duration::from_secs(20), answered).await;
    }

    /// Stops them. Fails if a request failed, if a read was stale, or if there was nothing to see.
    pub async fn finish(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for client in self.clients {
            let seen = client.await.expect("a client does not panic");
            all.hits += seen.hits;
            all.writes += seen.writes;
            all.failures.extend(seen.failures);
            all.stale.extend(seen.stale);
        }
        println!("{} hits, {} writes, {} stale", all.hits, all.writes, all.stale.len());
        assert!(
            all.hits > 50 && all.writes > 20,
            "nothing was tested: {} hits, {} writes",
            all.hits,
            all.writes
        );
        assert!(
            all.stale.is_empty(),
            "{} stale: {:?}",
            all.stale.len(),
            &all.stale[..all.stale.len().min(5)]
        );
        assert!(
            all.failures.is_empty(),
            "{} failures: {:?}",
            all.failures.len(),
            &all.failures[..all.failures.len().min(5)]
        );
        all
    }
}

async fn work(
    mut clients: [Client; 2],
    number: usize,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Seen {
    let (mut seen, mut version) = (Seen::default(), 0_u64);
    for round in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let through = (round + round / 8) % 2;
        let write = round % 8 == 7;
        let (method, path) = if write {
            ("PUT", format!("/w/own-{number}"))
        } else {
            ("GET", format!("/v/own-{number}"))
        };
        match clients[through].try_send(method, &path, &[], "").await {
            Ok(reply) if reply.status == 200 => {
                let got: u64 = reply.text().parse().expect("a version");
                if write {
                    (version, seen.writes) = (got, seen.writes + 1);
                } else {
                    seen.hits += usize::from(reply.cache() == "HIT");
                    if got < version {
                        seen.stale.push(format!(
                            "{path}: {got} after {version}, {}",
                            reply.cache_status()
                        ));
                    }
                }
            }
            Ok(reply) => seen.failures.push(format!(
                "{method} {path}: {} {}",
                reply.status,
                reply.cache_status()
            )),
            Err(error) => seen.failures.push(format!("{method} {path}: {error}")),
        }
        answered.fetch_add(1, Ordering::SeqCst);
        // The pace of a client.
        sleep(Duration::from_millis(25)).await;
    }
    seen
}
