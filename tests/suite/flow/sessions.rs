//! Signed session cookies: an app in the manner of Flask that signs the session anew with each
//! answer. Such a caller is the same all the same, and nobody is given another one's page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use sidecache::app::Clock;

use crate::support::{Client, Origin, Reply, Request, Response, Sidecar, metric};

pub(super) const SECRET: &str = "the-secret-key-of-the-app";

/// The tables of all tests: one user, one tenant and the whole session of one cookie.
const RULES: &str = r#"
[fields]
user   = { cookie = "session", format = "flask", secret = "the-secret-key-of-the-app", max_age = "1h", pointer = "/_user_id", ignore = ["tenant", "last_seen"] }
tenant = { cookie = "session", format = "flask", secret = ["the-secret-before-it", "the-secret-key-of-the-app"], max_age = "1h", pointer = "/tenant", ignore = ["_user_id"] }
whole  = { cookie = "session", format = "flask", secret = "the-secret-key-of-the-app", max_age = "1h" }

[[routes]]
path = "/page/{id}"
ttl  = "5m"
key  = ["user"]
tags = ["pages:{user}"]
strip_set_cookie = ["session"]

[[routes]]
path = "/whole/{id}"
ttl  = "5m"
key  = ["whole?"]
strip_set_cookie = ["session"]

[[routes]]
path  = "/team/{id}"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]
strip_set_cookie = ["session"]

[[purges]]
path = "/save"
tags = ["pages:{user}"]
"#;

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn now() -> u64 {
    Clock::system().wall().seconds()
}

/// The value of a cookie as Flask signs it.
pub(super) fn signed(secret: &str, payload: &Value, seconds: u64) -> String {
    let key = mac(secret.as_bytes(), &[b"cookie-session"]);
    let time = BASE64_URL_SAFE_NO_PAD.encode(&seconds.to_be_bytes()[4..]);
    let text = format!("{}.{time}", BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac(&key, &[text.as_bytes()]));
    format!("{text}.{signature}")
}

/// What the app reads of a cookie.
pub(super) fn payload(request: &Request) -> Option<Value> {
    let cookies = request.header("cookie")?;
    let value = cookies.split("; ").find_map(|pair| pair.strip_prefix("session="))?.to_owned();
    let encoded = value.split('.').next()?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// An app that signs the session anew with each answer. Messages are shown once. `last_seen`
/// changes each time, where a session has it.
fn app() -> Origin {
    let count = Arc::new(AtomicU64::new(0));
    let started = now() - 30;
    Origin::start(move |request| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let Some(mut session) = payload(request) else { return Response::ok("who are you?") };
        let Some(members) = session.as_object_mut() else { return Response::ok("a list?") };
        let message = members.remove("_flashes").unwrap_or_default();
        if request.target == "/logout" {
            return Response::ok("bye").header("set-cookie", "session=; Max-Age=0; Path=/");
        }
        if request.target == "/save" {
            members.insert("_flashes".into(), json!(["saved"]));
        }
        if let Some(seen) = members.get_mut("last_seen") {
            *seen = json!(nth);
        }
        let body = format!("{} for {}{message}", request.target, session["_user_id"]);
        let cookie = signed(SECRET, &session, started + nth % 30);
        Response::ok(body).header("set-cookie", &format!("session={cookie}; HttpOnly; Path=/"))
    })
}

/// A browser: it keeps the session that it is given.
struct Browser {
    client: Client,
    session: Option<String>,
}

impl Browser {
    fn new(sidecar: &Sidecar, session: &Value) -> Self {
        let session = Some(signed(SECRET, session, now() - 60));
        Self { client: Client::new(sidecar.address), session }
    }

    async fn send(&mut self, method: &str, path: &str) -> Reply {
        let cookie = self.session.as_ref().map(|value| format!("session={value}"));
        let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
        let reply = self.client.send(method, path, &headers, "").await;
        if let Some(set) = reply.header("set-cookie").strip_prefix("session=") {
            let value = set.split(';').next().expect("a value");
            self.session = (!value.is_empty()).then(|| value.to_owned());
        }
        reply
    }

    async fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path).await
    }
}

