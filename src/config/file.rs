//! The types of `proxy.toml`: its tables, keys, words and defaults, as people write them. The JSON
//! Schema is derived from them. The types of the running program appear only as the values of
//! words.
//!
//! Editors show the comments of the keys, so they are written for the operator.

use super::decode::{
    BrowserForm, Count, Fraction, NamedTable, Period, Size, StripForm, TomlList, TomlString,
    TtlForm, table,
};
use super::keywords::{
    AdmitWord, CaseWord, ClientWord, CollapseWord, FrontWord, ModeWord, OnLossWord, OriginWord,
    ScopeWord, SlashWord, UnknownWord, VaryCookieWord, WritesWord,
};

pub use self::admin::AdminSection;
pub use self::apps::AppSection;
pub use self::codings::CodingsSection;
pub use self::compress::{CompressForm, CompressSection};
pub use self::defaults::DefaultsSection;
pub use self::expect::{ExpectSection, OtherRequestSection};
pub use self::fields::FieldForm;
pub use self::freshness::FreshnessSection;
pub use self::identity::IdentitySection;
pub use self::jwt::JwtSection;
pub use self::limits::LimitsSection;
pub use self::notify::NotifySection;
pub use self::purge_requests::PurgeRequestsSection;
pub use self::purges::{MatchSection, PurgeSection};
pub use self::query::{QueryForm, QuerySection};
pub use self::signature::{SignatureChoice, SignatureSection};
pub use self::signed_in::SignedInForm;
pub use self::sources::SourceSection;
pub use self::tags::TagsSection;
pub use self::telemetry::{DebugSection, LogSection};
pub use self::trace::TraceSection;
pub use self::upstream::UpstreamSection;

mod admin;
mod apps;
mod codings;
mod compress;
mod defaults;
mod expect;
mod fields;
mod freshness;
mod identity;
mod jwt;
mod limits;
mod notify;
mod purge_requests;
mod purges;
mod query;
mod signature;
mod signed_in;
mod sources;
mod tags;
mod telemetry;
mod trace;
mod upstream;

table! {
    /// The configuration of Sidecache: a caching sidecar in front of an HTTP app. Strings may
    /// contain `${NAME}` and `${NAME:-default}` for variables of the environment, and `$$` for a
    /// dollar sign.
    #[schemars(extend("required" = ["upstream"]))]
    ConfigFile("proxy.toml", "keys and sections") {
        /// The switch for all routes: `off` and `shadow` override the `mode` of each route.
        mode: ModeWord = "on",
        /// How often to look for changes of this file, 100ms to 1 hour. With "0s" only SIGHUP and
        /// the admin API reload it.
        watch: Period = "1s",
        /// Other files, whose `[fields]`, `[[apps]]`, `[[routes]]`, `[[purges]]` and `[[expect]]`
        /// are joined with those of this one, in the order of the patterns and then of the names;
        /// relative to the folder of this file. `*` stands for any text within a name. They include
        /// no others. At most 64 files, which together with this one have at most 256KiB.
        #[schemars(extend("uniqueItems" = true, "examples" = [["conf.d/*.toml"]]))]
        include: TomlList<TomlString> = [],
        /// What stands in front of the sidecar, so that the headers it adds are known: identity is
        /// never dropped nor passed, addresses and noise are withheld on fills, what it says of the
        /// request counts if it is one of `trusted_proxies`, and the client's place is withheld
        /// until a field reads it. One of "aws-alb", "azure", "cloudflare", "envoy", "fastly",
        /// "heroku", "traefik".
        #[schemars(extend("uniqueItems" = true, "examples" = [["cloudflare"]]))]
        fronts: TomlList<FrontWord> = [],
        /// Where clients connect, and how much they may use.
        listen: ListenSection = {},
        /// The origin: the app behind the sidecar.
        upstream: UpstreamSection,
        /// Further apps, each with hosts of its own.
        #[schemars(extend("maxItems" = 32))]
        apps: TomlList<AppSection> = [],
        /// Health, metrics and administration.
        admin: AdminSection = {},
        /// The tier in this process's memory.
        memory: MemorySection = {},
        /// The tier that several sidecars share. Without it the cache lives in this process's
        /// memory alone.
        redis: RedisSection,
        /// Bounds on memory and work that requests and responses can cause.
        limits: LimitsSection = {},
        /// Compresses stored responses for clients that accept it.
        compress: CodingsSection,
        /// Which response headers say how long a response is fresh.
        freshness: FreshnessSection = {},
        /// What is logged, to stderr.
        log: LogSection = {},
        /// Spans of requests, for an OpenTelemetry collector.
        trace: TraceSection,
        /// Named values taken from a request, for keys and tags. Captures of a path are fields
        /// without being named here.
        fields: NamedTable<FieldForm> = {},
        /// How tokens (JWT) are verified whose claims are fields.
        jwt: JwtSection,
        /// How the app is asked who holds a credential.
        identity: IdentitySection,
        /// What identifies a caller, besides `Authorization`.
        credential: CredentialSection = {},
        /// Tags that the origin sends.
        tags: TagsSection = {},
        /// Headers that help to find out why.
        debug: DebugSection = {},
        /// Values for the keys of all routes that lack them, but for `path`. A key of a route
        /// replaces the one here.
        defaults: DefaultsSection,
        /// The routes. The most specific path wins; the order does not matter.
        routes: TomlList<RouteSection> = [],
        /// Who may send `PURGE` and `BAN`, as plugins of content management systems do.
        purge_requests: PurgeRequestsSection,
        /// Which tags a write purges.
        purges: TomlList<PurgeSection> = [],
        /// What tells of changes that no request tells, such as a database.
        sources: TomlList<SourceSection> = [],
        /// Who is told of purges, such as a CDN in front.
        notify: TomlList<NotifySection> = [],
        /// Requests, and what the rules must make of them.
        expect: TomlList<ExpectSection> = [],
    }
}

