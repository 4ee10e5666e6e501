//! The triggers that `sidecache sql postgres` prints: what they notify, by what statement.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_fn;
use parking_lot::Mutex;
use tokio_postgres::{AsyncMessage, NoTls};

use super::shop::triggers;
use crate::support::{CommandLine, PostgresServer, eventually};

/// A database with a table, and what its triggers notify.
struct Notified {
    sql: tokio_postgres::Client,
    told: Arc<Mutex<Vec<String>>>,
    _server: PostgresServer,
}

impl Notified {
    async fn start(table: &str, install: &[&str]) -> Self {
        let server = PostgresServer::start().await;
        let (sql, mut connection) =
            tokio_postgres::connect(&server.url(), NoTls).await.expect("the server answers");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(message) = message {
                    heard.lock().push(message.payload().to_owned());
                }
            }
        });
        sql.batch_execute(&format!("LISTEN sidecache; {table}")).await.expect("a table is made");
        for text in install {
            sql.batch_execute(text).await.expect("the printed SQL is valid");
        }
        Self { sql, told, _server: server }
    }

    /// What a statement notifies, each notification's tags in order.
    async fn after(&self, statement: &str) -> Vec<Vec<String>> {
        self.told.lock().clear();
        self.sql
            .batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        self.sql.batch_execute("NOTIFY sidecache, 'end'").await.expect("it notifies");
        eventually("it has notified", Duration::from_secs(10), || async {
            self.told.lock().last().is_some_and(|last| last == "end")
        })
        .await;
        let told = self.told.lock();
        let tags = |payload: &String| {
            let mut tags: Vec<String> = payload.split(' ').map(str::to_owned).collect();
            tags.sort();
            tags
        };
        told[..told.len() - 1].iter().map(tags).collect()
    }
}

const TABLE: &str =
    "CREATE TABLE campaigns (id bigint PRIMARY KEY, tenant_id text, \"Odd \"\"name\" text)";

#[tokio::test]
async fn each_statement_notifies_once_of_the_rows_before_and_after() {
    let sql = triggers("campaigns", &["campaigns:{tenant_id}", "campaign:{id}"]).await;
    // It may be run again.
    let database = Notified::start(TABLE, &[&sql, &sql]).await;
    let insert = "INSERT INTO campaigns VALUES (1, 'a'), (2, 'a'), (3, 'b')";
    assert_eq!(
        database.after(insert).await,
        [["campaign:1", "campaign:2", "campaign:3", "campaigns:a", "campaigns:b"]]
    );
    let moved = database.after("UPDATE campaigns SET tenant_id = 'c' WHERE id = 1").await;
    assert_eq!(moved, [["campaign:1", "campaigns:a", "campaigns:c"]]);
    let renumbered = database.after("UPDATE campaigns SET id = 9 WHERE id = 1").await;
    assert_eq!(renumbered, [["campaign:1", "campaign:9", "campaigns:c"]]);
    let none: [[&str; 0]; 0] = [];
    assert_eq!(database.after("UPDATE campaigns SET id = 9 WHERE id = 77").await, none);
    assert_eq!(database.after("DELETE FROM campaigns WHERE id = 77").await, none);
    let deleted = database.after("DELETE FROM campaigns WHERE id = 9").await;
    assert_eq!(deleted, [["campaign:9", "campaigns:c"]]);
    let upsert = "INSERT INTO campaigns VALUES (2, 'd'), (5, 'e') ON CONFLICT (id) DO UPDATE SET \
                  tenant_id = excluded.tenant_id";
    let both = database.after(upsert).await.concat();
    for tag in ["campaigns:a", "campaigns:d", "campaigns:e", "campaign:2", "campaign:5"] {
        assert!(both.iter().any(|told| told == tag), "{tag}: {both:?}");
    }
    let truncated = database.after("TRUNCATE campaigns").await;
    assert_eq!(truncated, [["campaign:{id}", "campaigns:{tenant_id}"]]);
    let rolled_back = "BEGIN; INSERT INTO campaigns VALUES (1, 'a'); ROLLBACK";
    assert_eq!(database.after(rolled_back).await, none);
    let dropped =
        CommandLine::new().run(&["sql", "postgres", "--table", "campaigns", "--drop"]).await;
    database.sql.batch_execute(&dropped.out).await.expect("the printed SQL is valid");
    assert_eq!(database.after("INSERT INTO campaigns VALUES (1, 'a')").await, none);
}

