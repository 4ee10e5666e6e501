//! Whatever is suggested may be pasted: alone, after each other, in any order, under the traffic of
//! many callers, nobody gets what the app said to somebody else.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::prelude::*;
use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{Request, Response, Scene, Sidecar};

/// Headers by which the app tells callers apart.
const IDENTITIES: [&str; 12] = [
    "authorization",
    "cookie",
    "x-tenant-id",
    "x-api-key",
    "private-token",
    "x-forwarded-user",
    "x-user",
    "x-account-id",
    "x-organization",
    "x-remote-email",
    "x-amzn-oidc-data",
    "x-theme",
];

/// The app says who asks, as far as it can tell.
fn who_asks(request: &Request) -> Response {
    let seen = IDENTITIES.iter().filter_map(|name| request.header(name));
    let body = format!("for {};", seen.collect::<Vec<_>>().join(" "));
    let response = match request.header("x-private") {
        Some(_) => Response::ok(body).header("cache-control", "private"),
        None => Response::ok(body),
    };
    match request.path.as_str() {
        "/b/2" => response.header("set-cookie", &format!("_ga=GA1.{}; Path=/", next())),
        // A session that is renewed each time, whose token is in the body.
        "/c/x/y" => {
            let token = format!("session-of-{}-", next());
            response.header("set-cookie", &format!("session={token}; HttpOnly"))
        }
        _ => response,
    }
}

/// A number that no other request has.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_700_000_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request of some caller, with values that nobody else has. The callers of a run have few kinds
/// of headers, as those of one app do.
fn random_headers(random: &mut StdRng, usual: &[&str]) -> Vec<(&'static str, String)> {
    let caller = random.gen_range(0..3);
    let mut headers: Vec<(&str, String)> = Vec::new();
    for name in IDENTITIES {
        if !usual.contains(&name) || !random.gen_bool(0.8) {
            continue;
        }
        let value = format!("{name}-of-{caller}-");
        headers.push((
            name,
            match name {
                "authorization" => format!("Bearer {value}"),
                "cookie" => format!("sid={value}; AWSALB=b{}; _gid={caller}", next()),
                _ => value,
            },
        ));
    }
    for (name, share) in [("cf-ray", 0.3), ("x-forwarded-for", 0.2), ("x-forwarded-host", 0.02)] {
        if random.gen_bool(share) {
            headers.push((name, format!("10.0.0.{caller}")));
        }
    }
    if random.gen_bool(0.1) {
        headers.push(("cache-control", "no-cache".to_owned()));
    }
    headers
}

fn random_rules(random: &mut StdRng) -> String {
    let mut rules = "[fields]\ntenant = { header = \"x-tenant-id\" }\n\
        token = { auth = \"token\" }\n"
        .to_owned();
    for path in ["/a", "/b/{id}", "/c/{*rest}"] {
        let scope = ["private", "shared", "public"].choose(random).expect("three");
        let key = ["", "key = [\"tenant\"]\n", "key = [\"tenant?\"]\n"].choose(random);
        let query = ["", "query = [\"q\", \"_\"]\n"].choose(random).expect("two");
        let ttl = ["", "ttl = \"1m\"\n"].choose(random).expect("two");
        let key = key.expect("three");
        let _ = write!(rules, "[[routes]]\npath = \"{path}\"\nscope = \"{scope}\"\n{key}{ttl}");
        rules.push_str(query);
    }
    rules
}

/// Sends requests and judges the answers: each names those alone whom its request names. Returns
/// how many were hits.
async fn traffic(scene: &Scene, random: &mut StdRng, usual: &[&str], requests: usize) -> usize {
    let mut hits = 0;
    for _ in 0..requests {
        let paths = ["/a", "/b/1", "/b/2", "/c/x/y", "/a?q=1", "/a?q=1&_="];
        let mut path = (*paths.choose(random).expect("six")).to_owned();
        if path.ends_with("_=") {
            path += &next().to_string();
        }
        let path = path.as_str();
        let mut headers = random_headers(random, usual);
        if random.gen_bool(0.1) {
            headers.push(("x-nonce", format!("n{}", next())));
        }
        let sent: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = scene.ask(path, &sent).await;
        hits += usize::from(reply.cache() == "HIT");
        let said = reply.text().trim_start_matches("for ");
        for word in said.split([' ', ';']).filter(|word| word.contains("-of-")) {
            assert!(
                sent.iter().any(|(_, value)| value.split([' ', ';']).any(|own| own == word)),
                "{path} with {sent:?} got {said:?} ({})\n{}",
                reply.cache_status(),
                std::fs::read_to_string(&scene.sidecar.file).expect("the file")
            );
        }
    }
    hits
}

