//! The request of a fill: the target and the headers that the origin receives.
//!
//! Invariant: everything that the origin receives on a fill is in the key, or on the list of
//! harmless headers, or let through by the operator (`pass_headers`, `unknown_headers`).

use http::Uri;
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderName, HeaderValue, PRAGMA};

use crate::policy::field;
use crate::policy::glob::any_matches;
use crate::policy::plan::lookup::Lookup;
use crate::policy::route::{HeaderRole, QueryRule};
use crate::policy::scope::Scope;

impl Lookup<'_> {
    /// The target and the headers that the origin receives on a fill.
    #[must_use]
    pub fn fill_request(&self) -> (Uri, HeaderMap) {
        let mut headers = HeaderMap::with_capacity(self.request.headers.len() + 6);
        let public = self.route.spec.scope == Scope::Public;
        for (name, value) in self.request.headers {
            let forward = match self.route.headers.role(name, self.request.peer_is_trusted) {
                HeaderRole::Withheld | HeaderRole::KeyedCookies => false,
                // `sent_cookie` puts the cookies together below.
                HeaderRole::Credential => !public && *name != COOKIE,
                HeaderRole::Harmless
                | HeaderRole::Keyed
                | HeaderRole::Implicit
                | HeaderRole::Passed
                | HeaderRole::Unknown => *name != COOKIE,
            };
            if forward {
                headers.append(name, value.clone());
            }
        }
        if let Some(cookie) = self.sent_cookie() {
            headers.insert(COOKIE, cookie);
        }
        (self.fill_target(), headers)
    }

    /// Whether a fill sends the origin the client's request unchanged, apart from the headers that
    /// address caches (RFC 9111 5.2, 5.4).
    #[must_use]
    pub fn is_sent_unchanged(&self) -> bool {
        let for_caches = |name: &HeaderName| *name == CACHE_CONTROL || *name == PRAGMA;
        let (target, sent) = self.fill_request();
        target.path_and_query() == self.request.uri.path_and_query()
            && self.request.headers.iter().filter(|(name, _)| !for_caches(name)).count()
                == sent.len()
            && self
                .request
                .headers
                .keys()
                .filter(|name| !for_caches(name))
                .all(|name| self.request.headers.get_all(name).iter().eq(sent.get_all(name)))
    }

    fn fill_target(&self) -> Uri {
        let whole =
            matches!(self.route.spec.query, QueryRule::All) || self.request.uri.query().is_none();
        let path = self.request.uri.path();
        let target = match &self.query {
            _ if whole => self
                .request
                .uri
                .path_and_query()
                .map_or_else(|| path.to_owned(), ToString::to_string),
            Some(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        };
        // The target consists of parts of a target that parsed before, so this does not fail.
        Uri::try_from(target).unwrap_or_else(|_| self.request.uri.clone())
    }

    /// The `Cookie` header of a fill: the cookies that the key has seen.
    pub(super) fn sent_cookie(&self) -> Option<HeaderValue> {
        let role = self.route.headers.role(&COOKIE, self.request.peer_is_trusted);
        let credential = match (role, &self.rules.credential.cookies) {
            (HeaderRole::KeyedCookies, _) => &[][..],
            (HeaderRole::Credential, _) if self.route.spec.scope == Scope::Public => return None,
            (HeaderRole::Credential, Some(names)) => names,
            (HeaderRole::Withheld, _) => return None,
            _ => {
                return joined(
                    self.request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes),
                    b"; ",
                );
            }
        };
        let keyed = &self.route.keyed_cookies;
        let pairs: Vec<Vec<u8>> = field::cookies(self.request.headers)
            .filter(|(name, _)| {
                keyed.iter().any(|wanted| wanted.as_bytes() == *name)
                    || any_matches(credential, name)
            })
            .map(|(name, value)| [name, b"=", value].concat())
            .collect();
        joined(pairs.iter().map(Vec::as_slice), b"; ")
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>, separator: &[u8]) -> Option<HeaderValue> {
    let mut whole: Vec<u8> = Vec::new();
    for part in parts {
        if !whole.is_empty() {
            whole.extend_from_slice(separator);
        }
        whole.extend_from_slice(part);
    }
    if whole.is_empty() { None } else { HeaderValue::from_bytes(&whole).ok() }
}
