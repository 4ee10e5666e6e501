//! May this response be stored, and for how long (RFC 9111 3). A pure question: what was asked,
//! what came, when, and the route's rules.
//!
//! Owns the order in which a response is refused; each refusal is a [`ApiReason`]. Knows nothing of
//! tags, tiers and bodies: whether the body is whole and what was purged meanwhile is found out
//! elsewhere.

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, EXPIRES, HeaderMap, HeaderName, SET_COOKIE};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::freshness;
use crate::semantics::freshness::MAX_LIFETIME;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;
use crate::semantics::{revalidation, targeted_cache_control};

/// Whose word on freshness counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginRule {
    /// The app's `Cache-Control` and `Expires`; the route's `ttl` where the app says nothing.
    #[default]
    Respect,
    /// The route's `ttl`, whatever the app says. Without a `ttl` there is nothing to put in its
    /// place, and this is [`Self::Respect`].
    Ignore,
}

impl OriginRule {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Respect => "respect",
            Self::Ignore => "ignore",
        }
    }
}

/// What the route says about storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreRules<'a> {
    /// How long a response is fresh by the route.
    pub ttl: Option<Duration>,
    /// Whose word on freshness counts.
    pub origin: OriginRule,
    /// `Set-Cookie` is taken off, and so does not keep the response out.
    pub strip_set_cookie: bool,
    /// The entry goes only to requests that may share a response to `Authorization`: the key or the
    /// admission sees to it.
    pub may_share_authorized: bool,
    /// How long it may be served stale while it is fetched anew, where the app does not say.
    pub stale_while_revalidate: Option<Duration>,
    /// How long it may be served stale when that fails, where the app does not say.
    pub stale_if_error: Option<Duration>,
    /// How long what is stale is kept, to be confirmed by the app or to stand in for it.
    pub keep_stale: Duration,
    /// The targeted fields that outrank `Cache-Control` (RFC 9213), the first one first.
    pub targeted: &'a [HeaderName],
}

/// One request to the app and the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's headers as they were sent to the app.
    pub request: &'a HeaderMap,
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers as they came from the app.
    pub response: &'a HeaderMap,
    /// When the request was sent.
    pub requested: Wall,
    /// When the response's head arrived.
    pub received: Wall,
}

/// A response that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePolicy {
    /// How old it is and how long it is fresh. Not at all, if it has to be confirmed by the app at
    /// each use.
    pub times: Times,
    /// What it may be used for when it is no longer fresh.
    pub leeway: Leeway,
    /// Which request headers it varies on.
    pub vary: VarySpec,
}

/// Decides whether a response may be stored.
///
/// # Errors
/// The first reason that forbids it.
pub fn store_policy(
    rules: &StoreRules<'_>,
    exchange: &Exchange<'_>,
) -> Result<StorePolicy, Reason> {
    // RFC 9111 5.2.1.5.
    if CacheControl::from_headers(exchange.request).no_store {
        return Err(Reason::RequestNoStore);
    }
    // Parts are never stored as the whole, and a 304 is none of its own. Everything else that is
    // final may be stored (RFC 9111 3).
    if matches!(exchange.status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
        || exchange.status.is_informational()
    {
        return Err(Reason::Status);
    }
    // SECURITY: a stored Set-Cookie would hand one user's session to the next.
    if !rules.strip_set_cookie && exchange.response.contains_key(SET_COOKIE) {
        return Err(Reason::SetCookie);
    }
    let targeted = targeted_cache_control::directives(exchange.response, rules.targeted);
    let directives = targeted.unwrap_or_else(|| CacheControl::from_headers(exchange.response));
    let (times, leeway, permits_sharing) =
        if let (OriginRule::Ignore, Some(ttl)) = (rules.origin, rules.ttl) {
            (
                route_lifetime(ttl, exchange)?,
                stale_windows(rules, None),
                ignored_origin_permits_sharing(&directives),
            )
        } else {
            let times = origin_lifetime(rules, &directives, targeted.is_some(), exchange)?;
            (times, stale_windows(rules, Some(&directives)), origin_permits_sharing(&directives))
        };
    // SECURITY: RFC 9111 3.5. The answer to one user's Authorization is not for others unless the
    // app says so.
    if exchange.request.contains_key(AUTHORIZATION)
        && !rules.may_share_authorized
        && !permits_sharing
    {
        return Err(Reason::Authorization);
    }
    let vary = VarySpec::from_response(exchange.request, exchange.response)
        .map_err(|_| Reason::VaryStar)?;
    let leeway = with_retention(leeway, rules, &times, exchange);
    if !times.is_fresh(exchange.received) && leeway.keep.is_zero() {
        return Err(if times.lifetime.is_zero() {
            why_unusable(rules, &directives, targeted.is_some(), exchange)
        } else {
            Reason::StaleOnArrival
        });
    }
    Ok(StorePolicy { times, leeway, vary })
}

/// `origin = "ignore"`: fresh for the route's `ttl`, from the moment of arrival.
fn route_lifetime(ttl: Duration, exchange: &Exchange<'_>) -> Result<Times, Reason> {
    if exchange.status != StatusCode::OK {
        return Err(Reason::Status);
    }
    Ok(Times {
        received: exchange.received,
        initial_age: Duration::ZERO,
        lifetime: ttl.min(MAX_LIFETIME),
    })
}

/// `origin = "respect"`: what the app says, the route's `ttl` for a 200 of which it says nothing,
/// and a guess where there is no `ttl`.
fn origin_lifetime(
    rules: &StoreRules<'_>,
    directives: &CacheControl,
    targeted: bool,
    exchange: &Exchange<'_>,
) -> Result<Times, Reason> {
    // RFC 9111 5.2.2.3: `must-understand` forbids a cache that does not know the status, and takes
    // the place of `no-store` in one that does.
    if directives.must_understand && !is_understood(exchange.status) {
        return Err(Reason::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Reason::NoStore);
    }
    if directives.private {
        return Err(Reason::Private);
    }
    let initial_age =
        freshness::initial_age(exchange.response, exchange.requested, exchange.received);
    // RFC 9213 2.1: where a targeted field counts, Expires does not.
    let stated = if targeted {
        freshness::stated(directives)
    } else {
        freshness::lifetime(directives, exchange.response, exchange.received)
    };
    // RFC 9111 3: without a freshness of its own a response is stored only if its status, or
    // `public`, allows it.
    let may_be_stored = stated.is_some()
        || directives.public
        || freshness::is_heuristically_cacheable(exchange.status);
    let lifetime = match (stated, rules.ttl) {
        _ if !may_be_stored => return Err(Reason::Status),
        (None, Some(_)) if exchange.status != StatusCode::OK => return Err(Reason::Status),
        // RFC 9111 5.2.2.4: to be confirmed at each use, whatever its freshness.
        _ if directives.no_cache => Duration::ZERO,
        (Some(stated), _) => stated,
        // The route's time counts from arrival: an app's slow clock must not eat it up.
        (None, Some(ttl)) => initial_age.saturating_add(ttl.min(MAX_LIFETIME)),
        (None, None) => {
            freshness::heuristic(exchange.status, directives, exchange.response, exchange.received)
                .unwrap_or_default()
        }
    };
    Ok(Times { received: exchange.received, initial_age, lifetime })
}

/// The statuses whose rules of caching this cache knows and holds to.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 451 | 501
    )
}

