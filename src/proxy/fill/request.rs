//! What a fill is asked to do, and what it gives back.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, Request, Response, StatusCode, Uri};

use super::own_redirect;
use crate::cache::fills::FillKey;
use crate::cache::store::memory::CachedEntry;
use crate::cache::store::{Candidate, LookupKey};
use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::{OriginCall, Outcome, Reason};
use crate::policy::authorized_clients::{AuthorizedClients, SharedClient};
use crate::policy::cookie_header::{cookies, is_cleared, set_cookie};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::{FillHead, IdentityCheck, Lookup};
use crate::policy::refusal::Refusal;
use crate::policy::route::{HeaderRole, RoleContext, Route};
use crate::policy::scope::Scope;
use crate::policy::session::{SessionRule, SetSession};
use crate::policy::tag::Tag;
use crate::policy::template::FilledTemplate;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::context::{LookupContext, RequestContext, refusal_key, shared_client};
use crate::proxy::fill::coding::FillCoding;
use crate::proxy::origin::OriginClient;
use crate::semantics::body::Body;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::vary::VarySpec;
use crate::shares::{Departure, ShareOwner};
use crate::upstream::UpstreamError;

/// A stored response that no hard purge has touched, and that may not be served as it is. The
/// origin may confirm it, or fail so that it stands in.
#[derive(Clone, Debug)]
pub(crate) struct StaleCandidate {
    pub(crate) candidate: Candidate,
    /// What it is stored under.
    pub(crate) key: KeyHash,
    /// Whether this caller may be served it when the origin fails.
    pub(crate) may_serve_on_error: bool,
}

impl StaleCandidate {
    /// Whether it stands in for the origin, which failed for this reason.
    pub(crate) fn may_serve_for(&self, reason: Reason, now: Wall) -> bool {
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
pub(crate) struct FillReason {
    /// The state of the tags, read before.
    pub(crate) snapshot: TagSnapshot,
    /// Why nothing was served.
    pub(crate) reason: Reason,
    /// The hash of the key of the variant, as far as it was known.
    pub(crate) key: KeyHash,
    /// The stored response that was not served.
    pub(crate) stale: Option<StaleCandidate>,
    /// The fresh stored response that this caller is not authorized for, in scope `shared`.
    pub(crate) for_others: Option<Arc<CachedEntry>>,
}

impl FillReason {
    /// A request to the origin whose response is not stored.
    pub(crate) const fn not_stored(reason: Reason, key: KeyHash) -> Self {
        let snapshot = TagSnapshot::Unverifiable;
        Self { snapshot, reason, key, stale: None, for_others: None }
    }
}

/// All that a fill needs once its request is gone.
pub(crate) struct FillRequest {
    /// The configuration that the request was planned by. The route is one of its routes.
    pub(crate) config: Arc<ActiveConfig>,
    pub(crate) route: Arc<Route>,
    pub(crate) primary: Key,
    pub(crate) tags: Vec<Tag>,
    /// The templates of further tags, which the body of the response tells.
    pub(crate) templates: Vec<FilledTemplate>,
    pub(crate) snapshot: TagSnapshot,
    /// The caller among the authorized clients, in scope `shared`.
    pub(crate) client: Option<SharedClient>,
    /// The hash of the key of the variant, as far as it was known before.
    pub(crate) key: KeyHash,
    pub(crate) host: String,
    /// The target that the origin sees.
    pub(crate) target: Uri,
    /// The method that the origin sees.
    pub(crate) method: Method,
    /// The body that the origin sees, if the key has one.
    pub(crate) body: Option<Bytes>,
    /// The headers that the origin sees, before they are made conditional.
    pub(crate) sent: HeaderMap,
    /// What the roles of headers depend on.
    pub(crate) roles: RoleContext,
    /// Under which key the origin's refusal is remembered.
    pub(crate) refusal_key: FillKey,
    /// What it has less of the client than the client's own request.
    pub(crate) withholds: Withheld,
    /// What the client has sent of a credential and the origin does not see, in scope `public`.
    pub(crate) withheld_credential: Option<HeaderName>,
    /// Whether the origin sees a credential.
    pub(crate) carries_credential: bool,
    /// Whether the key holds the whole credential of a client that has one.
    pub(crate) has_owner: bool,
    /// What has to hold still once its response is whole, for it to be stored.
    pub(crate) identity: Option<Box<IdentityCheck>>,
    /// Whose share it counts for.
    pub(crate) peer: ShareOwner,
    /// What becomes of its body before it is stored, where the route codes its responses.
    coding: Option<Box<FillCoding>>,
    /// Whether all clients that wait for it have left; none for a fill that the cache wants.
    pub(crate) departure: Option<Arc<Departure>>,
    /// What is stored already, and what the origin may confirm to this caller.
    pub(crate) stale: Option<StaleCandidate>,
    /// What is stored already and fresh, and nothing shows that this caller may have it.
    pub(crate) for_others: Option<Arc<CachedEntry>>,
}

/// What a fill has less of the client than the client's own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// Nothing.
    Nothing,
    /// A header, or the address.
    Something,
    /// An anti-forgery token, among others.
    ForgeryToken,
}

impl Withheld {
    fn from_lookup(lookup: &Lookup<'_>) -> Self {
        if lookup.withholds_forgery_token() {
            Self::ForgeryToken
        } else if lookup.withholds_anything() {
            Self::Something
        } else {
            Self::Nothing
        }
    }
}

impl FillRequest {
    /// What becomes of the body before it is stored, where the route codes its responses.
    pub(crate) fn coding(&self) -> Option<&FillCoding> {
        self.coding.as_deref()
    }

