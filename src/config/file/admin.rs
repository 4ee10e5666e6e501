//! `[admin]`, as people write it.

use crate::config::decode::{TomlList, TomlString, table};

table! {
    /// Health, metrics and administration.
    AdminSection("[admin]", "[admin]") {
        /// Address and port. An address other than loopback needs a token.
        address: TomlString = "127.0.0.1:9090",
        /// The secret that callers must send, at least 16 characters.
        #[schemars(extend("examples" = ["${ADMIN_TOKEN}"]))]
        token: TomlString,
        /// A file that holds the token; relative to the folder of this file.
        token_file: TomlString,
        /// Names that the `Host` of a request may have, without a port, besides localhost and the
        /// listener's addresses. Scrapers need it.
        #[schemars(extend("examples" = [["sidecache", "sidecache.internal"]]))]
        hosts: TomlList<TomlString> = [],
        /// What this sidecar is called where all those that share its Redis are listed. Without
        /// this key it is the name of the host and the address of `[listen]`.
        #[schemars(extend(
            "pattern" = "^([A-Za-z0-9_.:@/-]{1,64}|.*\\$\\{.*)$",
            "examples" = ["${POD_NAME}", "web-1"]
        ))]
        name: TomlString,
    }
}
