//! Metrics: a scrape is well-formed in both formats, and its counts are right.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use sidecache::internals::Disposition;
use sidecache::internals::metrics::{self, BodySource, Metrics, RequestRecord};

use crate::support::exposition::{Exposition, Format, read};
use crate::support::{Client, Origin, RedisServer, Response, Scene, Sidecar, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(10);

const RULES: &str = r#"
[[routes]]
path  = "/v/{name}"
ttl   = "5m"
scope = "public"
tags  = ["v:{name}"]

[[purges]]
path = "/w/{name}"
tags = ["v:{name}"]
"#;

async fn scrape(admin: SocketAddr, format: Format) -> (String, Exposition) {
    let accept = match format {
        Format::Text => "text/plain;version=0.0.4",
        Format::OpenMetrics => {
            "application/openmetrics-text;version=1.0.0;q=0.5,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        }
    };
    let reply = Client::of_admin(admin).get("/metrics", &[("accept", accept)]).await;
    let media = match format {
        Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    assert_eq!((reply.status, reply.header("content-type")), (200, media));
    let text = reply.text().to_owned();
    let read = read(&text, format).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
    (text, read)
}

/// The current counts of a sidecar.
async fn counts(admin: SocketAddr) -> Exposition {
    scrape(admin, Format::Text).await.1
}

/// Checks the text with Prometheus' own checker, if it is installed.
fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return println!("without promtool: {error}"),
    };
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr]
        .map(|said| String::from_utf8_lossy(&said).into_owned())
        .concat();
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool check metrics: {}\n{said}\n{text}",
        output.status
    );
}

fn close_to(number: f64, expected: f64) -> bool {
    (number - expected).abs() < 1e-9
}

#[test]
fn the_reader_refuses_what_is_broken() {
    let good = "# HELP sidecache_a_total A\n# TYPE sidecache_a_total \
        counter\nsidecache_a_total{route=\"/\\\"x\\\\\"} 1\nsidecache_a_total 2\n";
    let histogram = "# HELP sidecache_h H\n# TYPE sidecache_h \
        histogram\nsidecache_h_bucket{le=\"1.0\"} 1\nsidecache_h_bucket{le=\"+Inf\"} \
            2\nsidecache_h_sum 3.5\nsidecache_h_count 2\n";
    for text in ["", good, histogram] {
        assert!(read(text, Format::Text).is_ok(), "{:?}", read(text, Format::Text));
    }
    for (text, from, to) in [
        (good, "} 1\n", "} 1"),
        (good, "# HELP sidecache_a_total A\n", ""),
        (good, "total A\n", "total \n"),
        (good, "# TYPE sidecache_a_total counter\n", ""),
        (good, "sidecache_a_total", "sidecache_a"),
        (good, "sidecache_a_total", "sidecache_aB_total"),
        (good, "sidecache_a_total 2", "sidecache_b_total 2"),
        (good, "counter", "gauge"),
        (good, " 2\n", " -2\n"),
        (good, " 2\n", " two\n"),
        (good, " 2\n", "\n"),
        (good, "sidecache_a_total 2", "sidecache_a_total{route=\"/\\\"x\\\\\"} 2"),
        (good, "/\\\"x\\\\", "/\\\"x\\"),
        (good, "/\\\"x\\\\", "\\t"),
        (good, "/\\\"x\\\\", ""),
        (good, "route=", "route=\"a\",route="),
        (good, "sidecache_a_total 2\n", "# EOF\n"),
        (good, "sidecache_a_total 2\n", "\n"),
        (histogram, "\"1.0\"} 1", "\"1.0\"} 3"),
        (histogram, "\"1.0\"", "\"1\""),
        (histogram, "sidecache_h_count 2", "sidecache_h_count 3"),
        (histogram, "sidecache_h_sum 3.5\n", ""),
        (histogram, "sidecache_h_bucket{le=\"+Inf\"} 2\n", ""),
    ] {
        assert!(text.contains(from));
        let broken = text.replace(from, to);
        assert!(read(&broken, Format::Text).is_err(), "{broken}");
    }
    let open = "# HELP sidecache_a A\n# TYPE sidecache_a counter\nsidecache_a_total 1\n# EOF\n";
    assert!(read(open, Format::OpenMetrics).is_ok());
    for broken in [
        open.replace("# EOF\n", ""),
        open.replace("sidecache_a ", "sidecache_a_total "),
        format!("{open}\n"),
    ] {
        assert!(read(&broken, Format::OpenMetrics).is_err(), "{broken}");
    }
}

