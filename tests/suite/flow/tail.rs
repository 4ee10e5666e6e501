//! The live tail of the admin API: what it shows of requests, what it keeps to itself, and its
//! limits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Response, Scene, Socket, eventually, metric};

const RULES: &str = r#"
[fields]
tenant = { header = "x-tenant" }

[[routes]]
path = "/a/{id}"
ttl = "5m"
scope = "public"
key = ["tenant"]

[[routes]]
path = "/b/{*rest}"
ttl = "5m"
scope = "public"
"#;

const ACME: [(&str, &str); 1] = [("x-tenant", "acme")];

async fn scene() -> Scene {
    Scene::start(RULES, |request| {
        if request.path.starts_with("/broken") {
            return Response::status(500, "");
        }
        Response::ok(format!("{} {}", request.method, request.path))
    })
    .await
}

/// A listener: once this returns, every request from now on is told.
async fn listen(scene: &Scene, query: &str) -> Socket {
    let admin = scene.sidecar.admin;
    let mut stream = Socket::connect(admin).await;
    stream.send(format!("GET /tail{query} HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await;
    let status = stream.line().await;
    assert!(status.contains(" 200 "), "{query}: {status}");
    while !stream.line().await.is_empty() {}
    stream
}

/// The next event of a stream: its name and its data.
async fn event(stream: &mut Socket) -> (String, Value) {
    let mut name = String::new();
    loop {
        let line = stream.line().await;
        if let Some(told) = line.strip_prefix("event: ") {
            told.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (name, serde_json::from_str(data).expect("JSON"));
        }
    }
}

/// The next request of a stream.
async fn request(stream: &mut Socket) -> Value {
    loop {
        let (name, data) = event(stream).await;
        if name == "request" {
            return data;
        }
    }
}

async fn has_listeners(scene: &Scene, count: u64) {
    eventually(&format!("{count} listeners"), Duration::from_secs(30), || async {
        metric(scene.sidecar.admin, "sidecache_tail_subscribers").await == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_tells_each_request_with_what_became_of_it() {
    let scene = scene().await;
    let mut stream = listen(&scene, "").await;
    scene.ask("/a/7", &ACME).await;
    let miss = request(&mut stream).await;
    assert_eq!(
        [&miss["method"], &miss["path"], &miss["route"], &miss["disposition"], &miss["reason"]],
        [&json!("GET"), &json!("/a/7"), &json!("/a/{id}"), &json!("MISS"), &json!("not stored")]
    );
    assert!(
        miss["app_ms"].is_number() && miss["tier"].is_null() && miss["stored"] == true,
        "{miss}"
    );
    eventually("it is stored", Duration::from_secs(30), || async {
        scene.ask("/a/7", &ACME).await.cache() == "HIT"
    })
    .await;
    let hit = loop {
        let told = request(&mut stream).await;
        if told["disposition"] == "HIT" {
            break told;
        }
    };
    assert_eq!([&hit["tier"], &hit["status"]], [&json!("memory"), &json!(200)]);
    assert_eq!(
        (hit["bytes"].as_u64(), &hit["app_ms"]),
        (Some("GET /a/7".len() as u64), &Value::Null)
    );
    assert!(
        hit["duration_ms"].is_number() && hit["at_ms"].as_u64() >= miss["at_ms"].as_u64(),
        "{hit}"
    );
    scene.ask("/a/7", &[]).await;
    let bypass = request(&mut stream).await;
    assert_eq!(
        [&bypass["disposition"], &bypass["reason"], &bypass["subject"]],
        [&json!("BYPASS"), &json!("missing field"), &json!("tenant")]
    );
    scene.send("POST", "/elsewhere", &[], "x").await;
    let write = request(&mut stream).await;
    assert_eq!([&write["method"], &write["route"]], [&json!("POST"), &json!("none")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_shows_no_query_no_header_and_no_body() {
    let scene = scene().await;
    let mut stream = listen(&scene, "").await;
    let secrets = [
        ("authorization", "Bearer hunter2"),
        ("cookie", "session=hunter2"),
        ("x-hunter2-value", "hunter2"),
        ("x-tenant", "hunter2"),
    ];
    scene.send("POST", "/a/7?token=hunter2&x=1", &secrets, "password=hunter2").await;
    scene.ask("/a/7?token=hunter2", &secrets[..2]).await;
    scene.ask("/a/7?token=hunter2", &secrets[3..]).await;
    for _ in 0..3 {
        let told = request(&mut stream).await;
        assert_eq!(told["path"], "/a/7", "{told}");
        assert!(!told.to_string().contains("hunter2"), "{told}");
    }
    // One whose head cannot be read, and one that would write to a terminal.
    let mut raw = Socket::connect(scene.sidecar.address).await;
    raw.send("GET /a/7?hunter2=\u{1b}[2J HTTP/1.1\r\nHost: a b\r\nbad header\r\n\r\n").await;
    raw.read().await;
    let told = request(&mut stream).await;
    assert_eq!(told["status"], 400, "{told}");
    assert!(!told.to_string().contains("hunter2"), "{told}");
    scene.ask(&format!("/b/{}", "long/".repeat(500)), &[]).await;
    let told = request(&mut stream).await;
    assert!(told["path"].as_str().is_some_and(|path| path.len() < 300 && path.ends_with('…')));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_is_filtered_by_the_sidecar() {
    let scene = scene().await;
    let cases = [
        ("?route=%2Fb%2F%7B*rest%7D", "/b/1"),
        ("?route=none&path=elsewhere", "/elsewhere"),
        ("?disposition=bypass&route=%2Fa%2F%7Bid%7D", "/a/2"),
        ("?reason=missing+field", "/a/2"),
        ("?reason=missing_field&disposition=&path=", "/a/2"),
        ("?status=5xx", "/broken"),
        ("?status=500&rate=1", "/broken"),
        ("?path=%2Fb%2F", "/b/1"),
    ];
    let mut streams = Vec::new();
    for (query, _) in cases {
        streams.push(listen(&scene, query).await);
    }
    scene.ask("/elsewhere", &[]).await;
    scene.ask("/a/1", &ACME).await;
    scene.ask("/b/1", &[]).await;
    scene.ask("/a/2", &[]).await;
    scene.ask("/broken?path=elsewhere", &[]).await;
    for ((query, path), mut stream) in cases.into_iter().zip(streams) {
        assert_eq!(request(&mut stream).await["path"], path, "{query}");
    }
    let mut client = Client::of_admin(scene.sidecar.admin);
    for (wrong, part) in [
        ("?route=/b", "is no route"),
        ("?disposition=hits", "write one of HIT, STALE"),
        ("?reason=mising+field", "did you mean missing field?"),
        ("?status=6xx", "5xx"),
        ("?path=/a%3Fb", "no query"),
        ("?rate=0", "from 1 to 1000"),
        ("?rate=1001", "from 1 to 1000"),
        ("?rate=many", "from 1 to 1000"),
        ("?routes=x", "`disposition`"),
        ("?path=a&path=b", "twice"),
    ] {
        let reply = client.get(&format!("/tail{wrong}"), &[]).await;
        assert_eq!(reply.status, 400, "{wrong}");
        assert!(reply.text().contains(part), "{wrong}: {}", reply.text());
    }
    has_listeners(&scene, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_listener_the_tail_does_nothing() {
    let scene = scene().await;
    scene.ask("/a/1", &ACME).await;
    let stream = listen(&scene, "?path=nowhere").await;
    scene.ask("/a/1", &ACME).await;
    has_listeners(&scene, 1).await;
    drop(stream);
    has_listeners(&scene, 0).await;
    scene.ask("/a/1", &ACME).await;
    assert_eq!(metric(scene.sidecar.admin, "sidecache_tail_lines_total").await, 0);
    for limit in ["rate", "backlog", "subscribers"] {
        let name = format!("sidecache_limit_reached_total{{limit=\"tail.{limit}\"}}");
        assert_eq!(metric(scene.sidecar.admin, &name).await, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_has_a_rate_and_says_how_many_more_there_were() {
    let scene = scene().await;
    let mut stream = listen(&scene, "?rate=1").await;
    for _ in 0..20 {
        scene.ask("/b/1", &[]).await;
    }
    let (mut told, mut more) = (0, 0);
    while told + more < 20 {
        let (name, data) = event(&mut stream).await;
        match name.as_str() {
            "request" => told += 1,
            "missed" => {
                assert_eq!(data["lost"], 0, "{data}");
                more += data["more"].as_u64().expect("a number");
            }
            name => panic!("{name}: {data}"),
        }
    }
    assert!(told >= 1 && more >= 1, "{told} were told, and {more} more");
    let name = "sidecache_limit_reached_total{limit=\"tail.rate\"}";
    assert_eq!(metric(scene.sidecar.admin, name).await, more);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_listen_as_may_and_a_place_that_is_left_is_free() {
    let scene = scene().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(listen(&scene, "").await);
    }
    let mut client = Client::of_admin(scene.sidecar.admin);
    let reply = client.get("/tail", &[]).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("8 clients"), "{}", reply.text());
    let limit = "sidecache_limit_reached_total{limit=\"tail.subscribers\"}";
    assert_eq!(metric(scene.sidecar.admin, limit).await, 1);
    // All of them hear of a request, and the events have places of their own.
    scene.ask("/b/1", &[]).await;
    for stream in &mut all {
        assert_eq!(request(stream).await["path"], "/b/1");
    }
    assert_eq!(metric(scene.sidecar.admin, "sidecache_tail_lines_total").await, 8);
    all.pop();
    has_listeners(&scene, 7).await;
    listen(&scene, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_slow_reader_and_it_is_told_what_it_lost() {
    const MOST: usize = 200_000;
    let scene = scene().await;
    let admin = scene.sidecar.admin;
    let mut stream = Socket::connect_narrow(admin).await;
    stream.send(format!("GET /tail?rate=1000 HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await;
    has_listeners(&scene, 1).await;
    let lost = "sidecache_limit_reached_total{limit=\"tail.backlog\"}";
    let path = format!("/b/{}", "long/".repeat(60));
    let mut asked = 0;
    let mut client = Client::new(scene.sidecar.address);
    while metric(scene.sidecar.admin, lost).await == 0 {
        for _ in 0..500 {
            assert_eq!(client.get(&path, &[]).await.status, 200);
        }
        asked += 500;
        assert!(asked < MOST, "after {asked} requests the reader that does not read lost none");
    }
    let lost = loop {
        let (name, data) = event(&mut stream).await;
        if name == "missed" && data["lost"] != 0 {
            break data["lost"].as_u64().expect("a number");
        }
    };
    assert!(lost > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_the_tail() {
    let mut scene = scene().await;
    let mut stream = listen(&scene, "").await;
    scene.sidecar.stop().await;
    // It returns once the connection is closed.
    stream.read().await;
}
