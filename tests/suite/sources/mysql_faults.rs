//! What a source of a MariaDB may miss is purged, and what goes wrong is said.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::mysql_shop::{MysqlShop, change, run, told};
use super::shop::{PATIENCE, ROUTES, in_state, listening, read, source, warmed};
use crate::support::process::signal;
use crate::support::tls::Certificates;
use crate::support::{Client, Fault, FaultProxy, MariaDbServer, Sidecar, eventually, metric};

/// The line of the source that says what it is.
const KIND: &str = "kind = \"mysql\"";

/// Until it hears again, everything is stored for an hour here: only the purge of the families
/// afterwards can show the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1444_what_a_deaf_source_has_missed_is_purged_when_it_hears_again() {
    let mut shop = MysqlShop::open().await;
    let proxy = FaultProxy::start(shop.server.port).await;
    let source_lines = MysqlShop::source_at(proxy.address.port(), "degraded_ttl = \"1h\"");
    let rules = format!("{ROUTES}\n{source_lines}");
    let sidecar = Sidecar::start(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    for (gaps, fault) in (1..).zip([Fault::Cut, Fault::Freeze, Fault::FreezeAnswers, Fault::None]) {
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
            run(&mut shop.server.client().await, &change(1)).await;
            let mut client = Client::new(sidecar.address);
            assert_eq!(read(&mut client, "/campaigns/1").await, (before, true), "{fault:?}");
        }
        let mut client = Client::new(sidecar.address);
        assert!(read(&mut client, "/about").await.1, "no source tells of it");
        proxy.set(Fault::None);
        listening(&sidecar).await;
        assert_eq!(source(&sidecar).await["gaps"], json!(gaps));
        if fault != Fault::None {
            // Otherwise the app has lost its connection as well.
            let expected = (before + 1, false);
            assert_eq!(read(&mut client, "/campaigns/1").await, expected, "{fault:?}");
        }
        assert!(read(&mut client, "/about").await.1, "no source tells of it");
    }
}

/// A replica, or a primary that is one no longer, shows what others write too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1445_a_server_that_becomes_read_only_makes_the_source_deaf() {
    let shop = MysqlShop::open().await;
    let sidecar = shop.sidecar("every = \"50ms\"").await;
    let mut sql = shop.server.client().await;
    run(&mut sql, "SET GLOBAL read_only = 1").await;
    in_state(&sidecar, "deaf").await;
    let why = source(&sidecar).await["why"].to_string();
    assert!(why.contains("read-only") && why.contains("primary"), "{why}");
    run(&mut sql, "SET GLOBAL read_only = 0").await;
    listening(&sidecar).await;
}

/// Rows that were deleted while a sidecar stood still were read by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1446_a_sidecar_that_stood_still_takes_that_for_a_gap() {
    let shop = MysqlShop::open().await;
    let sidecar = Sidecar::spawn(shop.origin.address, &shop.rules("every = \"50ms\"")).await;
    listening(&sidecar).await;
    let mut sql = shop.server.client().await;
    run(&mut sql, &change(2)).await;
    told(&sidecar, 1).await;
    let before = warmed(&sidecar, "/campaigns/1").await;
    signal(sidecar.pid(), "STOP");
    run(&mut sql, &change(1)).await;
    run(&mut sql, &change(2)).await;
    // As another sidecar does later: the row of the first campaign is never read.
    let delete = "DELETE FROM sidecache_changes WHERE payload LIKE '%\"id\": \"1\"%'";
    run(&mut sql, delete).await;
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    signal(sidecar.pid(), "CONT");
    let went_on = Instant::now();
    while read(&mut Client::new(sidecar.address), "/campaigns/1").await.0 == before {
        assert!(went_on.elapsed() < PATIENCE, "it is never purged");
    }
    assert_eq!(source(&sidecar).await["gaps"], json!(1));
}

