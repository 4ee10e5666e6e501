//! Why the cache took no part in a request, found nothing to serve, or did not store a response.
//!
//! The table below is the only list of reasons: headers, logs, metrics, the admin API, `explain`
//! and the reference page read it. It must not know how a decision is made, nor for which route.

use std::borrow::Cow;

/// The step of a request at which a reason is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request is passed to the origin, and the cache takes no part.
    Bypass,
    /// The lookup finds nothing that may be served.
    Lookup,
    /// A stale response is served.
    Stale,
    /// The head of the response says that it must not be stored.
    Store,
    /// The response is dropped while its body arrives, after the head has been sent.
    Body,
    /// The sidecar answers in place of the origin.
    Failure,
}

impl Step {
    /// All steps, in the order in which a request meets them.
    pub const ALL: [Self; 6] =
        [Self::Bypass, Self::Lookup, Self::Stale, Self::Store, Self::Body, Self::Failure];
}

macro_rules! reasons {
    ($(
        $(#[$comment:meta])*
        $name:ident = $words:literal, [$($step:ident),+],
            meaning: $meaning:literal,
            remedy: $remedy:literal;
    )+) => {
        /// Why a request was not answered from the cache, or a response not stored. A closed set:
        /// it labels metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $meaning] $name,)+ }

        impl Reason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason's words, as they stand in headers and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $words,)+ }
            }

            /// At which steps of a request it is given.
            #[must_use]
            pub const fn steps(self) -> &'static [Step] {
                match self { $(Self::$name => &[$(Step::$step,)+],)+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }

            /// What an operator can do about it; none where nothing is wrong.
            #[must_use]
            pub const fn remedy(self) -> Option<&'static str> {
                match self { $(Self::$name => some($remedy),)+ }
            }
        }
    };
}

const fn some(text: &'static str) -> Option<&'static str> {
    if text.is_empty() { None } else { Some(text) }
}

impl Reason {
    /// The value of the metric label `reason`: the words in `snake_case`.
    #[must_use]
    pub fn label(self) -> Cow<'static, str> {
        match self {
            // An asterisk is no part of a word.
            Self::VaryStar => Cow::Borrowed("vary_star"),
            _ if self.as_str().contains([' ', '-']) => {
                Cow::Owned(self.as_str().replace([' ', '-'], "_"))
            }
            _ => Cow::Borrowed(self.as_str()),
        }
    }

    /// Whether a request may end with it. One that is given only while the body arrives comes too
    /// late for that.
    #[must_use]
    pub const fn ends_requests(self) -> bool {
        !matches!(self.steps(), [Step::Body])
    }

    /// Whether the words are followed by a name: of the missing field, of the unkeyed header.
    #[must_use]
    pub const fn has_subject(self) -> bool {
        matches!(
            self,
            Self::MissingField
                | Self::UnkeyedHeader
                | Self::WithheldHeader
                | Self::AmbiguousCookie
                | Self::UnverifiedToken
                | Self::AmbiguousMatch
                | Self::PurgeRefused
        )
    }
}

