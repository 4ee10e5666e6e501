//! The policy of a route for its guests: who has nothing of `signed_in`.
//!
//! It is a route of its own beside that of the file, in scope `public` and with the same place in
//! metrics, so that every rule of that scope holds for guests: their fills carry neither cookies
//! nor credentials, apart from cookies that fields of the key read.
//!
//! Invariants:
//! 1. No part of a guest's key comes from a session, a token or a credential.
//! 2. `Vary: Cookie` does not part guests: fills carry no cookies by which the origin could have
//!    answered.
//! 3. Of a response to a guest the cookie of a form's token is never taken out, whatever the rules
//!    say, so that such a response is never stored.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, SET_COOKIE};

use crate::policy::cookie_header;
use crate::policy::cookie_purpose::{CookiePurpose, is_form_token};
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::route::{AdmitRule, Route, RouteMode, RouteSpec, StripSetCookie, VaryCookie};
use crate::policy::scope::Scope;
use crate::policy::signed_in::SignedIn;

/// How the guests of a route are told from others, and what they go by.
#[derive(Debug)]
pub struct GuestRule {
    /// What those have who are no guests.
    pub signed_in: SignedIn,
    /// The policy for guests.
    pub route: Arc<Route>,
}

/// Whether a field tells who the caller is, so that guests have none of it.
fn tells_caller(field: &Field, credential: &CredentialRule) -> bool {
    match &field.source {
        FieldSource::Auth(_)
        | FieldSource::Session(_)
        | FieldSource::Jwt(_)
        | FieldSource::Identity(_)
        | FieldSource::Caller => true,
        FieldSource::Header(name) => credential.headers.contains(name),
        FieldSource::Cookie(_)
        | FieldSource::Query(_)
        | FieldSource::Path(_)
        | FieldSource::Host
        | FieldSource::Client(_)
        | FieldSource::Body(_)
        | FieldSource::Response(_) => false,
    }
}

impl RouteSpec {
    /// The settings of a route for its guests.
    pub(super) fn for_guests(&self, credential: &CredentialRule) -> Self {
        let key = self.key.iter().filter(|field| !tells_caller(field, credential));
        // A tag by the caller's name is for what is stored for that caller.
        let names_caller = |field: &Arc<Field>| field.source == FieldSource::Caller;
        let tags = self.tags.iter().filter(|template| !template.fields().any(names_caller));
        let passed = self.pass_headers.iter().filter(|name| {
            **name != COOKIE && **name != AUTHORIZATION && !credential.headers.contains(*name)
        });
        Self {
            scope: Scope::Public,
            key: key.cloned().collect(),
            tags: tags.cloned().collect(),
            pass_headers: passed.cloned().collect(),
            vary_cookie: VaryCookie::Ignore,
            admit: AdmitRule::Entry,
            revalidate_after: None,
            signed_in: None,
            ..self.clone()
        }
    }
}

impl Route {
    /// Whether it is the policy for guests of a route.
    #[must_use]
    pub const fn is_for_guests(&self) -> bool {
        self.guest_of.is_some()
    }

    /// It, and its policy for guests if it has one.
    pub fn policies(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(self.guests.as_ref().map(|guests| &guests.route))
    }

    /// Makes it do what its switches say.
    pub fn switch(&self, mode: RouteMode) {
        self.switched.set(mode);
        if let Some(guests) = &self.guests {
            guests.route.switched.set(mode);
        }
    }

    /// Whether all cookies that a response sets are removed before it is stored.
    ///
    /// SECURITY: a list that is for guests may name their sessions, because a second response
    /// proves that none depends on them. Of those who are signed in, a session is removed only if
    /// it is verified.
    #[must_use]
    pub fn strips_cookies(&self, response: &HeaderMap, carries_credential: bool) -> bool {
        if !self.spec.strip_set_cookie.strips(response, carries_credential) {
            return false;
        }
        let has_list = matches!(self.spec.strip_set_cookie, StripSetCookie::Named(_));
        let is_kept = |name: &[u8]| {
            if self.is_for_guests() {
                return is_form_token(name);
            }
            let is_session = || match str::from_utf8(name) {
                Ok(name) => CookiePurpose::from_name(name) == CookiePurpose::Session,
                Err(_) => true,
            };
            has_list && self.guests.is_some() && !self.reads_session(name) && is_session()
        };
        let lines = response.get_all(SET_COOKIE).iter();
        let mut names = lines.filter_map(|line| cookie_header::set_cookie(line.as_bytes()));
        !names.any(|(name, _)| is_kept(name))
    }
}
