//! What a stranger can cost: attacks, each beside 20 honest clients that read 50 pages and write
//! pages of their own. Each test is one row of the table, which all of them print: the hit ratio
//! stays above 90 %, and no honest request gets a 503.
//!
//! To add an attack, write a function that goes on until it is told to stop, and a test with it.

use std::convert::Infallible;
use std::io::ErrorKind::WouldBlock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecache::app::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::abuse::{ATTACKER, app, beside, rules};
use crate::support::{Sidecar, metric};

/// How long each attack goes on.
const TIME: Duration = Duration::from_secs(6);
const SECOND: Duration = Duration::from_secs(1);

type Stop = Arc<AtomicBool>;

fn goes_on(stop: &Stop) -> bool {
    !stop.load(Ordering::SeqCst)
}

/// Runs an attack, and asserts what the honest clients saw of it.
async fn survives<F, Fut>(name: &str, attack: F)
where
    F: FnOnce(SocketAddr, Stop) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    survives_with(name, &[], attack).await;
}

/// The same with these lines in tables that the sidecar's file has anyway, such as `[listen]`.
async fn survives_with<F, Fut>(name: &str, more: &[(&str, &str)], attack: F)
where
    F: FnOnce(SocketAddr, Stop) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let app = app();
    let sidecar = Sidecar::start_with(Clock::system(), app.address, more, &rules("")).await;
    let honest = beside(&sidecar, &app, TIME, attack).await;
    let purges = metric(sidecar.admin, "sidecache_purges_total{by=\"write\",kind=\"hard\"}").await;
    println!(
        "| {name} | {} % of {} reads | {} writes, {purges} purges | {} 503s, {} failed | {:?} | \
         {} kB |",
        honest.hit_ratio(),
        honest.reads,
        honest.writes,
        honest.refused,
        honest.failed,
        honest.slowest,
        honest.app_bytes / 1000,
    );
    assert!(honest.reads > 500 && honest.writes > 5, "nothing was tested: {honest:?}");
    assert!(honest.hit_ratio() > 90, "{honest:?}");
    assert_eq!((honest.refused, honest.failed), (0, 0), "{honest:?}");
}

async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind(SocketAddr::from((ATTACKER, 0))).expect("the loopback has a free port");
    socket.connect(address).await.expect("the address accepts connections")
}

/// Uploads that announce so many bytes, and break off after some of them.
async fn aborted(address: SocketAddr, stop: Stop, announced: usize, sent: usize) {
    while goes_on(&stop) {
        let mut stream = connect(address).await;
        let head = format!(
            "POST /w/a HTTP/1.1\r\nHost: app.test\r\nContent-Length: {announced}\r\n\r\n{}",
            "x".repeat(sent)
        );
        let _ = stream.write_all(head.as_bytes()).await;
        // Time for the sidecar to read it, and to send it on.
        sleep(SECOND / 10).await;
        drop(stream);
    }
}

/// As many POSTs on each of four HTTP/2 connections as it may open, whose bodies never go on.
async fn paused(address: SocketAddr, stop: Stop, path: &'static str, length: Option<usize>) {
    while goes_on(&stop) {
        let mut all = Vec::new();
        for _ in 0..4 {
            let io = TokioIo::new(connect(address).await);
            let Ok((sender, connection)) = http2::handshake(TokioExecutor::new(), io).await else {
                continue;
            };
            all.push(tokio::spawn(async move { drop(connection.await) }));
            for _ in 0..128 {
                let frames = futures_util::stream::iter([Bytes::from_static(b"x")]);
                let frames =
                    futures_util::StreamExt::chain(frames, futures_util::stream::pending());
                let frames = futures_util::StreamExt::map(frames, |data| {
                    Ok::<_, Infallible>(Frame::data(data))
                });
                let mut request = Request::post(format!("http://app.test{path}"));
                if let Some(length) = length {
                    request = request.header("content-length", length);
                }
                let request = request.body(StreamBody::new(frames).boxed_unsync());
                let mut sender = sender.clone();
                all.push(tokio::spawn(async move {
                    let _ = sender.send_request(request.expect("a well-formed request")).await;
                }));
            }
        }
        for task in all {
            while goes_on(&stop) && !task.is_finished() {
                sleep(SECOND / 10).await;
            }
            task.abort();
        }
    }
}

/// One long upload after the other, a byte at a time, to a path whose rule keeps hits away.
async fn guard_held_open(address: SocketAddr, stop: Stop) {
    while goes_on(&stop) {
        let mut stream = connect(address).await;
        let head = b"POST /guarded/a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while goes_on(&stop) && stream.write_all(b"x").await.is_ok() {
            sleep(SECOND / 10).await;
        }
    }
}

/// Passwords that are wrong.
async fn logins(address: SocketAddr, stop: Stop) {
    while goes_on(&stop) {
        let mut stream = connect(address).await;
        let request = b"POST /w/login HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\
            Content-Length: 15\r\n\r\nuser=a&pass=bcd";
        let _ = stream.write_all(request).await;
        let _ = timeout(SECOND, stream.read_to_end(&mut Vec::new())).await;
    }
}

/// Connections on which nothing is sent. Those that are closed are made again.
async fn idle(address: SocketAddr, stop: Stop) {
    let mut all: Vec<TcpStream> = Vec::new();
    while goes_on(&stop) {
        all.retain(|stream| {
            stream.try_read(&mut [0; 512]).is_err_and(|error| error.kind() == WouldBlock)
        });
        while all.len() < 600 {
            all.push(connect(address).await);
        }
        sleep(SECOND / 20).await;
    }
}

/// As many requests as there are connections to the origin, each for something that is not stored.
async fn misses(address: SocketAddr, stop: Stop) {
    let clients: Vec<_> = (0..600)
        .map(|client| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                for number in 0.. {
                    let mut stream = connect(address).await;
                    let request = format!(
                        "GET /elsewhere/{client}/{number} HTTP/1.1\r\nHost: app.test\r\n\
                         Connection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(request.as_bytes()).await;
                    let _ = timeout(SECOND, stream.read_to_end(&mut Vec::new())).await;
                    if !goes_on(&stop) {
                        break;
                    }
                    sleep(SECOND / 2).await;
                }
            })
        })
        .collect();
    for client in clients {
        let _ = client.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_nobody_attacks() {
    survives("nothing", async |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_aborted_uploads_that_are_short() {
    survives("aborted uploads of 77 bytes", |address, stop| aborted(address, stop, 77, 7)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_aborted_uploads_that_are_long() {
    let attack = |address, stop| aborted(address, stop, 1_000_000, 70_000);
    survives("aborted uploads of 1 MB", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_paused_posts_over_http2() {
    let attack = |address, stop| paused(address, stop, "/w/a", Some(1000));
    survives("512 paused POSTs over HTTP/2", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_guard_that_is_held_open() {
    survives("a guard held open", guard_held_open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_wrong_passwords() {
    survives("wrong passwords", logins).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_paused_posts_without_a_length() {
    let attack = |address, stop| paused(address, stop, "/w/a", None);
    survives("512 paused POSTs without a length", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_paused_posts_where_no_rule_is() {
    let attack = |address, stop| paused(address, stop, "/elsewhere", Some(1_000_000));
    survives("512 paused POSTs where no rule is", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_idle_connections() {
    let more = [("[listen]", "max_connections = 400")];
    survives_with("600 idle connections, of 400", &more, idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_misses() {
    survives("600 clients that ask for something new", misses).await;
}
