//! `[identity]`, as people write it.

use crate::config::decode::{Count, Period, TomlString, table};

table! {
    /// How the app itself is asked who holds a credential, for fields with `identity`: with the
    /// caller's own credential, once for each caller and `ttl`.
    #[schemars(extend("required" = ["path"]))]
    IdentitySection("[identity]", "[identity]") {
        /// Where the app tells a caller who it is, as JSON: a path of the app, which may have a
        /// query. It must change nothing and set no cookie.
        #[schemars(extend("pattern" = "^(/|.*\\$\\{)", "examples" = ["/api/v1/me"]))]
        path: TomlString,
        /// How long an answer holds, 1s to 1 hour, unless the caller writes something. So much
        /// longer a credential may be served that the app no longer accepts.
        ttl: Period = "30s",
        /// How long it is remembered that the app did not tell, 100ms to 10 minutes; and the pause
        /// that an app gets that fails several times in a row.
        retry: Period = "5s",
        /// How long the app may take for the whole answer, 10ms to 1 minute. After that the request
        /// goes to the app as it is.
        timeout: Period = "2s",
        /// How many answers are remembered.
        #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
        callers: Count = 10_000,
        /// How many such questions may be in flight at once. Requests beyond go to the app as they
        /// are.
        #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
        probes: Count = 32,
    }
}
