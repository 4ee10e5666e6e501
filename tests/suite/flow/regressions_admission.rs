//! Numbered regressions of scope `shared`: whom an answer of the origin admits, and to what.
//!
//! A caller who may read one page may be refused the next one. So an answer admits its caller to
//! the very representation that it brought, and to nothing else.

use std::time::Duration;

use crate::support::client::Reply;
use crate::support::flow::Flow;
use crate::support::scene::{assert_cache, date};
use crate::support::{
    Client, Origin, Point, RedisServer, Request, Response, Scene, Sidecar, eventually,
};

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
        assert_eq!(explained(&scene, "/a", ALICE).await["authorization"], "authorized");
        assert_eq!(explained(&scene, "/a", BOB).await["authorization"], "not authorized");
        scene.clock.advance(Duration::from_secs(11));
        assert_eq!(explained(&scene, "/a", ALICE).await["authorization"], "lapsed");
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

/// 328. `admit = "route"`: who may read one page may read all of the same tenant, by the operator's
///      word. That a caller is sent another body than the one that is stored is a finding.
#[tokio::test]
async fn r328_by_the_operators_word_an_answer_admits_to_the_route() {
    let app = Origin::start(|request| match (&*request.path, is(request, BOB)) {
        ("/own", _) => Response::ok(format!("inbox of {}", name(request))),
        ("/docs/2", true) => Response::status(403, "no"),
        _ => Response::ok(format!("data of {}", request.header("x-tenant").unwrap_or_default())),
    });
    let rules = format!(
        "[fields]\ntenant = {{ header = \"x-tenant\" }}\n\n{}",
        route("key = [\"tenant\"]\nadmit = \"route\"")
    );
    let flow = Flow::start(app.address, &rules).await;
    let [acme, globex] = ["acme", "globex"].map(|tenant| ("x-tenant", tenant));
    for path in ["/docs/1", "/docs/2"] {
        flow.get(path, &with(ALICE, acme)).await;
        assert_eq!(flow.get(path, &with(ALICE, acme)).await.cache(), "HIT");
    }
    assert_eq!(flow.get("/docs/1", &with(BOB, acme)).await.cache(), "MISS", "not admitted yet");
    assert_eq!(flow.get("/docs/2", &with(BOB, acme)).await.cache(), "HIT", "as the operator says");
    assert_eq!(flow.get("/docs/1", &[acme]).await.cache(), "MISS", "nobody is somebody else");
    for who in [ALICE, BOB] {
        flow.get("/docs/1", &with(who, globex)).await;
        let reply = flow.get("/docs/1", &with(who, globex)).await;
        assert_eq!((reply.cache(), reply.text()), ("HIT", "data of globex"));
    }
    assert!(flow.report().routes.is_empty(), "{:?}", flow.report());
    let initech = ("x-tenant", "initech");
    for who in [ALICE, BOB] {
        assert_eq!(flow.get("/own", &with(who, initech)).await.cache(), "MISS");
    }
    assert_eq!(flow.route("/{*rest}").scope.count, 1);
}

/// 329. In shadow mode, a caller whom the origin refused what is stored for others was no finding.
#[tokio::test]
async fn r329_shadow_counts_a_refusal_of_what_others_share() {
    for status in [401, 403, 404, 302] {
        let app = Origin::start(move |request| {
            if request.path == "/secret" && !is(request, ALICE) {
                Response::status(status, "no").header("location", "/login")
            } else {
                Response::ok("data")
            }
        });
        let shadowed = |more: &str| format!("{}mode = \"shadow\"\n", route(more));
        for (rules, advice) in [
            (shadowed("").replace("\"shared\"", "\"public\""), "scope = \"private\"\n"),
            (shadowed("admit = \"route\""), "admit = \"entry\"\n"),
        ] {
            let flow = Flow::start(app.address, &rules).await;
            for _ in 0..2 {
                flow.get("/secret", &ALICE).await;
            }
            flow.get("/data", &BOB).await;
            let reply = flow.get("/secret", &BOB).await;
            assert_eq!(reply.status, status, "the origin's own response");
            let found = flow.route("/{*rest}");
            assert_eq!((found.scope.count, found.stale.count), (1, 0), "{status} {found:?}");
            let example = &found.scope.examples[0];
            assert_eq!((&*example.path, example.evidence), ("/secret", "refusal"));
            assert_eq!(flow.report().advice[0].toml, advice, "{:?}", flow.report().advice);
            // His admission has ended, and alice's own session says nothing of other callers.
            flow.get("/secret", &ALICE).await;
            app.answers(move |_| Response::status(status, "no").header("location", "/login"));
            flow.get("/secret", &ALICE).await;
            let after = flow.route("/{*rest}").scope.count;
            assert_eq!(after, 1, "{status}");
            app.answers(move |request| {
                if request.path == "/secret" && !is(request, ALICE) {
                    Response::status(status, "no").header("location", "/login")
                } else {
                    Response::ok("data")
                }
            });
        }
        // By entry, nothing of hers would be served to him.
        let flow = Flow::start(app.address, &shadowed("")).await;
        for who in [ALICE, BOB] {
            flow.get("/data", &who).await;
            flow.get("/secret", &who).await;
        }
        let found = flow.route("/{*rest}");
        assert_eq!((found.scope.count, found.would_hit), (0, 0), "{status} {found:?}");
        for who in [ALICE, BOB] {
            flow.get("/data", &who).await;
        }
        flow.get("/secret", &ALICE).await;
        let found = flow.route("/{*rest}");
        assert_eq!((found.scope.count, found.would_hit), (0, 3), "{status} {found:?}");
    }
}

