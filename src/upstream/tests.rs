//! Tests of the client towards the app, against raw sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use http::Version;

use super::*;
use crate::outcome::Reason;
use crate::semantics::body::BodyError;

mod failures;
mod names;
mod sharing;
mod streams;

/// One connection of an app that speaks what the test wants it to.
struct Conn {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Conn {
    /// The next request's head, or `None` when the sidecar closed the connection.
    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if self.socket.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, text: &str) {
        // The sidecar may have hung up; the test sees that on its own side.
        drop(self.socket.write_all(text.as_bytes()).await);
    }

    fn reset(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Starts an app: `serve` gets each connection and its number.
async fn app<F, S>(serve: F) -> SocketAddr
where
    F: Fn(Conn, usize) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(serve(Conn { socket, buffer: Vec::new() }, number));
        }
    });
    address
}

/// An app that answers each request of each connection alike.
async fn steady(answer: &'static str) -> SocketAddr {
    app(move |mut conn, _| async move {
        while conn.head().await.is_some() {
            conn.say(answer).await;
        }
    })
    .await
}

fn settings(address: SocketAddr) -> UpstreamSettings {
    UpstreamSettings {
        target: address.into(),
        host: HostHeader::Preserve,
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        tunnel_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(15),
        max_age: Duration::from_mins(5),
        max_connections: 64,
        max_tunnels: 64,
        max_waiting: 64,
        wait_timeout: Duration::from_secs(5),
        max_header_bytes: 256 * 1024,
        max_interim_bytes: 64 * 1024,
        max_headers: 256,
        upgrades: ["websocket".into()].into(),
        reuse_after_body: true,
        via: false,
        title_case_headers: false,
        user_agent: HeaderValue::from_static("test"),
        ca_file: None,
    }
}

const LIMITS: UpstreamLimits = UpstreamLimits { pinned: 4, stall: Duration::from_millis(200) };

fn client(settings: UpstreamSettings) -> (Upstream, UpstreamCounters) {
    let counters = UpstreamCounters::default();
    (Upstream::new(settings, LIMITS, Clock::system(), counters.clone()).unwrap(), counters)
}

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/x").header("host", "app").body(body).unwrap()
}

fn get() -> Request<Body> {
    request(Method::GET, Body::empty())
}

/// A body of which nobody knows the length.
fn stream<S>(frames: S) -> Body
where
    S: futures_util::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
{
    Body::stream(StreamBody::new(frames))
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ] {
        let (upstream, counters) = client(settings(steady(answer).await));
        for _ in 0..20 {
            assert_eq!(
                text(upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap()).await,
                "ok"
            );
        }
        assert_eq!(
            (counters.connects.get(), counters.reused.get(), counters.retries.get()),
            (1, 19, 0)
        );
        assert_eq!(
            (counters.open.load(Ordering::Relaxed), counters.idle.load(Ordering::Relaxed)),
            (1, 1)
        );
    }
}

#[tokio::test]
async fn responses_without_a_body_free_their_connection_at_once() {
    // After a HEAD nobody gets it, but its place is free.
    for (method, head, connects) in [
        (Method::GET, "HTTP/1.1 204 No Content\r\netag: \"5\"\r\n\r\n", 1),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: \"5\"\r\n\r\n", 3),
    ] {
        let (upstream, counters) =
            client(UpstreamSettings { max_connections: 1, ..settings(steady(head).await) });
        for _ in 0..3 {
            let request = request(method.clone(), Body::empty());
            let response = upstream.send(&ConnectionChoice::Pooled, request).await.unwrap();
            assert!(response.body().is_empty());
            assert_eq!(response.headers()["etag"], "\"5\"");
        }
        assert_eq!(counters.connects.get(), connects, "{method}");
    }
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: \
        </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (upstream, counters) = client(settings(steady(answer).await));
    for _ in 0..2 {
        let response = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("link"));
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(counters.connects.get(), 1);
}

#[tokio::test]
async fn requests_are_framed_so_that_nothing_is_lost() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |mut conn, _| {
        let heads = heads.clone();
        async move {
            while let Some(head) = conn.head().await {
                while head.contains("chunked") && !conn.buffer.ends_with(b"0\r\n\r\n") {
                    conn.socket.read_buf(&mut conn.buffer).await.unwrap();
                }
                heads
                    .send(head + &String::from_utf8(std::mem::take(&mut conn.buffer)).unwrap())
                    .unwrap();
                conn.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let (upstream, _) = client(settings(address));
    let mut of = async |request| {
        upstream.send(&ConnectionChoice::Pooled, request).await.unwrap();
        seen.recv().await.unwrap()
    };

    let body = stream(futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"hello")))]));
    let sent = of(request(Method::GET, body)).await;
    assert!(
        sent.contains("transfer-encoding: chunked\r\n")
            && sent.ends_with("5\r\nhello\r\n0\r\n\r\n"),
        "{sent}"
    );

    let sent = of(request(Method::POST, Body::empty())).await;
    assert!(sent.contains("content-length: 0\r\n"), "{sent}");

    let mut old = get();
    *old.version_mut() = Version::HTTP_2;
    *old.uri_mut() = http::Uri::from_static("http://elsewhere/y?z");
    let sent = of(old).await;
    assert!(
        sent.starts_with("GET /y?z HTTP/1.1\r\n") && !sent.contains("content-length"),
        "{sent}"
    );
}