#[test]
fn the_strangest_names_survive_in_both_formats() {
    let metrics = Metrics::new();
    let names = [
        "/\"quoted\"",
        "/back\\slash",
        "/new\nline",
        "/ends in \\",
        "/n\\n",
        "/ünïcode/✓",
        "/{a},b=\"c\"} 1",
    ];
    let table = metrics.table(names.iter().map(ToString::to_string));
    for (route, _) in names.iter().enumerate() {
        let seen = RequestRecord {
            status: hyper::StatusCode::OK,
            disposition: Disposition::Hit,
            reason: None,
            duration: Duration::from_micros(3),
            saved: Some(Duration::ZERO),
        };
        table.request(Some(route), &seen);
        table.origin(Some(route), Duration::from_hours(1));
        table.bytes(Some(route), BodySource::Cache, u64::MAX >> 12);
    }
    metrics.register_gauge("sidecache_help", "Says \"why\", with a \\ and a\nbreak", &[], || 1e300);
    for (format, written) in [
        (Format::Text, metrics::MetricsFormat::Text),
        (Format::OpenMetrics, metrics::MetricsFormat::OpenMetrics),
    ] {
        let text = metrics.encode_as(written);
        let read = read(&text, format).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
        for name in names {
            assert!(
                close_to(read.sum("sidecache_requests_total", &[("route", name)]), 1.0),
                "{name:?}\n{text}"
            );
            assert!(
                close_to(
                    read.sum("sidecache_upstream_duration_seconds_sum", &[("route", name)]),
                    3600.0
                ),
                "{name:?}\n{text}"
            );
        }
    }
    promtool(&metrics.encode_as(metrics::MetricsFormat::Text));
}