/// 330. An audit asked with the caller's own credential, was refused, and drew no conclusion.
#[tokio::test]
async fn r330_an_audit_that_is_refused_is_a_finding_and_ends_the_admission() {
    for status in [401, 403, 404, 303] {
        for admit in ["route", "entry"] {
            let app = Origin::start(|_| Response::ok("secret"));
            let rules = route(&format!("audit = 1.0\nadmit = \"{admit}\""));
            let flow = Flow::start(app.address, &rules).await;
            flow.get("/a", &ALICE).await;
            flow.get(if admit == "route" { "/b" } else { "/a" }, &BOB).await;
            app.answers(move |request| {
                if is(request, BOB) {
                    Response::status(status, "no").header("location", "/login")
                } else {
                    Response::ok("secret")
                }
            });
            let case = format!("{status} {admit}");
            assert_eq!(flow.get("/a", &BOB).await.cache(), "HIT", "{case}");
            let series = "sidecache_audits_total{route=\"/{*rest}\",result=\"refused\"}";
            eventually(series, Duration::from_secs(5), async || flow.metric(series) == 1).await;
            let found = flow.route("/{*rest}");
            assert_eq!(
                (found.scope.count, found.audit.asked, found.audit.stale),
                (1, 1, 0),
                "{case}"
            );
            assert_eq!(found.scope.examples[0].evidence, "refusal", "{case}");
            assert_refused(&flow.get("/a", &BOB).await, status, &case);
            assert_eq!(flow.get("/a", &ALICE).await.cache(), "HIT", "{case}");
        }
    }
}

/// 331. What is read from Redis is given by the same rule: to whom this sidecar has seen the origin
///      give this very body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r331_an_entry_from_redis_admits_by_its_body() {
    let redis = RedisServer::start();
    let app = Origin::start(|request| match (&*request.path, is(request, BOB)) {
        ("/a", true) => Response::status(403, "no"),
        ("/own", _) => Response::ok(format!("secret of {}", name(request))),
        _ => Response::ok("secret"),
    });
    for memory in ["", "[memory]\nsize = \"0B\"\n"] {
        let rules = format!("{}\n{memory}{}", redis.table(), route(""));
        let (one, two) =
            (Sidecar::start(app.address, &rules).await, Sidecar::start(app.address, &rules).await);
        let (mut here, mut there) = (Client::new(one.address), Client::new(two.address));
        let prefix = if memory.is_empty() { "memory" } else { "none" };
        let at = |path: &str| format!("{path}?{prefix}");
        eventually("it is stored", Duration::from_secs(5), async || {
            Client::new(one.address).get(&at("/b"), &BOB).await.cache() == "HIT"
        })
        .await;
        here.get(&at("/a?x"), &ALICE).await;
        assert_cache(&here.get(&at("/a?x"), &ALICE).await, "HIT", prefix);
        for client in [&mut here, &mut there] {
            assert_refused(&client.get(&at("/a?x"), &BOB).await, 403, prefix);
        }
        let first = there.get(&at("/a?x"), &ALICE).await;
        assert!(first.header("cache-status").contains("not admitted"), "{}", first.cache_status());
        assert_cache(&there.get(&at("/a?x"), &ALICE).await, "HIT", prefix);
        assert_cache(&here.get(&at("/a?x"), &ALICE).await, "HIT", "the same body");
        // Another body, stored by the other sidecar.
        assert_eq!(here.get(&at("/own"), &ALICE).await.text(), "secret of alice");
        assert_eq!(there.get(&at("/own"), &BOB).await.text(), "secret of bob");
        for _ in 0..2 {
            assert_eq!(here.get(&at("/own"), &ALICE).await.text(), "secret of alice", "{prefix}");
        }
        assert_eq!(there.get(&at("/own"), &BOB).await.text(), "secret of bob", "{prefix}");
    }
}
