//! Which requests need the client's address, and how it is found.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HeaderMap;

use crate::peer_address::PeerAddress;
use crate::policy::field::{Field, FieldSource};
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::Routes;
use crate::semantics::forward::{ClientPeer, Network, client_address};
use crate::shares::ShareOwner;

/// How the address of a request's client is found. The rules get it, behind trusted proxies, only
/// where one of them reads it.
#[derive(Clone, Debug, Default)]
pub struct ClientAddressRule {
    trusted: Arc<[Network]>,
    /// Whether a rule reads the client's address.
    is_read: bool,
}

impl ClientAddressRule {
    /// The rule for these routes and purge rules.
    #[must_use]
    pub fn new(routes: &Routes, purges: &[PurgeRule], trusted: &Arc<[Network]>) -> Self {
        let reads = |field: &Arc<Field>| matches!(field.source, FieldSource::Client(_));
        let is_read = routes
            .iter()
            .any(|route| route.headers.passes_address() || route.fields.iter().any(reads))
            || purges.iter().any(|rule| rule.fields().any(reads));
        Self { trusted: Arc::clone(trusted), is_read }
    }

    /// Whether a peer is one of the trusted proxies.
    #[must_use]
    pub fn trusts(&self, addr: PeerAddress) -> bool {
        self.trusted.iter().any(|network| network.includes(addr))
    }

    /// The address of the client; `None` where no trusted proxy names one. Where no rule reads it,
    /// the peer's.
    #[must_use]
    pub fn address(&self, headers: &HeaderMap, peer: &ClientPeer) -> Option<IpAddr> {
        if self.is_read && peer.trusted {
            client_address(headers, peer, &self.trusted)
        } else {
            peer.addr.ip()
        }
    }

    /// The address that a trusted proxy gives a client, if it names one.
    #[must_use]
    pub fn behind_proxy(&self, headers: &HeaderMap, peer: &ClientPeer) -> Option<IpAddr> {
        client_address(headers, peer, &self.trusted)
    }

    /// Whose share of connections and writes a request counts for: its client's, also behind a
    /// trusted proxy.
    #[must_use]
    pub fn share(&self, headers: &HeaderMap, peer: &ClientPeer) -> ShareOwner {
        if peer.trusted {
            client_address(headers, peer, &self.trusted)
                .map_or(ShareOwner::Unnamed, ShareOwner::from_address)
        } else {
            ShareOwner::from_peer(peer.addr)
        }
    }
}
