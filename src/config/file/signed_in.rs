//! `signed_in` of a route: what those callers have who are no guests.

use crate::config::decode::{NamesForm, TomlString, table};

table! {
    /// What a caller has who is signed in: any of it counts.
    #[schemars(extend("anyOf" = [{ "required": ["cookie"] }, { "required": ["field"] }]))]
    SignedInForm("`signed_in`", "{ cookie = \"wordpress_logged_in_*\" }") {
        /// A cookie, or a list of them, where `*` stands for any text. Whoever has one of them is
        /// signed in, whatever its value.
        cookie: NamesForm,
        /// A field that reads a value of a signed session (with `pointer`), or a claim of a token
        /// in a cookie.
        #[schemars(extend("examples" = ["user"]))]
        field: TomlString,
    }
}
