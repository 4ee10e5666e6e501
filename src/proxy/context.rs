//! What a request carries to its end, apart from its body. Each step takes it; no step loads the
//! configuration, or asks whether the caller is authorized, a second time.

use std::sync::Arc;

use http::request::Parts;

use crate::cache::fills::FillKey;
use crate::clock::Wall;
use crate::policy::authorized_clients::{AuthorizationId, AuthorizedClients};
use crate::policy::key::Key;
use crate::policy::plan::{Lookup, PolicyRules, RequestView};
use crate::policy::request_directives::RequestDirectives;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::client::ConnectionDemand;
use crate::proxy::settings::ProxySettings;
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;

/// Any request. Its head is apart: a request that is forwarded as it is gives it away.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    /// The configuration that it was planned by.
    pub(super) config: &'a Arc<ActiveConfig>,
    pub(super) peer: ClientPeer,
    /// What it asks of connections.
    pub(super) connection: &'a ConnectionDemand,
    /// When it arrived.
    pub(super) now: Wall,
}

/// A GET or HEAD on a route that caches.
pub(crate) struct LookupContext<'a> {
    pub(super) request: RequestContext<'a>,
    pub(super) parts: &'a Parts,
    pub(super) lookup: &'a Lookup<'a>,
    /// The client's own `Cache-Control`.
    pub(super) directives: RequestDirectives,
    /// Whether this caller may be given the shared entry.
    pub(super) authorized: bool,
}

impl<'a> LookupContext<'a> {
    pub(super) fn new(
        request: RequestContext<'a>,
        parts: &'a Parts,
        lookup: &'a Lookup<'a>,
        clients: &AuthorizedClients,
    ) -> Self {
        Self {
            request,
            parts,
            lookup,
            directives: RequestDirectives::new(lookup.route, &parts.headers),
            authorized: is_authorized(clients, lookup, request.now),
        }
    }

    pub(super) fn settings(&self) -> &'a ProxySettings {
        &self.request.config.settings
    }

    pub(super) fn route(&self) -> usize {
        self.lookup.route.id
    }

    /// The fill that this request leads or joins for this key.
    pub(super) fn fill_key(&self, key: &Key) -> FillKey {
        FillKey { hash: key.hash(), caller: self.unauthorized_caller() }
    }

    /// Under which key the origin's refusal of a fill is remembered.
    pub(super) fn refusal_key(&self) -> FillKey {
        refusal_key(self.lookup)
    }

    /// Who may not share a fill with others: a credential that is not authorized.
    fn unauthorized_caller(&self) -> Option<[u8; 32]> {
        self.lookup.authorization.filter(|_| !self.authorized).map(AuthorizationId::to_bytes)
    }
}

/// Under which key the origin's refusal of a fill is remembered: in scope `shared` for this
/// credential alone.
pub(crate) fn refusal_key(lookup: &Lookup<'_>) -> FillKey {
    FillKey { hash: lookup.key.hash(), caller: lookup.authorization.map(AuthorizationId::to_bytes) }
}

/// SECURITY: a shared entry is given only to callers whom the origin itself has lately answered.
pub(super) fn is_authorized(clients: &AuthorizedClients, lookup: &Lookup<'_>, now: Wall) -> bool {
    lookup.authorization.is_none_or(|id| clients.is_authorized(id, now))
}

/// The head of a request, as far as the rules read it.
pub(super) fn request_view<'a>(
    parts: &'a Parts,
    body: &Body,
    peer: ClientPeer,
    rules: &PolicyRules,
) -> RequestView<'a> {
    RequestView {
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        has_body: !body.is_empty(),
        peer_is_trusted: peer.trusted,
        bypass: None,
        client: rules.client_address.address(&parts.headers, &peer),
    }
}
