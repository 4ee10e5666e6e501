//! `[listen]` and the clients' `[limits]`, compiled.

use std::net::SocketAddr;
use std::time::Duration;

use crate::semantics::forward::Network;

/// What `[listen]` and `[limits]` say about clients.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Client connections at a time, tunnels included. More are answered with 503.
    pub max_connections: usize,
    /// Bytes of a request's head. More are answered with 431. At least 8 KiB.
    pub max_header_bytes: usize,
    /// Header fields of a request. More are answered with 431.
    pub max_headers: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a client may pause within a request's body.
    pub body_timeout: Duration,
    /// How long a client may take no byte of its response.
    pub write_timeout: Duration,
    /// HTTP/2 streams per connection.
    pub max_streams: u32,
    /// How long requests may take to finish after the server was told to stop.
    pub drain: Duration,
}
