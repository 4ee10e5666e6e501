//! `[tags]`, as people write it.

use crate::config::decode::{TomlList, TomlString, table};

table! {
    /// Tags that the origin sends.
    TagsSection("[tags]", "[tags]") {
        /// The response headers that hold tags.
        response_headers: TomlList<TomlString> = ["surrogate-key", "cache-tag"],
        /// Whether clients get these headers.
        keep: bool = false,
        /// Whether every entry carries a tag for each of the first 4 folders of its path, so that
        /// `sidecache purge --under` may name any of them. Folders of `under` in `[[purges]]` need
        /// no such key.
        folders: bool = false,
    }
}
