//! What happens when the process may not open more files and sockets.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::child::ChildSidecar;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, eventually, metric};

const LONG_ENOUGH: Duration = Duration::from_secs(20);

/// The limits of a process: the soft and the hard one, before they are set to these if they are.
fn limits(pid: u32, soft: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(pid.cast_signed());
    // The child has inherited the hard limit.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: soft.or(maximum), maximum })
        .expect("the child is ours")
}

/// Connections that send a part of a request, so that they are not idle.
async fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let Ok(Ok(mut stream)) =
            tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address)).await
        else {
            continue;
        };
        let _ = stream.write_all(b"GET /v/a HTTP/1.1\r\nHost: app.test\r\nX-Slow: ").await;
        crowd.push(stream);
    }
    crowd
}

/// What comes on a connection until it ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(LONG_ENOUGH, stream.read_to_end(&mut answer))
        .await
        .expect("it is served at last")
        .expect("the connection ends well");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let app = Origin::start(versioned());
    let upstream = format!("url = \"http://{}\"", app.address);
    let sidecar = ChildSidecar::spawn_limited("ulimit -Sn 64", &upstream, VERSIONED_RULES).await;
    let before = limits(sidecar.pid(), None);
    assert_eq!(before.current, before.maximum, "{before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_leave_descriptors_to_the_admin_listener_and_the_origin() {
    let app = Origin::start(versioned());
    let upstream = format!("url = \"http://{}\"", app.address);
    let sidecar = ChildSidecar::spawn_limited("ulimit -n 256", &upstream, VERSIONED_RULES).await;
    let said = sidecar.said();
    assert!(said.contains("may have 256 files and sockets open"), "{said}");
    for part in ["listen.max_connections 10000", "upstream.max_connections 512", "LimitNOFILE"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let crowd = crowd(sidecar.address, 600).await;
    assert!(crowd.len() > 300, "the test has its connections: {}", crowd.len());
    let mut admin = Client::of_admin(sidecar.admin.expect("it is known"));
    for path in ["/live", "/stats", "/metrics"] {
        assert_eq!(admin.get(path, &[]).await.status, 200, "{path}");
    }
    // Another address gets a place by its share, and a connection to the app.
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("the loopback has this address");
    let mut other = socket.connect(sidecar.address).await.expect("the kernel takes it");
    let request = b"GET /v/b HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    other.write_all(request).await.expect("the kernel takes it");
    let answer = rest(other).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-cache: MISS"), "{answer}");
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_reached_neither_spins_nor_kills() {
    let app = Origin::start(versioned());
    let upstream = format!("url = \"http://{}\"", app.address);
    let sidecar = ChildSidecar::spawn_limited("true", &upstream, VERSIONED_RULES).await;
    let mut early = Client::new(sidecar.address);
    assert_eq!(early.get("/v/a", &[]).await.cache(), "MISS");
    // Fewer than are open: every accept fails.
    limits(sidecar.pid(), Some(4));
    let mut late = TcpStream::connect(sidecar.address).await.expect("the kernel takes it");
    late.write_all(b"GET /v/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("the kernel takes it");
    eventually("it is told", LONG_ENOUGH, async || {
        sidecar.said().contains("cannot accept connections")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(early.get("/v/a", &[]).await.cache(), "HIT", "who is there is served");
    limits(sidecar.pid(), None);
    let answer = rest(late).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Pauses double from 5 ms to 1 s: ten tries in the first five seconds, and one a second then.
    let tries = metric(sidecar.admin.expect("it is known"), "sidecache_accept_errors_total").await;
    assert!((1..100).contains(&tries), "{tries} accepts have failed");
}
