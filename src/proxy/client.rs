//! One client connection, as far as the flow knows it: who is at its other end, and the connection
//! to the origin that belongs to it alone.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Version};

use crate::outcome::Reason;
use crate::proxy::origin::OriginClient;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::shares::Departure;
use crate::upstream::{ConnectionChoice, PinSlot};

/// One client connection.
#[derive(Debug)]
pub struct ClientConnection {
    pub(super) peer: ClientPeer,
    /// Whether the client has left.
    pub(super) departure: Arc<Departure>,
    /// Its own connection to the origin, from the first request on that logs in its connection.
    pin: OnceLock<Arc<PinSlot>>,
}

impl ClientConnection {
    /// A connection that nothing has been sent on.
    #[must_use]
    pub fn new(peer: ClientPeer) -> Self {
        Self::watched(peer, Arc::default())
    }

    /// The same, where it is seen when the client leaves.
    pub(crate) const fn watched(peer: ClientPeer, departure: Arc<Departure>) -> Self {
        Self { peer, departure, pin: OnceLock::new() }
    }

    /// Which connection to the origin a request takes.
    ///
    /// SECURITY: NTLM and Negotiate log in the connection to the origin, and whoever is next on it
    /// would be that user. A trusted proxy, and a client of HTTP/2, send requests of several users
    /// on one connection, so that nobody may be next.
    pub(super) fn choose_connection(
        &self,
        origin: &OriginClient,
        headers: &HeaderMap,
        version: Version,
    ) -> ConnectionChoice {
        if let Some(pin) = self.pin.get() {
            return ConnectionChoice::Pinned(Arc::clone(pin));
        }
        if !forward::logs_in_connection(headers) {
            return ConnectionChoice::Pooled;
        }
        if self.peer.trusted || version == Version::HTTP_2 {
            return ConnectionChoice::LastUse;
        }
        ConnectionChoice::Pinned(Arc::clone(self.pin.get_or_init(|| origin.pin())))
    }
}

/// What a request asks of connections.
#[derive(Debug)]
pub(crate) struct ConnectionDemand {
    /// The connection to the origin that it takes.
    pub(super) choice: ConnectionChoice,
    /// The protocols that it may change to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether it names no host.
    pub(super) lacks_host: bool,
}

impl ConnectionDemand {
    /// Why the cache takes no part in the request.
    ///
    /// SECURITY: the origin may know the caller from the connection, which no key has seen.
    pub(super) const fn bypass(&self) -> Option<Reason> {
        match (&self.choice, &self.upgrade) {
            (ConnectionChoice::Pinned(_) | ConnectionChoice::LastUse, _) => {
                Some(Reason::ConnectionLogin)
            }
            (ConnectionChoice::Pooled, Some(_)) => Some(Reason::Upgrade),
            // SECURITY: the host is a part of the key, and this one is the sidecar's guess.
            (ConnectionChoice::Pooled, None) if self.lacks_host => Some(Reason::NoHost),
            (ConnectionChoice::Pooled, None) => None,
        }
    }
}
