//! `collapse = "cluster"`: of all sidecars that share a Redis, one asks the app for a key, and the
//! others wait to hear of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::origin::versioned;
use crate::support::redis_kinds::RedisKind;
use crate::support::{
    Client, Origin, Point, RedisServer, Reply, Response, Sidecar, eventually, metric,
};

/// The body of [`big`]: of many chunks, so that it is seen when one is missing.
const BODY: usize = 200_000;

/// Long deadlines: these tests are of numbers and of order, not of a machine's speed.
fn rules(redis: &RedisServer, collapse: &str) -> String {
    rules_with(&redis.table(), collapse)
}

fn rules_with(table: &str, collapse: &str) -> String {
    format!(
        r#"{table}deadline = "1s"
collapse = "{collapse}"

[[routes]]
path  = "/v/{{name}}"
ttl   = "5m"
scope = "public"
tags  = ["v:{{name}}"]

[[purges]]
path = "/w/{{name}}"
tags = ["v:{{name}}"]
"#
    )
}

/// Everything under `/v/` is the same large body, and never to be stored under `/v/no-…`.
fn big(request: &crate::support::origin::Request) -> Response {
    let answer = Response::ok("x".repeat(BODY));
    if request.path.starts_with("/v/no-") {
        answer.header("cache-control", "no-store")
    } else {
        answer
    }
}

async fn sum(sidecars: &[Sidecar], name: &str) -> u64 {
    join_all(sidecars.iter().map(|sidecar| metric(sidecar.admin, name))).await.iter().sum()
}

/// Returns when each sidecar uses Redis and hears the others.
async fn ready(sidecars: &[Sidecar], collapse: &str) {
    let all = sidecars.len() as u64;
    eventually("the sidecars use Redis", Duration::from_secs(20), || async {
        sum(sidecars, "sidecache_redis_up").await == all
            && (collapse == "process" || sum(sidecars, "sidecache_cluster_listening").await == all)
    })
    .await;
}

async fn three(app: &Origin, redis: &RedisServer, collapse: &str) -> [Sidecar; 3] {
    let rules = rules(redis, collapse);
    let start = || Sidecar::start(app.address, &rules);
    let sidecars = [start().await, start().await, start().await];
    ready(&sidecars, collapse).await;
    sidecars
}

/// So many clients, each of the next sidecar, that ask for a path at the same time.
fn crowd(sidecars: &[Sidecar], clients: usize, path: &str) -> Vec<JoinHandle<(Reply, Duration)>> {
    (0..clients).map(|client| ask(sidecars[client % sidecars.len()].address, path)).collect()
}

fn ask(address: SocketAddr, path: &str) -> JoinHandle<(Reply, Duration)> {
    let path = path.to_owned();
    tokio::spawn(async move {
        let start = Instant::now();
        let reply = Client::new(address).get(&path, &[]).await;
        (reply, start.elapsed())
    })
}

async fn answers(crowd: Vec<JoinHandle<(Reply, Duration)>>) -> Vec<(Reply, Duration)> {
    join_all(crowd)
        .await
        .into_iter()
        .map(|reply| reply.expect("each request is answered"))
        .collect()
}

