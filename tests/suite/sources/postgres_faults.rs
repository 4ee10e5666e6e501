//! What a source may miss is purged, and what it cannot hear of is stored for a short time alone.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::shop::{PATIENCE, ROUTES, Shop, in_state, listening, read, source, warmed};
use crate::support::{Client, Fault, FaultProxy, Sidecar, eventually, metric};

const CHANGE: &str = "UPDATE campaigns SET version = version + 1 WHERE id = 1";

/// A sidecar whose source goes through this proxy.
async fn behind(shop: &Shop, proxy: &FaultProxy, lines: &str) -> Sidecar {
    let source = Shop::source_at(proxy.address.port(), lines);
    let sidecar = Sidecar::start(shop.origin.address, &format!("{ROUTES}\n{source}")).await;
    listening(&sidecar).await;
    sidecar
}

/// Until it hears again, everything is stored for an hour here: only the purge of the families
/// afterwards can show the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1410_what_a_deaf_source_has_missed_is_purged_when_it_hears_again() {
    let mut shop = Shop::open().await;
    let proxy = FaultProxy::start(shop.server.port).await;
    let sidecar = behind(&shop, &proxy, "degraded_ttl = \"1h\"").await;
    let mut gaps = 0;
    for fault in [Fault::Cut, Fault::Freeze, Fault::FreezeAnswers, Fault::None] {
        let before = warmed(&sidecar, "/campaigns/1").await;
        warmed(&sidecar, "/about").await;
        if fault == Fault::None {
            shop.server.kill();
            in_state(&sidecar, "deaf").await;
            shop.server.restart().await;
        } else {
            proxy.set(fault);
            in_state(&sidecar, "deaf").await;
            assert_eq!(warmed(&sidecar, "/campaigns/1").await, before);
            let sql = shop.server.client().await;
            sql.execute(CHANGE, &[]).await.expect("the row is there");
            let mut client = Client::new(sidecar.address);
            assert_eq!(read(&mut client, "/campaigns/1").await, (before, true), "{fault:?}");
        }
        let mut client = Client::new(sidecar.address);
        assert!(read(&mut client, "/about").await.1, "no source tells of it");
        proxy.set(Fault::None);
        listening(&sidecar).await;
        gaps += 1;
        if fault == Fault::None {
            // The app has lost its connection as well.
            assert_eq!(source(&sidecar).await["gaps"], json!(gaps));
            continue;
        }
        let expected = (before + 1, false);
        assert_eq!(read(&mut client, "/campaigns/1").await, expected, "{fault:?}");
        assert!(read(&mut client, "/about").await.1, "no source tells of it");
        assert_eq!(source(&sidecar).await["gaps"], json!(gaps));
    }
}

/// A source that cannot hear leaves what it could purge stale for `degraded_ttl`, and not for the
/// hour of the route, nor for its stale window.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1411_a_deaf_source_bounds_what_it_could_have_purged() {
    const TTL: Duration = Duration::from_millis(400);
    let shop = Shop::open().await;
    let proxy = FaultProxy::start(shop.server.port).await;
    let sidecar = behind(&shop, &proxy, "degraded_ttl = \"400ms\"").await;
    warmed(&sidecar, "/tenants/acme").await;
    warmed(&sidecar, "/about").await;
    proxy.set(Fault::Freeze);
    let frozen = Instant::now();
    in_state(&sidecar, "deaf").await;
    let took = frozen.elapsed();
    println!("deaf after {took:?}");
    let sql = shop.server.client().await;
    let mut client = Client::new(sidecar.address);
    for _ in 0..10 {
        let before = warmed(&sidecar, "/tenants/acme").await;
        sql.execute(CHANGE, &[]).await.expect("the row is there");
        let changed = Instant::now();
        while read(&mut client, "/tenants/acme").await.0 == before {
            assert!(changed.elapsed() < TTL + Duration::from_millis(500), "it outlives its time");
        }
    }
    let asked = shop.origin.count("GET", "/about");
    assert!(read(&mut client, "/about").await.1, "no source tells of it");
    assert_eq!(shop.origin.count("GET", "/about"), asked);
}

/// A start without the database bounds what other sidecars have stored before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_that_never_hears_bounds_what_is_stored_from_the_start() {
    let mut shop = Shop::open().await;
    let source = Shop::source_at(shop.server.port, "degraded_ttl = \"300ms\"");
    shop.origin.answers(|_| crate::support::Response::ok("1"));
    shop.server.kill();
    let sidecar = Sidecar::start(shop.origin.address, &format!("{ROUTES}\n{source}")).await;
    in_state(&sidecar, "deaf").await;
    let mut client = Client::new(sidecar.address);
    warmed(&sidecar, "/campaigns/1").await;
    let (began, before) = (Instant::now(), shop.origin.count("GET", "/campaigns/1"));
    while began.elapsed() < Duration::from_secs(2) {
        read(&mut client, "/campaigns/1").await;
    }
    // Some of them in the background, shortly before an entry ends.
    let asked = shop.origin.count("GET", "/campaigns/1") - before;
    assert!((4..=40).contains(&asked), "asked {asked} times in two seconds of 300 ms each");
}

