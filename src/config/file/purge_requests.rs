//! `[purge_requests]`, as people write it.

use crate::config::decode::{TomlList, TomlString, table};

table! {
    /// Who may send `PURGE` and `BAN`, as plugins of content management systems do. Without this
    /// section the app gets them. With it the app gets none, and every entry carries the folders of
    /// its path as tags.
    PurgeRequestsSection("[purge_requests]", "[purge_requests]") {
        /// The addresses and networks that they come from. `unix` stands for whatever connects to
        /// the socket of `[listen] address`. A client behind one of `trusted_proxies` counts by its
        /// own address; one behind another proxy has none.
        #[schemars(extend("examples" = [["127.0.0.1", "10.0.0.0/8"]]))]
        from: TomlList<TomlString> = [],
        /// The token that they carry. With `from`, both must be right.
        #[schemars(extend("examples" = ["${PURGE_TOKEN}"]))]
        token: TomlString,
        /// The header that the token is in.
        token_header: TomlString = "x-purge-token",
    }
}
