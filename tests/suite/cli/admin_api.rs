//! What an operator asks a running sidecar for, and who is not answered.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{Client, RedisServer, Reply, Response, Scene, Socket, eventually};

const RULES: &str = r#"
[fields]
tenant = { header = "x-tenant" }

[[routes]]
path = "/a/{id}"
ttl = "5m"
scope = "public"
key = ["tenant"]
tags = ["all:{tenant}", "one:{id}"]
stale_while_revalidate = "5m"

[[purges]]
path = "/a/{*rest}"
tags = ["all:{tenant}"]
"#;

/// The header that the rules read.
const ACME: [(&str, &str); 1] = [("x-tenant", "acme")];

async fn scene(table: &str) -> Scene {
    Scene::start(&format!("{table}{RULES}"), |request| {
        Response::ok(format!("{} {}", request.method, request.path))
    })
    .await
}

async fn fill(scene: &Scene, path: &str) {
    let what = format!("{path} is stored");
    eventually(&what, Duration::from_secs(10), || async {
        scene.ask(path, &ACME).await.cache() == "HIT"
    })
    .await;
}

async fn send(
    scene: &Scene,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    Client::of_admin(scene.sidecar.admin).send(method, path, headers, body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_by_tag_url_or_of_everything_empties_in_both_tiers() {
    for tier in ["memory", "redis"] {
        let redis = (tier == "redis").then(RedisServer::start);
        let scene = scene(&redis.as_ref().map_or_else(String::new, RedisServer::table)).await;
        for (order, gone, stays) in [
            (json!({ "tags": ["one:1"] }), "/a/1", "/a/2"),
            (json!({ "urls": ["http://app.test/a/1?whatever=1"] }), "/a/1", "/a/2"),
            (json!({ "tags": ["none", "one:2"] }), "/a/2", "/a/1"),
        ] {
            fill(&scene, "/a/1").await;
            fill(&scene, "/a/2").await;
            let done = scene.sidecar.admin_ok("/purge", &order).await;
            assert!(done["took_ms"].is_number() && done["soft"] == false, "{done}");
            assert_cache(&scene.ask(stays, &ACME).await, "HIT", &format!("{tier} {order}"));
            assert_cache(&scene.ask(gone, &ACME).await, "MISS", &format!("{tier} {order}"));
        }
        for order in [json!({ "everything": true }), json!({ "everything": true, "soft": false })] {
            fill(&scene, "/a/1").await;
            fill(&scene, "/a/2").await;
            scene.sidecar.admin_ok("/purge", &order).await;
            for path in ["/a/1", "/a/2"] {
                assert_cache(&scene.ask(path, &ACME).await, "MISS", &format!("{tier} {order}"));
            }
        }
        let metrics = scene.sidecar.admin_get("/metrics").await;
        assert!(
            metrics.text().contains("sidecache_purges_total{by=\"admin\",kind=\"hard\"} 5"),
            "{}",
            metrics.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_makes_stale_what_a_hard_one_would_void() {
    for tier in ["memory", "redis"] {
        let redis = (tier == "redis").then(RedisServer::start);
        let scene = scene(&redis.as_ref().map_or_else(String::new, RedisServer::table)).await;
        for order in [
            json!({ "tags": ["one:1"], "soft": true }),
            json!({ "everything": true, "soft": true }),
        ] {
            fill(&scene, "/a/1").await;
            let asked = scene.count("/a/1");
            scene.sidecar.admin_ok("/purge", &order).await;
            assert_cache(
                &scene.ask("/a/1", &ACME).await,
                "STALE",
                &format!("{tier} {order}: served while it is fetched anew"),
            );
            eventually("it was fetched anew", Duration::from_secs(10), || async {
                scene.ask("/a/1", &ACME).await.cache() == "HIT"
            })
            .await;
            assert_eq!(scene.count("/a/1"), asked + 1, "{tier}");
            scene.sidecar.admin_ok("/purge", &order).await;
            scene.sidecar.admin_ok("/purge", &json!({ "tags": ["one:1"] })).await;
            assert_cache(
                &scene.ask("/a/1", &ACME).await,
                "MISS",
                &format!("{tier}: a hard purge voids what was stale"),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_what_is_stored_and_why_it_would_not_be_served() {
    for tier in ["memory", "redis"] {
        let redis = (tier == "redis").then(RedisServer::start);
        let scene = scene(&redis.as_ref().map_or_else(String::new, RedisServer::table)).await;
        let question = json!({
            "method": "GET",
            "target": "/a/1",
            "headers": [["host", "app.test"], ["x-tenant", "acme"]],
        });
        let explained = scene.sidecar.admin_ok("/explain", &question).await;
        assert_eq!(explained["stored"], Value::Null, "{explained}");
        assert_eq!(explained["lines"][0], json!({ "name": "route", "value": "/a/{id}" }));
        fill(&scene, "/a/1").await;
        let stored = scene.sidecar.admin_ok("/explain", &question).await["stored"].clone();
        assert_eq!(
            (&stored["verdict"], &stored["fresh"], &stored["status"]),
            (&json!("HIT"), &json!(true), &json!(200)),
            "{stored}"
        );
        assert!(stored["ttl_s"].as_f64().is_some_and(|ttl| ttl > 290.0), "{stored}");
        let tags = stored["tags"].as_array().expect("tags");
        assert!(tags.iter().all(|tag| tag["current"] == true) && tags.len() == 3, "{stored}");
        scene.sidecar.admin_ok("/purge", &json!({ "tags": ["one:1"] })).await;
        let stored = scene.sidecar.admin_ok("/explain", &question).await["stored"].clone();
        assert_eq!(
            (&stored["verdict"], &stored["reason"]),
            (&json!("MISS"), &json!("purged")),
            "{stored}"
        );
        let purged: Vec<&Value> = stored["tags"]
            .as_array()
            .expect("tags")
            .iter()
            .filter(|tag| tag["current"] == false)
            .collect();
        assert_eq!(purged, [&json!({ "tag": "one:1", "current": false })], "{tier}: {stored}");
        assert_eq!(scene.count("/a/1"), 1, "nobody asked the app for an explanation");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_move_with_traffic_and_name_the_line_that_would_mend() {
    let scene = scene("").await;
    fill(&scene, "/a/1").await;
    scene.ask("/a/1", &[("x-tenant", "acme"), ("x-account-id", "7")]).await;
    scene.ask("/a/1", &[]).await;
    scene.get("/elsewhere").await;
    let stats = scene.sidecar.stats().await;
    let route = &stats["routes"][0];
    assert_eq!(
        (&route["path"], &route["scope"], &route["ttl_s"]),
        (&json!("/a/{id}"), &json!("public"), &json!(300.0))
    );
    assert_eq!(
        route["requests"],
        json!({ "HIT": 1, "STALE": 0, "REVALIDATED": 0, "MISS": 1, "BYPASS": 2 })
    );
    assert_eq!((&route["hit_ratio"], &route["hit_ratio_all"]), (&json!(0.5), &json!(0.25)));
    let line = scene
        .sidecar
        .with_rules(RULES)
        .lines()
        .position(|line| line == "[[routes]]")
        .expect("a route")
        + 1;
    assert_eq!(route["line"], line);
    let reason = |name: &str| {
        let reasons = route["reasons"].as_array().expect("reasons");
        reasons
            .iter()
            .find(|reason| reason["reason"] == name)
            .unwrap_or_else(|| panic!("{name}: {route}"))
    };
    assert_eq!(
        (&reason("unkeyed header")["subject"], &reason("unkeyed header")["remedy"]),
        // On a public route nothing may depend on an account.
        (&json!("x-account-id"), &Value::Null)
    );
    assert_eq!(
        (&reason("missing field")["subject"], &reason("missing field")["remedy"]),
        (&json!("tenant"), &Value::Null)
    );
    assert_eq!(stats["unrouted"]["requests"]["BYPASS"], 1);
    assert_eq!(stats["totals"]["requests"]["BYPASS"], 3);
    assert!(
        stats["totals"]["bytes_from_cache"].as_u64().is_some_and(|bytes| bytes > 0),
        "{}",
        stats["totals"]
    );
    assert!(route["latency"]["hit"]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{route}");
    assert!(
        stats["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|tag| tag["tag"] == "one:1" && tag["stored"] == 1)),
        "{}",
        stats["tags"]
    );
    assert_eq!(
        (&stats["redis"], &stats["ready"]["status"], &stats["memory"]["entries"]),
        (&Value::Null, &json!("ready"), &json!(1))
    );
}

/// The next event of a stream.
async fn event(stream: &mut Socket) -> Value {
    loop {
        if let Some(data) = stream.line().await.strip_prefix("data: ") {
            return serde_json::from_str(data).expect("JSON");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_of_purges_as_they_happen_and_of_the_last_ones() {
    let scene = scene("").await;
    let listen = async |last: usize| {
        let mut stream = Socket::connect(scene.sidecar.admin).await;
        let request =
            format!("GET /events?last={last} HTTP/1.1\r\nHost: {}\r\n\r\n", scene.sidecar.admin);
        stream.send(request).await;
        stream
    };
    let mut stream = listen(0).await;
    // The head tells that it listens.
    while !stream.line().await.is_empty() {}
    scene.send("PUT", "/a/7", &ACME, "new").await;
    let write = event(&mut stream).await;
    assert_eq!(
        (&write["kind"], &write["by"], &write["method"], &write["path"]),
        (&json!("purge"), &json!("write"), &json!("PUT"), &json!("/a/7"))
    );
    assert_eq!(write["tags"], json!(["all:acme", "uri:app.test/a/7"]));
    scene.sidecar.admin_ok("/purge", &json!({ "tags": ["x"], "soft": true })).await;
    let purge = event(&mut stream).await;
    assert_eq!(
        (&purge["by"], &purge["soft"], &purge["tags"]),
        (&json!("admin"), &json!(true), &json!(["x"]))
    );
    assert_eq!(purge["id"].as_u64(), write["id"].as_u64().map(|id| id + 1));
    let mut later = listen(1).await;
    assert_eq!(event(&mut later).await, purge, "who comes later gets the last one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_forms_and_gets_purge_nothing() {
    let scene = scene("").await;
    fill(&scene, "/a/1").await;
    let everything = r#"{"everything":true}"#;
    let host = scene.sidecar.admin.to_string();
    let mut foreign = Client::new(scene.sidecar.admin);
    let is_json = ("content-type", "application/json");
    let cases: Vec<(Reply, u16, &str)> = vec![
        (foreign.send("POST", "/purge", &[is_json], everything).await, 403, "a foreign Host"),
        (
            send(
                &scene,
                "POST",
                "/purge",
                &[is_json, ("origin", "http://evil.example")],
                everything,
            )
            .await,
            403,
            "a foreign Origin",
        ),
        (
            send(&scene, "POST", "/purge", &[is_json, ("origin", "null")], everything).await,
            403,
            "no Origin to speak of",
        ),
        (
            send(&scene, "POST", "/purge", &[("content-type", "text/plain")], everything).await,
            415,
            "plain text",
        ),
        (
            send(
                &scene,
                "POST",
                "/purge",
                &[("content-type", "application/x-www-form-urlencoded")],
                "everything=true",
            )
            .await,
            415,
            "a form",
        ),
        (send(&scene, "POST", "/purge", &[], everything).await, 415, "nothing said"),
        (send(&scene, "GET", "/purge", &[], "").await, 405, "a GET"),
        (send(&scene, "GET", "/purge?everything=true", &[], "").await, 405, "a GET with a query"),
        (send(&scene, "PURGE", "/purge", &[is_json], everything).await, 405, "another method"),
        (send(&scene, "POST", "/purge", &[is_json], "{}").await, 400, "nothing to purge"),
        (send(&scene, "POST", "/purge", &[is_json], r#"{"everythin":true}"#).await, 400, "a typo"),
        (send(&scene, "POST", "/purge", &[is_json], "{").await, 400, "no JSON"),
        (
            send(
                &scene,
                "POST",
                "/purge",
                &[is_json],
                &format!("{{\"tags\":[\"{}\"]}}", "x".repeat(2 << 20)),
            )
            .await,
            413,
            "too much",
        ),
    ];
    for (reply, status, case) in cases {
        assert_eq!(reply.status, status, "{case}: {}", reply.text());
        assert!(reply.json()["error"].is_string(), "{case}: {}", reply.text());
        if status == 405 {
            assert_eq!(reply.header("allow"), "POST", "{case}");
        }
    }
    assert_cache(&scene.ask("/a/1", &ACME).await, "HIT", "nothing was purged");
    let own = format!("http://{host}");
    let reply = send(
        &scene,
        "POST",
        "/purge",
        &[is_json, ("origin", &own), ("sec-fetch-site", "same-origin")],
        everything,
    )
    .await;
    assert_eq!(reply.status, 200, "the dashboard's own: {}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_everything_but_the_probes_needs_it() {
    let app = crate::support::Origin::start(|_| Response::ok("data"));
    let sidecar =
        crate::support::Sidecar::start_with_token(app.address, RULES, "a-token-of-some-length")
            .await;
    let mut client = Client::of_admin(sidecar.admin);
    let is_json = ("content-type", "application/json");
    for (name, value) in [
        ("", ""),
        ("authorization", "Bearer wrong"),
        ("x-sidecache-token", "a-token-of-some-lengt"),
        ("authorization", "Basic YTpi"),
    ] {
        let headers: Vec<(&str, &str)> =
            if name.is_empty() { vec![is_json] } else { vec![is_json, (name, value)] };
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/stats"),
            ("GET", "/metrics"),
            ("GET", "/events"),
            ("GET", "/tail"),
            ("POST", "/purge"),
            ("POST", "/reload"),
            ("GET", "/nowhere"),
        ] {
            let reply = client.send(method, path, &headers, "").await;
            assert_eq!(reply.status, 401, "{method} {path} with {name} {value}: {}", reply.text());
            assert!(
                reply
                    .headers
                    .get_all("www-authenticate")
                    .iter()
                    .any(|way| way == "Bearer realm=\"sidecache\""),
                "{:?}",
                reply.headers
            );
        }
    }
    for path in ["/live", "/ready"] {
        assert_eq!(client.get(path, &[]).await.status, 200, "{path}");
    }
    // "operator:a-token-of-some-length", as a browser sends it.
    let basic = "Basic b3BlcmF0b3I6YS10b2tlbi1vZi1zb21lLWxlbmd0aA==";
    for (name, value) in [
        ("authorization", "Bearer a-token-of-some-length"),
        ("x-sidecache-token", "a-token-of-some-length"),
        ("authorization", basic),
    ] {
        assert_eq!(client.get("/stats", &[(name, value)]).await.status, 200, "{name}: {value}");
        let reply =
            client.send("POST", "/purge", &[is_json, (name, value)], r#"{"tags":["a"]}"#).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_served_and_every_get_in_it_answers() {
    let scene = scene("").await;
    let document = scene.sidecar.admin_get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        if operations.get("get").is_some() && !["/events", "/tail"].contains(&path.as_str()) {
            let file = &operations["get"]["parameters"][0]["example"];
            let path = &path.replace("{file}", file.as_str().unwrap_or_default());
            let reply = scene.sidecar.admin_get(path).await;
            let said = operations["get"]["responses"]["200"]["content"].as_object();
            assert_eq!(reply.status, 200, "{path}");
            let own = reply.header("content-type");
            assert!(
                said.is_some_and(|said| said.keys().any(|said| own.starts_with(said))),
                "{path}: {own}"
            );
            assert_eq!(reply.header("cache-control"), "no-store", "{path}");
            assert!(
                reply.header("content-security-policy").starts_with("default-src 'none'"),
                "{path}"
            );
        }
    }
}