/// A hundred thousand rows, each of one statement, are purged in time and take little memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1447_a_storm_of_rows_is_bounded() {
    const STORM: u64 = 100_000;
    let shop = MysqlShop::open().await;
    let sidecar = Sidecar::spawn(shop.origin.address, &shop.rules("")).await;
    listening(&sidecar).await;
    let mut sql = shop.server.client().await;
    let rows = format!(
        "INSERT INTO campaigns SELECT seq + 100, CONCAT('tenant', seq), 1 FROM seq_1_to_{STORM}"
    );
    let began = Instant::now();
    run(&mut sql, &rows).await;
    let (inserted, before) = (began.elapsed(), sidecar.resident());
    for statement in [
        "UPDATE campaigns SET version = version + 1 WHERE id > 100",
        "DELETE FROM campaigns WHERE id > 100",
    ] {
        run(&mut sql, statement).await;
    }
    warmed(&sidecar, "/campaigns/8").await;
    let began = Instant::now();
    run(&mut sql, &change(8)).await;
    let mut client = Client::new(sidecar.address);
    while read(&mut client, "/campaigns/8").await.0 < 2 {
        assert!(began.elapsed() < PATIENCE, "the last change is never seen");
    }
    let (took, grown) = (began.elapsed(), sidecar.resident().saturating_sub(before));
    println!(
        "{STORM} rows inserted in {inserted:?}; the change after three storms is seen after \
         {took:?}, {grown} bytes"
    );
    assert!(grown < 64 << 20, "{grown} bytes more");
    eventually("all of them are counted", PATIENCE, || async {
        source(&sidecar).await["events"].as_u64() >= Some(3 * STORM + 1)
    })
    .await;
    let state = source(&sidecar).await;
    assert_eq!((&state["state"], &state["gaps"]), (&json!("listening"), &json!(0)), "{state}");
    let limit = "sidecache_limit_reached_total{limit=\"sources.rate\"}";
    assert!(metric(sidecar.admin, limit).await >= 1);
}

/// What is no tag of the source purges nothing, not even the part of it that is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1448_a_row_that_is_no_tag_purges_nothing() {
    let shop = MysqlShop::open().await;
    let rules = shop.rules("every = \"50ms\"");
    let sidecar = Sidecar::spawn_logged(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    warmed(&sidecar, "/campaigns/1").await;
    let mut sql = shop.server.client().await;
    let bad = [
        "users:7",
        "campaign:1 users:7",
        "{\"id\": 1",
        "users:{id}\n{\"id\": \"1\"}",
        "pages",
        "\u{1b}[31m campaign:1",
    ];
    let insert = "INSERT INTO sidecache_changes (payload) VALUES (?)";
    for payload in bad {
        use mysql_async::prelude::Queryable as _;
        sql.exec_drop(insert, (payload,)).await.expect("the table is there");
    }
    let name = "sidecache_source_bad_payloads_total{source=\"mysql\"}";
    eventually("all of them are counted", PATIENCE, || async {
        metric(sidecar.admin, name).await == bad.len() as u64
    })
    .await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(read(&mut client, "/campaigns/1").await, (1, true));
    let log = sidecar.said();
    assert!(log.contains("`users:7` is no tag") && !log.contains('\u{1b}'), "{log}");
    // Names of tags, by any client.
    run(&mut sql, "INSERT INTO sidecache_changes (payload) VALUES ('campaign:1 campaign:2')").await;
    eventually("it is purged", PATIENCE, || async {
        !read(&mut Client::new(sidecar.address), "/campaigns/1").await.1
    })
    .await;
}

