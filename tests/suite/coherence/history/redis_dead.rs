//! Redis is dead: nobody notices by errors or by slowness, and there are hits again soon after it is back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::STRICT;
use super::stage::Stage;
use crate::support::Client;
use crate::support::history::{Kind, Window};

/// What a sidecar may add to the app's own p99.
const ALLOWANCE: Duration = Duration::from_millis(5);
/// Within this time of Redis's return there are hits again.
const RETURN: Duration = Duration::from_secs(2);
/// So many requests at least, so that the hundredth part of them is more than a few.
const ENOUGH: usize = 500;

/// The time that no more than one in a hundred exceeds.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Asks the app itself, a read or a write of a key of its own in turn, for this long.
async fn ask_directly(address: std::net::SocketAddr, number: usize, within: Duration) -> Vec<Duration> {
    let mut client = Client::new(address);
    let (start, path, mut times) = (Instant::now(), format!("/v/direct-{number}"), Vec::new());
    while start.elapsed() < within {
        let method = if times.len() % 10 == 0 { "PUT" } else { "GET" };
        let sent = Instant::now();
        client.send(method, &path, &[], "").await;
        times.push(sent.elapsed());
        sleep(Duration::from_millis(4)).await;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_redis_costs_no_error_and_no_more_than_five_milliseconds() {
    let direct = std::sync::Mutex::new(Vec::new());
    let fault = async |stage: &mut Stage| {
        stage.redis.kill();
        // Beside the readers and writers, on the same machine at the same time: what slows one down slows the other down.
        let (app, within) = (stage.app.address, Duration::from_secs(4));
        let times = futures_util::future::join_all((0..4).map(|number| ask_directly(app, number, within))).await;
        direct.lock().unwrap().extend(times.concat());
        stage.redis.restart();
    };
    let run = Stage::set(STRICT).await.run(fault).await;
    let dead: Vec<_> = run.rounds.iter().map(|round| Window { from: round.broken, to: round.healed }).collect();
    let within = |sent: Instant| dead.iter().any(|window| window.from <= sent && sent < window.to);
    let through = run.history.operations().iter().filter(|one| within(one.sent));
    let of = |kind: Kind| through.clone().filter(|one| one.kind == kind).map(|one| one.done - one.sent).collect::<Vec<_>>();
    let (reads, writes) = (of(Kind::Read), of(Kind::Write));
    let all = [reads.clone(), writes.clone()].concat();
    let direct = direct.into_inner().unwrap();
    assert!(all.len() > ENOUGH && direct.len() > ENOUGH, "only {} requests, and {} of the app itself", all.len(), direct.len());
    let (own, ours) = (p99(direct), p99(all));
    println!("p99: the app {own:?}, through sidecars {ours:?} (reads {:?}, writes {:?})", p99(reads), p99(writes));
    assert!(ours <= own + ALLOWANCE, "p99 with Redis dead is {ours:?}, and the app's own {own:?}");
    for round in &run.rounds {
        let took = round.hit_again - round.healed;
        assert!(took <= RETURN, "hits came back {took:?} after Redis did");
    }
    run.is_coherent();
}
