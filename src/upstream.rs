//! The client towards the app: connections that are kept and bounded, deadlines, and one retry of
//! what is safe to repeat.
//!
//! It sends what it is given and returns what comes back. Which headers to send, what to answer
//! when the app fails, and whether a response may be stored are for others to know.
//!
//! A connection is driven by whoever waits for it (the request, then the response's body) and not
//! by a task of its own: an exchange wakes nobody but its own task, and letting go of a request or
//! of a body closes the connection, so that the app notices.

mod connect;
mod connection;
mod content;
mod exchange;
mod pool;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::{HeaderValue, Request, Response};

use crate::clock::Clock;
use crate::outcome::Reason;
use crate::semantics::body::{Body, BodyError};
use crate::telemetry::metrics::Counter;

pub use tunnel::{TunnelError, tunnel};

/// Where the app is and how patient to be with it.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where the app listens.
    pub target: Target,
    /// Which `Host` the app gets.
    pub host: HostHeader,
    /// How long connecting may take: name lookup, all addresses, and TLS together.
    pub connect_timeout: Duration,
    /// How long the app may take from the last byte of the request that it was given to the head of
    /// its response.
    pub first_byte_timeout: Duration,
    /// How long the app may be silent inside a response's body. Not for `text/event-stream`, which
    /// is silent by nature.
    pub idle_timeout: Duration,
    /// How long an upgraded connection may be silent in both directions (given to [`tunnel`] by the
    /// caller).
    pub tunnel_timeout: Duration,
    /// How long an unused connection is kept. Best below the app's own keep-alive time.
    pub keep_alive: Duration,
    /// The most sockets open towards the app, tunnels included.
    pub max_connections: usize,
    /// The most requests that wait for a connection; one more is [`UpstreamError::Busy`].
    pub max_waiting: usize,
    /// How long a request waits for a connection before it is [`UpstreamError::Busy`].
    pub wait_timeout: Duration,
    /// The largest head of a response, in bytes; at least 8192.
    pub max_header_bytes: usize,
    /// The most headers of a response. 100 costs nothing; any other number costs an allocation for
    /// each response.
    pub max_headers: usize,
    /// PEM certificates of the authorities to trust for `https`, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where the app listens: the parts of its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether to speak TLS.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: Box<str>,
    /// The TCP port.
    pub port: u16,
    /// `host` or `host:port` as it stands in a `Host` header.
    pub authority: Box<str>,
}

/// Which `Host` the app gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The one that the client sent.
    #[default]
    Preserve,
    /// The authority of the app's URL.
    Upstream,
}

/// What the client towards the app counts. Cloning gives the same counters.
#[derive(Clone, Debug, Default)]
pub struct UpstreamCounters {
    /// Connections made.
    pub connects: Arc<Counter>,
    /// Requests sent on a connection that was used before.
    pub reused: Arc<Counter>,
    /// Requests sent a second time because the connection that was reused had been closed.
    pub retries: Arc<Counter>,
    /// Requests that had to wait for a connection.
    pub waits: Arc<Counter>,
    /// Requests that found no connection: queue full, or waited too long.
    pub busy: Arc<Counter>,
    /// Requests whose connection could not be made, in time or at all.
    pub unreachable: Arc<Counter>,
    /// Requests whose response did not begin in time, and bodies that fell silent.
    pub timeouts: Arc<Counter>,
    /// Responses that broke off or were not HTTP.
    pub broken: Arc<Counter>,
    /// Sockets open towards the app now.
    pub open: Arc<AtomicUsize>,
    /// Connections waiting for a request now.
    pub idle: Arc<AtomicUsize>,
    /// Requests waiting for a connection now.
    pub waiting: Arc<AtomicUsize>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The app does not accept connections, or its name has no address.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// No connection within `connect_timeout`.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// No free connection, and the queue for one is full or did not move.
    #[error("all connections are in use")]
    Busy,
    /// The app closed the connection before it could have read a byte of the request.
    #[error("the connection was closed before the request was sent: {0}")]
    Unsent(#[source] BodyError),
    /// No response within `first_byte_timeout`.
    #[error("no response in time")]
    FirstByteTimeout,
    /// The app broke off, or what it sent is not HTTP.
    #[error("no valid response: {0}")]
    Broken(#[source] BodyError),
    /// The request's own body broke off, so that the app never got it whole.
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
            Self::FirstByteTimeout => Reason::UpstreamTimeout,
            Self::Unsent(_) | Self::Broken(_) => Reason::UpstreamProtocolError,
            Self::RequestBody(_) => Reason::BadRequest,
        }
    }

    /// Whether the app may have seen the request, and so may have done what it asks.
    #[must_use]
    pub const fn may_have_reached_origin(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Busy | Self::Unsent(_) => false,
            Self::FirstByteTimeout | Self::Broken(_) | Self::RequestBody(_) => true,
        }
    }

    fn count(&self, counters: &UpstreamCounters) {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => counters.unreachable.inc(),
            Self::Busy => counters.busy.inc(),
            Self::FirstByteTimeout => counters.timeouts.inc(),
            Self::Unsent(_) | Self::Broken(_) => counters.broken.inc(),
            Self::RequestBody(_) => {}
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
    /// The name cannot be asked for in TLS, or stand in a `Host` header.
    #[error("`{0}` cannot be used as a host name")]
    Host(String),
    /// A limit is outside of what can be obeyed.
    #[error("{0}")]
    Limit(&'static str),
}

/// Marks a response (in its extensions) whose body ends with the connection: nobody can tell
/// whether it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseDelimited;

/// The client towards the app. Cloning it gives the same client.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<pool::Pool>,
    connector: connect::Connector,
    clock: Clock,
    counters: UpstreamCounters,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    host: Option<HeaderValue>,
}

impl Upstream {
    /// A client that has not connected yet. It may be made outside of a runtime.
    ///
    /// # Errors
    /// When the authorities cannot be loaded, or the settings cannot be obeyed.
    pub fn new(
        settings: UpstreamSettings,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Result<Self, UpstreamSetupError> {
        if settings.max_connections == 0
            || settings.max_connections > tokio::sync::Semaphore::MAX_PERMITS
        {
            return Err(UpstreamSetupError::Limit("the upstream needs at least one connection"));
        }
        let authority = HeaderValue::from_str(&settings.target.authority);
        let authority = authority
            .map_err(|_| UpstreamSetupError::Host(settings.target.authority.to_string()))?;
        let inner = Inner {
            pool: Arc::new(pool::Pool::new(&settings, clock.clone(), counters.clone())),
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            host: match settings.host {
                HostHeader::Preserve => None,
                HostHeader::Upstream => Some(authority),
            },
            connector: connect::Connector::new(settings, &counters)?,
            clock,
            counters,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The `Host` that the app is to get in place of the client's, if any.
    #[must_use]
    pub fn host(&self) -> Option<&HeaderValue> {
        self.inner.host.as_ref()
    }

    /// Sends a request whose headers are ready (see `forward::prepare_request`) and waits for the
    /// response's head.
    ///
    /// The response has the app's headers, untouched; a body that breaks off ends in an error,
    /// never as if it were whole. A response that upgrades has `hyper::upgrade::OnUpgrade` in its
    /// extensions; it comes only to a request with an `Upgrade` header. Dropping the future, or the
    /// body before its end, closes the connection.
    ///
    /// # Errors
    /// When there is no response; see [`UpstreamError`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let result = exchange::send(&self.inner, request).await;
        if let Err(error) = &result {
            error.count(&self.inner.counters);
        }
        result
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("counters", &self.inner.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
