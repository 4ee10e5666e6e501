//! What a request carries to its end, apart from its body. Each step takes it; no step loads the
//! configuration a second time.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::cache::fills::FillKey;
use crate::clock::Wall;
use crate::policy::apps::AppId;
use crate::policy::authorized_clients::{
    AuthorizationId, AuthorizationState, AuthorizedClients, SharedClient,
};
use crate::policy::key::KeyHash;
use crate::policy::plan::{Lookup, PolicyRules, RequestView};
use crate::policy::request_directives::RequestDirectives;
use crate::policy::scope::Scope;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::client::ConnectionDemand;
use crate::proxy::origin::OriginClient;
use crate::proxy::resources::Resources;
use crate::proxy::settings::ProxySettings;
use crate::semantics::body::Body;
use crate::semantics::digest::Digest;
use crate::semantics::forward::ClientPeer;
use crate::semantics::request_fields::RequestFields;
use crate::semantics::times::Times;
use crate::shares::{Departure, PauseWatch, Requester};

/// Any request. Its head is apart: a request that is forwarded as it is gives it away.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    /// The configuration that it was planned by.
    pub(super) config: &'a Arc<ActiveConfig>,
    pub(super) peer: ClientPeer,
    /// Whether its client has left.
    pub(super) departure: &'a Arc<Departure>,
    /// What it asks of connections, and its app.
    pub(super) connection: &'a ConnectionDemand,
    /// When it arrived.
    pub(super) now: Wall,
}

impl<'a> RequestContext<'a> {
    /// The origin that answers for its app.
    pub(super) fn origin(&self) -> &'a Arc<OriginClient> {
        self.config.origins.of(self.app())
    }

    /// The app that it is for.
    pub(super) const fn app(&self) -> AppId {
        self.connection.app
    }

    /// Whose share the request counts for, what its body waits for, and whether its client has
    /// left.
    pub(super) fn requester(&self, parts: &Parts) -> Requester {
        Requester {
            peer: self.config.rules.client_address.share(&parts.headers, &self.peer),
            upload: parts.extensions.get::<Arc<PauseWatch>>().cloned(),
            departure: self.expendable(),
        }
    }

    /// Whether its client has left, if it may be given up then.
    pub(super) fn expendable(&self) -> Option<Arc<Departure>> {
        self.departure.is_expendable().then(|| Arc::clone(self.departure))
    }
}

/// A GET or HEAD on a route that caches.
pub(crate) struct LookupContext<'a> {
    pub(super) request: RequestContext<'a>,
    pub(super) parts: &'a Parts,
    pub(super) lookup: &'a Lookup<'a>,
    /// The client's own `Cache-Control`.
    pub(super) directives: RequestDirectives,
    /// Who may be given shared entries.
    clients: &'a AuthorizedClients,
}

impl<'a> LookupContext<'a> {
    pub(super) fn new(
        request: RequestContext<'a>,
        parts: &'a Parts,
        lookup: &'a Lookup<'a>,
        clients: &'a AuthorizedClients,
    ) -> Self {
        Self {
            request,
            parts,
            lookup,
            directives: if lookup.has_directives {
                RequestDirectives::new(lookup.route, &parts.headers)
            } else {
                RequestDirectives::default()
            },
            clients,
        }
    }

    /// Whether this caller may be given what is stored under this key; `digest` is that of the
    /// stored response, if there is one.
    pub(super) fn authorization<D: FnOnce() -> Digest>(
        &self,
        key: KeyHash,
        digest: Option<D>,
        now: Wall,
    ) -> AuthorizationState {
        authorization(self.clients, self.lookup, key, digest, now)
    }

    /// Whether this caller may be given a response with this digest, which a fill of another caller
    /// shares under this key. No digest: the body is new, and nobody knows it yet.
    pub(super) fn may_share(&self, key: KeyHash, digest: Option<Digest>, now: Wall) -> bool {
        let digest = digest.map(|digest| move || digest);
        self.authorization(key, digest, now) == AuthorizationState::Authorized
    }

