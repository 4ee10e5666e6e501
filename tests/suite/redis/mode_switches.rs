//! Switches of all sidecars that share a Redis: how they reach the others, what becomes of them
//! while Redis is lost, and what strangers can do with them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Fault, FaultProxy, Origin, RedisServer, Response, Sidecar, eventually, metric,
};

/// The message that the switches have changed, as anybody may publish it.
const HINT: &str = "PUBLISH {sidecache}:bus '{\"say\":\"modes\"}'";

const LONG: Duration = Duration::from_secs(30);

const RULES: &str = r#"
[[routes]]
path = "/a/{id}"
ttl = "10m"
scope = "public"

[[routes]]
path = "/b/{id}"
ttl = "10m"
scope = "public"
"#;

/// The same, for one that reaches Redis through this port.
fn rules(port: u16) -> String {
    format!("[redis]\nurl = \"redis://127.0.0.1:{port}/0\"\n{RULES}")
}

async fn start(origin: &Origin, port: u16) -> Sidecar {
    let sidecar = Sidecar::start(origin.address, &rules(port)).await;
    shared(&sidecar).await;
    sidecar
}

/// Returns when it trusts Redis.
async fn shared(sidecar: &Sidecar) {
    eventually("Redis is in use", LONG, || async {
        sidecar.stats().await["redis"]["state"] == "shared"
            && metric(sidecar.admin, "sidecache_lease_held").await == 1
    })
    .await;
}

async fn is(sidecar: &Sidecar, path: &str, cache: &str) {
    eventually(&format!("{path} is {cache}"), LONG, || async {
        Client::new(sidecar.address).get(path, &[]).await.cache() == cache
    })
    .await;
}

async fn order(sidecar: &Sidecar, body: Value) -> Value {
    sidecar.admin_ok("/mode", &body).await
}

async fn list(sidecar: &Sidecar) -> Vec<Value> {
    let modes: Value = sidecar.admin_get("/mode").await.json();
    modes["switches"].as_array().expect("switches").clone()
}

fn must(redis: &RedisServer, command: &str) {
    let answer = redis.command(command).expect("redis answers");
    assert!(!answer.starts_with('-'), "{command}: {answer}");
}

