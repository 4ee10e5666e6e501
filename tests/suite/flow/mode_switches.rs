//! Switches of one sidecar: what they take away, what they leave, and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{Client, Response, Scene, Socket, eventually};

const RULES: &str = r#"
[[routes]]
path = "/a/{id}"
ttl = "10m"
scope = "public"
tags = ["all"]

[[routes]]
path = "/b/{id}"
ttl = "10m"
scope = "public"

[[routes]]
path = "/file-off"
ttl = "10m"
scope = "public"
mode = "off"

[[purges]]
path = "/a/{*rest}"
tags = ["all"]
"#;

const LONG: Duration = Duration::from_secs(30);

/// An origin whose bodies count the writes that it has seen.
async fn scene(rules: &str) -> Scene {
    let writes = AtomicU64::new(0);
    Scene::start(rules, move |request| {
        if request.method != "GET" {
            writes.fetch_add(1, Ordering::SeqCst);
        }
        Response::ok(format!("{} {}", request.path, writes.load(Ordering::SeqCst)))
    })
    .await
}

async fn fill(scene: &Scene, path: &str) {
    eventually(&format!("{path} is stored"), LONG, || async {
        scene.get(path).await.cache() == "HIT"
    })
    .await;
}

async fn order(scene: &Scene, body: Value) -> Value {
    scene.sidecar.admin_ok("/mode", &body).await
}

