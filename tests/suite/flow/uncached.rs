//! What has no route and would be worth one: the list, the numbers, and the routes that it
//! suggests.

use std::time::Duration;

use futures_util::future::join_all;
use rand::prelude::*;
use serde_json::{Value, json};

use super::suggestions::patched;
use crate::support::scene::assert_cache;
use crate::support::{Request, Response, Scene, Sidecar, eventually, metric};

/// The report, once so many reads are in it.
async fn report(sidecar: &Sidecar, requests: u64) -> Value {
    let counted = async || {
        let report: Value = sidecar.admin_get("/uncached").await.json();
        report["requests"].as_u64() >= Some(requests)
    };
    eventually("all reads are counted", Duration::from_secs(30), counted).await;
    sidecar.admin_get("/uncached").await.json()
}

fn paths(report: &Value) -> Vec<&str> {
    let paths = report["paths"].as_array().expect("paths").iter();
    paths.map(|one| one["path"].as_str().expect("a path")).collect()
}

fn of<'a>(report: &'a Value, path: &str) -> &'a Value {
    let mut paths = report["paths"].as_array().expect("paths").iter();
    paths.find(|one| one["path"] == path).unwrap_or_else(|| panic!("{path}: {report:#}"))
}

/// Sets the mode of all routes that a suggestion has brought.
fn switched_on(text: &str) -> String {
    text.replace("mode = \"shadow\"", "mode = \"on\"")
}

async fn apply(sidecar: &Sidecar, diff: &str) {
    let before = std::fs::read_to_string(&sidecar.file).expect("the file");
    let after = patched(&before, diff);
    std::fs::write(&sidecar.file, &after).expect("the file can be written to");
    let report = sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(report["ok"], true, "{report}\n{after}");
}

