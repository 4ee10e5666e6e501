//! The types of `proxy.toml` itself: its tables, keys, words and defaults, as people write them. The JSON Schema is derived from them.
//! They know nothing of the running program but the words that stand for its choices.
//!
//! The comments of the keys are what editors show, so they are written for the operator.

use super::decode::{Count, List, Named, Period, Share, Size, Text, table, words};
use super::schema::QueryForm;
use crate::policy::credential::Scope;
use crate::policy::purge_rule::Guard;
use crate::policy::route::{ClientCacheControl, Collapse, Mode, UnknownHeaders};
use crate::redis::{OnLoss, Writes};
use crate::semantics::storability::OriginRule;
use crate::telemetry::log::Format;
use crate::upstream::HostHeader;

table! {
    /// The configuration of Sidecache: a caching sidecar in front of an HTTP app. Strings may contain `${NAME}` and `${NAME:-default}`
    /// for variables of the environment, and `$$` for a dollar sign.
    #[schemars(extend("required" = ["upstream"]))]
    File("proxy.toml", "keys and sections") {
        /// The switch for all routes: `off` and `shadow` hold for each of them, whatever its own `mode` says.
        mode: ModeWord = "on",
        /// How often this file is looked at for changes, 100ms to 1 hour. "0s": never; then SIGHUP and the admin API reload it.
        watch: Period = "1s",
        /// Where clients connect, and what they may use.
        listen: Listen = {},
        /// The app.
        upstream: Upstream,
        /// Health, metrics and administration.
        admin: Admin = {},
        /// The tier in this process's memory.
        memory: Memory = {},
        /// The tier that several sidecars share. Without it the cache lives in this process's memory alone.
        redis: Redis,
        /// Bounds on what requests and responses can make grow.
        limits: Limits = {},
        /// Whose word on freshness counts.
        freshness: Freshness = {},
        /// What is logged, to stderr.
        log: Log = {},
        /// Named values taken from a request, for keys and tags. Captures of a path are fields without being named here.
        fields: Named<FieldForm> = {},
        /// What identifies a caller, besides `Authorization`.
        credential: Credential = {},
        /// Tags that the app itself sends.
        tags: Tags = {},
        /// Help for finding out why.
        debug: Debug = {},
        /// What is cached. More specific paths win; the order does not matter.
        routes: List<Route> = [],
        /// Which tags a write purges.
        purges: List<Purge> = [],
    }
}

table! {
    /// Where clients connect, and what they may use.
    Listen("[listen]", "[listen]") {
        /// Address and port.
        #[schemars(extend("examples" = ["127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080"]))]
        address: Text = "127.0.0.1:8080",
        /// Addresses and networks whose `X-Forwarded-*` headers are believed.
        #[schemars(extend("examples" = [["127.0.0.1", "10.0.0.0/8"]]))]
        trusted_proxies: List<Text> = [],
        /// Client connections at once.
        max_connections: Count = 10_000,
        /// The largest request head.
        max_header_bytes: Size = "64KiB",
        /// The most headers in a request.
        max_headers: Count = 100,
        /// How long a request's head may take from its first byte.
        header_timeout: Period = "10s",
        /// How long a connection may be open without a request.
        idle_timeout: Period = "75s",
        /// How long a request's body may pause.
        body_timeout: Period = "30s",
        /// How long a client may take no byte of its response.
        write_timeout: Period = "60s",
        /// HTTP/2 streams per connection.
        max_streams: Count = 128,
        /// How long requests may go on after a signal to stop.
        drain: Period = "25s",
    }
}

