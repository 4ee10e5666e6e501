//! `[log]` and `[debug]`: what is logged, and what responses tell of how they were made.

use crate::config::decode::{Count, TomlString, table};
use crate::config::keywords::FormatWord;

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

table! {
    /// Headers that help to find out why.
    DebugSection("[debug]", "[debug]") {
        /// Whether responses show their key, tags and route. Not for production: it helps
        /// attackers.
        headers: bool = false,
        /// Whether responses have `Server-Timing`: how the cache answered, how long it took, and
        /// how long the origin took, for the developer tools of browsers.
        server_timing: bool = false,
    }
}
