//! Faults of restarts that were found by attacking them.

use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::process::signal;
use crate::support::upgrades::{Service, end};
use crate::support::{Client, Origin};

/// An HTTP/2 client: its preface, no settings, and the acknowledgement of the server's.
const PREFACE: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// HTTP/2 clients end their connection only after they have answered a ping. One that is gone does
/// not, and has no request in progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r840_an_idle_http2_client_that_is_gone_does_not_hold_up_a_stop() {
    let app = Origin::start(versioned());
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let mut client = TcpStream::connect(service.address).await.expect("it accepts");
    client.write_all(PREFACE).await.expect("it is sent");
    let mut buffer = [0; 9];
    client.read_exact(&mut buffer).await.expect("its settings come");
    let since = Instant::now();
    signal(service.child.id(), "TERM");
    assert_eq!(end(&mut service.child).await.code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(12), "drain is 20 s: {:?}", since.elapsed());
}

/// The sockets of a process that dies are closed one after the other: it may be gone for those who
/// would take over, and still have its port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r841_a_take_over_waits_for_the_port_of_a_process_that_dies() {
    let app = Origin::start(versioned());
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    signal(service.child.id(), "KILL");
    end(&mut service.child).await;
    for address in [service.address, service.admin] {
        let dying = TcpListener::bind(address).expect("the port is free");
        service.child = service.spawn(&["--take-over"]);
        sleep(Duration::from_millis(400)).await;
        drop(dying);
        service.serving().await;
        let reply = Client::new(service.address).get("/v/a", &[]).await;
        assert_eq!(reply.text(), "0");
        signal(service.child.id(), "TERM");
        assert_eq!(end(&mut service.child).await.code(), Some(0));
    }
    // One that stays taken still fails the start.
    let taken = TcpListener::bind(service.address).expect("the port is free");
    service.child = service.spawn(&["--take-over"]);
    assert_eq!(end(&mut service.child).await.code(), Some(1), "{}", service.last_said());
    drop(taken);
}
