//! The triggers that `sidecache sql mysql` prints: what they write, by what statement.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::mysql_shop::{run, triggers};
use crate::support::{CommandLine, MariaDbServer};

/// A database with a table, and what its triggers write.
struct Told {
    sql: Conn,
    server: MariaDbServer,
}

impl Told {
    async fn start(table: &str, install: &[&str]) -> Self {
        let server = MariaDbServer::start().await;
        let mut sql = server.client().await;
        run(&mut sql, table).await;
        for text in install {
            server.run(text).await;
        }
        Self { sql, server }
    }

    /// What a statement writes.
    async fn after(&mut self, statement: &str) -> Vec<String> {
        let last = "SELECT COALESCE(MAX(id), 0) FROM sidecache_changes";
        let last: Option<u64> = self.sql.query_first(last).await.expect("the table is there");
        run(&mut self.sql, statement).await;
        let rows = "SELECT payload FROM sidecache_changes WHERE id > ? ORDER BY id";
        self.sql.exec(rows, (last,)).await.expect("the table is there")
    }
}

const TABLE: &str = "CREATE TABLE campaigns (id bigint PRIMARY KEY, tenant_id varchar(2000), \
                     `Odd_``name` int) ENGINE = InnoDB";

const TAGS: [&str; 2] = ["campaigns:{tenant_id}", "campaign:{id}"];

/// What is told of rows with these tenants and ids.
fn row(rows: &[(&str, &str)]) -> String {
    let objects = rows.iter().map(|(tenant, id)| {
        let text = |value: &str| match value {
            "" => "null".to_owned(),
            value => format!("\"{value}\""),
        };
        format!("\n{{\"tenant_id\": {}, \"id\": {}}}", text(tenant), text(id))
    });
    format!("{}{}", TAGS.join(" "), objects.collect::<String>())
}

#[tokio::test]
async fn each_row_tells_what_it_was_and_is() {
    let sql = triggers("campaigns", &TAGS).await;
    // It may be run again.
    let mut database = Told::start(TABLE, &[&sql, &sql]).await;
    let told: Vec<String> = database
        .sql
        .query("SELECT payload FROM sidecache_changes")
        .await
        .expect("the table is there");
    assert_eq!(told, [TAGS.join(" "), TAGS.join(" ")], "what was before is told as a whole");
    let insert = "INSERT INTO campaigns (id, tenant_id) VALUES (1, 'a'), (2, 'a'), (3, 'b')";
    assert_eq!(
        database.after(insert).await,
        [row(&[("a", "1")]), row(&[("a", "2")]), row(&[("b", "3")])]
    );
    let moved = database.after("UPDATE campaigns SET tenant_id = 'c' WHERE id = 1").await;
    assert_eq!(moved, [row(&[("a", "1"), ("c", "1")])]);
    let renumbered = database.after("UPDATE campaigns SET id = 9 WHERE id = 1").await;
    assert_eq!(renumbered, [row(&[("c", "1"), ("c", "9")])]);
    let none: [String; 0] = [];
    assert_eq!(database.after("UPDATE campaigns SET id = 9 WHERE id = 77").await, none);
    assert_eq!(database.after("DELETE FROM campaigns WHERE id = 77").await, none);
    assert_eq!(database.after("DELETE FROM campaigns WHERE id = 9").await, [row(&[("c", "9")])]);
    let upsert = "INSERT INTO campaigns (id, tenant_id) VALUES (2, 'd'), (5, 'e') ON DUPLICATE KEY \
                  UPDATE tenant_id = VALUES(tenant_id)";
    assert_eq!(database.after(upsert).await, [row(&[("a", "2"), ("d", "2")]), row(&[("e", "5")])]);
    let replaced = database.after("REPLACE INTO campaigns (id, tenant_id) VALUES (5, 'f')").await;
    let replaced = replaced.concat();
    assert!(replaced.contains("\"e\"") && replaced.contains("\"f\""), "{replaced}");
    run(&mut database.sql, "BEGIN").await;
    assert_eq!(database.after("INSERT INTO campaigns (id) VALUES (50)").await.len(), 1);
    assert_eq!(database.after("ROLLBACK").await, none);
    // What no trigger sees.
    assert_eq!(database.after("TRUNCATE campaigns").await, none);
    let dropped = CommandLine::new().run(&["sql", "mysql", "--table", "campaigns", "--drop"]).await;
    database.server.run(&dropped.out).await;
    assert_eq!(database.after("INSERT INTO campaigns (id) VALUES (1)").await, none);
}

