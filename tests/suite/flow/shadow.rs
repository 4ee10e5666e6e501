//! Shadow mode and audits: what they find, what they must not find, and that every client gets the
//! origin's own response.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt as _;
use sidecache::internals::{EventKind, SETTLE_DELAY};
use tokio_util::sync::CancellationToken;

use crate::support::demo::demo;
use crate::support::flow::Flow;
use crate::support::{Origin, Point, RedisServer, Request, Response, eventually};

/// `/list` shows the effect of writes to `/items/...`; no rule purges it unless `rule` is given.
fn rules(more: &str, rule: &str) -> String {
    format!(
        "[[routes]]\npath = \"/list\"\nmode = \"shadow\"\nttl = \"5m\"\nscope = \"public\"\ntags \
        = [\"items\"]\n{more}\n{rule}"
    )
}

const RULE: &str = "[[purges]]\npath = \"/items/{*rest}\"\ntags = [\"items\"]\n";

/// Counts writes, and responds with the count; `/items/refused` is rejected, and `/items/same`
/// changes nothing.
fn counting() -> impl Fn(&Request) -> Response + Send + Sync {
    let version = AtomicU64::new(0);
    move |request| {
        if request.method == "GET" || request.method == "HEAD" {
            return Response::ok(format!("version {}", version.load(Ordering::SeqCst)));
        }
        match &*request.path {
            "/items/refused" => return Response::status(403, ""),
            "/items/same" => {}
            _ => drop(version.fetch_add(1, Ordering::SeqCst)),
        }
        Response::status(204, "")
    }
}

