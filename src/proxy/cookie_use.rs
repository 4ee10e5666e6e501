//! Which cookies of `[credential]` requests have carried: a name that no request carries is
//! probably misspelt, and then every caller counts as a stranger.
//!
//! Observes all requests but fast hits, which must not pay for it: whoever sends a cookie sends it
//! with some request that misses, is passed, or writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::header::{COOKIE, HeaderMap};

use crate::policy::cookie_header;
use crate::policy::credential::CredentialRule;
use crate::policy::glob::Glob;

/// How many requests with cookies must have come before an absent cookie says anything.
const MIN_REQUESTS: u64 = 100;

/// Counts which cookies of `[credential]` requests have carried, under one configuration.
#[derive(Debug, Default)]
pub struct CookieUse {
    /// The cookies of `[credential]`, and whether a request has carried each.
    cookies: Box<[(Glob, AtomicBool)]>,
    /// Whether all of them have been carried.
    complete: AtomicBool,
    /// How many requests with cookies have been observed before that.
    requests: AtomicU64,
}

impl CookieUse {
    /// For the cookies of a rule, none of which has been carried yet.
    #[must_use]
    pub fn new(rule: &CredentialRule) -> Self {
        let cookies = rule.cookies.iter().flatten();
        let cookies: Box<[_]> =
            cookies.map(|glob| (glob.clone(), AtomicBool::new(false))).collect();
        let complete = AtomicBool::new(cookies.is_empty());
        Self { cookies, complete, requests: AtomicU64::new(0) }
    }

    /// Observes a request.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        if self.complete.load(Ordering::Relaxed) || !headers.contains_key(COOKIE) {
            return;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        for (name, _) in cookie_header::cookies(headers) {
            for (_, seen) in self.cookies.iter().filter(|(glob, _)| glob.matches(name)) {
                seen.store(true, Ordering::Relaxed);
            }
        }
        if self.cookies.iter().all(|(_, seen)| seen.load(Ordering::Relaxed)) {
            self.complete.store(true, Ordering::Relaxed);
        }
    }

    /// The cookies that no request has carried, once enough requests had cookies.
    #[must_use]
    pub fn unseen(&self) -> Vec<&str> {
        if self.requests() < MIN_REQUESTS {
            return Vec::new();
        }
        let unseen = self.cookies.iter().filter(|(_, seen)| !seen.load(Ordering::Relaxed));
        unseen.map(|(glob, _)| glob.as_str()).collect()
    }

    /// How many requests with cookies have been observed; no longer counted once all cookies have
    /// been seen.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn observed(cookies: &[&str], lines: &[&'static str], times: u64) -> CookieUse {
        let cookies = cookies.iter().copied().map(Glob::new).collect();
        let rule = CredentialRule { cookies: Some(cookies), ..CredentialRule::default() };
        let tracked = CookieUse::new(&rule);
        for _ in 0..times {
            for line in lines {
                let headers = [(COOKIE, HeaderValue::from_static(line))].into_iter().collect();
                tracked.observe(&headers);
            }
        }
        tracked
    }

    #[test]
    fn a_cookie_that_no_request_carries_is_told_after_enough_requests() {
        let names = ["sid", "wordpress_logged_in_*", "sessoin"];
        let lines = ["a=1; sid=x", "wordpress_logged_in_0a=y"];
        assert_eq!(observed(&names, &lines, 49).unseen(), Vec::<&str>::new());
        assert_eq!(observed(&names, &lines, 50).unseen(), ["sessoin"]);
        assert_eq!(observed(&names, &["a=1"], 100).unseen(), names);
        assert_eq!(observed(&names, &["sessoin=1", lines[0], lines[1]], 100).unseen().len(), 0);
    }

    #[test]
    fn requests_are_not_counted_where_there_is_nothing_to_see() {
        assert_eq!(observed(&["sid"], &["sid=x"], 10).requests(), 1, "then all have been seen");
        assert_eq!(observed(&[], &["sid=x"], 10).requests(), 0);
        assert_eq!(CookieUse::new(&CredentialRule::default()).unseen().len(), 0);
        let without = CookieUse::new(&CredentialRule {
            cookies: Some(["sid".into()].into()),
            ..CredentialRule::default()
        });
        without.observe(&HeaderMap::new());
        assert_eq!(without.requests(), 0, "a request without cookies says nothing");
    }
}