    pub(super) fn settings(&self) -> &'a ProxySettings {
        &self.request.config.settings
    }

    pub(super) fn route(&self) -> usize {
        self.lookup.route.id
    }

    /// The fill that this request leads or joins for this key: with others if it is authorized for
    /// what is stored there.
    pub(super) fn fill_key(&self, hash: KeyHash, authorized: bool) -> FillKey {
        // SECURITY: until it is known that the caller is the same still, what the origin answers is
        // for this caller alone.
        let joins = authorized && !self.lookup.route.reads_identity;
        FillKey { hash, caller: if joins { None } else { self.caller() } }
    }

    /// Under which key the origin's refusal of a fill is remembered.
    pub(super) fn refusal_key(&self) -> FillKey {
        refusal_key(self.lookup)
    }

    /// Whether the guests of this request's key got different answers a moment ago.
    pub(super) fn guests_differ(&self, resources: &Resources) -> bool {
        self.lookup.route.is_for_guests()
            && resources.guest_proofs.differ(self.lookup.key.hash(), resources.clock.wall())
    }

    /// Whose requests alone may share a fill with this one, where its caller is not authorized.
    pub(super) fn caller(&self) -> Option<[u8; 32]> {
        self.lookup.authorization.map(AuthorizationId::to_bytes)
    }
}

/// Under which key the origin's refusal of a fill is remembered: in scope `shared` for this
/// credential alone.
pub(crate) fn refusal_key(lookup: &Lookup<'_>) -> FillKey {
    FillKey { hash: lookup.key.hash(), caller: lookup.authorization.map(AuthorizationId::to_bytes) }
}

/// SECURITY: a shared entry is given only to callers whom the origin itself has lately given this
/// very response, or, by `admit = "route"`, has lately answered on the route.
pub(super) fn authorization<D: FnOnce() -> Digest>(
    clients: &AuthorizedClients,
    lookup: &Lookup<'_>,
    key: KeyHash,
    digest: Option<D>,
    now: Wall,
) -> AuthorizationState {
    client_authorization(clients, shared_client(lookup), key, digest, now)
}

/// The same for this client; none where the route is not of scope `shared`.
pub(super) fn client_authorization<D: FnOnce() -> Digest>(
    clients: &AuthorizedClients,
    client: Option<SharedClient>,
    key: KeyHash,
    digest: Option<D>,
    now: Wall,
) -> AuthorizationState {
    match (client, digest) {
        (None, _) => AuthorizationState::Authorized,
        (Some(client), Some(digest)) => clients.state(client, key, digest, now),
        (Some(client), None) if client.by_entry() => AuthorizationState::Unauthorized,
        (Some(client), None) => clients.state(client, key, Digest::default, now),
    }
}

/// SECURITY: whether the origin has answered the credential of a private entry within the time that
/// the route sets: a revoked one is served for no longer. In scope `shared` the authorization is
/// bounded by it.
pub(super) fn is_confirmed(lookup: &Lookup<'_>, times: &Times, now: Wall) -> bool {
    confirmed_for(lookup).is_none_or(|after| now.since(times.received) < after)
}

/// For how long an answer of the origin confirms this caller; none without a limit.
pub(super) fn confirmed_for(lookup: &Lookup<'_>) -> Option<Duration> {
    let spec = &lookup.route.spec;
    let is_bounded = spec.scope == Scope::Private && lookup.credential.is_some();
    spec.revalidate_after.filter(|_| is_bounded)
}

/// The caller, on a route of scope `shared`.
pub(super) fn shared_client(lookup: &Lookup<'_>) -> Option<SharedClient> {
    lookup.authorization.map(|id| SharedClient { id, rule: lookup.route.spec.admit })
}

/// The head of a request for this app, as far as the rules read it.
pub(super) fn request_view<'a>(
    app: AppId,
    parts: &'a Parts,
    body: &Body,
    peer: ClientPeer,
    rules: &PolicyRules,
    now: Wall,
) -> RequestView<'a> {
    view_with(app, (parts, RequestFields::of(&parts.headers)), body, peer, rules, now)
}

/// The same for a head that has these fields.
pub(super) fn view_with<'a>(
    app: AppId,
    (parts, fields): (&'a Parts, RequestFields),
    body: &Body,
    peer: ClientPeer,
    rules: &PolicyRules,
    now: Wall,
) -> RequestView<'a> {
    RequestView {
        app,
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        fields,
        has_body: !body.is_empty(),
        seen_body: None,
        identity: None,
        peer_is_trusted: peer.trusted,
        bypass: None,
        client: rules.client_address.address(&parts.headers, &peer),
        now,
        is_again: false,
    }
}
