//! What a learned file says of sessions that are signed anew with each response; and what strangers
//! who write such cookies cannot make it say.

use std::time::Duration;

use serde_json::{Value, json};

use super::sessions::{SECRET, now, payload, signed};
use crate::support::command::CommandLine;
use crate::support::{Reply, Request, Response, Scene, eventually};

/// An app in the manner of Flask. Its desk is for those who have logged in, and shows a message
/// once; a forged cookie is none. Its session cookies have these attributes.
async fn desk(attributes: &'static str) -> Scene {
    let notes = std::sync::atomic::AtomicU64::new(0);
    let started = now() - 600;
    let count = std::sync::atomic::AtomicU64::new(0);
    Scene::start("", move |request: &Request| {
        let nth = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let sets = |session: &Value| {
            let value = signed(SECRET, session, started + nth);
            format!("session={value}; {attributes}")
        };
        if let Some(user) = request.path.strip_prefix("/enter/") {
            return Response::status(303, "").header("set-cookie", &sets(&json!({ "user": user })));
        }
        let forged = request.header("cookie").is_some_and(|cookie| cookie.ends_with("FORGED"));
        let Some(mut session) = payload(request).filter(|_| !forged) else {
            return Response::status(302, "").header("location", "/login");
        };
        let message = session.as_object_mut().and_then(|members| members.remove("flash"));
        if request.method == "POST" {
            notes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            session["flash"] = json!("saved");
        }
        let all = notes.load(std::sync::atomic::Ordering::SeqCst);
        let body = format!("{} of {}: {all} {message:?}", request.path, session["user"]);
        Response::ok(body).header("set-cookie", &sets(&session)).header("vary", "Cookie")
    })
    .await
}

/// A browser, which keeps the session that it is given.
struct Browser<'a> {
    scene: &'a Scene,
    session: String,
}

impl<'a> Browser<'a> {
    async fn enter(scene: &'a Scene, user: &str) -> Self {
        let mut browser = Self { scene, session: String::new() };
        browser.send("POST", &format!("/enter/{user}")).await;
        browser
    }

    async fn send(&mut self, method: &str, path: &str) -> Reply {
        let cookie = format!("session={}", self.session);
        let reply = self.scene.send(method, path, &[("cookie", &cookie)], "").await;
        if let Some(set) = reply.header("set-cookie").strip_prefix("session=") {
            set.split(';').next().expect("a value").clone_into(&mut self.session);
        }
        reply
    }

    /// Half an hour of work, with one note.
    async fn work(&mut self, rounds: u32) {
        for round in 0..rounds {
            self.scene.clock.advance(Duration::from_secs(5));
            self.send("GET", "/desk").await;
            self.send("GET", "/desk/reports").await;
            if round == rounds / 2 {
                self.send("POST", "/desk/notes").await;
                self.send("GET", "/desk").await;
            }
        }
    }
}

async fn learned_of(scene: &Scene, requests: u64) -> Value {
    eventually("all is counted", Duration::from_secs(30), async || {
        let learned: Value = scene.sidecar.admin_get("/learned").await.json();
        learned["requests"].as_u64() >= Some(requests)
    })
    .await;
    scene.sidecar.admin_get("/learned").await.json()
}

