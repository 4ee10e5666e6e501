//! What differs each time, so that the same caller never hits, is recognised and told by name, with
//! the way out; and the header that is blamed is the one at fault.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::suggestions::{patched, suggested};
use crate::support::scene::assert_cache;
use crate::support::{Client, Request, Response, Scene};

/// Enough requests for a finding.
const MANY: u64 = 24;

const PRIVATE: &str = "[[routes]]\npath = \"/d/{id}\"\nttl = \"5m\"\n";

/// A value that looks made for one request, and differs in each.
fn made(at: u64) -> String {
    format!("{:016x}7aB", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at + 1))
}

/// The reasons of the only route.
async fn reasons(scene: &Scene) -> Vec<Value> {
    let stats = scene.sidecar.stats().await;
    stats["routes"][0]["reasons"].as_array().expect("reasons").clone()
}

/// The reason with these words.
async fn reason(scene: &Scene, words: &str) -> Value {
    let all = reasons(scene).await;
    let found = all.iter().find(|reason| reason["reason"] == words);
    found.unwrap_or_else(|| panic!("no {words} in {all:?}")).clone()
}

fn why(reason: &Value) -> &str {
    reason["why"].as_str().expect("words")
}

/// The advice of `sidecache advise`.
async fn advice(scene: &Scene) -> Vec<Value> {
    let report: Value = scene.sidecar.admin_get("/shadow").await.json();
    report["advice"].as_array().expect("advice").clone()
}

async fn explained(scene: &Scene, target: &str) -> String {
    scene
        .sidecar
        .admin_ok("/explain", &json!({ "method": "GET", "target": target }))
        .await
        .to_string()
}

async fn apply(scene: &Scene, diff: &str) {
    let before = std::fs::read_to_string(&scene.sidecar.file).expect("the file");
    std::fs::write(&scene.sidecar.file, patched(&before, diff)).expect("it can be written to");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
}

