//! What becomes of each request header on a route: *what the app may see, the key has seen*.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};

use crate::policy::credential::CredentialRule;
use crate::policy::field::Field;
use crate::policy::route::{RouteSpec, UnknownHeaders};
use crate::policy::scope::Scope;

/// A header's part in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRole {
    /// The app gets it, and it changes nothing, or the app says so in `Vary`.
    Harmless,
    /// In the key by a field; the app gets it.
    Keyed,
    /// In the key by itself: apps answer differently to it and do not always say so.
    Implicit,
    /// Identifies the caller: in the key by its hash, subject to admission, or withheld, as the
    /// scope has it.
    Credential,
    /// The cookies that the key names; the others are withheld.
    KeyedCookies,
    /// For caches rather than apps (conditions, `Cache-Control`): withheld on a fill.
    Withheld,
    /// The operator lets it through.
    Passed,
    /// No key has seen it.
    Unknown,
}

/// Headers that change nothing in a response, or only what the app then names in `Vary` (content
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
    // Framing and hop-by-hop: never reach the app as they are (RFC 9110 7.6.1).
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "content-length",
    "te",
    "trailer",
    "transfer-encoding",
    "expect",
    // Rewritten on the way.
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

/// Headers that are always part of the key when they come.
pub(crate) const IMPLICIT: &[&str] = &["accept", "origin", "x-requested-with", "content-type"];

/// What a trusted proxy says of the original request: apps build links and redirects from it.
pub(crate) const FROM_TRUSTED: &[&str] = &[
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
];

/// Headers that caches act on; a condition or range on a fill would fetch something else than the
/// whole response.
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

/// The roles of all headers on one route.
#[derive(Debug)]
pub struct HeaderRules {
    roles: HeaderMap<HeaderRole>,
    dropped: HeaderMap<()>,
    unknown: UnknownHeaders,
    /// Headers that fields of the route read: doubled, or named in `Connection`, they make the
    /// request a 400.
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
        // With a chosen identity, what else identifies the caller is a header like any other:
        // unkeyed unless the operator says otherwise.
        let automatic = if chosen_identity && spec.scope != Scope::Public {
            HeaderRole::Unknown
        } else {
            HeaderRole::Credential
        };
        for name in [&header::AUTHORIZATION, &header::COOKIE].into_iter().chain(&credential.headers)
        {
            roles.insert(name, automatic);
        }
        // SECURITY: in scope `public` the app sees no credential, whatever reads it.
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

    /// The part that a header plays. What a trusted proxy says is keyed; from anybody else it is
    /// unknown.
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

    /// The headers that must come once and must not be named in `Connection`.
    #[must_use]
    pub fn read(&self) -> &[HeaderName] {
        &self.read
    }
}
