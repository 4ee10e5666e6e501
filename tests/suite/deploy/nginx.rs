//! A real nginx with `deploy/nginx/sidecache.conf` in front of the real binary: the tour, streams,
//! and what happens when the sidecar goes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::child::ChildSidecar;
use crate::support::demo::demo;
use crate::support::nginx::Nginx;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::process::free_port;
use crate::support::scene::date;
use crate::support::{Client, Origin, Point, eventually};
use crate::{app, guide};

const LONG_ENOUGH: Duration = Duration::from_secs(10);
const ALICE: [(&str, &str); 2] = [("x-tenant-id", "acme"), ("authorization", "Bearer alice-0001")];
const MIB: usize = 1024 * 1024;

/// nginx, the sidecar, and the demo's app.
struct Front {
    nginx: Nginx,
    sidecar: ChildSidecar,
    stats: app::Stats,
}

/// The shipped rules, with the line that the README of `deploy/nginx` adds.
async fn front() -> Front {
    let (app_address, stats) = demo().await;

    let [address, admin] =
        [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let shipped = include_str!("../../../proxy.toml");
    let text = shipped
        .replace("127.0.0.1:8080", &address.to_string())
        .replace("127.0.0.1:8000", &app_address.to_string())
        .replace("127.0.0.1:9090", &admin.to_string())
        .replace("[listen]\n", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let sidecar = ChildSidecar::spawn_file(address, &text).await;
    Front { nginx: Nginx::start(address, app_address).await, sidecar, stats }
}

/// nginx and a sidecar with these rules, which believes nginx, in front of any app.
async fn front_of(app: SocketAddr, rules: &str) -> (Nginx, ChildSidecar) {
    let [address, admin] =
        [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let text = format!(
        "[listen]\naddress = \"{address}\"\ntrusted_proxies = [\"127.0.0.1\"]\n[upstream]\nurl = \
        \"http://{app}\"\n[admin]\naddress = \"{admin}\"\n{rules}"
    );
    let sidecar = ChildSidecar::spawn_file(address, &text).await;
    (Nginx::start(address, app).await, sidecar)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_the_tour_passes_through_nginx() {
    let front = front().await;
    let mut client = Client::new(front.nginx.address);
    let mut asked = 0;
    for (number, step) in guide::STEPS.iter().enumerate() {
        let authorization = step.token.map(|token| format!("Bearer {token}"));
        let mut headers = Vec::new();
        headers.extend(step.tenant.map(|tenant| ("x-tenant-id", tenant)));
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(step.body.map(|_| ("content-type", "application/json")));
        headers.extend([("user-agent", "curl/8.0"), ("accept", "*/*")]);
        let reply =
            client.send(step.method, step.path, &headers, step.body.unwrap_or_default()).await;
        let context =
            format!("step {number}, {}: {} {}", step.title, reply.cache_status(), reply.text());
        assert_eq!((reply.status, reply.cache()), (step.status, step.cache), "{context}");
        assert!(reply.text().contains(step.contains), "{context}");
        // A refused fill is repeated as a pass.
        asked += if step.status == 401 { 2 } else { u64::from(step.cache != "HIT") };
    }
    assert_eq!(
        front.stats.snapshot().values().sum::<u64>(),
        asked,
        "hits do not reach the app, all else does once, and a refusal twice"
    );
    // The log tells who answered. nginx writes a line when the response has gone out.
    let sidecar = format!("upstream={} ", front.sidecar.address);
    let lines = || front.nginx.log().lines().filter(|line| line.contains(&sidecar)).count();
    eventually("each request has its line", LONG_ENOUGH, async || lines() == guide::STEPS.len())
        .await;
    let log = front.nginx.log();
    assert!(log.contains("cache=HIT") && log.contains("cache=BYPASS"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_keeps_the_date_at_which_it_was_made() {
    let app = Origin::start(versioned());
    let (nginx, _sidecar) = front_of(app.address, VERSIONED_RULES).await;
    let mut client = Client::new(nginx.address);
    let made = client.get("/v/a", &[]).await;
    assert_eq!(made.cache(), "MISS");
    assert_ne!(made.header("date"), "");
    // nginx's own clock, had it the last word, would have moved on.
    eventually("the second is over", LONG_ENOUGH, async || date(0) != made.header("date")).await;
    let hit = client.get("/v/a", &[]).await;
    assert_eq!((hit.cache(), hit.header("date")), ("HIT", made.header("date")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_lines_of_nginx_are_enough_for_a_hit() {
    let app = Origin::start(versioned());
    let (_, sidecar) = front_of(app.address, VERSIONED_RULES).await;
    let nginx = Nginx::start_in_ten_lines(sidecar.address).await;
    let mut client = Client::new(nginx.address);
    for expected in ["MISS", "HIT"] {
        let reply = client.get("/v/a", &[("x-forwarded-for", "192.0.2.1")]).await;
        assert_eq!((reply.status, reply.cache()), (200, expected), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_alone_says_who_the_client_is() {
    let app = Origin::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let (nginx, _sidecar) = front_of(app.address, "").await;
    let forged = [
        ("x-forwarded-for", "198.51.100.66"),
        ("x-real-ip", "198.51.100.66"),
        ("forwarded", "for=198.51.100.66"),
        ("x-forwarded-proto", "forged"),
        ("x-forwarded-host", "forged.example"),
        ("x-forwarded-port", "forged"),
        ("x-forwarded-prefix", "/forged"),
        ("x-forwarded-scheme", "forged"),
        ("x-forwarded-ssl", "forged"),
    ];
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(Client::new(nginx.address).send(method, "/who", &forged, "").await.status, 200);
    }
    let received = String::from_utf8_lossy(&app.received()).to_lowercase();
    assert_eq!(
        received.matches("x-forwarded-for: 127.0.0.1, 127.0.0.1\r\n").count(),
        3,
        "{received}"
    );
    assert_eq!(
        received.matches("host: app.test\r\n").count(),
        6,
        "Host, and X-Forwarded-Host: {received}"
    );
    assert_eq!(received.matches("x-forwarded-proto: http\r\n").count(), 3, "{received}");
    assert!(!received.contains("198.51.100.66") && !received.contains("forged"), "{received}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_echoes_through_nginx() {
    let front = front().await;
    let stream = TcpStream::connect(front.nginx.address).await.expect("nginx accepts connections");
    let (mut socket, response) = tokio_tungstenite::client_async("ws://app.test/ws", stream)
        .await
        .expect("the upgrade is granted");
    assert_eq!(response.status(), 101);
    for length in [0, 125, 70_000, 1_000_000] {
        let sent = Message::binary(vec![7; length]);
        socket.send(sent.clone()).await.expect("the tunnel takes it");
        let received = timeout(LONG_ENOUGH, socket.next())
            .await
            .expect("the echo comes")
            .expect("the tunnel is open");
        assert_eq!(received.expect("a whole message"), sent, "{length} bytes");
    }
    let opened = front.stats.snapshot();
    assert_eq!(opened.get(&("GET".to_owned(), "/ws".to_owned())), Some(&1), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_as_they_are_sent() {
    let front = front().await;
    // As a browser asks for them, and as anybody else does.
    for accept in ["text/event-stream", "*/*"] {
        let headers = [ALICE[0], ALICE[1], ("accept", accept)];
        let mut events = Client::new(front.nginx.address)
            .open("GET", "/api/v1/events", &headers, "")
            .await
            .expect("an answer");
        assert_eq!(events.status(), 200);
        let path = "/api/v1/forms/1";
        let written = Client::new(front.nginx.address)
            .send("PATCH", path, &ALICE, r#"{"title":"new"}"#)
            .await;
        assert_eq!(written.status, 200, "{}", written.text());
        let mut text = String::new();
        while !text.contains("PATCH") {
            let frame = timeout(LONG_ENOUGH, events.frame())
                .await
                .expect("an event in time")
                .expect("no end")
                .expect("no break");
            text.push_str(&String::from_utf8_lossy(frame.data_ref().expect("events are data")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_downloads_of_any_size_stream() {
    let front = front().await;
    let mut client = Client::new(front.nginx.address);
    // Larger than any buffer of nginx, and than the 1 MiB it allows by itself.
    let sent = client.send("POST", "/files/zeros", &[], vec![0; 32 * MIB]).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
    assert!(sent.text().contains(&(32 * MIB).to_string()), "{}", sent.text());
    assert!(!front.nginx.has_spooled(), "an upload goes on while it arrives");
    // What nginx would repeat by itself is read first; the app has no use for it.
    assert_eq!(client.send("PUT", "/files/zeros", &[], vec![0; MIB]).await.status, 405);
    assert!(front.nginx.has_spooled());
    let film = client.get(&format!("/files/film?size={}", 64 * MIB), &[]).await;
    assert_eq!((film.status, film.body.len()), (200, 64 * MIB));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_sidecar_the_app_answers_itself() {
    let mut front = front().await;
    let mut client = Client::new(front.nginx.address);
    assert_eq!(client.get("/api/v1/campaigns/1", &ALICE).await.cache(), "MISS");
    assert_eq!(client.get("/api/v1/campaigns/1", &ALICE).await.cache(), "HIT");
    front.sidecar.kill();
    let before = front.stats.snapshot();
    let calls = [
        ("GET", "/api/v1/campaigns/1", ""),
        ("POST", "/api/v1/campaigns", r#"{"name":"x"}"#),
        ("PUT", "/api/v1/campaigns/1", r#"{"name":"y"}"#),
        ("PATCH", "/api/v1/campaigns/1", r#"{"name":"z"}"#),
        ("DELETE", "/api/v1/campaigns/1", ""),
    ];
    for (method, path, body) in calls {
        let reply = client.send(method, path, &ALICE, body).await;
        assert!((200..300).contains(&reply.status), "{method}: {} {}", reply.status, reply.text());
        assert_eq!(reply.cache(), "", "the app itself");
        let place = (method.to_owned(), path.to_owned());
        let count = front.stats.snapshot().get(&place).copied().unwrap_or(0)
            - before.get(&place).copied().unwrap_or(0);
        assert_eq!(count, 1, "{method} reaches the app once");
    }
    // The upload that streams, with nobody there to stream it to.
    let sent = client.send("POST", "/files/zeros", &[], vec![0; 8 * MIB]).await;
    assert!(sent.text().contains(&(8 * MIB).to_string()), "{} {}", sent.status, sent.text());

    // Back again: the very next request goes through it.
    front.sidecar.restart().await;
    assert_eq!(client.get("/api/v1/campaigns/2", &ALICE).await.cache(), "MISS");
    assert_eq!(client.get("/api/v1/campaigns/2", &ALICE).await.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_the_sidecar_had_is_not_sent_again() {
    for method in ["POST", "PATCH", "PUT", "DELETE", "MERGE"] {
        for body in [Vec::new(), vec![b'x'; 10], vec![b'x'; MIB]] {
            let app = Origin::start(versioned());
            let (nginx, mut sidecar) = front_of(app.address, VERSIONED_RULES).await;
            let hold = app.hold(method, "/w/a", Point::After);
            let (address, length) = (nginx.address, body.len());
            let asked =
                tokio::spawn(
                    async move { Client::new(address).send(method, "/w/a", &[], body).await },
                );
            hold.arrived().await;
            sidecar.kill();
            let reply = timeout(LONG_ENOUGH, asked)
                .await
                .expect("an answer in time")
                .expect("the client does not panic");
            assert_eq!(
                reply.status, 502,
                "{method} of {length} bytes: nobody knows what became of it"
            );
            hold.release();
            assert_eq!(app.count(method, "/w/a"), 1, "{method} of {length} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_that_the_sidecar_had_is_answered_by_the_app() {
    let app = Origin::start(versioned());
    let (nginx, mut sidecar) = front_of(app.address, VERSIONED_RULES).await;
    let hold = app.hold("GET", "/v/a", Point::Before);
    let address = nginx.address;
    let asked = tokio::spawn(async move { Client::new(address).get("/v/a", &[]).await });
    hold.arrived().await;
    sidecar.kill();
    hold.arrived().await;
    hold.release();
    let reply = timeout(LONG_ENOUGH, asked)
        .await
        .expect("an answer in time")
        .expect("the client does not panic");
    assert_eq!((reply.status, reply.cache(), app.count("GET", "/v/a")), (200, "", 2));
}

const READS: [(&str, &str); 3] = [("GET", "/v/a"), ("GET", "/v/b"), ("GET", "/elsewhere")];
const WRITES: [(&str, &str); 3] = [("POST", "/w/a"), ("PUT", "/w/b"), ("DELETE", "/w/c")];

/// Clients that read and write all the time, and what they were told.
struct Traffic {
    stop: Arc<AtomicBool>,
    past: Arc<AtomicU64>,
    clients: JoinSet<Vec<String>>,
}

impl Traffic {
    fn start(address: SocketAddr) -> Self {
        let (stop, past) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for (method, path) in READS.into_iter().chain(WRITES) {
            clients.spawn(one(address, method, path, Arc::clone(&stop), Arc::clone(&past)));
        }
        Self { stop, past, clients }
    }

    /// Returns when the app itself has answered this many more requests.
    async fn past_the_sidecar(&self, requests: u64) {
        let goal = self.past.load(Ordering::Relaxed) + requests;
        eventually("the app answers", LONG_ENOUGH, async || {
            self.past.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

async fn one(
    address: SocketAddr,
    method: &'static str,
    path: &'static str,
    stop: Arc<AtomicBool>,
    past: Arc<AtomicU64>,
) -> Vec<String> {
    let mut client = Client::new(address);
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match client.try_send(method, path, &[], "").await {
            Ok(reply) if reply.status == 200 => {
                past.fetch_add(u64::from(reply.cache().is_empty()), Ordering::Relaxed);
            }
            Ok(reply) => failures.push(format!("{method} {path}: {}", reply.status)),
            Err(error) => failures.push(format!("{method} {path}: {error}")),
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_midst_of_traffic_loses_nothing() {
    let app = Origin::start(versioned());
    let (nginx, mut sidecar) = front_of(app.address, VERSIONED_RULES).await;
    let hold = app.hold("PUT", "/w/held", Point::After);
    let address = nginx.address;
    let writing =
        tokio::spawn(async move { Client::new(address).send("PUT", "/w/held", &[], "").await });
    hold.arrived().await;
    let traffic = Traffic::start(nginx.address);
    eventually("the cache is in use", LONG_ENOUGH, async || {
        Client::new(address).get("/v/z", &[]).await.cache() == "HIT"
    })
    .await;

    sidecar.signal("TERM");
    traffic.past_the_sidecar(50).await;
    assert!(sidecar.ended().is_none(), "it waits for the write under way");
    hold.release();
    let reply = writing.await.expect("the client does not panic");
    assert_eq!(
        (reply.status, reply.cache()),
        (200, "BYPASS"),
        "the write under way ends as it began"
    );
    assert_eq!(sidecar.end(LONG_ENOUGH).await.code(), Some(0));
    traffic.past_the_sidecar(50).await;
    // Kept connections stay for what is on its way, so that not even a write is lost.
    let failures = traffic.end().await;
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(app.count("PUT", "/w/held"), 1);
}
