//! `[compress]`, as people write it.

use crate::config::decode::{Count, Size, TomlList, table};
use crate::config::keywords::CodingWord;

table! {
    /// Compresses stored responses for clients that accept it: what is stored of JSON, HTML and
    /// other text is compressed once, after the fill, and each hit gets those bytes. Without this
    /// section clients get what the app sends. Routes of scope `private` need `compress = true`
    /// besides.
    CodingsSection("[compress]", "[compress]") {
        /// The codings that clients may get, the preferred one first: it decides between those that
        /// a client accepts alike.
        #[schemars(extend("minItems" = 1, "uniqueItems" = true, "examples" = [["br", "gzip"]]))]
        codings: TomlList<CodingWord> = ["zstd", "br", "gzip"],
        /// The shortest body that is compressed. The longest one has 1 MiB.
        min_size: Size = "1KiB",
        /// How thoroughly `zstd` compresses, 1 to 11.
        zstd_level: Count = 9,
        /// How thoroughly `br` compresses, 1 to 6.
        br_level: Count = 5,
        /// How thoroughly `gzip` compresses, 1 to 9.
        gzip_level: Count = 6,
    }
}
