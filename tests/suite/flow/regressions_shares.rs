//! Numbered regressions of what one client can take from the others: connections, places among
//! writes, bytes of the origin, time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, Origin, Point, Response, Scene, Sidecar, eventually, http1, metric};

const SECOND: Duration = Duration::from_secs(1);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 6, 66);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// Pauses of a fifth of a second are enough, so that tests need not wait for longer ones.
const STALL: &str = "[limits]\nstall = \"200ms\"\n";
const ROUTE: &str = "[[routes]]\npath = \"/v/{name}\"\nttl = \"5m\"\nscope = \"public\"\n";

async fn connect(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).expect("the loopback has a free port");
    socket.connect(address).await.expect("the address accepts connections")
}

/// Sends these bytes and keeps the connection.
async fn begun(from: Ipv4Addr, address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = connect(from, address).await;
    let _ = stream.write_all(bytes.as_bytes()).await;
    stream
}

/// The status of the response to this request, on a connection of its own; 0 if there is none.
async fn status(from: Ipv4Addr, address: SocketAddr, request: &str) -> u16 {
    let mut stream = begun(from, address, request).await;
    let mut bytes = Vec::new();
    while http1::head_length(&bytes).is_none() {
        match timeout(10 * SECOND, stream.read_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
    http1::status(&bytes)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")
}

fn post(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: app.test\r\n{fields}Content-Length: 2\r\n\r\n{{}}")
}

/// The beginning of an upload that never goes on.
fn paused(fields: &str) -> String {
    format!("POST /up HTTP/1.1\r\nHost: app.test\r\n{fields}Content-Length: 1000000\r\n\r\nx")
}

fn app() -> impl Fn(&crate::support::Request) -> Response + Send + Sync {
    |_| Response::ok("data")
}

/// Waits until so many connections to the origin are open.
async fn until_open(scene: &Scene, count: u64) {
    let admin = scene.sidecar.admin;
    eventually("the attack holds everything", 10 * SECOND, || async move {
        metric(admin, "sidecache_upstream_open").await >= count
    })
    .await;
}

/// 580. A few paused uploads of one client held all connections to the origin, and every miss of
///      the others was a 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r580_paused_uploads_leave_connections_to_the_origin_for_others() {
    let more = [("[upstream]", "max_connections = 4")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), app()).await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for _ in 0..12 {
        attack.push(begun(ATTACKER, address, &paused("")).await);
    }
    until_open(&scene, 4).await;
    for number in 0..6 {
        let since = Instant::now();
        let path = format!("/v/{number}");
        assert_eq!(status(HONEST, address, &get(&path, "")).await, 200, "{path}");
        assert!(since.elapsed() < 2 * SECOND, "{path} took {:?}", since.elapsed());
    }
    let cuts = "sidecache_share_cuts_total{limit=\"upstream.max_connections\"}";
    assert!(metric(scene.sidecar.admin, cuts).await > 0);
}

/// 581. The same of places among writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r581_paused_uploads_leave_places_among_writes_for_others() {
    let limits = format!("{ROUTE}{STALL}mutations = 4\n");
    let scene = Scene::start(&limits, app()).await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for _ in 0..12 {
        attack.push(begun(ATTACKER, address, &paused("")).await);
    }
    until_open(&scene, 4).await;
    for _ in 0..6 {
        assert_eq!(status(HONEST, address, &post("/w", "")).await, 200);
    }
    let cuts = "sidecache_share_cuts_total{limit=\"limits.mutations\"}";
    assert!(metric(scene.sidecar.admin, cuts).await > 0);
}

/// 582. Idle connections of one client, and such that never end their request's head, kept all
///      others out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r582_idle_connections_make_room_for_others() {
    let more = [("[listen]", "max_connections = 8")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), app()).await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for number in 0..8 {
        let bytes = if number % 2 == 0 { "" } else { "GET /v/a HTTP/1.1\r\nHost:" };
        attack.push(begun(ATTACKER, address, bytes).await);
    }
    sleep(SECOND / 5).await;
    for number in 0..10 {
        assert_eq!(status(HONEST, address, &get("/v/a", "")).await, 200, "request {number}");
    }
    // One peer alone gets no more than it had: it is refused at once.
    let more = [("[listen]", "max_connections = 2")];
    let scene = Scene::start_with(&more, ROUTE, app()).await;
    let address = scene.sidecar.address;
    // Neither what the start of the test has connected nor a request that asks may take their places.
    let admin = scene.sidecar.admin;
    let open = async || metric(admin, "sidecache_connections_open").await;
    eventually("nobody is there", 5 * SECOND, async || open().await == 0).await;
    let _held = [begun(ATTACKER, address, "").await, begun(ATTACKER, address, "").await];
    eventually("the connections are accepted", 5 * SECOND, async || open().await == 2).await;
    let since = Instant::now();
    assert_eq!(status(ATTACKER, address, &get("/v/a", "")).await, 503);
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
}

