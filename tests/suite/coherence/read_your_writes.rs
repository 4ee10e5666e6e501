//! A write through one sidecar is seen by the next read through any other: always, and with fills
//! under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Point, RedisServer, Sidecar, eventually};

/// Two sidecars that share a Redis, in front of an app that counts versions.
async fn pair() -> (RedisServer, Origin, [Sidecar; 2]) {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let rules = format!("{}\n{VERSIONED_RULES}", redis.table());
    let sidecars =
        [Sidecar::start(app.address, &rules).await, Sidecar::start(app.address, &rules).await];
    // Both have found Redis once what one stored is a hit through the other.
    let probe = AtomicU64::new(0);
    eventually("the sidecars share Redis", Duration::from_secs(10), || async {
        let path = format!("/v/probe-{}", probe.fetch_add(1, Ordering::Relaxed));
        Client::new(sidecars[0].address).get(&path, &[]).await;
        let first = Client::new(sidecars[1].address).get(&path, &[]).await;
        Client::new(sidecars[1].address).get(&path, &[]).await;
        first.cache() == "HIT"
    })
    .await;
    (redis, app, sidecars)
}

/// What a reader saw: reads in all, and hits among them.
async fn hammer(
    mut client: Client,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> (u64, u64) {
    let (mut reads, mut hits) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let floor = acknowledged.load(Ordering::SeqCst);
        let reply = client.get("/v/a", &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let version: u64 = reply.text().parse().expect("the app answers a number");
        assert!(
            version >= floor,
            "a read that began after write {floor} was answered got {version} ({})",
            reply.cache_status()
        );
        reads += 1;
        hits += u64::from(reply.cache() == "HIT");
        tokio::task::yield_now().await;
    }
    (reads, hits)
}

async fn writes_are_seen(writes: u64) {
    let (_redis, app, sidecars) = pair().await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            tokio::spawn(hammer(
                Client::new(sidecars[reader % 2].address),
                Arc::clone(&acknowledged),
                Arc::clone(&stop),
            ))
        })
        .collect();
    let mut clients = sidecars.each_ref().map(|sidecar| Client::new(sidecar.address));
    for write in 1..=writes {
        let through = usize::from(write % 2 == 0);
        let put = clients[through].send("PUT", "/w/a", &[], "").await;
        assert_eq!((put.status, put.text()), (200, write.to_string().as_str()));
        acknowledged.store(write, Ordering::SeqCst);
        let read = clients[1 - through].get("/v/a", &[]).await;
        assert_eq!(
            read.text(),
            write.to_string(),
            "read through the other sidecar after write {write}: {}",
            read.header("cache-status")
        );
        assert!(
            !readers.iter().any(tokio::task::JoinHandle::is_finished),
            "a reader failed during write {write}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    let (mut reads, mut hits) = (0, 0);
    for reader in readers {
        let seen = reader.await.expect("no reader saw an old version");
        reads += seen.0;
        hits += seen.1;
    }
    // Otherwise the test would show nothing: without a cache everything is fresh.
    assert!(hits * 10 > reads, "only {hits} of {reads} reads were hits");
    let fetched = u64::try_from(app.count("GET", "/v/a")).expect("a count");
    assert!(fetched < reads + writes, "no read was answered from the cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_is_seen_by_the_next_read_through_the_other_sidecar() {
    writes_are_seen(300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_each_of_ten_thousand_writes_is_seen_by_the_next_read_through_the_other_sidecar() {
    writes_are_seen(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_through_another_sidecar_during_a_fill_kills_the_fill() {
    let (_redis, app, sidecars) = pair().await;
    purge_during_fill(&app, sidecars[0].address, sidecars[1].address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_through_the_same_sidecar_during_a_fill_kills_the_fill() {
    let (_redis, app, sidecars) = pair().await;
    purge_during_fill(&app, sidecars[0].address, sidecars[0].address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_during_a_fill_kills_the_fill_without_redis() {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    purge_during_fill(&app, sidecar.address, sidecar.address).await;
}

/// A fill is held after the app has read version 0; a write makes it version 1; the fill goes on.
async fn purge_during_fill(
    app: &Origin,
    fills: std::net::SocketAddr,
    writes: std::net::SocketAddr,
) {
    let hold = app.hold("GET", "/v/a", Point::After);
    let filling = tokio::spawn(async move { Client::new(fills).get("/v/a", &[]).await });
    hold.arrived().await;

    let put = Client::new(writes).send("PUT", "/w/a", &[], "").await;
    assert_eq!((put.status, put.text()), (200, "1"));

    // A read that begins now must not join the fill, whose data are from before the write.
    let late = tokio::spawn(async move { Client::new(fills).get("/v/a", &[]).await });
    // It may ask the app at once or wait for the fill to end first: both are right.
    let _ = tokio::time::timeout(Duration::from_millis(500), hold.arrived()).await;
    hold.release();
    let before = filling.await.expect("the held read is answered");
    assert_eq!((before.status, before.text()), (200, "0"), "it began before the write");
    let late = late.await.expect("the late read is answered");
    assert_eq!(late.text(), "1", "{}", late.header("cache-status"));

    for address in [fills, writes] {
        let after = Client::new(address).get("/v/a", &[]).await;
        assert_eq!(after.text(), "1", "{}", after.header("cache-status"));
    }
    // Otherwise the test would show nothing: without a cache everything is fresh.
    let kept = Client::new(writes).get("/v/a", &[]).await;
    assert_eq!((kept.cache(), kept.text()), ("HIT", "1"), "{}", kept.header("cache-status"));
}
