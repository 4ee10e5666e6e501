//! `[upstream]`, compiled: where the origin is, and the limits towards it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;

/// `[upstream]`, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Where the origin listens.
    pub target: Target,
    /// Which `Host` the origin gets.
    pub host: HostHeader,
    /// How long connecting may take: name lookup, all addresses, and TLS together.
    pub connect_timeout: Duration,
    /// How long the origin may take from the last byte of the request to the head of its response.
    pub first_byte_timeout: Duration,
    /// How long the origin may be silent inside a response's body. It does not apply to
    /// `text/event-stream`, where silence is normal.
    pub idle_timeout: Duration,
    /// How long an upgraded connection may be silent in both directions. The caller passes it to
    /// the tunnel.
    pub tunnel_timeout: Duration,
    /// How long an unused connection is kept. Best shorter than the origin's own keep-alive time.
    pub keep_alive: Duration,
    /// How long a connection takes new requests after it was made, so that a name that moves is
    /// looked up again however busy its connections are. Some connections get up to a quarter less.
    pub max_age: Duration,
    /// The most open sockets towards the origin, tunnels included.
    pub max_connections: usize,
    /// The most of them that are tunnels or event streams. At least a quarter stays for other
    /// requests: see [`Self::most_tunnels`].
    pub max_tunnels: usize,
    /// The most requests that wait for a connection; one more is `UpstreamError::Busy`.
    pub max_waiting: usize,
    /// How long a request waits for a connection before it is `UpstreamError::Busy`.
    pub wait_timeout: Duration,
    /// The largest head of a response, in bytes; at least 8192.
    pub max_header_bytes: usize,
    /// The most bytes of interim responses (1xx) before a response.
    pub max_interim_bytes: usize,
    /// The most headers of a response. 100 costs nothing; any other number costs an allocation for
    /// each response.
    pub max_headers: usize,
    /// The protocols that a connection may be upgraded to, in lower case.
    pub upgrades: Box<[Box<str>]>,
    /// Whether a connection is used again after a request with a body. Even then, only after a
    /// POST, PUT or PATCH.
    pub reuse_after_body: bool,
    /// Whether the origin is told in `Via` that the sidecar stands in between.
    pub via: bool,
    /// Whether the names of headers are sent as `Content-Type`, not as `content-type`.
    pub title_case_headers: bool,
    /// The `User-Agent` of fills that do not carry the caller's.
    pub user_agent: HeaderValue,
    /// PEM certificates of the authorities to trust for `https`, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl UpstreamSettings {
    /// The most tunnels and event streams: at least a quarter of all connections stays for other
    /// requests, unless there is only one.
    #[must_use]
    pub fn most_tunnels(&self) -> usize {
        self.max_tunnels.min(tunnels_of(self.max_connections))
    }
}

/// How many of so many connections may be tunnels or event streams.
#[must_use]
pub const fn tunnels_of(connections: usize) -> usize {
    match connections {
        0 | 1 => connections,
        _ => connections - connections.div_ceil(4),
    }
}

/// The part of `[limits]` that concerns connections to the origin.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLimits {
    /// The most connections that belong to one client each; they never take more than half of all.
    pub pinned: usize,
    /// How long a client may pause, in its request or in reading its response, while clients of
    /// another address wait for its connection.
    pub stall: Duration,
}

/// Where the origin listens: the parts of its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: UpstreamAddress,
    /// `host` or `host:port` as it stands in a `Host` header; `localhost` for a Unix socket.
    pub authority: Box<str>,
}

/// Where to connect to the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// A TCP port.
    Tcp {
        /// Whether to speak TLS.
        tls: bool,
        /// A name or an address, without brackets.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// The socket with this absolute path.
    Unix(PathBuf),
}

impl Target {
    /// The path of the origin's Unix socket, if that is where it listens.
    #[must_use]
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.address {
            UpstreamAddress::Tcp { .. } => None,
            UpstreamAddress::Unix(path) => Some(path),
        }
    }
}

/// An origin that speaks plain HTTP at this address.
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let host = address.ip().to_string().into();
        Self {
            address: UpstreamAddress::Tcp { tls: false, host, port: address.port() },
            authority: address.to_string().into(),
        }
    }
}

/// What people recognize: the authority, or `unix:` and the path.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_path() {
            None => f.write_str(&self.authority),
            Some(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which `Host` the origin gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The one that the client sent.
    #[default]
    Preserve,
    /// The authority of the origin's URL.
    Upstream,
}