table! {
    /// Where clients connect, and how much they may use.
    ListenSection("[listen]", "[listen]") {
        /// Address and port; or `unix:` and the path of a socket.
        #[schemars(extend("examples" = [
            "127.0.0.1:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "unix:/run/sidecache/sidecache.sock",
        ]))]
        address: TomlString = "127.0.0.1:8080",
        /// The mode of the socket's file, where `address` is a socket: who may write to it may
        /// connect.
        #[schemars(extend("pattern" = "^(0?[0-7]{3}|.*\\$\\{.*)$"))]
        socket_mode: TomlString = "0660",
        /// Addresses and networks whose `X-Forwarded-*` headers are believed; `unix` stands for
        /// whatever connects to the socket.
        #[schemars(extend("examples" = [["127.0.0.1", "10.0.0.0/8"], ["unix"]]))]
        trusted_proxies: TomlList<TomlString> = [],
        /// How many client connections may be open at once.
        max_connections: Count = 10_000,
        /// The largest request head that is accepted.
        max_header_bytes: Size = "64KiB",
        /// How many headers a request may have.
        max_headers: Count = 100,
        /// How long the head of a request may take to arrive, from its first byte.
        header_timeout: Period = "10s",
        /// How long a connection may stay open without a request.
        idle_timeout: Period = "75s",
        /// How long the body of a request may pause.
        body_timeout: Period = "30s",
        /// How long a client may stall before it reads more of the response.
        write_timeout: Period = "60s",
        /// How long a client that has closed its side of the connection, and so may have left, is
        /// kept waiting for the next byte of the response to a GET, HEAD or OPTIONS. Where another
        /// request needs the place at the origin, a request without a response is given up at once.
        /// With "0s" it is always.
        half_closed: Period = "5s",
        /// How many HTTP/2 streams a connection may have.
        max_streams: Count = 128,
        /// How long requests in progress may continue after a signal to stop.
        drain: Period = "25s",
        /// How long streams (event streams, responses of unknown length that wait, upgraded
        /// connections) may continue after that.
        stream_drain: Period = "5s",
    }
}

table! {
    /// The tier in this process's memory.
    MemorySection("[memory]", "[memory]") {
        /// How much memory entries may take, with overhead. "0" turns the tier off.
        size: Size = "256MiB",
        /// A file in which what is fresh in memory outlives a restart; relative to the folder of
        /// this file. It is written at the end of the drain and read at the start, once. It holds
        /// the bodies and keys of all that is not stored for one client. Each sidecar needs its
        /// own. Without it a restarted sidecar is empty.
        #[schemars(extend("examples" = ["/var/lib/sidecache/snapshot"]))]
        snapshot: TomlString,
        /// The largest snapshot. What does not fit is left out; a larger file is not read.
        snapshot_size: Size = "256MiB",
        /// How long writing the snapshot may take after the drain, and reading it before the first
        /// request.
        snapshot_time: Period = "3s",
    }
}