table! {
    /// The app.
    #[schemars(extend("required" = ["url"]))]
    Upstream("[upstream]", "[upstream]") {
        /// Where the app listens: `http://` or `https://`, host and port, no path.
        #[schemars(extend("examples" = ["http://127.0.0.1:8000", "https://app.internal"]))]
        url: Text,
        /// Which `Host` the app sees: the client's, or the one in `url`.
        host: HostWord = "preserve",
        /// How long connecting may take.
        connect_timeout: Period = "2s",
        /// How long the app may take from the end of the request to the head of its response.
        first_byte_timeout: Period = "60s",
        /// How long a response's body may pause. Event streams may pause for any time.
        idle_timeout: Period = "5m",
        /// How long a WebSocket or another upgraded connection may be silent.
        tunnel_timeout: Period = "1h",
        /// How long an unused connection is kept.
        keep_alive: Period = "15s",
        /// Connections to the app at once.
        max_connections: Count = 512,
        /// Requests that may wait for a connection.
        max_waiting: Count = 1024,
        /// How long a request may wait for a connection.
        wait_timeout: Period = "5s",
        /// The largest response head.
        max_header_bytes: Size = "256KiB",
        /// The most headers in a response.
        max_headers: Count = 256,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this file.
        ca_file: Text,
    }
}

table! {
    /// Health, metrics and administration.
    Admin("[admin]", "[admin]") {
        /// Address and port. Anything beyond loopback needs a token.
        address: Text = "127.0.0.1:9090",
        /// What callers must present: at least 16 characters.
        #[schemars(extend("examples" = ["${ADMIN_TOKEN}"]))]
        token: Text,
        /// A file that holds the token; relative to the folder of this file.
        token_file: Text,
        /// Names by which the listener may be asked for, besides localhost and its addresses: a scraper's `Host`, without a port.
        #[schemars(extend("examples" = [["sidecache", "sidecache.internal"]]))]
        hosts: List<Text> = [],
    }
}

table! {
    /// The tier in this process's memory.
    Memory("[memory]", "[memory]") {
        /// How much it may hold, overhead counted. "0" turns it off.
        size: Size = "256MiB",
    }
}

table! {
    /// The tier that several sidecars share.
    #[schemars(extend("required" = ["url"]))]
    Redis("[redis]", "[redis]") {
        /// Where Redis is: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, `unix:///path?db=0`,
        /// `redis-sentinel://host:port[/database]?sentinelServiceName=NAME&node=host2:port2`, `redis-cluster://host:port?node=host2:port2`.
        #[schemars(extend("examples" = [
            "redis://127.0.0.1:6379/0",
            "rediss://${REDIS_HOST}:6380",
            "unix:///run/redis.sock?db=0",
            "redis-sentinel://s1:26379?sentinelServiceName=mymaster&node=s2:26379&node=s3:26379",
            "redis-cluster://c1:6379?node=c2:6379",
        ]))]
        url: Text,
        /// The ACL user, when it is not in the url.
        username: Text,
        /// The password, when it is not in the url.
        #[schemars(extend("examples" = ["${REDIS_PASSWORD}"]))]
        password: Text,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this file.
        ca_file: Text,
        /// The prefix of all keys. Sidecars with the same one share a cache.
        #[schemars(extend("pattern" = "^([A-Za-z0-9_.-]{1,64}|.*\\$\\{.*)$"))]
        namespace: Text = "sidecache",
        /// A Redis that answers later is lost for that request.
        deadline: Period = "100ms",
        /// Connections to Redis.
        connections: Count = 1,
        /// How long a sidecar may answer from memory without asking Redis, after a heartbeat has come back to it.
        lease: Period = "2s",
        /// How long to wait after reconnecting before Redis is trusted.
        rejoin_grace: Period = "1s",
        /// Without Redis: serve briefly from memory what this sidecar filled itself, or go to the app.
        on_redis_loss: OnLossWord = "memory",
        /// How long an entry is served from memory without Redis.
        degraded_ttl: Period = "2s",
        /// Writes without Redis: forward them, or answer 503 before the app sees them.
        writes: WritesWord = "forward",
        /// A file that keeps the purges that Redis could not be told, so that they survive the end of the sidecar in any way; relative to the
        /// folder of this file. Each sidecar needs its own. Without it they are kept in memory.
        #[schemars(extend("examples" = ["/var/lib/sidecache/journal"]))]
        journal: Text,
        /// How many replicas must have a purge before the write that made it is answered; with fewer, Redis counts as lost.
        wait_replicas: Count = 0,
        /// How many ask the app for the same key at once: one per sidecar (`process`), or one of all that share this Redis (`cluster`).
        /// Routes may say otherwise.
        collapse: CollapseWord = "process",
        /// Authenticates stored entries and keys the hashes of credentials: at least 16 characters, the same in all sidecars.
        #[schemars(extend("examples" = ["${CACHE_SECRET}"]))]
        secret: Text,
    }
}