async fn switch_on(sidecar: &Sidecar) {
    let text = std::fs::read_to_string(&sidecar.file).expect("the file");
    std::fs::write(&sidecar.file, switched_on(&text)).expect("the file can be written to");
    sidecar.admin_ok("/reload", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_on_which_the_app_spends_most_time_is_first_and_its_share_is_right() {
    let scene = Scene::start("", |_| Response::ok("data")).await;
    let clock = scene.clock.clone();
    scene.answers(move |request| {
        let millis = if request.path.starts_with("/api/v1/reports/") { 50 } else { 1 };
        clock.advance(Duration::from_millis(millis));
        Response::ok(format!("of {}", request.path))
    });
    for round in 0..40_u32 {
        // Ten reports, four times each.
        scene.get(&format!("/api/v1/reports/{}", round % 10)).await;
        scene.get("/api/v1/users").await;
        // Each of them once.
        scene.get(&format!("/files/{round}.pdf?at={round}")).await;
    }
    for method in ["PUT", "DELETE"] {
        scene.send(method, "/api/v1/reports/3", &[], "x").await;
    }
    let report = report(&scene.sidecar, 120).await;
    let shown = paths(&report);
    assert_eq!(shown[0], "/api/v1/reports/{n}", "{report:#}");
    assert!(shown.contains(&"/api/v1/users") && shown.contains(&"/files/{n}.pdf"), "{shown:?}");
    let slow = of(&report, "/api/v1/reports/{n}");
    assert_eq!(slow["requests"], 40);
    let time = slow["app_s"].as_f64().expect("seconds");
    assert!((1.9..2.2).contains(&time), "{slow:#}");
    let share = slow["hit_share"].as_f64().expect("a share");
    assert!((share - 0.75).abs() < 0.01, "30 of 40: {slow:#}");
    let saved = slow["saved_s"].as_f64().expect("seconds");
    assert!((saved - 1.5).abs() < 0.15, "{slow:#}");
    assert_eq!(slow["writes"][0]["methods"], json!(["DELETE", "PUT"]), "{slow:#}");
    let users = of(&report, "/api/v1/users")["hit_share"].as_f64().expect("a share");
    assert!(users > 0.95, "{report:#}");
    let files = of(&report, "/files/{n}.pdf");
    assert_eq!(files["hit_share"], 0.0, "{files:#}");
    assert_eq!(files["parameters"], json!(["at"]));
    assert!(files["why_not"].as_str().is_some_and(|why| why.contains("repeats")), "{files:#}");

    // From there to a route: first in shadow mode, then it serves.
    let diff = slow["suggestion"]["diff"].as_str().unwrap_or_else(|| panic!("{slow:#}"));
    assert!(diff.contains("+mode = \"shadow\"") && diff.contains("+[[purges]]"), "{diff}");
    apply(&scene.sidecar, diff).await;
    let reply = scene.get("/api/v1/reports/3").await;
    assert_cache(&reply, "BYPASS", "in shadow");
    switch_on(&scene.sidecar).await;
    scene.get("/api/v1/reports/3").await;
    assert_cache(&scene.get("/api/v1/reports/3").await, "HIT", "on");
    scene.send("PUT", "/api/v1/reports/4", &[], "x").await;
    assert_cache(&scene.get("/api/v1/reports/3").await, "MISS", "writes beside it purge it");
    // What has a route is no longer in the list.
    let report: Value = scene.sidecar.admin_get("/uncached").await.json();
    assert!(!paths(&report).contains(&"/api/v1/reports/{n}"), "{report:#}");
    assert!(metric(scene.sidecar.admin, "sidecache_uncached_templates").await >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_a_sample_is_looked_at_and_the_numbers_stay_true() {
    let scene = Scene::start("", |request| Response::ok(format!("of {}", request.path))).await;
    let count = |of: &Value, name: &str| of[name].as_u64().expect("a number");
    let is_sampling = async || {
        let report: Value = scene.sidecar.admin_get("/uncached").await.json();
        report["sampling"] == true
    };
    let mut sent = 0_u64;
    let mut flood = async || {
        for _ in 0..50 {
            // One of three for the same path, the others each once.
            let paths: Vec<String> = (sent..sent + 16)
                .map(|n| if n % 3 == 0 { "/hot".to_owned() } else { format!("/cold/{n}") })
                .collect();
            sent += 16;
            join_all(paths.iter().map(|path| scene.get(path))).await;
        }
        sent
    };
    let mut floods = 0;
    while !is_sampling().await {
        floods += 1;
        assert!(floods < 100, "there are more than 256 requests within a second");
        flood().await;
    }
    let sent = flood().await;
    let report = report(&scene.sidecar, sent / 2).await;
    let (requests, observed) = (count(&report, "requests"), count(&report, "observed"));
    assert!(observed < requests && requests < 2 * sent, "{sent}: {report:#}");
    let unsampled = metric(scene.sidecar.admin, "sidecache_uncached_unsampled_total").await;
    assert!(unsampled > 0 && unsampled + observed <= sent, "{unsampled} {observed} {sent}");
    let (hot, cold) = (of(&report, "/hot"), of(&report, "/cold/{n}"));
    assert_eq!(count(hot, "requests") + count(cold, "requests"), requests, "{report:#}");
    assert!(hot["hit_share"].as_f64() > Some(0.95), "{hot:#}");
    assert_eq!(cold["hit_share"], 0.0, "{cold:#}");
    assert!(count(cold, "compared") > 100, "{cold:#}");

    // A minute of quiet later all are looked at again.
    scene.clock.advance(Duration::from_secs(61));
    for _ in 0..10 {
        scene.get("/hot").await;
    }
    let again = async || {
        let report: Value = scene.sidecar.admin_get("/uncached").await.json();
        count(&report, "observed") >= observed + 10 && report["sampling"] == false
    };
    eventually("all are looked at again", Duration::from_secs(30), again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_cached_gets_no_route_but_a_reason() {
    let scene = Scene::start("", |_| Response::ok("data")).await;
    let clock = scene.clock.clone();
    scene.answers(move |request| {
        clock.advance(Duration::from_millis(1));
        let reply = Response::ok("the same for all");
        match request.path.split('/').nth(1) {
            Some("pages") => reply.header("set-cookie", "sid=1; HttpOnly"),
            Some("forms") => reply
                .header("set-cookie", "csrftoken=1")
                .header("content-type", "text/html; charset=utf-8"),
            Some("stored") => reply.header("cache-control", "no-store"),
            Some("all") => reply.header("vary", "*"),
            Some("feed") => reply.header("content-type", "text/event-stream"),
            Some("live") => Response::ok(format!("at {:?}", clock.now())),
            _ => reply,
        }
    });
    let all = [
        ("/login", "login"),
        ("/accounts/login/", "login"),
        ("/pages/a", "set a cookie"),
        ("/forms/a", "cookie"),
        ("/stored/a", "no-store"),
        ("/all/a", "Vary"),
        ("/feed/a", "event streams"),
        ("/live/a", "changes"),
        ("/password/reset/letmein", "login"),
        ("/invite/letmein", "secrets"),
        ("/items/1/delete", "does something"),
        ("/signed?signature=abc", "credential"),
    ];
    for _ in 0..12 {
        for (path, _) in all {
            scene.get(path).await;
        }
    }
    scene.get("/rare").await;
    let report = report(&scene.sidecar, 12 * 12 + 1).await;
    let shown = report["paths"].as_array().expect("paths");
    assert_eq!(shown.len(), all.len() + 1, "{report:#}");
    for one in shown {
        assert_eq!(one["suggestion"], Value::Null, "{one:#}");
    }
    for (path, word) in all {
        let path = match path {
            "/items/1/delete" => "/items/{n}/delete",
            "/password/reset/letmein" => "/password/{secret}/{secret}",
            "/invite/letmein" => "/invite/{secret}",
            path => path.split('?').next().expect("a path"),
        };
        let why = of(&report, path)["why_not"].as_str().expect("a reason");
        assert!(why.contains(word), "{path}: {why}");
    }
    let text = report.to_string();
    assert!(!text.contains("letmein") && !text.contains("abc"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_beside_ids_is_kept_out_of_their_route() {
    let scene = Scene::start("", |request| Response::ok(request.path.clone())).await;
    for _ in 0..4 {
        for at in 0..5 {
            scene.get(&format!("/account/{at}")).await;
        }
        scene.get("/account/login").await;
    }
    let report = report(&scene.sidecar, 24).await;
    let ids = of(&report, "/account/{n}");
    let diff = ids["suggestion"]["diff"].as_str().unwrap_or_else(|| panic!("{ids:#}"));
    apply(&scene.sidecar, diff).await;
    switch_on(&scene.sidecar).await;
    for _ in 0..2 {
        assert_cache(&scene.get("/account/login").await, "BYPASS", "a login");
        scene.get("/account/1").await;
    }
    assert_cache(&scene.get("/account/1").await, "HIT", "an id");
}

/// Headers by which the app tells callers apart.
const IDENTITIES: [&str; 6] =
    ["authorization", "cookie", "x-tenant-id", "x-api-key", "x-forwarded-user", "x-theme"];
const PATHS: [&str; 6] = [
    "/a/1",
    "/a/2",
    "/b/list",
    "/b/list?q=1",
    "/c/1.json",
    "/d/0b1f9a34-4c1f-4a86-9c6a-1f6f3c1d2e3f",
];

fn who_asks(request: &Request) -> Response {
    let seen = IDENTITIES.iter().filter_map(|name| request.header(name));
    Response::ok(format!("for {};", seen.collect::<Vec<_>>().join(" ")))
}

/// Sends requests of some callers and judges the answers. Returns how many were hits.
async fn traffic(scene: &Scene, random: &mut StdRng, usual: &[&str], requests: usize) -> usize {
    let mut hits = 0;
    for _ in 0..requests {
        let caller = random.gen_range(0..3);
        let mut headers: Vec<(&str, String)> = Vec::new();
        for name in usual.iter().copied().filter(|_| random.gen_bool(0.9)) {
            let value = format!("{name}-of-{caller}-");
            headers.push(match name {
                "authorization" => (name, format!("Bearer {value}")),
                "cookie" => (name, format!("sid={value}")),
                _ => (name, value),
            });
        }
        let sent: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = PATHS.choose(random).expect("six");
        let reply = scene.ask(path, &sent).await;
        hits += usize::from(reply.cache() == "HIT");
        let said = reply.text().trim_start_matches("for ").trim_end_matches(';');
        for word in said.split([' ', '=']).filter(|word| word.contains("-of-")) {
            assert!(
                sent.iter().any(|(_, value)| value.split([' ', '=']).any(|own| own == word)),
                "{path} with {sent:?} got {said:?} ({})\n{}",
                reply.cache_status(),
                std::fs::read_to_string(&scene.sidecar.file).expect("the file")
            );
        }
    }
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_route_is_suggested_gives_nobody_what_is_anothers() {
    let (mut applied, mut hits) = (0, 0);
    for seed in 0..10 {
        let mut random = StdRng::seed_from_u64(seed);
        let usual: Vec<&str> = IDENTITIES.choose_multiple(&mut random, 2).copied().collect();
        let scene = Scene::start("", who_asks).await;
        let mut sent = 0;
        traffic(&scene, &mut random, &usual, 150).await;
        sent += 150;
        for _ in 0..4 {
            let report = report(&scene.sidecar, sent).await;
            let all = report["paths"].as_array().expect("paths").iter();
            let diffs: Vec<&str> =
                all.filter_map(|one| one["suggestion"]["diff"].as_str()).collect();
            let Some(diff) = diffs.choose(&mut random) else {
                eprintln!("{usual:?} {report:#}");
                break;
            };
            apply(&scene.sidecar, diff).await;
            switch_on(&scene.sidecar).await;
            applied += 1;
            hits += traffic(&scene, &mut random, &usual, 100).await;
        }
    }
    assert!(applied > 20 && hits > 300, "{applied} routes and {hits} hits prove little");
}