/// A row that holds white space, quotes, a tag, or a template must not purge what is not its own,
/// nor fail the statement of the app.
#[tokio::test]
async fn r1440_what_a_row_holds_adds_no_tag_and_fails_no_statement() {
    let tags = ["campaigns:{tenant_id}", "o'dd\\:{Odd_`name?}"];
    let sql = triggers("campaigns", &tags).await;
    let mut database = Told::start(TABLE, &[&sql]).await;
    let table = "ALTER TABLE campaigns ADD bytes varbinary(2000), ADD day date, ADD price \
                 decimal(6, 2), ADD flag bit(3), ADD kind enum('a', 'ü'), ADD latin varchar(10) \
                 CHARACTER SET latin1";
    run(&mut database.sql, table).await;
    for value in [
        "a b",
        "x campaigns:y",
        "a\tb\r\nc",
        "ü x",
        "'; DROP TABLE campaigns; --",
        "a\u{1f}b\u{7f}",
        "a\\b\"c",
        "\"}\n{\"tenant_id\": \"z\"}",
        "*",
        "campaigns:{tenant_id}",
    ] {
        let insert = "INSERT INTO campaigns (id, tenant_id) SELECT COALESCE(MAX(id), 0) + 1, ? \
                      FROM campaigns";
        database.sql.exec_drop("DELETE FROM sidecache_changes", ()).await.expect("it is there");
        database.sql.exec_drop(insert, (value,)).await.expect("the row is added");
        let told = database.sql.query_first("SELECT payload FROM sidecache_changes").await;
        let told: String = told.expect("the table is there").expect("a row");
        let (head, object) = told.split_once('\n').expect("two lines");
        assert_eq!(head, tags.join(" "));
        let object: serde_json::Value = serde_json::from_str(object).expect(object);
        assert_eq!(object["tenant_id"], value, "{value:?}");
        assert!(object["Odd_`name"].is_null(), "{object}");
    }
    // What no text is made of is nobody's, so anybody's.
    let long = format!("INSERT INTO campaigns (id, tenant_id) VALUES (900, '{}')", "x".repeat(256));
    for insert in [
        "INSERT INTO campaigns (id, tenant_id, `Odd_``name`) VALUES (901, NULL, 7)",
        "INSERT INTO campaigns (id, tenant_id) VALUES (902, '')",
        &long,
    ] {
        let told = database.after(insert).await.concat();
        assert!(told.contains("\"tenant_id\": null"), "{insert}: {told}");
    }
    let more = ["t:{bytes}:{day}:{price}:{flag}:{kind}:{latin}"];
    database.server.run(&triggers("campaigns", &more).await).await;
    for (bytes, expected) in [
        ("0xFF00FE", "{\"bytes\": null, \"day\": \"2026-01-02\", \"price\": \"1.50\""),
        ("'abc'", "{\"bytes\": \"abc\", \"day\": \"2026-01-02\""),
    ] {
        run(&mut database.sql, "DELETE FROM campaigns WHERE id = 1000").await;
        let insert = format!(
            "INSERT INTO campaigns (id, bytes, day, price, flag, kind, latin) VALUES (1000, \
             {bytes}, '2026-01-02', 1.5, b'101', 'ü', 'é')"
        );
        let told = database.after(&insert).await.concat();
        assert!(told.contains(expected), "{told}");
        assert!(told.contains("\"kind\": \"ü\", \"latin\": \"é\""), "{told}");
    }
}

/// The app and the sidecar need no rights but those on the tables that they use, whatever the mode
/// and the character set of a session are.
#[tokio::test]
async fn r1441_triggers_work_for_users_and_sessions_of_all_kinds() {
    let sql = triggers("campaigns", &TAGS).await;
    let mut database = Told::start(TABLE, &[&sql]).await;
    for statement in [
        "CREATE USER writer@'%' IDENTIFIED BY 'w'",
        "GRANT SELECT, INSERT, UPDATE ON app.campaigns TO writer@'%'",
    ] {
        run(&mut database.sql, statement).await;
    }
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(database.server.port)
        .prefer_socket(false)
        .user(Some("writer"))
        .pass(Some("w"))
        .db_name(Some("app"));
    let mut writer = Conn::new(options).await.expect("the user can log in");
    for (id, mode) in (1..).zip([
        "",
        "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT",
        "STRICT_ALL_TABLES,TRADITIONAL",
        "ORACLE",
    ]) {
        run(&mut writer, &format!("SET sql_mode = '{mode}', NAMES latin1")).await;
        run(&mut writer, &format!("INSERT INTO campaigns (id, tenant_id) VALUES ({id}, 'é\\\\')"))
            .await;
    }
    let told: Vec<String> = database
        .sql
        .query("SELECT payload FROM sidecache_changes WHERE payload LIKE '%\"id\": \"4\"%'")
        .await
        .expect("the table is there");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(writer.query_drop("SELECT 1 FROM sidecache_changes").await.is_err());
}

#[tokio::test]
async fn the_command_refuses_what_it_cannot_write() {
    let many: Vec<String> = (0..17).map(|at| format!("t:{{c{at}}}")).collect();
    let mut too_many = vec!["--table", "a", "--tags"];
    too_many.extend(many.iter().map(String::as_str));
    for (arguments, expected) in [
        (&["--table", "a\nb", "--tags", "t"][..], "is no name of a table"),
        (&["--table", ".a", "--tags", "t"], "is no name of a schema"),
        (&["--table", "a", "--tags", "t {x}"], "contains white space"),
        (&["--table", "a", "--tags", "t", "--into", ""], "is no name of a table"),
        (&["--table", "a"], "--tags"),
        (&too_many, "17 columns"),
    ] {
        let line = [&["sql", "mysql"], arguments].concat();
        let said = CommandLine::new().run(&line).await;
        assert_eq!(said.code, 64, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
    }
}
