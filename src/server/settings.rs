//! `[listen]` and the clients' `[limits]`, compiled.

use std::net::SocketAddr;
use std::time::Duration;

use crate::semantics::forward::Network;

/// `[listen]`, and the part of `[limits]` that concerns clients.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Network>,
    /// The most open client connections, tunnels included. Further ones get a 503.
    pub max_connections: usize,
    /// The largest head of a request, in bytes; at least 8 KiB. Larger ones get a 431.
    pub max_header_bytes: usize,
    /// The most header fields of a request. More get a 431.
    pub max_headers: usize,
    /// How long a request's head may take, from its first byte to its last.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a client may pause within a request's body.
    pub body_timeout: Duration,
    /// How long a client may stall before reading more of the response.
    pub write_timeout: Duration,
    /// How long a client may pause while clients of another address wait for its connection.
    pub stall: Duration,
    /// The most HTTP/2 streams per connection.
    pub max_streams: u32,
    /// The grace time of requests in progress when the server shuts down.
    pub drain: Duration,
    /// The grace time of streams and tunnels, which may have no end of their own.
    pub stream_drain: Duration,
}
