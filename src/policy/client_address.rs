//! Which requests need the client's address, and how it is found.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HeaderMap;

use crate::policy::field::{Field, FieldSource};
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::Routes;
use crate::semantics::forward::{ClientPeer, Network, client_address};

/// How the address of a request's client is found: behind trusted proxies, only where a rule reads
/// it.
#[derive(Clone, Debug, Default)]
pub struct ClientAddressRule {
    /// The trusted proxies; none if no rule reads the client's address.
    trusted: Option<Arc<[Network]>>,
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
        Self { trusted: is_read.then(|| Arc::clone(trusted)) }
    }

    /// The address of the client; `None` where no trusted proxy names one. Where no rule reads it,
    /// the peer's.
    #[must_use]
    pub fn address(&self, headers: &HeaderMap, peer: &ClientPeer) -> Option<IpAddr> {
        match &self.trusted {
            Some(trusted) if peer.trusted => client_address(headers, peer, trusted),
            _ => Some(peer.addr),
        }
    }
}
