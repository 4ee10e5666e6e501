//! By which policy of its route a request goes: that of guests, or the route's own.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap};

use crate::policy::plan::rules::PolicyRules;
use crate::policy::route::Route;
use crate::policy::signed_in::{SignedIn, cookies_set_by};

impl PolicyRules {
    /// The policy by which a request with these headers goes on a route.
    pub(super) fn policy_of<'a>(
        &self,
        route: &'a Arc<Route>,
        headers: &HeaderMap,
        is_again: bool,
    ) -> &'a Arc<Route> {
        match &route.guests {
            Some(guests) if self.is_guest(route, &guests.signed_in, headers, is_again) => {
                &guests.route
            }
            _ => route,
        }
    }

    /// SECURITY: see the invariants of [`crate::policy::signed_in`].
    fn is_guest(
        &self,
        route: &Route,
        signed_in: &SignedIn,
        headers: &HeaderMap,
        is_again: bool,
    ) -> bool {
        let mut identifying = self.credential.headers.iter().chain(&route.credential_headers);
        !headers.contains_key(AUTHORIZATION)
            && !identifying.any(|name| headers.contains_key(name))
            && !self.has_signed_in(signed_in, headers, is_again)
    }

    fn has_signed_in(&self, signed_in: &SignedIn, headers: &HeaderMap, is_again: bool) -> bool {
        let tokens = self.tokens_in(signed_in.token_places(), headers, is_again);
        signed_in.is_met(headers, &tokens, &self.hasher)
    }

    /// Whether a response to a guest signs the guest in, by a cookie that it sets.
    #[must_use]
    pub fn signs_in(&self, route: &Route, response: &HeaderMap) -> bool {
        let Some(signed_in) = &route.guest_of else { return false };
        self.has_signed_in(signed_in, &cookies_set_by(response), false)
    }
}
