//! The file is read again while requests go on: validated whole, put in force at once, refused
//! whole.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::support::client;
use crate::support::exposition;
use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, Point, RedisServer, Response, Scene, Sidecar, Socket, eventually,
};

/// A route for `/a/…` with these lines, and no watching, so that a test says when.
fn route(lines: &str) -> String {
    format!(
        "[fields]\ntenant = {{ header = \"x-tenant\" }}\n[[routes]]\npath = \
        \"/a/{{*rest}}\"\nscope = \"public\"\n{lines}\n"
    )
}

async fn reload(scene: &Scene, rules: &str) -> Value {
    scene.sidecar.rewrite(rules);
    scene.sidecar.admin_ok("/reload", &json!({})).await
}

/// The effect that a reload tells of a thing.
fn effect<'a>(report: &'a Value, what: &str) -> &'a Value {
    let changes = report["changes"].as_array().expect("changes");
    let change = changes
        .iter()
        .find(|change| change["what"] == what)
        .unwrap_or_else(|| panic!("nothing of {what}: {report}"));
    &change["effect"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_unchanged_routes_stay_and_others_are_left_behind() {
    let other = "[[routes]]\npath = \"/b/{*rest}\"\nscope = \"public\"\nttl = \"5m\"\n";
    let scene =
        Scene::start(&format!("{}{other}", route("ttl = \"5m\"")), |_| Response::ok("data")).await;
    scene.fill("/a/1").await;
    scene.fill("/b/1").await;
    let report = reload(&scene, &format!("{}{other}", route("ttl = \"4m\""))).await;
    assert_eq!(effect(&report, "route /a/{*rest}"), "entries are left behind");
    assert_cache(&scene.get("/b/1").await, "HIT", "nothing was said of it");
    let reply = scene.get("/a/1").await;
    assert_cache(&reply, "MISS", "what was stored for five minutes is not served for four");
    assert_eq!(crate::support::scene::ttl(&reply), 240);

    // Switched off and on again, the entries are as they were.
    let report = reload(&scene, &format!("{}{other}", route("ttl = \"4m\"\nmode = \"off\""))).await;
    assert_eq!(effect(&report, "route /a/{*rest}"), "entries stay");
    assert_cache(&scene.get("/a/1").await, "BYPASS", "off");
    reload(&scene, &format!("{}{other}", route("ttl = \"4m\""))).await;
    assert_cache(&scene.get("/a/1").await, "HIT", "on again");

    // The switch for all of them stands above the tables.
    let text = format!(
        "mode = \"off\"\n{}",
        scene.sidecar.with_rules(&format!("{}{other}", route("ttl = \"4m\"")))
    );
    std::fs::write(&scene.sidecar.file, text).expect("the file can be written to");
    let report = scene.sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(effect(&report, "mode"), &Value::Null);
    for path in ["/a/1", "/b/1"] {
        assert_cache(&scene.get(path).await, "BYPASS", path);
    }
    assert_eq!(scene.sidecar.stats().await["mode"], "off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_makes_old_entries_unreachable_in_both_tiers() {
    for tier in ["memory", "redis"] {
        let redis = (tier == "redis").then(RedisServer::start);
        let table = redis.as_ref().map_or_else(String::new, |redis| {
            format!("{}\n[memory]\nsize = \"0\"\n", redis.table())
        });
        let (keyless, keyed) =
            ("ttl = \"5m\"\ndrop_headers = [\"x-tenant\"]", "ttl = \"5m\"\nkey = [\"tenant\"]");
        let scene = Scene::start(&format!("{table}{}", route(keyless)), |request| {
            Response::ok(request.header("x-tenant").unwrap_or_else(|| "nobody".to_owned()))
        })
        .await;
        let ask = async |tenant: &str| scene.ask("/a/1", &[("x-tenant", tenant)]).await;
        eventually("the entry is served", Duration::from_secs(10), || async {
            ask("one").await.cache() == "HIT"
        })
        .await;
        assert_eq!(ask("two").await.text(), "nobody", "{tier}: the key knows no tenant");
        let report = reload(&scene, &format!("{table}{}", route(keyed))).await;
        assert_eq!(effect(&report, "route /a/{*rest}"), "entries are left behind");
        for tenant in ["one", "two"] {
            let reply = ask(tenant).await;
            assert_eq!((reply.cache(), reply.text()), ("MISS", tenant), "{tier}");
        }
        // Another field under the same name is another key as well: what told tenants apart no
        // longer does, which the file has to accept.
        let other = route(keyed).replace("x-tenant\" }", "x-customer\" }");
        let accepted = other.replace("[\"tenant\"]", "[\"tenant\"] # check: ok");
        reload(&scene, &format!("{table}{accepted}")).await;
        assert_cache(&ask("one").await, "BYPASS", "the field is missing now");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_keeps_the_old_rules_and_shows_until_it_is_mended() {
    let scene = Scene::start(&route("ttl = \"5m\""), |_| Response::ok("data")).await;
    scene.fill("/a/1").await;
    scene.sidecar.rewrite(&route("ttl = \"five minutes\""));
    let refused = scene.sidecar.admin_post("/reload", &json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let problem = &refused.json()["problems"][0];
    assert!(
        problem["line"].as_u64().is_some_and(|line| line > 0)
            && problem["message"].as_str().is_some_and(|text| text.contains("five")),
        "{problem}"
    );
    assert_cache(&scene.get("/a/1").await, "HIT", "the old rules stay");
    let ready = scene.sidecar.admin_get("/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["status"]),
        (200, &json!("degraded")),
        "{}",
        ready.text()
    );
    assert!(ready.text().contains("rejected"), "{}", ready.text());
    let stats = scene.sidecar.stats().await;
    assert!(
        stats["config"]["error"].as_str().is_some_and(|error| error.contains("five minutes")),
        "{}",
        stats["config"]
    );
    let metrics = scene.sidecar.admin_get("/metrics").await;
    assert!(
        metrics.text().contains("sidecache_config_last_reload_successful 0"),
        "{}",
        metrics.text()
    );
    assert!(
        metrics.text().contains("sidecache_config_reloads_total{result=\"failed\"} 1"),
        "{}",
        metrics.text()
    );

    scene.sidecar.rewrite(&route("ttl = \"5m\""));
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(scene.sidecar.admin_get("/ready").await.json()["status"], "ready");
    assert_eq!(scene.sidecar.stats().await["config"]["error"], Value::Null);
    assert_cache(&scene.get("/a/1").await, "HIT", "it is the file that it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_itself_is_watched_also_behind_a_swapped_link() {
    let scene = Scene::start(&route("ttl = \"5m\""), |_| Response::ok("data")).await;
    let loads = async || scene.sidecar.stats().await["config"]["loads"].as_u64().expect("a number");
    assert_eq!(loads().await, 1);
    scene.sidecar.rewrite(&route("ttl = \"4m\""));
    eventually("the changed file is in force", Duration::from_secs(20), || async {
        loads().await == 2
    })
    .await;

    // As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is swapped.
    let folder = scene.sidecar.file.parent().expect("a folder").to_path_buf();
    for (version, ttl) in [("v1", "3m"), ("v2", "2m")] {
        std::fs::create_dir(folder.join(version)).expect("a folder can be made");
        std::fs::write(
            folder.join(version).join("proxy.toml"),
            scene.sidecar.with_rules(&route(&format!("ttl = \"{ttl}\""))),
        )
        .expect("written");
    }
    symlink("v1", folder.join("..data")).expect("a link can be made");
    symlink("..data/proxy.toml", folder.join("linked")).expect("a link can be made");
    std::fs::rename(folder.join("linked"), &scene.sidecar.file).expect("a link can be renamed");
    eventually("what the link leads to is in force", Duration::from_secs(20), || async {
        loads().await == 3
    })
    .await;
    symlink("v2", folder.join("..data_tmp")).expect("a link can be made");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))
        .expect("a link can be swapped");
    eventually("what the swapped link leads to is in force", Duration::from_secs(20), || async {
        loads().await == 4
    })
    .await;
    let rules = scene.sidecar.admin_get("/routes").await.json();
    assert_eq!(rules["routes"][0]["ttl_s"], 120.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_that_ends_under_new_rules_purges_by_them_too() {
    let rules = |tag: &str| {
        format!(
            "{}[[purges]]\npath = \"/w\"\ntags = [\"{tag}\"]\n",
            route(&format!("ttl = \"5m\"\ntags = [\"{tag}\"]"))
        )
    };
    let version = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&version);
    let scene = Scene::start(&rules("old"), move |request| {
        if request.path == "/w" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Response::ok(counted.load(Ordering::SeqCst).to_string())
    })
    .await;
    // The write has begun, and the app has not changed anything yet.
    let hold = scene.hold("PUT", "/w", Point::Before);
    let address = scene.sidecar.address;
    let write = tokio::spawn(async move { Client::new(address).send("PUT", "/w", &[], "").await });
    hold.arrived().await;
    reload(&scene, &rules("new")).await;
    assert_eq!(
        scene.fill("/a/1").await.text(),
        "0",
        "filled by the new rules, from before the write"
    );
    assert_cache(&scene.get("/a/1").await, "HIT", "until the write is done");
    hold.release();
    assert_eq!(write.await.expect("no panic").status, 200);
    let reply = scene.get("/a/1").await;
    assert_eq!(
        (reply.cache(), reply.text()),
        ("MISS", "1"),
        "the old rules knew nothing of the tag"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_change_is_told_and_the_rest_comes_into_force() {
    let scene = Scene::start(&route("ttl = \"5m\""), |_| Response::ok("data")).await;
    let rules = format!(
        "[memory]\nsize = \"65MiB\"\n[limits]\nwaiters = 7\ntags = 9\n{}",
        route("ttl = \"4m\"")
    );
    let text = scene.sidecar.with_rules(&rules);
    let would = scene.sidecar.admin_ok("/check", &json!({ "text": text })).await;
    assert_eq!(would["restart_needed"], json!(["limits.waiters", "memory.size"]));
    assert_eq!(
        scene.sidecar.admin_get("/routes").await.json()["routes"][0]["ttl_s"],
        300.0,
        "a check changes nothing"
    );
    let report = reload(&scene, &rules).await;
    assert_eq!(report["restart_needed"], would["restart_needed"]);
    assert_eq!(report["changes"], would["changes"]);
    assert_eq!(scene.sidecar.admin_get("/routes").await.json()["routes"][0]["ttl_s"], 240.0);
    assert_eq!(
        scene.sidecar.stats().await["config"]["restart_needed"],
        json!(["limits.waiters", "memory.size"])
    );
}

/// Requests per second that the clients together send, if the machine lets them.
const RATE: u32 = 5_000;
const CLIENTS: u32 = 16;
const RELOADS: usize = 100;

/// One client's share of the load. Returns how many requests it sent.
async fn load(mut client: Socket, stop: CancellationToken) -> usize {
    let mut ticks = interval(Duration::from_secs(1) * CLIENTS / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let answer = client.get("/a").await;
        assert_eq!(answer.status, 200, "{}", answer.cache_status());
        assert_eq!(answer.whole().expect("a whole body"), b"data"[..]);
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_hundred_reloads_under_load_fail_no_request() {
    let app = Origin::start(|_| Response::new().whole("", b"data"));
    let fields = "[fields]\nhost0 = { host = true }\nhost1 = { host = true }\n";
    let rules = |round: usize| {
        let (ttl, field) = (300 + round, round % 2);
        format!(
            "{fields}[[routes]]\npath = \"/a\"\nscope = \"public\"\nttl = \"{ttl}s\"\nkey = \
            [\"host{field}\"]\n"
        )
    };
    let sidecar = Sidecar::spawn(app.address, &rules(0)).await;
    client::get(sidecar.address, "/a").await;
    let stop = CancellationToken::new();
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(tokio::spawn(load(Socket::connect(sidecar.address).await, stop.clone())));
    }
    for round in 1..=RELOADS {
        sidecar.rewrite(&rules(round));
        // The file is watched as well, and may be faster.
        sidecar.admin_ok("/reload", &json!({})).await;
        // The pace: some requests go by each set of rules.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    let mut sent = 0;
    for client in clients {
        sent += client.await.expect("every answer is a whole 200");
    }
    let elapsed = began.elapsed();
    println!(
        "{sent} requests and {RELOADS} reloads in {elapsed:?}: {} per second",
        sent as u128 * 1000 / elapsed.as_millis()
    );
    assert!(sent > 2_000, "too few to call it load");
    assert!(
        app.count("GET", "/a") >= RELOADS / 2,
        "each new policy asked the app for itself: {}",
        app.count("GET", "/a")
    );
}

/// A count of the upstream's durations under this route.
async fn upstream_answers(scene: &Scene, route: &str) -> f64 {
    let text = scene.sidecar.admin_get("/metrics").await.text().to_owned();
    let read = exposition::read(&text, exposition::Format::Text)
        .unwrap_or_else(|problem| panic!("{problem}: {text}"));
    read.sum("sidecache_upstream_duration_seconds_count", &[("route", route)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_goes_by_the_rules_that_its_request_began_with() {
    let routes = |names: &[&str]| {
        let route = |name: &&str| {
            format!("[[routes]]\npath = \"/{name}/{{*rest}}\"\nscope = \"public\"\nttl = \"5m\"\n")
        };
        names.iter().map(route).collect::<String>()
    };
    let old = format!("[debug]\nheaders = true\n{}", routes(&["a", "b"]));
    // The same place in the table is another route, one tag is too many, and debug headers end.
    let new = format!("[limits]\ntags = 1\n{}", routes(&["b", "a", "c"]));
    let scene = Scene::start(&old, |request| {
        let language = request.header("accept-language").unwrap_or_default();
        Response::ok(language).header("vary", "accept-language").header("surrogate-key", "one two")
    })
    .await;
    let hold = scene.hold("GET", "/a/1", Point::Before);
    let address = scene.sidecar.address;
    let leader = tokio::spawn(async move {
        Client::new(address).get("/a/1", &[("accept-language", "de")]).await
    });
    hold.arrived().await;
    reload(&scene, &new).await;
    hold.release();
    let reply = leader.await.expect("the request ends");
    assert_cache(&reply, "MISS", "the fill ends");
    assert_eq!(reply.text(), "de");

    let counted = [
        upstream_answers(&scene, "/a/{*rest}").await,
        upstream_answers(&scene, "/b/{*rest}").await,
    ];
    assert!(counted[0] > 0.5 && counted[1] < 0.5, "the origin answered /a alone: {counted:?}");
    assert!(reply.cache_status().contains("; stored"), "{}", reply.cache_status());
    assert_eq!(reply.header("x-cache-route"), "/a/{*rest}", "its rules show it");
    assert!(!reply.header("x-cache-key").is_empty());

    // Under the rules that it began with, it is found by its key and its variant alone.
    reload(&scene, &old).await;
    let hit = scene.ask("/a/1", &[("accept-language", "de")]).await;
    assert_cache(&hit, "HIT", "its variant");
    assert_eq!((hit.text(), hit.header("x-cache-key")), ("de", reply.header("x-cache-key")));
    let other = scene.ask("/a/1", &[("accept-language", "fr")]).await;
    assert_cache(&other, "MISS", "another variant");
    assert_eq!(other.text(), "fr");
}