fn sessions(learned: &Value) -> Vec<(&str, &Value)> {
    let rules = learned["rules"].as_array().expect("a list").iter();
    let mut all: Vec<_> = rules
        .map(|rule| (rule["path"].as_str().expect("a path"), &rule["session"]["cookie"]))
        .collect();
    all.sort_by_key(|(path, _)| *path);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_signed_anew_is_learned_and_its_callers_get_hits() {
    let mut scene = desk("Max-Age=7200; Path=/").await;
    for user in ["ann", "ben"] {
        Browser::enter(&scene, user).await.work(12).await;
    }
    let learned = learned_of(&scene, 54).await;
    let found = [("/desk", &json!("session")), ("/desk/reports", &json!("session"))];
    assert_eq!(sessions(&learned), found, "{learned:#}");
    let desk = &learned["rules"][0];
    let expected = json!({
        "cookie": "session", "format": "flask", "kept_for_s": 7200, "is_optional": false,
    });
    assert_eq!((&desk["session"], &desk["stale"]), (&expected, &json!(0)));
    assert_eq!(desk["scope"], "private");

    let file = scene.sidecar.file.display().to_string();
    let said = CommandLine::new().run(&["advise", "--file", "--config", &file]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        r#"session = { cookie = "session", format = "flask", secret = "${FLASK_SECRET}", max_age = "2h" }"#,
        r#"key = ["session"]"#,
        r#"strip_set_cookie = ["session"]"#,
    ] {
        assert!(said.out.contains(line), "{line}:\n{}", said.out);
    }
    scene.sidecar.stop().await;
    let text = said.out.replace("${FLASK_SECRET}", SECRET);
    std::fs::write(&scene.sidecar.file, text).expect("the file can be written to");
    let clock = scene.clock.clone();
    scene.sidecar.start_again(&clock).await;

    let (mut ann, mut ben) =
        (Browser::enter(&scene, "ann").await, Browser::enter(&scene, "ben").await);
    assert_eq!(ann.send("GET", "/desk").await.cache(), "MISS");
    let hit = ann.send("GET", "/desk").await;
    assert_eq!((hit.cache(), hit.header("set-cookie")), ("HIT", ""));
    assert!(hit.text().contains("\"ann\""), "{}", hit.text());
    assert_eq!(ben.send("GET", "/desk").await.cache(), "MISS");
    ann.send("POST", "/desk/notes").await;
    let once = ann.send("GET", "/desk").await;
    assert!(once.cache() != "HIT" && once.text().contains("saved"), "{}", once.text());
    let after = ann.send("GET", "/desk").await;
    assert!(after.text().ends_with(": 3 None"), "{}", after.text());
    let forged = format!("session={}FORGED", &ann.session[..ann.session.len() - 6]);
    let refused = scene.ask("/desk", &[("cookie", &forged)]).await;
    assert_eq!(refused.status, 302, "a hit would be a page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_that_strangers_write_are_nobodys_session() {
    let scene = desk("Max-Age=7200; Path=/").await;
    for round in 0..40 {
        // A payload of its own, a name of its own, and the payload of a user.
        let own = signed("no-secret", &json!({ "a": round }), now());
        let stolen = signed("no-secret", &json!({ "user": "ann" }), now());
        for cookie in
            [format!("c{round}={own}"), format!("session={}FORGED", &stolen[..stolen.len() - 6])]
        {
            scene.ask("/desk", &[("cookie", &cookie)]).await;
        }
    }
    for user in ["ann", "ben", "cleo"] {
        let mut browser = Browser::enter(&scene, user).await;
        for _ in 0..2 {
            browser.work(12).await;
            let stolen = signed("no-secret", &json!({ "user": user }), now());
            let forged = format!("session={}FORGED", &stolen[..stolen.len() - 6]);
            scene.ask("/desk", &[("cookie", &forged)]).await;
        }
    }
    let learned = learned_of(&scene, 80 + 3 + 6 * 27).await;
    let found = sessions(&learned);
    assert!(found.contains(&("/desk/reports", &json!("session"))), "{learned:#}");
    for (path, cookie) in found {
        assert!(*cookie == "session" || cookie.is_null(), "{path}: {cookie}");
    }
}

/// A cookie that browsers keep until they are closed is accepted by the app for a time that it does
/// not tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1488_no_rule_says_for_how_long_a_session_counts_that_does_not_say_so() {
    let scene = desk("Path=/").await;
    for user in ["ann", "ben"] {
        Browser::enter(&scene, user).await.work(12).await;
    }
    let learned = learned_of(&scene, 54).await;
    assert!(sessions(&learned).iter().all(|(_, cookie)| cookie.is_null()), "{learned:#}");
    let why = learned["left_out"].to_string();
    assert!(why.contains("does not say for how long"), "{learned:#}");
}
