//! May this response be stored, and for how long (RFC 9111 3). A pure function of the request, the
//! response, their times, and the route's rules.
//!
//! Owns the order in which a response is refused; each refusal is a [`Reason`]. Knows nothing of
//! tags, tiers and bodies: other code checks whether the body is complete and what was purged
//! during the fill.

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, EXPIRES, HeaderMap, HeaderName, SET_COOKIE};

use crate::clock::Wall;
use crate::outcome::{LifetimeSource, Reason};
use crate::semantics::cache_control::CacheControl;
use crate::semantics::daily_end::DailyEnd;
use crate::semantics::freshness;
use crate::semantics::freshness::MAX_LIFETIME;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;
use crate::semantics::{revalidation, targeted_cache_control, ttl};

/// Which source decides how long a response is fresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginRule {
    /// The origin's `Cache-Control` and `Expires`; the route's `ttl` if the origin states nothing.
    #[default]
    Respect,
    /// The route's `ttl`, whatever the origin states. Without a `ttl` there is nothing to use
    /// instead, and this is [`Self::Respect`].
    Ignore,
}

impl OriginRule {
    /// The value in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Respect => "respect",
            Self::Ignore => "ignore",
        }
    }
}

/// The route's rules for storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreRules<'a> {
    /// How long a 200 is fresh by the route's rules.
    pub ttl: Option<Duration>,
    /// The same for the other statuses that the route names.
    pub status_ttls: &'a [(StatusCode, Duration)],
    /// What is taken off either.
    pub jitter: Duration,
    /// Which source decides how long a response is fresh.
    pub origin: OriginRule,
    /// `Set-Cookie` is removed, so it does not keep the response from being stored.
    pub strip_set_cookie: bool,
    /// The entry is served only to requests that may share a response to `Authorization`: the key,
    /// or the check for authorized clients, ensures it.
    pub may_share_authorized: bool,
    /// The entry is served to one client alone, so that `private` does not keep the response from
    /// being stored: for its owner this is a private cache (RFC 9111 5.2.2.7).
    pub has_owner: bool,
    /// How long the response may be served stale during a revalidation, if the origin does not say.
    pub stale_while_revalidate: Option<Duration>,
    /// How long the response may be served stale after an error, if the origin does not say.
    pub stale_if_error: Option<Duration>,
    /// How long a stale response is kept, to be revalidated or to stand in for an unreachable
    /// origin.
    pub keep_stale: Duration,
    /// The targeted fields that outrank `Cache-Control` (RFC 9213), in order of precedence.
    pub targeted: &'a [HeaderName],
    /// The time of day at which every response ends.
    pub expires_at: Option<DailyEnd>,
}

impl StoreRules<'_> {
    /// How long a response with this status is fresh by the route's rules.
    fn ttl_of(&self, status: StatusCode) -> Option<Duration> {
        let ttl = if status == StatusCode::OK {
            self.ttl
        } else {
            self.status_ttls.iter().find(|(named, _)| *named == status).map(|(_, ttl)| *ttl)
        };
        ttl.map(|ttl| ttl.saturating_sub(self.jitter))
    }

    /// Whether the route's rules name any status.
    const fn name_a_status(&self) -> bool {
        self.ttl.is_some() || !self.status_ttls.is_empty()
    }
}

/// One request to the origin and the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's headers as they were sent to the origin.
    pub request: &'a HeaderMap,
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers as the origin sent them.
    pub response: &'a HeaderMap,
    /// When the request was sent.
    pub requested: Wall,
    /// When the response's head arrived.
    pub received: Wall,
    /// The same by the clock that dates of others are compared with.
    pub dated: Wall,
}

/// How a response may be stored and used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePolicy {
    /// Its age and its freshness lifetime, which is zero if it must be revalidated before each use.
    pub times: Times,
    /// Whose word the lifetime is.
    pub lifetime_from: LifetimeSource,
    /// How it may be used once it is stale.
    pub leeway: Leeway,
    /// Which request headers it varies on.
    pub vary: VarySpec,
}

