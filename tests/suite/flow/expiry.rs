//! A popular key that expires: the origin gets one request, in the background, and clients do not
//! notice.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::child::ChildSidecar;
use crate::support::client;
use crate::support::origin::Record;
use crate::support::{Client, Origin, Response, Sidecar, Socket};

/// How long the origin takes.
const FILL: Duration = Duration::from_millis(100);
const CLIENTS: u32 = 16;
/// Requests per second that the clients together send, if the machine lets them.
const RATE: u32 = 5_000;
/// How often the key expires under load.
const EXPIRIES: usize = 3;

/// A response under load: when it was requested, how long it took, its `X-Cache`, and which of the
/// origin's responses it was.
struct Sample {
    at: Instant,
    took: Duration,
    cache: String,
    version: usize,
}

/// One client's share of the load.
async fn load(mut client: Socket, stop: CancellationToken) -> Vec<Sample> {
    let mut ticks = interval(Duration::from_secs(1) * CLIENTS / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut samples = Vec::new();
    while !stop.is_cancelled() {
        ticks.tick().await;
        let at = Instant::now();
        let answer = client.get("/a").await;
        assert_eq!(answer.status, 200, "{}", answer.cache_status());
        let body = answer.whole().expect("a whole body");
        let version = String::from_utf8_lossy(&body).parse().expect("the app answers a number");
        samples.push(Sample { at, took: at.elapsed(), cache: answer.cache().to_owned(), version });
    }
    samples
}

/// Puts load on a key of a route with these lines until it has expired often enough. Returns what
/// the clients and the origin saw.
async fn under_load(lines: &str) -> (Vec<Sample>, Record) {
    // Without a `Date`: it counts in seconds, and the age that it tells could be one too many.
    let app = Origin::start(|request| {
        Response::new().wait(FILL).whole("", request.number.to_string().as_bytes())
    });
    let rules = format!("[[routes]]\npath = \"/a\"\nscope = \"public\"\n{lines}\n");
    let sidecar = ChildSidecar::spawn(&format!("url = \"http://{}\"", app.address), &rules).await;
    assert_eq!(client::get(sidecar.address, "/a").await.cache(), "MISS");
    let stop = CancellationToken::new();
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(tokio::spawn(load(Socket::connect(sidecar.address).await, stop.clone())));
    }
    // A key that nobody fills any more does not hold up the test: what the clients saw tells.
    while app.count("GET", "/a") <= EXPIRIES && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(10)).await;
    }
    // The last fill ends, and what it brought is served: the clients say when.
    sleep(FILL * 3).await;
    stop.cancel();
    let elapsed = began.elapsed();
    let mut samples = Vec::new();
    for client in clients {
        samples.extend(client.await.expect("every answer is a whole 200"));
    }
    let rate = samples.len() as u128 * 1000 / elapsed.as_millis();
    println!("{} requests in {elapsed:?}: {rate} per second", samples.len());
    assert!(samples.len() > 1_000, "too few to call it load");
    (samples, app.record("/a"))
}

