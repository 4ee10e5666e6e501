//! Numbered regressions of clients that leave: their requests keep no place at the app, what others
//! or the cache want goes on, and at the end everything is free again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecache::app::Clock;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::departures::{Numbers, get, leave_somehow, post, reset_somehow, websocket};
use crate::support::patient_app::{PatientApp, half_close, read, reset, sent};
use crate::support::{Client, Sidecar, eventually, http1, metric};

const SECOND: Duration = Duration::from_secs(1);
/// A place that is given up for need is so at once: far from the wait for a place.
const SOON: Duration = Duration::from_secs(8);
const ROUTE: &str = "[[routes]]\npath = \"/v/{*name}\"\nttl = \"5m\"\nscope = \"public\"\n";
/// For tests in which only need, or a reset, gives up.
const LONG: &str = "half_closed = \"1h\"";
/// Requests wait for a place for longer than any test takes.
const PATIENT: &str = "wait_timeout = \"10m\"";

async fn sidecar(app: &PatientApp, listen: &str, upstream: &str, rules: &str) -> Sidecar {
    let more = [("[listen]", listen), ("[upstream]", upstream)];
    Sidecar::start_with(Clock::system(), app.address, &more, rules).await
}

/// The status of the response to this request on a connection of its own.
async fn status(address: SocketAddr, request: &str) -> u16 {
    let mut stream =
        sent(address, &request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    http1::status(&read(&mut stream, 30 * SECOND).await)
}

/// Waits until a metric has this value.
async fn until(admin: SocketAddr, name: &str, value: u64) {
    eventually(&format!("{name} is {value}"), 20 * SECOND, || async {
        metric(admin, name).await == value
    })
    .await;
}

/// Waits until all is over: nothing is open, waits, or is in flight, and all places are free.
async fn until_empty(app: &PatientApp, sidecar: &Sidecar, places: usize) {
    let admin = sidecar.admin;
    for gauge in [
        "sidecache_connections_open",
        "sidecache_upstream_waiting",
        "sidecache_upstream_tunnels",
        "sidecache_fills_in_flight",
        "sidecache_fill_waiters",
    ] {
        until(admin, gauge, 0).await;
    }
    eventually("only idle connections to the app are open", 20 * SECOND, || async {
        metric(admin, "sidecache_upstream_open").await
            == metric(admin, "sidecache_upstream_idle").await
    })
    .await;
    // As many as there are places, at once.
    let line = "/never/place";
    let before = app.begun(&format!("GET {line}"));
    let mut held = Vec::new();
    for _ in 0..places {
        held.push(sent(sidecar.address, &get(line)).await);
    }
    app.reached(&format!("GET {line}"), before + places).await;
    held.into_iter().for_each(reset);
    until(admin, "sidecache_connections_open", 0).await;
}

/// 680. GETs whose clients had closed kept all places at the app until the app answered, and other
///      clients got 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r680_a_get_whose_client_has_closed_gives_its_place_to_who_waits() {
    let app = PatientApp::start().await;
    for request in ["GET /never", "HEAD /never", "OPTIONS /never"] {
        let sidecar = sidecar(&app, LONG, "max_connections = 4", ROUTE).await;
        for _ in 0..4 {
            let line = format!("{request} HTTP/1.1\r\nHost: app.test\r\n\r\n");
            drop(sent(sidecar.address, &line).await);
        }
        eventually("all places are taken", 10 * SECOND, || async {
            metric(sidecar.admin, "sidecache_upstream_open").await == 4
        })
        .await;
        for number in 0..4 {
            let path = format!("/quick/{number}");
            assert_eq!(status(sidecar.address, &get(&path)).await, 200, "{request} {path}");
        }
        let departed = "sidecache_share_departed_total{limit=\"upstream.max_connections\"}";
        let given_up = metric(sidecar.admin, departed).await;
        assert!(given_up >= 1, "{request}");
        assert_eq!(metric(sidecar.admin, "sidecache_requests_abandoned_total").await, given_up);
    }
}

