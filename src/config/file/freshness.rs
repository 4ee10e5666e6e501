//! `[freshness]`, as people write it.

use crate::config::decode::{TomlList, TomlString, table};

table! {
    /// Which response headers say how long a response is fresh.
    FreshnessSection("[freshness]", "[freshness]") {
        /// Response headers for caches like this one (RFC 9213), in the order of precedence: the
        /// first valid one replaces `Cache-Control` and `Expires`. `[]` turns it off.
        #[schemars(extend(
            "maxItems" = 8,
            "uniqueItems" = true,
            "examples" = [["sidecache-cache-control", "cdn-cache-control"]]
        ))]
        targeted: TomlList<TomlString> = ["cdn-cache-control"],
    }
}
