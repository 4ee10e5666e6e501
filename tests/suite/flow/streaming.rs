//! Responses that are not cached are streamed as they arrive: large files in constant memory,
//! sockets, server-sent events.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::demo::demo;
use crate::support::{Client, Origin, Sidecar, origin};

const MIB: u64 = 1024 * 1024;
/// One route, so that there is a cache: none of these requests is its business.
const RULES: &str =
    "[[routes]]\npath = \"/api/v1/property-areas\"\nttl = \"5m\"\nscope = \"public\"\n";

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a body to its end, giving each piece to `each`; returns its length and SHA-256.
async fn drain(mut body: Incoming, each: Option<mpsc::Sender<Bytes>>) -> (u64, String) {
    let (mut length, mut digest) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.expect("the body is whole").into_data() else { continue };
        length += data.len() as u64;
        digest.update(&data);
        if let Some(each) = &each {
            each.send(data).await.expect("the upload goes on");
        }
    }
    (length, hex(&digest.finalize()))
}

async fn download(address: SocketAddr, size: u64) -> Response<Incoming> {
    let response = Client::new(address)
        .open("GET", &format!("/files/film?size={size}"), &[], "")
        .await
        .expect("the download begins");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-length"], size.to_string().as_str());
    response
}

/// Sends what comes out of the channel as a body, and returns the origin's JSON.
async fn upload(address: SocketAddr, mut pieces: mpsc::Receiver<Bytes>) -> serde_json::Value {
    let pieces = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    let reply = Client::new(address).upload("POST", "/files/film", pieces).await;
    assert_eq!(reply.status, 201);
    reply.json()
}

/// The most memory that the child took while this watched it.
fn watch(
    pid_of: impl Fn() -> u64 + Send + 'static,
) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<u64>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut most = 0;
        while let Err(tokio::sync::oneshot::error::TryRecvError::Empty) = stopped.try_recv() {
            most = most.max(pid_of());
            sleep(Duration::from_millis(20)).await;
        }
        most
    });
    (stop, task)
}