/// 681. The same where nobody waits: after `half_closed`, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r681_a_get_whose_client_has_closed_ends_after_half_closed() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "half_closed = \"300ms\"", "max_connections = 4", ROUTE).await;
    let admin = sidecar.admin;
    let mut stays = sent(sidecar.address, &get("/never/stays")).await;
    let since = Instant::now();
    let mut gone = sent(sidecar.address, &get("/never/gone")).await;
    app.reached("GET /never/gone", 1).await;
    half_close(&mut gone).await;
    assert_eq!(read(&mut gone, 10 * SECOND).await, b"", "it gets no response");
    assert!(since.elapsed() >= Duration::from_millis(300) && since.elapsed() < SOON);
    until(admin, "sidecache_upstream_open", 1).await;
    until(admin, "sidecache_limit_reached_total{limit=\"listen.half_closed\"}", 1).await;
    assert_eq!(read(&mut stays, SECOND / 2).await, b"", "it waits");
    until(admin, "sidecache_upstream_open", 1).await;
}

/// 682. A reset was noticed only after five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r682_a_reset_frees_its_place_at_once() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, LONG, "max_connections = 2", ROUTE).await;
    let admin = sidecar.admin;
    for (path, more) in [("/never", ""), ("/events", ""), ("/never", "more")] {
        let mut stream = sent(sidecar.address, &get(path)).await;
        eventually("the app works on it", 10 * SECOND, || async {
            metric(admin, "sidecache_upstream_open").await == 1
        })
        .await;
        if !more.is_empty() {
            // A request that is pipelined after it waits in the socket.
            sleep(SECOND / 5).await;
            stream.write_all(get("/quick").as_bytes()).await.expect("the connection is open");
            sleep(SECOND / 5).await;
        }
        let since = Instant::now();
        reset(stream);
        eventually("the place is free", 20 * SECOND, || async {
            metric(admin, "sidecache_upstream_open").await == 0
        })
        .await;
        assert!(since.elapsed() < 3 * SECOND, "{path}{more} took {:?}", since.elapsed());
    }
}

/// 683. Who closes its own half and reads on is served, a body that takes long as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r683_a_half_closed_client_that_reads_is_served() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "half_closed = \"2s\"", "max_connections = 8", ROUTE).await;
    for (path, end) in [("/late", "data"), ("/drip", "0\r\n\r\n"), ("/v/late", "data")] {
        let mut stream = sent(sidecar.address, &get(path)).await;
        half_close(&mut stream).await;
        let answer = String::from_utf8_lossy(&read(&mut stream, 20 * SECOND).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(end), "{path}: {answer}");
    }
}

/// 684. Writes go on to their end, however their clients leave and whoever waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r684_a_write_goes_on_without_its_client() {
    let app = PatientApp::start().await;
    let rules = format!(
        "{ROUTE}[[purges]]\npath = \"/get/{{*name}}\"\ntags = [\"all\"]\nmethods = [\"GET\"]\n"
    );
    let upstream = format!("max_connections = 1\nmethod_override = true\n{PATIENT}");
    let sidecar = sidecar(&app, "half_closed = \"0s\"", &upstream, &rules).await;
    // A GET that the rules declare to be a write, and one that the app takes for one, are no reads.
    let writes = [
        ("POST /late/a", post("/late/a")),
        ("GET /get/late", get("/get/late")),
        ("GET /late/b?_method=DELETE", get("/late/b?_method=DELETE")),
    ];
    for (line, request) in writes {
        for leave in [reset, drop::<TcpStream>] {
            let before = app.finished(line);
            let stream = sent(sidecar.address, &request).await;
            app.reached(line, before + 1).await;
            leave(stream);
            assert_eq!(status(sidecar.address, &get("/quick")).await, 200, "{line}");
            assert_eq!(app.finished(line), before + 1, "{line} came to its end before");
        }
        // It gets its response, too.
        let mut stream = sent(sidecar.address, &request).await;
        half_close(&mut stream).await;
        assert_eq!(http1::status(&read(&mut stream, 20 * SECOND).await), 200, "{line}");
    }
}

/// 685. Without `upstream.method_override` a GET that names another method may still be a write to
///      the app: it is not given up for a FIN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r685_a_get_that_names_another_method_is_not_given_up() {
    let app = PatientApp::start().await;
    let upstream = format!("max_connections = 1\n{PATIENT}");
    let sidecar = sidecar(&app, "half_closed = \"0s\"", &upstream, ROUTE).await;
    for path in ["/late/b?_method=DELETE", "/v/late/b?_method=DELETE"] {
        let mut stream = sent(sidecar.address, &get(path)).await;
        half_close(&mut stream).await;
        assert_eq!(http1::status(&read(&mut stream, 20 * SECOND).await), 200, "{path}");
    }
}

