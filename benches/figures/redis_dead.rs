//! Requests while Redis is down, compared with requests to the origin on the same machine at the
//! same time.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::print;
use crate::support::origin::versioned;
use crate::support::{Client, Origin, RedisServer, Sidecar, eventually};

const LASTS: Duration = Duration::from_secs(4);
const RULES: &str = "on_redis_loss = \"bypass\"\n[[routes]]\npath = \"/v/{key}\"\nttl = \"60s\"\n\
    scope = \"public\"\ntags = [\"v:{key}\"]\n\
    [[purges]]\npath = \"/v/{key}\"\ntags = [\"v:{key}\"]\n";

/// Sends reads and writes of its own key in turn.
async fn ask(address: SocketAddr, number: usize) -> Vec<Duration> {
    let (mut client, path) = (Client::new(address), format!("/v/{number}"));
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < LASTS {
        let method = if times.len() % 10 == 0 { "PUT" } else { "GET" };
        let sent = Instant::now();
        client.send(method, &path, &[], "").await;
        times.push(sent.elapsed());
        sleep(Duration::from_millis(4)).await;
    }
    times
}

/// Four clients of a sidecar, and four of the origin itself.
pub async fn beside_the_origin() {
    let latency = Duration::ZERO..=Duration::from_millis(5);
    let (mut redis, origin) = (RedisServer::start(), Origin::varying(latency, versioned()));
    let sidecar = Sidecar::spawn(origin.address, &format!("{}{RULES}", redis.table())).await;
    let hits = async || Client::new(sidecar.address).get("/v/0", &[]).await.cache() == "HIT";
    eventually("there are hits", Duration::from_secs(10), hits).await;
    redis.kill();
    let through = join_all((0..4).map(|number| ask(sidecar.address, number)));
    let direct = join_all((4..8).map(|number| ask(origin.address, number)));
    let (through, direct) = tokio::join!(through, direct);
    print("with Redis dead, through the sidecar", through.concat());
    print("with Redis dead, the origin itself", direct.concat());
    redis.restart();
    let took = eventually("there are hits again", Duration::from_secs(20), hits).await;
    println!("hits again after {took:?}");
}
