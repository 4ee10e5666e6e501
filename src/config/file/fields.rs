//! `[fields]`, as people write it.

use crate::config::decode::{Count, Period, SecretsForm, TomlList, TomlString, table};
use crate::config::keywords::{AddressWord, AuthWord};

table! {
    /// Where the value of a field comes from: exactly one source.
    #[schemars(extend(
        "oneOf" = [
            { "required": ["header"] }, { "required": ["query"] },
            { "required": ["path"] }, { "required": ["host"] }, { "required": ["auth"] },
            { "required": ["client"] }, { "required": ["body"] }, { "required": ["jwt"] },
            { "required": ["identity"] },
            { "required": ["cookie"], "not": { "required": ["jwt"] } },
        ],
        "dependentRequired" = {
            "length": ["auth"], "prefix": ["client"], "format": ["cookie", "secret"],
            "secret": ["format"], "pointer": ["format"], "max_age": ["format"],
            "ignore": ["format"],
        }
    ))]
    FieldForm("a field", "{ header = \"x-name\" }") {
        /// A request header.
        header: TomlString,
        /// A cookie. Beside `jwt`: the cookie that holds the token.
        cookie: TomlString,
        /// A query parameter.
        query: TomlString,
        /// A capture of the route's path.
        path: TomlString,
        /// `true`: the host that the request was sent to.
        host: bool,
        /// The `Authorization` header, as a hash: all of it, or the first `length` characters of
        /// its token.
        auth: AuthWord,
        /// How many characters count with `auth = "prefix"`.
        #[schemars(extend("minimum" = 8, "maximum" = 512))]
        length: Count,
        /// The client's address, or the network given by `prefix`. Behind `trusted_proxies`, the
        /// last address in `X-Forwarded-For` or `Forwarded` that is not one of them.
        client: AddressWord,
        /// How many bits of the address count with `client`: of IPv4, as in "/24", by which IPv6
        /// counts as /56; or of both, as in "/24,/48". Without it, all of them.
        #[schemars(extend("examples" = ["/24", "/24,/48"]))]
        prefix: TomlString,
        /// A JSON pointer into the body: of a write (JSON or form), for purge rules; or of a
        /// request of a route with `read_only` (JSON), for its key and tags.
        #[schemars(extend("pattern" = "^/", "examples" = ["/campaign/id"]))]
        body: TomlString,
        /// A JSON pointer into the claims of a token (JWT) that `[jwt]` verifies, from
        /// `Authorization: Bearer`, or from the cookie named by `cookie`.
        #[schemars(extend("pattern" = "^/", "examples" = ["/tenant_id", "/realm/name"]))]
        jwt: TomlString,
        /// A JSON pointer into what the app says of the caller, when it is asked at the `path` of
        /// `[identity]`.
        #[schemars(extend("pattern" = "^/", "examples" = ["/tenant/id"]))]
        identity: TomlString,
        /// How the app signs a session cookie that carries the session itself: `flask`
        /// (itsdangerous), `django` (signed cookies) or `express` (cookie-session). The cookie is
        /// verified, and its payload counts, however often it is signed anew.
        #[schemars(extend("enum" = ["flask", "django", "express"]))]
        format: TomlString,
        /// With `format`: a JSON pointer to the value that counts, if all other members are on the
        /// list `ignore`; a request with others is passed. Without it, the whole payload counts.
        #[schemars(extend("pattern" = "^/", "examples" = ["/_user_id"]))]
        pointer: TomlString,
        /// With `format`: the key that the app signs with, or a list with the current one and
        /// those that cookies still have.
        secret: SecretsForm,
        /// With `format`: how long the app accepts the cookie, 1s to 1 year, from the time that it
        /// was signed. `express` signs no time.
        max_age: Period,
        /// With `format`: members of the payload that tell neither callers nor responses apart, by
        /// their paths without the first `/`; `*` stands for any text.
        #[schemars(extend("examples" = [["_fresh", "_id", "user/last_seen"]]))]
        ignore: TomlList<TomlString>,
    }
}
