//! Numbered regressions about the spans that a collector gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::process::free_port;
use crate::support::sidecar::check;
use crate::support::{Client, Origin, Request, Response, Sidecar, eventually, metric};

const WITHIN: Duration = Duration::from_secs(20);

/// A cached route.
const ROUTE: &str = "[[routes]]\npath = \"/v/{id}\"\nttl = \"5m\"\norigin = \"ignore\"\n\
                     scope = \"public\"\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn rules(collector: SocketAddr, more: &str) -> String {
    format!("[trace]\nendpoint = \"http://{collector}\"\n{more}\n{ROUTE}")
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
}

fn collector() -> Origin {
    Origin::start(|_: &Request| Response::ok(""))
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => panic!("{other:?}"),
    }
}

fn named(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pair = |attribute: &KeyValue| {
        let value = attribute.value.as_ref()?.value.as_ref()?;
        Some((attribute.key.clone(), text(value)))
    };
    attributes.iter().filter_map(pair).collect()
}

/// The spans that have come, with the attributes of their resource.
fn spans(collector: &Origin) -> Vec<(BTreeMap<String, String>, Span)> {
    let mut spans = Vec::new();
    for request in collector.seen("/v1/traces") {
        assert_eq!(request.header("content-type").as_deref(), Some("application/x-protobuf"));
        let batch = ExportTraceServiceRequest::decode(request.body.clone()).expect("protobuf");
        for part in batch.resource_spans {
            let resource = named(&part.resource.expect("a resource").attributes);
            for scope in part.scope_spans {
                spans.extend(scope.spans.into_iter().map(|span| (resource.clone(), span)));
            }
        }
    }
    spans
}

async fn all_spans(collector: &Origin, count: usize) -> Vec<(BTreeMap<String, String>, Span)> {
    eventually("the spans come", WITHIN, || async { spans(collector).len() >= count }).await;
    let spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:?}");
    spans
}

fn id(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}

/// 790. A trace had a hole where the sidecar is: nobody saw whether it or the app took the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r790_a_miss_a_hit_and_a_bypass_are_spans_of_their_callers_trace() {
    let app = Origin::start(|request: &Request| match request.path.as_str() {
        "/broken" => Response::status(500, "broken"),
        _ => Response::new().wait(Duration::from_millis(50)).whole("", b"here"),
    });
    let collector = collector();
    let sidecar =
        Sidecar::start_trusting(app.address, &rules(collector.address, "sample = 0")).await;
    let parent = parent("01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "mine-1")];
    for path in ["/v/1?token=secret", "/v/1?token=secret", "/passed", "/broken"] {
        Client::new(sidecar.address).get(path, &headers).await;
    }
    // Without a caller that traces, chance decides, which is 0 here.
    Client::new(sidecar.address).get("/v/2", &[]).await;
    let spans = all_spans(&collector, 4).await;
    let of = |disposition: &str, path: &str| {
        let found = spans.iter().find_map(|(resource, span)| {
            let attributes = named(&span.attributes);
            let is_it = attributes["sidecache.disposition"] == disposition
                && attributes["url.path"] == path;
            is_it.then(|| (resource.clone(), span.clone(), attributes))
        });
        found.unwrap_or_else(|| panic!("{disposition} {path}: {spans:?}"))
    };

    let (resource, miss, attributes) = of("MISS", "/v/1");
    assert_eq!(resource["service.name"], "sidecache");
    assert_eq!((miss.name.as_str(), miss.kind), ("GET /v/{id}", 2), "a server's");
    assert_eq!(
        (id(&miss.trace_id), id(&miss.parent_span_id)),
        (TRACE.into(), parent[36..52].into())
    );
    assert_eq!(miss.span_id.len(), 8);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/v/{id}"),
        ("url.scheme", "http"),
        ("server.address", "app.test"),
        ("network.peer.address", "127.0.0.1"),
        ("sidecache.reason", "not stored"),
        ("sidecache.stored", "true"),
        ("sidecache.request_id", "mine-1"),
    ] {
        assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name}: {attributes:?}");
    }
    let took: u64 = attributes["sidecache.app_us"].parse().expect("a number");
    let whole = (miss.end_time_unix_nano - miss.start_time_unix_nano) / 1000;
    assert!(took >= 50_000 && took <= whole, "{took} of {whole}");

    let (_, hit, attributes) = of("HIT", "/v/1");
    assert_eq!(attributes["sidecache.tier"], "memory");
    assert!(!attributes.contains_key("sidecache.app_us"), "{attributes:?}");
    assert!(hit.end_time_unix_nano >= hit.start_time_unix_nano);
    assert!(hit.start_time_unix_nano >= miss.start_time_unix_nano + 50_000_000);
    assert_ne!(hit.span_id, miss.span_id);

    let (_, passed, attributes) = of("BYPASS", "/passed");
    assert_eq!(passed.name, "GET");
    assert_eq!(attributes["sidecache.reason"], "no route");
    assert!(!attributes.contains_key("http.route") && attributes.contains_key("sidecache.app_us"));
    assert_eq!(passed.status.map_or(0, |status| status.code), 0);
    assert_eq!(app.last("/passed").header("traceparent"), Some(parent.clone()), "left untouched");

    let (_, broken, attributes) = of("BYPASS", "/broken");
    assert_eq!(
        (broken.status.map(|status| status.code), attributes["error.type"].as_str()),
        (Some(2), "500")
    );
    let whole = format!("{spans:?}");
    assert!(!whole.contains("secret"), "no query: {whole}");
    assert_eq!(metric(sidecar.admin, "sidecache_spans_exported_total").await, 4);
    assert_eq!(metric(sidecar.admin, "sidecache_spans_dropped_total").await, 0);
}