table! {
    /// Bounds on what requests and responses can make grow.
    Limits("[limits]", "[limits]") {
        /// The largest response that is stored.
        object: Size = "8MiB",
        /// The most tags of an entry.
        tags: Count = 64,
        /// The longest key.
        key: Size = "16KiB",
        /// The longest request body that purge rules read fields from.
        purge_body: Size = "64KiB",
        /// Credentials whose admission is remembered, for routes of scope `shared`.
        admissions: Count = 100_000,
        /// What the bodies of all fills under way may keep, together; beyond it they pass through and are not stored.
        fills: Size = "64MiB",
        /// Requests that may wait for fills of others.
        waiters: Count = 10_000,
        /// How long such a request waits at most.
        wait: Period = "30s",
        /// Writes under way at once.
        mutations: Count = 1024,
        /// The most variants of one key that `Vary` may make.
        #[schemars(extend("minimum" = 1, "maximum" = 1024))]
        variants: Count = 64,
        /// How long an entry past its freshness is kept, to be confirmed by the app or to stand in for it; at most 30 days.
        stale: Period = "10m",
        /// The most ranges answered in one request.
        #[schemars(extend("minimum" = 1, "maximum" = 256))]
        ranges: Count = 16,
        /// The largest response that is fetched whole because a part of it was asked for. "0" turns it off.
        range_fill: Size = "8MiB",
        /// Refreshes in the background at once.
        #[schemars(extend("minimum" = 1))]
        refreshes: Count = 64,
        /// Keys that routes in shadow remember.
        #[schemars(extend("minimum" = 1))]
        shadow_keys: Count = 50_000,
    }
}

table! {
    /// Whose word on freshness counts.
    Freshness("[freshness]", "[freshness]") {
        /// Response headers for caches like this one (RFC 9213), in their order: the first valid one wins over `Cache-Control` and
        /// `Expires`. `[]` turns it off.
        #[schemars(extend("maxItems" = 8, "uniqueItems" = true, "examples" = [["sidecache-cache-control", "cdn-cache-control"]]))]
        targeted: List<Text> = ["cdn-cache-control"],
    }
}

table! {
    /// What is logged, to stderr.
    Log("[log]", "[log]") {
        /// A level (off, error, warn, info, debug, trace), or directives by module.
        #[schemars(extend("examples" = ["info", "warn,sidecache=debug"]))]
        level: Text = "info",
        /// For people, or one JSON object per line.
        format: FormatWord = "text",
        /// Whether each request gets a line.
        access: bool = false,
    }
}

table! {
    /// Where a field's value comes from: exactly one source.
    #[schemars(extend(
        "oneOf" = [
            { "required": ["header"] }, { "required": ["cookie"] }, { "required": ["query"] }, { "required": ["path"] },
            { "required": ["host"] }, { "required": ["auth"] }, { "required": ["body"] },
        ],
        "dependentRequired" = { "length": ["auth"] }
    ))]
    FieldForm("a field", "{ header = \"x-name\" }") {
        /// A request header.
        header: Text,
        /// A cookie.
        cookie: Text,
        /// A query parameter.
        query: Text,
        /// A capture of the route's path.
        path: Text,
        /// `true`: the host that the request was sent to.
        host: bool,
        /// The `Authorization` header, as a hash: all of it, or the first `length` characters of its token.
        auth: AuthWord,
        /// With `auth = "prefix"`: how many characters count, 8 to 512.
        #[schemars(extend("minimum" = 8, "maximum" = 512))]
        length: Count,
        /// A JSON pointer into the body of a write, JSON or form. For purge rules only.
        #[schemars(extend("pattern" = "^/", "examples" = ["/campaign/id"]))]
        body: Text,
    }
}

