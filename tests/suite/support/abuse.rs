//! Honest clients, and what somebody beside them costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Client, Origin, Request, Response, Sidecar};

/// The keys that the honest read, which all carry one tag.
pub const KEYS: usize = 50;
const CLIENTS: usize = 20;
/// The pace of an honest client.
const PAUSE: Duration = Duration::from_millis(100);
/// One request in so many of an honest client is a write, to a page of its own.
const WRITE_EVERY: usize = 50;

/// What the honest clients saw, together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest {
    /// Reads.
    pub reads: usize,
    /// Reads that were hits.
    pub hits: usize,
    /// Writes that went well.
    pub writes: usize,
    /// 503s, to reads or writes.
    pub refused: usize,
    /// Other failures.
    pub failed: usize,
    /// The longest that a request took.
    pub slowest: Duration,
    /// Bytes of bodies that the app sent.
    pub app_bytes: u64,
}

impl Honest {
    /// The share of reads that were hits, in percent.
    pub fn hit_ratio(&self) -> usize {
        self.hits * 100 / self.reads.max(1)
    }
}

/// The pages: `/v/NUMBER`, with the tag `all`. Writes to `/own/NUMBER` purge that alone, writes to
/// `/w/...` purge `all`. `more` are further tables.
pub fn rules(more: &str) -> String {
    format!(
        "[[routes]]\npath = \"/v/{{name}}\"\nttl = \"5m\"\nscope = \"public\"\ntags = [\"all\"]\n\
         [[purges]]\npath = \"/w/{{*rest}}\"\ntags = [\"all\"]\n\
         [[purges]]\npath = \"/guarded/{{*rest}}\"\ntags = [\"all\"]\nguard = \"bypass\"\n\
         [[purges]]\npath = \"/own/{{name}}\"\ntags = [\"own:{{name}}\"]\n{more}"
    )
}

/// An app that takes a while for everything. Nobody can log in.
pub fn app() -> Origin {
    Origin::slow(Duration::from_millis(10), |request: &Request| {
        if request.path.ends_with("/login") {
            return Response::status(401, "no");
        }
        Response::ok(vec![b'x'; 1000])
    })
}

/// Where an attack comes from. The honest come from other addresses.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 6, 66);

/// Runs the honest clients for so long, and meanwhile `attack`, which is told when to stop.
pub async fn beside<F, Fut>(sidecar: &Sidecar, app: &Origin, time: Duration, attack: F) -> Honest
where
    F: FnOnce(SocketAddr, Arc<AtomicBool>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let address = sidecar.address;
    for key in 0..KEYS {
        Client::new(address).get(&format!("/v/{key}"), &[]).await;
    }
    let before = app.requests().len();
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = tokio::spawn(attack(address, Arc::clone(&stop)));
    let clients: Vec<JoinHandle<Honest>> = (0..CLIENTS)
        .map(|number| tokio::spawn(honest(address, number, Arc::clone(&stop))))
        .collect();
    sleep(time).await;
    stop.store(true, Ordering::SeqCst);
    let mut all = Honest::default();
    for client in clients {
        let one = client.await.expect("a client does not panic");
        all.reads += one.reads;
        all.hits += one.hits;
        all.writes += one.writes;
        all.refused += one.refused;
        all.failed += one.failed;
        all.slowest = all.slowest.max(one.slowest);
    }
    attacker.abort();
    all.app_bytes = 1000 * (app.requests().len() - before) as u64;
    all
}

async fn honest(address: SocketAddr, number: usize, stop: Arc<AtomicBool>) -> Honest {
    let (mut client, mut seen) = (Client::new(address), Honest::default());
    // Not all of them at the same moment.
    sleep(PAUSE * u32::try_from(number).unwrap_or_default() / 20).await;
    for round in number.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let is_write = round % WRITE_EVERY == 0;
        let began = Instant::now();
        let reply = if is_write {
            client.try_send("POST", &format!("/own/{number}"), &[], "{\"a\":1}").await
        } else {
            let key = (round * 7 + number * 6) % KEYS;
            client.try_send("GET", &format!("/v/{key}"), &[], "").await
        };
        seen.slowest = seen.slowest.max(began.elapsed());
        seen.reads += usize::from(!is_write);
        match reply {
            Ok(reply) if reply.status == 200 => {
                seen.writes += usize::from(is_write);
                seen.hits += usize::from(reply.cache() == "HIT");
            }
            Ok(reply) if reply.status == 503 => seen.refused += 1,
            _ => seen.failed += 1,
        }
        sleep(PAUSE).await;
    }
    seen
}