/// What the file is after a unified diff of it.
pub(super) fn patched(text: &str, diff: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut out, mut at) = (Vec::new(), 0);
    for line in diff.lines().filter(|line| !line.starts_with("\\ ")) {
        if let Some(place) = line.strip_prefix("@@ -") {
            let start = place.split([',', ' ']).next().and_then(|first| first.parse().ok());
            let start: usize = start.expect("a hunk begins at a line");
            out.extend_from_slice(&lines[at..start - 1]);
            at = start - 1;
        } else if let Some(added) = line.strip_prefix('+') {
            out.push(added);
        } else {
            assert_eq!(lines[at], &line[1..], "the diff is one of the file");
            if !line.starts_with('-') {
                out.push(lines[at]);
            }
            at += 1;
        }
    }
    out.extend_from_slice(&lines[at..]);
    out.join("\n") + "\n"
}

/// Every change that is suggested now, as a diff.
pub(super) async fn suggested(sidecar: &Sidecar) -> Vec<String> {
    let stats = sidecar.stats().await;
    let routes = stats["routes"].as_array().expect("routes").iter();
    let reasons = routes.flat_map(|route| route["reasons"].as_array().expect("reasons"));
    let mut diffs: Vec<String> =
        reasons.filter_map(|reason| reason["diff"].as_str().map(str::to_owned)).collect();
    let shadow: Value = sidecar.admin_get("/shadow").await.json();
    let advice = shadow["advice"].as_array().expect("advice").iter();
    diffs.extend(advice.filter_map(|one| one["diff"].as_str().map(str::to_owned)));
    diffs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_suggested_gives_nobody_what_is_anothers() {
    let (mut applied, mut hits) = (0, 0);
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let rules = random_rules(&mut random);
        let usual: Vec<&str> = IDENTITIES.choose_multiple(&mut random, 3).copied().collect();
        let scene = Scene::start(&rules, who_asks).await;
        traffic(&scene, &mut random, &usual, 80).await;
        for _ in 0..6 {
            let diffs = suggested(&scene.sidecar).await;
            let Some(diff) = diffs.choose(&mut random) else { break };
            let before = std::fs::read_to_string(&scene.sidecar.file).expect("the file");
            let after = patched(&before, diff);
            std::fs::write(&scene.sidecar.file, &after).expect("the file can be written to");
            let report = scene.sidecar.admin_ok("/reload", &json!({})).await;
            assert_eq!(report["ok"], true, "{report}\n{after}");
            applied += 1;
            hits += traffic(&scene, &mut random, &usual, 80).await;
        }
    }
    assert!(applied > 20 && hits > 100, "{applied} changes and {hits} hits prove little");
}