/// A hundred thousand notifications, and a statement that changes as many rows, are purged in time
/// and take little memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1412_a_storm_of_notifications_is_bounded() {
    const STORM: i64 = 100_000;
    let shop = Shop::open().await;
    let rules = format!("{ROUTES}\n{}", Shop::source_at(shop.server.port, ""));
    let sidecar = Sidecar::spawn(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    let sql = shop.server.client().await;
    warmed(&sidecar, "/campaigns/8").await;
    let before = sidecar.resident();
    let names = format!(
        "SELECT count(pg_notify('sidecache', 'campaign:x' || n || repeat('y', 200))) FROM \
         generate_series(1, {STORM}) AS n"
    );
    let began = Instant::now();
    sql.batch_execute(&names).await.expect("it notifies");
    sql.execute("UPDATE campaigns SET version = version + 1 WHERE id = 8", &[])
        .await
        .expect("the row is there");
    let mut client = Client::new(sidecar.address);
    while read(&mut client, "/campaigns/8").await.0 < 2 {
        assert!(began.elapsed() < PATIENCE, "the last change is never seen");
    }
    let (took, grown) = (began.elapsed(), sidecar.resident().saturating_sub(before));
    println!("{STORM} notifications: the change after them is seen after {took:?}, {grown} bytes");
    assert!(grown < 64 << 20, "{grown} bytes more");
    // The families were purged before all of them were read.
    eventually("all of them are counted", PATIENCE, || async {
        source(&sidecar).await["events"] == json!(STORM + 1)
    })
    .await;
    let state = source(&sidecar).await;
    assert_eq!((&state["state"], &state["gaps"]), (&json!("listening"), &json!(0)), "{state}");
    let limit = "sidecache_limit_reached_total{limit=\"sources.rate\"}";
    assert!(metric(sidecar.admin, limit).await >= 1);
    // As many rows by one statement are one notification, of the families.
    let rows = format!(
        "INSERT INTO campaigns SELECT n, 'tenant' || n, 1 FROM generate_series(100, {STORM}) AS n"
    );
    let events = state["events"].as_i64().expect("a number");
    warmed(&sidecar, "/tenants/acme").await;
    sql.batch_execute(&rows).await.expect("rows are added");
    eventually("its families are purged", PATIENCE, || async {
        source(&sidecar).await["events"] == json!(events + 1)
            && !read(&mut Client::new(sidecar.address), "/tenants/acme").await.1
    })
    .await;
}

/// What is no tag of the source purges nothing, not even the part of it that is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1413_a_payload_that_is_no_tag_purges_nothing() {
    let shop = Shop::open().await;
    let rules = format!("{ROUTES}\n{}", Shop::source_at(shop.server.port, ""));
    let sidecar = Sidecar::spawn_logged(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    warmed(&sidecar, "/campaigns/1").await;
    let sql = shop.server.client().await;
    let bad = [
        "users:7",
        "campaign:1 users:7",
        "{\"id\": 1",
        "{\"tenant\": \"acme\"}",
        "pages",
        "\u{1b}[31m campaign:1",
    ];
    for payload in bad {
        sql.execute("SELECT pg_notify('sidecache', $1)", &[&payload]).await.expect("it notifies");
    }
    for _ in 0..500 {
        sql.execute("SELECT pg_notify('sidecache', repeat('z', 7000))", &[])
            .await
            .expect("it notifies");
        // More than 500 within 100 ms are a storm, of which nothing is read.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let expected = bad.len() as u64 + 500;
    let name = "sidecache_source_bad_payloads_total{source=\"postgres\"}";
    eventually("all of them are counted", PATIENCE, || async {
        metric(sidecar.admin, name).await == expected
    })
    .await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(read(&mut client, "/campaigns/1").await, (1, true));
    let log = sidecar.said();
    assert!(log.contains("`users:7` is no tag") && log.len() < 100_000, "{} bytes", log.len());
    assert!(!log.contains('\u{1b}'), "{log}");
    // An object that is one, by any client.
    sql.execute("SELECT pg_notify('sidecache', '{\"id\": 1}')", &[]).await.expect("it notifies");
    eventually("it is purged", PATIENCE, || async {
        !read(&mut Client::new(sidecar.address), "/campaigns/1").await.1
    })
    .await;
    let source = source(&sidecar).await;
    assert_eq!((&source["state"], &source["gaps"]), (&json!("listening"), &json!(0)));
}
