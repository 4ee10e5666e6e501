//! What the memory holds, as an operator browses it: who may see what, in which order, and what it
//! costs the requests beside it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{Client, CommandLine, RedisServer, Response, Scene, eventually, metric};

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

[[routes]]
path = "/mine/{id}"
ttl = "5m"
"#;

const WITHIN: Duration = Duration::from_secs(30);

async fn scene(table: &str) -> Scene {
    Scene::start(&format!("{table}{RULES}"), |request| {
        Response::ok(format!("BODY of {}", request.path))
            .header("vary", "x-mood")
            .header("surrogate-key", "from-app")
    })
    .await
}

/// Asks until the response comes from the cache.
async fn store(scene: &Scene, path: &str, headers: &[(&str, &str)]) {
    eventually(&format!("{path} is stored"), WITHIN, || async {
        scene.ask(path, headers).await.cache() == "HIT"
    })
    .await;
}

async fn store_public(scene: &Scene, path: &str) {
    store(scene, path, &[("x-tenant", "acme")]).await;
}

async fn memory(scene: &Scene, query: &str) -> Value {
    let reply = scene.sidecar.admin_get(&format!("/memory{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json()
}

fn paths(listing: &Value) -> Vec<&str> {
    let entries = listing["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["path"].as_str().expect("a path")).collect()
}

/// The entry of this path.
fn entry<'a>(listing: &'a Value, path: &str) -> &'a Value {
    let entries = listing["entries"].as_array().expect("entries");
    entries
        .iter()
        .find(|entry| entry["path"] == path)
        .unwrap_or_else(|| panic!("{path}: {listing}"))
}

async fn ls(scene: &Scene, arguments: &[&str]) -> String {
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &scene.sidecar.admin.to_string());
    let said = line.run(&[&["ls"], arguments].concat()).await;
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    format!("{}{}", said.out, said.err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_listed_by_tag_route_and_path() {
    let scene = scene("").await;
    for path in ["/a/1", "/a/2"] {
        store_public(&scene, path).await;
    }
    store(&scene, "/mine/1", &[]).await;
    for _ in 0..3 {
        assert_cache(&scene.ask("/a/2", &[("x-tenant", "acme")]).await, "HIT", "once more");
    }
    let all = memory(&scene, "").await;
    assert_eq!(paths(&all)[0], "/a/2", "the hottest comes first");
    assert_eq!(all["matched"]["entries"], 3);
    assert_eq!(all["matched"]["states"]["fresh"], 3);
    assert_eq!((&all["next"], &all["complete"]), (&Value::Null, &json!(true)));
    let total: u64 = all["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["bytes"].as_u64().expect("bytes"))
        .sum();
    assert_eq!(all["matched"]["bytes"], total);
    let stored = scene.sidecar.stats().await["memory"]["bytes"].as_u64().expect("bytes");
    assert!(total <= stored, "the marks of variants take the rest: {total} of {stored}");

    let one = entry(&all, "/a/2");
    assert_eq!(
        (&one["method"], &one["host"], &one["route"], &one["scope"], &one["state"]),
        (&json!("GET"), &json!("app.test"), &json!("/a/{id}"), &json!("public"), &json!("fresh"))
    );
    assert_eq!(one["url"], "http://app.test/a/2");
    assert_eq!(one["tags"], json!(["all:acme", "one:2", "uri:app.test/a/2", "from-app"]));
    assert_eq!((&one["fields"], &one["varies_by"]), (&json!(["tenant", "id"]), &json!(["x-mood"])));
    assert_eq!((&one["status"], &one["body_bytes"]), (&json!(200), &json!("BODY of /a/2".len())));
    assert!(one["ttl_s"].as_f64().is_some_and(|ttl| ttl > 200.0 && ttl <= 300.0), "{one}");
    assert!(one["hits"].as_u64() >= Some(4), "{one}");

    for (query, expected) in [
        ("?tag=one:1", &["/a/1"][..]),
        ("?tag=ALL:acme&order=oldest", &["/a/1", "/a/2"]),
        ("?tag=none", &[]),
        ("?route=/mine/%7Bid%7D", &["/mine/1"]),
        ("?path=/a/*&order=newest", &["/a/2", "/a/1"]),
        ("?path=/a/1", &["/a/1"]),
        ("?tag=from-app&route=/a/%7Bid%7D&path=*2", &["/a/2"]),
    ] {
        assert_eq!(paths(&memory(&scene, query).await), expected, "{query}");
    }
    let first = memory(&scene, "?order=oldest&limit=2").await;
    let next = first["next"].as_str().expect("there is one more");
    let second = memory(&scene, &format!("?order=oldest&limit=2&after={next}")).await;
    let both: Vec<&str> = [paths(&first), paths(&second)].concat();
    assert_eq!((both, &second["next"]), (vec!["/a/1", "/a/2", "/mine/1"], &Value::Null));

    let admin = scene.sidecar.admin;
    assert!(metric(admin, "sidecache_memory_scans_total").await >= 10);
    assert!(metric(admin, "sidecache_memory_scan_entries_total").await >= 30);
    assert_eq!(metric(admin, "sidecache_memory_scans_refused_total").await, 0);

    let table = ls(&scene, &["--tag", "one:2"]).await;
    let row = table.lines().find(|line| line.starts_with("app.test/a/2 ")).expect("a row");
    assert!(row.contains("fresh") && row.contains("public") && row.contains("all:acme one:2"));
    assert!(table.contains("1 of 1 entry shown") && table.contains("fresh 1"), "{table}");
    let table = ls(&scene, &["--order", "oldest", "--limit", "1"]).await;
    assert!(table.contains("1 of 3 entries shown") && table.contains("--after oldest-"), "{table}");
    let listed: Value =
        serde_json::from_str(&ls(&scene, &["--json", "--route", "/mine/{id}"]).await)
            .expect("JSON");
    assert_eq!(paths(&listed), ["/mine/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_caller_keeps_to_itself_is_shown() {
    let scene = scene("").await;
    let target = "/mine/7?page=SECRET1&SECRET2&SECRET3==&q=SECRET4";
    let alice = [("authorization", "Bearer SECRET5"), ("x-mood", "SECRET6")];
    let bob = [("cookie", "sid=SECRET7"), ("x-mood", "SECRET8")];
    for caller in [&alice, &bob] {
        store(&scene, target, caller).await;
    }
    store(&scene, "/a/9?SECRET9=1&key=SECRET1", &[("x-tenant", "acme")]).await;
    let all = memory(&scene, "").await;
    let mine: Vec<&Value> = all["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["scope"] == "private")
        .collect();
    assert_eq!(mine.len(), 2, "{all}");
    assert_eq!(mine[0]["query"], json!(["page", "…", "…", "q"]));
    assert_ne!(mine[0]["credential"], mine[1]["credential"], "two callers can be told apart");
    assert_ne!(mine[0]["key"], mine[1]["key"]);
    // As `explain` shows the same request.
    let question = json!({
        "method": "GET",
        "target": target,
        "headers": [
            ["host", "app.test"],
            ["authorization", "Bearer SECRET5"],
            ["x-mood", "SECRET6"],
        ],
    });
    let explained = scene.sidecar.admin_ok("/explain", &question).await;
    let line = |name: &str| {
        let lines = explained["lines"].as_array().expect("lines");
        let line = lines.iter().find(|line| line["name"] == name).expect("the line");
        line["value"].as_str().expect("text").to_owned()
    };
    let hers = mine.iter().find(|entry| entry["key"] == *line("key")).expect("her entry");
    let shown = format!("(hash {})", hers["credential"].as_str().expect("eight digits"));
    assert_eq!(line("credential"), shown);

    let outputs = [
        all.to_string(),
        scene.sidecar.admin_get("/memory?limit=1000&order=newest").await.text().to_owned(),
        ls(&scene, &[]).await,
        ls(&scene, &["--json"]).await,
        scene.sidecar.admin_get("/metrics").await.text().to_owned(),
    ];
    for output in outputs {
        // The name of a parameter is all that may be seen of it.
        let output = output.replace("SECRET9", "");
        for kept in ["SECRET", "BODY of", "c2VjcmV0", "sid="] {
            assert!(!output.contains(kept), "{kept} is in {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_cannot_be_meant_is_refused_with_a_hint() {
    let scene = scene("").await;
    let long = format!("?tag={}", "x".repeat(1025));
    let foreign = format!("?order=largest&after=hottest-1-{}", "0".repeat(32));
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=x",
        "?order=biggest",
        "?after=x",
        "?tag=",
        "?route=/nowhere",
        "?tags=a",
        "?tag=a&tag=b",
        "?tag=%ff%fe&limit=99999999999999999999",
        &long,
        &foreign,
    ] {
        let reply = scene.sidecar.admin_get(&format!("/memory{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
        let said = reply.json();
        assert!(said["error"].is_string() && said["hint"].is_string(), "{query}: {said}");
    }
    let reply = scene.sidecar.admin_post("/memory", &json!({})).await;
    assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"));
    assert_eq!(metric(scene.sidecar.admin, "sidecache_memory_scans_total").await, 0);
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &scene.sidecar.admin.to_string());
    for arguments in [
        &["ls", "--limit", "0"][..],
        &["ls", "--limit", "1001"],
        &["ls", "--order", "biggest"],
        &["ls", "--tag", ""],
        &["ls", "--tag", "a", "--route", "/b"],
    ] {
        let said = line.run(arguments).await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{arguments:?}: {}", said.err);
    }
    let said = line.run(&["ls", "--route", "/nowhere"]).await;
    assert!(said.code == 1 && said.err.contains("no such route"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_send_does_nothing_to_a_terminal() {
    let scene = Scene::start(RULES, |_| {
        Response::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSurrogate-Key: \u{202e}gnp\u{9b}2J\r\n\r\nok"
                .as_bytes(),
        )
    })
    .await;
    // An escaped control character has more than one reading: such a path is never stored.
    let path = "/a/%E2%80%AE%5B2J";
    store_public(&scene, path).await;
    let long = format!("/a/{}", "y".repeat(2_000));
    store_public(&scene, &long).await;
    let harmful = |text: &str| {
        text.chars()
            .any(|c| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c))
    };
    let text = scene.sidecar.admin_get("/memory").await.text().to_owned();
    let table = ls(&scene, &[]).await;
    for output in [&text, &table] {
        assert!(!harmful(output), "{output:?}");
        assert!(output.contains("u{202e}gnp"), "it is written out: {output}");
        assert!(!output.contains(&long), "long paths are cut off");
    }
    let listing: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(entry(&listing, path)["url"], format!("http://app.test{path}"));
    assert_eq!(listing["matched"]["entries"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_is_shown_as_purged_until_it_is_gone() {
    for tier in ["memory", "redis"] {
        let redis = (tier == "redis").then(RedisServer::start);
        let scene = scene(&redis.as_ref().map_or_else(String::new, RedisServer::table)).await;
        for path in ["/a/1", "/a/2"] {
            store_public(&scene, path).await;
        }
        let state = async |path: &str| {
            let listing = memory(&scene, "").await;
            entry(&listing, path)["state"].as_str().expect("a state").to_owned()
        };
        assert_eq!((state("/a/1").await, state("/a/2").await), ("fresh".into(), "fresh".into()));
        let url = entry(&memory(&scene, "").await, "/a/1")["url"].clone();
        scene.sidecar.admin_ok("/purge", &json!({ "urls": [url] })).await;
        assert_eq!(
            (state("/a/1").await, state("/a/2").await),
            ("purged".into(), "fresh".into()),
            "{tier}: a URL that is shown purges its entry"
        );
        scene.sidecar.admin_ok("/purge", &json!({ "tags": ["one:2"], "soft": true })).await;
        assert_eq!(state("/a/2").await, "soft purged", "{tier}");
        let listing = memory(&scene, "").await;
        assert!(entry(&listing, "/a/2")["ttl_s"].as_f64() <= Some(0.0), "{tier}: {listing}");
        store_public(&scene, "/a/1").await;
        assert_eq!(state("/a/1").await, "fresh", "{tier}: it is stored anew");
        scene.sidecar.admin_ok("/purge", &json!({ "everything": true })).await;
        let listing = memory(&scene, "").await;
        assert_eq!(listing["matched"]["states"]["purged"], 2, "{tier}: {listing}");
        if let Some(redis) = &redis {
            let said = redis.command("INFO commandstats").expect("it answers");
            for command in ["scan", "keys", "randomkey", "hscan"] {
                assert!(!said.contains(&format!("cmdstat_{command}:")), "{said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_what_was_stored_with_it_is_unverified() {
    let mut redis = RedisServer::start();
    let table = format!("{}degraded_ttl = \"30s\"\n", redis.table());
    let scene = scene(&table).await;
    store_public(&scene, "/a/1").await;
    assert_eq!(entry(&memory(&scene, "").await, "/a/1")["state"], "fresh");
    redis.kill();
    eventually("Redis is lost", WITHIN, || async {
        scene.sidecar.stats().await["redis"]["state"] == "degraded"
    })
    .await;
    eventually("nothing vouches for it any more", WITHIN, || async {
        entry(&memory(&scene, "").await, "/a/1")["state"] == "unverified"
    })
    .await;
    store_public(&scene, "/a/2").await;
    let listing = memory(&scene, "").await;
    let stored = entry(&listing, "/a/2");
    assert_eq!(stored["state"], "fresh", "{stored}");
    let ttl = stored["ttl_s"].as_f64().expect("a number");
    assert!(ttl > 0.0 && ttl <= 30.0, "the freshness that holds, not that of the route: {ttl}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_beside_searches() {
    let scene = scene("").await;
    for number in 0..50 {
        store_public(&scene, &format!("/a/{number}")).await;
    }
    let (address, admin) = (scene.sidecar.address, scene.sidecar.admin);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Client::new(address);
                for number in 0..300 {
                    let path = format!("/a/{}", (client * 37 + number) % 200);
                    let reply = connection.get(&path, &[("x-tenant", "acme")]).await;
                    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                }
            })
        })
        .collect();
    let (mut listed, mut connection) = (0, Client::of_admin(admin));
    while clients.iter().any(|client| !client.is_finished()) || listed == 0 {
        let reply = connection.get("/memory?limit=1000&order=largest", &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let listing = reply.json();
        let mut found = paths(&listing);
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count, "no entry is listed twice");
        listed += 1;
    }
    for client in clients {
        client.await.expect("every request is answered");
    }
    let listing = memory(&scene, "?limit=1000").await;
    assert_eq!(listing["matched"]["entries"], 200, "after {listed} searches");
}
