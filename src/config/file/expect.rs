//! `[[expect]]`, as people write it.

use crate::config::decode::{TomlList, TomlString, ValueTable, table};
use crate::config::keywords::ScopeWord;

table! {
    /// A request, and what the rules must make of it. `check`, a start and a reload test it: a file
    /// whose rules do otherwise is an error. Nothing is sent. Tokens and signed sessions count as
    /// not verified.
    #[schemars(extend("required" = ["request"]))]
    ExpectSection("an expectation", "[[expect]]") {
        /// The method and the target.
        #[schemars(extend("examples" = ["GET /api/v1/campaigns?page=2"]))]
        request: TomlString,
        /// Its headers. Without `host` it is sent to `localhost`.
        #[schemars(extend("examples" = [{ "x-tenant-id": "acme" }]))]
        headers: ValueTable,
        /// Its cookies.
        cookies: ValueTable,
        /// What the app says of the caller, by JSON pointers: what `[identity]` would ask it for.
        #[schemars(extend("examples" = [{ "/tenant/id": "acme" }]))]
        identity: ValueTable,
        /// The body: JSON, unless `content-type` says otherwise.
        body: TomlString,
        /// The path of the route that takes it, or `none`.
        route: TomlString,
        /// The scope of that route.
        scope: ScopeWord,
        /// Fields of the key with their values; others may be in it as well.
        #[schemars(extend("examples" = [{ "tenant": "acme" }]))]
        key: ValueTable,
        /// Tags that its entry carries; it may carry others as well.
        tags: TomlList<TomlString>,
        /// Tags that the write purges; it may purge others as well. None: no purge rule applies.
        purges: TomlList<TomlString>,
        /// Why the cache takes no part, as in `Cache-Status`; or `none`.
        #[schemars(extend("examples" = ["missing field tenant", "none"]))]
        reason: TomlString,
        /// Another request that has the same entry. What it does not say is as in this one.
        same_entry_as: OtherRequestSection,
        /// Another request that has an entry of its own. What it does not say is as in this one.
        differs_from: OtherRequestSection,
    }
}

table! {
    /// Another request.
    OtherRequestSection("another request", "{ request = \"GET /api/v1/campaigns\" }") {
        /// The method and the target.
        request: TomlString,
        /// All its headers.
        headers: ValueTable,
        /// All its cookies.
        cookies: ValueTable,
        /// What the app says of its caller.
        identity: ValueTable,
    }
}