fn user(name: &str) -> Value {
    json!({ "_user_id": name, "tenant": "acme" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1021_a_session_that_is_signed_anew_with_each_answer_is_one_caller() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    for kind in ["page", "whole"] {
        let mut browsers = ["alice", "bob"].map(|name| (name, Browser::new(&sidecar, &user(name))));
        let (mut hits, mut all) = (0, 0);
        for round in 0..12 {
            for id in 0..5 {
                for (name, browser) in &mut browsers {
                    let path = format!("/{kind}/{id}");
                    let reply = browser.get(&path).await;
                    let own = format!("{path} for \"{name}\"null");
                    assert_eq!(reply.text(), own, "{}", reply.cache_status());
                    if round > 0 {
                        all += 1;
                        hits += usize::from(reply.cache() == "HIT");
                    }
                }
            }
        }
        assert_eq!(hits, all, "of {kind}: after the first round all are stored");
    }
    let verified = |result: &str| {
        format!("sidecache_session_cookies_total{{format=\"flask\",result=\"{result}\"}}")
    };
    let (verified, remembered) = (verified("verified"), verified("remembered"));
    assert!(metric(sidecar.admin, &verified).await > 0);
    assert!(metric(sidecar.admin, &remembered).await > 200, "most are remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1022_a_message_or_another_payload_is_no_hit_and_is_not_stored() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    for path in ["/page/1", "/whole/1"] {
        assert_eq!(alice.get(path).await.cache(), "MISS");
        assert_eq!(alice.get(path).await.cache(), "HIT");
    }
    // The write leaves a message in the session, which the next page shows once.
    alice.send("POST", "/elsewhere").await;
    alice.send("POST", "/save").await;
    let shown = alice.get("/page/1").await;
    assert!(shown.text().contains("saved"), "{}", shown.text());
    assert_eq!(shown.cache(), "BYPASS");
    assert!(
        shown.cache_status().contains("missing field user (other members)"),
        "{}",
        shown.cache_status()
    );
    alice.send("POST", "/save").await;
    let shown = alice.get("/whole/1").await;
    assert!(shown.text().contains("saved"), "{}", shown.text());
    assert!(shown.cache_status().contains("session changed"), "{}", shown.cache_status());
    for path in ["/page/1", "/whole/1"] {
        let plain = alice.get(path).await;
        assert!(!plain.text().contains("saved"), "{}", plain.text());
    }
    // After a logout she is nobody: her own cookie is gone, and no page of hers is given.
    alice.send("POST", "/logout").await;
    let (page, whole) = (alice.get("/page/1").await, alice.get("/whole/1").await);
    assert_eq!((page.cache(), page.text()), ("BYPASS", "who are you?"));
    assert_eq!((whole.cache(), whole.text()), ("MISS", "who are you?"), "an entry of strangers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1023_what_cannot_be_verified_is_passed_with_the_reason() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    assert_eq!(alice.get("/page/1").await.cache(), "MISS");
    let good = alice.session.clone().expect("a session");
    let other = if good.as_bytes()[good.len() - 5] == b'A' { 'B' } else { 'A' };
    let cases = [
        (signed("another-secret-of-length", &user("alice"), now()), "bad signature"),
        (format!("{}{other}{}", &good[..good.len() - 5], &good[good.len() - 4..]), "bad signature"),
        (signed(SECRET, &user("alice"), now() - 3700), "expired"),
        (signed(SECRET, &user("alice"), now() + 600), "signed in the future"),
        (signed(SECRET, &json!([1]), now()), "other members"),
        (signed(SECRET, &json!({ "tenant": "acme" }), now()), "no value at the pointer"),
        (signed(SECRET, &json!({ "_user_id": [1] }), now()), "no plain value at the pointer"),
        (signed(SECRET, &json!({ "_user_id": "alice", "x": 1 }), now()), "other members"),
        ("eyJhIjoxfQ".to_owned(), "not a signed cookie"),
        (format!("\"{good}\""), "not a signed cookie"),
    ];
    for (value, why) in cases {
        let cookie = format!("session={value}");
        for path in ["/page/1", "/page/2"] {
            let reply = alice.client.get(path, &[("cookie", &cookie)]).await;
            let status = reply.cache_status();
            assert_eq!(reply.cache(), "BYPASS", "{why}: {status}");
            assert!(status.contains(&format!("missing field user ({why})")), "{why}: {status}");
            assert!(!status.contains(&value), "{status}");
        }
    }
    let twice = format!("session={good}; session={good}");
    let reply = alice.client.get("/page/1", &[("cookie", &twice)]).await;
    assert!(reply.cache_status().contains("ambiguous cookie session"), "{}", reply.cache_status());
    // An optional field is absent without a cookie, and never by one that is not verified.
    let forged = format!("session={}", signed("another-secret-of-length", &user("a"), now()));
    let reply = alice.client.get("/whole/9", &[("cookie", &forged)]).await;
    assert_eq!(reply.cache(), "BYPASS", "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1024_half_of_a_sessions_life_is_served_and_then_it_is_renewed() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    assert_eq!(alice.get("/page/1").await.cache(), "MISS");
    assert_eq!(alice.get("/page/1").await.cache(), "HIT");
    alice.session = Some(signed(SECRET, &user("alice"), now() - 1900));
    let renewed = alice.get("/page/1").await;
    assert_eq!(renewed.cache(), "BYPASS");
    assert!(renewed.cache_status().contains("session renewal"), "{}", renewed.cache_status());
    assert_eq!(alice.get("/page/1").await.cache(), "HIT", "with the new cookie");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1025_a_part_of_a_session_admits_nobody_to_a_shared_entry() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    let mut bob = Browser::new(&sidecar, &user("bob"));
    let first = alice.get("/team/1").await;
    assert_eq!(first.cache(), "MISS");
    for _ in 0..3 {
        alice.session = Some(signed(SECRET, &user("alice"), now() - 5));
        let own = alice.get("/team/1").await;
        assert_eq!(
            (own.cache(), own.text()),
            ("HIT", first.text()),
            "signed anew, she is admitted"
        );
    }
    let status = bob.get("/team/1").await.cache_status().to_owned();
    assert!(status.contains("not admitted"), "the app has not answered bob: {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1026_writes_purge_whatever_state_their_session_is_in() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    let mut bob = Browser::new(&sidecar, &user("bob"));
    let sessions = [
        (Some(signed(SECRET, &user("alice"), now())), false),
        // A message is waiting, which is no part of the tag.
        (
            Some(signed(SECRET, &json!({ "_user_id": "alice", "_flashes": [1], "n": 2 }), now())),
            false,
        ),
        // Who this is nobody can tell: the pages of all go.
        (Some(signed(SECRET, &user("alice"), now() - 4000)), true),
        (Some(signed("a-new-secret-of-the-app", &user("alice"), now())), true),
        (Some("garbage".to_owned()), true),
        (None, true),
    ];
    for (session, all) in sessions {
        for browser in [&mut alice, &mut bob] {
            browser.get("/page/1").await;
            assert_eq!(browser.get("/page/1").await.cache(), "HIT");
        }
        let cookie = session.as_ref().map(|value| format!("session={value}"));
        let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
        Client::new(sidecar.address).send("POST", "/save", &headers, "").await;
        assert_eq!(alice.get("/page/1").await.cache(), "MISS", "{session:?}");
        let expected = if all { "MISS" } else { "HIT" };
        assert_eq!(bob.get("/page/1").await.cache(), expected, "{session:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1027_a_login_or_a_profile_purges_the_caller_however_its_cookie_is_signed() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut alice = Browser::new(&sidecar, &user("alice"));
    let mut bob = Browser::new(&sidecar, &user("bob"));
    for browser in [&mut alice, &mut bob] {
        browser.get("/whole/1").await;
        assert_eq!(browser.get("/whole/1").await.cache(), "HIT");
    }
    // No rule covers this write. Her cookie is signed anew, and has a message.
    let mut session = user("alice");
    session["_flashes"] = json!(["x"]);
    alice.session = Some(signed(SECRET, &session, now()));
    alice.send("POST", "/profile").await;
    let reply = alice.get("/whole/1").await;
    assert_eq!(reply.cache(), "MISS", "{}", reply.cache_status());
    assert_eq!(bob.get("/whole/1").await.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_changes_each_time_may_be_ignored() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut session = user("alice");
    session["last_seen"] = json!(0);
    let mut alice = Browser::new(&sidecar, &session);
    assert_eq!(alice.get("/page/1").await.cache(), "MISS");
    alice.get("/page/2").await;
    assert_eq!(alice.get("/page/1").await.cache(), "HIT", "`last_seen` is another one");
    let reply = alice.get("/whole/1").await;
    assert!(reply.cache_status().contains("session changed"), "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1030_two_browsers_of_one_session_get_what_was_made_for_neither() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut client = Client::new(sidecar.address);
    for (nth, expected) in ["MISS", "HIT"].into_iter().enumerate() {
        let cookie = format!("session={}", signed(SECRET, &user("alice"), now() - nth as u64));
        let agent = format!("browser {nth}");
        let headers = [("cookie", cookie.as_str()), ("user-agent", agent.as_str())];
        assert_eq!(client.get("/whole/1", &headers).await.cache(), expected);
    }
    let agent = app.last("/whole/1").header("user-agent").unwrap_or_default();
    assert!(!agent.contains("browser"), "{agent}");
}