/// How long the response may be served stale. Without `directives` the route's word alone counts.
fn stale_windows(rules: &StoreRules<'_>, directives: Option<&CacheControl>) -> Leeway {
    let forbidden = directives.is_some_and(|said| {
        said.must_revalidate || said.proxy_revalidate || said.no_cache || said.s_maxage.is_some()
    });
    if forbidden {
        // RFC 9111 4.2.4, 5.2.2.2, 5.2.2.8, 5.2.2.10.
        return Leeway::default();
    }
    let while_revalidate =
        directives.and_then(|said| said.stale_while_revalidate).or(rules.stale_while_revalidate);
    let if_error = directives.and_then(|said| said.stale_if_error).or(rules.stale_if_error);
    Leeway {
        while_revalidate: while_revalidate.unwrap_or_default().min(MAX_LIFETIME),
        if_error: if_error.unwrap_or_default().min(MAX_LIFETIME),
        unreachable: if_error.unwrap_or(rules.keep_stale).min(MAX_LIFETIME),
        keep: Duration::ZERO,
    }
}

/// How long the response is kept when it is stale: for its windows, and, if the app can confirm it,
/// to be confirmed.
fn with_retention(
    mut leeway: Leeway,
    rules: &StoreRules<'_>,
    times: &Times,
    exchange: &Exchange<'_>,
) -> Leeway {
    let stale_for = times.age(exchange.received).saturating_sub(times.lifetime);
    let confirmable = exchange.status == StatusCode::OK
        && revalidation::has_validator(exchange.response)
        && !rules.keep_stale.is_zero();
    let asked_for = !leeway.while_revalidate.is_zero() || !leeway.if_error.is_zero();
    if !times.is_fresh(exchange.received) && !confirmable && !asked_for {
        // RFC 9111 4: nothing is reused without a freshness or a validator. Only to stand in for
        // the app some day it is not stored.
        return Leeway::default();
    }
    let to_be_confirmed =
        if confirmable { stale_for.saturating_add(rules.keep_stale) } else { Duration::ZERO };
    leeway.keep = leeway
        .while_revalidate
        .max(leeway.if_error)
        .max(leeway.unreachable)
        .max(to_be_confirmed)
        .min(MAX_LIFETIME);
    // Stale for longer than all of its windows, it would be dropped at once.
    if stale_for.is_zero() || leeway.keep > stale_for { leeway } else { Leeway::default() }
}

/// Why a response without any freshness, and without a validator, is of no use.
fn why_unusable(
    rules: &StoreRules<'_>,
    directives: &CacheControl,
    targeted: bool,
    exchange: &Exchange<'_>,
) -> Reason {
    let expires = !targeted && exchange.response.contains_key(EXPIRES);
    match freshness::stated(directives) {
        _ if directives.no_cache => Reason::NoCache,
        None if !expires && rules.ttl.is_none() => Reason::NoFreshness,
        _ => Reason::StaleOnArrival,
    }
}

/// Whether the app allows a shared cache to store the answer to an `Authorization` (RFC 9111 3.5).
const fn origin_permits_sharing(directives: &CacheControl) -> bool {
    directives.public || directives.s_maxage.is_some() || directives.must_revalidate
}

/// The same where the app's word on freshness is ignored. `no-store, must-revalidate` and its like
/// come from frameworks that mean the opposite of a permission, and a cache that ignores lifetimes
/// does not revalidate either: only a plain permission counts.
fn ignored_origin_permits_sharing(directives: &CacheControl) -> bool {
    let restricted = directives.no_store || directives.no_cache || directives.private;
    !restricted
        && (directives.public || directives.s_maxage.is_some_and(|lifetime| !lifetime.is_zero()))
}

#[cfg(test)]
mod tests;