fn origin() -> Origin {
    Origin::start(|_| Response::ok("text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_reaches_all_sidecars_and_those_that_join_later() {
    let (redis, origin) = (RedisServer::start(), origin());
    let (one, two) = (start(&origin, redis.port).await, start(&origin, redis.port).await);
    for sidecar in [&one, &two] {
        is(sidecar, "/a/1", "HIT").await;
    }
    let done = order(&one, json!({ "mode": "off", "route": "/a/{id}", "for": "10m" })).await;
    assert_eq!((&done["shared"], &done["why"]), (&json!(true), &Value::Null), "{done}");
    for sidecar in [&one, &two] {
        is(sidecar, "/a/1", "BYPASS").await;
        is(sidecar, "/b/1", "HIT").await;
    }
    let told = &list(&two).await[0];
    assert_eq!((&told["by"], &told["shared"]), (&json!("peer"), &json!(true)), "{told}");
    let left = told["left_s"].as_f64().expect("a number");
    assert!(left > 500.0 && left <= 600.0, "what is left is told: {told}");
    // One that joins later has it from its first request on, and ends it for everyone.
    let three = Sidecar::start(origin.address, &rules(redis.port)).await;
    let first = Client::new(three.address).get("/a/1", &[]).await;
    assert_eq!(first.cache(), "BYPASS", "{}", first.cache_status());
    shared(&three).await;
    eventually("it is told", LONG, || async { list(&three).await.len() == 1 }).await;
    let done = order(&three, json!({ "mode": "on" })).await;
    assert_eq!((&done["shared"], &done["ended"]), (&json!(true), &json!(1)), "{done}");
    for sidecar in [&one, &two, &three] {
        is(sidecar, "/a/1", "HIT").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_ends_everywhere_by_itself() {
    let (redis, origin) = (RedisServer::start(), origin());
    let (one, two) = (start(&origin, redis.port).await, start(&origin, redis.port).await);
    for sidecar in [&one, &two] {
        is(sidecar, "/a/1", "HIT").await;
    }
    order(&one, json!({ "mode": "off", "for": "3s" })).await;
    for sidecar in [&one, &two] {
        eventually("it was set", LONG, || async {
            let metrics = sidecar.admin_get("/metrics").await;
            let set = |by| format!("sidecache_mode_switches_set_total{{by=\"{by}\"}} 1");
            metrics.text().contains(&set("admin")) || metrics.text().contains(&set("peer"))
        })
        .await;
        is(sidecar, "/a/1", "HIT").await;
        assert_eq!(metric(sidecar.admin, "sidecache_mode_switches").await, 0);
    }
    eventually("Redis has let go of it", LONG, || async {
        redis.command("EXISTS {sidecache}:modes").is_some_and(|answer| answer.starts_with(":0"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_lost_redis_holds_its_own_and_learns_the_rest_when_it_is_back() {
    let (redis, origin) = (RedisServer::start(), origin());
    let wire = FaultProxy::start(redis.port).await;
    let (one, two) = (start(&origin, redis.port).await, start(&origin, wire.address.port()).await);
    is(&one, "/a/1", "HIT").await;
    is(&one, "/b/1", "HIT").await;
    wire.set(Fault::Cut);
    eventually("Redis is lost", LONG, || async { two.stats().await["redis"]["state"] != "shared" })
        .await;
    // Each sets one that the other cannot hear of.
    let done = order(&two, json!({ "mode": "off", "route": "/a/{id}", "for": "10m" })).await;
    assert_eq!(done["shared"], false, "{done}");
    assert!(done["why"].as_str().is_some_and(|why| why.contains("redis is lost")), "{done}");
    is(&two, "/a/1", "BYPASS").await;
    let done = order(&one, json!({ "mode": "shadow", "route": "/b/{id}", "for": "10m" })).await;
    assert_eq!(done["shared"], true, "{done}");
    assert_eq!(list(&two).await.len(), 1);
    wire.set(Fault::None);
    for sidecar in [&one, &two] {
        eventually("both know both", LONG, || async { list(sidecar).await.len() == 2 }).await;
        is(sidecar, "/a/1", "BYPASS").await;
        is(sidecar, "/b/1", "BYPASS").await;
    }
    // What is ended while Redis is lost stays ended.
    wire.set(Fault::Cut);
    eventually("Redis is lost", LONG, || async { two.stats().await["redis"]["state"] != "shared" })
        .await;
    assert_eq!(order(&two, json!({ "mode": "on" })).await["shared"], false);
    assert_eq!(list(&one).await.len(), 2);
    wire.set(Fault::None);
    for sidecar in [&one, &two] {
        eventually("both are ended", LONG, || async { list(sidecar).await.is_empty() }).await;
        is(sidecar, "/a/1", "HIT").await;
    }
    shared(&two).await;
    assert_eq!(list(&two).await, [] as [Value; 0], "it does not come back");
}

/// Redis was flushed, or has evicted the key: that is no order to end switches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r951_what_redis_loses_is_sent_again_and_what_was_ended_is_not() {
    let (redis, origin) = (RedisServer::start(), origin());
    let (one, two) = (start(&origin, redis.port).await, start(&origin, redis.port).await);
    order(&one, json!({ "mode": "off", "route": "/a/{id}", "for": "10m" })).await;
    eventually("it is told", LONG, || async { list(&two).await.len() == 1 }).await;
    must(&redis, "DEL {sidecache}:modes");
    must(&redis, HINT);
    eventually("it is in Redis again", LONG, || async {
        redis.command("HLEN {sidecache}:modes").is_some_and(|answer| answer.starts_with(":1"))
    })
    .await;
    for sidecar in [&one, &two] {
        assert_eq!(list(sidecar).await.len(), 1);
        is(sidecar, "/a/1", "BYPASS").await;
    }
    // An end leaves a mark, so that it is not mistaken for a loss.
    order(&two, json!({ "mode": "on", "route": "/a/{id}" })).await;
    eventually("it is ended", LONG, || async { list(&one).await.is_empty() }).await;
    for _ in 0..3 {
        order(&one, json!({ "mode": "on" })).await;
        assert_eq!(list(&two).await, [] as [Value; 0]);
    }
}

/// Two of an id, one of a time beyond all limits, ones for other routes, of another form, of a
/// great many names, and a key of another type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r952_what_strangers_write_turns_nothing_on_and_is_bounded() {
    let (redis, origin) = (RedisServer::start(), origin());
    let one = start(&origin, redis.port).await;
    let time = redis.command("TIME").expect("redis answers");
    let now: u64 = time.lines().nth(2).and_then(|line| line.parse().ok()).expect("seconds");
    let soon = (now + 600) * 1000;
    let far = (now + 1_000_000) * 1000;
    let id = "00000000000000fe";
    must(&redis, &format!("HSET {{sidecache}}:modes /a/{{id}} \"off {id} {soon}\""));
    must(&redis, &format!("HSET {{sidecache}}:modes /b/{{id}} \"off {id} {far}\""));
    must(&redis, &format!("HSET {{sidecache}}:modes /none \"off {id} {soon}\""));
    must(&redis, &format!("HSET {{sidecache}}:modes * \"on {id} {soon}\""));
    must(&redis, "HSET {sidecache}:modes /c nonsense");
    must(&redis, "PUBLISH {sidecache}:bus '{\"say\":\"modes\",\"more\":[1]}'");
    is(&one, "/a/1", "BYPASS").await;
    is(&one, "/b/1", "HIT").await;
    let held = list(&one).await;
    assert_eq!((held.len(), &held[0]["route"]), (1, &json!("/a/{id}")), "{held:?}");
    // Whatever was written, an end is an end.
    assert_eq!(order(&one, json!({ "mode": "on" })).await["shared"], true);
    is(&one, "/a/1", "HIT").await;
    // More than there can be: it is not ours.
    let many: Vec<String> = (0..600).map(|n| format!("/x{n} \"off {id} {soon}\"")).collect();
    for part in many.chunks(100) {
        must(&redis, &format!("HSET {{sidecache}}:modes {}", part.join(" ")));
    }
    must(&redis, HINT);
    eventually("it is removed", LONG, || async {
        redis.command("EXISTS {sidecache}:modes").is_some_and(|answer| answer.starts_with(":0"))
    })
    .await;
    must(&redis, "SET {sidecache}:modes text");
    let done = order(&one, json!({ "mode": "off", "route": "/b/{id}" })).await;
    assert_eq!(done["shared"], true, "{done}");
    is(&one, "/b/1", "BYPASS").await;
}

/// A message costs a read at most, and many of them cost few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r953_a_flood_of_messages_costs_few_reads() {
    let (redis, origin) = (RedisServer::start(), origin());
    let one = start(&origin, redis.port).await;
    is(&one, "/a/1", "HIT").await;
    let calls = async || {
        metric(one.admin, "sidecache_redis_calls_total").await
            - metric(one.admin, "sidecache_redis_heartbeats_total").await
    };
    let (before, began) = (calls().await, tokio::time::Instant::now());
    for n in 0..500 {
        must(&redis, HINT);
        must(&redis, &format!("PUBLISH {{sidecache}}:bus '{{\"say\":\"modes{n}\"}}'"));
    }
    is(&one, "/a/1", "HIT").await;
    let (grown, took) = (calls().await - before, began.elapsed());
    assert!(grown <= 20 + 8 * (took.as_secs() + 1), "{grown} calls in {took:?}");
    assert_eq!(list(&one).await, [] as [Value; 0]);
}

/// A restart takes a switch over from Redis, and ends one that no other place knows of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_restarts_takes_over_what_redis_holds_and_nothing_else() {
    let (redis, origin) = (RedisServer::start(), origin());
    let mut with = Sidecar::spawn(origin.address, &rules(redis.port)).await;
    shared(&with).await;
    let mut without = Sidecar::spawn(origin.address, RULES).await;
    for sidecar in [&with, &without] {
        order(sidecar, json!({ "mode": "off", "for": "10m" })).await;
        is(sidecar, "/a/1", "BYPASS").await;
    }
    let clock = sidecache::app::Clock::system();
    with.crash();
    with.start_again(&clock).await;
    eventually("it is taken over", LONG, || async { list(&with).await.len() == 1 }).await;
    is(&with, "/a/1", "BYPASS").await;
    without.crash();
    without.start_again(&clock).await;
    is(&without, "/a/1", "HIT").await;
    assert_eq!(list(&without).await, [] as [Value; 0]);
}
