//! What happened to a request, and why: one value that feeds the response's headers, the metrics and the log.
//!
//! Owns the words (`HIT`, `no route`, …). Knows nothing of how a decision was reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the response came to be (the word in `X-Cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Answered from a stored response that is fresh and valid.
    Hit,
    /// Answered from a stored response past its freshness, within a permitted window.
    Stale,
    /// Answered from a stored response that the app has just confirmed.
    Revalidated,
    /// The app was asked, on a route that caches.
    Miss,
    /// The app was asked, and the cache took no part.
    Bypass,
}

impl Disposition {
    /// All dispositions, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Stale, Self::Revalidated, Self::Miss, Self::Bypass];

    /// The word in `X-Cache`, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)+) => {
        /// Why a request was not answered from the cache, or a response not stored. A closed set: it labels metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason's words, as they stand in headers, metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    // Of requests that no route takes, or that the cache has no part in.
    /// No route's pattern matches the path.
    NoRoute => "no route",
    /// Not a GET or HEAD.
    Method => "method",
    /// The route's `mode` is `off`.
    ModeOff => "mode off",
    /// The route's `mode` is `shadow`: the app is asked, and what the cache would have done is noted.
    Shadow => "shadow",
    /// A field that the key or the tags need is not in the request.
    MissingField => "missing field",
    /// The request has a header that the app may see and no key has seen.
    UnkeyedHeader => "unkeyed header",
    /// The path has more than one reading (`%2f`, `;`, dot segments, …).
    AmbiguousPath => "ambiguous path",
    /// The query has more than one reading, and the key picks parameters from it.
    AmbiguousQuery => "ambiguous query",
    /// A GET or HEAD with a body.
    RequestBody => "request body",
    /// A range was asked for.
    Range => "range",
    /// `If-Match` or `If-Unmodified-Since`: for the app to judge.
    Precondition => "precondition",
    /// The client asks for another protocol.
    Upgrade => "upgrade",
    /// A header asks the app to treat this GET as another method.
    MethodOverride => "method override",
    /// A mutation of one of the tags is under way and its rule says `guard = "bypass"`.
    MutationPending => "mutation pending",
    /// Redis is lost and `on_redis_loss = "bypass"`.
    CacheUnavailable => "cache unavailable",
    /// The request's own `Cache-Control` forbids storing.
    RequestNoStore => "request no-store",
    /// The key would be longer than `limits.key`.
    KeyTooLong => "key too long",

    // Of lookups that found nothing to serve.
    /// Nothing is stored under the key.
    NotStored => "not stored",
    /// What is stored is past its freshness.
    Expired => "expired",
    /// What is stored is past its freshness, and is served while it is fetched anew.
    StaleWhileRevalidate => "stale-while-revalidate",
    /// What is stored was purged.
    Purged => "purged",
    /// The app has not yet answered this credential on this route and key.
    NotAdmitted => "not admitted",
    /// The request's own `Cache-Control` wants a newer response.
    RequestNoCache => "request no-cache",
    /// The client wants a stored response or none (RFC 9111 5.2.1.7).
    OnlyIfCached => "only if cached",
    /// Nothing is stored for this variant of the response.
    VaryMiss => "vary",

    // Of responses that were not stored.
    /// `Cache-Control: no-store`.
    NoStore => "no-store",
    /// `Cache-Control: private`.
    Private => "private",
    /// `Cache-Control: no-cache`.
    NoCache => "no-cache",
    /// Neither the response nor the route gives a freshness.
    NoFreshness => "no freshness",
    /// It was stale when it arrived.
    StaleOnArrival => "stale on arrival",
    /// It sets a cookie.
    SetCookie => "set-cookie",
    /// `Vary: *`.
    VaryStar => "vary *",
    /// Its status is not one that is stored.
    Status => "status",
    /// The request carried `Authorization`, and the response does not allow sharing (RFC 9111 3.5).
    Authorization => "authorization",
    /// Its body outgrew `limits.object`.
    TooLarge => "too large",
    /// Its body ended before it was whole.
    Truncated => "truncated",
    /// Its body ends with the connection, so that nobody can tell whether it is whole.
    Unframed => "body not delimited",
    /// It went on for long after everybody who read it had left.
    Abandoned => "abandoned",
    /// It is an event stream, which has no end.
    EventStream => "event stream",
    /// It ended in trailers.
    Trailers => "trailers",
    /// It carries more tags than `limits.tags`.
    TooManyTags => "too many tags",
    /// One of its tags was purged while it was fetched.
    PurgedMeanwhile => "purged meanwhile",
    /// Redis did not take it.
    StoreFailed => "store failed",
    /// It could not be proven current: Redis is lost.
    Unproven => "unproven",