const TENANTS: &str = "[fields]\ntenant = { header = \"x-tenant\" }\n[[routes]]\n\
    path = \"/d\"\nttl = \"1m\"\nscope = \"public\"\nkey = [\"tenant\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r800_two_pastes_in_a_row_do_not_give_a_tenant_anothers_data() {
    let scene = Scene::start(TENANTS, |request| {
        Response::ok(request.header("x-tenant-id").unwrap_or_else(|| "nobody".to_owned()))
    })
    .await;
    for _ in 0..3 {
        scene.ask("/d", &[("x-tenant-id", "acme")]).await;
    }
    // What the first paste was: the field that requests lack, taken out of the key.
    let keyless = TENANTS.replace("key = [\"tenant\"]\n", "");
    scene.sidecar.rewrite(&keyless);
    let refused = scene.sidecar.admin_post("/reload", &json!({})).await.json();
    assert_eq!(refused["ok"], false, "{refused}");
    assert!(refused["text"].as_str().is_some_and(|text| text.contains("`tenant`")), "{refused}");
    for diff in suggested(&scene.sidecar).await {
        assert!(!diff.contains("pass_headers") && !diff.contains("-key"), "{diff}");
    }
    // With the operator's word it is in force, and the header has no way beside the key.
    scene.sidecar.rewrite(&keyless.replace("[[routes]]", "[[routes]] # check: ok"));
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    scene.ask("/d", &[("x-tenant-id", "acme")]).await;
    for diff in suggested(&scene.sidecar).await {
        assert!(!diff.contains("pass_headers"), "{diff}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r801_all_unknown_headers_of_a_request_are_one_suggestion() {
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"1m\"\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let names: Vec<String> = (0..13).map(|at| format!("x-odd-{at:02}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_cache(&scene.ask("/d", &headers).await, "BYPASS", "unknown headers");
    let diffs = suggested(&scene.sidecar).await;
    assert_eq!(diffs.len(), 1, "{diffs:?}");
    for name in &names {
        assert!(diffs[0].contains(name), "{name}: {}", diffs[0]);
    }
    let before = std::fs::read_to_string(&scene.sidecar.file).expect("the file");
    std::fs::write(&scene.sidecar.file, patched(&before, &diffs[0])).expect("written");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    scene.ask("/d", &headers).await;
    assert_cache(&scene.ask("/d", &headers).await, "HIT", "after one paste");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r802_a_mode_is_taken_from_a_file_that_is_refused() {
    let scene = Scene::start(TENANTS, |_| Response::ok("data")).await;
    let ask = || scene.ask("/d", &[("x-tenant", "a")]);
    ask().await;
    assert_cache(&ask().await, "HIT", "on");
    scene.sidecar.rewrite(&TENANTS.replace("key = [\"tenant\"]", "mode = \"off\""));
    let refused = scene.sidecar.admin_post("/reload", &json!({})).await.json();
    assert_eq!(refused["ok"], false, "{refused}");
    assert_cache(&ask().await, "BYPASS", "off");
    scene.sidecar.rewrite(TENANTS);
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    assert_cache(&ask().await, "HIT", "on again, and the key as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r860_a_path_keeps_who_shares_it_under_another_route() {
    let rules = "[fields]\ntenant = { header = \"x-tenant\" }\n[[routes]]\n\
        path = \"/d/{id}\"\nttl = \"1m\"\nkey = [\"tenant\"]\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let public = "\nttl = \"1m\"\nscope = \"public\"\n";
    for (path, text) in [
        ("/d/{other}", format!("[[routes]]\npath = \"/d/{{other}}\"{public}")),
        ("/d/{*rest}", format!("[[routes]]\npath = \"/d/{{*rest}}\"{public}")),
        ("/d/me", format!("{rules}[[routes]]\npath = \"/d/me\"{public}")),
    ] {
        scene.sidecar.rewrite(&text);
        let refused = scene.sidecar.admin_post("/reload", &json!({})).await.json();
        assert_eq!(refused["ok"], false, "{text}: {refused}");
        assert!(refused["text"].as_str().is_some_and(|text| text.contains(path)), "{refused}");
        let accepted = text.replace("scope = \"public\"", "scope = \"public\" # check: ok");
        let accepted = accepted.replace(
            &format!("[[routes]]\npath = \"{path}\""),
            &format!("[[routes]] # check: ok\npath = \"{path}\""),
        );
        scene.sidecar.rewrite(&accepted);
        scene.sidecar.admin_ok("/reload", &json!({})).await;
        scene.sidecar.rewrite(rules);
        scene.sidecar.admin_ok("/reload", &json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r861_a_capture_may_leave_the_tags() {
    let rules = "[[routes]]\npath = \"/d/{id}\"\nttl = \"1m\"\ntags = [\"d:{id}\"]\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    scene.sidecar.rewrite(&rules.replace("d:{id}", "d"));
    scene.sidecar.admin_ok("/reload", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r862_a_suggestion_uses_the_field_that_reads_the_header() {
    let rules = "[fields]\ntenant = { header = \"x-tenant-id\" }\n\
        x_odd = { cookie = \"odd\" }\n\
        [[routes]]\npath = \"/a\"\nttl = \"1m\"\nkey = [\"tenant\"]\n\
        [[routes]]\npath = \"/d\"\nttl = \"1m\"\nkey = [\"x_odd?\"]\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let headers = [("x-tenant-id", "acme"), ("x-odd", "1"), ("x-more", "2")];
    scene.ask("/d", &headers).await;
    let stats = scene.sidecar.stats().await;
    let reasons = stats["routes"].as_array().expect("routes").iter();
    let mut reasons = reasons.flat_map(|route| route["reasons"].as_array().expect("reasons"));
    let reason = reasons.find(|reason| reason["diff"].is_string()).expect("a suggestion");
    let (diff, lines) = (reason["diff"].to_string(), reason["remedy"].to_string());
    assert!(diff.contains("tenant?") && !diff.contains("x_tenant_id"), "{diff}");
    assert!(diff.contains("x_odd_2 = { header") && diff.contains("x_more = { header"), "{diff}");
    assert_eq!(lines.matches("[fields]").count(), 1, "{lines}");
    let before = std::fs::read_to_string(&scene.sidecar.file).expect("the file");
    let diff = reason["diff"].as_str().expect("a diff");
    std::fs::write(&scene.sidecar.file, patched(&before, diff)).expect("written");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    scene.ask("/d", &headers).await;
    assert_cache(&scene.ask("/d", &headers).await, "HIT", "after one paste");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r863_nothing_is_suggested_that_helps_nobody() {
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"10m\"\nscope = \"shared\"\n\
        tags = [\"d\"]\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    for caller in ["a", "b", "c"] {
        scene.ask("/d", &[("authorization", caller)]).await;
    }
    assert_eq!(
        suggested(&scene.sidecar).await,
        Vec::<String>::new(),
        "all came for the first time"
    );
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"10m\"\nscope = \"public\"\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    scene.ask("/d", &[("x-user-id", "1")]).await;
    scene.ask("/d", &[("x-odd", "1")]).await;
    let diffs = suggested(&scene.sidecar).await;
    assert!(diffs.len() == 1 && diffs[0].contains("x-odd"), "{diffs:?}");
    assert!(!diffs[0].contains("x-user-id"), "{diffs:?}");
    let stats = scene.sidecar.stats().await.to_string();
    assert!(stats.contains("Requests with x-user-id bypass the cache as before"), "{stats}");
}

#[test]
fn a_diff_is_applied_as_patch_would() {
    let text = "a\nb\nc\nd\ne\nf\n";
    let diff = "--- a\n+++ b\n@@ -1,3 +1,4 @@\n a\n+x\n b\n-c\n+y\n@@ -6 +7,2 @@\n f\n+z\n";
    assert_eq!(
        patched(text, diff.split_once("+++ b\n").expect("a head").1),
        "a\nx\nb\ny\nd\ne\nf\nz\n"
    );
}

/// 1051. The headers of a content delivery network were told and mended one by one, route by route.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1051_a_front_that_gives_itself_away_is_suggested() {
    let rules =
        "[[routes]]\npath = \"/d\"\nttl = \"1m\"\n[[routes]]\npath = \"/e\"\nttl = \"1m\"\n";
    let trusting = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    let scene = Scene::start_with(&trusting, rules, |_| Response::ok("data")).await;
    let headers = [
        ("cf-ray", "1"),
        ("cf-connecting-ip", "198.51.100.7"),
        ("cf-visitor", "{}"),
        ("x-odd", "1"),
    ];
    assert_cache(&scene.ask("/d", &headers).await, "BYPASS", "unknown headers");
    let diffs = suggested(&scene.sidecar).await;
    assert_eq!(diffs.len(), 1, "{diffs:?}");
    assert!(diffs[0].contains("+fronts = [\"cloudflare\"]"), "{}", diffs[0]);
    assert!(!diffs[0].contains("cf-ray") && diffs[0].contains("x-odd"), "{}", diffs[0]);
    let before = std::fs::read_to_string(&scene.sidecar.file).expect("the file");
    std::fs::write(&scene.sidecar.file, patched(&before, &diffs[0])).expect("written");
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    scene.ask("/d", &headers).await;
    let again = [("cf-ray", "2"), headers[1], headers[2], headers[3]];
    assert_cache(&scene.ask("/d", &again).await, "HIT", "after one paste");
    // On the other route as well, but for what no front adds.
    scene.ask("/e", &headers[..3]).await;
    assert_cache(&scene.ask("/e", &again[..3]).await, "HIT", "another route");
}
