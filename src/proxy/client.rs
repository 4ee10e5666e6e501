//! One client connection, as far as the flow knows it: who is at its other end, and the connection
//! to the origin that belongs to it alone.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Version};
use parking_lot::Mutex;

use crate::outcome::Reason;
use crate::policy::apps::AppId;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::origin::OriginClient;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::semantics::request_fields::RequestFields;
use crate::shares::Departure;
use crate::upstream::{ConnectionChoice, PinSlot};

/// One client connection.
#[derive(Debug)]
pub struct ClientConnection {
    peer: ClientPeer,
    /// The list of trusted proxies by which the peer was judged.
    trust_version: u64,
    /// Whether the client has left.
    pub(super) departure: Arc<Departure>,
    /// Its own connection to the origin, from the first request on that logs in its connection.
    pin: OnceLock<Mutex<Arc<PinSlot>>>,
}

impl ClientConnection {
    /// A connection that nothing has been sent on, by the list of trusted proxies of the start.
    #[must_use]
    pub fn new(peer: ClientPeer) -> Self {
        Self { peer, trust_version: 0, departure: Arc::default(), pin: OnceLock::new() }
    }

    /// The same by the list of this configuration, where it is seen when the client leaves.
    pub(crate) fn watched(
        peer: ClientPeer,
        departure: Arc<Departure>,
        config: &ActiveConfig,
    ) -> Self {
        let peer = Self::new(peer).judged(config);
        Self { trust_version: config.trust_version, departure, ..Self::new(peer) }
    }

    /// Who is at its other end, for a request under this configuration.
    ///
    /// SECURITY: a connection outlives reloads, and a peer that is no longer trusted must not be
    /// believed.
    pub(super) fn peer(&self, config: &ActiveConfig) -> ClientPeer {
        if self.trust_version == config.trust_version { self.peer } else { self.judged(config) }
    }

    fn judged(&self, config: &ActiveConfig) -> ClientPeer {
        let trusted = config.rules.client_address.trusts(self.peer.addr);
        ClientPeer { trusted, ..self.peer }
    }

    /// Which connection to the origin a request takes.
    ///
    /// SECURITY: NTLM and Negotiate log in the connection to the origin, and whoever is next on it
    /// would be that user. A trusted proxy, and a client of HTTP/2, send requests of several users
    /// on one connection, so that nobody may be next.
    pub(super) fn choose_connection(
        &self,
        origin: &OriginClient,
        peer: ClientPeer,
        headers: &HeaderMap,
        version: Version,
    ) -> ConnectionChoice {
        if let Some(pin) = self.pin.get() {
            return ConnectionChoice::Pinned(own(pin, origin));
        }
        if !forward::logs_in_connection(headers) {
            return ConnectionChoice::Pooled;
        }
        if peer.trusted || version == Version::HTTP_2 {
            return ConnectionChoice::LastUse;
        }
        ConnectionChoice::Pinned(own(self.pin.get_or_init(|| Mutex::new(origin.pin())), origin))
    }
}

/// The place for the client's own connection; a new one, if a reload has named another origin.
fn own(pin: &Mutex<Arc<PinSlot>>, origin: &OriginClient) -> Arc<PinSlot> {
    let mut slot = pin.lock();
    if !origin.owns(&slot) {
        *slot = origin.pin();
    }
    Arc::clone(&slot)
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
    /// The app that it is for.
    pub(super) app: AppId,
}

impl ConnectionDemand {
    /// What a request asks that names its host and offers no other protocol; `None` where its
    /// connection to the origin has to be chosen.
    pub(super) fn plain(
        client: &ClientConnection,
        (headers, fields): (&HeaderMap, RequestFields),
        app: AppId,
    ) -> Option<Self> {
        let may_log_in = fields.has(RequestFields::AUTHORIZATION);
        let logs_in = may_log_in && forward::logs_in_connection(headers);
        let is_pooled = client.pin.get().is_none() && !logs_in;
        is_pooled.then_some(Self {
            choice: ConnectionChoice::Pooled,
            upgrade: None,
            lacks_host: false,
            app,
        })
    }

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