impl StorePolicy {
    /// The freshness lifetime as its source states it. A route's `ttl` counts from arrival.
    #[must_use]
    pub fn stated_lifetime(&self) -> Duration {
        let Times { lifetime, initial_age, .. } = self.times;
        match self.lifetime_from {
            LifetimeSource::Route => lifetime.saturating_sub(initial_age),
            LifetimeSource::Origin | LifetimeSource::Heuristic => lifetime,
        }
    }
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
    // Partial content is never stored in place of the whole, and a 304 is no response of its own.
    // Every other final status may be stored (RFC 9111 3).
    if matches!(exchange.status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
        || exchange.status.is_informational()
    {
        return Err(Reason::Status);
    }
    // SECURITY: a stored Set-Cookie would give one user's session to another.
    if !rules.strip_set_cookie && exchange.response.contains_key(SET_COOKIE) {
        return Err(Reason::SetCookie);
    }
    let targeted = targeted_cache_control::directives(exchange.response, rules.targeted);
    let directives = targeted.unwrap_or_else(|| CacheControl::from_headers(exchange.response));
    let (mut times, lifetime_from, mut leeway, permits_sharing) =
        if rules.origin == OriginRule::Ignore && rules.name_a_status() {
            (
                route_lifetime(rules, exchange)?,
                LifetimeSource::Route,
                stale_windows(rules, None),
                ignored_origin_permits_sharing(&directives),
            )
        } else {
            let (times, from) = origin_lifetime(rules, &directives, targeted.is_some(), exchange)?;
            let leeway = stale_windows(rules, Some(&directives));
            (times, from, leeway, origin_permits_sharing(&directives))
        };
    // SECURITY: RFC 9111 3.5. A response to one user's Authorization must not be shared unless the
    // origin allows it.
    if exchange.request.contains_key(AUTHORIZATION)
        && !rules.may_share_authorized
        && !permits_sharing
    {
        return Err(Reason::Authorization);
    }
    let vary = VarySpec::from_response(exchange.request, exchange.response)
        .map_err(|_| Reason::VaryStar)?;
    if let Some(end) = rules.expires_at {
        let on_the_way = exchange.received.since(exchange.requested);
        end.shorten((exchange.dated.before(on_the_way), exchange.dated), &mut times, &mut leeway);
    }
    let leeway = with_retention(leeway, rules, &times, exchange);
    if !times.is_fresh(exchange.received) && leeway.keep.is_zero() {
        return Err(if times.lifetime.is_zero() {
            why_unusable(rules, &directives, targeted.is_some(), exchange)
        } else {
            Reason::StaleOnArrival
        });
    }
    Ok(StorePolicy { times, lifetime_from, leeway, vary })
}

/// `origin = "ignore"`: fresh for the route's `ttl`, counted from arrival.
fn route_lifetime(rules: &StoreRules<'_>, exchange: &Exchange<'_>) -> Result<Times, Reason> {
    let ttl = rules.ttl_of(exchange.status).ok_or(Reason::Status)?;
    Ok(Times {
        received: exchange.received,
        initial_age: Duration::ZERO,
        lifetime: ttl.min(MAX_LIFETIME),
    })
}

/// `origin = "respect"`: the lifetime that the origin states, or the route's `ttl` for a status
/// that it names, or a heuristic lifetime if the route names none.
fn origin_lifetime(
    rules: &StoreRules<'_>,
    directives: &CacheControl,
    targeted: bool,
    exchange: &Exchange<'_>,
) -> Result<(Times, LifetimeSource), Reason> {
    // RFC 9111 5.2.2.3: with `must-understand`, a cache that does not know the status must not
    // store the response; a cache that does ignores `no-store`.
    if directives.must_understand && !ttl::is_understood(exchange.status) {
        return Err(Reason::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Reason::NoStore);
    }
    if directives.private && !rules.has_owner {
        return Err(Reason::Private);
    }
    let initial_age = freshness::initial_age(
        exchange.response,
        exchange.requested,
        exchange.received,
        exchange.dated,
    );
    // RFC 9213 2.1: Expires is ignored if a targeted field applies.
    let stated = if targeted {
        freshness::stated(directives)
    } else {
        freshness::lifetime(directives, exchange.response, exchange.dated)
    };
    let by_route = rules.ttl_of(exchange.status);
    // RFC 9111 3: a response that states no lifetime is stored only if its status, or `public`,
    // allows it; or if the operator has named its status.
    let may_be_stored = stated.is_some()
        || directives.public
        || by_route.is_some()
        || freshness::is_heuristically_cacheable(exchange.status);
    let (lifetime, from) = match (stated, by_route) {
        _ if !may_be_stored => return Err(Reason::Status),
        (None, None) if rules.name_a_status() => return Err(Reason::Status),
        // RFC 9111 5.2.2.4: to be revalidated at each use, whatever its lifetime.
        _ if directives.no_cache => (Duration::ZERO, LifetimeSource::Origin),
        (Some(stated), _) => (stated, LifetimeSource::Origin),
        // The route's `ttl` counts from arrival, so that an origin with a slow clock does not
        // shorten it.
        (None, Some(ttl)) => {
            (initial_age.saturating_add(ttl.min(MAX_LIFETIME)), LifetimeSource::Route)
        }
        (None, None) => {
            let estimated = freshness::heuristic(
                exchange.status,
                directives,
                exchange.response,
                exchange.dated,
            );
            (estimated.unwrap_or_default(), LifetimeSource::Heuristic)
        }
    };
    Ok((Times { received: exchange.received, initial_age, lifetime }, from))
}

/// How long the response may be served stale. Without `directives`, only the route's rules count.
fn stale_windows(rules: &StoreRules<'_>, directives: Option<&CacheControl>) -> Leeway {
    let forbidden = directives.is_some_and(|directives| {
        directives.must_revalidate
            || directives.proxy_revalidate
            || directives.no_cache
            || directives.s_maxage.is_some()
    });
    if forbidden {
        // RFC 9111 4.2.4, 5.2.2.2, 5.2.2.8, 5.2.2.10.
        return Leeway::default();
    }
    let while_revalidate = directives
        .and_then(|directives| directives.stale_while_revalidate)
        .or(rules.stale_while_revalidate);
    let if_error =
        directives.and_then(|directives| directives.stale_if_error).or(rules.stale_if_error);
    Leeway {
        while_revalidate: while_revalidate.unwrap_or_default().min(MAX_LIFETIME),
        if_error: if_error.unwrap_or_default().min(MAX_LIFETIME),
        unreachable: if_error.unwrap_or(rules.keep_stale).min(MAX_LIFETIME),
        keep: Duration::ZERO,
    }
}

/// Adds how long a stale response is kept: for all its windows and, if the origin can revalidate
/// it, for revalidation.
fn with_retention(
    mut leeway: Leeway,
    rules: &StoreRules<'_>,
    times: &Times,
    exchange: &Exchange<'_>,
) -> Leeway {
    let stale_for = times.age(exchange.received).saturating_sub(times.lifetime);
    let can_be_revalidated = exchange.status == StatusCode::OK
        && revalidation::has_validator(exchange.response)
        && !rules.keep_stale.is_zero();
    let has_windows = !leeway.while_revalidate.is_zero() || !leeway.if_error.is_zero();
    if !times.is_fresh(exchange.received) && !can_be_revalidated && !has_windows {
        // RFC 9111 4: a response with neither a lifetime nor a validator is not reused. It is not
        // stored only to stand in for an unreachable origin.
        return Leeway::default();
    }
    let for_revalidation = if can_be_revalidated {
        stale_for.saturating_add(rules.keep_stale)
    } else {
        Duration::ZERO
    };
    leeway.keep = leeway
        .while_revalidate
        .max(leeway.if_error)
        .max(leeway.unreachable)
        .max(for_revalidation)
        .min(MAX_LIFETIME);
    // A response that is already staler than its longest window would be dropped at once.
    if stale_for.is_zero() || leeway.keep > stale_for { leeway } else { Leeway::default() }
}

/// Why a response with neither a lifetime nor a validator cannot be used.
fn why_unusable(
    rules: &StoreRules<'_>,
    directives: &CacheControl,
    targeted: bool,
    exchange: &Exchange<'_>,
) -> Reason {
    let expires = !targeted && exchange.response.contains_key(EXPIRES);
    match freshness::stated(directives) {
        _ if directives.no_cache => Reason::NoCache,
        None if !expires && !rules.name_a_status() => Reason::NoFreshness,
        _ => Reason::StaleOnArrival,
    }
}

/// Whether the origin lets a shared cache store a response to `Authorization` (RFC 9111 3.5).
const fn origin_permits_sharing(directives: &CacheControl) -> bool {
    directives.public || directives.s_maxage.is_some() || directives.must_revalidate
}

/// The same with `origin = "ignore"`. Some frameworks send `no-store, must-revalidate` to forbid
/// caching, not to permit sharing, and a cache that ignores lifetimes does not revalidate either:
/// only an explicit permission counts.
fn ignored_origin_permits_sharing(directives: &CacheControl) -> bool {
    let restricted = directives.no_store || directives.no_cache || directives.private;
    !restricted
        && (directives.public || directives.s_maxage.is_some_and(|lifetime| !lifetime.is_zero()))
}

#[cfg(test)]
mod tests;
