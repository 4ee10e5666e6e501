//! A MariaDB tells of changes by rows that triggers write: how soon they are seen, and that none is
//! missed.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::hammer::Hammer;
use super::mysql_shop::{EVERY, MysqlShop, change, run, told};
use super::shop::{CAMPAIGNS, PATIENCE, listening, read, source, warmed};
use crate::support::{Client, eventually, metric};

/// How many changes are made, unless `SIDECACHE_CHANGES` says otherwise.
const CHANGES: usize = 300;

/// A statement by a client of the database, which no sidecar sees, was visible after the `ttl`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1432_a_change_by_sql_is_seen_by_the_next_reading_of_the_table() {
    let shop = MysqlShop::open().await;
    let sidecar = shop.sidecar("").await;
    let hammer = Hammer::start(sidecar.address, super::hammer::changes(CHANGES));
    let changers = (1..=CAMPAIGNS).map(|id| {
        let (mut changer, count) = (hammer.changer(), hammer.share_of(id));
        let client = shop.server.client();
        async move {
            let mut sql = client.await;
            for version in 2..2 + count {
                // The changes fall anywhere between two readings.
                sleep(EVERY.mul_f64(rand::random())).await;
                run(&mut sql, &change(id)).await;
                changer.changed(id, version, Instant::now()).await;
            }
            changer
        }
    });
    let changers = futures_util::future::join_all(changers).await;
    let count = hammer.changes;
    hammer.judge(changers, EVERY / 2 + Duration::from_millis(50)).await;
    let source = source(&sidecar).await;
    assert_eq!(
        (source["events"].as_u64() >= Some(count as u64), &source["gaps"]),
        (true, &json!(0)),
        "{source}"
    );
    assert_eq!(source["bad_payloads"], json!(0));
}

/// Ids are given when rows are inserted, and rows are seen when they are committed: a reader of the
/// highest id alone misses those that are committed late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1433_transactions_that_commit_out_of_order_are_all_told() {
    let shop = MysqlShop::open().await;
    let sidecar = shop.sidecar("every = \"50ms\"").await;
    let (mut slow, mut fast) = (shop.server.client().await, shop.server.client().await);
    let mut events = source(&sidecar).await["events"].as_u64().expect("a number");
    for round in 0..10 {
        let before = warmed(&sidecar, "/campaigns/1").await;
        run(&mut slow, "BEGIN").await;
        run(&mut slow, &change(1)).await;
        // Others pass it by, and some leave ids that never come.
        for id in 2..=4 {
            run(&mut fast, &change(id)).await;
            run(&mut fast, "BEGIN").await;
            run(&mut fast, &change(id)).await;
            run(&mut fast, if round % 2 == 0 { "ROLLBACK" } else { "COMMIT" }).await;
            events += if round % 2 == 0 { 1 } else { 2 };
        }
        told(&sidecar, events).await;
        let mut client = Client::new(sidecar.address);
        assert_eq!(read(&mut client, "/campaigns/1").await, (before, true), "not committed yet");
        run(&mut slow, "COMMIT").await;
        events += 1;
        let committed = Instant::now();
        while read(&mut client, "/campaigns/1").await.0 == before {
            assert!(committed.elapsed() < PATIENCE, "round {round}: it is never told");
        }
    }
    told(&sidecar, events).await;
    let source = source(&sidecar).await;
    assert_eq!((&source["events"], &source["gaps"]), (&json!(events), &json!(0)), "{source}");
}

/// Ids that rollbacks leave are given up after `max_transaction`. Those of a transaction that is
/// still open are not, however long it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1434_a_transaction_longer_than_the_limit_is_told() {
    let shop = MysqlShop::open().await;
    let mut before_the_start = shop.server.client().await;
    run(&mut before_the_start, "BEGIN").await;
    run(&mut before_the_start, &change(1)).await;
    run(&mut shop.server.client().await, &change(3)).await;
    let sidecar = shop.sidecar("every = \"50ms\"\nmax_transaction = \"1s\"").await;
    let mut after_it = shop.server.client().await;
    run(&mut after_it, "BEGIN").await;
    run(&mut after_it, &change(2)).await;
    let mut others = shop.server.client().await;
    for _ in 0..3 {
        run(&mut others, "BEGIN").await;
        run(&mut others, &change(4)).await;
        run(&mut others, "ROLLBACK").await;
        run(&mut others, &change(4)).await;
    }
    for path in ["/campaigns/1", "/campaigns/2"] {
        warmed(&sidecar, path).await;
    }
    sleep(Duration::from_millis(3_500)).await;
    for (path, open) in [("/campaigns/1", before_the_start), ("/campaigns/2", after_it)] {
        let (mut open, mut client) = (open, Client::new(sidecar.address));
        assert_eq!(read(&mut client, path).await, (1, true));
        run(&mut open, "COMMIT").await;
        let committed = Instant::now();
        while read(&mut client, path).await.0 == 1 {
            assert!(committed.elapsed() < PATIENCE, "{path} is never told");
        }
    }
    assert_eq!(source(&sidecar).await["gaps"], json!(0));
}