table! {
    /// What identifies a caller, besides `Authorization`.
    Credential("[credential]", "[credential]") {
        /// Further headers that identify the caller.
        #[schemars(extend("examples" = [["x-api-key"]]))]
        headers: List<Text> = [],
        /// The cookies that identify the caller. Without this key the whole `Cookie` header does.
        #[schemars(extend("examples" = [["session"]]))]
        cookies: List<Text>,
    }
}

table! {
    /// Tags that the app itself sends.
    Tags("[tags]", "[tags]") {
        /// The response headers that hold tags.
        response_headers: List<Text> = ["surrogate-key", "cache-tag"],
        /// Whether clients see these headers.
        keep: bool = false,
    }
}

table! {
    /// Help for finding out why.
    Debug("[debug]", "[debug]") {
        /// Whether responses tell their key, tags and route. Not for strangers.
        headers: bool = false,
    }
}

table! {
    /// What is cached, and how.
    #[schemars(extend("required" = ["path"]))]
    Route("a route", "[[routes]]") {
        /// The paths: text, `{captures}` of one segment, and a last `{*rest}` for everything below.
        #[schemars(extend("pattern" = "^[/$]", "examples" = ["/api/v1/campaigns/{id}"]))]
        path: Text,
        /// Whether the route caches: `on`; `off`; or `shadow`, which asks the app each time and tells what caching would have done.
        mode: ModeWord = "on",
        /// The share of hits, 0 to 1, that is asked for again out of band to count those that were stale.
        #[schemars(extend("examples" = [0.01]))]
        audit: Share = 0.0,
        /// Freshness where the app gives none of its own, 1ms to 1 year. Without it the app alone decides.
        ttl: Period,
        /// Whose word on freshness wins: the app's (`respect`), or `ttl` (`ignore`).
        origin: OriginWord = "respect",
        /// How long an entry past its freshness is still served while it is fetched anew, where the app does not say, up to 1 year.
        /// "0s": not at all.
        stale_while_revalidate: Period,
        /// How long an entry past its freshness stands in for an error of the app, where the app does not say, up to 1 year. "0s": not
        /// at all.
        stale_if_error: Period,
        /// `ttl` is shortened by a random part of up to this, so that entries do not expire at once. Less than `ttl`.
        jitter: Period,
        /// Whether an entry that is asked for often is fetched anew in the background shortly before it expires.
        early_refresh: bool = true,
        /// How many ask the app for the same key at once: one per sidecar, or one of all that share the Redis. Without it: what `[redis]`
        /// says.
        collapse: CollapseWord,
        /// Who may share an entry: the same credential, every credential that the app has admitted, or everyone.
        scope: ScopeWord = "private",
        /// Fields that tell entries apart.
        key: List<Text> = [],
        /// Query parameters that tell entries apart: all, none, or these. The others are withheld from the app.
        query: QueryForm = "all",
        /// Tags of the entries: text with fields in braces.
        #[schemars(extend("examples" = [["campaigns:{tenant}", "campaign:{id}"]]))]
        tags: List<Text> = [],
        /// With scope `shared`: how long the app's word on a credential holds.
        admit_for: Period = "60s",
        /// Store responses that set cookies, without the cookies.
        strip_set_cookie: bool = false,
        /// Request headers withheld from the app when an entry is filled.
        drop_headers: List<Text> = [],
        /// Request headers let through although no key has seen them: your word that they change nothing.
        pass_headers: List<Text> = [],
        /// What to do with all other request headers that no key has seen.
        unknown_headers: UnknownWord = "bypass",
        /// Whether the client's own `Cache-Control` counts.
        client_cache_control: ClientWord = "respect",
    }
}

