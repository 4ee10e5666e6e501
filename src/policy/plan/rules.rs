//! The compiled rules of one `proxy.toml`, and the part of a request that they read.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Uri, Version};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::apps::{AppId, AppRules, Apps, authority};
use crate::policy::client_address::ClientAddressRule;
use crate::policy::credential::CredentialRule;
use crate::policy::graphql::KnownDocuments;
use crate::policy::identity::{IdentityTable, RequestIdentity};
use crate::policy::jwt::{RequestTokens, TokenPlace, TokenVerifier};
use crate::policy::keyed_body::SeenBody;
use crate::policy::purge_request::PurgeRequestRule;
use crate::policy::purge_rule::PurgeRules;
use crate::policy::route::{Route, Routes};
use crate::policy::session::RouteSessions;
use crate::policy::webhook_path::WebhookPaths;
use crate::secret::Hasher;
use crate::semantics::forward::Upgrades;
use crate::semantics::request_fields::RequestFields;

/// The rules of one `proxy.toml`.
#[derive(Debug)]
pub struct PolicyRules {
    /// What is cached.
    pub routes: Routes,
    /// What is purged.
    pub purges: PurgeRules,
    /// What identifies a client.
    pub credential: Arc<CredentialRule>,
    /// How the address of a client is found.
    pub client_address: ClientAddressRule,
    /// Hashes credentials.
    pub hasher: Hasher,
    /// The longest key, in bytes.
    pub max_key: usize,
    /// The longest body that is a part of a key, in bytes.
    pub max_read_body: u64,
    /// The protocols that a connection may change to.
    pub upgrades: Upgrades,
    /// The apps, and which of them a request is for.
    pub apps: Apps,
    /// Who may send `PURGE` and `BAN`; none where the origin gets them.
    pub purge_requests: Option<PurgeRequestRule>,
    /// The paths of webhooks, which sources get in place of the origin.
    pub webhooks: WebhookPaths,
    /// The documents of GraphQL that only read.
    pub documents: Arc<KnownDocuments>,
    /// Verifies tokens, if there is a `[jwt]`.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// What the origin has said of callers, if there is an `[identity]` and an origin to ask.
    pub identities: Option<Arc<IdentityTable>>,
}

impl PolicyRules {
    /// The host under which the entries of a request are stored, purged and filled: its authority,
    /// or the one that stands for all hosts.
    ///
    /// SECURITY: fills are for this host, too. An origin that writes the `Host` into its pages
    /// would otherwise show one client's to all others.
    #[must_use]
    pub fn host<'a>(&'a self, app: AppId, uri: &'a Uri, headers: &'a HeaderMap) -> Cow<'a, str> {
        match &self.apps.get(app).host_key {
            Some(host) => Cow::Borrowed(host),
            None => authority(uri, headers),
        }
    }

    /// The same for a request in the form that the rules read.
    pub(super) fn host_of<'a>(&'a self, request: &RequestView<'a>) -> Cow<'a, str> {
        self.host(request.app, request.uri, request.headers)
    }

    /// What is known of the app that a request is for.
    pub(super) fn app_of(&self, request: &RequestView<'_>) -> &AppRules {
        self.apps.get(request.app)
    }

    /// Whether a request may be planned twice ([`RequestView::is_again`]): no rule asks the origin
    /// for its plan, and none reads a body.
    #[must_use]
    pub fn may_plan_twice(&self) -> bool {
        self.identities.is_none() && !self.routes.have_graphql()
    }

    /// Whether a plan verifies, and counts, what requests carry.
    #[must_use]
    pub fn verify_callers(&self) -> bool {
        self.tokens.is_some() || !self.credential.sessions.0.is_empty()
    }

    /// What the session cookies of a request say to a route.
    pub(super) fn sessions_of<'a>(
        &self,
        route: &'a Route,
        request: &RequestView<'_>,
    ) -> RouteSessions<'a> {
        route.sessions(request.headers, &self.hasher, request.now, request.is_again)
    }

    /// What is found of the tokens in these places. They are counted, unless this is done again.
    pub(super) fn tokens_in(
        &self,
        places: &[TokenPlace],
        headers: &HeaderMap,
        is_again: bool,
    ) -> RequestTokens {
        if places.is_empty() {
            return RequestTokens::NONE;
        }
        RequestTokens::read(places, self.tokens.as_deref(), headers, is_again)
    }

    /// The digest that stands in a variant's key for the value of a secret header.
    pub(super) fn hash_secret(&self, value: &[u8]) -> Vec<u8> {
        self.hasher.digest("vary", value).to_vec()
    }
}

/// The parts of a request's head that the rules read.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The app that it is for ([`Apps::of`]).
    pub app: AppId,
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The HTTP version.
    pub version: Version,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Which fields they have.
    pub fields: RequestFields,
    /// Whether the request has a body.
    pub has_body: bool,
    /// The body, if a route reads it for its key ([`crate::policy::plan::Plan::ReadBody`]).
    pub seen_body: Option<&'a SeenBody>,
    /// What came of asking the origin who the caller is ([`crate::policy::plan::Plan::Identify`]).
    pub identity: Option<&'a RequestIdentity>,
    /// Whether the request comes from a trusted proxy.
    pub peer_is_trusted: bool,
    /// Why its connection keeps the request from the cache, whatever the rules say.
    pub bypass: Option<Reason>,
    /// The address of the client, by [`ClientAddressRule`], if it is known.
    pub client: Option<IpAddr>,
    /// When it arrived. Signatures are judged by it.
    pub now: Wall,
    /// It was planned before: what is verified for that was counted then.
    pub is_again: bool,
}
