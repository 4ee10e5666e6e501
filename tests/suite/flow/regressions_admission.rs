//! Numbered regressions of scope `shared`: whom an answer of the origin admits, and to what.
//!
//! A caller who may read one page may be refused the next one. So an answer admits its caller to
//! the very representation that it brought, and to nothing else.

use std::time::Duration;

use crate::support::client::Reply;
use crate::support::flow::Flow;
use crate::support::scene::{assert_cache, date};
use crate::support::{Client, Origin, Point, Request, Response, Scene};

const ALICE: [(&str, &str); 1] = [("authorization", "Bearer alice")];
const BOB: [(&str, &str); 1] = [("authorization", "Bearer bob")];

fn route(more: &str) -> String {
    format!("[[routes]]\npath = \"/{{*rest}}\"\nttl = \"5m\"\nscope = \"shared\"\n{more}\n")
}

fn is(request: &Request, who: [(&str, &str); 1]) -> bool {
    request.header("authorization").as_deref() == Some(who[0].1)
}

/// The caller's name; empty for nobody.
fn name(request: &Request) -> String {
    request.header("authorization").unwrap_or_default().replace("Bearer ", "")
}

fn with<'a>(who: [(&'a str, &'a str); 1], more: (&'a str, &'a str)) -> [(&'a str, &'a str); 2] {
    [who[0], more]
}

fn assert_refused(reply: &Reply, status: u16, case: &str) {
    assert_eq!(reply.status, status, "{case}: {} {}", reply.text(), reply.header("cache-status"));
    assert!(!reply.text().contains("secret"), "{case}: {}", reply.text());
}

/// What `explain --live` says of a request.
async fn explained(scene: &Scene, target: &str, who: [(&str, &str); 1]) -> serde_json::Value {
    let headers = [["host", "app.test"], [who[0].0, who[0].1]];
    let body = serde_json::json!({ "method": "GET", "target": target, "headers": headers });
    scene.sidecar.admin_ok("/explain", &body).await["stored"].clone()
}

/// 320. An answer to one page admitted its caller to all pages of the route: another page, another
///      query, another variant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r320_an_answer_admits_to_the_entry_that_it_brought_and_to_no_other() {
    // Bob may read page 1, in English.
    let scene = Scene::start(&route(""), |request| {
        let german = request.header("accept-language").is_some_and(|sent| sent.starts_with("de"));
        let own = request.target == "/docs/1" && !german;
        let answer = match &*name(request) {
            "alice" => Response::ok(format!("secret {}", request.target)),
            "bob" if own => Response::ok(format!("secret {}", request.target)),
            "bob" => Response::status(403, "no"),
            _ => Response::status(401, "who?"),
        };
        answer.header("vary", "accept-language")
    })
    .await;
    let (english, german) = (("accept-language", "en"), ("accept-language", "de"));
    let all = [
        ("/docs/1", english),
        ("/docs/1", german),
        ("/docs/2", english),
        ("/docs/1?page=2", english),
    ];
    for (target, language) in all {
        assert_cache(&scene.ask(target, &with(ALICE, language)).await, "MISS", target);
        assert_cache(&scene.ask(target, &with(ALICE, language)).await, "HIT", target);
    }
    assert_cache(&scene.ask("/docs/1", &with(BOB, english)).await, "MISS", "not admitted yet");
    assert_cache(&scene.ask("/docs/1", &with(BOB, english)).await, "HIT", "admitted");
    for (target, language) in all.into_iter().skip(1) {
        assert_refused(&scene.ask(target, &with(BOB, language)).await, 403, target);
        assert_cache(&scene.ask(target, &with(ALICE, language)).await, "HIT", "alice still is");
    }
    assert_cache(&scene.ask("/docs/1", &with(BOB, english)).await, "HIT", "bob still is");
}

/// 321. On a route with a wildcard, a public page admitted callers without any credential to all
///      others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r321_nobody_is_admitted_entry_by_entry_like_anybody() {
    let scene = Scene::start(&route(""), |request| match (&*request.path, is(request, ALICE)) {
        ("/index", _) => Response::ok("welcome"),
        (_, true) => Response::ok("secret"),
        _ => Response::status(401, "who?"),
    })
    .await;
    scene.ask("/report", &ALICE).await;
    assert_cache(&scene.ask("/report", &ALICE).await, "HIT", "alice");
    scene.get("/index").await;
    assert_cache(&scene.get("/index").await, "HIT", "no credential is one among others");
    assert_refused(&scene.get("/report").await, 401, "nobody");
    assert_refused(&scene.ask("/report", &BOB).await, 401, "bob");
    assert_cache(&scene.ask("/report", &ALICE).await, "HIT", "alice still is");
}

