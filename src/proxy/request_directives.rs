//! What the client's own `Cache-Control` asks for. It can only narrow what is served (RFC 9111
//! 5.2.1); `max-stale` is ignored.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::route::{ClientCacheControl, Route};
use crate::semantics::cache_control::CacheControl;
use crate::semantics::times::Times;

/// What a client wants of a stored response.
#[derive(Debug, Default)]
pub(super) struct RequestDirectives {
    /// The cache is to take no part, for this reason.
    pub(super) bypass: Option<Reason>,
    /// A stored response or none.
    pub(super) only_if_cached: bool,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
}

impl RequestDirectives {
    pub(super) fn new(route: &Route, headers: &HeaderMap) -> Self {
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
        let wish = CacheControl::from_headers(headers);
        Self {
            bypass: wish.no_store.then_some(Reason::RequestNoStore),
            max_age: wish.max_age,
            min_fresh: if wish.no_cache { Some(Duration::MAX) } else { wish.min_fresh },
            only_if_cached: wish.only_if_cached,
        }
    }

    /// Whether a fresh response is fresh enough.
    pub(super) fn accepts(&self, times: &Times, now: Wall) -> bool {
        let old = self.max_age.is_some_and(|most| times.age(now) > most);
        let soon_stale = self.min_fresh.is_some_and(|least| {
            times.ttl_ms(now) < i64::try_from(least.as_millis()).unwrap_or(i64::MAX)
        });
        !old && !soon_stale
    }

    /// Whether the client can do with a stale response: it asks for nothing of its own (RFC 9111
    /// 5.2.1.1, 5.2.1.3, 5.2.1.4).
    pub(super) const fn allows_stale(&self) -> bool {
        self.max_age.is_none() && self.min_fresh.is_none()
    }
}