async fn list(scene: &Scene) -> Vec<Value> {
    let modes: Value = scene.sidecar.admin_get("/mode").await.json();
    modes["switches"].as_array().expect("switches").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_is_switched_off_goes_to_the_origin_and_says_why() {
    let scene = scene(RULES).await;
    for path in ["/a/1", "/b/1"] {
        fill(&scene, path).await;
    }
    let done = order(&scene, json!({ "mode": "off", "route": "/a/{id}", "for": "10m" })).await;
    assert_eq!((&done["shared"], &done["ended"]), (&json!(false), &json!(0)), "{done}");
    assert!(done["why"].as_str().is_some_and(|why| why.contains("no [redis]")), "{done}");
    let reply = scene.get("/a/1").await;
    assert_cache(&reply, "BYPASS", "it is off");
    assert!(reply.cache_status().contains("switched off"), "{}", reply.cache_status());
    assert_cache(&scene.get("/b/1").await, "HIT", "the other route");
    let stats = scene.sidecar.stats().await;
    let left = stats["switches"][0]["left_s"].as_f64().expect("a number");
    assert!(left > 500.0 && left <= 600.0, "{left}");
    assert_eq!(stats["routes"][0]["switch"]["mode"], "off", "{stats}");
    assert_eq!(stats["routes"][0]["mode"], "on", "the file stays what it is");
    assert_eq!(stats["routes"][1]["switch"], Value::Null);
    assert_eq!(stats["ready"]["status"], "ready", "a switch is no fault");
    let question = json!({ "method": "GET", "target": "/a/1" });
    let explained = scene.sidecar.admin_ok("/explain", &question).await.to_string();
    for part in ["switched off until", "GMT", "left), by admin", "\"switched off\""] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let done = order(&scene, json!({ "mode": "on", "route": "/a/{id}" })).await;
    assert_eq!(done["ended"], 1);
    assert_cache(&scene.get("/a/1").await, "HIT", "what was stored is still there");
    let events = scene.sidecar.admin_get("/metrics").await;
    for line in [
        "sidecache_mode_switches 0",
        "sidecache_mode_switches_set_total{by=\"admin\"} 1",
        "sidecache_mode_switches_ended_total{by=\"admin\"} 1",
        "reason=\"switched_off\"",
    ] {
        assert!(events.text().contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_takes_away_and_never_gives() {
    let scene = scene(RULES).await;
    fill(&scene, "/a/1").await;
    // Of two switches and the file, the strictest holds, in any order.
    order(&scene, json!({ "mode": "shadow" })).await;
    assert!(scene.get("/a/1").await.cache_status().contains("shadow"));
    order(&scene, json!({ "mode": "off", "route": "/a/{id}" })).await;
    assert!(scene.get("/a/1").await.cache_status().contains("switched off"));
    order(&scene, json!({ "mode": "off" })).await;
    order(&scene, json!({ "mode": "shadow", "route": "/a/{id}" })).await;
    assert!(scene.get("/a/1").await.cache_status().contains("switched off"));
    assert!(scene.get("/file-off").await.cache_status().contains("mode off"));
    let done = order(&scene, json!({ "mode": "on" })).await;
    assert_eq!((&done["ended"], &done["switches"]), (&json!(2), &json!([])), "{done}");
    assert_cache(&scene.get("/a/1").await, "HIT", "nothing holds any more");
    for _ in 0..2 {
        assert_cache(&scene.get("/file-off").await, "BYPASS", "the file has it off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_purge_while_a_route_is_switched_off() {
    for mode in ["off", "shadow"] {
        let scene = scene(RULES).await;
        fill(&scene, "/a/1").await;
        order(&scene, json!({ "mode": mode, "route": "/a/{id}", "for": "10m" })).await;
        assert_eq!(scene.send("PUT", "/a/1", &[], "").await.status, 200);
        order(&scene, json!({ "mode": "on", "route": "/a/{id}" })).await;
        let reply = scene.get("/a/1").await;
        assert_eq!(reply.text(), "/a/1 1", "{mode}: nothing from before the write is served");
        assert_cache(&reply, "MISS", mode);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_ends_by_itself() {
    let scene = scene(RULES).await;
    fill(&scene, "/a/1").await;
    order(&scene, json!({ "mode": "off", "for": "1s" })).await;
    order(&scene, json!({ "mode": "off", "route": "/b/{id}", "for": "24h" })).await;
    assert_cache(&scene.get("/a/1").await, "BYPASS", "it holds");
    scene.clock.advance(Duration::from_secs(1));
    eventually("it has ended", LONG, || async { scene.get("/a/1").await.cache() == "HIT" }).await;
    let left = list(&scene).await;
    assert_eq!((left.len(), &left[0]["route"]), (1, &json!("/b/{id}")), "the other one holds");
    assert_cache(&scene.get("/b/1").await, "BYPASS", "the other one holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_switches_and_ends_those_of_routes_that_are_gone() {
    let scene = scene(RULES).await;
    for route in ["/a/{id}", "/b/{id}"] {
        order(&scene, json!({ "mode": "off", "route": route })).await;
    }
    let fewer = RULES.replacen("path = \"/b/{id}\"", "path = \"/c/{id}\"", 1);
    std::fs::write(&scene.sidecar.file, scene.sidecar.with_rules(&fewer)).expect("a file");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    let left = list(&scene).await;
    assert_eq!((left.len(), &left[0]["route"]), (1, &json!("/a/{id}")));
    assert_cache(&scene.get("/a/1").await, "BYPASS", "the new rules obey the switch");
    std::fs::write(&scene.sidecar.file, scene.sidecar.with_rules(RULES)).expect("a file");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    fill(&scene, "/b/1").await;
    let metrics = scene.sidecar.admin_get("/metrics").await;
    assert!(metrics.text().contains("sidecache_mode_switches_ended_total{by=\"reload\"} 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_switches_are_refused_and_change_nothing() {
    let scene = scene(RULES).await;
    fill(&scene, "/a/1").await;
    for (body, status, why) in [
        (json!({ "mode": "off", "route": "/a/{ib}" }), 400, "did you mean /a/{id}?"),
        (json!({ "mode": "on", "route": "/nothing-like-it" }), 400, "GET /routes"),
        (json!({ "mode": "off", "for": "25h" }), 400, "at most 1d"),
        (json!({ "mode": "off", "for": "0s" }), 400, "longer than zero"),
        (json!({ "mode": "off", "for": "1 h" }), 400, "space"),
        (json!({ "mode": "offf" }), 400, "not a mode"),
        (json!({ "mode": "off", "until": 1 }), 400, "unknown field"),
        (json!("off"), 400, ""),
    ] {
        let reply = scene.sidecar.admin_post("/mode", &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(reply.text().contains(why), "{body}: {}", reply.text());
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = r#"{"mode":"off"}"#;
    let reply = Client::of_admin(scene.sidecar.admin).send("POST", "/mode", &form, body).await;
    assert_eq!(reply.status, 415, "a page of another origin can send this");
    let reply = Client::of_admin(scene.sidecar.admin).send("DELETE", "/mode", &[], "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD, POST"));
    assert_eq!(list(&scene).await, [] as [Value; 0]);
    assert_cache(&scene.get("/a/1").await, "HIT", "nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_who_has_set_and_ended_a_switch() {
    let scene = scene(RULES).await;
    order(&scene, json!({ "mode": "off", "route": "/a/{id}", "for": "10m" })).await;
    order(&scene, json!({ "mode": "on" })).await;
    order(&scene, json!({ "mode": "shadow", "for": "1s" })).await;
    scene.clock.advance(Duration::from_secs(2));
    eventually("it has ended", LONG, || async { list(&scene).await.is_empty() }).await;
    let mut stream = Socket::connect(scene.sidecar.admin).await;
    stream
        .send(format!("GET /events?last=50 HTTP/1.1\r\nHost: {}\r\n\r\n", scene.sidecar.admin))
        .await;
    let mut words = Vec::new();
    while words.len() < 4 {
        let line = stream.line().await;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).expect("JSON");
        let of = |name: &str| event[name].clone();
        if event["kind"] == "mode" {
            words.push((of("change"), of("mode"), of("route"), of("by")));
        }
    }
    let route = json!("/a/{id}");
    assert_eq!(
        words,
        [
            (json!("set"), json!("off"), route.clone(), json!("admin")),
            (json!("ended"), json!("off"), route, json!("admin")),
            (json!("set"), json!("shadow"), Value::Null, json!("admin")),
            (json!("ended"), json!("shadow"), Value::Null, json!("time")),
        ]
    );
}

/// While a route is switched off, nobody looks at what the origin refuses to whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r950_who_was_refused_while_a_route_was_off_gets_no_hit_afterwards() {
    let revoked = Arc::new(AtomicBool::new(false));
    let rules =
        "[[routes]]\npath = \"/s\"\nttl = \"10m\"\nscope = \"shared\"\nadmit_for = \"10m\"\n";
    let is_revoked = Arc::clone(&revoked);
    let scene = Scene::start(rules, move |request| {
        let is_eve = request.headers.get("authorization").is_some_and(|value| value == "eve");
        if is_eve && is_revoked.load(Ordering::SeqCst) {
            return Response::status(403, "no");
        }
        Response::ok("secret")
    })
    .await;
    let ask = async |who: &str| scene.ask("/s", &[("authorization", who)]).await;
    for who in ["ann", "eve"] {
        eventually("there are hits", LONG, || async { ask(who).await.cache() == "HIT" }).await;
    }
    for mode in ["off", "shadow"] {
        order(&scene, json!({ "mode": mode, "route": "/s" })).await;
        revoked.store(true, Ordering::SeqCst);
        assert_eq!(ask("eve").await.status, 403, "{mode}");
        order(&scene, json!({ "mode": "on", "route": "/s" })).await;
        let reply = ask("eve").await;
        assert_eq!((reply.status, reply.cache() == "HIT"), (403, false), "{mode}");
        revoked.store(false, Ordering::SeqCst);
        for who in ["ann", "eve"] {
            eventually("there are hits", LONG, || async { ask(who).await.cache() == "HIT" }).await;
        }
    }
}
