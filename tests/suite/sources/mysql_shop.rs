//! The shop of [`super::shop`], with its data in a MariaDB.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::shop::{CAMPAIGNS, PATIENCE, ROUTES, TAGS, listening, source};
use crate::support::{CommandLine, MariaDbServer, Origin, Response, Sidecar, eventually};

/// The interval of the tests' sources.
pub const EVERY: Duration = Duration::from_millis(250);

/// An app with its database, and triggers that tell of changes.
pub struct MysqlShop {
    pub server: MariaDbServer,
    pub origin: Origin,
}

impl MysqlShop {
    pub async fn open() -> Self {
        Self::with(MariaDbServer::start().await).await
    }

    pub async fn with(server: MariaDbServer) -> Self {
        let rows: Vec<String> = (1..=CAMPAIGNS)
            .map(|n| format!("({n}, '{}', 1)", if n <= CAMPAIGNS / 2 { "acme" } else { "bolt" }))
            .collect();
        server
            .run(&format!(
                "CREATE TABLE campaigns (id int PRIMARY KEY, tenant_id varchar(300), version \
                 bigint NOT NULL) ENGINE = InnoDB;\nINSERT INTO campaigns VALUES {};\n",
                rows.join(", ")
            ))
            .await;
        server.run(&triggers("campaigns", &TAGS).await).await;
        server.run("GRANT SELECT, DELETE ON app.sidecache_changes TO sidecache@'%';\n").await;
        let origin = Origin::start(app(server.client().await));
        Self { server, origin }
    }

    /// The source of a database, at this port.
    pub fn source_at(port: u16, lines: &str) -> String {
        format!(
            "[[sources]]\nkind = \"mysql\"\nurl = \"{}\"\ntags = [\"{}\", \"{}\"]\n{lines}\n",
            MariaDbServer::url_at(port),
            TAGS[0],
            TAGS[1]
        )
    }

    /// The rules of the routes and the source, with these lines.
    pub fn rules(&self, lines: &str) -> String {
        format!("{ROUTES}\n{}", Self::source_at(self.server.port, lines))
    }

    /// A sidecar whose source has these lines, and listens.
    pub async fn sidecar(&self, lines: &str) -> Sidecar {
        let sidecar = Sidecar::start(self.origin.address, &self.rules(lines)).await;
        listening(&sidecar).await;
        sidecar
    }
}

/// Counts a campaign's version up.
pub fn change(id: i32) -> String {
    format!("UPDATE campaigns SET version = version + 1 WHERE id = {id}")
}

/// Runs a statement.
pub async fn run(client: &mut Conn, sql: &str) {
    client.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Returns when the first source has been told so often.
pub async fn told(sidecar: &Sidecar, events: u64) {
    eventually("the source has read what was written", PATIENCE, || async {
        source(sidecar).await["events"].as_u64() >= Some(events)
    })
    .await;
}

/// What the command prints for a table.
pub async fn triggers(table: &str, tags: &[&str]) -> String {
    let arguments = ["sql", "mysql", "--table", table, "--tags"];
    let said = CommandLine::new().run(&[&arguments[..], tags].concat()).await;
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

/// Answers from the database, by the path.
fn app(database: Conn) -> impl Fn(&crate::support::Request) -> Response + Send + Sync + 'static {
    let database = Arc::new(Mutex::new(database));
    move |request| {
        let (kind, name) = request.path[1..].split_once('/').unwrap_or((&request.path[1..], ""));
        let (database, name) = (Arc::clone(&database), name.to_owned());
        let column = match kind {
            "campaigns" => "id",
            "tenants" => "tenant_id",
            _ => return Response::ok("1"),
        };
        let query = format!(
            "SELECT CAST(COALESCE(SUM(version), 0) AS SIGNED) FROM campaigns WHERE {column} = ?"
        );
        let read =
            async move { database.lock().await.exec_first::<i64, _, _>(query, (name,)).await };
        match tokio::task::block_in_place(|| Handle::current().block_on(read)) {
            Ok(Some(version)) => Response::ok(version.to_string()),
            _ => Response::status(503, "the database does not answer"),
        }
    }
}
