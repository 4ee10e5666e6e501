//! The role of each request header on a route. The rule behind all of them: the origin receives
//! only what is in the key, or what does not change the response.

use std::str::FromStr as _;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};

use crate::policy::credential::CredentialRule;
use crate::policy::field::Field;
use crate::policy::fronts::{self, FrontClass, Fronts};
use crate::policy::glob::{Glob, any_matches};
use crate::policy::graphql;
use crate::policy::known_headers::{self, FORGERY_TOKENS, PREFETCH, TRACING};
use crate::policy::names::meaning;
use crate::policy::route::shown_once::ShownOnce;
use crate::policy::route::{RouteSpec, UnknownHeaders};
use crate::policy::scope::Scope;
use crate::semantics::forward;

pub use learned::LearnOutcome;
use learned::LearnedHeaders;
pub(crate) use learned::MAX_LEARNED;

mod learned;

/// How the cache treats a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRole {
    /// Part of the transport of one message. A fill has its own.
    Transport,
    /// Replaced on a fill by a value that is not in the key: the client's address, the id of a
    /// request. A response that varies on it is never reused.
    Substituted,
    /// Withheld on a fill, unless the origin is known to name it in `Vary`: then it is in the key.
    Harmless,
    /// In the key through a field, and sent to the origin.
    Keyed,
    /// Always in the key, because origins respond differently to it without always naming it in
    /// `Vary`.
    Implicit,
    /// In the key in the normal form of [`crate::semantics::negotiation`].
    Negotiated,
    /// Identifies the client. Depending on the scope its hash is in the key, the client must be
    /// authorized, or it is withheld.
    Credential,
    /// Withheld: addressed to caches (conditions, `Cache-Control`), or dropped by the operator.
    Withheld,
    /// Sent to the origin because the operator allows it.
    Passed,
    /// Not in the key.
    Unknown,
}

/// Headers of the transport of one message (RFC 9110 7.6.1), which a fill has of its own. `Host` is
/// in the key as the authority.
pub(crate) const TRANSPORT: &[&str] = &[
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "content-length",
    "te",
    "trailer",
    "transfer-encoding",
    "expect",
    "upgrade",
    "http2-settings",
    "max-forwards",
];

/// Headers that describe the client, its connection or the single request. A fill has constants in
/// their place, or none. So it has for those of [`TRACING`], unless a field reads them.
pub(crate) const SUBSTITUTED: &[&str] = &[
    "via",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "x-request-id",
    "x-correlation-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
];

/// Whether a header may choose the response, as far as its name tells: it is not known as one of
/// tracing or delivery, by which no app answers. In doubt it may.
pub(crate) fn may_choose(name: &str) -> bool {
    let is_of_delivery = known_headers::is_delivery(name) || SUBSTITUTED.contains(&name);
    meaning(name).is_some() || !is_of_delivery
}

/// Headers that seldom change a response. They are withheld on a fill; where the origin names one
/// in `Vary`, it becomes part of the key. `Sec-Fetch-*` and `Sec-CH-*` are treated alike, and so
/// are [`FORGERY_TOKENS`] and [`PREFETCH`].
pub(crate) const HARMLESS: &[&str] = &[
    "user-agent",
    "accept-charset",
    "referer",
    "dnt",
    "priority",
    "save-data",
    "sec-gpc",
    "upgrade-insecure-requests",
];

/// Headers that are part of the key in a normal form.
pub(crate) const NEGOTIATED: &[&str] = &["accept", "accept-encoding", "accept-language"];

/// Headers that are always part of the key if the request has them.
pub(crate) const IMPLICIT: &[&str] = &["origin", "x-requested-with", "content-type"];

/// Headers in which a trusted proxy describes the original request. Origins build links and
/// redirects from them.
pub(crate) const FROM_TRUSTED: &[&str] = &[
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
];

/// Headers that caches act on. With a condition or a range, a fill would fetch something other than
/// the whole response.
pub(crate) const WITHHELD: &[&str] = &[
    "cache-control",
    "pragma",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "if-range",
    "range",
];

/// How many headers nearly every request has.
const COMMON_COUNT: usize = 6;

/// The headers that nearly every request has.
static COMMON: [HeaderName; COMMON_COUNT] = [
    header::HOST,
    header::ACCEPT_ENCODING,
    header::ACCEPT,
    header::USER_AGENT,
    header::CONNECTION,
    header::ACCEPT_LANGUAGE,
];

