//! A long run in which clients leave at all moments, the app fails in all ways, and the sidecar is
//! restarted, upgraded and killed: no place, no descriptor and no byte is lost.
//!
//! A run is a series of rounds. In each of them clients that stay and clients that leave are at work
//! while one thing happens; then all clients end, and everything has to be as it was: no gauge above
//! zero, the same descriptors, every place at the app free, and counters that agree with what the
//! clients got and what the app served. Every body that comes is checked whole, and every version
//! that is read against the writes before it.
//!
//! Nothing here depends on speed: what a round tolerates is a matter of what happens in it. In the
//! gate each kind of round comes once. For ten minutes, with the numbers of a run that failed:
//!
//! ```sh
//! SIDECACHE_SOAK=600 SIDECACHE_SEED=7 cargo nextest run --profile soak -E 'test(/^flow::soak::/)'
//! ```

mod clients;
mod ledger;
mod stage;

use std::time::Duration;

use tokio::time::Instant;

use crate::support::departures::Numbers;
use crate::support::frail_app::FrailApp;
use crate::support::soak_time;
use stage::{Event, Stage};

/// One process, and an app that fails.
const APP: [Event; 7] = [
    Event::Calm,
    Event::Departures,
    Event::AppRefuses,
    Event::AppHangs,
    Event::AppCutsHeads,
    Event::AppCutsBodies,
    Event::AppRestarts,
];

/// One process after the other.
const PROCESSES: [Event; 5] =
    [Event::Upgrade, Event::Restart, Event::Crash, Event::Upgrades, Event::UpgradeAndAppRestart];

/// How much more memory a process may take in its last minute than in its second one: the allocator
/// keeps some of what was free at one moment and not at another.
const GROWTH: u64 = 32 << 20;

/// The number that decides what each client does. A soak takes another one each time.
fn seed() -> u64 {
    let given = std::env::var("SIDECACHE_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("SIDECACHE_SEED is a number"));
    let seed = given.unwrap_or_else(|| if soak_time().is_zero() { 1 } else { rand::random() });
    println!("SIDECACHE_SEED={seed}");
    seed
}

/// Rounds of all these kinds, in a random order, again and again for the time of a soak.
async fn play(stage: &mut Stage, events: &[Event], numbers: &mut Numbers) {
    let begun = Instant::now();
    loop {
        let mut left = events.to_vec();
        while !left.is_empty() {
            let next = numbers.below(left.len() as u64);
            stage.round(left.swap_remove(usize::try_from(next).expect("it is small"))).await;
            let soak = soak_time();
            if !soak.is_zero() && begun.elapsed() >= soak {
                return;
            }
        }
        if soak_time().is_zero() {
            return;
        }
    }
}

/// The most memory that was resident in this stretch of time.
fn most(memory: &[(Duration, u64)], from: Duration, to: Duration) -> u64 {
    let of = memory.iter().filter(|(at, _)| (from..to).contains(at));
    of.map(|(_, bytes)| *bytes).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_loses_nothing_while_clients_leave_and_the_app_fails() {
    let mut numbers = Numbers::new(seed());
    let mut stage = Stage::set(FrailApp::on_port().await, false, numbers.fork()).await;
    play(&mut stage, &APP, &mut numbers).await;
    let memory = stage.end().await;
    let minute = Duration::from_mins(1);
    let last = memory.last().map_or(Duration::ZERO, |(at, _)| *at);
    if last > 3 * minute {
        let second = most(&memory, minute, 2 * minute);
        let last = most(&memory, last.saturating_sub(minute), Duration::MAX);
        println!("{second} bytes of memory in the second minute, {last} in the last one");
        assert!(second > 0 && last <= second + GROWTH, "it grows: {memory:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_upgrades_lose_nothing_while_clients_leave_and_the_app_fails() {
    let mut numbers = Numbers::new(seed());
    let mut stage = Stage::set(FrailApp::on_socket().await, true, numbers.fork()).await;
    play(&mut stage, &PROCESSES, &mut numbers).await;
    stage.end().await;
}
