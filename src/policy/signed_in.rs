//! Who is signed in, on a route whose other callers are guests: `signed_in`.
//!
//! Invariants:
//! 1. *In doubt, signed in.* A caller is a guest only if its request has no cookie of these names
//!    in any line, be it empty or there several times; no `Authorization`; no header of
//!    `[credential]`; and neither the value of the field nor a session or a token that might hold
//!    it and is not verified.
//! 2. *A guest is nobody.* Fills of guests carry no credential ([`crate::policy::route::guests`]).
//!    So a caller who is wrongly taken for a guest is shown what strangers are shown, and nobody is
//!    shown anything of that caller.
//! 3. *The key says which it is.* The keys of guests have a part of their own, and begin with the
//!    fingerprint of the route's policy for guests: no login, logout or reload mixes their entries
//!    with those of others.

use std::sync::Arc;

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::policy::cookie_header;
use crate::policy::field::{Field, FieldError, FieldSource};
use crate::policy::glob::{Glob, any_matches};
use crate::policy::jwt::{RequestTokens, TokenError, TokenPlace};
use crate::policy::token_places::token_places;
use crate::secret::Hasher;

/// What a caller has who is signed in. Any of it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Names of cookies.
    pub cookies: Box<[Glob]>,
    /// A value of a signed session, or of a verified token in a cookie.
    pub field: Option<Arc<Field>>,
    /// Where the token is that the field reads.
    places: Box<[TokenPlace]>,
}

impl SignedIn {
    /// The rule by these names and this field.
    #[must_use]
    pub fn new(cookies: Box<[Glob]>, field: Option<Arc<Field>>) -> Self {
        let places = token_places(field.iter());
        Self { cookies, field, places }
    }

    /// Whether a request has any of it, or something that might be it. `tokens` are those of
    /// [`SignedIn::token_places`].
    #[must_use]
    pub fn is_met(&self, headers: &HeaderMap, tokens: &RequestTokens, hasher: &Hasher) -> bool {
        if !headers.contains_key(COOKIE) {
            return false;
        }
        let lines = headers.get_all(COOKIE).iter();
        let mut pieces = lines.flat_map(|line| cookie_header::cookie_pieces(line.as_bytes()));
        pieces.any(|(name, _)| any_matches(&self.cookies, name))
            || self.field.as_ref().is_some_and(|field| has_value(field, headers, tokens, hasher))
    }

    /// Where the token is that the field reads.
    #[must_use]
    pub const fn token_places(&self) -> &[TokenPlace] {
        &self.places
    }

    /// Whether everybody who is signed in by `other` is so by this rule, as far as its text tells.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let covers = |glob: &Glob| {
            // A name with a star stands for names that another pattern need not match.
            let by_name = |own: &Glob| own == glob || own.matches(glob.as_str().as_bytes());
            self.cookies.iter().any(by_name)
        };
        other.cookies.iter().all(covers) && (other.field.is_none() || self.field == other.field)
    }
}

/// Whether a request has a value for this field, or may have one.
fn has_value(field: &Field, headers: &HeaderMap, tokens: &RequestTokens, hasher: &Hasher) -> bool {
    match &field.source {
        FieldSource::Session(rule) => {
            // Its age does not matter: who it was signed for is no guest.
            match rule.read(headers, hasher).and_then(|session| session.text()) {
                Ok(_) => true,
                Err(fault) => !FieldError::from(fault).is_absence(),
            }
        }
        FieldSource::Jwt(claim) => {
            !matches!(tokens.claim(claim), Ok(None) | Err(TokenError::Missing))
        }
        // The rules admit no others.
        _ => true,
    }
}

/// The cookies that a response sets, as a request would send them. Those that it clears are not
/// among them.
#[must_use]
pub fn cookies_set_by(response: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in response.get_all(SET_COOKIE) {
        let pair =
            cookie_header::set_cookie(line.as_bytes()).filter(|(_, value)| !value.is_empty());
        let cookie = pair.map(|(name, value)| [name, b"=", value].concat());
        if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_bytes(&cookie).ok()) {
            headers.append(COOKIE, cookie);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_cookies(names: &[&str]) -> SignedIn {
        SignedIn::new(names.iter().copied().map(Glob::new).collect(), None)
    }

    fn is_met(rule: &SignedIn, lines: &[&'static str]) -> bool {
        let line = |line: &&'static str| (COOKIE, HeaderValue::from_static(line));
        let headers: HeaderMap = lines.iter().map(line).collect();
        rule.is_met(&headers, &RequestTokens::NONE, &Hasher::default())
    }

    #[test]
    fn a_cookie_of_the_name_is_enough_in_any_form_and_any_line() {
        let rule = by_cookies(&["wordpress_logged_in_*", "remember"]);
        for lines in [
            &["wordpress_logged_in_0a=bob"][..],
            &["_ga=1; wordpress_logged_in_0a=bob"],
            // Empty, as some apps leave it, or with what PHP clears it with.
            &["wordpress_logged_in_0a="],
            &["wordpress_logged_in_0a=deleted"],
            &["wordpress_logged_in_0a"],
            // Several of the name, of two paths or domains.
            &["remember=; remember=1"],
            // A second line, and the crumbs of HTTP/2.
            &["_ga=1", "remember=1"],
            &["_ga=1", "theme=x", " remember =1"],
            &[";;remember=1;"],
        ] {
            assert!(is_met(&rule, lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["_ga=1; theme=remember"],
            &["wordpress_logged_in=1"],
            &["x_remember=1", "remember_me=1"],
            &["REMEMBER=1"],
        ] {
            assert!(!is_met(&rule, lines), "{lines:?}");
        }
    }

    #[test]
    fn a_rule_covers_what_its_names_cover() {
        for (own, other, covers) in [
            (&["a", "b"][..], &["a"][..], true),
            (&["a*"], &["ab", "a*"], true),
            (&["a"], &["a", "b"], false),
            (&["ab*"], &["a*"], false),
        ] {
            assert_eq!(by_cookies(own).covers(&by_cookies(other)), covers, "{own:?} {other:?}");
        }
    }

    #[test]
    fn a_cleared_cookie_is_not_set() {
        let mut response = HeaderMap::new();
        for line in ["a=1; Path=/", "b=; Max-Age=0", "c", "d=2"] {
            response.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        let set = cookies_set_by(&response);
        let values: Vec<_> = set.get_all(COOKIE).iter().collect();
        assert_eq!(values, ["a=1", "d=2"]);
    }
}