/// The roles of all headers on one route.
#[derive(Debug)]
pub struct HeaderRules {
    roles: HeaderMap<HeaderRole>,
    dropped: Box<[Glob]>,
    /// Those of them that match more than one name.
    drop_patterns: Box<[Glob]>,
    unknown: UnknownHeaders,
    /// The roles of [`COMMON`], which need no hash.
    common: [HeaderRole; COMMON_COUNT],
    /// Headers that the route's fields read. A request that repeats one, or names one in
    /// `Connection`, is refused with 400.
    read: Box<[HeaderName]>,
    fronts: Fronts,
    /// What the fronts say of the request as the client made it. See [`FrontClass::Request`].
    from_fronts: Box<[&'static str]>,
    /// The identity that the fronts tell, as patterns. See [`FrontClass::Identity`].
    guarded: Box<[&'static str]>,
    /// Whether the operator lets the client's address through.
    passes_address: bool,
    /// Headers that the origin has named in `Vary`.
    learned: LearnedHeaders,
}

impl HeaderRules {
    pub(super) fn new(
        spec: &RouteSpec,
        fields: &[Arc<Field>],
        credential: &CredentialRule,
        known: &KnownRoles,
        told_apart: &[HeaderName],
    ) -> Self {
        let (mut roles, fronts) = (known.roles.clone(), known.fronts);
        if spec.graphql {
            roles.extend(graphql::CLIENT_HEADERS.map(|name| (name, HeaderRole::Implicit)));
        }
        let further = spec.methods.credential_headers();
        let names = [&header::AUTHORIZATION, &header::COOKIE].into_iter();
        for name in names.chain(&credential.headers).chain(&further) {
            roles.insert(name, HeaderRole::Credential);
        }
        // SECURITY: in scope `public` the origin never receives a credential, even if a field reads
        // it.
        let withheld =
            |name: &HeaderName| spec.scope == Scope::Public && *name == header::AUTHORIZATION;
        for name in fields
            .iter()
            .filter_map(|field| field.whole_header())
            .filter(|name| **name != header::COOKIE && !withheld(name))
        {
            // SECURITY: what a client says of its own address never reaches the origin.
            let is_address = |known: &str| known == name.as_str();
            if !SUBSTITUTED.contains(&name.as_str())
                && !fronts.of_class(FrontClass::Address).any(is_address)
            {
                roles.insert(name, HeaderRole::Keyed);
            }
        }
        let patterns = add_chosen(&mut roles, spec, credential, fronts);
        for name in told_apart {
            add_told_apart(&mut roles, spec, name);
        }
        for name in TRANSPORT {
            roles.insert(HeaderName::from_static(name), HeaderRole::Transport);
        }
        let common =
            COMMON.each_ref().map(|name| roles.get(name).copied().unwrap_or(HeaderRole::Unknown));
        Self {
            roles,
            common,
            dropped: spec.drop_headers.clone(),
            drop_patterns: patterns,
            unknown: spec.unknown_headers,
            read: read_once(fields, credential, &further),
            fronts,
            from_fronts: fronts.of_class(FrontClass::Request).collect(),
            guarded: fronts.of_class(FrontClass::Identity).collect(),
            passes_address: spec.pass_headers.iter().any(forward::is_client_address),
            learned: LearnedHeaders::default(),
        }
    }

    /// What the roles depend on besides the name, as it is now.
    #[must_use]
    pub fn context(&self, peer_is_trusted: bool) -> RoleContext {
        RoleContext { peer_is_trusted, learned: self.learned.snapshot() }
    }

    /// The role of a header. The headers of a trusted proxy are part of the key; from any other
    /// peer they are unknown.
    #[must_use]
    pub fn role(&self, name: &HeaderName, context: &RoleContext) -> HeaderRole {
        let trusted = context.peer_is_trusted;
        let common = COMMON.iter().position(|common| common == name);
        let role = match common.map_or_else(|| self.roles.get(name), |at| self.common.get(at)) {
            // A field may read what a trusted proxy says; of any other peer nobody vouches for it.
            Some(HeaderRole::Keyed) if !trusted && self.is_from_trusted(name) => {
                HeaderRole::Unknown
            }
            // SECURITY: the operator's word is for headers, not for whoever sends them.
            Some(HeaderRole::Passed) if !trusted && self.is_from_trusted(name) => {
                HeaderRole::Withheld
            }
            Some(role) => *role,
            None => self.unlisted(name, trusted),
        };
        match (role, &context.learned) {
            (HeaderRole::Harmless | HeaderRole::Unknown, Some(learned))
                if learned.contains(name) =>
            {
                HeaderRole::Implicit
            }
            _ => role,
        }
    }

    fn unlisted(&self, name: &HeaderName, peer_is_trusted: bool) -> HeaderRole {
        let text = name.as_str();
        if !self.drop_patterns.is_empty()
            && any_matches(&self.drop_patterns, text.as_bytes())
            && !self.guards(name)
        {
            return HeaderRole::Withheld;
        }
        if text.starts_with("sec-fetch-") || text.starts_with("sec-ch-") {
            return HeaderRole::Harmless;
        }
        if peer_is_trusted && self.is_from_trusted(name) {
            return HeaderRole::Implicit;
        }
        match self.unknown {
            UnknownHeaders::Bypass => HeaderRole::Unknown,
            // SECURITY: who asks is in the key, or keeps the request from the cache.
            _ if self.guards(name) => HeaderRole::Unknown,
            UnknownHeaders::Drop => HeaderRole::Withheld,
            UnknownHeaders::Pass if self.is_from_trusted(name) => HeaderRole::Withheld,
            UnknownHeaders::Pass => HeaderRole::Passed,
        }
    }

    /// Whether a front says by this header who asks.
    fn guards(&self, name: &HeaderName) -> bool {
        self.guarded.iter().any(|known| fronts::covers(known, name.as_str()))
    }

    /// Whether only a trusted proxy can vouch for this header.
    fn is_from_trusted(&self, name: &HeaderName) -> bool {
        is_from_trusted(name) || self.from_fronts.iter().any(|known| *known == name.as_str())
    }

    /// Records that the origin names this header in `Vary`. From then on it is in the key. Returns
    /// whether it is: a route learns a few headers at most.
    #[must_use]
    pub fn learn(&self, name: &HeaderName) -> LearnOutcome {
        // SECURITY: of these, only what a trusted proxy says reaches the origin. Who asks never
        // becomes a part of the key by a response.
        if self.is_from_trusted(name) || self.guards(name) {
            LearnOutcome::Unvouched
        } else {
            self.learned.learn(name)
        }
    }

    /// The headers that the origin is known to name in `Vary`.
    #[must_use]
    pub fn learned(&self) -> Arc<[HeaderName]> {
        self.learned.snapshot().unwrap_or_default()
    }

    /// Whether the operator lets the client's address through on fills, although it is not in the
    /// key.
    #[must_use]
    pub const fn passes_address(&self) -> bool {
        self.passes_address
    }

    /// What stands in front of the sidecar.
    #[must_use]
    pub const fn fronts(&self) -> Fronts {
        self.fronts
    }

    /// Whether the operator withholds this header.
    #[must_use]
    pub fn is_dropped(&self, name: &HeaderName) -> bool {
        any_matches(&self.dropped, name.as_str().as_bytes())
    }

    /// The headers that must occur at most once and must not be named in `Connection`.
    #[must_use]
    pub fn read(&self) -> &[HeaderName] {
        &self.read
    }
}

/// What all routes of a file have in common, and what is made once for that: the roles that headers
/// have on every route, unless its rules name them.
#[derive(Debug)]
pub struct KnownRoles {
    pub(super) fronts: Fronts,
    roles: HeaderMap<HeaderRole>,
    /// What identifies a client, as fingerprints have it.
    pub(super) credential: ShownOnce,
}

impl KnownRoles {
    /// Those where these fronts stand before the sidecar, and this identifies a client.
    #[must_use]
    pub fn new(fronts: Fronts, credential: &CredentialRule) -> Self {
        let credential = ShownOnce::new(credential);
        Self { fronts, roles: known_roles(fronts), credential }
    }
}

fn known_roles(fronts: Fronts) -> HeaderMap<HeaderRole> {
    let mut roles = HeaderMap::default();
    let mut add = |name, role| {
        roles.insert(HeaderName::from_static(name), role);
    };
    for header in fronts.headers() {
        match header.class {
            FrontClass::Address | FrontClass::Noise => add(header.name, HeaderRole::Substituted),
            FrontClass::Location => add(header.name, HeaderRole::Harmless),
            // They have lists of their own.
            FrontClass::Identity | FrontClass::Request => {}
        }
    }
    known_headers::names(TRACING).for_each(|name| add(name, HeaderRole::Substituted));
    for list in [FORGERY_TOKENS, PREFETCH] {
        known_headers::names(list).for_each(|name| add(name, HeaderRole::Harmless));
    }
    for (names, role) in [
        (SUBSTITUTED, HeaderRole::Substituted),
        (HARMLESS, HeaderRole::Harmless),
        (NEGOTIATED, HeaderRole::Negotiated),
        (IMPLICIT, HeaderRole::Implicit),
        (WITHHELD, HeaderRole::Withheld),
    ] {
        for name in names {
            add(name, role);
        }
    }
    roles
}

/// Adds what the operator passes and drops. Returns the patterns of what is dropped.
fn add_chosen(
    roles: &mut HeaderMap<HeaderRole>,
    spec: &RouteSpec,
    credential: &CredentialRule,
    fronts: Fronts,
) -> Box<[Glob]> {
    // SECURITY: what the operator says of headers that change nothing does not count for those that
    // say who asks.
    let is_free =
        |name: &HeaderName| !fronts.is_identity(name.as_str()) || credential.headers.contains(name);
    for name in spec.pass_headers.iter().filter(|name| is_free(name)) {
        roles.insert(name, HeaderRole::Passed);
    }
    let (names, patterns): (Vec<_>, Vec<_>) =
        spec.drop_headers.iter().cloned().partition(Glob::is_literal);
    let names = names.iter().filter_map(|name| HeaderName::from_str(name.as_str()).ok());
    for name in names.filter(is_free) {
        roles.insert(name, HeaderRole::Withheld);
    }
    // A pattern says nothing of a header that has a name of its own in another rule.
    for (name, role) in roles.iter_mut() {
        let is_named =
            matches!(role, HeaderRole::Credential | HeaderRole::Keyed | HeaderRole::Passed);
        if !is_named && is_free(name) && any_matches(&patterns, name.as_str().as_bytes()) {
            *role = HeaderRole::Withheld;
        }
    }
    patterns.into()
}

/// Makes a header part of the key that decides on the route. Where the route does not ask for it
/// itself, its own lists count.
fn add_told_apart(roles: &mut HeaderMap<HeaderRole>, spec: &RouteSpec, name: &HeaderName) {
    let is_own = || spec.conditions.headers.iter().any(|(own, _)| own == name);
    let is_listed =
        spec.pass_headers.contains(name) || any_matches(&spec.drop_headers, name.as_ref());
    if roles.get(name) != Some(&HeaderRole::Keyed) && (!is_listed || is_own()) {
        roles.insert(name, HeaderRole::Implicit);
    }
}

/// The headers that a request may have but once.
fn read_once(
    fields: &[Arc<Field>],
    credential: &CredentialRule,
    further: &[HeaderName],
) -> Box<[HeaderName]> {
    let mut read: Vec<HeaderName> = fields
        .iter()
        .filter_map(|field| field.header())
        .filter(|name| **name != header::COOKIE)
        .cloned()
        .collect();
    read.push(header::AUTHORIZATION);
    read.extend(credential.headers.iter().chain(further).cloned());
    read.sort_by(|one, two| one.as_str().cmp(two.as_str()));
    read.dedup();
    read.into()
}

/// What the roles of headers depend on for one request, from its lookup to the end of its fill:
/// what the route learns meanwhile counts for later requests.
#[derive(Clone, Debug)]
pub struct RoleContext {
    peer_is_trusted: bool,
    learned: Option<Arc<[HeaderName]>>,
}

impl RoleContext {
    /// Whether the request comes from a trusted proxy.
    #[must_use]
    pub const fn peer_is_trusted(&self) -> bool {
        self.peer_is_trusted
    }

    /// The same before anything was learned.
    #[must_use]
    pub const fn unlearned(&self) -> Self {
        Self { peer_is_trusted: self.peer_is_trusted, learned: None }
    }
}

fn is_from_trusted(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-") && FROM_TRUSTED.contains(&name.as_str())
}
