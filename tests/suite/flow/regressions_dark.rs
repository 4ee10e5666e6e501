//! Numbered regressions about what an operator learns: of an app that fails, of a write that no
//! rule speaks of, of a request in the log.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::process::free_port;
use crate::support::{
    Bodies, Client, Origin, RawOrigin, RawResponse, Request, Response, Scene, Sidecar, eventually,
    metric,
};

const WITHIN: Duration = Duration::from_secs(15);

/// A cached route.
const ROUTE: &str = "[[routes]]\npath = \"/v/{id}\"\nttl = \"5m\"\norigin = \"ignore\"\n\
                     scope = \"public\"\n";

fn lines(sidecar: &Sidecar, words: &str) -> Vec<String> {
    sidecar.said().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

async fn says(sidecar: &Sidecar, words: &str) {
    eventually(words, WITHIN, || async { sidecar.said().contains(words) }).await;
}

/// An app that begins to listen at this address.
async fn app_at(address: std::net::SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("the port is free");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere";
                let _ = stream.write_all(answer).await;
            });
        }
    });
}

/// The readiness, and what `stats` says of the app.
async fn told(sidecar: &Sidecar) -> (serde_json::Value, serde_json::Value) {
    (sidecar.admin_get("/ready").await.json(), sidecar.stats().await["app"].clone())
}

/// 740. An app that was down left no trace: 50 requests got 502, the log said nothing, and `/ready`
///      was ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r740_an_app_that_is_down_is_told_once_and_so_is_its_return() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let sidecar = Sidecar::spawn_logged(address, ROUTE).await;
    assert_eq!(told(&sidecar).await.1["answers"], serde_json::Value::Null, "nobody has asked");
    for _ in 0..50 {
        assert_eq!(Client::new(sidecar.address).get("/v/1", &[]).await.status, 502);
    }
    let failing = "the app does not accept connections";
    says(&sidecar, failing).await;
    let (ready, app) = told(&sidecar).await;
    let why =
        format!("the app at {address} does not accept connections: the connection was refused");
    assert_eq!((&ready["status"], &ready["reasons"][0]), (&"degraded".into(), &why.clone().into()));
    assert_eq!((&app["answers"], &app["why"]), (&false.into(), &why.into()));
    assert!(app["failures"].as_u64().is_some_and(|failures| failures >= 25), "{app}");
    assert_eq!(metric(sidecar.admin, "sidecache_upstream_up").await, 0);

    app_at(address).await;
    eventually("it answers", WITHIN, || async {
        Client::new(sidecar.address).get("/v/2", &[]).await.status == 200
    })
    .await;
    says(&sidecar, "the app answers again").await;
    let (ready, app) = told(&sidecar).await;
    assert_eq!((&ready["status"], &app["answers"]), (&"ready".into(), &true.into()));
    assert_eq!(metric(sidecar.admin, "sidecache_upstream_up").await, 1);
    let warned = lines(&sidecar, failing);
    assert_eq!((warned.len(), lines(&sidecar, "answers again").len()), (1, 1), "{warned:?}");
    for word in ["WARN", &address.to_string(), "refused", "start the app"] {
        assert!(warned[0].contains(word), "{word}: {}", warned[0]);
    }
}

/// 741. Nor did one that hangs. Hits are served all the while, so that the sidecar takes traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r741_an_app_that_hangs_is_told_and_hits_are_served() {
    let more = [("[upstream]", "first_byte_timeout = \"200ms\"")];
    let scene = Scene::start_with(&more, ROUTE, |_| Response::ok("here")).await;
    scene.fill("/v/1").await;
    scene.answers(|_| Response::new().wait(Duration::from_mins(1)));
    let reply = scene.get("/v/2").await;
    assert_eq!(reply.status, 504);
    assert!(reply.text().contains("sent the request to the application"), "{}", reply.text());
    assert_eq!(scene.get("/v/1").await.cache(), "HIT");
    let answer = scene.sidecar.admin_get("/ready").await;
    let ready: serde_json::Value = answer.json();
    assert_eq!((answer.status, &ready["status"]), (200, &"degraded".into()));
    let why = ready["reasons"][0].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("does not answer in time") && why.contains("first_byte_timeout"), "{why}");
}

/// 742. One path that fails among others that work changes nothing with each request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r742_an_app_that_fails_some_requests_is_told_a_few_times() {
    let app = RawOrigin::start(Bodies::Read, |(): &mut (), request| {
        if request.line().contains("/bad") {
            let bytes = b"HTTP/9.9 what\r\n\r\n".to_vec();
            return RawResponse { bytes, close: true, ..RawResponse::ok("") };
        }
        RawResponse::ok("fine")
    })
    .await;
    let sidecar = Sidecar::spawn_logged(app.address, "[log]\naccess = true\n").await;
    for _ in 0..30 {
        assert_eq!(Client::new(sidecar.address).get("/bad", &[]).await.status, 502);
        assert_eq!(Client::new(sidecar.address).get("/good", &[]).await.status, 200);
    }
    let failing = "the app breaks off, or does not answer with valid HTTP";
    says(&sidecar, failing).await;
    assert!((1..=2).contains(&lines(&sidecar, failing).len()), "{}", sidecar.said());
    assert_eq!(lines(&sidecar, "answers again").len(), 1);

    // 743. Why it was no valid HTTP stood in no line of the log.
    let line = lines(&sidecar, "path=/bad").pop().expect("each request has a line");
    assert!(
        line.contains("reason=\"upstream protocol error\" cause=\"invalid HTTP version"),
        "{line}"
    );
}

