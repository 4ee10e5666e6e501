//! Who holds an opaque credential, as the origin itself tells it: `[identity]`. A field reads a
//! value of what the origin answers to the caller's own credential.
//!
//! `answer` reads such an answer, `table` remembers answers, `writes` ends them. Whoever asks the
//! origin is elsewhere ([`crate::policy::plan::IdentityProbe`] is what it sends).
//!
//! Invariants:
//! 1. *Only the origin tells.* A value comes from a 200 with JSON that the origin has sent to this
//!    very credential, host and protocol. Anything else is a fault, and a fault is never an absent
//!    field: the request goes to the origin.
//! 2. *Nobody else's answer.* Answers are kept by a keyed hash of all that the origin was sent to
//!    give it.
//! 3. *An answer ends*: after `ttl` from the moment at which it was asked for, and with each write
//!    that has a part of the credential, at its beginning and at its end. An answer that was on its
//!    way meanwhile is never kept.
//! 4. *One credential.* Of a request with several nobody can tell by which one the origin goes.
//! 5. *Guests are not asked about.* Without a credential the field is absent.
//! 6. *Nothing that a stranger sends grows without bound*: `callers` answers are kept, and each
//!    request makes at most one request to the origin, `probes` of them at once.
//! 7. *Asking changes nothing.* An answer that sets a cookie ends all asking until the next reload,
//!    since asking would consume what the cookie replaces.

use crate::policy::apps::AppId;
use std::sync::Arc;
use std::time::Duration;

pub use self::answer::{IdentityAnswer, MAX_IDENTITY_BYTES};
pub use self::counters::IdentityCounters;
pub use self::table::{IdentityTable, ProbeStart};
pub use self::writes::{CallerSlots, IdentityWrites};

mod answer;
mod counters;
mod table;
mod writes;

/// Where the value of a field from `[identity]` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityField {
    /// A JSON pointer (RFC 6901) into the answer.
    pub pointer: Arc<str>,
    /// The path, with its query, that the origin is asked at. Another one may mean another value.
    pub path: Arc<str>,
}

/// `[identity]`, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The path, with its query, that the origin is asked at.
    pub path: Arc<str>,
    /// How long an answer holds.
    pub ttl: Duration,
    /// How long it is remembered that there was none.
    pub retry: Duration,
    /// How long the origin may take for a whole answer.
    pub timeout: Duration,
    /// How many answers are remembered.
    pub callers: usize,
    /// How many requests for answers may be in flight at once.
    pub probes: usize,
}

/// Why nobody knows who a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityFault {
    /// It was not asked: there is no origin, as in `check` and `explain`, or another process of
    /// this sidecar serves, too.
    Unasked,
    /// The request has credentials of several kinds, or a cookie twice: the origin may take the
    /// caller for one here, and for another one there.
    Several,
    /// The origin says 401 or 403.
    Refused,
    /// The origin redirects.
    Redirect,
    /// The origin answers with another status that is not 200.
    Status,
    /// The answer is no JSON, or has two readings.
    NotJson,
    /// The answer is longer than [`MAX_IDENTITY_BYTES`].
    TooLarge,
    /// No connection, or the exchange broke.
    Unreachable,
    /// The answer was not whole in time.
    Timeout,
    /// Too many requests for answers are in flight, or too many requests wait for them.
    Busy,
    /// The origin has failed several times in a row, and is given a pause.
    Paused,
    /// The caller has written something meanwhile.
    Overtaken,
    /// An answer has set a cookie: nothing is asked until the next reload.
    Off,
    /// The answer has nothing at the field's pointer, or something that is no single value.
    NoValue,
}

impl IdentityFault {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Unasked,
        Self::Several,
        Self::Refused,
        Self::Redirect,
        Self::Status,
        Self::NotJson,
        Self::TooLarge,
        Self::Unreachable,
        Self::Timeout,
        Self::Busy,
        Self::Paused,
        Self::Overtaken,
        Self::Off,
        Self::NoValue,
    ];

    /// The words in headers, logs and `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unasked => "not asked",
            Self::Several => "several credentials",
            Self::Refused => "refused",
            Self::Redirect => "redirect",
            Self::Status => "other status",
            Self::NotJson => "not JSON",
            Self::TooLarge => "too large",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Overtaken => "overtaken by a write",
            Self::Off => "off, because an answer set a cookie",
            Self::NoValue => "no value",
        }
    }

    /// The value of the metric label `result`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Several => "several",
            Self::Refused => "refused",
            Self::Redirect => "redirect",
            Self::Status => "status",
            Self::NotJson => "not_json",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Overtaken => "overtaken",
            Self::Off => "sets_cookie",
            Self::NoValue => "no_value",
        }
    }

    /// Whether it is about this caller's answer, so that it is remembered for this caller.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        match self {
            Self::Refused
            | Self::Redirect
            | Self::Status
            | Self::NotJson
            | Self::TooLarge
            | Self::Unreachable
            | Self::Timeout => true,
            Self::Unasked
            | Self::Several
            | Self::Busy
            | Self::Paused
            | Self::Overtaken
            | Self::Off
            | Self::NoValue => false,
        }
    }

    /// Whether the origin is in trouble, rather than answering about this caller.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Status)
    }
}

/// What is known of the caller of a request. It is looked up once for each request, so that all
/// that is made of the request is made of one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestIdentity {
    /// No field needs it.
    #[default]
    Unread,
    /// The request has no credential.
    Nobody,
    /// The origin has said who it is.
    Known(Arc<IdentityAnswer>),
    /// Nobody knows.
    Fault(IdentityFault),
}

impl RequestIdentity {
    /// Of a request that no field of which reads it.
    pub const UNREAD: Self = Self::Unread;
}

/// A keyed hash of a credential, and of what else the origin was sent with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentityKey {
    /// The app that is asked.
    pub app: AppId,
    /// A keyed digest of the rest.
    pub digest: [u8; 32],
}
