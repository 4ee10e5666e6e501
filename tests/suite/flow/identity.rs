//! `[identity]`: the app is asked who holds an opaque credential. Two callers never get each
//! other's answer, a write ends what was said of its caller, and an app that does not tell is
//! passed to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::support::scene::assert_cache;
use crate::support::{Client, Point, Reply, Request, Response, Scene, eventually, metric};

const RULES: &str = r#"
[identity]
path = "/me"
ttl  = "30s"

[fields]
tenant = { identity = "/tenant/id" }
user   = { identity = "/user" }

[[routes]]
path  = "/all/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["tenant"]
tags  = ["all:{tenant}"]

[[routes]]
path  = "/items/{id}"
ttl   = "1h"
scope = "shared"
key   = ["tenant"]

[[routes]]
path = "/own/{id}"
ttl  = "1h"
key  = ["user"]

[[routes]]
path  = "/open/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["tenant?"]

[[routes]]
path      = "/search"
ttl       = "1h"
scope     = "shared"
admit     = "route"
methods   = ["POST"]
read_only = true
key       = ["tenant", "body"]

[[routes]]
path  = "/short/{id}"
ttl   = "1s"
scope = "shared"
admit = "route"
key   = ["tenant"]

[[purges]]
path = "/all/{id}"
tags = ["all:{tenant}"]
"#;

const ANN: &str = "sid=a1";
const BOB: &str = "sid=b1";
const GUS: &str = "sid=g1";

/// Who is signed in, by session.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<String, String>>>);

impl Users {
    fn new() -> Self {
        let users = Self::default();
        for (session, user) in [("a1", "acme ann"), ("b1", "acme bob"), ("g1", "globex gus")] {
            users.sign_in(session, user);
        }
        users
    }

    fn sign_in(&self, session: &str, user: &str) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.insert(session.to_owned(), user.to_owned());
    }

    fn of(&self, request: &Request) -> Option<(String, String)> {
        let cookies = request.header("cookie").unwrap_or_default();
        let session = cookies.split("; ").find_map(|pair| pair.strip_prefix("sid="))?.to_owned();
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tenant, user) = users.get(&session)?.split_once(' ')?;
        Some((tenant.to_owned(), user.to_owned()))
    }

    /// Pages are of the tenant; `POST /login?acme+eve` signs somebody else in.
    fn app(&self) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
        let users = self.clone();
        move |request| users.answer(request)
    }

    fn answer(&self, request: &Request) -> Response {
        let who = self.of(request);
        if request.path == "/login" {
            let cookies = request.header("cookie").unwrap_or_default();
            let user = request.query.as_deref().unwrap_or_default().replace('+', " ");
            let session = cookies.strip_prefix("sid=").unwrap_or_default();
            self.sign_in(session, &user);
            let status = if user.contains("late") { 500 } else { 200 };
            return Response::status(status, "welcome");
        }
        match (who, &*request.path) {
            (None, "/me") => Response::status(401, "{}"),
            (Some((tenant, user)), "/me") => {
                let text = format!(r#"{{"tenant":{{"id":"{tenant}"}},"user":"{user}"}}"#);
                Response::ok(text)
                    .header("content-type", "application/json; charset=utf-8")
                    .header("cache-control", "no-store")
            }
            (None, _) => Response::ok("guest"),
            (Some((tenant, user)), path) if path.starts_with("/own") => {
                Response::ok(format!("{tenant} {user} {}", request.number))
            }
            (Some((tenant, _)), _) => Response::ok(format!("{tenant} {}", request.number)),
        }
    }
}

async fn scene() -> (Scene, Users) {
    let users = Users::new();
    (Scene::start(RULES, users.app()).await, users)
}

/// A GET with these cookies. Returns when nothing is fetched any more.
async fn get(scene: &Scene, path: &str, cookies: &str) -> Reply {
    let reply = scene.ask(path, &[("cookie", cookies)]).await;
    at_rest(scene).await;
    reply
}

async fn at_rest(scene: &Scene) {
    eventually("no fill is in flight", Duration::from_secs(10), || async {
        metric(scene.sidecar.admin, "sidecache_fills_in_flight").await == 0
    })
    .await;
}

