//! Receivers that fail: what they were not told is told again, and what there is no room for is
//! told as everything.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::Sha256;
use tokio::time::Instant;

use super::cdn::{PATIENCE, TOKEN, purged, receiver};
use crate::support::{Origin, Request, Response, Sidecar, eventually};

/// What an API was told: tags, or `*` for everything.
type ToldTags = Arc<Mutex<Vec<HashSet<String>>>>;

/// An API that answers so, and notes what it has accepted.
fn api(
    kind: &'static str,
    answer: impl Fn(usize, &Request) -> Response + Send + Sync + 'static,
) -> (Origin, ToldTags) {
    let (told, count) = (ToldTags::default(), AtomicUsize::new(0));
    let own = Arc::clone(&told);
    let origin = Origin::start(move |request| {
        let response = answer(count.fetch_add(1, SeqCst), request);
        let tags = purged(kind, request).unwrap_or_else(|| vec!["*".to_owned()]);
        own.lock().expect("a lock").push(tags.into_iter().collect());
        response
    });
    (origin, told)
}

fn nothing() -> Origin {
    Origin::start(|_| Response::ok("1"))
}

async fn purge(sidecar: &Sidecar, tags: &[String]) {
    sidecar.admin_ok("/purge", &json!({ "tags": tags })).await;
}

fn tags(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("t{number}")).collect()
}

async fn settled(sidecar: &Sidecar) {
    eventually("nothing waits", PATIENCE, || async {
        let stats = sidecar.stats().await["notify"][0].clone();
        stats["waiting"] == 0 && stats["failures"] == 0 && stats["sent"] != 0
    })
    .await;
}

/// It is told in parts that it takes, each as often as it takes until it has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1479_what_fails_is_told_again_until_it_is_accepted() {
    for kind in ["cloudflare", "fastly"] {
        let (api, told) = api(kind, |number, _| match number {
            0 => Response::status(503, "overloaded \u{1b}[2J"),
            1 => Response::hang_up(),
            2 => Response::status(429, "").header("retry-after", "1"),
            3 => Response::status(401, "bad token"),
            _ => Response::ok("{\"success\": true}"),
        });
        let app = nothing();
        let sidecar =
            Sidecar::start(app.address, &receiver(kind, api.address, "gather = \"1ms\"")).await;
        let began = Instant::now();
        purge(&sidecar, &tags(0, 300)).await;
        assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for the receiver");
        eventually("it is told that it fails", PATIENCE, || async {
            let ready = sidecar.admin_get("/ready").await.text().to_owned();
            assert!(!ready.contains('\u{1b}') && !ready.contains(TOKEN), "{ready}");
            ready.contains(&format!("{kind} ({kind}) is not told of purges"))
        })
        .await;
        settled(&sidecar).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "it has asked for a second");
        {
            let told = told.lock().expect("a lock");
            let accepted: HashSet<&String> = told[4..].iter().flatten().collect();
            assert!(tags(0, 300).iter().all(|tag| accepted.contains(tag)), "{kind}");
            let most = if kind == "fastly" { 256 } else { 100 };
            assert!(told.iter().all(|tags| tags.len() <= most), "{kind}");
        }
        let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
        let failed = format!("notify=\"{kind}\",outcome=\"failed\"}} 4");
        assert!(metrics.contains(&failed) || metrics.contains("outcome=\"failed\",notify"));
        assert!(metrics.contains(&format!("sidecache_notify_tags_total{{notify=\"{kind}\"}} 300")));
        let ready = sidecar.admin_get("/ready").await.text().to_owned();
        assert!(ready.contains("\"ready\""), "{ready}");
    }
}

/// What a receiver never takes would be stale there for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1480_what_is_rejected_is_told_as_everything() {
    let (api, told) = api("cloudflare", |number, request| match number {
        0 => Response::status(400, "{\"success\": false}"),
        2 => Response::ok("{\"success\": false, \"errors\": []}"),
        _ => {
            assert_eq!(request.json(), json!({ "purge_everything": true }));
            Response::ok("{\"success\": true}")
        }
    });
    let app = nothing();
    let rules = receiver("cloudflare", api.address, "gather = \"1ms\"");
    let sidecar = Sidecar::start(app.address, &rules).await;
    for round in 1..3 {
        purge(&sidecar, &tags(0, 1)).await;
        eventually("everything is told", PATIENCE, || async {
            told.lock().expect("a lock").len() >= 2 * round
        })
        .await;
        settled(&sidecar).await;
    }
    let stats = sidecar.stats().await["notify"][0].clone();
    assert_eq!((&stats["everything"], &stats["tags"]), (&json!(2), &json!(0)), "{stats}");
}

