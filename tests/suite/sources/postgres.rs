//! PostgreSQL tells of changes: how soon they are seen, whatever is asked meanwhile.

use std::time::Duration;

use rand::Rng as _;
use serde_json::json;
use tokio::time::Instant;

use super::hammer::Hammer;
use super::shop::{CAMPAIGNS, PATIENCE, ROUTES, Shop, in_state, listening, read, source, warmed};
use crate::support::tls::Certificates;
use crate::support::{Client, PostgresServer, RedisServer, Sidecar, eventually, metric};

/// How many changes are made, unless `SIDECACHE_CHANGES` says otherwise.
const CHANGES: usize = 3_000;

/// A statement by a client of the database, which no sidecar sees, was visible after the `ttl`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1400_a_change_by_sql_is_seen_by_the_next_read() {
    let shop = Shop::open().await;
    let sidecar = shop.sidecar("").await;
    let hammer = Hammer::start(sidecar.address, super::hammer::changes(CHANGES));
    let sql = shop.server.client().await;
    let change = sql
        .prepare("UPDATE campaigns SET version = version + 1 WHERE id = $1 RETURNING version")
        .await
        .expect("the table is there");
    let (count, mut changer) = (hammer.changes, hammer.changer());
    for _ in 0..count {
        let id = rand::thread_rng().gen_range(1..=CAMPAIGNS);
        let row = sql.query_one(&change, &[&id]).await.expect("the row is there");
        changer.changed(id, row.get(0), Instant::now()).await;
    }
    hammer.judge(vec![changer], Duration::from_millis(50)).await;
    let source = source(&sidecar).await;
    assert_eq!(
        (&source["events"], &source["gaps"], &source["bad_payloads"]),
        (&json!(count), &json!(0), &json!(0))
    );
}

/// Sidecars that share a Redis purge together: one source is enough, and two do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_purge_by_a_source_reaches_all_sidecars() {
    let (shop, redis) = (Shop::open().await, RedisServer::start());
    let with = shop.sidecar(&redis.table()).await;
    let rules = format!("{}\n{ROUTES}", redis.table());
    let without = Sidecar::start(shop.origin.address, &rules).await;
    let sql = shop.server.client().await;
    for sidecar in [&with, &without] {
        warmed(sidecar, "/campaigns/1").await;
    }
    for version in 2..40 {
        sql.execute("UPDATE campaigns SET version = version + 1 WHERE id = 1", &[])
            .await
            .expect("the row is there");
        for sidecar in [&with, &without] {
            let mut client = Client::new(sidecar.address);
            let took = eventually("the change is seen", PATIENCE, || {
                let mut client = std::mem::replace(&mut client, Client::new(sidecar.address));
                async move { read(&mut client, "/campaigns/1").await.0 == version }
            })
            .await;
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }
    assert!(metric(with.admin, "sidecache_purges_total{by=\"source\",kind=\"hard\"}").await >= 38);
}

/// Only TLS that can be verified is spoken, with a certificate for the name in the URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_speaks_tls_with_a_server_that_it_can_verify() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (certificate, key) = ours.server();
    let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("it was made");
    let (certificate, key) = (text(&certificate), text(&key));
    let files = [("server.crt", certificate.as_str()), ("server.key", key.as_str())];
    let shop = Shop::with(PostgresServer::start_with_files("ssl = on", &files).await).await;
    let source_with = |ca: std::path::PathBuf| {
        let lines = format!("ca_file = \"{}\"", ca.display());
        let source = Shop::source_at(shop.server.port, &lines);
        let url = shop.server.url();
        format!("{ROUTES}\n{}", source.replace(&url, &format!("{url}?sslmode=require")))
    };
    let trusting = Sidecar::start(shop.origin.address, &source_with(ours.ca())).await;
    listening(&trusting).await;
    let encrypted: i64 = shop
        .server
        .client()
        .await
        .query_one(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND \
             application_name = 'sidecache'",
            &[],
        )
        .await
        .expect("the view is there")
        .get(0);
    assert_eq!(encrypted, 1);
    let doubting = Sidecar::start(shop.origin.address, &source_with(others.ca())).await;
    in_state(&doubting, "deaf").await;
    let why = source(&doubting).await["why"].to_string();
    assert!(why.to_lowercase().contains("certificate"), "{why}");
}

