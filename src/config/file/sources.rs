//! `[[sources]]`, as people write them.

use crate::config::decode::{NamedTexts, Period, SecretsForm, Size, TomlList, TomlString, table};
use crate::config::file::SignatureChoice;
use crate::config::keywords::SourceWord;

table! {
    /// What tells of changes that no request tells, such as a database, and purges what they
    /// change.
    #[schemars(extend("required" = ["kind", "tags"]))]
    SourceSection("a source", "[[sources]]") {
        /// What is listened to: notifications of a PostgreSQL (`postgres`), a table of a MySQL or
        /// MariaDB (`mysql`), a stream of Redis (`redis-stream`), or the value of a URL (`poll`) or
        /// of a file (`file`), which is looked at now and then; or signed requests that a service
        /// sends (`webhook`).
        kind: SourceWord,
        /// What it is called in logs, metrics and `/stats`. Without it, by its `kind`.
        #[schemars(extend(
            "pattern" = "^([A-Za-z0-9_.-]{1,64}|.*\\$\\{.*)$",
            "examples" = ["orders-db"]
        ))]
        name: TomlString,
        /// The tags that it may name, as in a route. The fields are the members of the JSON objects
        /// that it is told. `poll` and `file` purge all of them, whatever their fields.
        #[schemars(extend(
            "minItems" = 1,
            "examples" = [["campaigns:{tenant_id}", "campaign:{id}"]]
        ))]
        tags: TomlList<TomlString>,
        /// Where the fields of the tags are in the JSON that it is told, as JSON pointers. One that
        /// is not named here is the member of its name. For `postgres`, `redis-stream` and
        /// `webhook`.
        #[schemars(extend("examples" = [{ "id": "/data/object/id" }]))]
        fields: NamedTexts,
        /// Where it is. For `postgres`: `postgres://user:password@host:port/database`; outside of
        /// this machine it must have TLS with a certificate that can be verified, unless
        /// `?sslmode=disable` says otherwise. For `mysql` the same with `mysql://`, and
        /// `?socket=/run/mysqld/mysqld.sock` for a socket. For `redis-stream` as in `[redis]`, and
        /// the Redis of `[redis]` without it. For `poll`: `http://` or `https://`.
        #[schemars(extend("examples" = [
            "${DATABASE_URL}",
            "postgres://sidecache:${DATABASE_PASSWORD}@127.0.0.1:5432/app",
            "mysql://sidecache:${DATABASE_PASSWORD}@127.0.0.1:3306/app",
        ]))]
        url: TomlString,
        /// The channel that is notified, as `NOTIFY` names it; "sidecache" without it. For
        /// `postgres`.
        #[schemars(extend("examples" = ["sidecache"]))]
        channel: TomlString,
        /// The table that triggers write to, after its database and a dot where that is another
        /// one than that of `url`; `sidecache_changes` without it. For `mysql`.
        #[schemars(extend("examples" = ["sidecache_changes"]))]
        table: TomlString,
        /// The key of the stream; "sidecache:purges" without it. For `redis-stream`.
        #[schemars(extend("examples" = ["sidecache:purges"]))]
        stream: TomlString,
        /// For `file`: the file, relative to the folder of this one. For `webhook`: the path to
        /// which the requests are sent, on the listener of the app. The app gets no POST to exactly
        /// this path any more.
        #[schemars(extend("examples" = ["/var/lib/sync/last-run", "/hooks/shopify"]))]
        path: TomlString,
        /// How often the URL or the file is looked at, 100ms to 1 hour. For `mysql`: how often the
        /// table is read, 50ms to 1s, and 250ms without it. For `mysql`, `poll` and `file`.
        every: Period = "10s",
        /// How long a transaction of another server of a cluster may take, 1s to 1 hour. A missing
        /// id is given up after that time, unless a transaction of this server holds it. For
        /// `mysql`.
        max_transaction: Period = "1m",
        /// A JSON pointer to what counts of the answer. Without it the `ETag` of the answer counts,
        /// or its body where it has none. For `poll`.
        #[schemars(extend("examples" = ["/sync/last_run"]))]
        pointer: TomlString,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this
        /// file.
        ca_file: TomlString,
        /// What the requests are signed with, or a list of such secrets. For `webhook`.
        #[schemars(extend("examples" = ["${WEBHOOK_SECRET}"]))]
        secret: SecretsForm,
        /// How the requests are signed: a form that has a name, or a table with the `header` of the
        /// signature, what stands before it there (`prefix`), how it is written (`encoding`), the
        /// header with the time of sending (`timestamp`), and what is signed (`signs`). For
        /// `webhook`.
        signature: SignatureChoice,
        /// How far the time of sending may be from now, 1s to 1 hour, where that is signed. For
        /// `webhook`.
        window: Period = "5m",
        /// The longest body that is read, 1KiB to 32MiB. For `webhook`.
        max_body: Size = "1MiB",
        /// How long an entry with one of its tags may be served while the source is deaf: until it
        /// listens, and whenever its connection is lost. Not for `webhook`, which is never known to
        /// be deaf.
        degraded_ttl: Period = "2s",
    }
}