/// 322. A caller who was admitted got whatever was stored later, a body that was made for another
///      caller too; and that bodies differ was no finding.
#[tokio::test]
async fn r322_another_body_ends_the_admissions_of_all_others_and_is_a_finding() {
    let app = Origin::start(|request| Response::ok(format!("inbox of {}", name(request))));
    let flow = Flow::start(app.address, &route("")).await;
    for _ in 0..3 {
        for who in [ALICE, BOB] {
            let reply = flow.get("/inbox", &who).await;
            let own = format!("inbox of {}", who[0].1.replace("Bearer ", ""));
            assert_eq!(reply.text(), own, "{}", reply.header("cache-status"));
        }
    }
    let again = flow.get("/inbox", &BOB).await;
    assert_eq!((again.cache(), again.text()), ("HIT", "inbox of bob"), "the last one stays");
    let found = flow.route("/{*rest}");
    assert_eq!(found.scope.examples.len(), 1, "{found:?}");
    assert_eq!(found.scope.examples[0].path, "/inbox");
    // Alice has seen her own body before, so that her second one only says that bodies differ.
    assert!(found.scope.count >= 1, "{found:?}");
    let series = "sidecache_shadow_findings_total{route=\"/{*rest}\",finding=\"scope\"}";
    assert_eq!(flow.metric(series), found.scope.count);
    assert_eq!(flow.report().advice[0].toml, "scope = \"private\"\n");
}

/// 323. What is no finding: a body that has changed after a purge, after its freshness, or for a
///      caller who has had the stored one.
#[tokio::test]
async fn r323_a_body_that_changes_in_time_is_no_finding() {
    let app = Origin::start(|request| Response::ok(format!("number {}", request.number)));
    let rules = format!(
        "{}[[purges]]\npath = \"/write\"\ntags = [\"all\"]\n",
        route("tags = [\"all\"]\nadmit_for = \"30s\"")
    );
    let flow = Flow::start(app.address, &rules).await;
    flow.get("/a", &ALICE).await;
    flow.send("POST", "/write", &[], "").await;
    assert_eq!(flow.get("/a", &BOB).await.cache(), "MISS", "purged");
    flow.clock.advance(Duration::from_secs(301));
    assert_eq!(flow.get("/a", &ALICE).await.cache(), "MISS", "expired");
    flow.clock.advance(Duration::from_secs(31));
    assert_eq!(flow.get("/a", &ALICE).await.cache(), "MISS", "her admission ran out");
    flow.get("/a", &[ALICE[0], ("cache-control", "no-cache")]).await;
    let routes = flow.report().routes;
    assert!(routes.is_empty(), "{routes:?}");
    flow.get("/a", &BOB).await;
    assert_eq!(flow.route("/{*rest}").scope.count, 1, "two bodies within one freshness");
}

/// 324. A caller whose admission had run out got the whole body again; and where a 304 were asked
///      for, an entity-tag that names the record would have admitted callers to another's
///      rendering.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r324_a_304_renews_an_admission_and_never_makes_one() {
    for validator in ["etag", "last-modified"] {
        let value = if validator == "etag" { "\"record-7\"".to_owned() } else { date(-3600) };
        let scene = Scene::start(&route("admit_for = \"10s\""), move |request| {
            // The validator names the record: to a condition everybody gets a 304.
            let conditional = request.header("if-none-match").is_some()
                || request.header("if-modified-since").is_some();
            let answer = if conditional {
                Response::status(304, "")
            } else {
                Response::ok(format!("secret of {}", name(request)))
            };
            answer.header(validator, &value)
        })
        .await;
        let conditions = |request: &Request| {
            request.header("if-none-match").or_else(|| request.header("if-modified-since"))
        };
        scene.ask("/a", &ALICE).await;
        assert_cache(&scene.ask("/a", &ALICE).await, "HIT", validator);
        // SECURITY: nothing shows that bob may see what is stored, so that he is asked for without
        // conditions, and gets the answer to himself.
        let first = scene.ask("/a", &BOB).await;
        assert_eq!(first.text(), "secret of bob", "{}", first.header("cache-status"));
        assert_eq!(conditions(&scene.last("/a")), None);
        // Alice was admitted to another body than the one that is stored by now.
        let alice = scene.ask("/a", &ALICE).await;
        assert_eq!(alice.text(), "secret of alice", "{}", alice.header("cache-status"));
        assert_eq!(conditions(&scene.last("/a")), None);
        scene.clock.advance(Duration::from_secs(11));
        let renewed = scene.ask("/a", &ALICE).await;
        assert_eq!(
            (renewed.cache(), renewed.text()),
            ("REVALIDATED", "secret of alice"),
            "{}",
            renewed.header("cache-status")
        );
        let seen = scene.last("/a");
        assert!(conditions(&seen).is_some() && is(&seen, ALICE), "with her own credential");
        let count = scene.count("/a");
        assert_cache(&scene.ask("/a", &ALICE).await, "HIT", "renewed");
        scene.clock.advance(Duration::from_secs(9));
        assert_cache(&scene.ask("/a", &ALICE).await, "HIT", "for the whole of `admit_for`");
        assert_eq!(scene.count("/a"), count);
        let bob = scene.ask("/a", &BOB).await;
        assert_eq!(bob.text(), "secret of bob", "{}", bob.header("cache-status"));
        assert_eq!(conditions(&scene.last("/a")), None, "he had another body");
    }
}

