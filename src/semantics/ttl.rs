//! The `ttl` of a route: how long responses are fresh where the origin does not say, by status.

use std::time::Duration;

use http::StatusCode;

/// How long responses are fresh where the origin does not say. Most routes name only 200.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtlRule {
    /// Of a 200.
    pub ok: Option<Duration>,
    /// Of the other statuses that the route names, each once, in their order.
    pub others: Box<[(StatusCode, Duration)]>,
}

impl TtlRule {
    /// Of each status that the route names.
    pub fn iter(&self) -> impl Iterator<Item = (StatusCode, Duration)> {
        let ok = self.ok.map(|ttl| (StatusCode::OK, ttl));
        ok.into_iter().chain(self.others.iter().copied())
    }

    /// Whether the route names no status, so that the origin alone decides.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ok.is_none() && self.others.is_empty()
    }

    /// The longest of them.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.iter().map(|(_, ttl)| ttl).max()
    }

    /// That of a 200, where the route names no other status: what one duration can say.
    #[must_use]
    pub fn plain(&self) -> Option<Duration> {
        self.ok.filter(|_| self.others.is_empty())
    }
}

/// The statuses whose caching rules this cache implements. A route may name these: they say
/// something of the resource. That an origin fails, or refuses a caller, does not.
#[must_use]
pub fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 451 | 501
    )
}