async fn of(
    rules: &str,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> (Origin, Flow) {
    let app = Origin::start(handler);
    let flow = Flow::start(app.address, rules).await;
    (app, flow)
}

/// Stale responses, those of them that nothing explains, and responses that are another caller's.
fn found(flow: &Flow, route: &str) -> (u64, u64, u64) {
    let route = flow.route(route);
    (route.stale.count, route.stale.unexplained, route.scope.count)
}

const ALICE: [(&str, &str); 1] = [("authorization", "Bearer alice-1")];
const BOB: [(&str, &str); 1] = [("authorization", "Bearer bob-1")];

#[tokio::test]
async fn everything_reaches_the_app_untouched_and_nothing_is_stored() {
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let record = Arc::clone(&seen);
    let (app, flow) = of(&rules("query = \"none\"", ""), move |request| {
        record.lock().expect("a lock").push(request.clone());
        Response::ok("a")
            .header("content-location", "/list")
            .header("cache-control", "max-age=60")
            .header("surrogate-key", "k")
    })
    .await;
    let sent = [
        ("authorization", "Bearer alice"),
        ("if-none-match", "\"x\""),
        ("cookie", "a=1"),
        ("cache-control", "max-age=0"),
    ];
    for _ in 0..5 {
        let reply = flow.get("/list?utm=1", &sent).await;
        assert_eq!((reply.status, reply.cache(), reply.text()), (200, "BYPASS", "a"));
        let status = reply.cache_status();
        assert!(status.contains("fwd=bypass") && status.contains("detail=\"shadow\""), "{status}");
        assert_eq!(reply.header("surrogate-key"), "k");
    }
    // A header that is in no key, a repeated one, and one that the client withdraws: only the
    // origin can evaluate these.
    for odd in [
        &[("x-odd", "1")][..],
        &[("authorization", "a"), ("authorization", "b")],
        &[("cache-control", "only-if-cached")],
    ] {
        assert_eq!(flow.get("/list", odd).await.status, 200);
    }
    assert!(!flow.send("POST", "/list", &[], "x").await.header("cache-status").contains("stored"));
    let seen = seen.lock().expect("a lock").clone();
    assert_eq!(app.count("GET", "/list"), 8, "no request joins another");
    for (name, value) in sent {
        assert_eq!(seen[4].header(name).as_deref(), Some(value));
    }
    assert_eq!(seen[4].query.as_deref(), Some("utm=1"));
    assert_eq!(
        (
            flow.proxy.store.memory.len(),
            flow.proxy.fills.len(),
            flow.proxy.authorized_clients.len()
        ),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn what_would_have_been_a_hit_is_counted() {
    let (_app, flow) = of(&rules("", RULE), counting()).await;
    for _ in 0..8 {
        flow.get("/list", &[]).await;
    }
    flow.send("HEAD", "/list", &[], "").await;
    flow.get("/list", &[("x-odd", "1")]).await;
    flow.send("PUT", "/items/1", &[], "").await;
    flow.get("/list", &[]).await;
    flow.clock.advance(Duration::from_secs(301));
    flow.get("/list", &[]).await;
    flow.get("/list", &[("cache-control", "no-cache")]).await;
    let route = flow.route("/list");
    assert_eq!(
        (route.requests, route.would_hit, route.would_miss, route.would_bypass),
        (13, 8, 4, 1),
        "{route:?}"
    );
    assert!(route.hit_rate.is_some_and(|rate| (rate - 8.0 / 12.0).abs() < 1e-9));
    assert_eq!(found(&flow, "/list"), (0, 0, 0));
    assert_eq!(flow.metric("sidecache_shadow_requests_total{route=\"/list\",result=\"hit\"}"), 8);
    assert_eq!(
        flow.metric("sidecache_shadow_requests_total{route=\"/list\",result=\"bypass\"}"),
        1
    );
}

#[tokio::test]
async fn bodies_stream_through() {
    let gate = CancellationToken::new();
    let opened = gate.clone();
    let app = Origin::start(move |_| {
        Response::new().chunked("").piece(b"first").until(&opened).piece(b"second").end()
    });
    let flow = Flow::start(app.address, &rules("", "")).await;
    for would_hit in 0..2 {
        let mut body = flow.open("GET", "/list", &[], "").await.into_body();
        let first = body.frame().await.expect("a frame").expect("whole").into_data().expect("data");
        assert_eq!(first, "first");
        assert_eq!(flow.route("/list").would_hit, would_hit);
        gate.cancel();
        assert_eq!(body.collect().await.expect("whole").to_bytes(), "second");
    }
}

async fn missing_rule(rules: &str, expected: u64) {
    let (_app, flow) = of(rules, counting()).await;
    for _ in 0..2 {
        flow.get("/list", &[]).await;
    }
    for write in ["/items/refused", "/items/same", "/items/7"] {
        flow.send("PUT", write, &[], "").await;
    }
    for _ in 0..3 {
        flow.get("/list", &[]).await;
    }
    assert_eq!(found(&flow, "/list"), (expected, 0, 0));
    let told = flow.proxy.events.listen(usize::MAX).0;
    let findings = told.iter().filter(|event| match &event.what {
        EventKind::Finding { finding, route, .. } => {
            assert_eq!((*finding, route.as_str()), ("stale", "/list"));
            true
        }
        _ => false,
    });
    assert_eq!(findings.count() as u64, expected.min(1), "one change is told once");
    let report = flow.report();
    if expected == 0 {
        assert_eq!(
            (report.routes[0].stale.examples.len(), report.advice.len()),
            (0, 0),
            "{report:?}"
        );
        return;
    }
    let after: Vec<_> = report.routes[0].stale.examples[0]
        .after
        .iter()
        .map(|write| (&*write.method, &*write.path))
        .collect();
    assert_eq!(
        after,
        [("PUT", "/items/7"), ("PUT", "/items/same")],
        "what was refused changed nothing"
    );
    assert_eq!(report.advice.len(), 1, "{report:?}");
    assert_eq!(report.advice[0].toml, RULE);
    assert_eq!(report.advice[0].why, "3 responses would have been stale after PUT /items/7");
    assert_eq!(
        flow.metric("sidecache_shadow_findings_total{route=\"/list\",finding=\"stale\"}"),
        3
    );
    flow.proxy.shadow.reset();
    assert_eq!(flow.route("/list").requests, 0);
}

#[tokio::test]
async fn a_missing_purge_rule_is_found() {
    missing_rule(&rules("", ""), 3).await;
}

#[tokio::test]
async fn a_purge_rule_that_is_there_is_not() {
    missing_rule(&rules("", RULE), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_purge_rule_is_found_with_redis() {
    let redis = RedisServer::start();
    missing_rule(&format!("{}\n{}", redis.table(), rules("", "")), 3).await;
    missing_rule(&format!("{}\n{}", redis.table(), rules("", RULE)), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_another_sidecar_is_no_finding_where_a_rule_purges() {
    let redis = RedisServer::start();
    let app = Origin::start(counting());
    let rules = format!("{}\n{}", redis.table(), rules("", RULE));
    let (one, two) =
        (Flow::start(app.address, &rules).await, Flow::start(app.address, &rules).await);
    eventually("they know of each other", Duration::from_secs(5), async || {
        one.proxy.coherence.status().peers == 1
    })
    .await;
    for write in 0..5 {
        one.get("/list", &[]).await;
        // The origin has committed, and the purge is still to come: the origin's response is newer
        // than the one that would have been served.
        let hold = app.hold("PUT", "/items/7", Point::After);
        let writing = async { two.send("PUT", "/items/7", &[], "").await };
        let reading = async {
            hold.arrived().await;
            let reply = one.get("/list", &[]).await;
            assert_eq!(reply.text(), format!("version {}", write + 1));
            hold.release();
        };
        tokio::join!(writing, reading);
    }
    one.get("/list", &[]).await;
    // Findings are reported after a delay; that there is none can be shown only by waiting.
    tokio::time::sleep(SETTLE_DELAY + Duration::from_millis(200)).await;
    let route = one.route("/list");
    assert_eq!((route.stale.count, route.would_hit), (0, 5), "{route:?}");
}

#[tokio::test]
async fn an_answer_from_amid_a_write_is_no_finding() {
    let (app, flow) = of(&rules("", RULE), counting()).await;
    flow.get("/list", &[]).await;
    let hold = app.hold("PUT", "/items/7", Point::After);
    let reading = async {
        hold.arrived().await;
        assert_eq!(flow.get("/list", &[]).await.text(), "version 1");
        hold.release();
    };
    tokio::join!(async { flow.send("PUT", "/items/7", &[], "").await }, reading);
    assert_eq!((flow.route("/list").would_hit, found(&flow, "/list")), (1, (0, 0, 0)));
}

/// The body is the caller's own.
fn personal(request: &Request) -> Response {
    Response::ok(format!("hello {}", request.header("authorization").unwrap_or_default()))
}

#[tokio::test]
async fn a_scope_that_mixes_callers_is_found() {
    for scope in ["public", "shared"] {
        let text = rules("", "").replace("public", scope);
        let (_app, flow) = of(&text, personal).await;
        for who in [ALICE, BOB, ALICE, BOB, ALICE] {
            flow.get("/list", &who).await;
        }
        let (stale, _, mixed) = found(&flow, "/list");
        assert!(stale == 0 && mixed > 0, "{scope}: {:?}", flow.route("/list"));
        let report = flow.report();
        assert_eq!(
            (report.advice.len(), &*report.advice[0].toml, report.advice[0].line),
            (1, "scope = \"private\"\n", Some(3))
        );
        assert_eq!(report.routes[0].scope.examples[0].path, "/list");
    }
    let (_app, private) = of(&rules("", "").replace("public", "private"), personal).await;
    for who in [ALICE, BOB, ALICE, BOB] {
        private.get("/list", &who).await;
    }
    assert_eq!((found(&private, "/list"), private.route("/list").would_hit), ((0, 0, 0), 2));
}

#[tokio::test]
async fn callers_with_one_body_are_no_finding_and_a_change_is_no_scope() {
    for scope in ["public", "shared"] {
        let (_app, flow) = of(&rules("", RULE).replace("public", scope), counting()).await;
        for _ in 0..3 {
            for who in [ALICE, BOB] {
                flow.get("/list", &who).await;
            }
            flow.send("PUT", "/items/1", &ALICE, "").await;
            flow.get("/list", &BOB).await;
        }
        assert_eq!(found(&flow, "/list"), (0, 0, 0), "{scope}");
    }
}

#[tokio::test]
async fn a_body_that_differs_by_itself_is_put_down_to_no_write() {
    let now = AtomicU64::new(0);
    let (_app, flow) =
        of(&rules("", ""), move |_| Response::ok(now.fetch_add(1, Ordering::SeqCst).to_string()))
            .await;
    flow.get("/list", &ALICE).await;
    // The first change comes after a write by coincidence.
    flow.send("PUT", "/items/1", &[], "").await;
    for who in [ALICE, BOB, ALICE, BOB, ALICE] {
        flow.get("/list", &who).await;
    }
    flow.send("PUT", "/items/1", &[], "").await;
    flow.get("/list", &ALICE).await;
    let (stale, unexplained, scope) = found(&flow, "/list");
    assert!(stale > 0 && stale == unexplained && scope == 0, "{:?}", flow.route("/list"));
    assert_eq!(
        flow.report().advice.iter().map(|advice| &*advice.toml).collect::<Vec<_>>(),
        ["mode = \"off\"\n"]
    );
}

#[tokio::test]
async fn heads_ranges_conditions_and_errors_are_no_findings() {
    let (app, flow) = of(&rules("", ""), |_| Response::ok("whole").header("etag", "\"1\"")).await;
    flow.get("/list", &[]).await;
    let answers: [(u16, &str); 8] = [
        (304, ""),
        (206, "wh"),
        (500, "no"),
        (503, ""),
        (401, "who?"),
        (403, ""),
        (429, "slow"),
        (408, ""),
    ];
    for (status, body) in answers {
        app.answers(move |_| Response::status(status, body));
        let headers: &[(&str, &str)] = match status {
            304 => &[("if-none-match", "\"1\"")],
            206 => &[("range", "bytes=0-1")],
            _ => &[],
        };
        assert_eq!(flow.get("/list", headers).await.status, status);
        flow.send("HEAD", "/list", &[], "").await;
    }
    app.answers(|_| Response::hang_up());
    assert_eq!(flow.get("/list", &[]).await.status, 502);
    assert_eq!((found(&flow, "/list"), flow.route("/list").would_hit), ((0, 0, 0), 17));
    // And what was known before still counts.
    app.answers(|_| Response::ok("other"));
    flow.get("/list", &[]).await;
    assert_eq!(found(&flow, "/list"), (1, 1, 0));
}

#[tokio::test]
async fn what_a_304_confirms_to_the_client_would_have_been_stored() {
    let (_app, flow) =
        of(&rules("", ""), |_| Response::status(304, "").header("etag", "\"1\"")).await;
    for _ in 0..3 {
        assert_eq!(flow.get("/list", &[("if-none-match", "\"1\"")]).await.status, 304);
    }
    assert_eq!((flow.route("/list").would_hit, flow.route("/list").would_miss), (2, 1));
}

#[tokio::test]
async fn why_answers_would_not_be_stored_is_told() {
    let (_app, flow) = of(
        &format!("[limits]\nobject = \"1KiB\"\n{}", rules("", "").replace("/list", "/{kind}")),
        |request| match &*request.path {
            "/cookie" => Response::ok("a").header("set-cookie", "a=1"),
            "/private" => Response::ok("a").header("cache-control", "private"),
            "/large" => Response::ok("x".repeat(2_000)),
            _ => Response::ok("a").header("vary", "*"),
        },
    )
    .await;
    for path in ["/cookie", "/cookie", "/private", "/large", "/any"] {
        flow.get(path, &[]).await;
    }
    let mut told: Vec<_> =
        flow.route("/{kind}").not_stored.iter().map(|not| (not.reason, not.count)).collect();
    assert_eq!(told[0], ("set-cookie", 2), "the most frequent comes first");
    told.sort_unstable();
    assert_eq!(told, [("private", 1), ("set-cookie", 2), ("too large", 1), ("vary *", 1)]);
    let app = Origin::start(|_| Response::new().sized("", 10).piece(b"abc").reset());
    let flow = Flow::start(app.address, &rules("", "")).await;
    flow.get("/list", &[]).await;
    assert_eq!(flow.route("/list").not_stored[0].reason, "truncated");
}

#[tokio::test]
async fn variants_are_told_apart() {
    let (_app, flow) = of(&rules("", ""), |request| {
        Response::ok(format!("in {}", request.header("accept-language").unwrap_or_default()))
            .header("vary", "accept-language")
    })
    .await;
    for language in ["en", "de", "en", "de", "en"] {
        flow.get("/list", &[("accept-language", language)]).await;
    }
    assert_eq!((found(&flow, "/list"), flow.route("/list").would_hit), ((0, 0, 0), 3));
}

#[tokio::test]
async fn keys_and_callers_are_bounded() {
    let (_app, flow) = of(
        &format!("[limits]\nshadow_keys = 100\n{}", rules("", "").replace("/list", "/{kind}")),
        counting(),
    )
    .await;
    for key in 0..1_000 {
        flow.get(&format!("/{key}"), &[]).await;
    }
    assert!(flow.proxy.shadow.keys() <= 100, "{}", flow.proxy.shadow.keys());
    let evicted = flow.metric("sidecache_limit_reached_total{limit=\"limits.shadow_keys\"}");
    assert!(evicted >= 800, "{evicted}");
    for caller in 0..100 {
        flow.get("/one", &[("authorization", &format!("Bearer {caller}"))]).await;
    }
    assert_eq!(flow.metric("sidecache_limit_reached_total{limit=\"shadow.callers\"}"), 92);
    assert_eq!(found(&flow, "/{kind}"), (0, 0, 0));
}

/// A route that caches, and audits every hit.
fn audited() -> String {
    rules("audit = 1.0", RULE).replace("mode = \"shadow\"\n", "")
}

async fn audits(flow: &Flow, result: &str, count: u64) {
    let series = format!("sidecache_audits_total{{route=\"/list\",result=\"{result}\"}}");
    eventually(&series, Duration::from_secs(5), async || flow.metric(&series) == count).await;
}

#[tokio::test]
async fn an_audit_finds_what_changed_behind_the_sidecars_back() {
    let (app, flow) = of(&audited(), |_| Response::ok("old")).await;
    flow.get("/list", &[]).await;
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    audits(&flow, "same", 1).await;
    // A failing origin proves nothing.
    app.answers(|_| Response::status(503, ""));
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    audits(&flow, "unclear", 1).await;
    app.answers(|_| Response::ok("new"));
    flow.send("PUT", "/elsewhere/1", &[], "").await;
    let reply = flow.get("/list", &[]).await;
    assert_eq!(
        (reply.cache(), reply.text()),
        ("HIT", "old"),
        "a hit never waits for its audit, nor is it stored"
    );
    audits(&flow, "stale", 1).await;
    let route = flow.route("/list");
    assert_eq!(
        (route.mode, route.audit.asked, route.audit.stale, route.stale.count),
        ("on", 3, 1, 1)
    );
    assert_eq!(route.stale.examples[0].after[0].path, "/elsewhere/1");
    assert_eq!(flow.proxy.shadow.totals(), (1, 3, 1));
    assert_eq!(flow.report().advice[0].toml, RULE.replace("items/", "elsewhere/"));
}

#[tokio::test]
async fn an_audit_is_silent_where_nothing_is_wrong() {
    let (app, flow) = of(&audited(), counting()).await;
    flow.get("/list", &[]).await;
    // A purge during the audit.
    let hold = app.hold("GET", "/list", Point::Before);
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    hold.arrived().await;
    flow.send("PUT", "/items/1", &[], "").await;
    hold.release();
    audits(&flow, "unclear", 1).await;
    flow.get("/list", &[]).await;
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    audits(&flow, "same", 1).await;
    // A volatile body.
    let now = AtomicU64::new(0);
    app.answers(move |_| Response::ok(now.fetch_add(1, Ordering::SeqCst).to_string()));
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    audits(&flow, "unclear", 2).await;
    assert_eq!((flow.route("/list").audit.stale, found(&flow, "/list")), (0, (0, 0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_it_with_redis() {
    let redis = RedisServer::start();
    let (app, flow) =
        of(&format!("{}\n{}", redis.table(), audited()), |_| Response::ok("old")).await;
    eventually("it is stored", Duration::from_secs(5), async || {
        flow.get("/list", &[]).await.cache() == "HIT"
    })
    .await;
    audits(&flow, "same", 1).await;
    app.answers(|_| Response::ok("new"));
    assert_eq!(flow.get("/list", &[]).await.cache(), "HIT");
    audits(&flow, "stale", 1).await;
}

/// The demo with a rule removed on purpose and a scope set wrong on purpose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_mistakes_in_the_demos_rules_are_named() {
    let address = demo().await.0.to_string();
    let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml"))
        .expect("the file ships");
    let (kept, forms) = shipped.rsplit_once("[[purges]]").expect("two rules");
    assert!(forms.contains("/api/v1/forms/{*rest}"));
    let (alice, bob) = ([ALICE[0], ("x-tenant-id", "acme")], [BOB[0], ("x-tenant-id", "acme")]);
    let json = [alice[0], alice[1], ("content-type", "application/json")];
    for scope in ["shared", "public"] {
        let dashboard = "key    = [\"tenant\", \"token\"]";
        assert!(kept.contains(dashboard));
        let wrong = format!("scope = \"{scope}\"\nkey = [\"tenant\"]");
        let flow = Flow::of(
            &kept
                .replacen("mode = \"on\"", "mode = \"shadow\"", 1)
                .replace("127.0.0.1:8000", &address)
                .replace(dashboard, &wrong),
        )
        .await;
        let read = async |paths: &[&str]| {
            for who in [alice, bob, alice] {
                for path in paths {
                    assert_eq!(flow.get(path, &who).await.status, 200);
                }
            }
        };
        let campaigns = "/api/v1/campaigns?page=1&limit=3";
        read(&["/api/v1/dashboard", "/api/v1/forms", campaigns]).await;
        assert_eq!(
            flow.send("PUT", "/api/v1/forms/7", &json, "{\"title\":\"x\"}").await.status,
            200
        );
        read(&["/api/v1/forms"]).await;
        assert_eq!(
            flow.send("POST", "/api/v1/forms", &json, "{\"title\":\"y\"}").await.status,
            201
        );
        read(&["/api/v1/dashboard"]).await;
        assert_eq!(
            flow.send("PUT", "/api/v1/campaigns/1", &json, "{\"budget\":1}").await.status,
            200
        );
        read(&["/api/v1/dashboard", campaigns]).await;
        let report = flow.report();
        let named = |route: &str| {
            report.routes.iter().find(|told| told.route == route).expect("it is in shadow")
        };
        assert!(named("/api/v1/forms/{*rest}").stale.count > 0, "{scope}: {report:#?}");
        assert!(
            named("/api/v1/dashboard").stale.count > 0
                && named("/api/v1/dashboard").scope.count > 0,
            "{scope}: {report:#?}"
        );
        assert_eq!(named("/api/v1/campaigns").stale.count, 0, "{scope}: {report:#?}");
        let rule = "[[purges]]\npath = \"/api/v1/forms/{*rest}\"\ntags = [\"forms:{tenant}\"]\n";
        let advice: Vec<_> =
            report.advice.iter().map(|advice| (&*advice.route, &*advice.toml)).collect();
        let private = ("/api/v1/dashboard", "scope = \"private\"\n");
        assert!(
            advice.len() == 2 && advice[0].1 == rule && advice[1] == private,
            "{scope}: {advice:#?}"
        );
    }
}
