//! What a learned file says of queries, of `no-cache`, of purges by hand, of cache groups and of
//! forms; and what strangers cannot make it say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::command::CommandLine;
use crate::support::{Request, Response, Scene, eventually};

/// What is learned when so many requests are remembered.
async fn learned_of(scene: &Scene, requests: u64) -> Value {
    eventually("all is counted", Duration::from_secs(30), async || {
        let learned: Value = scene.sidecar.admin_get("/learned").await.json();
        learned["requests"].as_u64() >= Some(requests)
    })
    .await;
    scene.sidecar.admin_get("/learned").await.json()
}

fn rule<'a>(learned: &'a Value, path: &str) -> Option<&'a Value> {
    learned["rules"].as_array().expect("a list").iter().find(|rule| rule["path"] == path)
}

fn why(learned: &Value, path: &str) -> String {
    let mut all = learned["left_out"].as_array().expect("a list").iter();
    let one = all.find(|one| one["path"] == path).unwrap_or_else(|| panic!("{learned:#}"));
    one["why"].as_str().expect("a reason").to_owned()
}

/// The file, which is put in force.
async fn serve_learned(scene: &mut Scene) -> String {
    let file = scene.sidecar.file.display().to_string();
    let said = CommandLine::new().run(&["advise", "--file", "--config", &file]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    scene.sidecar.stop().await;
    std::fs::write(&scene.sidecar.file, &said.out).expect("the file can be written to");
    let check = crate::support::sidecar::check_file(&scene.sidecar.file);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains(": ok: ") && !check.contains("warning"), "{check}\n{}", said.out);
    let clock = scene.clock.clone();
    scene.sidecar.start_again(&clock).await;
    said.out
}

/// An app whose data a job changes past the sidecar; it says `no-cache` of all.
async fn portal() -> (Scene, Arc<AtomicU64>) {
    let version = Arc::new(AtomicU64::new(1));
    let own = Arc::clone(&version);
    let scene = Scene::start("", move |request: &Request| {
        let (session, version) = (request.header("cookie"), own.load(Ordering::SeqCst));
        Response::ok(format!("{} of {session:?}: {version}", request.path))
            .header("cache-control", "no-cache")
    })
    .await;
    (scene, version)
}