/// 686. A fill that the cache wants goes on without its client, and is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r686_a_fill_goes_on_without_its_client() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "half_closed = \"50ms\"", "max_connections = 4", ROUTE).await;
    for (path, leave) in [("/v/late/1", reset as fn(TcpStream)), ("/v/late/2", drop)] {
        let line = format!("GET {path}");
        let stream = sent(sidecar.address, &get(path)).await;
        app.reached(&line, 1).await;
        leave(stream);
        until(sidecar.admin, "sidecache_connections_open", 0).await;
        until(sidecar.admin, "sidecache_fills_in_flight", 0).await;
        assert_eq!(Client::new(sidecar.address).get(path, &[]).await.cache(), "HIT", "{path}");
        assert_eq!(app.begun(&line), 1);
    }
}

/// 687. A fill that nobody waits for keeps no place from who waits, and one that somebody waits for
///      does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r687_a_fill_that_nobody_waits_for_gives_its_place_to_who_waits() {
    let app = PatientApp::start().await;
    let upstream = format!("max_connections = 2\n{PATIENT}");
    let sidecar = sidecar(&app, "half_closed = \"100ms\"", &upstream, ROUTE).await;
    for path in ["/v/never/1", "/v/never/2"] {
        drop(sent(sidecar.address, &get(path)).await);
        app.reached(&format!("GET {path}"), 1).await;
    }
    let since = Instant::now();
    assert_eq!(status(sidecar.address, &get("/v/quick")).await, 200);
    assert!(since.elapsed() < SOON);
    assert_eq!(metric(sidecar.admin, "sidecache_fills_given_up_total").await, 1);
    assert_eq!(status(sidecar.address, &get("/quick")).await, 200, "the place is free");
}

/// 688. The first client of a fill leaves, and another one waits for it: the fill goes on, although
///      others wait for its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r688_a_fill_that_others_wait_for_goes_on() {
    let app = PatientApp::start().await;
    let upstream = format!("max_connections = 1\n{PATIENT}");
    let sidecar = sidecar(&app, "half_closed = \"0s\"", &upstream, ROUTE).await;
    let admin = sidecar.admin;
    let first = sent(sidecar.address, &get("/v/late")).await;
    app.reached("GET /v/late", 1).await;
    let mut second = sent(sidecar.address, &get("/v/late")).await;
    until(admin, "sidecache_fill_waiters", 1).await;
    drop(first);
    let waits = tokio::spawn(async move { status(sidecar.address, &get("/quick")).await });
    let answer = read(&mut second, LATES).await;
    assert_eq!(http1::status(&answer), 200);
    assert_eq!(waits.await.expect("it is answered"), 200);
    assert_eq!(app.begun("GET /v/late"), 1);
}

const LATES: Duration = Duration::from_secs(3);

/// 689. Who has left does not stay in the queue for a place when others wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r689_who_has_left_does_not_wait_for_a_place() {
    let app = PatientApp::start().await;
    let upstream = format!("max_connections = 1\n{PATIENT}");
    let sidecar = sidecar(&app, LONG, &upstream, ROUTE).await;
    let admin = sidecar.admin;
    let holds = sent(sidecar.address, &get("/never")).await;
    app.reached("GET /never", 1).await;
    let mut leaves = sent(sidecar.address, &get("/quick/leaves")).await;
    until(admin, "sidecache_upstream_waiting", 1).await;
    half_close(&mut leaves).await;
    // Alone in the queue, it stays.
    sleep(SECOND / 5).await;
    until(admin, "sidecache_upstream_waiting", 1).await;
    let mut stays = sent(sidecar.address, &get("/quick/stays")).await;
    assert_eq!(read(&mut leaves, SOON).await, b"");
    until(admin, "sidecache_upstream_waiting", 1).await;
    // A reset leaves the queue whoever waits.
    let resets = sent(sidecar.address, &get("/quick/resets")).await;
    until(admin, "sidecache_upstream_waiting", 2).await;
    reset(resets);
    until(admin, "sidecache_upstream_waiting", 1).await;
    reset(holds);
    assert_eq!(http1::status(&read(&mut stays, SECOND).await), 200);
    assert_eq!(app.begun("GET /quick/leaves") + app.begun("GET /quick/resets"), 0);
}