table! {
    /// The tier that several sidecars share.
    #[schemars(extend("required" = ["url"]))]
    RedisSection("[redis]", "[redis]") {
        /// Where Redis is: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS,
        /// `unix:///path?db=0`,
        /// `redis-sentinel://host:port[/database]?sentinelServiceName=NAME&node=host2:port2`,
        /// `redis-cluster://host:port?node=host2:port2`.
        #[schemars(extend("examples" = [
            "redis://127.0.0.1:6379/0",
            "rediss://${REDIS_HOST}:6380",
            "unix:///run/redis.sock?db=0",
            "redis-sentinel://s1:26379?sentinelServiceName=mymaster&node=s2:26379&node=s3:26379",
            "redis-cluster://c1:6379?node=c2:6379",
        ]))]
        url: TomlString,
        /// The ACL user, when it is not in the url.
        username: TomlString,
        /// The password, when it is not in the url.
        #[schemars(extend("examples" = ["${REDIS_PASSWORD}"]))]
        password: TomlString,
        /// A PEM file of roots to trust in place of the system's; relative to the folder of this
        /// file.
        ca_file: TomlString,
        /// The prefix of all keys. Sidecars with the same one share a cache.
        #[schemars(extend("pattern" = "^([A-Za-z0-9_.-]{1,64}|.*\\$\\{.*)$"))]
        namespace: TomlString = "sidecache",
        /// How long to wait for Redis. A request that waits longer goes to the origin.
        deadline: Period = "100ms",
        /// For how long Redis may leave everything unanswered before it counts as lost, in time in
        /// which the sidecar itself runs. Until then requests go to the origin and writes wait.
        loss_after: Period = "1s",
        /// Connections to Redis.
        connections: Count = 1,
        /// How long a sidecar may serve hits from memory without asking Redis, after it has
        /// received its own heartbeat.
        lease: Period = "2s",
        /// How long to wait after reconnecting before Redis is used again.
        rejoin_grace: Period = "2s",
        /// What to do with reads while Redis is lost: serve from memory, for a short time, what
        /// this sidecar filled itself (`memory`), or ask the origin (`bypass`).
        on_redis_loss: OnLossWord = "memory",
        /// How long an entry may be served from memory while Redis is lost.
        degraded_ttl: Period = "2s",
        /// What to do with writes while Redis is lost: forward them, or answer 503 before the
        /// origin sees them (`refuse`).
        writes: WritesWord = "forward",
        /// A file for purges that Redis has not received yet, so that they survive a crash;
        /// relative to the folder of this file. Each sidecar needs its own. Without it they are
        /// kept in memory.
        #[schemars(extend("examples" = ["/var/lib/sidecache/journal"]))]
        journal: TomlString,
        /// How many replicas must have a purge before the write that caused it is answered. With
        /// fewer, Redis counts as lost.
        wait_replicas: Count = 0,
        /// How many fills of one key may run at once: one per sidecar (`process`), or one among all
        /// sidecars that share this Redis (`cluster`). Routes can override it.
        collapse: CollapseWord = "process",
        /// Compresses bodies in Redis and on the way to it: those of types such as JSON, HTML and
        /// other text that the app has not coded itself, from a size on. Clients get the same
        /// bytes. Sidecars with and without it share their entries.
        compress: CompressForm = "off",
        /// A secret that authenticates stored entries and tag records, and keys the hashes of
        /// credentials: at least 16 characters, the same in all sidecars.
        #[schemars(extend("examples" = ["${CACHE_SECRET}"]))]
        secret: TomlString,
    }
}

table! {
    /// What identifies a caller, besides `Authorization`.
    CredentialSection("[credential]", "[credential]") {
        /// Further headers that identify the caller.
        #[schemars(extend("examples" = [["x-api-key"]]))]
        headers: TomlList<TomlString> = [],
        /// The cookies that identify the caller, where `*` stands for any text. Without this key,
        /// all cookies do that are not ignored.
        #[schemars(extend("examples" = [["session"], ["wordpress_logged_in_*"]]))]
        cookies: TomlList<TomlString>,
        /// Further cookies that change no response: they are withheld on fills, and count for
        /// nothing. `*` stands for any text; "@consent" and "@ab" stand for the cookies of consent
        /// banners and of A/B tests. Those of analytics ("@analytics") are ignored anyway. An entry
        /// that begins with `!` takes names out again.
        #[schemars(extend("examples" = [["@consent", "promo_*", "!_pk_*"]]))]
        ignore_cookies: TomlList<TomlString> = [],
        /// The paths that the origin redirects to when a caller must log in, where `*` stands for
        /// any text; case and escapes do not count. A redirect to one of them, or to another host
        /// that begins with `login.`, `auth.`, `sso.`, `account.`, `accounts.`, `id.` or `idp.`, is
        /// the answer to one caller. If the file has this key, a stranger's write that is
        /// redirected to one of them counts as refused, and purges nothing.
        login_paths: TomlList<TomlString> = [
            "*/login", "*/login/*", "*/login.*", "*/log-in", "*/log_in", "*/logon*", "*/signin*",
            "*/sign_in", "*/sign-in", "*/session/new", "*/sessions/new", "*/wp-login.php",
            "*/accounts/login*", "*/auth", "*/auth/login*", "*/user/login*", "*/sso", "*/sso/*",
            "*/saml/*", "*/saml2/*", "*/authorize*", "*/oauth2/*", "*/openid-connect/auth",
            "*/adfs/ls*"
        ],
    }
}