    /// The origin that answers for the app of its route.
    pub(crate) fn origin(&self) -> &Arc<OriginClient> {
        self.config.origins.of(self.route.spec.app.id)
    }

    pub(crate) fn new(
        context: RequestContext<'_>,
        lookup: &Lookup<'_>,
        reason: FillReason,
    ) -> Self {
        let FillHead { target, headers: sent } = lookup.fill_request(new_request_id());
        Self {
            config: Arc::clone(context.config),
            route: Arc::clone(lookup.route),
            primary: lookup.key.clone(),
            tags: lookup.tags(),
            templates: lookup.response_templates(),
            snapshot: reason.snapshot,
            client: shared_client(lookup),
            key: reason.key,
            host: lookup.host().to_owned(),
            target,
            method: lookup.fill_method(),
            body: lookup.body.as_ref().map(|body| body.canonical.clone()),
            sent,
            roles: lookup.roles.clone(),
            refusal_key: refusal_key(lookup),
            carries_credential: lookup.is_identified(),
            withheld_credential: lookup.withheld_credential(),
            withholds: Withheld::from_lookup(lookup),
            has_owner: lookup.has_owner(),
            identity: lookup.identity_check().map(Box::new),
            peer: context.config.rules.client_address.share(lookup.headers(), &context.peer),
            coding: FillCoding::of(lookup).map(Box::new),
            departure: None,
            stale: reason.stale,
            for_others: reason.for_others,
        }
    }

    pub(crate) fn from_context(context: &LookupContext<'_>, reason: FillReason) -> Self {
        Self::new(context.request, context.lookup, reason)
    }

    /// The same for requests that wait for it.
    pub(crate) fn awaited(context: &LookupContext<'_>, reason: FillReason) -> Self {
        Self { departure: Some(Arc::default()), ..Self::from_context(context, reason) }
    }

    /// The same with what was found out since.
    pub(crate) fn with_reason(self, reason: FillReason) -> Self {
        let FillReason { snapshot, reason: _, key, stale, for_others } = reason;
        Self { snapshot, key, stale, for_others, ..self }
    }

    /// Whether `Accept-Language` is in the key as what the client prefers, and not for a field, nor
    /// left to the operator.
    pub(crate) fn keys_languages(&self) -> bool {
        self.route.headers.role(&ACCEPT_LANGUAGE, &self.roles) == HeaderRole::Negotiated
    }

    /// The request as it is sent, with these headers: its own, or made conditional.
    pub(crate) fn to_request(&self, headers: HeaderMap) -> Request<Body> {
        let mut request = Request::new(self.body.clone().map_or_else(Body::empty, Body::full));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = headers;
        request
    }

    /// Why the client's own request goes to the origin in place of this one, if it does: the origin
    /// refuses this one, which has less, or varies on what a fill replaces.
    pub(crate) fn passes_after(&self, response: &Response<Body>, now: Wall) -> Option<Outcome> {
        let (status, headers) = (response.status(), response.headers());
        let is_refused = self.refusal(status, headers) == Some(Refusal::Credential)
            && !self.ends_session(headers, now)
            || matches!(status, StatusCode::NOT_ACCEPTABLE | StatusCode::TOO_MANY_REQUESTS);
        // What frameworks say when the token is missing: Django 403, Rails 422, Laravel 419.
        let is_unproven =
            self.withholds == Withheld::ForgeryToken && matches!(status.as_u16(), 400 | 419 | 422);
        if is_unproven || is_refused && self.withholds != Withheld::Nothing {
            return Some(Outcome::bypass(Reason::FillRefused));
        }
        // SECURITY: nobody else would ever come to where the redirect leads.
        if own_redirect::leads_back(&self.route.spec.query, &self.host, &self.target, response) {
            return Some(Outcome::bypass(Reason::FillRefused));
        }
        // An origin that misses the client's session begins another one, which would replace it.
        let withheld = self.withheld_credential.as_ref().filter(|_| !self.signs_in(headers));
        if let Some(name) = withheld.filter(|_| self.sets_cookie(headers)) {
            return Some(Outcome::bypass_with(Reason::WithheldHeader, name.as_str()));
        }
        let vary = VarySpec::from_response(&self.sent, headers).ok()?;
        let name = self.route.substituted_in(&vary, &self.roles)?;
        Some(Outcome::bypass_with(Reason::WithheldHeader, name.as_str()))
    }

