//! Why there is no response from the origin, or no client to ask it with.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::counters::UpstreamCounters;
use crate::outcome::Reason;
use crate::semantics::body::BodyError;
use crate::semantics::broken_upload::BrokenUpload;
use crate::telemetry::log::printable;

/// The longest cause, in bytes.
const MAX_CAUSE: usize = 256;

/// How an origin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginFailure {
    /// It breaks off, or what it sends is not HTTP.
    Invalid,
    /// It does not answer in time.
    Slow,
    /// It does not accept connections.
    Unreachable,
}

impl OriginFailure {
    /// What it does, as the end of a sentence about the origin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "breaks off, or does not answer with valid HTTP",
            Self::Slow => "does not answer in time",
            Self::Unreachable => "does not accept connections",
        }
    }

    /// Whether this is other and worse news.
    pub(super) const fn is_worse_than(self, other: Self) -> bool {
        matches!(self, Self::Unreachable) && !matches!(other, Self::Unreachable)
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The origin does not accept connections, or its name has no address.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
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
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => Reason::UpstreamUnreachable,
            Self::Busy => Reason::UpstreamBusy,
            Self::TooManyTunnels => Reason::TooManyTunnels,
            Self::GivenUp => Reason::ClientGone,
            Self::FirstByteTimeout => Reason::UpstreamTimeout,
            Self::Unsent(_) | Self::Broken(_) | Self::InterimResponses => {
                Reason::UpstreamProtocolError
            }
            Self::RequestBody(error) => match BrokenUpload::of(error) {
                BrokenUpload::Left => Reason::ClientGone,
                _ => Reason::BadRequest,
            },
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
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            Self::RequestBody(error) => BrokenUpload::of(error).why(),
            Self::InterimResponses => Some("too many interim responses"),
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Busy
            | Self::TooManyTunnels
            | Self::GivenUp
            | Self::Unsent(_)
            | Self::FirstByteTimeout
            | Self::Broken(_) => None,
        }
    }

    /// How the origin fails, if this is its fault.
    pub(super) const fn origin_failure(&self) -> Option<OriginFailure> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => Some(OriginFailure::Unreachable),
            Self::FirstByteTimeout => Some(OriginFailure::Slow),
            Self::Unsent(_) | Self::Broken(_) | Self::InterimResponses => {
                Some(OriginFailure::Invalid)
            }
            Self::Busy | Self::TooManyTunnels | Self::GivenUp | Self::RequestBody(_) => None,
        }
    }

    /// Why, in words that are bounded and escaped: part of it may be the origin's.
    #[must_use]
    pub fn cause(&self) -> String {
        let cause = match self {
            Self::Connect(error) => ConnectFailure::of(error).cause(error),
            Self::ConnectTimeout => "no connection within `connect_timeout`".to_owned(),
            Self::Busy => "all connections are in use".to_owned(),
            Self::TooManyTunnels => "all places for tunnels are in use".to_owned(),
            Self::GivenUp => "the client has left".to_owned(),
            Self::FirstByteTimeout => "no response within `first_byte_timeout`".to_owned(),
            Self::InterimResponses => self.to_string(),
            Self::Unsent(error) | Self::Broken(error) | Self::RequestBody(error) => {
                chain(error.as_ref())
            }
        };
        printable(&cause, MAX_CAUSE).into_owned()
    }

    /// What an operator can do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Connect(error) => ConnectFailure::of(error).advice(),
            Self::ConnectTimeout => {
                "see whether the app runs there and no firewall drops its packets, or raise \
                 `connect_timeout` in [upstream]"
            }
            Self::Busy => "raise `max_connections` in [upstream], or make the app faster",
            Self::FirstByteTimeout => {
                "find out what the app waits for, or raise `first_byte_timeout` in [upstream]"
            }
            Self::Unsent(_) | Self::Broken(_) | Self::InterimResponses => {
                "see the app's log, and whether `url` in [upstream] has the right port and scheme"
            }
            Self::TooManyTunnels => "raise `max_tunnels` in [upstream]",
            Self::RequestBody(_) | Self::GivenUp => "",
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

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectFailure {
    Refused,
    NoSocketFile,
    Forbidden,
    Lookup,
    Tls,
    Other,
}

impl ConnectFailure {
    fn of(error: &io::Error) -> Self {
        let is_tls = error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>);
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NotFound => Self::NoSocketFile,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ if is_tls || error.to_string().contains("tls handshake") => Self::Tls,
            // The standard library has no kind for it.
            _ if error.to_string().contains("lookup address") => Self::Lookup,
            _ => Self::Other,
        }
    }

    fn cause(self, error: &io::Error) -> String {
        match self {
            Self::Refused => "the connection was refused".to_owned(),
            Self::NoSocketFile => "there is no such socket file".to_owned(),
            Self::Forbidden => "this process has no permission to connect".to_owned(),
            Self::Lookup => format!("its name has no address: {}", chain(error)),
            Self::Tls => format!("the TLS handshake failed: {}", chain(error)),
            Self::Other => chain(error),
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Refused | Self::NoSocketFile => "start the app, or correct its `url`",
            Self::Forbidden => "let the sidecar's user read and write the app's socket",
            Self::Lookup => "correct the name in its `url`, or the DNS",
            Self::Tls => {
                "name the app's authority with `ca_file` in [upstream], or write http:// in `url` \
                 if the app speaks no TLS"
            }
            Self::Other => "see whether the app runs, and correct its `url`",
        }
    }
}

/// What an error and its sources say, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
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