table! {
    /// What is cached, and how.
    #[schemars(extend("required" = ["path"]))]
    RouteSection("a route", "[[routes]]") {
        /// The paths: text, `{captures}` of a segment or of a part of one, and a last `{*rest}` for
        /// everything below.
        #[schemars(extend(
            "pattern" = "^[/$]",
            "examples" = ["/api/v1/campaigns/{id}", "/reports/{id}.json"]
        ))]
        path: TomlString,
        /// The app whose requests it is for: the `name` of one in `[[apps]]`, or "upstream".
        /// Without it, the app of `[upstream]`.
        #[schemars(extend("examples" = ["shop"]))]
        app: TomlString,
        /// What a request must have besides, to be for this route: query parameters, a host,
        /// headers. They are part of the key in any case. A request that does not have it goes to
        /// the next route that has its path.
        r#match: MatchSection,
        /// The methods that it answers: GET, which is for HEAD as well, and with `read_only` POST,
        /// QUERY, PROPFIND, REPORT and SEARCH. Without it, GET.
        #[schemars(extend("minItems" = 1, "examples" = [["POST"], ["GET", "POST"]]))]
        methods: TomlList<TomlString>,
        /// Says that the app changes nothing for the requests of `methods`, whatever their body
        /// says: they are reads, and purge nothing. One that names another method is a write.
        read_only: bool = false,
        /// Says that the path is a GraphQL endpoint: queries are reads, mutations are writes.
        graphql: bool = false,
        /// Whether the route caches. `shadow` asks the origin each time and reports what the cache
        /// would have done.
        mode: ModeWord = "on",
        /// The share of callers, 0 to 1, that the route caches for: requests of the others pass. By
        /// a hash of the credential, or of the address where there is none, so that a caller stays
        /// in or out; a higher share keeps those of a lower one. Writes purge in any case.
        #[schemars(extend("examples" = [0.1]))]
        share: Fraction,
        /// The share of hits, 0 to 1, that is fetched again in the background, to count hits that
        /// were stale.
        #[schemars(extend("examples" = [0.01]))]
        audit: Fraction = 0.0,
        /// How long responses are fresh if the origin does not say, 1ms to 1 year: those with
        /// status 200, or those with the statuses of a table. Without it the origin alone decides.
        ttl: TtlForm,
        /// Which freshness counts: the origin's if it gives one (`respect`), or always `ttl`
        /// (`ignore`).
        origin: OriginWord = "respect",
        /// The time of day at which everything that is stored ends, because a job makes it anew: by
        /// UTC, or with an offset. Without a `ttl`, responses with status 200 for which the origin
        /// gives no freshness are fresh until then. Nothing stale is served past it, unless
        /// `stale_if_error` says so.
        #[schemars(extend(
            "pattern" = "^(([01][0-9]|2[0-3]):[0-5][0-9](Z|[+-][01][0-9]:[0-5][0-9])?|.*\\$\\{.*)$",
            "examples" = ["03:00", "03:00+01:00"]
        ))]
        expires_at: TomlString,
        /// How long a stale entry may be served while it is refreshed, if the origin does not say;
        /// up to 1 year. "0s" turns it off.
        stale_while_revalidate: Period,
        /// How long a stale entry may be served in place of an error of the origin, if the origin
        /// does not say; up to 1 year. "0s" turns it off.
        stale_if_error: Period,
        /// Shortens `ttl` by a random time of up to this, so that entries do not all expire at
        /// once. Must be less than `ttl`.
        jitter: Period,
        /// Whether an entry that is requested often is refreshed in the background shortly before
        /// it expires.
        early_refresh: bool = true,
        /// How many fills of one key may run at once: one per sidecar, or one among all sidecars
        /// that share the Redis. Without it, `collapse` of `[redis]` counts.
        collapse: CollapseWord,
        /// Who may share an entry: callers with the same credential (`private`), every credential
        /// that the origin has authorized (`shared`), or everyone (`public`).
        scope: ScopeWord = "private",
        /// Fields that tell entries apart. A `?` after a name lets a request lack the field. With
        /// `read_only`, "body" is the whole body of a request, and a field from the body a member.
        key: TomlList<TomlString> = [],
        /// Query parameters that tell entries apart: all, none, a list, or all `except` some. The
        /// origin does not get the others. With `order = "ignore"`, `?a=1&b=2` and `?b=2&a=1` are
        /// one entry.
        query: QueryForm = "all",
        /// Tags of the entries: text with fields in braces. A `?` after a name lets a request lack
        /// the field, `{caller}` is who the caller is, and `{response:/items/*/id}` reads the JSON
        /// of the response.
        #[schemars(extend("examples" = [["campaigns:{tenant}", "campaign:{response:/*/id}"]]))]
        tags: TomlList<TomlString> = [],
        /// How long a credential stays authorized after the origin has accepted it. For scope
        /// `shared`.
        admit_for: Period = "60s",
        /// What a credential is authorized for once the origin has accepted it, in scope `shared`:
        /// the entry that it was given (`entry`), or every entry of the route with the same fields
        /// of `key` (`route`). `route` says that who may read one of them may read all.
        admit: AdmitWord = "entry",
        /// How long the origin's last answer to a credential holds, 1ms to 1 day: after that, an
        /// entry of its caller is served only once the origin has confirmed it. It bounds how long
        /// a revoked credential is served. Without it, entries are served while they are fresh.
        #[schemars(extend("examples" = ["30s"]))]
        revalidate_after: Period,
        /// The languages that the origin has. `Accept-Language` is narrowed to the one that fits
        /// best, for the key and on fills.
        #[schemars(extend("minItems" = 1, "examples" = [["en", "de", "pt-BR"]]))]
        languages: TomlList<TomlString>,
        /// What a `Vary` with `Cookie` or `Authorization` means in scope `public`: the response is
        /// stored for requests without them, and the others are passed (`respect`), or nothing
        /// (`ignore`).
        vary_cookie: VaryCookieWord = "respect",
        /// Whether to store responses that set cookies, without the cookies: those that set only
        /// cookies of a list, where `*` stands for any text; or, with `true`, all responses to
        /// requests that carry a credential.
        strip_set_cookie: StripForm = false,
        /// Request headers that the origin does not get on a fill, where `*` stands for any text.
        drop_headers: TomlList<TomlString> = [],
        /// Request headers that are forwarded although they are not part of the key, each by its
        /// whole name. They must not change the response.
        pass_headers: TomlList<TomlString> = [],
        /// What to do with all other request headers that are not part of the key.
        unknown_headers: UnknownWord = "bypass",
        /// What those have who are signed in. Everybody else is a guest: guests share one entry,
        /// as in scope `public`, and fills for them carry no cookies. Who sends `Authorization` or
        /// a header of `[credential]` is no guest. An answer that sets cookies is stored for guests
        /// if `strip_set_cookie` names all of them, and a second request without cookies gets the
        /// same bytes. Sessions that `strip_set_cookie` names are then taken out for guests alone.
        #[schemars(extend("examples" = [
            { "cookie": "wordpress_logged_in_*" },
            { "field": "user", "cookie": ["remember_token"] },
        ]))]
        signed_in: SignedInForm,
        /// Whether the case of the fixed parts of the path counts (`exact`), or not (`ignore`), for
        /// origins that route `/API/Items` like `/api/items`. Captures are always exact.
        case: CaseWord = "exact",
        /// What to do with a path that holds an escaped slash (`%2f`): such a request is never
        /// cached (`pass`), or it is like any other, because the origin keeps `%2f` as a part of
        /// a segment (`keep`), as npm registries and GitLab do. `%252f`, `%5c` and dot segments
        /// are never cached.
        encoded_slash: SlashWord = "pass",
        /// Whether the `Cache-Control` of requests counts.
        client_cache_control: ClientWord = "respect",
        /// What clients are told in place of the origin's `Cache-Control` and `Expires`: that they
        /// must store nothing (`no-store`), or for how long they may use what the cache has stored
        /// without asking, "0s" to 1 year in whole seconds. Purges do not reach clients. Without it
        /// they are told what the origin says.
        browser: BrowserForm,
        /// Whether `[compress]` counts for this route. Without it, it does in the scopes `shared`
        /// and `public`, and for guests. With `true` in scope `private` too: the length of a
        /// compressed body may tell a secret in it to whoever can put text beside that and count
        /// the bytes (BREACH).
        compress: bool,
    }
}