/// A row that holds white space, a tag, or a template must not purge what is not its own.
#[tokio::test]
async fn r1420_what_a_row_holds_adds_no_tag() {
    let tags = ["campaigns:{tenant_id}", "odd:{Odd \"name?}"].map(|tag| tag.replace(' ', "_"));
    let table = TABLE.replace("Odd ", "Odd_");
    let sql = triggers("campaigns", &[&tags[0], &tags[1]]).await;
    let database = Notified::start(&table, &[&sql]).await;
    let told = async |value: &str| {
        let value = value.replace('\'', "''");
        let insert = format!(
            "INSERT INTO campaigns SELECT coalesce(max(id), 0) + 1, '{value}' FROM campaigns"
        );
        database.after(&insert).await.concat()
    };
    for (value, tag) in [
        ("a b", "campaigns:a%20b"),
        ("x campaigns:y", "campaigns:x%20campaigns:y"),
        ("a\tb\r\nc", "campaigns:a%09b%0d%0ac"),
        ("ü x", "campaigns:%c3%bc%20x"),
        ("ü", "campaigns:ü"),
        ("'; DROP TABLE campaigns; --", "campaigns:';%20DROP%20TABLE%20campaigns;%20--"),
        ("a\u{1f}b\u{7f}", "campaigns:a%1fb%7f"),
        ("a\\b", "campaigns:a\\b"),
    ] {
        assert_eq!(told(value).await, [tag, "odd:"], "{value:?}");
    }
    // Whoever has no tenant may be anybody's.
    let nobody = "INSERT INTO campaigns VALUES (1000, NULL, 'x')";
    assert_eq!(database.after(nobody).await, [["campaigns:{tenant_id}", "odd:x"]]);
}

/// PostgreSQL refuses a payload of 8000 bytes, and with it the statement.
#[tokio::test]
async fn r1421_more_tags_than_fit_are_told_by_their_templates() {
    let sql = triggers("campaigns", &["campaigns:{tenant_id}", "campaign:{id}"]).await;
    let database = Notified::start(TABLE, &[&sql]).await;
    let families = ["campaign:{id}", "campaigns:{tenant_id}"];
    let many = "INSERT INTO campaigns SELECT n, 't' FROM generate_series(1, 100000) AS n";
    assert_eq!(database.after(many).await, [families]);
    let long = "UPDATE campaigns SET tenant_id = repeat('x', 9000) WHERE id = 1";
    assert_eq!(database.after(long).await, [families]);
    let some =
        database.after("UPDATE campaigns SET tenant_id = 't' WHERE id < 300 AND id > 1").await;
    assert_eq!((some.len(), some[0].len()), (1, 299));
}

#[tokio::test]
async fn the_command_refuses_what_it_cannot_write() {
    for (arguments, expected) in [
        (&["--table", "a\nb", "--tags", "t"][..], "is no name of a table"),
        (&["--table", "a", "--tags", "t {x}"], "contains white space"),
        (&["--table", "a", "--tags", "t:{x"], "without its `}`"),
        (&["--table", "a", "--tags", "t", "--channel", ""], "is no name of a channel"),
        (&["--table", "a"], "--tags"),
    ] {
        let line = [&["sql", "postgres"], arguments].concat();
        let said = CommandLine::new().run(&line).await;
        assert_eq!(said.code, 64, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
    }
}
