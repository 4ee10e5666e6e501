//! Tags that the JSON of a response names: those of entries, and those that a write purges by what
//! the origin answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::flow::Flow;
use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, Point, RedisServer, Request, Response, Scene, Sidecar, eventually,
};

/// A list and a page of items, and writes that say in their answer what they changed.
const ITEMS: &str = r#"
[fields]
tenant = { header = "x-tenant" }

[[routes]]
path  = "/list/{*rest}"
ttl   = "1h"
scope = "public"
key   = ["tenant"]
tags  = ["item:{tenant}:{response:/items/*/id}"]

[[purges]]
path = "/item/{id}"
tags = ["item:{tenant}:{id}"]

[[purges]]
path = "/any"
tags = ["item:{tenant}:{missing}"]

[[purges]]
path = "/create"
tags = ["item:{tenant}:{response:/id}"]

[fields.missing]
query = "missing"
"#;

const ACME: &[(&str, &str)] = &[("x-tenant", "acme")];
const OTHER: &[(&str, &str)] = &[("x-tenant", "other")];

fn json(body: impl Into<Vec<u8>>) -> Response {
    Response::ok(body.into()).header("content-type", "application/json")
}

/// Lists the items that the last segment of the path names, and answers writes with the query.
fn app(request: &Request) -> Response {
    let ids: Vec<&str> = request.path.rsplit('/').next().unwrap_or_default().split(',').collect();
    if request.path.starts_with("/list/") {
        let items: Vec<_> = ids.iter().map(|id| serde_json::json!({ "id": id })).collect();
        return json(serde_json::json!({ "items": items }).to_string());
    }
    json("{}")
}

