//! The types of `[[purges]]`: which tags a write purges.

use crate::config::decode::{Period, TextsForm, TomlList, TomlString, ValueTable, table};
use crate::config::keywords::{GuardWord, PurgeOnWord};

table! {
    /// Which tags a write purges.
    #[schemars(extend(
        "required" = ["path"],
        "anyOf" = [{ "required": ["tags"] }, { "required": ["under"] }],
    ))]
    PurgeSection("a purge rule", "[[purges]]") {
        /// The paths of the writes, as in a route.
        #[schemars(extend("pattern" = "^[/$]", "examples" = ["/api/v1/campaigns/{*rest}"]))]
        path: TomlString,
        /// The app whose writes it is for, as in a route. Its tags are those of all apps.
        #[schemars(extend("examples" = ["shop"]))]
        app: TomlString,
        /// Paths that the rule does not apply to, as in a route. A path that can be read in more
        /// than one way is never excluded.
        #[schemars(extend("examples" = [["/wp-admin/admin-ajax.php"]]))]
        except: TomlList<TomlString> = [],
        /// The methods of the writes. Without it, every unsafe method. With GET, the GET and HEAD
        /// requests that match are writes: they always reach the origin, and are never stored.
        #[schemars(extend("examples" = [["POST", "PUT", "PATCH", "DELETE"], ["GET"]]))]
        methods: TomlList<TomlString>,
        /// What the writes must have besides: query parameters, headers, a host.
        r#match: MatchSection,
        /// The root fields of GraphQL mutations that it is for, where `*` stands for any text; the
        /// name of an operation does not count. A mutation of which rules name every root field
        /// purges their tags alone, and any other one all that is stored of the endpoint. A field
        /// below `/variables/T` is exact where the only root field has the argument `T: $T`.
        #[schemars(extend("minItems" = 1, "examples" = [["createOrder", "update*"]]))]
        mutations: TomlList<TomlString>,
        /// What is purged: text with fields in braces. `{response:/id}` reads the JSON that the
        /// origin answers.
        #[schemars(extend("minItems" = 1, "examples" = [["campaigns:{tenant}"]]))]
        tags: TomlList<TomlString>,
        /// A folder: everything whose path is in it is purged, at the cost of one tag. Plain text
        /// of at most 4 segments; case does not count.
        #[schemars(extend("pattern" = "^(/|.*\\$\\{.*)", "examples" = ["/api/v1/reports/"]))]
        under: TomlString,
        /// Which answers of the origin purge: 2xx and 3xx, but not a stranger's redirect to one of
        /// `login_paths` (`success`); 2xx alone (`2xx`); or all, 4xx too (`any`). A 5xx, or no
        /// answer, purges in any case.
        purge_on: PurgeOnWord = "success",
        /// Whether hits are still served while the write is in progress (`mark`), or requests go to
        /// the origin (`bypass`).
        guard: GuardWord = "mark",
        /// When to purge again after the write, for origins that commit late or read from replicas.
        #[schemars(extend("maxItems" = 8, "examples" = [["1s", "5s"]]))]
        repurge_after: TomlList<Period> = [],
    }
}

table! {
    /// What a request must have besides its path and method. All conditions must be met; each has
    /// one value, or a list of which one must be there. What can be read in more than one way meets
    /// the condition of a purge rule, and keeps the request from the cache for a route.
    #[schemars(extend("examples" = [
        { "query": { "action": "trash" } },
        { "host": "shop.example.com", "query": { "action": ["list", "show"] } }
    ]))]
    MatchSection("match", "match = { query.action = \"trash\" }") {
        /// Query parameters and their values, decoded.
        query: ValueTable,
        /// Headers and their values.
        header: ValueTable,
        /// The host that the request is sent to. Without a port, any port matches.
        #[schemars(extend("examples" = ["app.example.com"]))]
        host: TextsForm,
    }
}
