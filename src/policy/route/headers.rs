//! The role of each request header on a route. The rule behind all of them: the origin receives
//! only what is in the key, or what does not change the response.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};

use crate::policy::credential::CredentialRule;
use crate::policy::field::Field;
use crate::policy::route::{RouteSpec, UnknownHeaders};
use crate::policy::scope::Scope;

/// How the cache treats a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRole {
    /// Sent to the origin. It does not change the response, or the origin names it in `Vary`.
    Harmless,
    /// In the key through a field, and sent to the origin.
    Keyed,
    /// Always in the key, because origins respond differently to it without always naming it in
    /// `Vary`.
    Implicit,
    /// Identifies the client. Depending on the scope its hash is in the key, the client must be
    /// authorized, or it is withheld.
    Credential,
    /// A `Cookie` header of which only the cookies in the key are sent.
    KeyedCookies,
    /// Addressed to caches (conditions, `Cache-Control`), so it is withheld on a fill.
    Withheld,
    /// Sent to the origin because the operator allows it.
    Passed,
    /// Not in the key.
    Unknown,
}

/// Headers that do not change a response, or that the origin then names in `Vary` (content
/// negotiation).
pub(crate) const HARMLESS: &[&str] = &[
    "host",
    "user-agent",
    "accept-encoding",
    "accept-language",
    "accept-charset",
    "referer",
    "dnt",
    "priority",
    "save-data",
    "sec-gpc",
    "upgrade-insecure-requests",
    "max-forwards",
    // Framing and hop-by-hop headers: they are not forwarded as they are (RFC 9110 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "content-length",
    "te",
    "trailer",
    "transfer-encoding",
    "expect",
    // Rewritten before the request is forwarded.
    "via",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    // Tracing.
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

/// Headers that are always part of the key if the request has them.
pub(crate) const IMPLICIT: &[&str] = &["accept", "origin", "x-requested-with", "content-type"];

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
/// the whole response. An offer to change the protocol ends here as well, unless it is passed.
pub(crate) const WITHHELD: &[&str] = &[
    "cache-control",
    "pragma",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "if-range",
    "range",
    // An offer to change the protocol that is not taken up.
    "upgrade",
    "http2-settings",
];

/// The roles of all headers on one route.
#[derive(Debug)]
pub struct HeaderRules {
    roles: HeaderMap<HeaderRole>,
    dropped: HeaderMap<()>,
    unknown: UnknownHeaders,
    /// Headers that the route's fields read. A request that repeats one, or names one in
    /// `Connection`, is refused with 400.
    read: Box<[HeaderName]>,
}

impl HeaderRules {
    pub(super) fn new(
        spec: &RouteSpec,
        fields: &[Arc<Field>],
        credential: &CredentialRule,
        chosen_identity: bool,
        keyed_cookies: bool,
    ) -> Self {
        let mut roles = HeaderMap::<HeaderRole>::default();
        let fixed = [
            (HARMLESS, HeaderRole::Harmless),
            (IMPLICIT, HeaderRole::Implicit),
            (WITHHELD, HeaderRole::Withheld),
        ];
        for (names, role) in fixed {
            for name in names {
                roles.insert(HeaderName::from_static(name), role);
            }
        }
        // With a chosen identity, other headers that could identify the client are headers like any
        // other: not in the key unless the operator says so.
        let automatic = if chosen_identity && spec.scope != Scope::Public {
            HeaderRole::Unknown
        } else {
            HeaderRole::Credential
        };
        for name in [&header::AUTHORIZATION, &header::COOKIE].into_iter().chain(&credential.headers)
        {
            roles.insert(name, automatic);
        }
        // SECURITY: in scope `public` the origin never receives a credential, even if a field reads
        // it.
        let withheld =
            |name: &HeaderName| spec.scope == Scope::Public && *name == header::AUTHORIZATION;
        for name in fields
            .iter()
            .filter_map(|field| field.header())
            .filter(|name| **name != header::COOKIE && !withheld(name))
        {
            roles.insert(name, HeaderRole::Keyed);
        }
        if keyed_cookies && (chosen_identity || spec.scope == Scope::Public) {
            roles.insert(header::COOKIE, HeaderRole::KeyedCookies);
        }
        let mut dropped = HeaderMap::<()>::default();
        for name in &spec.pass_headers {
            roles.insert(name, HeaderRole::Passed);
        }
        for name in &spec.drop_headers {
            roles.insert(name, HeaderRole::Withheld);
            dropped.insert(name, ());
        }
        let mut read: Vec<HeaderName> = fields
            .iter()
            .filter_map(|field| field.header())
            .filter(|name| **name != header::COOKIE)
            .cloned()
            .collect();
        read.push(header::AUTHORIZATION);
        read.extend(credential.headers.iter().cloned());
        read.sort_by(|one, two| one.as_str().cmp(two.as_str()));
        read.dedup();
        Self { roles, dropped, unknown: spec.unknown_headers, read: read.into() }
    }

    /// The role of a header. The headers of a trusted proxy are part of the key; from any other
    /// peer they are unknown.
    #[must_use]
    pub fn role(&self, name: &HeaderName, peer_is_trusted: bool) -> HeaderRole {
        if let Some(role) = self.roles.get(name) {
            return *role;
        }
        let text = name.as_str();
        if text.starts_with("sec-fetch-") || text.starts_with("sec-ch-") {
            return HeaderRole::Harmless;
        }
        if peer_is_trusted && FROM_TRUSTED.contains(&text) {
            return HeaderRole::Implicit;
        }
        match self.unknown {
            UnknownHeaders::Bypass => HeaderRole::Unknown,
            UnknownHeaders::Drop => HeaderRole::Withheld,
            UnknownHeaders::Pass => HeaderRole::Passed,
        }
    }

    /// Whether the operator withholds this header by name.
    #[must_use]
    pub fn is_dropped(&self, name: &HeaderName) -> bool {
        self.dropped.contains_key(name)
    }

    /// The headers that must occur at most once and must not be named in `Connection`.
    #[must_use]
    pub fn read(&self) -> &[HeaderName] {
        &self.read
    }
}