async fn probes(scene: &Scene, result: &str) -> u64 {
    let name = format!("sidecache_identity_probes_total{{result=\"{result}\"}}");
    metric(scene.sidecar.admin, &name).await
}

fn assert_unknown(reply: &Reply, why: &str, text: &str) {
    assert!(reply.is("BYPASS", text), "{}: {}", reply.cache_status(), reply.text());
    let detail = format!("identity unknown tenant: {why}");
    assert!(reply.cache_status().contains(&detail), "{why}: {}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_tenant_share_and_those_of_others_never_do() {
    let (scene, _users) = scene().await;
    for (cookies, path, cache, text) in [
        (ANN, "/all/1", "MISS", "acme 0"),
        (ANN, "/all/1", "HIT", "acme 0"),
        (GUS, "/all/1", "MISS", "globex 1"),
        (GUS, "/all/1", "HIT", "globex 1"),
        // Each credential is admitted by the app's first answer to it on the route.
        (BOB, "/all/2", "MISS", "acme 0"),
        (BOB, "/all/1", "HIT", "acme 0"),
        (ANN, "/all/2", "HIT", "acme 0"),
    ] {
        let reply = get(&scene, path, cookies).await;
        assert!(
            reply.is(cache, text),
            "{cookies} {path}: {} {}",
            reply.cache_status(),
            reply.text()
        );
    }
    // Before the first request of each, and after each fill.
    assert_eq!(scene.count("/me"), 6);
    let asked = scene.last("/me");
    assert_eq!(asked.header("accept").as_deref(), Some("application/json"));
    assert_eq!(asked.header("cookie").as_deref(), Some(BOB));
    assert_eq!(asked.header("x-forwarded-for").as_deref(), Some("192.0.2.1"));
    assert_eq!(asked.header("host").as_deref(), Some("app.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_admits_nobody_on_a_route_that_admits_by_entry() {
    let (scene, _users) = scene().await;
    get(&scene, "/items/1", ANN).await;
    assert_cache(&get(&scene, "/items/1", ANN).await, "HIT", "it was given to her");
    assert_cache(&get(&scene, "/items/1", BOB).await, "MISS", "not to him, although of one tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_not_asked_about_and_strangers_cost_one_question_for_a_while() {
    let (scene, _users) = scene().await;
    let guest = scene.get("/all/1").await;
    assert!(guest.cache_status().contains("missing field tenant"), "{}", guest.cache_status());
    assert_cache(&scene.get("/open/1").await, "MISS", "an optional field is absent");
    at_rest(&scene).await;
    assert!(scene.get("/open/1").await.is("HIT", "guest"));
    assert_eq!(scene.count("/me"), 0);
    for _ in 0..3 {
        assert_unknown(&get(&scene, "/all/1", "sid=no").await, "refused", "guest");
        let optional = get(&scene, "/open/1", "sid=no").await;
        assert_unknown(&optional, "refused", "guest");
    }
    assert_eq!((scene.count("/me"), probes(&scene, "refused").await), (1, 1));
    scene.clock.advance(Duration::from_secs(6));
    get(&scene, "/all/1", "sid=no").await;
    assert_eq!(scene.count("/me"), 2, "the refusal is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_is_asked_about_again() {
    let (scene, _users) = scene().await;
    let login = |user: &'static str| {
        let scene = &scene;
        async move { scene.send("POST", &format!("/login?{user}"), &[("cookie", ANN)], "").await }
    };
    assert!(get(&scene, "/own/1", ANN).await.is("MISS", "acme ann 0"));
    assert!(get(&scene, "/own/1", ANN).await.is("HIT", "acme ann 0"));
    assert_cache(&get(&scene, "/all/1", ANN).await, "MISS", "");
    // The cookie stays the same; and the answer may be an error.
    for (user, own, all) in [
        ("globex+eve", "globex eve 1", "globex 1"),
        ("initech+late", "initech late 2", "initech 2"),
    ] {
        login(user).await;
        assert!(get(&scene, "/own/1", ANN).await.is("MISS", own), "{user}");
        let reply = get(&scene, "/all/1", ANN).await;
        assert!(reply.is("MISS", all), "{user}: {}", reply.text());
    }
    login("acme+ann").await;
    assert!(get(&scene, "/own/1", ANN).await.is("HIT", "acme ann 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_a_write_overtakes_is_not_believed() {
    let (scene, users) = scene().await;
    // It is asked, the answer is made, and waits.
    let hold = scene.hold("GET", "/me", Point::After);
    let (address, cookie) = (scene.sidecar.address, [("cookie", ANN)]);
    let early = tokio::spawn(async move { Client::new(address).get("/all/1", &cookie).await });
    hold.arrived().await;
    scene.send("POST", "/login?globex+eve", &[("cookie", ANN)], "").await;
    // A request after the write never waits for the answer of before.
    let late = tokio::spawn(async move { Client::new(address).get("/all/1", &cookie).await });
    hold.arrived().await;
    hold.release();
    let (early, late) = (early.await.expect("no panic"), late.await.expect("no panic"));
    assert_unknown(&early, "overtaken by a write", early.text());
    assert!(late.text().starts_with("globex"), "{}", late.text());
    at_rest(&scene).await;
    users.sign_in("a1", "acme ann");
    assert_eq!(probes(&scene, "overtaken").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_leaves_ends_the_answer_too() {
    let (scene, _users) = scene().await;
    assert!(get(&scene, "/own/1", ANN).await.is("MISS", "acme ann 0"));
    let hold = scene.hold("POST", "/login", Point::Before);
    let address = scene.sidecar.address;
    let write = tokio::spawn(async move {
        Client::new(address).send("POST", "/login?globex+eve", &[("cookie", ANN)], "").await
    });
    hold.arrived().await;
    // While the write is in flight she is who she was: it is remembered anew.
    assert!(get(&scene, "/own/1", ANN).await.is("HIT", "acme ann 0"));
    write.abort();
    hold.release();
    eventually("the write has ended", Duration::from_secs(10), || async {
        get(&scene, "/own/1", ANN).await.text().starts_with("globex eve")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_filled_for_another_tenant_is_not_stored() {
    let (scene, users) = scene().await;
    assert!(get(&scene, "/all/1", ANN).await.is("MISS", "acme 0"));
    assert!(get(&scene, "/all/1", BOB).await.is("MISS", "acme 1"));
    // Somebody else moves her: nothing tells the sidecar, which takes her for one of acme still.
    users.sign_in("a1", "globex ann");
    let reply = get(&scene, "/all/2", ANN).await;
    assert!(reply.is("MISS", "globex 0"), "{}", reply.text());
    let reply = get(&scene, "/all/2", BOB).await;
    assert!(reply.is("MISS", "acme 1"), "{} {}", reply.cache_status(), reply.text());
    let series = "sidecache_store_aborted_total{reason=\"identity_unconfirmed\"}";
    assert_eq!(metric(scene.sidecar.admin, series).await, 1);
    // By then it is known.
    assert!(get(&scene, "/all/2", ANN).await.is("MISS", "globex 2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_along_before_the_caller_is_confirmed() {
    let (scene, users) = scene().await;
    get(&scene, "/all/1", ANN).await;
    get(&scene, "/all/1", BOB).await;
    users.sign_in("a1", "globex ann");
    let hold = scene.hold("GET", "/all/3", Point::After);
    let address = scene.sidecar.address;
    let ask = |cookie: &'static str| {
        tokio::spawn(async move { Client::new(address).get("/all/3", &[("cookie", cookie)]).await })
    };
    let ann = ask(ANN);
    hold.arrived().await;
    let bob = ask(BOB);
    hold.arrived().await;
    hold.release();
    let (ann, bob) = (ann.await.expect("no panic"), bob.await.expect("no panic"));
    assert!(ann.text().starts_with("globex"), "{}", ann.text());
    assert!(bob.text().starts_with("acme"), "{}", bob.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_does_not_tell_is_passed_to_with_the_cause() {
    fn json(body: impl Into<String>) -> Response {
        Response::ok(body.into()).header("content-type", "application/json")
    }
    type Answer = fn() -> Response;
    let cases: [(&str, Answer); 11] = [
        ("not JSON", || Response::ok("<html>").header("content-type", "text/html")),
        ("not JSON", || json("<html>")),
        ("not JSON", || Response::ok(r#"{"tenant":{"id":"acme"}}"#)),
        ("too large", || {
            json(format!(r#"{{"tenant":{{"id":"acme"}},"x":"{}"}}"#, "x".repeat(1 << 20)))
        }),
        ("redirect", || Response::status(302, "").header("location", "/login")),
        ("other status", || Response::status(500, "")),
        ("other status", || Response::status(204, "")),
        ("refused", || Response::status(403, "")),
        ("no value", || json(r#"{"tenant":{}}"#)),
        ("no value", || json(r#"{"tenant":{"id":["a"]}}"#)),
        ("unreachable", Response::hang_up),
    ];
    for (at, (why, answer)) in cases.into_iter().enumerate() {
        let users = Users::new();
        let scene = Scene::start(RULES, move |request| {
            if request.path == "/me" { answer() } else { users.answer(request) }
        })
        .await;
        for number in 0..2 {
            let reply = get(&scene, "/all/1", ANN).await;
            assert_unknown(&reply, why, &format!("acme {number}"));
        }
        assert!(scene.count("/me") <= 2, "{at}: it is remembered briefly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_sets_a_cookie_ends_the_asking_until_the_next_reload() {
    let users = Users::new();
    let app = users.clone();
    let scene = Scene::start(RULES, move |request| {
        let answer = app.answer(request);
        if request.path == "/me" { answer.header("set-cookie", "sid=rotated") } else { answer }
    })
    .await;
    assert_unknown(
        &get(&scene, "/all/1", ANN).await,
        "off, because an answer set a cookie",
        "acme 0",
    );
    for cookies in [ANN, BOB, GUS] {
        get(&scene, "/all/1", cookies).await;
    }
    assert_eq!(scene.count("/me"), 1);
    assert_eq!(metric(scene.sidecar.admin, "sidecache_identity_off").await, 1);
    let stats = scene.sidecar.stats().await;
    assert_eq!(stats["identity"]["off"], true, "{}", stats["identity"]);
    scene.answers(users.app());
    scene.sidecar.rewrite(&RULES.replace("30s", "31s"));
    scene.sidecar.admin_ok("/reload", &serde_json::json!({})).await;
    assert_cache(&get(&scene, "/all/1", ANN).await, "MISS", "it is asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_question_is_asked_for_all_requests_of_a_caller() {
    let (scene, _users) = scene().await;
    let hold = scene.hold("GET", "/me", Point::Before);
    let address = scene.sidecar.address;
    let ask = |at: usize| {
        let path = format!("/own/{at}");
        tokio::spawn(async move { Client::new(address).get(&path, &[("cookie", ANN)]).await })
    };
    let asked: Vec<_> = (0..20).map(ask).collect();
    hold.arrived().await;
    eventually("the others wait", Duration::from_secs(10), || async {
        metric(scene.sidecar.admin, "sidecache_identity_joined_total").await == 19
    })
    .await;
    assert_eq!(scene.count("/me"), 1);
    hold.release();
    for reply in asked {
        assert_cache(&reply.await.expect("no panic"), "MISS", "");
    }
    at_rest(&scene).await;
    assert_eq!(scene.count("/me"), 21, "and once more after each fill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_cookies_in_flight_never_swap_answers() {
    let (scene, _users) = scene().await;
    let address = scene.sidecar.address;
    let tasks: Vec<_> = (0..8)
        .map(|at: usize| {
            tokio::spawn(async move {
                // One connection for callers of both tenants, in turns.
                let mut client = if at.is_multiple_of(2) {
                    Client::new(address)
                } else {
                    Client::http2(address)
                };
                for turn in 0..40 {
                    let (cookie, tenant) =
                        if (turn + at).is_multiple_of(3) { (GUS, "globex") } else { (ANN, "acme") };
                    let path = format!("/all/{}", turn % 5);
                    let reply = client.get(&path, &[("cookie", cookie)]).await;
                    let text = reply.text().to_owned();
                    assert!(text.starts_with(tenant), "{cookie} {path}: {text}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("nobody got another tenant's page");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_ever_new_cookies_costs_one_question_each_and_few_at_once() {
    let rules = RULES.replace("ttl  = \"30s\"", "ttl  = \"30s\"\nprobes = 3\ncallers = 10");
    let users = Users::new();
    let scene = Scene::start(&rules, users.app()).await;
    for at in 0..50 {
        let cookies = format!("sid=random{at}");
        assert_unknown(&get(&scene, "/all/1", &cookies).await, "refused", "guest");
    }
    assert_eq!(scene.count("/me"), 50);
    assert!(metric(scene.sidecar.admin, "sidecache_identity_callers").await <= 10);
    let hold = scene.hold("GET", "/me", Point::Before);
    let address = scene.sidecar.address;
    let ask = |at: usize| {
        let cookies = format!("sid=other{at}");
        tokio::spawn(
            async move { Client::new(address).get("/all/1", &[("cookie", &cookies)]).await },
        )
    };
    let stalled: Vec<_> = (0..3).map(ask).collect();
    for _ in 0..3 {
        hold.arrived().await;
    }
    // No permit is left: nobody waits for one.
    assert_unknown(&scene.ask("/all/1", &[("cookie", ANN)]).await, "busy", "acme 50");
    let series = "sidecache_limit_reached_total{limit=\"identity.probes\"}";
    assert_eq!(metric(scene.sidecar.admin, series).await, 1);
    hold.release();
    for reply in stalled {
        reply.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_app_holds_a_request_for_the_timeout_alone() {
    let rules = RULES.replace("ttl  = \"30s\"", "ttl  = \"30s\"\ntimeout = \"50ms\"");
    let users = Users::new();
    let scene = Scene::start(&rules, users.app()).await;
    let hold = scene.hold("GET", "/me", Point::Before);
    assert_unknown(&get(&scene, "/all/1", ANN).await, "timeout", "acme 0");
    // It is remembered, and after some more of them nothing is asked for a while.
    get(&scene, "/all/1", ANN).await;
    assert_eq!(probes(&scene, "timeout").await, 1);
    for cookies in ["sid=1", "sid=2", "sid=3", "sid=4"] {
        get(&scene, "/all/1", cookies).await;
    }
    assert_unknown(&get(&scene, "/all/1", GUS).await, "paused", "globex 6");
    assert_eq!(probes(&scene, "timeout").await, 5);
    hold.release();
    scene.clock.advance(Duration::from_secs(6));
    assert_cache(&get(&scene, "/all/1", GUS).await, "MISS", "it is asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_ranges_and_reads_by_post_go_by_the_answer_too() {
    let (scene, _users) = scene().await;
    let head = scene.send("HEAD", "/all/1", &[("cookie", ANN)], "").await;
    assert_eq!((head.status, head.text()), (200, ""));
    at_rest(&scene).await;
    get(&scene, "/all/1", ANN).await;
    let part = scene.ask("/all/1", &[("cookie", ANN), ("range", "bytes=0-3")]).await;
    assert_eq!((part.status, part.text()), (206, "acme"));
    let search = |cookie: &'static str| {
        let headers = [("cookie", cookie), ("content-type", "application/json")];
        let scene = &scene;
        async move {
            let reply = scene.send("POST", "/search", &headers, r#"{"q":1}"#).await;
            at_rest(scene).await;
            reply
        }
    };
    for (cookie, cache, text) in [
        (ANN, "MISS", "acme 0"),
        (ANN, "HIT", "acme 0"),
        (GUS, "MISS", "globex 1"),
        (ANN, "HIT", "acme 0"),
    ] {
        let reply = search(cookie).await;
        assert!(reply.is(cache, text), "{}: {}", reply.cache_status(), reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_purges_what_all_tenants_have() {
    let (scene, _users) = scene().await;
    for cookies in [ANN, GUS] {
        get(&scene, "/all/1", cookies).await;
    }
    scene.send("POST", "/all/9", &[("cookie", ANN)], "").await;
    for cookies in [ANN, GUS] {
        assert_cache(&get(&scene, "/all/1", cookies).await, "MISS", cookies);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_is_served_for_no_longer_than_the_ttl() {
    let (scene, users) = scene().await;
    get(&scene, "/all/1", ANN).await;
    users.sign_in("a1", "");
    assert!(get(&scene, "/all/1", ANN).await.is("HIT", "acme 0"));
    scene.clock.advance(Duration::from_secs(30));
    assert_unknown(&get(&scene, "/all/1", ANN).await, "refused", "guest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_mode_asks_and_serves_nothing() {
    let (scene, _users) = {
        let users = Users::new();
        let rules = RULES.replace("ttl   = \"1h\"", "ttl   = \"1h\"\nmode = \"shadow\"");
        (Scene::start(&rules, users.app()).await, users)
    };
    for number in 0..3 {
        let reply = get(&scene, "/all/1", ANN).await;
        assert!(reply.is("BYPASS", &format!("acme {number}")), "{}", reply.cache_status());
    }
    eventually("the app was asked", Duration::from_secs(10), async || scene.count("/me") == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1200_a_304_to_one_who_has_moved_confirms_nothing_to_others() {
    let (scene, users) = scene().await;
    let app = users.clone();
    // One entity-tag for all tenants: a version that each of them counts on its own.
    scene.answers(move |request| {
        let known = request.path.starts_with("/short") && request.header("if-none-match").is_some();
        if known { Response::status(304, "") } else { app.answer(request) }.header("etag", "\"v1\"")
    });
    assert!(get(&scene, "/short/1", ANN).await.is("MISS", "acme 0"));
    get(&scene, "/short/2", BOB).await;
    assert!(get(&scene, "/short/1", BOB).await.is("HIT", "acme 0"));
    users.sign_in("a1", "globex ann");
    scene.until_stale();
    // She is taken for one of acme until the answer about her ends.
    assert_cache(&get(&scene, "/short/1", ANN).await, "REVALIDATED", "");
    let asked = scene.count("/short/1");
    get(&scene, "/short/1", BOB).await;
    assert_eq!(scene.count("/short/1"), asked + 1, "it is stale still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1201_a_logout_by_get_ends_the_answer() {
    let (scene, users) = scene().await;
    let app = users.clone();
    scene.answers(move |request| {
        if request.path == "/logout" {
            app.sign_in("a1", "");
            return Response::status(302, "")
                .header("location", "/")
                .header("set-cookie", "sid=; Max-Age=0");
        }
        app.answer(request)
    });
    assert!(get(&scene, "/all/1", ANN).await.is("MISS", "acme 0"));
    assert!(get(&scene, "/all/1", ANN).await.is("HIT", "acme 0"));
    get(&scene, "/logout", ANN).await;
    assert_unknown(&get(&scene, "/all/1", ANN).await, "refused", "guest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1202_a_write_with_one_cookie_more_ends_the_answer() {
    let (scene, _users) = scene().await;
    let app = Users::new();
    let shared = app.clone();
    scene.answers(move |request| {
        if request.path == "/switch" {
            shared.sign_in("a1", "globex ann");
            return Response::ok("");
        }
        shared.answer(request)
    });
    assert!(get(&scene, "/all/1", ANN).await.is("MISS", "acme 0"));
    let cookies = format!("csrftoken=0123456789abcdef; {ANN}");
    scene.send("POST", "/switch", &[("cookie", &cookies)], "").await;
    assert!(get(&scene, "/all/1", ANN).await.is("MISS", "globex 1"));
}

/// Two clicks in another tab: who becomes another one while a page is made, and the first again
/// before it is whole, had the page of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1210_who_was_another_one_meanwhile_confirms_nothing() {
    for (path, next) in [("/all/7", BOB), ("/own/7", ANN)] {
        let (scene, users) = scene().await;
        scene.answers(move |request| match &*request.path {
            "/all/7" | "/own/7" => Response::ok("the page of globex"),
            _ => users.answer(request),
        });
        get(&scene, "/all/1", BOB).await;
        let hold = scene.hold("GET", path, Point::After);
        let address = scene.sidecar.address;
        let ann = tokio::spawn(async move {
            Client::new(address).get(path, &[("cookie", ANN)]).await.text().to_owned()
        });
        hold.arrived().await;
        for login in ["/login?globex+ann", "/login?acme+ann"] {
            scene.send("POST", login, &[("cookie", ANN)], "").await;
        }
        hold.release();
        assert_eq!(ann.await.expect("no panic"), "the page of globex");
        at_rest(&scene).await;
        assert_ne!(get(&scene, path, next).await.cache(), "HIT", "{path}");
        let series = "sidecache_store_aborted_total{reason=\"identity_unconfirmed\"}";
        assert_eq!(metric(scene.sidecar.admin, series).await, 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1211_a_private_page_of_who_has_moved_is_not_stored() {
    let (scene, users) = scene().await;
    assert!(get(&scene, "/own/1", ANN).await.is("MISS", "acme ann 0"));
    users.sign_in("a1", "globex eve");
    let moved = get(&scene, "/own/2", ANN).await;
    assert!(moved.is("MISS", "globex eve 0"), "{}", moved.text());
    scene.send("POST", "/login?acme+ann", &[("cookie", ANN)], "").await;
    let back = get(&scene, "/own/2", ANN).await;
    assert!(back.is("MISS", "acme ann 1"), "{} {}", back.cache_status(), back.text());
}

/// Django clears the cookie of a session that it does not know, so that the first stranger switched
/// off the asking for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1212_a_refusal_that_clears_a_cookie_is_about_its_caller_alone() {
    let (scene, users) = scene().await;
    scene.answers(move |request| {
        let answer = users.answer(request);
        let is_refused = request.path == "/me" && users.of(request).is_none();
        if is_refused { answer.header("set-cookie", "sid=; Max-Age=0") } else { answer }
    });
    get(&scene, "/all/1", ANN).await;
    assert_unknown(&get(&scene, "/all/1", "sid=nobody").await, "refused", "guest");
    assert_eq!(metric(scene.sidecar.admin, "sidecache_identity_off").await, 0);
    assert_cache(&get(&scene, "/all/1", ANN).await, "HIT", "she is known still");
    assert_cache(&get(&scene, "/all/1", GUS).await, "MISS", "others are asked about");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1213_an_answer_that_gives_a_session_again_ends_what_was_said_of_it() {
    for method in ["POST", "GET"] {
        let (scene, users) = scene().await;
        scene.answers(move |request| {
            if request.path != "/resume" {
                return users.answer(request);
            }
            users.sign_in("a1", "globex ann");
            Response::ok("").header("set-cookie", "sid=a1; Path=/")
        });
        assert!(get(&scene, "/all/1", ANN).await.is("MISS", "acme 0"));
        scene.send(method, "/resume", &[("cookie", "sid=other")], "").await;
        assert!(get(&scene, "/all/1", ANN).await.is("MISS", "globex 1"), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1214_shadow_mode_waits_for_no_answer() {
    let users = Users::new();
    let rules = RULES.replace("ttl   = \"1h\"", "ttl   = \"1h\"\nmode = \"shadow\"");
    let rules = rules.replace("path = \"/me\"", "path = \"/me\"\ntimeout = \"30s\"");
    let scene = Scene::start(&rules, users.app()).await;
    let hold = scene.hold("GET", "/me", Point::Before);
    let cookies = [("cookie", ANN)];
    let asked = tokio::time::timeout(Duration::from_secs(15), scene.ask("/all/1", &cookies));
    let reply = asked.await.expect("it waits for no answer");
    assert!(reply.is("BYPASS", "acme 0"), "{}", reply.cache_status());
    hold.arrived().await;
    hold.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1217_a_write_counts_whichever_way_its_credential_is_spelled() {
    for (own, others) in [
        (("cookie", ANN), [("cookie", "sid=\"a1\""), ("cookie", "sid=%611")]),
        (
            ("authorization", "Bearer token-of-a1"),
            [("authorization", "bearer token-of-a1"), ("authorization", "Bearer  token-of-a1")],
        ),
    ] {
        for other in others {
            let users = Users::new();
            let app = users.clone();
            // The app takes either for one session.
            let scene = Scene::start(RULES, move |request| {
                if request.path == "/switch" {
                    app.sign_in("a1", "globex ann");
                    return Response::ok("");
                }
                let mut request = request.clone();
                request.headers.insert("cookie", ANN.parse().expect("a value"));
                app.answer(&request)
            })
            .await;
            let page = async || scene.ask("/all/1", &[own]).await;
            assert!(page().await.is("MISS", "acme 0"), "{own:?}");
            at_rest(&scene).await;
            assert!(page().await.is("HIT", "acme 0"), "{own:?}");
            scene.send("POST", "/switch", &[other], "").await;
            assert!(page().await.is("MISS", "globex 1"), "{other:?}");
        }
    }
}
