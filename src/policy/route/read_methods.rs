//! The methods of a route's reads. Besides GET, a route may answer requests with a body, if the
//! operator states that they change nothing.

use http::Method;
use http::header::HeaderName;

use crate::policy::field::{Field, FieldSource};
use crate::policy::known_headers::{self, FORGERY_TOKENS};
use crate::policy::route::{Route, RouteSpec, Routes};

/// The name in `key` of the whole body.
pub const WHOLE_BODY: &str = "body";

/// The methods that a route may answer besides GET and HEAD, by `read_only = true`. Of the safe
/// ones among them the same holds as of POST: their answers depend on their bodies.
pub const BODY_METHODS: [&str; 5] = ["POST", "QUERY", "PROPFIND", "REPORT", "SEARCH"];

/// The methods of a route's reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMethods {
    /// Whether GET and HEAD are among them.
    pub get: bool,
    /// Those whose body is in the key, each of [`BODY_METHODS`].
    pub with_body: Box<[Method]>,
}

impl Default for ReadMethods {
    fn default() -> Self {
        Self { get: true, with_body: Box::default() }
    }
}

impl ReadMethods {
    /// The headers that prove who asks on such a route, besides those of `[credential]`.
    ///
    /// SECURITY: an app that checks the anti-forgery token of a POST answers by it.
    #[must_use]
    pub fn credential_headers(&self) -> Box<[HeaderName]> {
        if self.with_body.is_empty() {
            return Box::default();
        }
        known_headers::names(FORGERY_TOKENS).map(HeaderName::from_static).collect()
    }
}

impl RouteSpec {
    /// Whether the body of requests with this method is in its key.
    #[must_use]
    pub fn keys_body_of(&self, method: &Method) -> bool {
        self.methods.with_body.contains(method)
    }
}

impl Route {
    /// The members of the body that tell its entries apart, as JSON pointers; the empty one is the
    /// whole body.
    pub fn body_pointers(&self) -> impl Iterator<Item = (&Field, &str)> {
        self.fields.iter().filter_map(|field| match &field.source {
            FieldSource::Body(pointer) => Some((&**field, &**pointer)),
            _ => None,
        })
    }
}

impl Routes {
    /// Whether a route answers requests with a body. Costs nothing on reads: it is asked of others.
    #[must_use]
    pub fn key_bodies(&self) -> bool {
        self.iter().any(|route| !route.spec.methods.with_body.is_empty())
    }
}