/// A counter that starts again gives ids that were read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1435_a_table_that_begins_anew_is_a_gap() {
    let shop = MysqlShop::open().await;
    let sidecar = shop.sidecar("every = \"50ms\"\ndegraded_ttl = \"1h\"").await;
    let mut sql = shop.server.client().await;
    for _ in 0..5 {
        run(&mut sql, &change(2)).await;
    }
    let make_again = "CREATE TABLE other LIKE sidecache_changes";
    let swap = "RENAME TABLE sidecache_changes TO old, other TO sidecache_changes";
    let resets: [&[&str]; 3] = [
        &["TRUNCATE sidecache_changes"],
        &["DELETE FROM sidecache_changes", "ALTER TABLE sidecache_changes AUTO_INCREMENT = 1"],
        &[make_again, swap],
    ];
    for (gaps, reset) in (1..).zip(resets) {
        run(&mut sql, &change(2)).await;
        eventually("it listens", PATIENCE, || async {
            source(&sidecar).await["state"] == "listening"
        })
        .await;
        let before = warmed(&sidecar, "/campaigns/1").await;
        // The row is told under an id that was read before, or is lost.
        for statement in reset {
            run(&mut sql, statement).await;
        }
        run(&mut sql, &change(1)).await;
        let changed = Instant::now();
        let mut client = Client::new(sidecar.address);
        while read(&mut client, "/campaigns/1").await.0 == before {
            assert!(changed.elapsed() < PATIENCE, "{reset:?}: it is never told");
        }
        eventually("it is a gap", PATIENCE, || async {
            source(&sidecar).await["gaps"] == json!(gaps)
        })
        .await;
        listening(&sidecar).await;
        // From then on, each row is told.
        let before = warmed(&sidecar, "/campaigns/1").await;
        run(&mut sql, &change(1)).await;
        eventually("it is told", PATIENCE, || async {
            read(&mut Client::new(sidecar.address), "/campaigns/1").await.0 == before + 1
        })
        .await;
    }
}

/// More ids are missing than are remembered: everything is purged until it is known again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1436_more_missing_ids_than_are_remembered_purge_everything() {
    let shop = MysqlShop::open().await;
    let rules = "every = \"50ms\"\nmax_transaction = \"2s\"";
    let sidecar = shop.sidecar(rules).await;
    let mut slow = shop.server.client().await;
    run(&mut slow, "BEGIN").await;
    run(&mut slow, &change(1)).await;
    let mut sql = shop.server.client().await;
    // Every other id is missing above the two that there are.
    run(&mut sql, "SET SESSION auto_increment_increment = 2").await;
    for _ in 0..11 {
        let rows = "INSERT INTO sidecache_changes (payload) SELECT 'campaign:0' FROM \
                    seq_1_to_1000";
        run(&mut sql, rows).await;
    }
    let limit = "sidecache_limit_reached_total{limit=\"sources.missing_ids\"}";
    eventually("the limit is reached", PATIENCE, || async {
        metric(sidecar.admin, limit).await == 1
    })
    .await;
    let seen = async |id: i32, sql: &mut mysql_async::Conn, statement: &str| {
        let path = format!("/campaigns/{id}");
        let before = read(&mut Client::new(sidecar.address), &path).await.0;
        run(sql, statement).await;
        let changed = Instant::now();
        while read(&mut Client::new(sidecar.address), &path).await.0 == before {
            assert!(changed.elapsed() < PATIENCE, "{path} is never told");
            sleep(Duration::from_millis(5)).await;
        }
    };
    seen(2, &mut sql, &change(2)).await;
    // The ids are read anew after two seconds. Those that are missing still are too many, until the
    // rows are deleted.
    run(&mut sql, "DELETE FROM sidecache_changes WHERE id > 2").await;
    eventually("what is stored stays", PATIENCE, || async {
        warmed(&sidecar, "/campaigns/1").await;
        sleep(Duration::from_millis(300)).await;
        read(&mut Client::new(sidecar.address), "/campaigns/1").await.1
    })
    .await;
    seen(1, &mut slow, "COMMIT").await;
    listening(&sidecar).await;
}

/// Rows are deleted once all sidecars have read them long ago, and the last one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1437_old_rows_are_deleted() {
    let shop = MysqlShop::open().await;
    let mut sql = shop.server.client().await;
    let rows = "INSERT INTO sidecache_changes (payload) SELECT 'campaign:0' FROM seq_1_to_3000";
    run(&mut sql, rows).await;
    let sidecar = shop.sidecar("every = \"50ms\"\nmax_transaction = \"1s\"").await;
    let began = Instant::now();
    let count = async || -> i64 {
        let count = "SELECT COUNT(*) FROM sidecache_changes";
        let mut sql = shop.server.client().await;
        sql.query_first(count).await.expect("the table is there").expect("a number")
    };
    let mut open = shop.server.client().await;
    run(&mut open, "BEGIN").await;
    run(&mut open, &change(1)).await;
    run(&mut sql, &change(2)).await;
    assert!(count().await > 3_000);
    eventually("the rows are deleted", PATIENCE, async || count().await < 10).await;
    assert!(began.elapsed() > Duration::from_secs(9), "{:?}: too early", began.elapsed());
    // Whoever has no right to delete reads on.
    run(&mut sql, "REVOKE DELETE ON app.sidecache_changes FROM sidecache@'%'").await;
    run(&mut open, "COMMIT").await;
    run(&mut sql, &change(2)).await;
    told(&sidecar, 3).await;
    let source = source(&sidecar).await;
    assert_eq!((&source["gaps"], &source["state"]), (&json!(0), &json!("listening")), "{source}");
    assert!(count().await > 0);
}