async fn ask(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> String {
    scene.ask(path, headers).await.cache().to_owned()
}

async fn fill(scene: &Scene, path: &str, headers: &[(&str, &str)]) {
    ask(scene, path, headers).await;
    let is_hit = async || ask(scene, path, headers).await == "HIT";
    eventually(&format!("{path} is stored"), Duration::from_secs(30), is_hit).await;
}

/// What a metric counts that begins so.
async fn count(sidecar: &Sidecar, series: &str) -> u64 {
    let metrics = sidecar.admin_get("/metrics").await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_purged_by_a_write_to_one_of_the_items_that_it_shows() {
    let scene = Scene::start(ITEMS, app).await;
    for path in ["/list/1,2", "/list/2,3", "/list/4"] {
        fill(&scene, path, ACME).await;
    }
    fill(&scene, "/list/2", OTHER).await;
    scene.send("PUT", "/item/2", ACME, "").await;
    for (path, headers, expected) in [
        ("/list/1,2", ACME, "MISS"),
        ("/list/2,3", ACME, "MISS"),
        ("/list/4", ACME, "HIT"),
        ("/list/2", OTHER, "HIT"),
    ] {
        assert_eq!(ask(&scene, path, headers).await, expected, "{path} {headers:?}");
    }
    // A write that cannot tell the item purges the lists of its tenant.
    scene.send("PUT", "/any", ACME, "").await;
    assert_eq!(ask(&scene, "/list/4", ACME).await, "MISS");
    assert_eq!(ask(&scene, "/list/2", OTHER).await, "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_list_is_stored_and_purged_by_its_family() {
    let scene = Scene::start(ITEMS, |_| json(r#"{"items":[]}"#)).await;
    fill(&scene, "/list/none", ACME).await;
    scene.send("PUT", "/item/2", ACME, "").await;
    assert_eq!(ask(&scene, "/list/none", ACME).await, "HIT");
    scene.send("PUT", "/any", ACME, "").await;
    assert_eq!(ask(&scene, "/list/none", ACME).await, "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_whose_tags_cannot_be_read_is_not_stored() {
    let rules = format!("{ITEMS}\n[limits]\ntag_body = \"100B\"\ntags = 20\n");
    let scene = Scene::start(&rules, app).await;
    let many: Vec<String> = (0..30).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
    let many = format!(r#"{{"items":[{}]}}"#, many.join(","));
    let long = format!(r#"{{"items":[],"more":"{}"}}"#, "x".repeat(200));
    for (path, body, kind, reason) in [
        ("/list/html", "<html>", "text/html", "tags unread"),
        ("/list/broken", "{", "application/json", "tags unread"),
        ("/list/absent", "{}", "application/json", "tags unread"),
        ("/list/null", r#"{"items":[{"id":1},{"id":null}]}"#, "application/json", "tags unread"),
        ("/list/object", r#"{"items":[{"id":{}}]}"#, "application/json", "tags unread"),
        ("/list/long", &long, "application/json", "tag body too large"),
    ] {
        let (body, kind) = (body.to_owned(), kind.to_owned());
        scene.answers(move |_| Response::ok(body.clone()).header("content-type", &kind));
        assert_eq!(ask(&scene, path, ACME).await, "MISS", "{path}");
        assert_eq!(ask(&scene, path, ACME).await, "MISS", "{path}: {reason}");
    }
    let long = scene.ask("/list/long2", ACME).await;
    assert!(long.cache_status().contains("tag body too large"), "{}", long.cache_status());
    assert!(
        count(&scene.sidecar, "sidecache_limit_reached_total{limit=\"limits.tag_body\"}").await > 1
    );
    let unread = "sidecache_store_aborted_total{reason=\"tags_unread\"}";
    assert!(count(&scene.sidecar, unread).await >= 4);
    // More tags than an entry may have, of a body that is short enough.
    scene.sidecar.rewrite(&format!("{ITEMS}\n[limits]\ntags = 20\n"));
    scene.answers(move |_| json(many.clone()));
    let before = scene.count("/list/many");
    let aborted = "sidecache_store_aborted_total{reason=\"too_many_tags\"}";
    eventually("it has too many tags", Duration::from_secs(30), async || {
        ask(&scene, "/list/many", ACME).await;
        count(&scene.sidecar, aborted).await > 0
    })
    .await;
    assert_eq!(ask(&scene, "/list/many", ACME).await, "MISS");
    assert!(scene.count("/list/many") > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_is_asked_for_a_response_that_can_be_read() {
    let scene = Scene::start(ITEMS, app).await;
    let headers = [ACME, &[("accept-encoding", "gzip, br")]].concat();
    fill(&scene, "/list/1", &headers).await;
    assert_eq!(scene.last("/list/1").header("accept-encoding"), None);
    scene.answers(|_| json("x").header("content-encoding", "gzip"));
    let coded = scene.ask("/list/2", ACME).await;
    assert!(!coded.cache_status().contains("stored"), "{}", coded.cache_status());
    assert_eq!(ask(&scene, "/list/2", ACME).await, "MISS");
    scene.answers(app);
    scene.send("POST", "/create", &headers, "").await;
    assert_eq!(scene.last("/create").header("accept-encoding").as_deref(), Some("identity"));
    scene.send("PUT", "/item/1", &headers, "").await;
    assert_eq!(scene.last("/item/1").header("accept-encoding").as_deref(), Some("gzip, br"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_while_the_response_is_fetched_ends_the_fill_of_what_it_shows() {
    let redis = RedisServer::start();
    for table in [String::new(), redis.table()] {
        let scene = Scene::start(&format!("{table}\n{ITEMS}"), app).await;
        fill(&scene, "/list/warm", ACME).await;
        let hold = scene.hold("GET", "/list/7,8", Point::After);
        let (address, path) = (scene.sidecar.address, "/list/7,8");
        let old = tokio::spawn(async move { Client::new(address).get(path, ACME).await });
        hold.arrived().await;
        scene.send("PUT", "/item/8", ACME, "").await;
        hold.release();
        assert_eq!(old.await.expect("it ends").cache(), "MISS");
        assert_cache(&scene.ask(path, ACME).await, "MISS", "what it fetched was purged");
        fill(&scene, path, ACME).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_after_a_write_does_not_join_a_fill_whose_tags_are_not_known_yet() {
    let scene = Scene::start(ITEMS, app).await;
    let (address, path) = (scene.sidecar.address, "/list/7,8");
    let hold = scene.hold("GET", path, Point::After);
    let old = tokio::spawn(async move { Client::new(address).get(path, ACME).await });
    hold.arrived().await;
    scene.send("PUT", "/item/8", ACME, "").await;
    let new = tokio::spawn(async move { Client::new(address).get(path, ACME).await });
    // Whether it has come to wait by now or comes later: the fill is not for it.
    hold.release();
    for reply in [old, new] {
        assert_eq!(reply.await.expect("it ends").status, 200);
    }
    assert_eq!(scene.count(path), 2, "the second request reached the origin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sidecar_purges_what_this_one_stored_by_its_body() {
    let redis = RedisServer::start();
    let origin = Origin::start(app);
    let rules = format!("{}\n{ITEMS}", redis.table());
    let hosts = [("[upstream]", "host_key = \"app.test\"")];
    let one = Sidecar::start_with(sidecache::app::Clock::system(), origin.address, &hosts, &rules);
    let two = Sidecar::start_with(sidecache::app::Clock::system(), origin.address, &hosts, &rules);
    let (one, two) = (one.await, two.await);
    let get = async |sidecar: &Sidecar| {
        Client::new(sidecar.address).get("/list/5,6", ACME).await.cache().to_owned()
    };
    for sidecar in [&one, &two] {
        let is_hit = async || get(sidecar).await == "HIT";
        eventually("both have it", Duration::from_secs(30), is_hit).await;
    }
    Client::new(two.address).send("PUT", "/item/6", ACME, "").await;
    let before = origin.count("GET", "/list/5,6");
    get(&one).await;
    assert!(origin.count("GET", "/list/5,6") > before, "it was fetched anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_keeps_the_tags_of_its_body() {
    let scene = Scene::start(&ITEMS.replace("\"1h\"", "\"1s\""), |request| {
        if request.header("if-none-match").is_some() {
            return Response::status(304, "").header("etag", "\"1\"");
        }
        app(request).header("etag", "\"1\"")
    })
    .await;
    fill(&scene, "/list/1,2", ACME).await;
    scene.until_stale();
    assert_eq!(ask(&scene, "/list/1,2", ACME).await, "REVALIDATED");
    assert_eq!(ask(&scene, "/list/1,2", ACME).await, "HIT");
    scene.send("PUT", "/item/2", ACME, "").await;
    assert_eq!(ask(&scene, "/list/1,2", ACME).await, "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_purges_what_its_answer_names_and_nothing_else() {
    let scene = Scene::start(ITEMS, app).await;
    for status in [200, 201] {
        for path in ["/list/1", "/list/2"] {
            fill(&scene, path, ACME).await;
        }
        scene.answers(move |request| match &*request.path {
            "/create" => {
                let created = Response::status(status, r#"{"id":2}"#);
                created.header("content-type", "application/json")
            }
            _ => app(request),
        });
        scene.send("POST", "/create", ACME, "").await;
        assert_eq!(ask(&scene, "/list/1", ACME).await, "HIT", "{status}");
        assert_eq!(ask(&scene, "/list/2", ACME).await, "MISS", "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_cannot_be_read_purges_the_family() {
    let rules = format!("{ITEMS}\n[limits]\ntag_body = \"50B\"\n");
    let scene = Scene::start(&rules, app).await;
    let long = format!(r#"{{"id":2,"more":"{}"}}"#, "x".repeat(100));
    for (case, status, kind, body) in [
        ("no JSON", 200, "text/html", "ok"),
        ("nothing named", 200, "application/json", "{}"),
        ("an empty list", 200, "application/json", r#"{"id":[]}"#),
        ("broken", 201, "application/json", "{"),
        ("too long", 200, "application/json", long.as_str()),
        ("a redirect", 303, "application/json", r#"{"id":2}"#),
        ("an unknown outcome", 500, "application/json", r#"{"id":2}"#),
        ("a part", 206, "application/json", r#"{"id":2}"#),
    ] {
        scene.answers(app);
        fill(&scene, "/list/1", ACME).await;
        fill(&scene, "/list/1", OTHER).await;
        let (kind, body) = (kind.to_owned(), body.to_owned());
        scene.answers(move |request| match &*request.path {
            "/create" => Response::status(status, body.clone()).header("content-type", &kind),
            _ => app(request),
        });
        scene.send("POST", "/create", ACME, "").await;
        assert_eq!(ask(&scene, "/list/1", ACME).await, "MISS", "{case}");
        assert_eq!(ask(&scene, "/list/1", OTHER).await, "HIT", "{case}: another tenant's");
    }
    assert!(count(&scene.sidecar, "sidecache_purge_missing_fields_total").await >= 6);
    // A refusal changes nothing.
    fill(&scene, "/list/1", ACME).await;
    scene.answers(|_| {
        Response::status(422, r#"{"id":1}"#).header("content-type", "application/json")
    });
    scene.send("POST", "/create", ACME, "").await;
    assert_eq!(ask(&scene, "/list/1", ACME).await, "HIT");
}

#[tokio::test]
async fn shadow_mode_reads_the_tags_of_bodies() {
    let version = Arc::new(AtomicU64::new(0));
    let origin = Origin::start({
        let version = Arc::clone(&version);
        move |request| {
            if request.method == "PUT" {
                version.fetch_add(1, Ordering::SeqCst);
            }
            let version = version.load(Ordering::SeqCst);
            json(format!(r#"{{"items":[{{"id":1}},{{"id":2}}],"version":{version}}}"#))
        }
    });
    let rules = ITEMS.replace("ttl   =", "mode = \"shadow\"\nttl   =");
    let flow = Flow::start(origin.address, &rules).await;
    // Whether a response would have been stale after a write to each of these.
    for (item, stale) in [("2", 0), ("1", 0), ("9", 1)] {
        for _ in 0..2 {
            flow.get("/list/all", ACME).await;
        }
        flow.send("PUT", &format!("/item/{item}"), ACME, "").await;
        flow.get("/list/all", ACME).await;
        assert_eq!(flow.route("/list/{*rest}").stale.count, stale, "after a write to {item}");
    }
}
