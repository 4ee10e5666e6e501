//! `[listen]` and the clients' `[limits]`, compiled.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::listener::ListenAddress;
use crate::peer_address::PeerAddress;
use crate::semantics::forward::Network;

/// The trusted proxies. Clones share the list, which a reload replaces.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<ArcSwap<Vec<Network>>>);

impl TrustedProxies {
    /// Whether a peer is one of them.
    #[must_use]
    pub fn includes(&self, addr: PeerAddress) -> bool {
        self.0.load().iter().any(|network| network.includes(addr))
    }

    /// Their networks.
    #[must_use]
    pub fn networks(&self) -> Arc<[Network]> {
        self.0.load().as_slice().into()
    }

    /// Replaces the list.
    pub fn replace(&self, networks: &[Network]) {
        self.0.store(Arc::new(networks.to_vec()));
    }
}

impl From<Vec<Network>> for TrustedProxies {
    fn from(networks: Vec<Network>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(networks)))
    }
}

/// `[listen]`, and the part of `[limits]` that concerns clients.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen.
    pub address: ListenAddress,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: TrustedProxies,
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
    /// How long a client that has closed its side, and may have left, waits for the next byte of a
    /// response.
    pub half_closed: Duration,
    /// How long a client may pause while clients of another address wait for its connection.
    pub stall: Duration,
    /// The most HTTP/2 streams per connection.
    pub max_streams: u32,
    /// The grace time of requests in progress when the server shuts down.
    pub drain: Duration,
    /// The grace time of streams and tunnels, which may have no end of their own.
    pub stream_drain: Duration,
}
