//! Which responses that set cookies are stored, without the cookies.

use http::header::{HeaderMap, SET_COOKIE};

use crate::policy::glob::{Glob, any_matches};

/// Which cookies a response may set and be stored nevertheless, without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripSetCookie {
    /// None.
    No,
    /// All, if the request carries a credential: without one, the cookie may belong to a token in
    /// the body.
    All,
    /// These.
    Named(Box<[Glob]>),
}

impl StripSetCookie {
    /// Whether this cookie is removed where all others are.
    #[must_use]
    pub fn names(&self, cookie: &[u8]) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Named(names) => any_matches(names, cookie),
        }
    }

    /// Adds the cookie with the signature of a session (`session.sig`) that is removed.
    pub(super) fn add_signature(&mut self, cookie: &str) {
        let session = cookie.strip_suffix(".sig").unwrap_or(cookie);
        if let Self::Named(names) = self
            && any_matches(names, session.as_bytes())
            && !any_matches(names, cookie.as_bytes())
        {
            *names = names.iter().cloned().chain([Glob::new(cookie)]).collect();
        }
    }

    /// Whether all cookies that a response sets are removed before it is stored.
    #[must_use]
    pub fn strips(&self, response: &HeaderMap, carries_credential: bool) -> bool {
        match self {
            Self::No => false,
            Self::All => carries_credential,
            Self::Named(names) => response.get_all(SET_COOKIE).iter().all(|line| {
                let pair = line.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
                let equals = pair.iter().position(|&byte| byte == b'=');
                // A line without a name is no cookie that anybody has named.
                equals.is_some_and(|at| any_matches(names, pair[..at].trim_ascii()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_a_rule_names_is_stripped() {
        let named = StripSetCookie::Named(["_ga".into(), "pref_*".into()].into());
        let strips = |rule: &StripSetCookie, lines: &[&'static str], carries: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SET_COOKIE, HeaderValue::from_static(line));
            }
            rule.strips(&headers, carries)
        };
        assert!(strips(&named, &["_ga=1; Path=/", " pref_lang =de"], false));
        assert!(strips(&named, &["_ga="], false));
        assert!(!strips(&named, &["_ga=1", "sid=x; _ga=1"], true), "all must be named");
        assert!(!strips(&named, &["_ga"], true), "a value without a name");
        assert!(!strips(&named, &["_ga; a=b"], true));
        assert!(!strips(&named, &["_GA=1"], true), "case counts");
        for line in ["_ga=1", "sid=x"] {
            assert!(strips(&StripSetCookie::All, &[line], true));
            assert!(!strips(&StripSetCookie::All, &[line], false));
            assert!(!strips(&StripSetCookie::No, &[line], true));
        }
    }
}