/// 791. Without the section nothing is sent, whatever a caller asks for; and a caller that does not
///      record its span gets none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r791_nothing_is_sent_by_default_nor_for_a_caller_that_records_nothing() {
    let app = Origin::start(|_: &Request| Response::ok("here"));
    let off = Sidecar::start_trusting(app.address, ROUTE).await;
    for path in ["/v/1", "/v/1", "/passed"] {
        Client::new(off.address).get(path, &[("traceparent", &parent("01"))]).await;
    }
    assert_eq!(metric(off.admin, "sidecache_spans_exported_total").await, 0);
    assert_eq!(metric(off.admin, "sidecache_spans_dropped_total").await, 0);

    let collector = collector();
    let on = Sidecar::start_trusting(app.address, &rules(collector.address, "sample = 1")).await;
    Client::new(on.address).get("/v/2", &[("traceparent", &parent("00"))]).await;
    Client::new(on.address).get("/v/3", &[]).await;
    Client::new(on.address).get("/v/4", &[("traceparent", "nonsense")]).await;
    let spans = all_spans(&collector, 2).await;
    for (_, span) in &spans {
        assert!(span.parent_span_id.is_empty() && span.trace_id != [0; 16], "{span:?}");
        assert_ne!(named(&span.attributes)["url.path"], "/v/2");
    }
    assert_ne!(spans[0].1.trace_id, spans[1].1.trace_id);
}

/// 792. A stranger asks for a few spans a second and not for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r792_strangers_ask_for_no_more_spans_than_are_allowed() {
    let app = Origin::start(|_: &Request| Response::ok("here"));
    let collector = collector();
    let more = "sample = 0\nstrangers = 0";
    let sidecar = Sidecar::start(app.address, &rules(collector.address, more)).await;
    for _ in 0..5 {
        Client::new(sidecar.address).get("/v/1", &[("traceparent", &parent("01"))]).await;
    }
    let limit = "sidecache_limit_reached_total{limit=\"trace.strangers\"}";
    assert_eq!(metric(sidecar.admin, limit).await, 5);
    assert_eq!(collector.total(), 0);
}

