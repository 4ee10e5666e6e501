//! Redis is well all the time, and the sidecars are not: they are stopped, get a tenth of the
//! processor, or reach Redis over a slow link. None of that is a loss of Redis, and no read is
//! stale.
//!
//! The same beside twenty processes that compute: the runs whose names begin with `heavy_`, which
//! `tests/run --all` and `cargo nextest run --run-ignored all -E 'test(/starved::heavy_/)'` run.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use super::stage::{SIDECARS, Stage};
use super::verdict::Ended;
use crate::support::history::Window;
use crate::support::{Client, Fault, eventually, exposition};

/// Redis as it is used by default: what a loss would let a sidecar serve by itself is stale soon.
const DEFAULTS: &str = "";
/// Writes go so far apart that the reads between them can be hits.
const SELDOM: std::ops::Range<u64> = 120..240;
/// How many of the reads that can be hits are hits wherever Redis replies, in percent.
const HITS: usize = 90;
/// The same beside busy processes, where what reads Redis and what answers for it are starved, too.
const BUSY_HITS: usize = 75;
/// How many processes compute beside the sidecars.
const BUSY: usize = 20;

/// Processes that compute until this is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn start(count: usize) -> Self {
        let one = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("sh runs")
        };
        Self((0..count).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A shell that sends signals, so that each of them does not cost a process.
struct Signals(Child);

impl Signals {
    fn start() -> Self {
        let shell = Command::new("sh")
            .args(["-c", "while read -r name pids; do kill -\"$name\" $pids; done"])
            .stdin(Stdio::piped())
            .spawn();
        Self(shell.expect("sh runs"))
    }

    fn send(&mut self, name: &str, pids: &str) {
        let stdin = self.0.stdin.as_mut().expect("its input is a pipe");
        writeln!(stdin, "{name} {pids}").expect("the shell reads");
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Lets processes run for 10 ms of each 100 ms, as a quota of a tenth of a processor does.
async fn throttle(stage: &Stage, victims: std::ops::Range<usize>, time: Duration) {
    let pids: Vec<String> =
        victims.map(|victim| stage.sidecars[victim].pid().to_string()).collect();
    let (pids, mut signals) = (pids.join(" "), Signals::start());
    for _ in 0..time.as_millis() / 100 {
        signals.send("STOP", &pids);
        sleep(Duration::from_millis(90)).await;
        signals.send("CONT", &pids);
        sleep(Duration::from_millis(10)).await;
    }
}

/// Stops the sidecars by turns, for 50 ms to 8 s.
async fn stop_by_turns(stage: &Stage) {
    for (turn, ms) in [50, 400, 1_500, 100, 2_500, 8_000, 200].into_iter().enumerate() {
        let victim = turn % SIDECARS;
        stage.leave(victim);
        stage.sidecars[victim].signal("STOP");
        sleep(Duration::from_millis(ms)).await;
        stage.sidecars[victim].signal("CONT");
        stage.use_again(victim);
        sleep(Duration::from_millis(300)).await;
    }
}

/// Replies of Redis come up to 100 ms later, and now and then later than `deadline`.
async fn slow_links(stage: &Stage, time: Duration) {
    let slow = Fault::Jitter { most: Duration::from_millis(50), tail: Duration::from_millis(150) };
    stage.proxies.iter().for_each(|proxy| proxy.set(slow));
    sleep(time).await;
    stage.proxies.iter().for_each(|proxy| proxy.set(Fault::None));
}

/// No read was stale, nobody took Redis for lost, and most reads were hits.
fn judge(run: &Ended, losses: &[(f64, f64)], hits: usize) {
    run.is_coherent();
    println!("losses of Redis and of the lease: {losses:?}");
    let none = losses.iter().all(|(redis, _)| *redis < 1.0);
    assert!(none, "Redis replied all the time: {losses:?} losses");
    for round in &run.rounds {
        let counts = run.history.counts(Some(Window { from: round.broken, to: round.healed }));
        // The first read of each sidecar after a write cannot be a hit.
        let possible = counts.reads.saturating_sub(counts.writes * SIDECARS);
        assert!(counts.hits * 100 >= possible * hits, "too few hits: {counts:?}");
    }
}

/// How often each sidecar has lost Redis, and its lease.
async fn losses(stage: &Stage) -> Vec<(f64, f64)> {
    let mut all = Vec::new();
    for sidecar in &stage.sidecars {
        let admin = sidecar.admin.expect("its metrics have an address");
        let answer = Client::of_admin(admin).get("/metrics", &[]).await;
        let read = exposition::read(answer.text(), exposition::Format::Text);
        let read = read.expect("what the sidecar answers is an exposition");
        let sum = |name| read.sum(name, &[]);
        all.push((sum("sidecache_redis_losses_total"), sum("sidecache_leases_lost_total")));
    }
    all
}

/// Runs a fault beside so many busy processes.
async fn run(busy: usize, fault: impl AsyncFn(&Stage)) {
    let found = std::sync::Mutex::new(Vec::new());
    let stage = Stage::paced(DEFAULTS, SELDOM).await;
    let ended = stage
        .run(async |stage: &mut Stage| {
            let busy = Busy::start(busy);
            fault(stage).await;
            let losses = losses(stage).await;
            *found.lock().expect("nobody panics with it") = losses;
            drop(busy);
        })
        .await;
    let found = found.into_inner().expect("nobody panics with it");
    judge(&ended, &found, if busy == 0 { HITS } else { BUSY_HITS });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_runs_a_tenth_of_the_time() {
    run(0, async |stage| throttle(stage, 0..1, Duration::from_secs(8)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_all_sidecars_run_a_tenth_of_the_time() {
    run(0, async |stage| throttle(stage, 0..SIDECARS, Duration::from_secs(8)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_sidecars_are_stopped_by_turns() {
    run(0, async |stage| stop_by_turns(stage).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_the_links_to_redis_are_slow() {
    run(0, async |stage| slow_links(stage, Duration::from_secs(8)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes half a minute of all processors: `tests/run --all` runs it"]
async fn heavy_no_read_is_stale_when_sidecars_are_starved_beside_busy_processes() {
    run(BUSY, async |stage| {
        throttle(stage, 0..1, Duration::from_secs(5)).await;
        throttle(stage, 0..SIDECARS, Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes half a minute of all processors: `tests/run --all` runs it"]
async fn heavy_no_read_is_stale_when_sidecars_are_stopped_beside_busy_processes() {
    run(BUSY, async |stage| stop_by_turns(stage).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes half a minute of all processors: `tests/run --all` runs it"]
async fn heavy_no_read_is_stale_when_the_links_are_slow_beside_busy_processes() {
    run(BUSY, async |stage| slow_links(stage, Duration::from_secs(8)).await).await;
}

/// Nothing may be stale at all, and what is refused is refused only while Redis is gone.
const REFUSE: &str = "writes = \"refuse\"\ndegraded_ttl = \"2s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_was_stopped_and_writes_are_refused_meanwhile() {
    refusing(0, redis_stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_that_serves_from_memory_is_cut_off() {
    refusing(0, one_cut_off).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes half a minute of all processors: `tests/run --all` runs it"]
async fn heavy_no_read_is_stale_when_redis_was_stopped_or_one_is_cut_off_beside_busy_processes() {
    refusing(BUSY, async |stage: &mut Stage| {
        redis_stopped(stage).await;
        one_cut_off(stage).await;
    })
    .await;
}

/// What it sends arrives, what it is told does not: its departures and heartbeats go out, and it
/// loses Redis nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_hears_nothing_again_and_again() {
    refusing(0, async |stage: &mut Stage| {
        for _ in 0..3 {
            stage.proxies[0].set(Fault::FreezeAnswers);
            sleep(Duration::from_millis(3_500)).await;
            stage.proxies[0].set(Fault::None);
            sleep(Duration::from_millis(2_500)).await;
        }
    })
    .await;
}

/// What a sidecar that was cut off had sent arrives at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_is_frozen_again_and_again() {
    refusing(0, async |stage: &mut Stage| {
        for _ in 0..3 {
            stage.proxies[0].set(Fault::Freeze);
            sleep(Duration::from_millis(3_200)).await;
            stage.proxies[0].set(Fault::None);
            sleep(Duration::from_secs(2)).await;
        }
    })
    .await;
}

/// Sidecars that wait for a peer longer than a request may wait for Redis refuse nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn healthy_sidecars_refuse_nothing_while_a_peer_may_serve_by_itself_for_long() {
    let lines = "writes = \"refuse\"\ndegraded_ttl = \"6s\"";
    let run = Stage::paced(lines, SELDOM).await.run(async |stage: &mut Stage| {
        stage.proxies[0].set(Fault::Cut);
        sleep(Duration::from_secs(9)).await;
        stage.proxies[0].set(Fault::None);
    });
    let mut run = run.await;
    run.writes_in_fault = 0;
    run.is_coherent_but(|_, _| false, |one, _| one.status == 503 && one.through == 0);
}

/// Connecting takes many round trips.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sidecars_join_over_a_slow_link_and_join_again() {
    let slow = Fault::Delay(Duration::from_millis(100));
    let stage = Stage::set_behind("deadline = \"1s\"", SELDOM, slow).await;
    let run = stage.run(async |stage: &mut Stage| {
        for sidecar in 0..SIDECARS {
            joins(stage, sidecar, 1.0).await;
        }
        stage.proxies[0].set(Fault::Cut);
        sleep(Duration::from_millis(200)).await;
        stage.proxies[0].set(slow);
        joins(stage, 0, 2.0).await;
    });
    let run = run.await;
    // What was written through the one that was cut off is seen when it is back.
    let violations = run.history.stale_reads();
    let unexpected: Vec<_> = violations
        .iter()
        .filter(|one| one.read.through != 0 && !one.missed_only_writes_through(0))
        .map(ToString::to_string)
        .collect();
    assert!(unexpected.is_empty() && run.late.is_empty(), "{unexpected:?} {:?}", run.late);
}

/// Returns when a sidecar has joined Redis so often.
async fn joins(stage: &Stage, sidecar: usize, times: f64) {
    let admin = stage.sidecars[sidecar].admin.expect("its metrics have an address");
    eventually("it joins Redis", Duration::from_secs(15), || async {
        let answer = Client::of_admin(admin).get("/metrics", &[]).await;
        let read = exposition::read(answer.text(), exposition::Format::Text);
        read.expect("an exposition").sum("sidecache_redis_rejoins_total", &[]) >= times
    })
    .await;
}

async fn redis_stopped(stage: &mut Stage) {
    stage.redis.freeze();
    sleep(Duration::from_secs(5)).await;
    stage.redis.thaw();
}

async fn one_cut_off(stage: &mut Stage) {
    stage.proxies[0].set(Fault::Freeze);
    sleep(Duration::from_secs(6)).await;
    stage.proxies[0].set(Fault::None);
}

async fn refusing(busy: usize, fault: impl AsyncFn(&mut Stage)) {
    let stage = Stage::paced(REFUSE, SELDOM).await;
    let mut run = stage
        .run(async |stage: &mut Stage| {
            let _busy = Busy::start(busy);
            fault(stage).await;
        })
        .await;
    // While Redis is gone there are none.
    run.writes_in_fault = 0;
    run.is_coherent_but(
        |_, _| false,
        |one, round| {
            one.status == 503 && round.broken <= one.done && one.sent < round.healed + super::REJOIN
        },
    );
}