async fn look_around(scene: &Scene, rounds: u64) {
    for round in 0..rounds {
        scene.clock.advance(Duration::from_secs(5));
        for session in ["session=ann", "session=ben"] {
            let cookie = [("cookie", session)];
            scene.ask(&format!("/prices?utm_source=mail-{round}&a=1"), &cookie).await;
            scene.ask("/prices?a=1", &cookie).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_by_hand_explains_a_change_and_marks_of_links_are_left_out() {
    let (mut scene, version) = portal().await;
    look_around(&scene, 12).await;
    version.fetch_add(1, Ordering::SeqCst);
    scene.sidecar.admin_ok("/purge", &json!({ "tags": ["sync"] })).await;
    look_around(&scene, 12).await;
    let learned = learned_of(&scene, 97).await;
    let found = rule(&learned, "/prices").unwrap_or_else(|| panic!("{learned:#}"));
    assert_eq!(found["purged_tags"], json!(["sync"]));
    assert_eq!(found["without_parameters"], json!(["utm_source"]));
    assert_eq!((&found["overrules"], &found["stale"]), (&json!(true), &json!(0)));
    assert_eq!(found["scope"], "private");
    let text = serve_learned(&mut scene).await;
    assert!(text.contains("origin = \"ignore\"") && text.contains("\"sync\"]"), "{text}");

    let ann = [("cookie", "session=ann")];
    assert_eq!(scene.ask("/prices?a=1", &ann).await.cache(), "MISS");
    let hit = scene.ask("/prices?utm_source=new&a=1", &ann).await;
    assert_eq!((hit.cache(), hit.text()), ("HIT", "/prices of Some(\"session=ann\"): 2"));
    let other = scene.ask("/prices?a=1", &[("cookie", "session=ben")]).await;
    assert_eq!(other.text(), "/prices of Some(\"session=ben\"): 2");
    version.fetch_add(1, Ordering::SeqCst);
    scene.sidecar.admin_ok("/purge", &json!({ "tags": ["sync"] })).await;
    assert!(scene.ask("/prices?a=1", &ann).await.text().ends_with(": 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1321_a_purge_explains_no_change_that_was_seen_before_it() {
    let (scene, version) = portal().await;
    look_around(&scene, 12).await;
    version.fetch_add(1, Ordering::SeqCst);
    look_around(&scene, 1).await;
    scene.sidecar.admin_ok("/purge", &json!({ "tags": ["sync"] })).await;
    look_around(&scene, 12).await;
    let learned = learned_of(&scene, 101).await;
    assert_eq!(learned["rules"], json!([]), "{learned:#}");
    assert!(why(&learned, "/prices").contains("without a write"), "{learned:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1324_no_cache_is_not_overruled_where_one_response_says_no_store() {
    let scene = Scene::start("", |request: &Request| {
        let is_secret = request.header("cookie").is_some_and(|cookie| cookie == "session=eve");
        let directive = if is_secret { "no-store" } else { "no-cache" };
        Response::ok("the same").header("cache-control", directive)
    })
    .await;
    look_around(&scene, 12).await;
    scene.ask("/prices?a=1", &[("cookie", "session=eve")]).await;
    let learned = learned_of(&scene, 49).await;
    assert_eq!(learned["rules"], json!([]), "{learned:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1322_a_stranger_cannot_have_a_parameter_or_a_scope_left_out() {
    // The page depends on `page` and on who asks; a stranger sends what the app does not know.
    let scene = Scene::start("", |request: &Request| {
        let who = request.header("cookie").filter(|cookie| cookie == "session=ann");
        let page = request.target.split("page=").nth(1).filter(|page| page.len() == 1);
        Response::ok(format!("page {page:?} for {who:?}"))
    })
    .await;
    for round in 0..40_u32 {
        scene.clock.advance(Duration::from_secs(5));
        let cookie = format!("session=junk{}", round % 8);
        let junk = [("cookie", &*cookie)];
        scene.ask(&format!("/list?page=junk{round}"), &junk).await;
        scene.ask("/list?page=junk", &junk).await;
        scene.ask("/list?page=junk", &[]).await;
    }
    let learned = learned_of(&scene, 120).await;
    let found = rule(&learned, "/list").unwrap_or_else(|| panic!("{learned:#}"));
    assert_eq!(found["without_parameters"], json!([]), "{learned:#}");
    assert_ne!(found["scope"], "public", "{learned:#}");
    assert_eq!(found["stale"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1323_a_page_is_without_a_form_only_if_it_was_read() {
    let scene = Scene::start("", |request: &Request| {
        let form = if request.path == "/form" { "<input name=csrf_token value=1>" } else { "" };
        let page = Response::ok(format!("<p>hello</p>{form}")).header("content-type", "text/html");
        if request.path == "/packed" { page.header("content-encoding", "br") } else { page }
    })
    .await;
    for _ in 0..24 {
        scene.clock.advance(Duration::from_secs(5));
        for path in ["/plain", "/form", "/packed"] {
            scene.ask(path, &[("cookie", "csrftoken=abc; session=ann")]).await;
        }
    }
    let learned = learned_of(&scene, 72).await;
    let found = rule(&learned, "/plain").unwrap_or_else(|| panic!("{learned:#}"));
    assert_eq!(found["scope"], "private");
    for path in ["/form", "/packed"] {
        assert!(rule(&learned, path).is_none(), "{learned:#}");
        assert!(why(&learned, path).contains("CSRF"), "{learned:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_by_post_purges_nothing_where_writes_name_their_groups() {
    let total = Arc::new(AtomicU64::new(1));
    let own = Arc::clone(&total);
    let mut scene = Scene::start("", move |request: &Request| {
        if request.method == "GET" {
            let text = format!("total {}", own.load(Ordering::SeqCst));
            return Response::ok(text).header("cache-groups", "\"orders\"");
        }
        let done = Response::ok("done");
        if request.body.as_ref() == b"query" {
            return done;
        }
        own.fetch_add(1, Ordering::SeqCst);
        done.header("cache-group-invalidation", "\"orders\"")
    })
    .await;
    let token = [("authorization", "Bearer token-of-ann-17")];
    let mut sent = 0;
    for round in 0..30 {
        scene.clock.advance(Duration::from_secs(5));
        scene.ask("/totals", &token).await;
        scene.send("POST", "/graphql", &token, "query").await;
        sent += 2;
        if round % 10 == 9 {
            scene.send("POST", "/graphql", &token, "mutation").await;
            sent += 1;
        }
    }
    let learned = learned_of(&scene, sent).await;
    let found = rule(&learned, "/totals").unwrap_or_else(|| panic!("{learned:#}"));
    assert_eq!((&found["changes"], &found["changes_by_group"]), (&json!(2), &json!(2)));
    assert_eq!(found["purges"], json!(["/totals/{*rest}"]), "{learned:#}");
    serve_learned(&mut scene).await;
    assert_eq!(scene.ask("/totals", &token).await.cache(), "MISS");
    scene.send("POST", "/graphql", &token, "query").await;
    assert_eq!(scene.ask("/totals", &token).await.cache(), "HIT");
    scene.send("POST", "/graphql", &token, "mutation").await;
    let after = scene.ask("/totals", &token).await;
    assert_eq!((after.cache(), after.text()), ("MISS", "total 5"));
}
