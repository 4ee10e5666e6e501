//! A popular key that expires: how long hits take while it is refreshed, compared with all others.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::print;
use crate::support::child::ChildSidecar;
use crate::support::{Origin, Response, Socket};

/// How long the origin takes.
const FILL: Duration = Duration::from_millis(100);
const CLIENTS: u32 = 16;
/// The requests per second of all clients together, if the machine is fast enough.
const RATE: u32 = 5_000;
const LASTS: Duration = Duration::from_secs(10);

async fn load(mut client: Socket, stop: CancellationToken) -> Vec<(Instant, Duration)> {
    let mut ticks = interval(Duration::from_secs(1) * CLIENTS / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut times = Vec::new();
    while !stop.is_cancelled() {
        ticks.tick().await;
        let at = Instant::now();
        client.get("/a").await;
        times.push((at, at.elapsed()));
    }
    times
}

/// Refreshed before it expires, and while it is served stale.
pub async fn of_a_popular_key() {
    let stale = "ttl = \"1s\"\nstale_while_revalidate = \"10s\"\nearly_refresh = false";
    for (name, lines) in [("refreshed early", "ttl = \"2s\""), ("served stale", stale)] {
        let origin = Origin::start(|_| Response::new().wait(FILL).whole("", b"data"));
        let rules = format!("[[routes]]\npath = \"/a\"\nscope = \"public\"\n{lines}\n");
        let upstream = format!("url = \"http://{}\"", origin.address);
        let sidecar = ChildSidecar::spawn(&upstream, &rules).await;
        Socket::connect(sidecar.address).await.get("/a").await;
        let stop = CancellationToken::new();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = Socket::connect(sidecar.address).await;
            clients.push(tokio::spawn(load(client, stop.clone())));
        }
        sleep(LASTS).await;
        stop.cancel();
        let begun = origin.record("/a").begun;
        let (mut during, mut between) = (Vec::new(), Vec::new());
        for client in clients {
            for (at, took) in client.await.expect("every response is whole") {
                let fills = begun.iter().any(|begun| (*begun..*begun + FILL).contains(&at));
                if fills { during.push(took) } else { between.push(took) }
            }
        }
        println!("a key {name}, {} times in {LASTS:?}", begun.len() - 1);
        print("  hits during fills", during);
        print("  hits between them", between);
    }
}
