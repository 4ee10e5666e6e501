//! Redis is dead: nobody notices by errors or by a request that hangs, and there are hits again
//! once it is back. What it costs in time is measured by `benches/figures.rs`.

use std::time::Duration;

use super::stage::Stage;
use super::{LONG, STRICT};
use crate::support::history::Window;

/// A read waits for no more than a deadline of Redis, and a write until the leases of others are
/// over; what is later than this hangs.
const HANGS: Duration = Duration::from_secs(5);
/// Hits come back within two seconds of Redis's return on a quiet machine. Later than this they
/// wait for something that does not come.
const RETURN: Duration = Duration::from_secs(5);
/// So many requests at least, to show something.
const ENOUGH: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_redis_costs_no_error_and_no_request_hangs() {
    let fault = async |stage: &mut Stage| {
        stage.redis.kill();
        // How long it is dead.
        tokio::time::sleep(LONG).await;
        stage.redis.restart();
    };
    let run = Stage::set(STRICT).await.run(fault).await;
    for round in &run.rounds {
        let dead = Window { from: round.broken, to: round.healed };
        let sent = run.history.operations().iter();
        let sent: Vec<_> = sent.filter(|one| dead.from <= one.sent && one.sent < dead.to).collect();
        assert!(sent.len() > ENOUGH, "only {} requests", sent.len());
        let slowest = sent.iter().map(|one| one.done - one.sent).max().unwrap_or_default();
        println!("{} requests with Redis dead, the slowest took {slowest:?}", sent.len());
        assert!(slowest < HANGS, "a request took {slowest:?}");
        let took = round.hit_again - round.healed;
        assert!(took <= RETURN, "hits came back {took:?} after Redis did");
    }
    run.is_coherent();
}