/// 583. Connections whose clients neither send nor read kept all others out as well. One whose
///      request is being worked on is never closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r583_stuck_connections_make_room_and_busy_ones_do_not() {
    let more = [("[listen]", "max_connections = 6")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), |request| {
        let size = if request.path == "/v/big" { 8_000_000 } else { 4 };
        Response::ok(vec![b'x'; size])
    })
    .await;
    let address = scene.sidecar.address;
    let hold = scene.hold("GET", "/v/slow", Point::Before);
    let mut busy = begun(ATTACKER, address, &get("/v/slow", "")).await;
    hold.arrived().await;
    let mut attack = Vec::new();
    for number in 0..5 {
        let bytes = if number % 2 == 0 { get("/v/big", "") } else { paused("") };
        attack.push(begun(ATTACKER, address, &bytes).await);
    }
    sleep(SECOND / 2).await;
    for _ in 0..2 {
        assert_eq!(status(HONEST, address, &get("/v/a", "")).await, 200);
    }
    hold.release();
    let mut bytes = vec![0; 12];
    busy.read_exact(&mut bytes).await.expect("its response comes");
    assert_eq!(bytes, b"HTTP/1.1 200");
}

/// 584. Responses that one client did not read held all connections to the origin, over HTTP/2
///      without any limit of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r584_unread_responses_leave_connections_for_others() {
    let more = [("[upstream]", "max_connections = 4")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), |request| {
        let size = if request.path == "/big" { 8_000_000 } else { 4 };
        Response::ok(vec![b'x'; size])
    })
    .await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for _ in 0..6 {
        attack.push(begun(ATTACKER, address, &get("/big", "")).await);
    }
    until_open(&scene, 4).await;
    for number in 0..4 {
        let path = format!("/v/{number}");
        assert_eq!(status(HONEST, address, &get(&path, "")).await, 200, "{path}");
    }
}

/// 585. Behind a trusted proxy each client has a share of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r585_clients_behind_a_trusted_proxy_have_shares_of_their_own() {
    let more = [
        ("[upstream]", "max_connections = 4"),
        ("[listen]", "trusted_proxies = [\"127.0.0.0/8\"]"),
    ];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), app()).await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for number in 0..12 {
        // All of them are of one customer.
        let from = format!("X-Forwarded-For: 2001:db8:1:2::{number:x}\r\n");
        attack.push(begun(HONEST, address, &paused(&from)).await);
    }
    until_open(&scene, 4).await;
    for number in 0..4 {
        let request = get(&format!("/v/{number}"), "X-Forwarded-For: 192.0.2.7\r\n");
        assert_eq!(status(HONEST, address, &request).await, 200);
    }
}

/// 586. A share binds only while another address waits: one proxy that is not trusted may use
///      everything, and nothing of it is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r586_one_address_alone_may_hold_everything() {
    let more = [("[upstream]", "max_connections = 4\nwait_timeout = \"600ms\"")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), app()).await;
    let address = scene.sidecar.address;
    let mut uploads = Vec::new();
    for _ in 0..4 {
        uploads.push(begun(HONEST, address, &paused("")).await);
    }
    until_open(&scene, 4).await;
    assert_eq!(status(HONEST, address, &get("/v/a", "")).await, 503, "as before");
    let rest = "x".repeat(999_999);
    for upload in &mut uploads {
        upload.write_all(rest.as_bytes()).await.expect("the upload goes on");
        let mut bytes = vec![0; 12];
        upload.read_exact(&mut bytes).await.expect("its response comes");
        assert_eq!(bytes, b"HTTP/1.1 200");
    }
}

/// 587. One byte each of a hundred objects made the origin send all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r587_parts_cost_the_origin_a_factor_of_what_was_received() {
    const SIZE: usize = 100_000;
    let rules = format!("{ROUTE}[limits]\nrange_fill = \"100000B\"\n");
    let scene = Scene::start(&rules, |request| match request.header("range") {
        Some(_) => Response::status(206, "x")
            .header("content-range", &format!("bytes 0-0/{SIZE}"))
            .header("etag", "\"1\""),
        None => Response::ok(vec![b'x'; SIZE]).header("etag", "\"1\""),
    })
    .await;
    for number in 0..100 {
        let reply = scene.ask(&format!("/v/{number}"), &[("range", "bytes=0-0")]).await;
        assert_eq!(reply.status, 206);
    }
    sleep(SECOND / 2).await;
    let whole =
        scene.origin.requests().iter().filter(|seen| seen.header("range").is_none()).count();
    assert!((1..=4).contains(&whole), "{whole} of 100 objects were sent whole");
    let refused = "sidecache_limit_reached_total{limit=\"limits.range_factor\"}";
    assert_eq!(metric(scene.sidecar.admin, refused).await, 100 - whole as u64);
}