/// 325. The answer admitted its caller by its head: with a body that broke off, or without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r325_only_a_whole_body_admits() {
    let scene = Scene::start(&route(""), |request| match (&*request.path, is(request, BOB)) {
        ("/cut", true) => Response::new().sized("HTTP/1.1 200 OK", 100).piece(b"half").close(),
        ("/moved", true) => Response::status(302, "").header("location", "/elsewhere"),
        ("/private", true) => Response::ok("for bob").header("cache-control", "no-store"),
        _ => Response::ok("secret"),
    })
    .await;
    for path in ["/cut", "/head", "/moved", "/private"] {
        scene.ask(path, &ALICE).await;
        match path {
            "/head" => drop(scene.send("HEAD", path, &BOB, "").await),
            // It breaks off.
            "/cut" => {
                let mut client = Client::new(scene.sidecar.address);
                let _ = client.try_send("GET", path, &BOB, "").await;
            }
            _ => drop(scene.ask(path, &BOB).await),
        }
        let found = explained(&scene, path, BOB).await;
        assert_eq!(found["reason"], "not admitted", "{path}: {found}");
        assert_cache(&scene.ask(path, &ALICE).await, "HIT", path);
    }
}

/// 326. Of refusals only a 401 and a 403 ended an admission; a 404, or a redirect to the login, left
///      it; and a 404 to one caller ended what all others shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r326_a_refusal_ends_the_admission_of_its_caller_alone() {
    for status in [401, 403, 404, 410, 302, 303, 307] {
        // Each way by which the origin comes to be asked: a reload, a pass, a revalidation.
        for way in ["reload", "pass", "lapsed"] {
            let case = format!("{status}, {way}");
            let rules = route("admit_for = \"10s\"");
            let scene =
                Scene::start(&rules, |_| Response::ok("secret").header("etag", "\"1\"")).await;
            for who in [ALICE, BOB] {
                scene.ask("/a", &who).await;
                assert_cache(&scene.ask("/a", &who).await, "HIT", &case);
            }
            scene.answers(move |request| {
                if is(request, BOB) {
                    Response::status(status, "no").header("location", "/login?next=/a")
                } else if request.header("if-none-match").is_some() {
                    Response::status(304, "").header("etag", "\"1\"")
                } else {
                    Response::ok("secret").header("etag", "\"1\"")
                }
            });
            let sent = match way {
                "reload" => with(BOB, ("cache-control", "no-cache")).to_vec(),
                "pass" => with(BOB, ("cache-control", "no-store")).to_vec(),
                _ => {
                    scene.clock.advance(Duration::from_secs(11));
                    assert_cache(&scene.ask("/a", &ALICE).await, "REVALIDATED", &case);
                    BOB.to_vec()
                }
            };
            assert_refused(&scene.ask("/a", &sent).await, status, &case);
            let found = explained(&scene, "/a", BOB).await;
            assert_eq!(found["reason"], "not admitted", "{case}: {found}");
            assert_refused(&scene.ask("/a", &BOB).await, status, &case);
            assert_cache(&scene.ask("/a", &ALICE).await, "HIT", &case);
            // He is asked about anew, as if he had never been admitted.
            assert_eq!(scene.last("/a").header("if-none-match"), None, "{case}");
        }
    }
}

/// 327. Callers who were admitted to what had expired got what the fill of another of them brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r327_a_fill_is_shared_with_those_alone_who_are_admitted_to_its_body() {
    let rules = "[[routes]]\npath = \"/{*rest}\"\nttl = \"1s\"\nscope = \"shared\"\n";
    let scene = Scene::start(rules, |_| Response::ok("v1").header("etag", "\"1\"")).await;
    for who in [ALICE, BOB] {
        scene.ask("/a", &who).await;
    }
    assert_cache(&scene.ask("/a", &BOB).await, "HIT", "bob is admitted to v1");
    // What is confirmed is shared as before: both are admitted to it.
    scene.until_stale();
    scene.answers(|_| Response::status(304, "").header("etag", "\"1\""));
    let (alice, bob) = both(&scene).await;
    assert_eq!((alice.text(), bob.text(), scene.count("/a")), ("v1", "v1", 3));
    // What is new is for the caller who was answered.
    scene.until_stale();
    scene.answers(|request| {
        if is(request, BOB) { Response::status(403, "no") } else { Response::ok("secret v2") }
    });
    let (alice, bob) = both(&scene).await;
    assert_eq!(alice.text(), "secret v2");
    assert_refused(&bob, 403, "bob is not admitted to v2");
}

/// Alice asks, and bob while her request is held.
async fn both(scene: &Scene) -> (Reply, Reply) {
    let hold = scene.hold("GET", "/a", Point::Before);
    let ask = |who: [(&'static str, &'static str); 1]| {
        let mut client = Client::new(scene.sidecar.address);
        tokio::spawn(async move { client.get("/a", &who).await })
    };
    let alice = ask(ALICE);
    hold.arrived().await;
    let bob = ask(BOB);
    // What waits shows nowhere.
    tokio::time::sleep(Duration::from_millis(200)).await;
    hold.release();
    (alice.await.expect("no panic"), bob.await.expect("no panic"))
}