/// The password of a database is nowhere to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_source_says_of_itself_holds_no_secret() {
    let shop = Shop::open().await;
    let rules = format!("{ROUTES}\n{}", Shop::source_at(shop.server.port, "name = \"shop-db\""));
    let sidecar = Sidecar::spawn_logged(shop.origin.address, &rules).await;
    listening(&sidecar).await;
    let wrong = rules.replace("hunter", "hunter2");
    sidecar.rewrite(&wrong);
    in_state(&sidecar, "deaf").await;
    let ready = sidecar.admin_get("/ready").await;
    let (code, ready) = (ready.status, ready.text().to_owned());
    assert_eq!(code, 200);
    assert!(
        ready.contains("degraded") && ready.contains("the source shop-db (postgres) is deaf"),
        "{ready}"
    );
    assert!(ready.contains("28P01") && ready.contains("for 2s at most"), "{ready}");
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    assert!(metrics.contains("sidecache_source_listening{source=\"shop-db\"} 0"), "{metrics}");
    sidecar.rewrite(&rules);
    listening(&sidecar).await;
    let checked = crate::support::sidecar::check(&sidecar.with_rules(&format!(
        "{rules}\n[[sources]]\nkind = \"postgres\"\nurl = \"postgres://app:hunter3@:x\"\n\
         tags = [\"campaign:{{id}}\"]"
    )));
    let checked = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.contains("this URL cannot be parsed"), "{checked}");
    let stats = sidecar.admin_get("/stats").await.text().to_owned();
    let reloaded = sidecar.admin_ok("/check", &json!({ "text": sidecar.with_rules(&wrong) })).await;
    assert!(reloaded.to_string().contains("source shop-db"), "{reloaded}");
    for text in [ready, stats, metrics, sidecar.said(), checked, reloaded.to_string()] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

/// A reload begins and ends sources, and leaves those alone that it does not change.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reload_begins_and_ends_sources() {
    let shop = Shop::open().await;
    let sidecar = Sidecar::start(shop.origin.address, ROUTES).await;
    let reload = async |rules: &str| {
        sidecar.rewrite(rules);
        sidecar.admin_ok("/reload", &json!({})).await
    };
    assert_eq!(sidecar.stats().await["sources"], json!([]));
    let one = format!("{ROUTES}\n{}", Shop::source_at(shop.server.port, ""));
    reload(&one).await;
    listening(&sidecar).await;
    let asked = json!({ "method": "GET", "target": "/campaigns/1" });
    let explained = sidecar.admin_ok("/explain", &asked).await.to_string();
    assert!(explained.contains("postgres (postgres), listening"), "{explained}");
    let since = source(&sidecar).await["since_ms"].clone();
    warmed(&sidecar, "/campaigns/1").await;
    let two = format!("{one}\n{}", Shop::source_at(shop.server.port, "channel = \"other\""));
    reload(&two).await;
    eventually("the second source listens", PATIENCE, || async {
        sidecar.stats().await["sources"][1]["state"] == "listening"
    })
    .await;
    let first = source(&sidecar).await;
    assert_eq!((&first["since_ms"], &first["gaps"]), (&since, &json!(0)));
    reload(ROUTES).await;
    let sessions = async || -> i64 {
        let sql = shop.server.client().await;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sidecache'";
        sql.query_one(count, &[]).await.expect("the view is there").get(0)
    };
    eventually("its connections end", PATIENCE, async || sessions().await == 0).await;
    let stats = sidecar.stats().await;
    assert_eq!((&stats["sources"], &stats["ready"]["status"]), (&json!([]), &json!("ready")));
    let mut client = Client::new(sidecar.address);
    warmed(&sidecar, "/campaigns/1").await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(read(&mut client, "/campaigns/1").await.1, "nothing limits it any more");
}