/// 588. An origin that sends interim responses without end held up the hits of all others for more
///      than a second, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r588_a_flood_of_interim_responses_ends_with_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
    let address = listener.local_addr().expect("it is bound");
    let app = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(flood(stream));
        }
    });
    let sidecar = Sidecar::start(address, ROUTE).await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.get("/v/a", &[]).await.status, 200);
    let attack: Vec<_> = (0..8)
        .map(|number| {
            let address = sidecar.address;
            tokio::spawn(async move {
                Client::new(address).get(&format!("/v/flood{number}"), &[]).await
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let since = Instant::now();
        assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
        slowest = slowest.max(since.elapsed());
    }
    for attack in attack {
        let reply = timeout(10 * SECOND, attack).await.expect("it ends").expect("no panic");
        assert_eq!(reply.status, 502);
        let detail = reply.header("cache-status").to_owned();
        assert!(detail.contains("too many interim responses"), "{detail}");
    }
    assert!(slowest < SECOND / 2, "a hit took {slowest:?}");
    let reached = "sidecache_limit_reached_total{limit=\"upstream.max_interim_bytes\"}";
    assert!(metric(sidecar.admin, reached).await >= 8);
    app.abort();
}

async fn flood(mut stream: TcpStream) {
    loop {
        let mut request = Vec::new();
        while http1::head_length(&request).is_none() {
            let Ok(1..) = stream.read_buf(&mut request).await else { return };
        }
        if String::from_utf8_lossy(&request).contains("flood") {
            let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(10_000);
            while stream.write_all(interim.as_bytes()).await.is_ok() {}
            return;
        }
        let response =
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let _ = stream.write_all(response.as_bytes()).await;
    }
}

/// 589. `/ready` told whoever asked the addresses and lines of an operator's file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r589_strangers_learn_the_state_and_not_its_reasons() {
    const TOKEN: &str = "a-token-of-sixteen-characters";
    let app = Origin::start(app());
    let sidecar = Sidecar::start_with_token(app.address, ROUTE, TOKEN).await;
    std::fs::write(&sidecar.file, "nonsense = 1\n").expect("the file can be written");
    let mut operator = Client::of_admin(sidecar.admin);
    let token = [("x-sidecache-token", TOKEN), ("content-type", "application/json")];
    operator.send("POST", "/reload", &token, "{}").await;
    let told = operator.get("/ready", &token).await;
    assert!(told.text().contains("proxy.toml"), "{}", told.text());
    let stranger = sidecar.admin_get("/ready").await;
    assert_eq!(stranger.text().trim(), "{\"reasons\":[],\"status\":\"degraded\"}");
}

/// 590. Over HTTP/2 a client that grants no window held connections to the origin without any limit
///      of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r590_streams_without_a_window_leave_connections_for_others() {
    let more = [("[upstream]", "max_connections = 4")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), |request| {
        let size = if request.path == "/big" { 8_000_000 } else { 4 };
        Response::ok(vec![b'x'; size])
    })
    .await;
    let address = scene.sidecar.address;
    let io = TokioIo::new(connect(ATTACKER, address).await);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (sender, connection) = builder.handshake(io).await.expect("it speaks HTTP/2");
    let driver = tokio::spawn(async move { drop(connection.await) });
    let mut streams = Vec::new();
    for _ in 0..8 {
        let request = Request::get("http://app.test/big").body(Empty::<Bytes>::new());
        let mut sender = sender.clone();
        streams.push(tokio::spawn(async move {
            let response = sender.send_request(request.expect("a well-formed request")).await;
            // The response is kept, and not read.
            sleep(60 * SECOND).await;
            drop(response);
        }));
    }
    until_open(&scene, 4).await;
    for number in 0..4 {
        let path = format!("/v/{number}");
        assert_eq!(status(HONEST, address, &get(&path, "")).await, 200, "{path}");
    }
    for stream in streams {
        stream.abort();
    }
    driver.abort();
}

/// 591. A byte now and then is no progress: uploads that drip held everything as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r591_uploads_that_drip_leave_connections_for_others() {
    let more = [("[upstream]", "max_connections = 4")];
    let scene = Scene::start_with(&more, &format!("{ROUTE}{STALL}"), app()).await;
    let address = scene.sidecar.address;
    let mut attack = Vec::new();
    for _ in 0..12 {
        let mut stream = begun(ATTACKER, address, &paused("")).await;
        attack.push(tokio::spawn(async move {
            while stream.write_all(b"x").await.is_ok() {
                sleep(SECOND / 20).await;
            }
        }));
    }
    until_open(&scene, 4).await;
    for number in 0..6 {
        let path = format!("/v/{number}");
        assert_eq!(status(HONEST, address, &get(&path, "")).await, 200, "{path}");
    }
    for task in attack {
        task.abort();
    }
}
