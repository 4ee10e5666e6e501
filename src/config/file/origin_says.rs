//! The types of sections on what responses of the origin say: their tags, and how long they are
//! fresh.

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

table! {
    /// Tags that the origin sends.
    TagsSection("[tags]", "[tags]") {
        /// The response headers that hold tags.
        response_headers: TomlList<TomlString> = ["surrogate-key", "cache-tag"],
        /// Whether clients get these headers.
        keep: bool = false,
    }
}
