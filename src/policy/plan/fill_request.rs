//! The request of a fill: what the origin receives.
//!
//! Invariant: the bytes are a function of the [`CanonicalRequest`], which the key is made of, of
//! the rules, and of constants. This file sees nothing else of the client's request; what a client
//! sends beside its canonical parts cannot reach the origin.

use std::borrow::Cow;

use http::Uri;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT, VIA,
};

use crate::policy::fill_constants::{FILL_ADDRESS, FillConstants};
use crate::policy::plan::canonical::{CanonicalRequest, FillUserAgent};
use crate::policy::plan::lookup::Lookup;
use crate::policy::route::Route;
use crate::semantics::forward::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP,
};
use crate::semantics::{forward, negotiation};

/// The header with the id of a request.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request of a fill, apart from its method and its validators.
#[derive(Clone, Debug)]
pub struct FillHead {
    /// The target, in origin form.
    pub target: Uri,
    /// The headers, in the order in which they are sent.
    pub headers: HeaderMap,
}

impl Lookup<'_> {
    /// The request of a fill. `id` identifies it for the origin's log.
    #[must_use]
    pub fn fill_request(&self, id: HeaderValue) -> FillHead {
        fill_head(&self.canonical(), self.route, &self.app().fill, id)
    }
}

fn fill_head(
    canonical: &CanonicalRequest<'_>,
    route: &Route,
    constants: &FillConstants,
    id: HeaderValue,
) -> FillHead {
    let mut head = HeadWriter { headers: HeaderMap::with_capacity(24), route };
    let host = value(canonical.host.as_bytes());
    head.insert(&HOST, constants.host.clone().or_else(|| host.clone()));
    let parts = &canonical.headers;
    let is_sent =
        |name: &HeaderName| *name != FORWARDED && !(route.asks_plain && *name == ACCEPT_ENCODING);
    for (name, sent) in parts.implicit.iter().filter(|(name, _)| is_sent(name)) {
        head.append(name, on_the_wire(name, sent));
    }
    for (name, sent) in &parts.fields {
        head.insert(name, value(sent.as_bytes().trim_ascii()));
    }
    for (name, sent) in parts.credentials.iter().chain(&parts.passed) {
        head.append(name, Some((*sent).clone()));
    }
    head.insert(&COOKIE, canonical.cookies.on_the_wire().and_then(|cookie| value(&cookie)));

    match parts.user_agent {
        FillUserAgent::Constant => {
            head.add_default(&USER_AGENT, Some(constants.user_agent.clone()));
        }
        FillUserAgent::Own(agent) => head.insert(&USER_AGENT, Some(agent.clone())),
    }
    for name in [&ACCEPT, &ACCEPT_ENCODING] {
        let default = negotiation::default_on_the_wire(name);
        head.add_default(name, default.map(HeaderValue::from_static));
    }
    head.add_default(&X_REQUEST_ID, Some(id));
    add_forwarding(&mut head, canonical, host);
    if constants.via {
        head.headers.insert(VIA, HeaderValue::from_static("1.1 sidecache"));
    }
    FillHead { target: target(canonical), headers: head.headers }
}

/// What the origin is told of the client: its address only if the key has it, and the authority and
/// protocol that it asked for.
fn add_forwarding(
    head: &mut HeadWriter<'_>,
    canonical: &CanonicalRequest<'_>,
    host: Option<HeaderValue>,
) {
    let address = canonical.address.as_deref().unwrap_or(FILL_ADDRESS.as_bytes());
    // What a trusted proxy says of the host and the protocol is in the key.
    head.add_default(&X_FORWARDED_PROTO, Some(HeaderValue::from_static("http")));
    head.add_default(&X_FORWARDED_HOST, host);
    let implicit = canonical.headers.implicit.iter();
    let stated = implicit.filter(|(name, _)| **name == FORWARDED).map(|(_, stated)| stated).next();
    let original = stated.map_or_else(|| head.original_request(), |stated| stated.to_vec());
    // RFC 7239 6: an address in version 6 stands in brackets and quotes.
    let shown =
        if address.contains(&b':') { [b"\"[", address, b"]\""].concat() } else { address.to_vec() };
    let forwarded = [b"for=", &*shown, b";", &*original].concat();
    head.add_constant(&X_FORWARDED_FOR, value(address));
    head.add_constant(&X_REAL_IP, value(address));
    head.add_constant(&FORWARDED, value(&forwarded));
}

/// The headers of a fill while they are put together.
struct HeadWriter<'a> {
    headers: HeaderMap,
    route: &'a Route,
}

impl HeadWriter<'_> {
    fn insert(&mut self, name: &HeaderName, value: Option<HeaderValue>) {
        if let Some(value) = value {
            self.headers.insert(name, value);
        }
    }

    fn append(&mut self, name: &HeaderName, value: Option<HeaderValue>) {
        if let Some(value) = value {
            self.headers.append(name, value);
        }
    }

    /// A header that the origin expects, unless the request has it or the operator drops it.
    fn add_default(&mut self, name: &HeaderName, value: Option<HeaderValue>) {
        if !self.headers.contains_key(name) && !self.route.headers.is_dropped(name) {
            self.insert(name, value);
        }
    }

    /// A header that is never absent, since the origin would take the sidecar's own address for the
    /// client's.
    fn add_constant(&mut self, name: &HeaderName, value: Option<HeaderValue>) {
        if !self.headers.contains_key(name) {
            self.insert(name, value);
        }
    }

    /// The host and the protocol that `X-Forwarded-*` state, as `Forwarded` says it.
    fn original_request(&self) -> Vec<u8> {
        let first = |name: &HeaderName| {
            let value = self.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
            let first = value.split(|&byte| byte == b',').next().unwrap_or_default();
            String::from_utf8_lossy(first.trim_ascii()).into_owned()
        };
        let port = first(&X_FORWARDED_PORT);
        forward::original_pairs(&first(&X_FORWARDED_HOST), &port, &first(&X_FORWARDED_PROTO))
            .into_bytes()
    }
}

fn on_the_wire(name: &HeaderName, keyed: &[u8]) -> Option<HeaderValue> {
    let negotiated = negotiation::is_negotiated(name).then(|| str::from_utf8(keyed).ok()).flatten();
    match negotiated.map(|keyed| negotiation::on_the_wire(name, keyed)) {
        Some(Cow::Owned(text)) => HeaderValue::try_from(text).ok(),
        Some(Cow::Borrowed(text)) => HeaderValue::from_str(text).ok(),
        None => value(keyed),
    }
}

/// The bytes come from values that were parsed before, so this does not fail.
fn value(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}

fn target(canonical: &CanonicalRequest<'_>) -> Uri {
    let target = match &canonical.query {
        Some(query) => Uri::try_from(format!("{}?{query}", canonical.path)),
        None => Uri::try_from(canonical.path),
    };
    // It consists of parts of a target that parsed before, so this does not fail.
    target.unwrap_or_default()
}
