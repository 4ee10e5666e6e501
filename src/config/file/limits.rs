//! `[limits]`, as people write it.

use crate::config::decode::{Count, Period, Size, table};

table! {
    /// Bounds on memory and work that requests and responses can cause.
    LimitsSection("[limits]", "[limits]") {
        /// The largest response that is stored.
        object: Size = "8MiB",
        /// How many tags an entry may have.
        tags: Count = 2048,
        /// The longest cache key.
        key: Size = "16KiB",
        /// The longest body of a write that is read before the write is forwarded, where a route or
        /// purge rule has its path; and the longest from which purge rules read fields.
        purge_body: Size = "64KiB",
        /// The longest body of a response from which tags are read (`{response:/id}`). A longer one
        /// is not stored; after a write it purges the families of the tags.
        tag_body: Size = "1MiB",
        /// The longest body that is a part of a key, on routes with `read_only`; at most 1 MiB.
        /// Requests with a longer one are passed, or are writes where it could name another method.
        read_body: Size = "64KiB",
        /// How much memory the bodies that are read before their writes are forwarded may take
        /// together; one client leaves half of it to the others. Beyond it, bodies are streamed.
        uploads: Size = "64MiB",
        /// How long a client may take for the body of a write, where a route or purge rule has its
        /// path; and a second more for each 16 KiB of it.
        upload_time: Period = "2m",
        /// How long the purges for writes that their clients have broken off may be gathered.
        gather: Period = "10s",
        /// How many authorized clients are remembered, for routes of scope `shared`.
        admissions: Count = 100_000,
        /// How much memory the bodies of all fills in progress may take together. Beyond it, bodies
        /// pass through and are not stored.
        fills: Size = "64MiB",
        /// How many requests may wait for the fills of other requests.
        waiters: Count = 10_000,
        /// How long a request may wait for the fill of another request.
        wait: Period = "30s",
        /// How many writes may be in progress at once.
        mutations: Count = 1024,
        /// How long a client may pause, in sending its request or in reading its response, while
        /// clients of another address wait for the connection, or the place among writes, that it
        /// holds.
        stall: Period = "2s",
        /// How many variants of one key `Vary` may create.
        #[schemars(extend("minimum" = 1, "maximum" = 1024))]
        variants: Count = 64,
        /// How long an entry is kept after it has become stale, to be revalidated or to be served
        /// in place of an error; at most 30 days.
        stale: Period = "10m",
        /// How many ranges a request may ask for.
        #[schemars(extend("minimum" = 1, "maximum" = 256))]
        ranges: Count = 16,
        /// The largest response that is fetched whole when a request asks for a part of it. "0"
        /// turns it off.
        range_fill: Size = "8MiB",
        /// How many bytes may be fetched for the sake of parts, for each byte that clients of one
        /// address have received of parts. Four times `range_fill` come on top.
        #[schemars(extend("minimum" = 1))]
        range_factor: Count = 16,
        /// How many refreshes may run in the background at once.
        #[schemars(extend("minimum" = 1))]
        refreshes: Count = 64,
        /// How many keys routes in shadow mode remember.
        #[schemars(extend("minimum" = 1))]
        shadow_keys: Count = 50_000,
        /// How many connections to the origin may belong to one client each, because it has logged
        /// in to the connection with NTLM or Negotiate.
        pinned: Count = 64,
    }
}
