//! `[[sources]]`, as people write them.

use crate::config::decode::{Period, TomlList, TomlString, table};
use crate::config::keywords::SourceWord;

table! {
    /// What tells of changes that no request tells, such as a database, and purges what they
    /// change.
    #[schemars(extend("required" = ["kind", "tags"]))]
    SourceSection("a source", "[[sources]]") {
        /// What is listened to: notifications of a PostgreSQL (`postgres`).
        kind: SourceWord,
        /// What it is called in logs, metrics and `/stats`. Without it, by its `kind`.
        #[schemars(extend(
            "pattern" = "^([A-Za-z0-9_.-]{1,64}|.*\\$\\{.*)$",
            "examples" = ["orders-db"]
        ))]
        name: TomlString,
        /// The tags that it may name, as in a route. The fields are the members of the JSON objects
        /// that it is told.
        #[schemars(extend(
            "minItems" = 1,
            "examples" = [["campaigns:{tenant_id}", "campaign:{id}"]]
        ))]
        tags: TomlList<TomlString>,
        /// Where it is: `postgres://user:password@host:port/database`. Outside of this machine it
        /// must have TLS with a certificate that can be verified, unless `?sslmode=disable` says
        /// otherwise.
        #[schemars(extend("examples" = [
            "${DATABASE_URL}",
            "postgres://sidecache:${PGPASSWORD}@127.0.0.1:5432/app",
        ]))]
        url: TomlString,
        /// The channel that is notified, as `NOTIFY` names it.
        #[schemars(extend("examples" = ["sidecache"]))]
        channel: TomlString,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this
        /// file.
        ca_file: TomlString,
        /// How long an entry with one of its tags may be served while the source is deaf: until it
        /// listens, and whenever its connection is lost.
        degraded_ttl: Period = "2s",
    }
}
