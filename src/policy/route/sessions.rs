//! The signed sessions that the fields of a route read.

use std::borrow::Cow;

use http::header::HeaderMap;

use crate::clock::Wall;
use crate::policy::route::Route;
use crate::policy::session::{IdentityPart, RouteSessions};
use crate::secret::Hasher;

impl Route {
    /// What the session cookies of a lookup say. They are counted, unless this is done again.
    #[must_use]
    pub fn sessions(
        &self,
        headers: &HeaderMap,
        hasher: &Hasher,
        now: Wall,
        is_again: bool,
    ) -> RouteSessions<'_> {
        if self.session_rules.is_empty() {
            return RouteSessions::default();
        }
        RouteSessions::of_lookup(&self.session_rules, headers, hasher, now, is_again)
    }

    /// Whether this cookie holds a session that a field reads, or its signature.
    #[must_use]
    pub fn reads_session(&self, name: &[u8]) -> bool {
        self.session_rules.iter().any(|rule| rule.reads_cookie(name))
    }

    /// Whether a session should be renewed by the origin. A hit does not renew it, so where the
    /// route stores responses that would, requests of the second half of its life pass.
    #[must_use]
    pub fn is_due_for_renewal(&self, sessions: &RouteSessions<'_>, now: Wall) -> bool {
        sessions.verified().any(|(rule, session)| {
            self.spec.strip_set_cookie.names(rule.settings.cookie.as_bytes())
                && rule.is_due_for_renewal(session, now)
        })
    }

    /// The text of cookies that tells callers apart where several share entries: with the payload
    /// of each verified session in its place.
    pub(in crate::policy) fn cookie_identity<'t>(
        &self,
        cookies: Cow<'t, [u8]>,
        headers: &HeaderMap,
        hasher: &Hasher,
    ) -> Cow<'t, [u8]> {
        if self.session_rules.is_empty() {
            return cookies;
        }
        let sessions = RouteSessions::of_request(&self.session_rules, headers, hasher);
        sessions.identity(cookies, IdentityPart::Whole)
    }
}