reasons! {
    // Requests that no route matches, or that the cache takes no part in.
    NoRoute = "no route", [Bypass],
        meaning: "No route matches the path.",
        remedy: "Add a route for these paths if they should be cached.";
    UnmetMatch = "match not met", [Bypass],
        meaning: "Routes have this path, and the request meets the `match` of none of them.",
        remedy: "Add a route for such requests if they should be cached.";
    Method = "method", [Bypass],
        meaning: "The method is neither GET nor HEAD, and no route lists it in `methods`; or it is \
                  GET or HEAD, and the route lists others.",
        remedy: "";
    ModeOff = "mode off", [Bypass],
        meaning: "The `mode` of the route, or of the whole file, is `off`.",
        remedy: "Set `mode = \"on\"`.";
    SwitchedOff = "switched off", [Bypass],
        meaning: "The route, or every route, is switched off for a time, by `sidecache off`, the \
                  dashboard or `POST /mode`. The file says otherwise.",
        remedy: "Wait until the switch ends, or end it with `sidecache on`. `GET /mode` lists the \
                 switches.";
    Shadow = "shadow", [Bypass],
        meaning: "The `mode` of the route, or of the whole file, is `shadow`, or a switch makes it \
                  so for a time: the origin answers, and \
                  the sidecar notes what the cache would have done.",
        remedy: "Read `sidecache advise`, then set `mode = \"on\"`.";
    NotInShare = "not in share", [Bypass],
        meaning: "The route caches for a `share` of its callers, and this one is not among them.",
        remedy: "Raise `share`, or remove it once the route has proved itself.";
    MissingField = "missing field", [Bypass],
        meaning: "The request lacks a field that the route's `key` or `tags` need. In parentheses \
                  it says why a signed session cookie gives none.",
        remedy: "Let clients send the field. With a `?` after its name in `key`, requests without \
                 it have an entry of their own.";
    UnkeyedHeader = "unkeyed header", [Bypass],
        meaning: "The request has a header that the origin may read and the key does not contain.",
        remedy: "Make the header a field of the key, or name it in `[credential] headers` if it \
                 proves who asks. List it in `drop_headers` only if no response depends on it. For \
                 `X-Forwarded-*`, name the proxy that sends it in `listen.trusted_proxies`.";
    WithheldHeader = "withheld header", [Bypass],
        meaning: "The response varies on a header that the cache withholds when it fetches a \
                  response for many, and the request has this header: it goes to the origin as it \
                  is.",
        remedy: "In scope `public`, set `vary_cookie = \"ignore\"` if the responses are the same \
                 with and without a cookie, or use scope `private`.";
    FillRefused = "fill refused", [Bypass],
        meaning: "The origin refused the request that the cache made (401, 403, 406, 429, a \
                  redirect to a login that ends no session, or 400, 419 and 422 where the client \
                  has sent an anti-forgery token), which has less of the client than its own; or \
                  its response varies on what only the client's own has, or redirects to another \
                  spelling of the query that has the same key. For 10 seconds requests for the \
                  key go to the origin as they are.",
        remedy: "Find out what the origin asks for: `sidecache explain` shows what it gets on a \
                 fill. Name the header in `key`, or let the client's address \
                 into the key with a field `{ client = \"address\" }`.";
    AmbiguousPath = "ambiguous path", [Bypass],
        meaning: "The path can be read in more than one way (`%2f`, `;`, dot segments).",
        remedy: "Let clients send plain paths. If `%2f` is all, and the origin never reads it as a \
                 slash, set `encoded_slash = \"keep\"` on the route.";
    AmbiguousQuery = "ambiguous query", [Bypass],
        meaning: "A query parameter that the key needs is repeated, disguised by encoding, or \
                  unreadable.",
        remedy: "Correct the client, or set `query = \"all\"` so that every parameter counts.";
    AmbiguousMatch = "ambiguous match", [Bypass],
        meaning: "What the `match` of a route asks for can be read in more than one way: it is \
                  repeated or disguised, or another header contradicts it.",
        remedy: "Correct the client. A space in a query is `%20` to every program, `+` is not.";
    AmbiguousCookie = "ambiguous cookie", [Bypass],
        meaning: "A cookie that the key needs comes twice, as browsers send it that hold one for \
                  each of two paths or domains. The app may read either.",
        remedy: "Let the app set it for one path and one domain alone, and clear the other one.";
    UnverifiedToken = "unverified token", [Bypass],
        meaning: "A field of the key comes from a token (JWT), and this one is not verified: it is \
                  expired or not yet valid, its signature is wrong, its key is unknown, its \
                  algorithm, issuer or audience is another one, or it is no JWT. The name of the \
                  field and the cause follow.",
        remedy: "Nothing, if the origin refuses such tokens, too. Otherwise compare `[jwt]` with \
                 what the origin accepts: `algorithms`, `issuer`, `audience`, `leeway`, and where \
                 the keys come from.";
    TokenKeysUnavailable = "token keys unavailable", [Bypass],
        meaning: "A field of the key comes from a token (JWT), and the keys to verify it could not \
                  be fetched from `jwks_url`, or the last ones are older than `keep_keys`.",
        remedy: "See `GET /ready` for the cause, and check `jwks_url` in `[jwt]` and the way \
                 to it.";
    IdentityUnknown = "identity unknown", [Bypass],
        meaning: "A field of the key is what the origin says of the caller (`[identity]`), and \
                  nobody knows it: the origin has refused to say, was not asked, failed, was too \
                  slow, redirected, or answered with something else than JSON that has a single \
                  value there. The name of the field and the cause follow.",
        remedy: "Ask the origin as the caller: `curl` the `path` of `[identity]` with the caller's \
                 cookies, and compare the answer with the field's pointer. An answer that sets a \
                 cookie switches asking off until the next reload: name another path.";
    IdentityUnconfirmed = "identity unconfirmed", [Body],
        meaning: "The key has what the origin says of the caller (`[identity]`), and the origin, \
                  asked again once its response was whole, said something else or nothing: the \
                  response may be for another key.",
        remedy: "Nothing, if it is rare: the caller has just become another one. Otherwise raise \
                 `timeout` or `probes` of `[identity]`.";
    SessionRenewal = "session renewal", [Bypass],
        meaning: "The signed session cookie is older than half of its field's `max_age`, and \
                  `strip_set_cookie` names it: a hit would not renew it, so the request goes to \
                  the origin, which may.",
        remedy: "If it does not go away, the app does not renew the session: take the cookie out \
                 of `strip_set_cookie`.";
    RequestBody = "request body", [Bypass],
        meaning: "A GET or HEAD has a body, which no key contains.",
        remedy: "";
    AmbiguousBody = "ambiguous body", [Bypass],
        meaning: "The route has the body of the request in its key, and the body has no single \
                  reading. In parentheses it says why: a member comes twice (in any case), JSON is \
                  malformed or nested too deep, the key names members and the body is no JSON, or \
                  trailers follow.",
        remedy: "Correct the client. With `key = [\"body\"]`, bodies that are no JSON are compared \
                 by their bytes.";
    Graphql = "graphql", [Bypass],
        meaning: "The route is a GraphQL endpoint, and the request is no query that can be stored. \
                  In parentheses it says why: a subscription, a batch, an answer in parts \
                  (`@defer`, `@stream`, `@live`), no document, a document that is known by its \
                  hash alone and not to this sidecar, or no operation chosen among several. \
                  Without parentheses it is a GET that may be a mutation: it is a write.",
        remedy: "";
    BodyTooLarge = "body too large", [Bypass],
        meaning: "The route has the body of the request in its key, and the body is longer than \
                  `limits.read_body`, or `limits.uploads` has no room for it.",
        remedy: "Raise `limits.read_body`, or `limits.uploads`.";
    Range = "range", [Bypass],
        meaning: "The request asks for a part of a response that is not stored. The whole response \
                  is fetched in the background if it is at most `limits.range_fill` long.",
        remedy: "Raise `limits.range_fill` if larger responses should be fetched whole.";
    Precondition = "precondition", [Bypass],
        meaning: "The request has `If-Match` or `If-Unmodified-Since`, which only the origin can \
                  evaluate; or any condition, where its method is neither GET nor HEAD.",
        remedy: "";
    Upgrade = "upgrade", [Bypass],
        meaning: "The client asks for another protocol, such as WebSocket.",
        remedy: "";
    ConnectionLogin = "connection login", [Bypass],
        meaning: "The request logs in its connection (`Authorization: NTLM` or `Negotiate`), or \
                  another request on the same connection has done so.",
        remedy: "";
    NoHost = "no host", [Bypass],
        meaning: "The request is HTTP/1.0 and names no host, as health checks do. The origin gets \
                  the authority of `[upstream] url`, and nothing is stored.",
        remedy: "Let the client send `Host` if its requests should be cached.";
    MethodOverride = "method override", [Bypass],
        meaning: "A header or a parameter asks the origin to treat the request as another method. \
                  A write purges under that method as well; a GET or HEAD is passed, is not stored \
                  and purges nothing.",
        remedy: "If the app obeys such GETs, set `upstream.method_override = true`. If one changes \
                 data, name it in a purge rule with `methods = [\"GET\"]`.";
    DeclaredWrite = "declared write", [Bypass],
        meaning: "A purge rule with `methods = [\"GET\"]` says that this GET or HEAD changes data. \
                  It is handled as a write.",
        remedy: "";
    PurgeRequest = "purge request", [Bypass],
        meaning: "A `PURGE` or `BAN`, which `[purge_requests]` lets the client send: the sidecar \
                  has purged, and the origin does not get it.",
        remedy: "";
    PurgeRefused = "purge refused", [Failure],
        meaning: "A `PURGE` or `BAN` that `[purge_requests]` does not take: it comes from \
                  somebody else (403), or its regular expression is more than plain text (400). \
                  What follows says why.",
        remedy: "Name the address in `from`, or let the client send the token.";
    Webhook = "webhook", [Bypass],
        meaning: "A webhook for one of `[[sources]]`: the origin does not get it.",
        remedy: "";
    WebhookRefused = "webhook refused", [Failure],
        meaning: "A webhook that is not signed as it must be, or has another fault.",
        remedy: "Compare `secret` and `signature` with those of the sender.";
    MutationPending = "mutation pending", [Bypass],
        meaning: "A write that may purge one of the tags is in progress, and its purge rule has \
                  `guard = \"bypass\"`.",
        remedy: "Set `guard = \"mark\"` in the purge rule to serve hits meanwhile.";
    Handover = "hand-over", [Bypass, Body],
        meaning: "Another process of this sidecar has taken over, or is about to; or this one has \
                  taken over, and the other one has not answered its last write yet. Meanwhile \
                  nothing is stored.",
        remedy: "";
    CacheUnavailable = "cache unavailable", [Bypass],
        meaning: "Redis did not answer within `redis.deadline`, or is lost and `on_redis_loss` is \
                  `bypass`, or is used by a sidecar of another protocol as well.",
        remedy: "Check Redis and the network path to it; `/ready` says which it is.";
    RequestNoStore = "request no-store", [Bypass],
        meaning: "The request's `Cache-Control` forbids storing the response.",
        remedy: "Correct the client, or set `client_cache_control = \"ignore\"`.";
    KeyTooLong = "key too long", [Bypass],
        meaning: "The cache key would be longer than `limits.key`.",
        remedy: "List the parameters that count in `query`, or raise `limits.key`.";

    // Lookups that find nothing that may be served, and stale responses.
    NotStored = "not stored", [Lookup],
        meaning: "Nothing is stored under the key.",
        remedy: "If it does not go away, compare the keys of two requests with `sidecache \
            explain`; what differs in each request is told by name, once that is known.";
    Expired = "expired", [Lookup],
        meaning: "The stored response is no longer fresh.",
        remedy: "If writes purge the response anyway, let the origin send a longer `max-age`, or \
                 set a longer `ttl`, which counts where the origin says nothing or `origin` is \
                 `\"ignore\"`.";
    StaleWhileRevalidate = "stale-while-revalidate", [Stale],
        meaning: "The stored response is no longer fresh and is served while a new one is fetched.",
        remedy: "";
    Purged = "purged", [Lookup],
        meaning: "The stored response was purged.",
        remedy: "If it happens too often, use narrower tags.";
    NotAdmitted = "not admitted", [Lookup],
        meaning: "The origin has not given this credential this very response within `admit_for`.",
        remedy: "Set a longer `admit_for` if callers rarely lose access, or `admit = \"route\"` if \
                 who may read one page may read all.";
    CredentialUnconfirmed = "credential not confirmed", [Lookup],
        meaning: "The origin has not confirmed the stored response to its caller within \
                  `revalidate_after`.",
        remedy: "Set a longer `revalidate_after` if a revoked credential may be served for longer.";
    RequestNoCache = "request no-cache", [Lookup],
        meaning: "The request's `Cache-Control` asks for a newer response than the stored one.",
        remedy: "Correct the client, or set `client_cache_control = \"ignore\"`.";
    OnlyIfCached = "only if cached", [Failure],
        meaning: "The request has `only-if-cached`, and nothing stored may be served. The status \
            is \
                  504.",
        remedy: "";
    VaryMiss = "vary miss", [Lookup],
        meaning: "The stored response varies by a header (`Vary`), and nothing is stored for this \
                  request's value.",
        remedy: "If it does not go away, check which headers the origin's `Vary` names.";

    // Responses that are not stored.
    NoStore = "no-store", [Store],
        meaning: "The origin sent `Cache-Control: no-store`.",
        remedy: "Correct the origin. Overriding it with `origin = \"ignore\"` and a `ttl` is safe \
                 only on a route without forms, logins or anything else of one caller.";
    Private = "private", [Store],
        meaning: "The origin sent `Cache-Control: private`.",
        remedy: "Correct the origin. Overriding it with `origin = \"ignore\"` and a `ttl` is safe \
                 only on a route without forms, logins or anything else of one caller.";
    NoCache = "no-cache", [Store],
        meaning: "The origin sent `Cache-Control: no-cache` and no validator.",
        remedy: "Let the origin send an `ETag`, or set `origin = \"ignore\"` with a `ttl`.";
    NoFreshness = "no freshness", [Store],
        meaning: "Neither the origin nor the route says how long the response is fresh.",
        remedy: "Give the route a `ttl`.";
    StaleOnArrival = "stale on arrival", [Store],
        meaning: "The response was stale when it arrived: `max-age=0`, an `Expires` in the past, \
            or \
                  an `Age` beyond its lifetime.",
        remedy: "Correct the origin. Overriding it with `origin = \"ignore\"` and a `ttl` is safe \
                 only on a route without forms, logins or anything else of one caller.";
    SetCookie = "set-cookie", [Store],
        meaning: "The response sets a cookie.",
        remedy: "Name the cookie in `strip_set_cookie` if nothing needs it: neither a login, nor a \
                 form in the response. Never strip a session or the token of a form; let the app \
                 set it only when it changes.";
    SessionChanged = "session changed", [Store],
        meaning: "The response sets a signed session cookie that `strip_set_cookie` names, with \
                  another payload than that of the request, or one that cannot be verified: a \
                  login, a logout, a message for the next page.",
        remedy: "If a member of the payload changes each time and no response depends on it, name \
                 it in `ignore` of the field.";
    GuestsDiffer = "guests differ", [Bypass, Body],
        meaning: "The route has `signed_in`, and two requests of guests without cookies were \
                  answered with different bytes, where the answer sets cookies. It is not stored, \
                  and for a minute the guests' requests for this key go to the origin as they \
                  are.",
        remedy: "Look for what differs in the page: a token of a form, a nonce, a time. Let the \
                 app leave it out for guests, or take the page out of the route.";
    GuestsUncompared = "guests uncompared", [Store, Body],
        meaning: "The answer to a guest sets cookies, and could not be compared with a second one, \
                  so it is not stored: the second request failed or took longer than 30 seconds, \
                  16 others are compared already, or this request did not lead the others.",
        remedy: "If it does not go away, let the app set no cookies for guests.";
    VaryStar = "vary *", [Store],
        meaning: "The origin sent `Vary: *`: no header tells its responses apart.",
        remedy: "";
    Status = "status", [Store],
        meaning: "Responses with this status are not stored.",
        remedy: "";
    Authorization = "authorization", [Store],
        meaning: "The request had `Authorization`, and the response does not permit sharing.",
        remedy: "Use `scope = \"private\"`, or `scope = \"shared\"` with a `ttl`.";
    TooLarge = "too large", [Store, Body],
        meaning: "The body is larger than `limits.object`.",
        remedy: "Raise `limits.object`.";
    Truncated = "truncated", [Body],
        meaning: "The body ended before it was complete.",
        remedy: "Check the origin's log.";
    Unframed = "body not delimited", [Store],
        meaning: "The body ends with the connection, so that nobody can tell whether it is \
            complete.",
        remedy: "Let the origin send `Content-Length` or chunks.";
    ContentCoding = "content coding", [Store],
        meaning: "The response has a content coding that the request did not accept, so that other \
                  clients might not be able to read it.",
        remedy: "Let the origin honour `Accept-Encoding`.";
    ClientGone = "client gone", [Body, Failure],
        meaning: "The client left before its response began: the request is in the access log with \
                  the status 499, which nobody gets. Or all clients left while the body arrived, \
                  and it was still not complete 30 seconds later.",
        remedy: "";
    EventStream = "event stream", [Store],
        meaning: "The response is `text/event-stream`, which has no end.",
        remedy: "";
    Trailers = "trailers", [Body],
        meaning: "The body ended in trailers.",
        remedy: "";
    TooManyTags = "too many tags", [Store, Body],
        meaning: "The response has more tags than `limits.tags`.",
        remedy: "Let the origin send fewer tags, or raise `limits.tags`.";
    TagsUnread = "tags unread", [Store, Body],
        meaning: "The route's `tags` name values of the response (`{response:/id}`), and they \
                  cannot be read: it is no JSON, it is compressed, or something is missing there. \
                  It is not stored, because a purge would miss it.",
        remedy: "Correct the pointer, or write a `?` after it if the value may be missing. Leave \
                 the route to JSON responses.";
    GraphqlAnswer = "graphql answer", [Store, Body],
        meaning: "The route is a GraphQL endpoint, and the response is not the answer to a query \
                  that went well: it has `errors`, no `data`, or is no plain JSON.",
        remedy: "";
    TagBodyTooLarge = "tag body too large", [Store, Body],
        meaning: "The route's `tags` name values of the response, or it is a GraphQL endpoint, and \
                  the body is larger than `limits.tag_body`.",
        remedy: "Raise `limits.tag_body`, or let the origin name the tags in `Surrogate-Key`.";
    PurgedDuringFill = "purged during fill", [Body],
        meaning: "One of the response's tags was purged while the response was fetched.",
        remedy: "";
    StoreFailed = "store failed", [Body],
        meaning: "Redis did not store the response.",
        remedy: "Check Redis: its memory, and the time that its commands take.";
    Unverifiable = "unverifiable", [Store],
        meaning: "The state of the tags was unknown when the origin was asked, because Redis was \
                  lost or flushed. The response cannot be proven current.",
        remedy: "If it does not go away, check Redis.";

    // Failures that the sidecar answers itself.
    BadRequest = "bad request", [Failure],
        meaning: "The request breaks a rule of HTTP. The status is 400, 405 or 417, and the body \
            says \
                  which rule.",
        remedy: "Correct the client.";
    HeadTooLarge = "head too large", [Failure],
        meaning: "The head of the request is larger than `listen.max_header_bytes`, has more \
                  fields than `listen.max_headers`, or has a target of more than 65,534 bytes. The \
                  status is 431 or 414.",
        remedy: "Find out which cookie or header grows, or raise the limit.";
    NotHttp = "not http", [Failure],
        meaning: "The connection begins with a TLS handshake or with the PROXY protocol, and the \
                  port speaks plain HTTP. The status is 400.",
        remedy: "End TLS in front of the sidecar, and switch the PROXY protocol off in the load \
                 balancer.";
    UpstreamUnreachable = "upstream unreachable", [Stale, Failure],
        meaning: "The origin could not be reached. Unless a stale response may be served, the \
            status is \
                  502.",
        remedy: "Check the origin, and `url` in `[upstream]`.";
    UpstreamTimeout = "upstream timeout", [Stale, Failure],
        meaning: "The origin did not answer within `upstream.first_byte_timeout`. Unless a \
                  stale response may be served, the status is 504.",
        remedy: "Check the origin, or raise `upstream.first_byte_timeout`.";
    UpstreamProtocolError = "upstream protocol error", [Stale, Failure],
        meaning: "The origin closed the connection before its response was complete, or did not \
            speak \
                  HTTP. Unless a stale response may be served, the status is 502.",
        remedy: "Check the origin's log.";
    UpstreamError = "upstream error", [Stale],
        meaning: "The origin answered 500, 502, 503 or 504.",
        remedy: "Check the origin's log.";
    UpstreamBusy = "upstream busy", [Stale, Failure],
        meaning: "All connections to the origin are in use and the queue is full, or too many \
            writes \
                  are in progress. Unless a stale response may be served, the status is 503.",
        remedy: "Raise `upstream.max_connections` or `limits.mutations`, or make the origin \
            faster.";
    TooManyTunnels = "too many tunnels", [Failure],
        meaning: "As many tunnels (a WebSocket is one) and event streams are open as \
                  `upstream.max_tunnels` allows. The status is 503.",
        remedy: "Raise `upstream.max_tunnels`, and `upstream.max_connections` so that a quarter of \
                 them is left for other requests.";
    WriteRefused = "write refused", [Failure],
        meaning: "A write was refused because Redis is lost and `writes` is `refuse`. The status \
            is \
                  503.",
        remedy: "Check Redis.";
}

mod status;
#[cfg(test)]
mod tests;