/// 690. The same over HTTP/2: a stream that is reset, and a connection that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r690_http_2_streams_and_connections_that_end_free_their_places() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, LONG, "max_connections = 8", ROUTE).await;
    let admin = sidecar.admin;
    let stream = TcpStream::connect(sidecar.address).await.expect("it accepts connections");
    let stream = stream.into_std().expect("a TCP socket");
    let whole = stream.try_clone().expect("a socket can be shared");
    let io = TokioIo::new(TcpStream::from_std(stream).expect("a TCP socket"));
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(io).await.expect("it speaks HTTP/2");
    let driver = tokio::spawn(async move { drop(connection.await) });
    let mut streams = Vec::new();
    for path in ["/never", "/events", "/never", "/events"] {
        let request = Request::get(format!("http://app.test{path}")).body(Empty::<Bytes>::new());
        let mut sender = sender.clone();
        streams.push(tokio::spawn(async move {
            let response = sender.send_request(request.expect("a well-formed request")).await;
            sleep(600 * SECOND).await;
            drop(response);
        }));
    }
    until(admin, "sidecache_upstream_open", 4).await;
    for aborted in streams.drain(..2) {
        aborted.abort();
    }
    until(admin, "sidecache_upstream_open", 2).await;
    whole.shutdown(std::net::Shutdown::Both).expect("the connection is open");
    until(admin, "sidecache_upstream_open", 0).await;
    assert_eq!(metric(admin, "sidecache_requests_abandoned_total").await, 2, "two had responses");
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    driver.abort();
}

/// 691. An event stream that is silent kept its place when its client had closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r691_a_silent_stream_ends_with_its_client() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "half_closed = \"200ms\"", "max_connections = 4", ROUTE).await;
    let mut stream = sent(sidecar.address, &get("/events")).await;
    until(sidecar.admin, "sidecache_upstream_tunnels", 1).await;
    assert!(read(&mut stream, SECOND / 2).await.ends_with(b"data:1\n\n\r\n"));
    // All is read, so that this is a FIN, and no reset follows.
    half_close(&mut stream).await;
    assert_eq!(read(&mut stream, SOON).await, b"");
    until(sidecar.admin, "sidecache_upstream_open", 0).await;
    until(sidecar.admin, "sidecache_upstream_tunnels", 0).await;
    assert_eq!(metric(sidecar.admin, "sidecache_responses_cut_total").await, 1);
    assert_eq!(metric(sidecar.admin, "sidecache_requests_abandoned_total").await, 0);
}

/// 692. Tunnels and event streams took all places at the app.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r692_tunnels_and_event_streams_leave_places_for_others() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "", "max_connections = 4", ROUTE).await;
    let (address, admin) = (sidecar.address, sidecar.admin);
    let mut open = Vec::new();
    for request in [websocket("/ws"), get("/events"), get("/v/events")] {
        open.push(sent(address, &request).await);
        until(admin, "sidecache_upstream_tunnels", open.len() as u64).await;
    }
    for request in [websocket("/ws"), get("/events"), get("/v/events/2")] {
        let mut refused = sent(address, &request).await;
        let answer = String::from_utf8_lossy(&read(&mut refused, SECOND).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("too many tunnels"), "{answer}");
    }
    assert_eq!(app.begun("GET /ws"), 1, "the app begins no session that is refused");
    assert_eq!(status(address, &get("/quick")).await, 200);
    assert_eq!(
        metric(admin, "sidecache_limit_reached_total{limit=\"upstream.max_tunnels\"}").await,
        3
    );
    // The tunnel works, and whoever ends makes room.
    open[0].write_all(b"echo").await.expect("the tunnel is open");
    assert!(read(&mut open[0], SECOND).await.ends_with(b"echo"));
    open.into_iter().for_each(reset);
    until(admin, "sidecache_upstream_tunnels", 0).await;
    assert_eq!(
        http1::status(&read(&mut sent(address, &websocket("/ws")).await, SECOND).await),
        101
    );
    // An upgrade that the app does not take up counts no longer.
    assert_eq!(status(address, &websocket("/quick")).await, 200);
    until(admin, "sidecache_upstream_tunnels", 0).await;
}

