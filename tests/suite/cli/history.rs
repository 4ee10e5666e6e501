//! The history of the numbers: what an operator finds there after an incident, and what is a gap.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::upgrades::{Service, end};
use crate::support::{Client, Origin, RedisServer, Response, Scene, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_secs(5);

const RULES: &str = r#"
[[routes]]
path = "/a"
ttl = "5m"
scope = "public"
"#;

async fn scene(table: &str) -> Scene {
    Scene::start(&format!("{table}{RULES}"), |_| Response::ok("a")).await
}

async fn history(scene: &Scene, range: &str) -> Value {
    let reply = scene.sidecar.admin_get(&format!("/history?range={range}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The numbers of a series, without its gaps.
fn numbers(history: &Value, series: &str) -> Vec<f64> {
    let all = history.pointer(&format!("/series/{series}")).and_then(Value::as_array);
    let all = all.unwrap_or_else(|| panic!("no {series} in {history}"));
    assert_eq!(all.len() as u64, history["slots"].as_u64().expect("a number"), "{series}");
    all.iter().filter_map(Value::as_f64).collect()
}

fn total(history: &Value, series: &str) -> f64 {
    numbers(history, series).iter().sum()
}

fn kinds(history: &Value) -> Vec<String> {
    let events = history["events"].as_array().expect("events");
    events.iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn text(history: &Value, kind: &str) -> String {
    let events = history["events"].as_array().expect("events");
    let event = events.iter().find(|event| event["kind"] == kind);
    event.map_or_else(String::new, |event| event["text"].as_str().expect("a text").to_owned())
}

async fn marked(scene: &Scene, expected: &[&str]) -> Value {
    eventually(&format!("{expected:?} are marked"), LONG_ENOUGH, || async {
        kinds(&history(scene, "1h").await) == expected
    })
    .await;
    history(scene, "1h").await
}

/// Moves time on by one step, until a series has so many in all.
async fn counted(scene: &Scene, series: &str, expected: f64) {
    let before = numbers(&history(scene, "1h").await, "covered_ms").len();
    scene.clock.advance(STEP);
    eventually(&format!("{series} has {expected}"), LONG_ENOUGH, || async {
        let history = history(scene, "1h").await;
        let is_read = numbers(&history, "covered_ms").len() > before;
        let missing = expected - total(&history, series);
        // A client may have its response before that is counted: then the next step has it.
        if is_read && missing > 0.0 {
            scene.clock.advance(STEP);
        }
        is_read && missing.abs() < f64::EPSILON
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r920_whoever_looks_after_the_incident_sees_it() {
    let scene = scene("").await;
    // The first reading is the base of the others.
    counted(&scene, "requests/HIT", 0.0).await;
    scene.fill("/a").await;
    for _ in 0..9 {
        scene.get("/a").await;
    }
    for _ in 0..3 {
        scene.get("/other").await;
    }
    counted(&scene, "requests/HIT", 9.0).await;
    scene.origin_goes_away().await;
    for _ in 0..4 {
        assert_eq!(scene.get("/other").await.status, 502);
    }
    marked(&scene, &["restart", "app_down"]).await;
    counted(&scene, "app_failures", 4.0).await;
    // Nobody has looked, and hours later somebody does.
    for range in ["6h", "24h", "7d"] {
        let history = history(&scene, range).await;
        assert_eq!(kinds(&history), ["restart", "app_down"], "{range}");
        assert!(text(&history, "app_down").contains("does not accept connections"), "{history}");
        for (series, expected) in [
            ("requests/HIT", 9.0),
            ("requests/MISS", 1.0),
            ("requests/BYPASS", 7.0),
            ("app_failures", 4.0),
            ("server_errors", 4.0),
        ] {
            let total = total(&history, series);
            assert!((total - expected).abs() < f64::EPSILON, "{range}: {series} is {total}");
        }
        assert!(!numbers(&history, "latency_ms/hit/p95").is_empty());
        assert!(!numbers(&history, "latency_ms/app/p50").is_empty());
        assert!(total(&history, "bytes/cache") >= 9.0 && total(&history, "bytes/app") > 0.0);
        assert!(numbers(&history, "memory/entries").iter().all(|entries| *entries <= 1.0));
        assert!(numbers(&history, "redis_ms").is_empty(), "there is no Redis");
        let statuses = history["series"]["status"].as_array().expect("statuses");
        assert!(statuses.contains(&json!("degraded")), "{statuses:?}");
    }
    let stats = scene.sidecar.stats().await;
    let (bytes, limit) = (&stats["history"]["bytes"], &stats["history"]["limit_bytes"]);
    assert!(bytes.as_u64().expect("bytes") < limit.as_u64().expect("bytes"), "{stats}");
    assert_eq!((limit, &stats["history"]["events"]), (&json!(2 << 20), &json!(2)));
    let reply = scene.sidecar.admin_get("/metrics").await;
    let metrics = reply.text();
    assert!(metrics.contains("\nsidecache_history_bytes "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_that_nobody_observed_is_a_gap() {
    let scene = scene("").await;
    // The first reading is the base of the others.
    counted(&scene, "requests/HIT", 0.0).await;
    scene.fill("/a").await;
    scene.get("/a").await;
    counted(&scene, "requests/HIT", 1.0).await;
    // As after a suspended night, or a clock that is set forward. What was counted just before has
    // no time.
    for _ in 0..50 {
        scene.get("/a").await;
    }
    scene.clock.advance(Duration::from_hours(2));
    let history = marked(&scene, &["gap"]).await;
    assert!(text(&history, "gap").starts_with("no numbers for 72"), "{history}");
    assert!(total(&history, "requests/HIT") < 50.0, "no spike: {history}");
    scene.get("/other").await;
    counted(&scene, "requests/BYPASS", 1.0).await;
    // A clock that is set back changes nothing: the sidecar goes by its own count.
    scene.clock.step_wall(-3_600_000);
    scene.get("/other").await;
    counted(&scene, "requests/BYPASS", 2.0).await;
    assert_eq!(kinds(&self::history(&scene, "6h").await), ["restart", "gap"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_of_everything_and_reloads_are_marked() {
    let scene = scene("").await;
    scene.sidecar.admin_ok("/purge", &json!({ "tags": ["a"] })).await;
    scene.sidecar.admin_ok("/purge", &json!({ "everything": true })).await;
    scene.sidecar.admin_ok("/purge", &json!({ "everything": true })).await;
    scene.sidecar.admin_ok("/purge", &json!({ "everything": true, "soft": true })).await;
    scene.sidecar.rewrite(&RULES.replace("5m", "6m"));
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    scene.sidecar.rewrite(&RULES.replace("5m", "6 parsecs"));
    for _ in 0..3 {
        assert_eq!(scene.sidecar.admin_post("/reload", &json!({})).await.status, 422);
    }
    let expected = ["restart", "purge_everything", "purge_everything", "reload", "reload_failed"];
    eventually("the reload is marked", LONG_ENOUGH, || async {
        kinds(&history(&scene, "5m").await).len() >= expected.len()
    })
    .await;
    let history = history(&scene, "5m").await;
    assert_eq!(kinds(&history)[..3], expected[..3]);
    assert_eq!(
        (&history["events"][1]["times"], &history["events"][1]["text"]),
        (&json!(2), &json!("by admin"))
    );
    assert_eq!(history["events"][2]["text"], "by admin, soft");
    assert_eq!(text(&history, "reload"), "1 change");
    assert!(text(&history, "reload_failed").contains("parsecs"), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_redis_and_its_return_are_marked() {
    let mut redis = RedisServer::start();
    let table = format!("{}rejoin_grace = \"0s\"\nloss_after = \"300ms\"\n", redis.table());
    let scene = scene(&table).await;
    scene.fill("/a").await;
    redis.kill();
    let history = marked(&scene, &["restart", "redis_lost"]).await;
    assert!(text(&history, "redis_lost").starts_with("redis is lost: "), "{history}");
    redis.restart();
    marked(&scene, &["restart", "redis_lost", "redis_back"]).await;
    scene.clock.advance(STEP);
    eventually("the round trip is known", LONG_ENOUGH, || async {
        !numbers(&self::history(&scene, "1h").await, "redis_ms").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_range_is_refused_with_the_ranges_that_there_are() {
    let scene = scene("").await;
    for (query, error) in [
        ("?range=2h", "\"2h\" is no range"),
        ("?range=", "\"\" is no range"),
        ("?range=1h&range=7d", "the query must be `range` alone"),
        ("?rang=1h", "the query must be `range` alone"),
        ("?range=%00%1b[31m", "is no range"),
    ] {
        let reply = scene.sidecar.admin_get(&format!("/history{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        let answer = reply.json();
        assert!(answer["error"].as_str().expect("an error").contains(error), "{query}: {answer}");
        let hint = answer["hint"].as_str().expect("a hint");
        assert!(hint.contains("/history?range=5m, ") && hint.ends_with("=7d"), "{hint}");
    }
    let hour = scene.sidecar.admin_get("/history").await.json();
    assert_eq!((&hour["range"], &hour["step_ms"]), (&json!("1h"), &json!(5000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_begins_a_new_history() {
    let app = Origin::start(versioned());
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let ask = async |admin| Client::of_admin(admin).get("/history", &[]).await.json();
    let first = ask(service.admin).await;
    assert!(text(&first, "restart").ends_with("started"), "{first}");
    let mut old = service.take_over().await;
    assert_eq!(end(&mut old).await.code(), Some(0));
    let second = ask(service.admin).await;
    assert_eq!(kinds(&second), ["restart"]);
    assert!(text(&second, "restart").ends_with("took over from an earlier process"), "{second}");
}
