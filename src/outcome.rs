//! What happened to a request, and why: one value that feeds the response's headers, the metrics
//! and the log.
//!
//! Owns the words (`HIT`, `no route`, …). Must not know how a decision is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

mod guide;
mod reason;

pub use self::guide::ABOUT_REASONS;
pub use self::reason::{Reason, Step};

macro_rules! dispositions {
    ($($name:ident = $word:literal, $label:literal, $meaning:literal;)+) => {
        /// How the response came to be (the word in `X-Cache`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Disposition { $(#[doc = $meaning] $name,)+ }

        impl Disposition {
            /// All dispositions, in the order of their discriminants.
            pub const ALL: [Self; 5] = [$(Self::$name,)+];

            /// The word in `X-Cache` and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The value of the metric label `disposition`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

dispositions! {
    Hit = "HIT", "hit", "A stored response that is fresh and proven current was served.";
    Stale = "STALE", "stale",
        "A stored response that is no longer fresh was served, within a time that permits it.";
    Revalidated = "REVALIDATED", "revalidated",
        "A stored response was served after it had been revalidated with the origin.";
    Miss = "MISS", "miss", "The origin answered, on a route that caches.";
    Bypass = "BYPASS", "bypass", "The origin answered, and the cache took no part.";
}

/// What happened to one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The word in `X-Cache`.
    pub disposition: Disposition,
    /// The reason, if there is one.
    pub reason: Option<Reason>,
    /// The reason's subject: the name of the missing field, of the unkeyed header.
    pub subject: Option<Arc<str>>,
    /// Which tier a hit came from.
    pub tier: Option<Tier>,
    /// Seconds of freshness left of what was served or stored; negative when stale.
    pub ttl: Option<i64>,
    /// The origin's status, if the origin was contacted.
    pub fwd_status: Option<u16>,
    /// Why the origin was contacted, where that differs from `reason`.
    pub fwd_reason: Option<Reason>,
    /// Whether the origin was contacted before a stale response was served.
    pub forwarded: bool,
    /// Whether the origin's response is being stored.
    pub stored: bool,
    /// Whether the request joined another one's fill.
    pub collapsed: bool,
    /// How many seconds the `Date` of the origin's response is ahead of this machine's clock;
    /// negative where it is behind.
    pub date_skew: i64,
    /// How long the origin once took for what is now served from the store without it.
    pub saved: Option<Duration>,
    /// The request that the origin got for this one, if it got one.
    pub origin: Option<Arc<OriginCall>>,
}

/// A request to the origin, for the log alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginCall {
    /// How long the head of its response took; `None` where there was no response.
    pub took: Option<Duration>,
    /// Its `X-Request-Id`: the client's own, or that of a fill.
    pub request_id: Option<HeaderValue>,
    /// Why there was no response.
    pub cause: Option<Box<str>>,
}

/// Whose word a response's freshness lifetime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifetimeSource {
    /// The origin's: `max-age`, `s-maxage`, `Expires`, `no-cache`.
    Origin,
    /// The route's `ttl`.
    Route,
    /// Nobody's: it is estimated from `Last-Modified` (RFC 9111 4.2.2).
    Heuristic,
}

impl LifetimeSource {
    /// All sources, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Origin, Self::Route, Self::Heuristic];

    /// The word in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Route => "ttl",
            Self::Heuristic => "heuristic",
        }
    }
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
    /// An outcome of this disposition, without a reason.
    #[must_use]
    pub const fn new(disposition: Disposition) -> Self {
        Self {
            disposition,
            reason: None,
            subject: None,
            tier: None,
            ttl: None,
            fwd_status: None,
            fwd_reason: None,
            forwarded: false,
            stored: false,
            collapsed: false,
            date_skew: 0,
            saved: None,
            origin: None,
        }
    }

    /// A bypass for this reason.
    #[must_use]
    pub const fn bypass(reason: Reason) -> Self {
        let mut outcome = Self::new(Disposition::Bypass);
        outcome.reason = Some(reason);
        outcome
    }

    /// A bypass for this reason, with its subject.
    #[must_use]
    pub fn bypass_with(reason: Reason, subject: impl Into<Arc<str>>) -> Self {
        Self { subject: Some(subject.into()), ..Self::bypass(reason) }
    }

    /// A miss for this reason.
    #[must_use]
    pub const fn miss(reason: Reason) -> Self {
        let mut outcome = Self::new(Disposition::Miss);
        outcome.reason = Some(reason);
        outcome.fwd_reason = Some(reason);
        outcome
    }

    /// The same where the origin got a request and gave no response, for this reason.
    #[must_use]
    pub fn with_failure(self, cause: String) -> Self {
        let call = OriginCall { cause: Some(cause.into()), ..OriginCall::default() };
        Self { origin: Some(Arc::new(call)), ..self }
    }

    /// The reason with its subject, as people read it: `missing field tenant`; and where the clock
    /// of the origin differs, by how much.
    #[must_use]
    pub fn detail(&self) -> Option<Detail<'_>> {
        let (subject, date_skew) = (self.subject.as_deref(), self.date_skew);
        self.reason.map(|reason| Detail { reason, subject, date_skew })
    }
}

/// Writes a reason and its subject, and that the clocks differ.
#[derive(Clone, Copy, Debug)]
pub struct Detail<'a> {
    reason: Reason,
    subject: Option<&'a str>,
    date_skew: i64,
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if let Some(subject) = self.subject {
            write!(f, " {subject}")?;
        }
        let seconds = self.date_skew.unsigned_abs();
        match self.date_skew {
            0 => Ok(()),
            1.. => write!(f, " (origin date is {seconds}s ahead)"),
            _ => write!(f, " (origin date is {seconds}s behind)"),
        }
    }
}