/// 693. A request whose client left had no line in the access log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r693_an_abandoned_request_has_a_line_in_the_access_log() {
    let app = PatientApp::start().await;
    let rules = format!("[log]\naccess = true\n{ROUTE}");
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    for path in ["/never/passed", "/v/never/filled"] {
        let stream = sent(sidecar.address, &get(path)).await;
        app.reached(&format!("GET {path}"), 1).await;
        reset(stream);
        eventually("the line is there", 10 * SECOND, || async {
            sidecar.said().lines().any(|line| {
                let has = |part| line.contains(part);
                has(path) && has("status=499") && has("reason=\"client gone\"")
            })
        })
        .await;
    }
    assert!(sidecar.said().contains("route=/v/{*name}"), "{}", sidecar.said());
}

/// 694. The second request of a connection, and requests that are pipelined: those that were sent
///      before the client closed are answered, and what has no response in time is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r694_later_requests_of_a_connection_are_given_up_as_the_first() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, "half_closed = \"3s\"", "max_connections = 4", ROUTE).await;
    let admin = sidecar.admin;
    // In one piece, and in pieces that arrive while the first is served.
    let mut whole = sent(sidecar.address, &format!("{}{}", get("/late/1"), get("/late/2"))).await;
    half_close(&mut whole).await;
    let mut pieces = sent(sidecar.address, &get("/late/3")).await;
    app.reached("GET /late/3", 1).await;
    for part in [&get("/late/4")[..9], &get("/late/4")[9..], &get("/quick")] {
        pieces.write_all(part.as_bytes()).await.expect("the connection is open");
        sleep(SECOND / 20).await;
    }
    half_close(&mut pieces).await;
    for (mut stream, count) in [(whole, 2), (pieces, 3)] {
        let answers = String::from_utf8_lossy(&read(&mut stream, 20 * SECOND).await).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), count, "{answers}");
    }
    let mut second = sent(sidecar.address, &get("/quick")).await;
    assert_eq!(http1::status(&read(&mut second, SECOND / 2).await), 200);
    second.write_all(get("/never").as_bytes()).await.expect("the connection is open");
    app.reached("GET /never", 1).await;
    drop(second);
    until(admin, "sidecache_connections_open", 0).await;
    until_empty(&app, &sidecar, 4).await;
}

/// 695. Uploads that break off, before their bodies begin and in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r695_uploads_that_break_off_leave_nothing_behind() {
    let app = PatientApp::start().await;
    let sidecar = sidecar(&app, LONG, "max_connections = 4", ROUTE).await;
    for fields in ["Expect: 100-continue\r\n", ""] {
        for leave in [reset, drop::<TcpStream>] {
            for (method, path) in [("POST", "/v/up"), ("POST", "/up"), ("GET", "/up")] {
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\
                     Content-Length: 1000000\r\n\r\n"
                );
                let mut stream = sent(sidecar.address, &head).await;
                if fields.is_empty() {
                    stream.write_all(&vec![b'x'; 70_000]).await.expect("the connection is open");
                }
                sleep(SECOND / 20).await;
                leave(stream);
            }
        }
    }
    until_empty(&app, &sidecar, 4).await;
}

/// 696. Hundreds of clients leave, in all ways and at all moments. In the end everything is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r696_after_hundreds_of_departures_everything_is_free() {
    let app = PatientApp::start().await;
    let rules = format!("{ROUTE}[[purges]]\npath = \"/v/{{*name}}\"\ntags = [\"all\"]\n");
    let upstream = "max_connections = 8\nwait_timeout = \"1s\"";
    let sidecar = sidecar(&app, "half_closed = \"200ms\"", upstream, &rules).await;
    let address = sidecar.address;
    for round in 0..10 {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..40 {
            let numbers = Numbers::new(round * 1000 + client);
            if client % 8 == 0 {
                clients.spawn(async move {
                    reset_somehow(address, numbers).await.expect("it speaks HTTP/2");
                });
            } else {
                clients.spawn(async move {
                    leave_somehow(address, numbers).await.expect("it accepts connections");
                });
            }
        }
        while let Some(left) = clients.join_next().await {
            left.expect("a client that leaves does not fail");
        }
    }
    until_empty(&app, &sidecar, 8).await;
    assert_eq!(status(sidecar.address, &get("/quick")).await, 200);
    let permits =
        metric(sidecar.admin, "sidecache_share_refused_total{limit=\"listen.max_connections\"}");
    assert_eq!(permits.await, 0);
    assert_eq!(metric(sidecar.admin, "sidecache_panics_total").await, 0);
}