fn all_whole(answers: &[(Reply, Duration)]) {
    for (reply, _) in answers {
        assert_eq!((reply.status, reply.body.len()), (200, BODY), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_of_three_sidecars_cost_the_app_one_request() {
    let (redis, app) = (RedisServer::start(), Origin::slow(Duration::from_millis(500), big));
    let sidecars = three(&app, &redis, "cluster").await;
    let answers = answers(crowd(&sidecars, 300, "/v/a")).await;
    all_whole(&answers);
    assert_eq!(app.count("GET", "/v/a"), 1);
    assert_eq!(sum(&sidecars, "sidecache_cluster_leases_total").await, 1);
    // Who waited says what a follower in the leader's process says.
    let waited = answers.iter().filter(|(reply, _)| reply.cache_status().contains("collapsed"));
    let says = |reply: &Reply| {
        (
            reply.cache().to_owned(),
            reply.cache_status().contains("fwd=uri-miss; fwd-status=200; ttl="),
        )
    };
    assert!(waited.clone().count() >= 200, "{}", waited.count());
    for (reply, _) in waited {
        assert_eq!(says(reply), ("MISS".to_owned(), true), "{}", reply.cache_status());
    }
    for sidecar in &sidecars {
        assert_eq!(Client::new(sidecar.address).get("/v/a", &[]).await.cache(), "HIT");
    }
    assert_eq!(sum(&sidecars, "sidecache_cluster_waiting").await, 0, "nobody is left waiting");
    let keys = redis.command("KEYS {sidecache}:l:*").expect("redis answers");
    assert!(keys.starts_with("*0"), "no lease is left: {keys}");
}

/// Two sidecars with this `[redis]` table, asked by a crowd: how often the app is asked.
async fn asked_through(table: &str, collapses: bool) -> usize {
    let app = Origin::start(big);
    let text = rules_with(table, "cluster");
    let sidecars =
        [Sidecar::start(app.address, &text).await, Sidecar::start(app.address, &text).await];
    ready(&sidecars, if collapses { "cluster" } else { "process" }).await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let crowd = crowd(&sidecars, 20, "/v/a");
    hold.arrived().await;
    if collapses {
        eventually("the other waits", Duration::from_secs(10), || async {
            sum(&sidecars, "sidecache_cluster_waiting").await == 1
        })
        .await;
    } else {
        hold.arrived().await;
    }
    hold.release();
    all_whole(&answers(crowd).await);
    app.count("GET", "/v/a")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_needs_the_old_protocol_is_no_obstacle() {
    let redis = RedisKind::start("--port", &["--requirepass", "open sesame"]);
    let table = format!(
        "[redis]\nurl = \"unix://{}?db=0\"\npassword = \"open sesame\"\n",
        redis.socket.display()
    );
    assert_eq!(asked_through(&table, true).await, 1);
}

/// What an ACL user of the sidecar needs (docs/src/how-to/several-sidecars.md).
const ACL: &str = "~sidecache:* ~{sidecache}:* resetchannels &{sidecache}:bus* -@all +select +ping \
    +client|id +info +time +mget +get +set +incr +del +unlink \
    +type +pttl +pexpire +hget +hset +hdel +hexists +hgetall +publish +subscribe +eval +evalsha";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_user_needs_the_channel_and_goes_on_without_it() {
    for (more, asked) in [("&{sidecache}:filled*", 1), ("", 2)] {
        let user = format!("--user sidecar on >secret {ACL} {more}");
        let redis = RedisKind::start("--port", &user.split_whitespace().collect::<Vec<_>>());
        let table =
            format!("[redis]\nurl = \"redis://sidecar:secret@127.0.0.1:{}/0\"\n", redis.port);
        assert_eq!(asked_through(&table, asked == 1).await, asked, "with {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collapsing_in_each_process_costs_one_request_of_each() {
    let (redis, app) = (RedisServer::start(), Origin::slow(Duration::from_millis(500), big));
    let sidecars = three(&app, &redis, "process").await;
    all_whole(&answers(crowd(&sidecars, 300, "/v/a")).await);
    let asked = app.count("GET", "/v/a");
    assert!((1..=3).contains(&asked), "{asked}");
    let channels = redis.command("PUBSUB CHANNELS").expect("an answer");
    assert!(
        channels.contains("{sidecache}:bus") && !channels.contains(":filled"),
        "nobody listens for nothing: {channels}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_do_not_wait_for_one_another() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    let sidecars = three(&app, &redis, "cluster").await;
    let hold = app.hold("GET", "/v/slow", Point::Before);
    let slow = ask(sidecars[0].address, "/v/slow");
    hold.arrived().await;
    for sidecar in &sidecars {
        Client::new(sidecar.address).get("/v/quick", &[]).await;
    }
    assert!(!slow.is_finished());
    hold.release();
    assert_eq!(slow.await.expect("answered").0.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_killed_in_mid_fill_holds_the_others_up_for_its_lease_and_no_longer() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    let text = rules(&redis, "cluster");
    let doomed = Sidecar::spawn(app.address, &text).await;
    let others =
        [Sidecar::start(app.address, &text).await, Sidecar::start(app.address, &text).await];
    ready(std::slice::from_ref(&doomed), "cluster").await;
    ready(&others, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let mut client = Client::new(doomed.address);
    let first = tokio::spawn(async move { client.try_send("GET", "/v/a", &[], "").await });
    hold.arrived().await;
    let crowd = crowd(&others, 40, "/v/a");
    eventually("both others wait", Duration::from_secs(10), || async {
        sum(&others, "sidecache_cluster_waiting").await == 2
    })
    .await;
    let killed = Instant::now();
    drop(doomed);
    assert!(first.await.expect("it does not panic").is_err());
    // One of the two takes the lease over and asks; from here on the app answers.
    hold.arrived().await;
    let took = killed.elapsed();
    hold.release();
    all_whole(&answers(crowd).await);
    // Its lease of five seconds, and time to notice. Whoever misses its end waits out
    // `limits.wait`.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(app.count("GET", "/v/a"), 2, "one of the dead, one of the two that waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_queues_twice_for_what_is_not_stored() {
    let latency = Duration::from_millis(500);
    let (redis, app) = (RedisServer::start(), Origin::slow(latency, big));
    let sidecars = three(&app, &redis, "cluster").await;
    let answers = answers(crowd(&sidecars, 60, "/v/no-store")).await;
    all_whole(&answers);
    let slowest = answers.iter().map(|(_, took)| *took).max().expect("there are some");
    // The wait for the leader, and a request of one's own. One after the other they would take
    // sixty.
    assert!(slowest < latency * 5, "{slowest:?}");
    assert_eq!(app.count("GET", "/v/no-store"), 60, "each caller has an answer of its own");
    let waits = sum(&sidecars, "sidecache_cluster_waits_total").await;
    assert!((1..=2).contains(&waits), "{waits}");
    // It is remembered, by those too who only waited.
    let before = sum(&sidecars, "sidecache_cluster_leases_total").await + waits;
    let start = Instant::now();
    for sidecar in &sidecars {
        Client::new(sidecar.address).get("/v/no-store", &[]).await;
    }
    assert!(start.elapsed() >= latency * 3);
    let after = sum(&sidecars, "sidecache_cluster_leases_total").await
        + sum(&sidecars, "sidecache_cluster_waits_total").await;
    assert_eq!(after, before, "nobody asked for a lease again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_during_the_wait_fails_nobody_and_ends_the_wait_at_once() {
    let (mut redis, app) = (RedisServer::start(), Origin::start(big));
    let sidecars = three(&app, &redis, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let first = ask(sidecars[0].address, "/v/a");
    hold.arrived().await;
    let crowd = crowd(&sidecars[1..], 40, "/v/a");
    eventually("both others wait", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 2
    })
    .await;
    redis.kill();
    let killed = Instant::now();
    // Each of the two asks for itself now.
    hold.arrived().await;
    hold.arrived().await;
    let took = killed.elapsed();
    hold.release();
    all_whole(&answers(crowd).await);
    assert_eq!(first.await.expect("answered").0.status, 200);
    // Sooner than the lease of the first, which nobody waits for any more.
    assert!(took < Duration::from_secs(4), "{took:?}");
    // And it goes on when Redis is back.
    redis.restart();
    ready(&sidecars, "cluster").await;
    all_whole(&answers(self::crowd(&sidecars, 30, "/v/b")).await);
    assert_eq!(app.count("GET", "/v/b"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_frozen_during_the_wait_fails_nobody() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    // The deadline is what the patience of the ear is made of.
    let text = rules(&redis, "cluster").replace("deadline = \"1s\"", "deadline = \"100ms\"");
    let sidecars =
        [Sidecar::start(app.address, &text).await, Sidecar::start(app.address, &text).await];
    ready(&sidecars, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let first = ask(sidecars[0].address, "/v/a");
    hold.arrived().await;
    let waiting = ask(sidecars[1].address, "/v/a");
    eventually("the other waits", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 1
    })
    .await;
    redis.freeze();
    let frozen = Instant::now();
    hold.arrived().await;
    let took = frozen.elapsed();
    hold.release();
    all_whole(&answers(vec![first, waiting]).await);
    redis.thaw();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_asks_redis_for_nothing_but_the_renewal_of_the_lease() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    let sidecars = three(&app, &redis, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let crowd = crowd(&sidecars, 150, "/v/a");
    hold.arrived().await;
    eventually("both others wait", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 2
    })
    .await;
    eventually("all of the crowd have looked", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_fill_waiters").await == 147
    })
    .await;
    let calls = async || {
        let idle = sum(&sidecars, "sidecache_redis_heartbeats_total").await;
        sum(&sidecars, "sidecache_redis_calls_total").await - idle
    };
    let (before, start) = (calls().await, Instant::now());
    // Nothing is asked while this passes: it shows only in time.
    sleep(Duration::from_secs(2)).await;
    let (grown, took) = (calls().await - before, start.elapsed());
    // What goes on without any request, heartbeats aside: of each sidecar's two ears two words to
    // itself in a second, and one more at the edges.
    let idle = 3 * 2 * 2 * (took.as_secs() + 1);
    let renewals = 2;
    assert!(grown <= idle + renewals, "{grown} calls in {took:?}");
    assert!(grown > 0, "the metric is the right one");
    hold.release();
    all_whole(&answers(crowd).await);
    assert_eq!(app.count("GET", "/v/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_longer_than_its_lease_keeps_it() {
    let (redis, app) = (RedisServer::start(), Origin::slow(Duration::from_millis(6_500), big));
    let sidecars = three(&app, &redis, "cluster").await;
    all_whole(&answers(crowd(&sidecars, 30, "/v/a")).await);
    assert_eq!(app.count("GET", "/v/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_during_the_wait_keeps_the_old_body_from_everybody_who_waited() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let sidecars = three(&app, &redis, "cluster").await;
    // The app has read version 0, and is slow to say it.
    let hold = app.hold("GET", "/v/a", Point::After);
    let first = ask(sidecars[0].address, "/v/a");
    hold.arrived().await;
    let waiting = crowd(&sidecars[1..], 20, "/v/a");
    eventually("both others wait", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 2
    })
    .await;
    let put = Client::new(sidecars[2].address).send("PUT", "/w/a", &[], "").await;
    assert_eq!(put.text(), "1");
    // Who comes after the write does not even wait for the fill from before it.
    let late = ask(sidecars[1].address, "/v/a");
    hold.arrived().await;
    assert!(!late.is_finished());
    hold.release();
    assert_eq!(first.await.expect("answered").0.text(), "0", "it began before the write");
    for (reply, _) in answers(waiting).await {
        assert_eq!(reply.text(), "1", "{}", reply.cache_status());
    }
    assert_eq!(late.await.expect("answered").0.text(), "1");
    for sidecar in &sidecars {
        assert_eq!(Client::new(sidecar.address).get("/v/a", &[]).await.text(), "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_departure_of_the_one_who_asked_first_changes_nothing() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    let sidecars = three(&app, &redis, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let leaders = [ask(sidecars[0].address, "/v/a"), ask(sidecars[1].address, "/v/a")];
    hold.arrived().await;
    eventually("one waits for the other", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 1
    })
    .await;
    let crowd = crowd(&sidecars[..2], 20, "/v/a");
    eventually("the crowd waits", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_fill_waiters").await == 20
    })
    .await;
    for leader in leaders {
        leader.abort();
        assert!(leader.await.is_err());
    }
    // A sidecar sees it when the connection is closed; that it ends nothing shows only in time.
    sleep(Duration::from_millis(300)).await;
    hold.release();
    all_whole(&answers(crowd).await);
    assert_eq!(app.count("GET", "/v/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_fails_is_asked_by_one_sidecar_after_the_other() {
    let (redis, failures) = (RedisServer::start(), AtomicU64::new(2));
    let app = Origin::slow(Duration::from_millis(200), move |request| {
        let fails = failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if fails { Response::hang_up() } else { big(request) }
    });
    let sidecars = three(&app, &redis, "cluster").await;
    let answers = answers(crowd(&sidecars, 60, "/v/a")).await;
    for (reply, _) in &answers {
        assert!([200, 502].contains(&reply.status), "{}", reply.status);
    }
    assert!(
        answers.iter().any(|(reply, _)| reply.body.len() == BODY),
        "who waited is not failed for what the leader met"
    );
    let asked = app.count("GET", "/v/a");
    assert!(asked <= 5, "{asked} requests: the failure lets no crowd through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_place_of_a_lease_or_a_message_costs_nothing() {
    let (redis, app) = (RedisServer::start(), Origin::start(big));
    let sidecars = three(&app, &redis, "cluster").await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let crowd = crowd(&sidecars, 6, "/v/a");
    hold.arrived().await;
    eventually("both others wait", Duration::from_secs(10), || async {
        sum(&sidecars, "sidecache_cluster_waiting").await == 2
    })
    .await;
    for message in [
        "x",
        "\"\"",
        "\"0000000000000000000000000000000000000000000000000000000000000000 stored\"",
        "\"\\xff\\xfe\"",
    ] {
        let heard = redis.command(&format!("PUBLISH {{sidecache}}:filled {message}"));
        assert_eq!(heard.as_deref(), Some(":3\r\n"), "all three listen");
    }
    let keys = redis.command("KEYS {sidecache}:l:*").expect("redis answers");
    let lease = keys.lines().nth(2).expect("there is a lease").to_owned();
    // Nobody renews this one, and it never ends.
    assert_eq!(redis.command(&format!("SET {lease} garbage")).as_deref(), Some("+OK\r\n"));
    hold.release();
    let start = Instant::now();
    all_whole(&answers(crowd).await);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    for sidecar in &sidecars {
        assert_eq!(Client::new(sidecar.address).get("/v/a", &[]).await.cache(), "HIT");
    }
}