#[tokio::test]
async fn bodies_that_end_with_the_connection_are_marked() {
    let address = app(|mut conn, _| async move {
        conn.head().await;
        conn.say("HTTP/1.1 200 OK\r\n\r\nall").await;
    })
    .await;
    let (upstream, counters) = client(settings(address));
    for _ in 0..2 {
        let response = upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
        assert!(response.extensions().get::<CloseDelimited>().is_some());
        assert_eq!(text(response).await, "all");
    }
    assert_eq!(counters.connects.get(), 2);

    let (upstream, _) = client(settings(steady("HTTP/1.1 204 No Content\r\n\r\n").await));
    assert!(
        upstream
            .send(&ConnectionChoice::Pooled, get())
            .await
            .unwrap()
            .extensions()
            .get::<CloseDelimited>()
            .is_none()
    );
}

#[tokio::test]
async fn there_are_never_more_sockets_than_allowed() {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let address = app(|mut conn, _| async move {
        MOST.fetch_max(OPEN.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        while conn.head().await.is_some() {
            // The app takes its time, so that the others have to wait.
            tokio::time::sleep(Duration::from_millis(2)).await;
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
        OPEN.fetch_sub(1, Ordering::SeqCst);
    })
    .await;
    let (upstream, counters) = client(UpstreamSettings { max_connections: 4, ..settings(address) });
    let all = (0..60).map(|number| {
        let upstream = upstream.clone();
        let method = if number % 2 == 0 { Method::GET } else { Method::POST };
        tokio::spawn(async move {
            text(
                upstream
                    .send(&ConnectionChoice::Pooled, request(method, Body::empty()))
                    .await
                    .unwrap(),
            )
            .await
        })
    });
    for answer in all.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), "ok");
    }
    assert!(MOST.load(Ordering::SeqCst) <= 4, "{MOST:?}");
    assert!(counters.shares.waits.get() >= 50, "{}", counters.shares.waits.get());
    assert_eq!(counters.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_full_or_stuck_queue_is_busy() {
    let address = app(|mut conn, _| async move {
        conn.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let limits = UpstreamSettings {
        max_connections: 1,
        max_waiting: 1,
        wait_timeout: Duration::from_millis(100),
        ..settings(address)
    };
    let (upstream, counters) = client(limits);
    let holder = tokio::spawn({
        let upstream = upstream.clone();
        async move { upstream.send(&ConnectionChoice::Pooled, get()).await.map(drop) }
    });
    while counters.open.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let (one, other) = tokio::join!(
        upstream.send(&ConnectionChoice::Pooled, get()),
        upstream.send(&ConnectionChoice::Pooled, get())
    );
    for refused in [one.unwrap_err(), other.unwrap_err()] {
        assert!(matches!(refused, UpstreamError::Busy), "{refused}");
        assert_eq!(
            (refused.reason(), refused.may_have_reached_origin()),
            (Reason::UpstreamBusy, false)
        );
    }
    assert_eq!((counters.shares.waits.get(), counters.busy.get()), (1, 2));
    holder.abort();
}

#[tokio::test]
async fn unused_connections_are_closed() {
    let (closed, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |mut conn, _| {
        let closed = closed.clone();
        async move {
            while conn.head().await.is_some() {
                conn.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
            closed.send(()).unwrap();
        }
    })
    .await;
    let (upstream, counters) =
        client(UpstreamSettings { keep_alive: Duration::from_millis(100), ..settings(address) });
    upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
    seen.recv().await.unwrap();
    assert_eq!(
        (counters.open.load(Ordering::Relaxed), counters.idle.load(Ordering::Relaxed)),
        (0, 0)
    );
}

#[test]
fn a_client_can_be_set_up_outside_of_a_runtime() {
    let address = "127.0.0.1:1".parse().unwrap();
    let (upstream, _) =
        client(UpstreamSettings { host: HostHeader::Upstream, ..settings(address) });
    assert_eq!(upstream.host().unwrap(), "127.0.0.1:1");
    let wrong = |settings| {
        Upstream::new(settings, LIMITS, Clock::system(), UpstreamCounters::default()).unwrap_err()
    };
    assert!(matches!(
        wrong(UpstreamSettings { max_header_bytes: 100, ..settings(address) }),
        UpstreamSetupError::Limit(_)
    ));
    assert!(matches!(
        wrong(UpstreamSettings { max_connections: 0, ..settings(address) }),
        UpstreamSetupError::Limit(_)
    ));
    let target = Target {
        address: UpstreamAddress::Tcp { tls: true, host: "localhost".into(), port: 1 },
        authority: "localhost:1".into(),
    };
    let missing = UpstreamSettings {
        target,
        ca_file: Some("/nonexistent/ca.pem".into()),
        ..settings(address)
    };
    assert!(matches!(wrong(missing), UpstreamSetupError::CaFile { .. }));
}
