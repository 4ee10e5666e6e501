//! After one signal the sidecar finishes what is in flight; after a second one it stops at once.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::child::ChildSidecar;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Point, RedisServer, Sidecar, Socket, eventually};

/// Half of the limit of a drain (`listen.drain`): a sidecar that waits for the limit fails the
/// test.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// Sends a signal while a read and a write are in flight and the writer has left: both finish, and
/// the result of the write is visible through another sidecar.
async fn drains_at(signal: &str) {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let mut leaving =
        ChildSidecar::spawn(&format!("url = \"http://{}\"", app.address), &rules).await;
    let staying = Sidecar::start(app.address, &rules).await;
    let mut reader = Client::new(staying.address);
    eventually("the other sidecar holds it", LONG_ENOUGH, async || {
        Client::new(staying.address).get("/v/a", &[]).await.cache() == "HIT"
    })
    .await;

    let (read, write) =
        (app.hold("GET", "/v/slow", Point::After), app.hold("PUT", "/w/a", Point::After));
    let mut client = Client::new(leaving.address);
    let asked = tokio::spawn(async move { client.get("/v/slow", &[]).await });
    read.arrived().await;
    let mut writer = Socket::connect(leaving.address).await;
    writer.send(b"PUT /w/a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n").await;
    write.arrived().await;
    // A reset, not a polite end: the connection is over at once.
    writer.reset();
    // Time for the sidecar to notice; that the write goes on all the same shows only in time.
    tokio::time::sleep(Duration::from_millis(100)).await;

    leaving.signal(signal);
    eventually("no new connection is taken", LONG_ENOUGH, async || {
        TcpStream::connect(leaving.address).await.is_err()
    })
    .await;
    // The origin has committed, but the sidecar has no response yet.
    assert_eq!(reader.get("/v/a", &[]).await.cache(), "HIT", "nothing is purged so far");
    assert!(leaving.ended().is_none(), "it waits for what is under way");
    read.release();
    assert_eq!(asked.await.expect("the client does not panic").text(), "0", "the read is answered");
    // That it does not end can be shown only by waiting.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(leaving.ended().is_none(), "it waits for a write whose client has gone");
    write.release();
    assert_eq!(leaving.end(LONG_ENOUGH).await.code(), Some(0));
    let fresh = reader.get("/v/a", &[]).await;
    assert_eq!((fresh.cache(), fresh.text()), ("MISS", "1"), "the purge has reached the others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_a_read_and_an_abandoned_write_finish() {
    drains_at("TERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_lets_a_read_and_an_abandoned_write_finish() {
    drains_at("INT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let app = Origin::start(versioned());
        let mut sidecar =
            ChildSidecar::spawn(&format!("url = \"http://{}\"", app.address), VERSIONED_RULES)
                .await;
        let hold = app.hold("GET", "/v/slow", Point::Before);
        let mut client = Client::new(sidecar.address);
        let asked = tokio::spawn(async move { client.try_send("GET", "/v/slow", &[], "").await });
        hold.arrived().await;
        sidecar.signal(first);
        eventually("no new connection is taken", LONG_ENOUGH, async || {
            TcpStream::connect(sidecar.address).await.is_err()
        })
        .await;
        assert!(sidecar.ended().is_none());
        sidecar.signal(second);
        let status = sidecar.end(LONG_ENOUGH).await;
        println!("{first}, {second}: {status}");
        assert!(
            asked.await.expect("the client does not panic").is_err(),
            "nothing more was answered"
        );
        hold.release();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sidecar_ends_at_once_with_kept_connections_open() {
    let app = Origin::start(versioned());
    let mut sidecar =
        ChildSidecar::spawn(&format!("url = \"http://{}\"", app.address), VERSIONED_RULES).await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.get("/v/a", &[]).await.status, 200);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end(LONG_ENOUGH).await.code(), Some(0));
    drop(client);
}