/// Holds for every way to refresh: one request at a time, at least `apart` after the one before,
/// and no client waits for it.
fn assert_nobody_noticed(samples: &[Sample], app: &Record, apart: Duration) {
    assert!(app.begun.len() > EXPIRIES, "it was refreshed {} times", app.begun.len() - 1);
    assert_eq!(app.most_at_once, 1, "never two at a time");
    for pair in app.begun.windows(2) {
        assert!(pair[1] - pair[0] > apart, "it was asked for again after {:?}", pair[1] - pair[0]);
    }
    let versions: BTreeSet<usize> = samples.iter().map(|sample| sample.version).collect();
    assert!(
        (0..=EXPIRIES).all(|version| versions.contains(&version)),
        "what was fetched was served: {versions:?}"
    );

    // Who waited for a fill that had begun would have its response after the fill's end, whatever
    // the machine. How long the others take is measured by `benches/figures.rs`.
    let fills =
        |at: Instant| app.begun.iter().find(|begun| (**begun..**begun + FILL).contains(&at));
    let during: Vec<_> = samples.iter().filter_map(|one| Some((one, *fills(one.at)?))).collect();
    assert!(!during.is_empty() && during.len() < samples.len());
    let before_its_end = during.iter().filter(|(one, begun)| one.at + one.took < *begun + FILL);
    let (early, all) = (before_its_end.count(), during.len());
    assert!(early > all / 2, "only {early} of {all} were answered before the fill's end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_popular_key_is_refreshed_before_it_expires() {
    let (samples, app) = under_load("ttl = \"2s\"").await;
    let other = samples.iter().find(|sample| sample.cache != "HIT").map(|sample| &sample.cache);
    assert_eq!(other, None, "everybody gets a hit all the time");
    // That it begins earlier than three quarters of its life before the end has a chance of 1 in
    // 10,000.
    assert_nobody_noticed(&samples, &app, Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_stale_key_is_served_while_one_request_refreshes_it() {
    let (samples, app) =
        under_load("ttl = \"1s\"\nstale_while_revalidate = \"10s\"\nearly_refresh = false").await;
    let other = samples
        .iter()
        .find(|sample| !["HIT", "STALE"].contains(&sample.cache.as_str()))
        .map(|sample| &sample.cache);
    assert_eq!(other, None, "everybody is served from what is stored");
    let stale: BTreeSet<usize> = samples
        .iter()
        .filter(|sample| sample.cache == "STALE")
        .map(|sample| sample.version)
        .collect();
    assert!(
        (0..EXPIRIES).all(|version| stale.contains(&version)),
        "each was served stale while the next was fetched: {stale:?}"
    );
    assert_nobody_noticed(&samples, &app, Duration::from_millis(900));
}

/// Fills so many keys one after another and returns the seconds of freshness that their hits tell.
async fn lifetimes(sidecar: &Sidecar, keys: usize) -> Vec<i64> {
    let mut client = Client::new(sidecar.address);
    let mut seconds = Vec::new();
    for key in 0..keys {
        let path = format!("/a/{key}");
        client.get(&path, &[]).await;
        let hit = client.get(&path, &[]).await;
        assert_eq!(hit.cache(), "HIT", "{}", hit.header("cache-status"));
        let status = hit.header("cache-status").to_owned();
        let ttl = status
            .split("; ")
            .find_map(|part| part.strip_prefix("ttl="))
            .and_then(|ttl| ttl.parse().ok());
        seconds.push(ttl.unwrap_or_else(|| panic!("no ttl: {status}")));
    }
    seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_filled_together_do_not_expire_together() {
    // Lifetimes are told in whole seconds, so there have to be many of them.
    let route = "[[routes]]\npath = \"/a/{*rest}\"\nttl = \"10m\"\nscope = \"public\"\n";
    let app = Origin::start(|_| Response::ok("data"));
    let sidecar = Sidecar::start(app.address, &format!("{route}jitter = \"5m\"\n")).await;
    let seconds = lifetimes(&sidecar, 200).await;
    let (least, most) = (
        seconds.iter().min().copied().unwrap_or_default(),
        seconds.iter().max().copied().unwrap_or_default(),
    );
    println!("lifetimes from {least} s to {most} s");
    // Ten seconds for a machine that takes its time between a fill and its hit.
    assert!(
        least >= 290 && most <= 600,
        "from {least} s to {most} s is not within ttl less jitter"
    );
    // The chance that 200 of them leave a sixth at either end empty is 1 in 10^15.
    assert!(least < 350 && most > 550, "from {least} s to {most} s is not spread over the jitter");
    let different: BTreeSet<i64> = seconds.iter().copied().collect();
    assert!(different.len() > 60, "{} different lifetimes", different.len());

    let sidecar = Sidecar::start(app.address, route).await;
    assert!(
        lifetimes(&sidecar, 20).await.iter().all(|seconds| *seconds >= 590),
        "without jitter the ttl is the ttl"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_says_of_freshness_is_not_shortened_by_jitter() {
    let app = Origin::start(|_| Response::ok("data").header("cache-control", "max-age=600"));
    let rules =
        "[[routes]]\npath = \"/a/{*rest}\"\nttl = \"10m\"\njitter = \"5m\"\nscope = \"public\"\n";
    let sidecar = Sidecar::start(app.address, rules).await;
    assert!(
        lifetimes(&sidecar, 50).await.iter().all(|seconds| *seconds >= 590),
        "the app's word is its word"
    );
}
