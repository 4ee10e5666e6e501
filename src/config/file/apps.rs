//! `[[apps]]`, as people write it.

use crate::config::decode::{TomlList, TomlString, table};
use crate::config::keywords::HostWord;

table! {
    /// A further app behind the sidecar, with hosts of its own. All else is as `[upstream]` says,
    /// for a pool of connections of its own. Requests for other hosts go to the app of
    /// `[upstream]`.
    #[schemars(extend("required" = ["name", "hosts", "url"]))]
    AppSection("an app", "[[apps]]") {
        /// By what its routes and purge rules name it in `app`, and what metrics and messages call
        /// it: 1 to 32 letters, digits, `.`, `_` and `-`.
        #[schemars(extend("pattern" = "^[A-Za-z0-9._-]{1,32}$", "examples" = ["shop"]))]
        name: TomlString,
        /// Its hosts, as clients name them, without a port; `*.` and a name stand for every host
        /// below it. The most exact name counts.
        #[schemars(extend(
            "minItems" = 1,
            "maxItems" = 64,
            "uniqueItems" = true,
            "examples" = [["shop.example.com", "*.shop.example.com"]],
        ))]
        hosts: TomlList<TomlString>,
        /// Where it listens: as `url` of `[upstream]`.
        #[schemars(extend("examples" = ["http://127.0.0.1:8001", "unix:/run/shop.sock"]))]
        url: TomlString,
        /// Which `Host` it gets: the client's (`preserve`), or that of `url` (`upstream`).
        host: HostWord = "preserve",
        /// The host in the keys of all its entries: as `host_key` of `[upstream]`.
        #[schemars(extend("examples" = ["shop.example.com"]))]
        host_key: TomlString,
    }
}