fn echo(request: &Request) -> Response {
    Response::ok(format!(
        "for {:?} {:?}",
        request.header("cookie"),
        request.header("authorization")
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r900_the_header_that_vary_does_not_cover_is_blamed() {
    let scene = Scene::start(PRIVATE, |request| echo(request).header("vary", "rsc")).await;
    let both = [("rsc", "1"), ("next-url", "/x")];
    for headers in [both, [both[1], both[0]]] {
        for _ in 0..2 {
            let reply = scene.ask("/d/1", &headers).await;
            let status = reply.header("cache-status");
            assert!(status.contains("unkeyed header next-url"), "{status}");
        }
    }
    let told = reason(&scene, "unkeyed header").await;
    assert_eq!(told["subjects"], json!(["next-url"]), "{told}");
    // What is blamed changes the outcome.
    scene.ask("/d/1", &both[..1]).await;
    assert_cache(&scene.ask("/d/1", &both[..1]).await, "HIT", "without next-url");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r901_a_session_that_rolls_is_told_and_never_stripped() {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let scene = Scene::start(PRIVATE, |request| {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        // As Flask renews a permanent session.
        let cookie = format!("session=eyJ1IjoxfQ.{}; HttpOnly; Path=/", made(at));
        echo(request).header("set-cookie", &cookie).header("vary", "Cookie")
    })
    .await;
    let mut cookie = "session=eyJ1IjoxfQ.first".to_owned();
    for _ in 0..MANY {
        let reply = scene.ask("/d/1", &[("cookie", &cookie)]).await;
        let set = reply.header("set-cookie").to_owned();
        cookie = set.split(';').next().expect("a pair").to_owned();
    }
    let told = reason(&scene, "set-cookie").await;
    assert_eq!(told["subject"], "session", "{told}");
    for words in [
        &format!("`session` {MANY} times"),
        "Never strip session",
        "replaces it each time",
        "SESSION_REFRESH_EACH_REQUEST",
    ] {
        assert!(why(&told).contains(words), "{words}: {told}");
    }
    assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());
    let advised = advice(&scene).await;
    assert!(advised.iter().any(|one| why(one).contains("Never strip session")), "{advised:?}");
    assert!(explained(&scene, "/d/1").await.contains("Never strip session"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r902_a_parameter_that_never_repeats_is_told_by_name() {
    let listed = PRIVATE.replace("ttl", "query = [\"page\", \"_\"]\nttl");
    for (rules, has_line) in [(PRIVATE, false), (listed.as_str(), true)] {
        let scene = Scene::start(rules, echo).await;
        let target = |at: u64| format!("/d/1?page={}&_={}", at % 2, 1_712_000_000_000 + at);
        for at in 0..MANY {
            let reply = scene.ask(&target(at), &[("cookie", "sid=1")]).await;
            assert_cache(&reply, "MISS", "its key never repeats");
        }
        let told = reason(&scene, "not stored").await;
        assert_eq!(told["subject"], "parameter _", "{told}");
        assert!(why(&told).contains("get round caches"), "{told}");
        assert!(why(&told).contains("Seen besides it: page."), "{told}");
        assert!(!told.to_string().contains("1712"), "no value: {told}");
        let diffs = suggested(&scene.sidecar).await;
        assert_eq!(!diffs.is_empty(), has_line, "{diffs:?}");
        if let Some(diff) = diffs.first() {
            apply(&scene, diff).await;
            scene.ask(&target(90), &[("cookie", "sid=1")]).await;
            let reply = scene.ask(&target(92), &[("cookie", "sid=1")]).await;
            assert_cache(&reply, "HIT", "after one paste");
            let seen = scene.last("/d/1");
            assert!(!seen.target.contains("_="), "withheld: {}", seen.target);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r903_a_header_of_one_request_in_the_key_is_told_and_stays_there() {
    let rules = "[fields]\nnonce = { header = \"x-nonce\" }\n[[routes]]\npath = \"/d/{id}\"\n\
        ttl = \"5m\"\nkey = [\"nonce\"]\n";
    for mode in ["on", "shadow"] {
        let rules = rules.replace("ttl", &format!("mode = \"{mode}\"\nttl"));
        let scene = Scene::start(&rules, echo).await;
        for at in 0..MANY {
            scene.ask("/d/1", &[("x-nonce", &made(at))]).await;
        }
        let advised = advice(&scene).await;
        let told = advised.iter().find(|one| why(one).contains("header x-nonce"));
        let told = told.unwrap_or_else(|| panic!("{mode}: {advised:?}"));
        assert!(why(told).contains("take the field `nonce` out of `key` by hand"), "{told}");
        assert_eq!(told["diff"], Value::Null, "{told}");
        assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r904_a_cookie_of_a_load_balancer_that_changes_each_time_may_be_ignored() {
    for (name, has_line) in [("AWSALB", true), ("csrftoken", false), ("XSRF-TOKEN", false)] {
        let scene = Scene::start(PRIVATE, echo).await;
        let cookie = |at: u64| format!("sid=one; {name}={}", made(at));
        for at in 0..MANY {
            scene.ask("/d/1", &[("cookie", &cookie(at))]).await;
        }
        let told = reason(&scene, "not stored").await;
        assert_eq!(told["subject"], format!("cookie {name}"), "{told}");
        let diffs = suggested(&scene.sidecar).await;
        assert_eq!(!diffs.is_empty(), has_line, "{name}: {diffs:?}");
        let Some(diff) = diffs.first() else {
            assert!(why(&told).contains("neither ignore nor strip"), "{told}");
            continue;
        };
        apply(&scene, diff).await;
        scene.ask("/d/1", &[("cookie", &cookie(90))]).await;
        let reply = scene.ask("/d/1", &[("cookie", &cookie(91))]).await;
        assert_cache(&reply, "HIT", "after one paste");
        let other = format!("sid=two; {name}={}", made(92));
        let reply = scene.ask("/d/1", &[("cookie", &other)]).await;
        assert!(reply.text().contains("sid=two"), "{}", reply.text());
        assert_eq!(reason(&scene, "not stored").await["subject"], Value::Null, "it is mended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r905_many_callers_and_many_pages_are_no_keys_that_never_repeat() {
    let scene = Scene::start(PRIVATE, echo).await;
    // Each caller comes once, from one address.
    for at in 0..MANY {
        scene.ask("/d/1", &[("cookie", &format!("sid={}", made(at)))]).await;
        scene.ask("/d/2", &[("authorization", &format!("Bearer {}", made(at)))]).await;
    }
    // Each page is asked for twice, and hits the second time; their names are like any.
    for at in 0..2 * MANY {
        scene.ask(&format!("/d/3?id={}", at / 2), &[]).await;
        scene.ask(&format!("/d/4?token={}", made(at / 2)), &[]).await;
    }
    assert_eq!(reason(&scene, "not stored").await["subjects"], json!([]));
    assert_eq!(advice(&scene).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r906_a_cookie_that_counts_visitors_may_be_stripped_and_no_other() {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for (names, has_line) in [
        (&["_ga"][..], true),
        (&["_ga", "AWSALB"][..], true),
        (&["_ga", "PHPSESSID"][..], false),
        (&["csrftoken"][..], false),
        (&["pref"][..], false),
    ] {
        let scene = Scene::start(PRIVATE, |request| {
            let set = |name: &str| format!("{name}={}", made(NEXT.fetch_add(1, Ordering::Relaxed)));
            names
                .iter()
                .fold(echo(request), |response, name| response.header("set-cookie", &set(name)))
        })
        .await;
        for _ in 0..3 {
            scene.ask("/d/1", &[("cookie", "sid=1")]).await;
        }
        let told = reason(&scene, "set-cookie").await;
        for name in names {
            assert!(told["subjects"].to_string().contains(name), "{told}");
            assert!(why(&told).contains(name), "{told}");
        }
        let diffs = suggested(&scene.sidecar).await;
        assert_eq!(!diffs.is_empty(), has_line, "{names:?}: {diffs:?}");
        if let Some(diff) = diffs.first() {
            apply(&scene, diff).await;
            scene.ask("/d/1", &[("cookie", "sid=1")]).await;
            let reply = scene.ask("/d/1", &[("cookie", "sid=1")]).await;
            assert_cache(&reply, "HIT", "after one paste");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r907_an_unknown_header_of_one_request_is_no_field_of_the_key() {
    let scene = Scene::start(PRIVATE, echo).await;
    for at in 0..MANY {
        let value = made(at);
        let headers = [("x-seq", value.as_str()), ("x-nonce", &value), ("x-theme", "dark")];
        scene.ask("/d/1", &headers).await;
    }
    let told = reason(&scene, "unkeyed header").await;
    assert!(told["diff"].is_null(), "each of them would bypass as before: {told}");
    let why = told["why"].as_str().expect("words");
    assert!(why.contains("x-seq has another value in each request"), "{why}");
    scene.ask("/d/1", &[("x-theme", "dark")]).await;
    let told = reason(&scene, "unkeyed header").await;
    let diff = told["diff"].as_str().expect("the other one may have a place in the key");
    assert!(diff.contains("x-theme") && !diff.contains("x-nonce"), "{diff}");
    assert!(!diff.contains("x-seq"), "{diff}");
    let does = told["does"].as_str().expect("what it does");
    assert!(does.contains("x-seq has another value in each request"), "{does}");
    assert!(does.contains("Requests with x-nonce bypass the cache as before"), "{does}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r908_hostile_names_and_values_stay_bounded_and_unseen() {
    const SECRET: &str = "hunter2SECRETvalue77";
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let scene = Scene::start(PRIVATE, |request| {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("<script>{}\u{1b}[2J", "n".repeat(400)).replace('\u{1b}', "%1b");
        let cookie = format!("{name}{at}={SECRET}{at}; a=b");
        let response = echo(request);
        if request.target.contains("set") {
            response.header("set-cookie", &cookie)
        } else {
            response
        }
    })
    .await;
    let mut client = Client::new(scene.sidecar.address);
    for at in 0..1_000_u64 {
        let names: Vec<String> = (0..10).map(|n| format!("c{at}x{n}={SECRET}{at}")).collect();
        let cookie = format!("sid=1; z={SECRET}{at}; {}", names.join("; "));
        let many = (0..40).map(|n| format!("&k{n}=1")).collect::<Vec<_>>().concat();
        let target = match at % 10 {
            0 => format!("/d/{at}?x=1{many}"),
            1 => format!("/d/1?set={at}"),
            2 => format!("/d/1?%3Cscript%3Ealert({at})%3C/script%3E={SECRET}{at}"),
            3 => format!("/d/1?big={}{at}", SECRET.repeat(600)),
            4 => format!("/d/1?big={}{at}", SECRET.repeat(2_000)),
            // The value stands alone, or in the place of a name.
            5 => format!("/d/1?{SECRET}{at}"),
            6 => format!("/d/1?{SECRET}=1"),
            _ => format!("/d/1?p{at}={SECRET}{at}&_={}", 1_712_000_000_000 + at),
        };
        let reply = client.get(&target, &[("cookie", cookie.as_str())]).await;
        assert!(reply.status < 500, "{}", reply.status);
    }
    let (stats, shadow) = (scene.sidecar.stats().await, advice(&scene).await);
    let shown = format!("{stats} {shadow:?} {}", explained(&scene, "/d/1").await);
    assert!(!shown.contains("SECRET") && !shown.contains("1712"), "a value is shown");
    assert!(shown.len() < 64 * 1024, "{} bytes", shown.len());
    let subjects = reasons(&scene).await;
    for reason in &subjects {
        assert!(reason["subjects"].as_array().expect("a list").len() <= 32, "{reason}");
        assert!(why(reason).len() < 8 * 1024, "{reason}");
    }
    assert_eq!(
        suggested(&scene.sidecar).await,
        Vec::<String>::new(),
        "no line comes of what strangers name"
    );
    let metrics = scene.sidecar.admin_get("/metrics").await.text().to_owned();
    let series = "sidecache_limit_reached_total{limit=\"route.key_parts\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(series));
    assert!(count.is_some_and(|count| count != "0"), "{count:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r909_the_withheld_header_that_stays_in_the_way_is_blamed() {
    let rules = PRIVATE.replace("ttl", "scope = \"public\"\nttl");
    let scene = Scene::start(&rules, |request| echo(request).header("vary", "dnt, cookie")).await;
    for _ in 0..2 {
        let reply = scene.ask("/d/1", &[("dnt", "1"), ("cookie", "sid=1")]).await;
        let status = reply.header("cache-status");
        assert!(status.contains("withheld header cookie"), "{status}");
    }
    scene.ask("/d/1", &[("dnt", "1")]).await;
    assert_cache(&scene.ask("/d/1", &[("dnt", "1")]).await, "HIT", "without the cookie");
}