async fn large_files_pass(size: u64) {
    let (app, _stats) = demo().await;
    let sidecar = Sidecar::spawn(app, RULES).await;
    let (_, expected) = drain(download(app, size).await.into_body(), None).await;
    let before = sidecar.resident();
    let pid = sidecar.pid();
    let (stop, most) = watch(move || crate::support::process::resident(pid));

    // Down through the sidecar, and what comes goes up through it again.
    let (sender, receiver) = mpsc::channel(4);
    let up = tokio::spawn(upload(sidecar.address, receiver));
    let (length, digest) =
        drain(download(sidecar.address, size).await.into_body(), Some(sender)).await;
    assert_eq!((length, &digest), (size, &expected), "the download is what the app sent");
    let answer = up.await.expect("the upload is answered");
    assert_eq!(
        (answer["bytes"].as_u64(), answer["sha256"].as_str()),
        (Some(size), Some(expected.as_str())),
        "the app got what was sent"
    );

    let _ = stop.send(());
    let most = most.await.expect("the child lived");
    assert!(most < before + 32 * MIB, "memory grew from {} to {} MiB", before / MIB, most / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_pass_both_ways_with_flat_memory() {
    large_files_pass(100 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_gibibyte_passes_both_ways_with_flat_memory() {
    large_files_pass(1024 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_stops_holds_the_app_back_and_not_the_memory() {
    let (app, _stats) = demo().await;
    let sidecar = Sidecar::spawn(app, RULES).await;
    let before = sidecar.resident();
    let response = download(sidecar.address, 1024 * MIB).await;
    // Long enough to take in the whole of it, if nothing held the origin back.
    sleep(Duration::from_secs(2)).await;
    let after = sidecar.resident();
    assert!(
        after < before + 32 * MIB,
        "memory grew from {} to {} MiB for a reader that reads nothing",
        before / MIB,
        after / MIB
    );
    drop(response);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_echoes_through() {
    let (app, _stats) = demo().await;
    let sidecar = Sidecar::start(app, RULES).await;
    let stream =
        TcpStream::connect(sidecar.address).await.expect("the sidecar accepts connections");
    let (mut socket, response) = tokio_tungstenite::client_async("ws://app.test/ws", stream)
        .await
        .expect("the upgrade is granted");
    assert_eq!(response.status(), 101);
    for length in [0, 1, 125, 126, 70_000, 1_000_000] {
        let sent = Message::binary(vec![7; length]);
        socket.send(sent.clone()).await.expect("the tunnel takes it");
        let received = timeout(Duration::from_secs(10), socket.next())
            .await
            .expect("the echo comes")
            .expect("the tunnel is open");
        assert_eq!(received.expect("a whole message"), sent, "{length} bytes");
    }
    socket.send(Message::text("hello")).await.expect("the tunnel takes it");
    assert_eq!(
        socket.next().await.expect("the tunnel is open").expect("a whole message"),
        Message::text("hello")
    );
    socket.close(None).await.expect("the tunnel takes it");
    let end =
        timeout(Duration::from_secs(10), async { while let Some(Ok(_)) = socket.next().await {} })
            .await;
    assert!(end.is_ok(), "the tunnel closes when both ends have");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_that_the_app_refuses_stays_http() {
    let (app, _stats) = demo().await;
    let sidecar = Sidecar::start(app, RULES).await;
    let mut client = Client::new(sidecar.address);
    // Version 8 is none that the app speaks.
    let asks = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    assert_eq!(client.get("/ws", &asks).await.status, 426);
    assert_eq!(client.get("/healthz", &[]).await.text(), "ok\n");
}

/// Reads events until one contains `text`, and returns it.
async fn event(body: &mut Incoming, text: &str) -> String {
    loop {
        let frame = timeout(Duration::from_secs(10), body.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("no event with {text}"));
        let data = frame.expect("the stream has no end").expect("the stream is whole");
        let event = String::from_utf8_lossy(&data.into_data().expect("no trailers")).into_owned();
        if event.contains(text) {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_arrive_as_they_are_sent() {
    let (app, _stats) = demo().await;
    let sidecar = Sidecar::start(app, RULES).await;
    let who = [("x-tenant-id", "acme"), ("authorization", "Bearer alice-1")];
    let response = Client::new(sidecar.address)
        .open("GET", "/api/v1/events", &who, "")
        .await
        .expect("the stream begins");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    event(&mut body, "\"tick\":1").await;
    let put = Client::new(sidecar.address)
        .send("PUT", "/api/v1/campaigns/1", &who, r#"{"name":"sale"}"#)
        .await;
    assert_eq!(put.status, 200, "{}", put.text());
    let text = event(&mut body, "event: write").await;
    assert!(text.contains("\"id\":1"), "{text}");
    event(&mut body, "\"tick\":3").await;

    // And each by itself: the next one is sent when the one before has arrived.
    for path in ["/events", "/api/v1/property-areas"] {
        let gates: [CancellationToken; 3] = Default::default();
        let origin = Origin::start({
            let gates = gates.clone();
            move |_| {
                let begun = origin::Response::new().chunked("Content-Type: text/event-stream\r\n");
                gates.iter().enumerate().fold(begun, |response, (number, gate)| {
                    response.piece(format!("data: {number}\n\n").as_bytes()).until(gate)
                })
            }
        });
        let sidecar = Sidecar::start(origin.address, RULES).await;
        let response = Client::new(sidecar.address).open("GET", path, &[], "").await;
        let mut body = response.expect("the stream begins").into_body();
        for (number, gate) in gates.iter().enumerate() {
            assert_eq!(event(&mut body, "data").await, format!("data: {number}\n\n"), "{path}");
            gate.cancel();
        }
    }
}