    // Of failures that the sidecar answers itself.
    /// The request breaks a rule of HTTP that a cache in front of an app must hold up.
    BadRequest => "bad request",
    /// The app could not be reached.
    UpstreamUnreachable => "upstream unreachable",
    /// The app did not answer in time.
    UpstreamTimeout => "upstream timeout",
    /// The app broke off, or did not speak HTTP.
    UpstreamBroken => "upstream broken",
    /// The app answered with a failure (500, 502, 503, 504).
    UpstreamError => "upstream error",
    /// Every connection to the app is taken and the queue is full.
    UpstreamBusy => "upstream busy",
    /// A write was refused because Redis is lost and `writes = "refuse"`.
    WriteRefused => "write refused",
}

/// What happened to one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The word in `X-Cache`.
    pub disposition: Disposition,
    /// Why, where there is a why.
    pub reason: Option<Reason>,
    /// The reason's object: the name of the missing field, of the unkeyed header.
    pub subject: Option<Arc<str>>,
    /// Which tier a hit came from.
    pub tier: Option<Tier>,
    /// Seconds of freshness left of what was served or stored; negative when stale.
    pub ttl: Option<i64>,
    /// The app's status, when the app was asked.
    pub fwd_status: Option<u16>,
    /// Why the app was asked, where that is not the reason that is told.
    pub asked_because: Option<Reason>,
    /// Whether the app was asked before a stale response was served.
    pub forwarded: bool,
    /// Whether the app's response is being stored.
    pub stored: bool,
    /// Whether the request joined another one's fill.
    pub collapsed: bool,
    /// How long the app took for what was served from the store, where it was not asked.
    pub saved: Option<Duration>,
}

/// Where a stored response was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

impl Tier {
    /// The tier's word in `Cache-Status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

impl Outcome {
    /// An outcome of this disposition, for no reason yet.
    #[must_use]
    pub const fn new(disposition: Disposition) -> Self {
        Self {
            disposition,
            reason: None,
            subject: None,
            tier: None,
            ttl: None,
            fwd_status: None,
            asked_because: None,
            forwarded: false,
            stored: false,
            collapsed: false,
            saved: None,
        }
    }

    /// A bypass for this reason.
    #[must_use]
    pub const fn bypass(reason: Reason) -> Self {
        let mut outcome = Self::new(Disposition::Bypass);
        outcome.reason = Some(reason);
        outcome
    }

    /// A bypass because of something with a name.
    #[must_use]
    pub fn bypass_of(reason: Reason, subject: impl Into<Arc<str>>) -> Self {
        Self { subject: Some(subject.into()), ..Self::bypass(reason) }
    }

    /// A miss for this reason.
    #[must_use]
    pub const fn miss(reason: Reason) -> Self {
        let mut outcome = Self::new(Disposition::Miss);
        outcome.reason = Some(reason);
        outcome.asked_because = Some(reason);
        outcome
    }

    /// The reason with its object, as people read it: `missing field tenant`.
    #[must_use]
    pub fn detail(&self) -> Option<Detail<'_>> {
        self.reason.map(|reason| Detail { reason, subject: self.subject.as_deref() })
    }
}

/// Writes a reason and its object.
#[derive(Clone, Copy, Debug)]
pub struct Detail<'a> {
    reason: Reason,
    subject: Option<&'a str>,
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        match self.subject {
            Some(subject) => write!(f, " {subject}"),
            None => Ok(()),
        }
    }
}