/// 744. The body of a 502 did not say whose it was. It names no address: strangers read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r744_a_failure_says_who_speaks_and_what_was_tried() {
    let scene = Scene::start(ROUTE, |_| Response::hang_up()).await;
    let address = scene.origin.address.port().to_string();
    let broken = scene.send("POST", "/x", &[], "a").await;
    assert_eq!(broken.status, 502);
    scene.origin_goes_away().await;
    for (method, path) in [("GET", "/v/1"), ("GET", "/x"), ("POST", "/x")] {
        let reply = scene.send(method, path, &[], "").await;
        assert_eq!(reply.status, 502);
        let text = reply.text();
        assert!(text.starts_with("502 Bad Gateway: upstream unreachable\n"), "{text}");
        for words in ["This is Sidecache", "tried to connect to the application", "Its log"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains(&address) && !text.contains("127.0.0.1"), "{text}");
    }
    assert!(broken.text().contains("the connection broke"), "{}", broken.text());
}

/// 745. The alert about writes that no rule covers says that the log has the path. It had not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r745_writes_that_no_purge_rule_speaks_of_are_told_once_for_each_pattern() {
    let app = Origin::start(|_: &Request| Response::ok("here"));
    let rules = "[[routes]]\npath = \"/v/{*rest}\"\nttl = \"5m\"\n";
    let sidecar = Sidecar::spawn_logged(app.address, rules).await;
    for at in 0..20 {
        for path in [format!("/v/items/{at}"), format!("/v/Lists/{at}/lines")] {
            let reply = Client::new(sidecar.address).send("PUT", &path, &[], "a").await;
            assert_eq!(reply.status, 200);
        }
    }
    says(&sidecar, "/v/lists/{id}/lines").await;
    let told = lines(&sidecar, "no purge rule speaks of this write");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("pattern=\"PUT /v/items/{id}\" path=/v/items/0"), "{told:?}");
    assert!(metric(sidecar.admin, "sidecache_mutations_uncovered_total").await >= 40);
}

/// 746. No metric told how many responses were errors, of which route.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r746_responses_are_counted_by_route_and_class() {
    let scene = Scene::start(ROUTE, |request| match request.path.as_str() {
        "/v/404" => Response::status(404, ""),
        "/v/500" => Response::status(500, ""),
        _ => Response::ok("here").header("etag", "\"1\""),
    })
    .await;
    for path in ["/v/1", "/v/1", "/v/404", "/v/500", "/none"] {
        scene.get(path).await;
    }
    assert_eq!(scene.ask("/v/1", &[("if-none-match", "\"1\"")]).await.status, 304);
    for (route, class, count) in [
        ("/v/{id}", "2xx", 2),
        ("/v/{id}", "3xx", 1),
        ("/v/{id}", "4xx", 1),
        ("/v/{id}", "5xx", 1),
        ("none", "2xx", 1),
    ] {
        let series = format!("sidecache_responses_total{{route=\"{route}\",class=\"{class}\"}}");
        assert_eq!(metric(scene.sidecar.admin, &series).await, count, "{series}");
    }
    let text = scene.sidecar.admin_get("/metrics").await.text().to_owned();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().expect("a number")
    };
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_start_time_seconds") > 1.7e9);
    let (open, most) = (value("process_open_fds"), value("process_max_fds"));
    assert!(open > 5.0 && most >= open, "{open} of {most}");
}

/// 747. A line of the access log could not be found in a trace, nor in the app's log, and did not
///      tell the app's time from the sidecar's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r747_access_lines_name_the_trace_the_ids_and_the_apps_time() {
    let app = Origin::start(|_: &Request| {
        Response::new().wait(Duration::from_millis(50)).whole("", b"here")
    });
    let sidecar =
        Sidecar::spawn_logged(app.address, &format!("[log]\naccess = true\n{ROUTE}")).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("x-request-id", "mine-1"), ("traceparent", parent.as_str())];
    for path in ["/v/1", "/v/1", "/passed"] {
        Client::new(sidecar.address).get(path, &headers).await;
    }
    Client::new(sidecar.address).get("/v/2", &[("traceparent", "nonsense")]).await;
    says(&sidecar, "path=/v/2").await;
    let line = |words: &[&str]| {
        let all = lines(&sidecar, "sidecache::access");
        let found = all.iter().find(|line| words.iter().all(|word| line.contains(word)));
        found.cloned().unwrap_or_else(|| panic!("{words:?}: {all:?}"))
    };
    let field = |line: &str, name: &str| -> Option<String> {
        line.split(' ')
            .find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let miss = line(&["path=/v/1", "cache=MISS"]);
    let took: u64 = field(&miss, "app_us").and_then(|us| us.parse().ok()).expect("the app's time");
    let whole: u64 = field(&miss, "duration_us").and_then(|us| us.parse().ok()).expect("a time");
    assert!(took >= 50_000 && took <= whole, "{miss}");
    assert_eq!(field(&miss, "trace_id").as_deref(), Some(trace));
    assert_eq!(field(&miss, "request_id").as_deref(), Some("mine-1"));
    let sent = app.last("/v/1");
    assert_eq!(field(&miss, "app_request_id"), sent.header("x-request-id"));

    let hit = line(&["path=/v/1", "cache=HIT"]);
    assert!(!hit.contains("app_us") && !hit.contains("app_request_id"), "{hit}");
    assert_eq!(field(&hit, "trace_id").as_deref(), Some(trace));

    let passed = line(&["path=/passed"]);
    assert!(passed.contains("app_us=") && !passed.contains("app_request_id"), "{passed}");
    assert_eq!(app.last("/passed").header("x-request-id").as_deref(), Some("mine-1"));
    assert_eq!(app.last("/passed").header("traceparent"), Some(parent));

    let other = line(&["path=/v/2"]);
    assert!(!other.contains("trace_id") && field(&other, "app_request_id").is_some(), "{other}");
    assert_eq!(field(&other, "request_id"), None);
}
