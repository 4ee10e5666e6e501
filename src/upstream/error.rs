//! Why there is no response from the origin, or no client to ask it with.

use std::path::PathBuf;

use super::counters::UpstreamCounters;
use crate::outcome::Reason;
use crate::semantics::body::BodyError;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The origin does not accept connections, or its name has no address.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// No connection within `connect_timeout`.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// No free connection, and the queue for one is full or did not move.
    #[error("all connections are in use")]
    Busy,
    /// As many tunnels and event streams are open as may be.
    #[error("too many tunnels and event streams are open")]
    TooManyTunnels,
    /// The clients that the request was for have left, and another request needed its place.
    #[error("the request was given up, because its clients had left")]
    GivenUp,
    /// The origin closed the connection before it could have read a byte of the request.
    #[error("the connection was closed before the request was sent: {0}")]
    Unsent(#[source] BodyError),
    /// No response within `first_byte_timeout`.
    #[error("no response in time")]
    FirstByteTimeout,
    /// The origin broke off, or what it sent is not HTTP.
    #[error("no valid response: {0}")]
    Broken(#[source] BodyError),
    /// The origin sent too many interim responses (1xx) and no other.
    #[error("too many interim responses (1xx) came before a response")]
    InterimResponses,
    /// The request's own body broke off, so that the origin never got all of it.
    #[error("the request's body broke off: {0}")]
    RequestBody(#[source] BodyError),
}

impl UpstreamError {
    /// The reason to show.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => Reason::UpstreamUnreachable,
            Self::Busy => Reason::UpstreamBusy,
            Self::TooManyTunnels => Reason::TooManyTunnels,
            Self::GivenUp => Reason::ClientGone,
            Self::FirstByteTimeout => Reason::UpstreamTimeout,
            Self::Unsent(_) | Self::Broken(_) | Self::InterimResponses => {
                Reason::UpstreamProtocolError
            }
            Self::RequestBody(_) => Reason::BadRequest,
        }
    }

    /// Whether the origin may have seen the request, and so may have acted on it.
    #[must_use]
    pub const fn may_have_reached_origin(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::Unsent(_) => false,
            Self::TooManyTunnels
            | Self::GivenUp
            | Self::FirstByteTimeout
            | Self::Broken(_)
            | Self::InterimResponses
            | Self::RequestBody(_) => true,
        }
    }

    /// What to say beside the reason, if it says too little.
    #[must_use]
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::InterimResponses => Some("too many interim responses"),
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Busy
            | Self::TooManyTunnels
            | Self::GivenUp
            | Self::Unsent(_)
            | Self::FirstByteTimeout
            | Self::Broken(_)
            | Self::RequestBody(_) => None,
        }
    }

    pub(super) fn count(&self, counters: &UpstreamCounters) {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => counters.unreachable.inc(),
            Self::Busy => counters.busy.inc(),
            Self::FirstByteTimeout => counters.timeouts.inc(),
            Self::Unsent(_) | Self::Broken(_) | Self::InterimResponses => counters.broken.inc(),
            Self::TooManyTunnels => counters.tunnels_rejected.inc(),
            Self::RequestBody(_) | Self::GivenUp => {}
        }
    }
}

/// Why the client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetupError {
    /// The file of authorities cannot be read or holds no certificate.
    #[error("cannot use `{path}` as the authorities for the upstream: {why}")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no usable authorities.
    #[error("the system has no trusted certificate authorities ({0}); name them with `ca_file`")]
    NoSystemRoots(String),
    /// The name is not valid in TLS or in a `Host` header.
    #[error("`{0}` cannot be used as a host name")]
    Host(String),
    /// A limit is out of range.
    #[error("{0}")]
    Limit(&'static str),
}