/// Whoever is refused says why, and nobody sees the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1449_what_the_server_refuses_is_said_without_the_password() {
    let shop = MysqlShop::open().await;
    let rules = shop.rules("name = \"shop-db\"");
    let sidecar = Sidecar::spawn_logged(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    let mut texts = Vec::new();
    let port = shop.server.port;
    for (from, to, expected) in [
        ("hunter", "hunter2", "Access denied for user 'sidecache'@'127.0.0.1'"),
        ("/app", "/other", "other"),
        (KIND, "kind = \"mysql\"\ntable = \"nothing\"", "command denied to user"),
        (KIND, "kind = \"mysql\"\ntable = \"campaigns\"", "GRANT SELECT on the table"),
        (&format!(":{port}"), ":1", "refused"),
        (&format!("127.0.0.1:{port}/app"), "127.0.0.1/app?socket=/nowhere/s", "No such file"),
        (
            &format!("127.0.0.1:{port}/app"),
            &format!("127.0.0.1:{}/app", shop.origin.address.port()),
            "",
        ),
        (
            &format!("127.0.0.1:{port}/app"),
            &format!("127.0.0.1:{port}/app?sslmode=require"),
            "the server does not offer TLS",
        ),
    ] {
        let wrong = rules.replace(from, to);
        assert_ne!(wrong, rules);
        sidecar.rewrite(&wrong);
        sidecar.admin_ok("/reload", &json!({})).await;
        eventually(expected, PATIENCE, || async {
            let source = source(&sidecar).await;
            source["state"] == "deaf" && source["why"].to_string().contains(expected)
        })
        .await;
        let ready = sidecar.admin_get("/ready").await.text().to_owned();
        assert!(ready.contains("the source shop-db (mysql) is deaf"), "{ready}");
        println!("{ready}");
        texts.push(ready);
        sidecar.rewrite(&rules);
        sidecar.admin_ok("/reload", &json!({})).await;
        listening(&sidecar).await;
    }
    // A table that is not there, for a user who may see that.
    let mut sql = shop.server.client().await;
    run(&mut sql, "GRANT SELECT ON app.* TO sidecache@'%'").await;
    sidecar.rewrite(&rules.replace(KIND, "kind = \"mysql\"\ntable = \"nothing\""));
    sidecar.admin_ok("/reload", &json!({})).await;
    eventually("it says so", PATIENCE, || async {
        let why = source(&sidecar).await["why"].to_string();
        why.contains("'app.nothing' doesn't exist") && why.contains("`sidecache sql mysql` prints")
    })
    .await;
    texts.push(sidecar.admin_get("/stats").await.text().to_owned());
    texts.push(sidecar.said());
    for text in texts {
        assert!(!text.contains("hunter"), "{text}");
    }
}

/// Only TLS that can be verified is spoken, with a certificate for the name in the URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_of_mariadb_speaks_tls_with_a_server_that_it_can_verify() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (certificate, key) = ours.server();
    let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("it was made");
    let (certificate, key) = (text(&certificate), text(&key));
    let files = [("server.crt", certificate.as_str()), ("server.key", key.as_str())];
    let flags = ["--ssl-cert={}/server.crt", "--ssl-key={}/server.key"];
    let shop = MysqlShop::with(MariaDbServer::start_with(&flags, &files).await).await;
    let require = "ALTER USER sidecache@'%' REQUIRE SSL";
    run(&mut shop.server.client().await, require).await;
    let rules = |ca: std::path::PathBuf| {
        let lines = format!("ca_file = \"{}\"", ca.display());
        shop.rules(&lines).replace("/app\"", "/app?sslmode=require\"")
    };
    let trusting = Sidecar::start(shop.origin.address, &rules(ours.ca())).await;
    listening(&trusting).await;
    let doubting = Sidecar::start(shop.origin.address, &rules(others.ca())).await;
    in_state(&doubting, "deaf").await;
    let why = source(&doubting).await["why"].to_string();
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let clear = Sidecar::start(shop.origin.address, &shop.rules("")).await;
    in_state(&clear, "deaf").await;
    // A socket of this machine is as good.
    run(&mut shop.server.client().await, "ALTER USER sidecache@'%' REQUIRE NONE").await;
    let socket = format!("/app?socket={}\"", shop.server.socket().display());
    let local =
        Sidecar::start(shop.origin.address, &shop.rules("").replace("/app\"", &socket)).await;
    listening(&local).await;
}

/// A reload begins and ends sources, and names them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reload_begins_and_ends_sources_of_mariadb() {
    let shop = MysqlShop::open().await;
    let sidecar = Sidecar::start(shop.origin.address, ROUTES).await;
    let reload = async |rules: &str| {
        sidecar.rewrite(rules);
        sidecar.admin_ok("/reload", &json!({})).await
    };
    reload(&shop.rules("")).await;
    listening(&sidecar).await;
    let asked = json!({ "method": "GET", "target": "/campaigns/1" });
    let explained = sidecar.admin_ok("/explain", &asked).await.to_string();
    assert!(explained.contains("mysql (mysql), listening"), "{explained}");
    assert_eq!(source(&sidecar).await["kind"], json!("mysql"));
    reload(ROUTES).await;
    let sessions = async || -> i64 {
        use mysql_async::prelude::Queryable as _;
        let mut sql = shop.server.client().await;
        let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'sidecache'";
        sql.query_first(count).await.expect("the view is there").expect("a number")
    };
    eventually("its connections end", PATIENCE, async || sessions().await == 0).await;
}
