//! An app whose data is in a database that others write to as well: campaigns of tenants, each with
//! a version that every write counts up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio_postgres::Client as Database;

use crate::support::{Client, CommandLine, Origin, PostgresServer, Response, Sidecar, eventually};

/// How many campaigns there are: the first half belongs to `acme`, the rest to `bolt`.
pub const CAMPAIGNS: i32 = 8;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A campaign, and those of a tenant.
pub const ROUTES: &str = r#"
[[routes]]
path = "/campaigns/{id}"
ttl = "1h"
scope = "public"
tags = ["campaign:{id}"]

[[routes]]
path = "/tenants/{tenant}"
ttl = "1h"
scope = "public"
stale_while_revalidate = "1h"
tags = ["campaigns:{tenant}"]

[[routes]]
path = "/about"
ttl = "1h"
scope = "public"
tags = ["pages"]
"#;

/// What the tags of the table are.
pub const TAGS: [&str; 2] = ["campaigns:{tenant_id}", "campaign:{id}"];

/// An app with its database, and triggers that tell of changes.
pub struct Shop {
    pub server: PostgresServer,
    pub origin: Origin,
}

impl Shop {
    pub async fn open() -> Self {
        Self::with(PostgresServer::start().await).await
    }

    pub async fn with(server: PostgresServer) -> Self {
        let sql = server.client().await;
        let rows = format!(
            "CREATE TABLE campaigns (id int PRIMARY KEY, tenant_id text, version bigint NOT NULL); \
             INSERT INTO campaigns SELECT n, CASE WHEN n <= {CAMPAIGNS} / 2 THEN 'acme' ELSE \
             'bolt' END, 1 FROM generate_series(1, {CAMPAIGNS}) AS n"
        );
        sql.batch_execute(&rows).await.expect("a table can be made");
        sql.batch_execute(&triggers("campaigns", &TAGS).await)
            .await
            .expect("the printed SQL is valid");
        let origin = Origin::start(app(server.client().await));
        Self { server, origin }
    }

    /// The source of a database, at this port.
    pub fn source_at(port: u16, lines: &str) -> String {
        format!(
            "[[sources]]\nkind = \"postgres\"\nurl = \"{}\"\ntags = [\"{}\", \"{}\"]\n{lines}\n",
            PostgresServer::url_at(port),
            TAGS[0],
            TAGS[1]
        )
    }

    /// A sidecar with these tables besides the routes and the source, which listens.
    pub async fn sidecar(&self, tables: &str) -> Sidecar {
        let source = Self::source_at(self.server.port, "");
        let rules = format!("{tables}\n{ROUTES}\n{source}");
        let sidecar = Sidecar::start(self.origin.address, &rules).await;
        listening(&sidecar).await;
        sidecar
    }
}

/// What the command prints for a table.
pub async fn triggers(table: &str, tags: &[&str]) -> String {
    let arguments = ["sql", "postgres", "--table", table, "--tags"];
    let said = CommandLine::new().run(&[&arguments[..], tags].concat()).await;
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

/// Answers from the database, by the path.
fn app(
    database: Database,
) -> impl Fn(&crate::support::Request) -> Response + Send + Sync + 'static {
    let database = Arc::new(database);
    move |request| {
        let (kind, name) = request.path[1..].split_once('/').unwrap_or((&request.path[1..], ""));
        let (database, name) = (Arc::clone(&database), name.to_owned());
        let query = match kind {
            "campaigns" => {
                "SELECT coalesce(sum(version), 0)::bigint FROM campaigns WHERE id::text = $1"
            }
            "tenants" => {
                "SELECT coalesce(sum(version), 0)::bigint FROM campaigns WHERE tenant_id = $1"
            }
            _ => return Response::ok("1"),
        };
        let read = async move { database.query_one(query, &[&name]).await };
        match tokio::task::block_in_place(|| Handle::current().block_on(read)) {
            Ok(row) => Response::ok(row.get::<_, i64>(0).to_string()),
            Err(_) => Response::status(503, "the database does not answer"),
        }
    }
}

/// The first source of `/stats`.
pub async fn source(sidecar: &Sidecar) -> Value {
    sidecar.stats().await["sources"][0].clone()
}

/// Returns when the first source is in this state.
pub async fn in_state(sidecar: &Sidecar, state: &str) {
    eventually(state, PATIENCE, || async { source(sidecar).await["state"] == state }).await;
}

pub async fn listening(sidecar: &Sidecar) {
    in_state(sidecar, "listening").await;
}

/// What a GET says, and whether it was a hit.
pub async fn read(client: &mut Client, path: &str) -> (i64, bool) {
    let reply = client.get(path, &[]).await;
    let version = reply.text().parse().unwrap_or_else(|_| panic!("{path}: {}", reply.text()));
    (version, reply.header("x-cache") == "HIT")
}

/// Returns when a GET is a hit, with what it says.
pub async fn warmed(sidecar: &Sidecar, path: &str) -> i64 {
    let mut client = Client::new(sidecar.address);
    for _ in 0..1_000 {
        if let (version, true) = read(&mut client, path).await {
            return version;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path} is never a hit");
}
