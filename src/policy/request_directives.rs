//! The client's Cache-Control directives, as they apply to a stored response. They only narrow what
//! is served (RFC 9111 5.2.1); `max-stale` is ignored.
//!
//! Pure: the flow and `explain` both decide by it. Must not know what is stored.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::route::{ClientCacheControl, Route};
use crate::semantics::cache_control::CacheControl;
use crate::semantics::times::Times;

/// The client's Cache-Control directives, as they apply to a stored response.
#[derive(Debug, Default)]
pub struct RequestDirectives {
    /// The cache takes no part in the request, for this reason.
    pub bypass: Option<Reason>,
    /// The client wants a stored response or none.
    pub only_if_cached: bool,
    /// The client accepts no older response.
    pub max_age: Option<Duration>,
    /// The response must stay fresh for so long. `no-cache` is the longest time there is: nothing is
    /// fresh enough.
    pub min_fresh: Option<Duration>,
}

impl RequestDirectives {
    /// The directives of a request. There are none where the route ignores them.
    #[must_use]
    pub fn new(route: &Route, headers: &HeaderMap) -> Self {
        if route.spec.client_cache_control == ClientCacheControl::Ignore {
            return Self::default();
        }
        if !headers.contains_key(CACHE_CONTROL) {
            // `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 5.4).
            let pragma = headers
                .get(PRAGMA)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no-cache"));
            return if pragma {
                Self { min_fresh: Some(Duration::MAX), ..Self::default() }
            } else {
                Self::default()
            };
        }
        let directives = CacheControl::from_headers(headers);
        Self {
            bypass: directives.no_store.then_some(Reason::RequestNoStore),
            max_age: directives.max_age,
            min_fresh: if directives.no_cache { Some(Duration::MAX) } else { directives.min_fresh },
            only_if_cached: directives.only_if_cached,
        }
    }

    /// Whether a fresh response with these times is new enough, and fresh for long enough.
    #[must_use]
    pub fn accepts(&self, times: &Times, now: Wall) -> bool {
        let too_old = self.max_age.is_some_and(|most| times.age(now) > most);
        let soon_stale = self.min_fresh.is_some_and(|least| {
            times.ttl_ms(now) < i64::try_from(least.as_millis()).unwrap_or(i64::MAX)
        });
        !too_old && !soon_stale
    }

    /// Whether no stored response is accepted without being revalidated: `no-cache` and
    /// `max-age=0`.
    #[must_use]
    pub fn needs_revalidation(&self) -> bool {
        self.max_age == Some(Duration::ZERO) || self.min_fresh == Some(Duration::MAX)
    }

    /// Whether a stale response may be served: the client has not restricted age or freshness (RFC
    /// 9111 5.2.1.1, 5.2.1.3, 5.2.1.4).
    #[must_use]
    pub const fn allows_stale(&self) -> bool {
        self.max_age.is_none() && self.min_fresh.is_none()
    }
}