/// What waits is bounded, and no purge is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1481_more_tags_than_may_wait_are_told_as_everything() {
    let (api, told) = api("fastly", |_, _| Response::ok("{}"));
    let app = nothing();
    let rules = receiver("fastly", api.address, "gather = \"10s\"\nname = \"edge\"");
    let mut sidecar = Sidecar::start(app.address, &rules).await;
    for part in 0..11 {
        purge(&sidecar, &tags(part * 1000, part * 1000 + 1000)).await;
    }
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    assert!(metrics.contains("sidecache_limit_reached_total{limit=\"notify.tags\"} 1"));
    let waiting: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("sidecache_notify_waiting")).collect();
    assert_eq!(waiting, ["sidecache_notify_waiting{notify=\"edge\"} 1.0"]);
    // It is told at the end, without waiting for more.
    let began = Instant::now();
    sidecar.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(*told.lock().expect("a lock"), [HashSet::from(["*".to_owned()])]);
}

/// A sidecar that stops tells what waits, and does not wait for a receiver for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1482_a_sidecar_that_stops_tells_what_waits() {
    for fails in [false, true] {
        let (api, told) =
            api("cloudflare", move |_, _| Response::status(if fails { 503 } else { 200 }, "{}"));
        let app = nothing();
        let rules = receiver("cloudflare", api.address, "gather = \"10s\"");
        let mut sidecar = Sidecar::start(app.address, &rules).await;
        purge(&sidecar, &tags(0, 2)).await;
        let began = Instant::now();
        sidecar.stop().await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let told = told.lock().expect("a lock");
        assert!(told[0].contains("t0") && told[0].contains("t1"), "{told:?}");
        assert!(told[0].contains("sidecache-many-tags"), "{told:?}");
        assert_eq!(told.len() > 1, fails, "{told:?}");
    }
}

/// A reload that changes a receiver loses nothing, and its secrets are shown nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1483_a_reload_loses_no_purge_and_shows_no_token() {
    let (bad, _) = api("cloudflare", |_, _| Response::status(403, ""));
    let (good, told) = api("cloudflare", |_, _| Response::ok("{}"));
    let app = nothing();
    let rules = receiver("cloudflare", bad.address, "gather = \"1ms\"");
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    purge(&sidecar, &tags(0, 3)).await;
    eventually("it fails", PATIENCE, || async { bad.total() > 0 }).await;
    purge(&sidecar, &tags(3, 5)).await;
    let changed = receiver("cloudflare", good.address, "gather = \"1ms\"\nat_start = true");
    sidecar.rewrite(&changed);
    let reloaded = sidecar.admin_ok("/reload", &json!({})).await.to_string();
    // What was under way may have arrived or not.
    eventually("all of them are told", PATIENCE, || async {
        let told = told.lock().expect("a lock");
        tags(0, 5).iter().all(|tag| told.iter().any(|tags| tags.contains(tag)))
    })
    .await;
    let stats = sidecar.stats().await.to_string();
    for text in [reloaded, stats, sidecar.said()] {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A webhook is signed as Standard Webhooks are, and says what each tag stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1484_a_webhook_of_purges_is_signed() {
    let hook = Origin::start(|_| Response::ok(""));
    let app = nothing();
    let rules = format!(
        "[[notify]]\nkind = \"webhook\"\nurl = \"http://{}/purged?from=a\"\nsecret = \
         \"{SECRET}\"\ngather = \"1ms\"\nat_start = true\n[tags]\nfolders = true\n[[routes]]\npath = \"/items/{{id}}\"\n\
         ttl = \"1h\"\ntags = [\"item:{{id}}\"]\n",
        hook.address
    );
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("it is told at the start", PATIENCE, || async { hook.total() == 1 }).await;
    let body = json!({ "tags": ["item:7"], "urls": ["http://app.test/items/7"],
        "under": ["http://app.test/items/"] });
    sidecar.admin_ok("/purge", &body).await;
    eventually("it is told", PATIENCE, || async { hook.total() >= 2 }).await;
    let sent = hook.requests();
    assert_eq!(sent[0].json()["everything"], json!(true));
    for request in &sent {
        assert_eq!(request.line(), "POST /purged?from=a");
        let header = |name: &str| request.header(name).expect(name);
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let key = BASE64.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(&request.body);
        let expected = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        assert_eq!(header("webhook-signature"), expected);
        assert_eq!(request.json()["id"], json!(id));
    }
    assert_ne!(sent[0].header("webhook-id"), sent[1].header("webhook-id"));
    let told: Vec<_> = sent[1..].iter().map(Request::json).collect();
    let named = |member: &str, name: &str| {
        told.iter().any(|told| told[member].as_array().expect(member).contains(&json!(name)))
    };
    assert!(named("tags", "item:7") && named("uris", "app.test/items/7"), "{told:?}");
    assert!(named("folders", "app.test/items/"), "{told:?}");
    assert!(told.iter().all(|told| told["everything"] == json!(false)));
}