    /// Whether a response ends a cookie that the origin has seen: a logout was done, and leads to
    /// the login. Asked again, the origin would be asked by somebody else.
    fn ends_session(&self, response: &HeaderMap, now: Wall) -> bool {
        let lines = response.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let ended = lines.filter(|line| is_cleared(line, now)).filter_map(set_cookie);
        let mut ended = ended.map(|(name, _)| name);
        ended.any(|ended| cookies(&self.sent).any(|(name, _)| name == ended))
    }

    /// Whether a response sets a cookie that keeps it from being stored, whatever its value.
    pub(crate) fn sets_cookie(&self, response: &HeaderMap) -> bool {
        response.contains_key(SET_COOKIE)
            && (!self.route.strips_cookies(response, self.carries_credential)
                || self.signs_in(response))
    }

    /// Why the request of the guest who began a fill goes to the origin as it is, whatever becomes
    /// of the response to the fill; none where it need not.
    ///
    /// SECURITY: a client whose cookies the fill has withheld never gets those that its response
    /// sets. They would replace the client's session, and a form in the page would belong to
    /// another one.
    pub(crate) fn own_request(&self, response: &HeaderMap) -> Option<Outcome> {
        let name = self.withheld_credential.as_ref()?;
        // Who is signed in by this answer has no further use for an earlier session.
        let keeps = response.contains_key(SET_COOKIE) && !self.signs_in(response);
        keeps.then(|| Outcome::bypass_with(Reason::WithheldHeader, name.as_str()))
    }

    /// Whether a response to a guest signs the guest in: it is for that guest alone.
    pub(crate) fn signs_in(&self, response: &HeaderMap) -> bool {
        self.config.rules.signs_in(&self.route, response)
    }

    /// Whether the cookies that a response sets may be removed before it is stored, or why not. A
    /// signed session may be only if its payload stays the same.
    pub(crate) fn strips(&self, response: &HeaderMap, now: Wall) -> Result<(), Reason> {
        if self.sets_cookie(response) {
            return Err(Reason::SetCookie);
        }
        let hasher = &self.config.rules.hasher;
        let changes = |rule: &Arc<SessionRule>| {
            rule.set_by(&self.sent, response, hasher, now) == SetSession::Changed
        };
        if self.route.session_rules.iter().any(changes) {
            return Err(Reason::SessionChanged);
        }
        Ok(())
    }

    /// The headers that tell the variants of its response apart; none where nobody else gets the
    /// response.
    pub(crate) fn variants_by(&self, response: &HeaderMap) -> VarySpec {
        let vary = VarySpec::from_response(&self.sent, response);
        vary.and_then(|vary| self.route.variants_by(&vary, &self.roles)).unwrap_or_default()
    }

    /// How a response turns the caller away, if it does.
    pub(crate) fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Option<Refusal> {
        Refusal::from_response(&self.config.rules.credential, &self.host, status, headers)
    }

    /// Revokes the caller's authorization if the origin turns it away.
    pub(crate) fn record_refusal(
        &self,
        clients: &AuthorizedClients,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        if let (Some(client), Some(_)) = (self.client, self.refusal(status, headers)) {
            clients.revoke(client, self.key);
        }
    }

    /// Whether an answer to a guest with this head has to be proven the same for all: it sets
    /// cookies, or the origin says that it is for one user. So does a 304, whose head is stored
    /// with the body it confirms.
    pub(crate) fn needs_guest_proof(&self, response: &HeaderMap) -> bool {
        self.route.is_for_guests()
            && (response.contains_key(SET_COOKIE) || CacheControl::from_headers(response).private)
    }

    /// Whether such a response says anything of what is stored: an accident does not.
    pub(crate) fn supersedes(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        // SECURITY: in scope `shared` what one caller is refused is no news of the entry that
        // others share.
        let refused =
            self.route.spec.scope == Scope::Shared && self.refusal(status, headers).is_some();
        !refused && !status.is_server_error()
    }
}

/// An id for the origin's log.
pub(crate) fn new_request_id() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_maybe_shared(Bytes::from(id)).expect("hexadecimal digits are a value")
}

impl LookupKey for FillRequest {
    fn key(&self) -> &Key {
        &self.primary
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.clone()
    }

    fn variant(&self, spec: &VarySpec) -> Key {
        self.config.rules.variant_of(&self.route, &self.roles, &self.primary, spec, &self.sent)
    }
}

/// What a fill tells the request that began it.
pub(crate) enum FillResult {
    /// The origin's response, or what is stored and was confirmed.
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        /// For how many seconds it is fresh once it is stored, or why it is not stored.
        stored: Result<i64, Reason>,
        revalidated: bool,
        /// How many seconds the origin's `Date` is ahead.
        date_skew: i64,
        /// What tells its variants apart.
        vary: VarySpec,
        /// The request that the origin got.
        origin: Option<Arc<OriginCall>>,
    },
    /// The client's own request has to go to the origin, for this reason.
    Refused(Outcome),
    /// The origin answered with a failure, and what is stored stands in for it.
    ServedStale(StatusCode),
    /// Another sidecar has filled: its response may be in the store.
    RetryLookup,
    /// The origin did not answer.
    Failed(UpstreamError),
}