table! {
    /// Which tags a write purges.
    #[schemars(extend("required" = ["path", "tags"]))]
    Purge("a purge rule", "[[purges]]") {
        /// The paths of the writes, as in a route.
        #[schemars(extend("pattern" = "^[/$]", "examples" = ["/api/v1/campaigns/{*rest}"]))]
        path: Text,
        /// The methods of the writes. Without it: every method that is not safe.
        #[schemars(extend("examples" = [["POST", "PUT", "PATCH", "DELETE"]]))]
        methods: List<Text>,
        /// What is purged: text with fields in braces.
        #[schemars(extend("minItems" = 1, "examples" = [["campaigns:{tenant}"]]))]
        tags: List<Text>,
        /// Whether hits go on while the write is under way (`mark`), or go to the app (`bypass`).
        guard: GuardWord = "mark",
        /// When to purge again after the write, for apps that commit late or read from replicas; at most 8 times.
        #[schemars(extend("maxItems" = 8, "examples" = [["1s", "5s"]]))]
        repurge_after: List<Period> = [],
    }
}

words! {
    /// Which `Host` the app sees.
    HostWord -> HostHeader, "a choice of host" { "preserve" => HostHeader::Preserve, "upstream" => HostHeader::Upstream }
}

words! {
    /// What to do without Redis.
    OnLossWord -> OnLoss, "a way to go on without Redis" { "memory" => OnLoss::Memory, "bypass" => OnLoss::Bypass }
}

words! {
    /// What becomes of writes without Redis.
    WritesWord -> Writes, "a rule for writes" { "forward" => Writes::Forward, "refuse" => Writes::Refuse }
}

words! {
    /// Among whom one fill per key is made.
    CollapseWord -> Collapse, "a reach of collapsing" { "process" => Collapse::Process, "cluster" => Collapse::Cluster }
}

words! {
    /// The form of log lines.
    FormatWord -> Format, "a log format" { "text" => Format::Text, "json" => Format::Json }
}

/// How much of the `Authorization` header counts; a prefix has its length beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// All of it.
    Token,
    /// The start of its token.
    Prefix,
}

words! {
    /// How much of the `Authorization` header counts.
    AuthWord -> AuthKind, "a form of auth field" { "token" => AuthKind::Token, "prefix" => AuthKind::Prefix }
}

words! {
    /// Whether a route caches.
    ModeWord -> Mode, "a mode" { "on" => Mode::On, "off" => Mode::Off, "shadow" => Mode::Shadow }
}

words! {
    /// Whose word on freshness wins.
    OriginWord -> OriginRule, "a rule for the origin" { "respect" => OriginRule::Respect, "ignore" => OriginRule::Ignore }
}

words! {
    /// Who may share an entry.
    ScopeWord -> Scope, "a scope" { "private" => Scope::Private, "shared" => Scope::Shared, "public" => Scope::Public }
}

words! {
    /// What to do with headers that no key has seen.
    UnknownWord -> UnknownHeaders, "a rule for headers" {
        "bypass" => UnknownHeaders::Bypass, "drop" => UnknownHeaders::Drop, "pass" => UnknownHeaders::Pass,
    }
}

words! {
    /// Whether the client's own `Cache-Control` counts.
    ClientWord -> ClientCacheControl, "a rule for the client" {
        "respect" => ClientCacheControl::Respect, "ignore" => ClientCacheControl::Ignore,
    }
}

words! {
    /// What hits do during a write.
    GuardWord -> Guard, "a guard" { "mark" => Guard::Mark, "bypass" => Guard::Bypass }
}