/// 793. A collector that is down, or that takes connections and says nothing, costs no request, is
///      told once, and so is its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r793_a_dead_collector_costs_no_request_and_is_told_once() {
    let app = Origin::start(|_: &Request| Response::ok("here"));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let rules = rules(address, "sample = 1\nqueue = 4");
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    let ask = async |path: &str| {
        let reply = Client::new(sidecar.address).get(path, &[]).await;
        assert_eq!((reply.status, reply.text()), (200, "here"), "{path}");
    };
    let failing = "the collector does not take spans";
    ask("/v/1").await;
    eventually("it is told", WITHIN, || async { sidecar.said().contains(failing) }).await;
    let dropped = async || metric(sidecar.admin, "sidecache_spans_dropped_total").await;
    for round in 1..4 {
        let before = dropped().await;
        ask("/v/1").await;
        eventually("dropped", WITHIN, || async { dropped().await > before }).await;
        assert_eq!(sidecar.said().matches(failing).count(), 1, "{round}: {}", sidecar.said());
    }

    // It takes connections, and never answers: the queue is full while it is waited for.
    let silent = TcpListener::bind(address).await.expect("the port is free");
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            open.push(stream);
        }
    });
    let full = "sidecache_limit_reached_total{limit=\"trace.queue\"}";
    eventually("the queue is full", WITHIN, || async {
        let many = async {
            for _ in 0..20 {
                ask("/v/1").await;
            }
        };
        timeout(Duration::from_secs(10), many).await.expect("nobody waits for a collector");
        metric(sidecar.admin, full).await > 0
    })
    .await;
    accepting.abort();
    let _ = accepting.await;

    let collector = Origin::at(address);
    eventually("spans come", WITHIN, || async {
        ask("/v/1").await;
        !spans(&collector).is_empty()
    })
    .await;
    let again = "the collector takes spans again";
    eventually("that is told", WITHIN, || async { sidecar.said().contains(again) }).await;
    let said = sidecar.said();
    assert_eq!((said.matches(failing).count(), said.matches(again).count()), (1, 1), "{said}");
    let line = said.lines().find(|line| line.contains(failing)).unwrap_or_default();
    assert!(line.contains("WARN") && line.contains(&address.to_string()), "{line}");
    assert!(line.contains("refused"), "{line}");
}

/// 794. Spans that wait for others are sent at the end, and a collector that hangs holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r794_the_last_spans_are_sent_at_the_end_within_a_bound() {
    let app = Origin::start(|_: &Request| Response::ok("here"));
    let collector = collector();
    let mut sidecar = Sidecar::start(app.address, &rules(collector.address, "sample = 1")).await;
    for _ in 0..3 {
        Client::new(sidecar.address).get("/v/1", &[]).await;
    }
    sidecar.stop().await;
    assert_eq!(spans(&collector).len(), 3);

    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = hanging.local_addr().expect("an address");
    let mut sidecar = Sidecar::start(app.address, &rules(address, "sample = 1")).await;
    Client::new(sidecar.address).get("/v/1", &[]).await;
    timeout(Duration::from_secs(15), sidecar.stop()).await.expect("it stops all the same");
}

/// 795. What is no collector is refused in words; no message holds a password.
#[test]
fn r795_an_endpoint_that_cannot_be_meant_is_told() {
    let shown = |endpoint: &str| {
        let file = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[trace]\nendpoint = \"{endpoint}\"\n{ROUTE}"
        );
        let output = check(&file);
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout),
        )
    };
    for (endpoint, words) in [
        ("https://collector:4318", "not sent by https"),
        ("collector:4318", "not http"),
        ("http://me:hunter2@collector:4318", "user or password"),
        ("http://collector:4318/?key=1", "query"),
    ] {
        let (accepted, text) = shown(endpoint);
        assert!(!accepted && text.contains(words), "{endpoint}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for (endpoint, words) in [
        ("http://collector:4318/v1/traces", "added anyway"),
        ("http://collector:4318/otlp", "below it"),
        ("http://collector:4317", "gRPC"),
        ("${NO_SUCH_COLLECTOR:-}", "nothing is traced"),
    ] {
        let (_, text) = shown(endpoint);
        assert!(text.contains(words), "{endpoint}: {text}");
    }
    let (accepted, text) = shown("http://127.0.0.1:4318");
    assert!(accepted && !text.contains("endpoint"), "{text}");
}