/// Causes every kind of response, so that each metric family has samples.
async fn busy(address: SocketAddr) {
    let mut client = Client::new(address);
    eventually("there are hits", LONG_ENOUGH, async || {
        Client::new(address).get("/v/a", &[]).await.cache() == "HIT"
    })
    .await;
    for name in ["a", "b", "b"] {
        client.get(&format!("/v/{name}"), &[("accept", "text/html")]).await;
    }
    assert_eq!(client.send("POST", "/w/a", &[], "x=1").await.status, 200);
    for (method, path) in
        [("GET", "/v/a"), ("HEAD", "/v/a"), ("HEAD", "/v/new"), ("GET", "/elsewhere")]
    {
        client.send(method, path, &[], "").await;
    }
    client.get("/v/a", &[("range", "bytes=0-0")]).await;
    client.get("/v/a", &[("x-unheard-of", "1")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_sidecar_is_read_in_both_formats_and_by_promtool() {
    let (redis, app) = (RedisServer::start(), Origin::start(crate::support::origin::versioned()));
    let sidecar =
        Sidecar::spawn(app.address, &format!("{}collapse = \"cluster\"\n{RULES}", redis.table()))
            .await;
    busy(sidecar.address).await;
    let (text, plain) = scrape(sidecar.admin, Format::Text).await;
    let (_, open) = scrape(sidecar.admin, Format::OpenMetrics).await;
    assert_eq!(plain.series(), open.series(), "both formats name the same series");
    promtool(&text);
    for (name, kind) in [
        ("sidecache_requests_total", "counter"),
        ("sidecache_request_duration_seconds", "histogram"),
        ("sidecache_upstream_duration_seconds", "histogram"),
        ("sidecache_response_bytes_total", "counter"),
        ("sidecache_upstream_seconds_saved_total", "counter"),
        ("sidecache_memory_evictions_total", "counter"),
        ("sidecache_memory_limit_bytes", "gauge"),
        ("sidecache_start_time_seconds", "gauge"),
        ("sidecache_purge_wait_seconds_total", "counter"),
        ("sidecache_stalls_total", "counter"),
        ("sidecache_stall_seconds_total", "counter"),
        ("sidecache_build_info", "gauge"),
    ] {
        assert_eq!(plain.0.get(name).map(|family| family.kind.as_str()), Some(kind), "{name}");
    }
    for result in ["hit", "miss", "bypass"] {
        assert!(
            plain.sum("sidecache_request_duration_seconds_count", &[("result", result)]) >= 1.0,
            "{result}\n{text}"
        );
    }
    let (requests, timed) = (
        plain.sum("sidecache_requests_total", &[]),
        plain.sum("sidecache_request_duration_seconds_count", &[]),
    );
    assert!(close_to(requests, timed), "each request is timed: {requests} and {timed}");
    assert!(
        close_to(plain.sum("sidecache_memory_limit_bytes", &[]), 256.0 * 1024.0 * 1024.0),
        "the default"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_and_bytes_are_counted_by_where_the_answer_came_from() {
    const SLOW: Duration = Duration::from_millis(60);
    let app = Origin::slow(SLOW, |request| match request.path.as_str() {
        "/v/big" => Response::ok("x".repeat(300_000)),
        _ => Response::ok("0123456789"),
    });
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut client = Client::new(sidecar.address);
    for (method, path, cache) in [
        ("GET", "/v/a", "MISS"),
        ("GET", "/v/a", "HIT"),
        ("GET", "/v/a", "HIT"),
        ("HEAD", "/v/a", "HIT"),
        ("HEAD", "/v/head", "MISS"),
        ("GET", "/v/big", "MISS"),
        ("GET", "/elsewhere", "BYPASS"),
        ("POST", "/elsewhere", "BYPASS"),
    ] {
        let reply = client.send(method, path, &[], "").await;
        assert_eq!(reply.cache(), cache, "{method} {path}");
    }
    // A 304 has no body.
    let etag = client.get("/v/a", &[]).await.header("etag").to_owned();
    if !etag.is_empty() {
        assert_eq!(client.get("/v/a", &[("if-none-match", &etag)]).await.status, 304);
    }
    let counts = counts(sidecar.admin).await;
    let (route, none) = (("route", "/v/{name}"), ("route", "none"));
    let bytes =
        |route, source| counts.sum("sidecache_response_bytes_total", &[route, ("source", source)]);
    assert!(
        close_to(bytes(route, "cache"), 30.0),
        "three hits, and no HEAD: {}",
        bytes(route, "cache")
    );
    assert!(close_to(bytes(route, "app"), 300_010.0), "{}", bytes(route, "app"));
    assert!(
        close_to(bytes(none, "app"), 20.0) && close_to(bytes(none, "cache"), 0.0),
        "{}",
        bytes(none, "app")
    );

    let (asked, writes) = (
        "sidecache_upstream_duration_seconds_count",
        counts.sum("sidecache_upstream_duration_seconds_count", &[none]),
    );
    assert!(
        close_to(counts.sum(asked, &[route]), 3.0) && close_to(writes, 2.0),
        "a fill, a HEAD and a large one; a GET and a POST"
    );
    let took = counts.sum("sidecache_upstream_duration_seconds_sum", &[]);
    assert!((SLOW.as_secs_f64() * 5.0..30.0).contains(&took), "{took} s for five answers of 60 ms");
    let misses = counts.sum("sidecache_request_duration_seconds_sum", &[route, ("result", "miss")]);
    assert!(misses >= SLOW.as_secs_f64() * 3.0, "{misses}");

    let hits = counts.sum("sidecache_request_duration_seconds_count", &[route, ("result", "hit")]);
    let saved = counts.sum("sidecache_upstream_seconds_saved_total", &[route]);
    assert!(
        close_to(hits, 4.0) && (SLOW.as_secs_f64() * 4.0..30.0).contains(&saved),
        "{hits} hits have saved {saved} s"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_for_an_app_that_was_asked_saves_nothing() {
    let rules = "[[routes]]\npath = \"/v/{name}\"\nttl = \"1s\"\nscope = \
        \"public\"\nstale_if_error = \"1h\"\n";
    let scene =
        Scene::start(rules, |_| Response::ok("fine").header("cache-control", "max-age=1")).await;
    scene.fill("/v/a").await;
    scene.origin_goes_away().await;
    scene.until_stale();
    assert_eq!(scene.get("/v/a").await.cache(), "STALE");
    let counts = counts(scene.sidecar.admin).await;
    assert!(close_to(
        counts.sum("sidecache_request_duration_seconds_count", &[("result", "hit")]),
        1.0
    ));
    assert!(close_to(counts.sum("sidecache_upstream_seconds_saved_total", &[]), 0.0));
    assert!(close_to(counts.sum("sidecache_response_bytes_total", &[("source", "cache")]), 4.0));
    assert!(
        close_to(counts.sum("sidecache_upstream_duration_seconds_count", &[]), 1.0),
        "an app that is away answers nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_are_what_had_to_go_and_not_what_was_replaced_or_purged() {
    let rules = format!("[memory]\nsize = \"1MiB\"\n[limits]\nobject = \"32KiB\"\n{RULES}");
    let app = Origin::start(|_| Response::ok("x".repeat(20_000)));
    let sidecar = Sidecar::start(app.address, &rules).await;
    let mut client = Client::new(sidecar.address);
    // The same few again and again: purged each time, and once more replaced by what the client
    // insists on.
    for _ in 0..20 {
        for name in 0..4 {
            client.get(&format!("/v/{name}"), &[("cache-control", "no-cache")]).await;
            client.get(&format!("/v/{name}"), &[("cache-control", "no-cache")]).await;
            client.send("POST", &format!("/w/{name}"), &[], "").await;
        }
    }
    let evictions = |counts: &Exposition| counts.sum("sidecache_memory_evictions_total", &[]);
    let before = counts(sidecar.admin).await;
    assert!(close_to(evictions(&before), 0.0), "{}", evictions(&before));
    for name in 0..200 {
        client.get(&format!("/v/many-{name}"), &[]).await;
    }
    let after = counts(sidecar.admin).await;
    let kept =
        after.sum("sidecache_memory_entries", &[]) - before.sum("sidecache_memory_entries", &[]);
    assert!(
        evictions(&after) >= 100.0 && close_to(evictions(&after) + kept, 200.0),
        "{} gone, {kept} kept",
        evictions(&after)
    );
}
