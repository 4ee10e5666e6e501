//! What a fill is asked to do, and what it gives back.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{StatusCode, Uri, Version};

use crate::cache::store::{Candidate, LookupKey};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::credential::{AuthorizationId, Scope};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::policy::route::Route;
use crate::policy::tag::Tag;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::context::{LookupContext, RequestContext};
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;
use crate::semantics::vary::VarySpec;
use crate::upstream::UpstreamError;

/// A stored response that no hard purge has touched, and that may not be served as it is. The
/// origin may confirm it, or fail so that it stands in.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct StaleCandidate {
    pub(in crate::proxy) candidate: Candidate,
    /// What it is stored under.
    pub(in crate::proxy) key: KeyHash,
    /// Whether this caller may be served it when the origin fails.
    pub(in crate::proxy) may_serve_on_error: bool,
}

impl StaleCandidate {
    /// Whether it stands in for the origin, which failed for this reason.
    pub(in crate::proxy) fn may_serve_for(&self, reason: Reason, now: Wall) -> bool {
        let entry = &self.candidate.cached.entry;
        let window = match reason {
            Reason::UpstreamError => entry.leeway.if_error,
            Reason::UpstreamUnreachable
            | Reason::UpstreamTimeout
            | Reason::UpstreamProtocolError
            | Reason::UpstreamBusy => entry.leeway.unreachable,
            _ => return false,
        };
        // A response that is fresh, but not fresh enough for this client, does not stand in either.
        self.may_serve_on_error && self.candidate.is_within(window, now)
    }
}

/// Why the origin is asked, and what was known before.
#[derive(Debug)]
pub(in crate::proxy) struct FillReason {
    /// The state of the tags, read before.
    pub(in crate::proxy) snapshot: TagSnapshot,
    /// Why nothing was served.
    pub(in crate::proxy) reason: Reason,
    /// The stored response that was not served.
    pub(in crate::proxy) stale: Option<StaleCandidate>,
}

impl FillReason {
    /// A request to the origin whose response is not stored.
    pub(in crate::proxy) const fn not_stored(reason: Reason) -> Self {
        Self { snapshot: TagSnapshot::Unverifiable, reason, stale: None }
    }
}

/// All that a fill needs once its request is gone.
pub(in crate::proxy) struct FillRequest {
    /// The configuration that the request was planned by. The route is one of its routes.
    pub(in crate::proxy) config: Arc<ActiveConfig>,
    pub(in crate::proxy) route: Arc<Route>,
    pub(in crate::proxy) primary: Key,
    pub(in crate::proxy) tags: Vec<Tag>,
    pub(in crate::proxy) snapshot: TagSnapshot,
    /// The caller's name among the authorized clients, in scope `shared`.
    pub(in crate::proxy) authorization: Option<AuthorizationId>,
    pub(in crate::proxy) host: String,
    pub(in crate::proxy) peer: ClientPeer,
    /// The target that the origin sees.
    pub(in crate::proxy) target: Uri,
    /// The version that the client spoke.
    pub(in crate::proxy) version: Version,
    /// The headers that the origin sees, before they are prepared for the wire and made
    /// conditional.
    pub(in crate::proxy) sent: HeaderMap,
    /// What is stored already.
    pub(in crate::proxy) stale: Option<StaleCandidate>,
}

impl FillRequest {
    pub(in crate::proxy) fn new(
        context: RequestContext<'_>,
        lookup: &Lookup<'_>,
        version: Version,
        reason: FillReason,
    ) -> Self {
        let (target, sent) = lookup.fill_request();
        Self {
            config: Arc::clone(context.config),
            route: Arc::clone(lookup.route),
            primary: lookup.key.clone(),
            tags: lookup.tags(),
            snapshot: reason.snapshot,
            authorization: lookup.authorization,
            host: lookup.host.clone().into_owned(),
            peer: context.peer,
            target,
            version,
            sent,
            stale: reason.stale,
        }
    }

    pub(in crate::proxy) fn from_context(context: &LookupContext<'_>, reason: FillReason) -> Self {
        Self::new(context.request, context.lookup, context.parts.version, reason)
    }

    /// Whether a response of this status says anything of what is stored: an accident does not.
    pub(in crate::proxy) fn supersedes(&self, status: StatusCode) -> bool {
        // SECURITY: in scope `shared` what one caller is refused is no news of the entry that
        // others share.
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && self.route.spec.scope == Scope::Shared;
        !refused && !status.is_server_error()
    }
}

impl LookupKey for FillRequest {
    fn key(&self) -> &Key {
        &self.primary
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.clone()
    }

    fn variant(&self, spec: &VarySpec) -> Key {
        self.config.rules.variant_of(
            &self.route,
            self.peer.trusted,
            &self.primary,
            spec,
            &self.sent,
        )
    }
}

/// What a fill tells the request that began it.
pub(in crate::proxy) enum FillResult {
    /// The origin's response, or what is stored and was confirmed.
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        /// For how many seconds it is fresh once it is stored, or why it is not stored.
        stored: Result<i64, Reason>,
        revalidated: bool,
    },
    /// The origin answered with a failure, and what is stored stands in for it.
    ServedStale(StatusCode),
    /// Another sidecar has filled: its response may be in the store.
    RetryLookup,
    /// The origin did not answer.
    Failed(UpstreamError),
}
