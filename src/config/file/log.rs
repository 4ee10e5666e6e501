//! The types of `[freshness]` and `[log]`.

use crate::config::decode::{Count, TomlList, TomlString, table};
use crate::config::keywords::FormatWord;

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
    /// What is logged, to stderr.
    LogSection("[log]", "[log]") {
        /// A level (off, error, warn, info, debug, trace), or directives by module.
        #[schemars(extend("examples" = ["info", "warn,sidecache=debug"]))]
        level: TomlString = "info",
        /// Lines for people, or one JSON object per line.
        format: FormatWord = "text",
        /// Whether each request gets a line.
        access: bool = false,
        /// How many WARN and ERROR lines of one kind are logged in a minute. One more line tells
        /// how many were suppressed.
        #[schemars(extend("minimum" = 1))]
        repeats: Count = 100,
    }
}
