//! Who a caller is, by what stays the same from one request to the next: a keyed hash of
//! `Authorization`, of each header and of each cookie that identifies it. Entries carry these as
//! tags, so that a login, a change of the profile or of the cart purges what the caller was given.
//!
//! The credential ([`super::credential`]) is one hash of all of it together. That tells who may
//! share an entry; it is of no use here, because any further cookie changes it.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, SET_COOKIE};

use crate::policy::cookie_header::set_cookie;
use crate::policy::credential::CredentialRule;
use crate::policy::session::{SessionRule, VerifiedSession};
use crate::secret::Hasher;

/// The most names of one caller that an entry carries, or that a template renders.
pub const MAX_NAMES: usize = 8;

/// The most names of one caller that a mutation purges. More than an entry carries: which of many
/// cookies come first is not the same in each request.
pub const MAX_PURGED_NAMES: usize = 64;

/// What identifies a caller, the surest first. The numbers are hashed, so that they never change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum IdentityKind {
    Authorization = 1,
    Header = 2,
    Cookie = 3,
    Session = 4,
}

/// The names of the caller of a request, at most `most`; none for a caller without a credential.
/// A cookie that one of `sessions` verifies names the caller by what it says as well.
/// The order of cookies in the request does not count.
#[must_use]
pub fn caller_names(
    rule: &CredentialRule,
    sessions: &[Arc<SessionRule>],
    headers: &HeaderMap,
    hasher: &Hasher,
    most: usize,
) -> Vec<String> {
    let mut identifying: Vec<(IdentityKind, &[u8], &[u8])> = headers
        .get_all(AUTHORIZATION)
        .iter()
        .map(|value| (IdentityKind::Authorization, &b""[..], value.as_bytes().trim_ascii()))
        .chain(rule.headers.iter().flat_map(|name| {
            let values = headers.get_all(name).iter();
            values.map(|value| {
                (IdentityKind::Header, name.as_str().as_bytes(), value.as_bytes().trim_ascii())
            })
        }))
        .chain(
            rule.identifying_cookies(headers)
                .map(|(name, value)| (IdentityKind::Cookie, name, value)),
        )
        .filter(|(_, _, value)| !value.is_empty())
        .collect();
    identifying.sort_unstable();
    identifying.dedup();
    let others = identifying.into_iter().map(|(kind, name, value)| hash(hasher, kind, name, value));
    // A signed session is the caller's, however often it is signed anew.
    let sessions = sessions.iter().filter_map(|session| {
        let read = session.read(headers, hasher).ok()?;
        Some(session_names(session, &read, hasher))
    });
    let mut names: Vec<String> = Vec::new();
    for name in sessions.flatten().chain(others) {
        if names.len() < most && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The names of the caller of a verified session: by what counts of it, and by who it says that the
/// caller is, so that a message in the session does not make another caller.
fn session_names(rule: &SessionRule, session: &VerifiedSession, hasher: &Hasher) -> Vec<String> {
    let cookie = rule.settings.cookie.as_bytes();
    let parts = [&session.kept].into_iter().chain(&session.callers);
    parts.map(|part| hash(hasher, IdentityKind::Session, cookie, part)).collect()
}

/// The names that a response gives its caller by `Set-Cookie`, and whether it sets or clears any
/// cookie that counts. `None` if it does not.
#[must_use]
pub fn names_set_by(
    rule: &CredentialRule,
    response: &HeaderMap,
    hasher: &Hasher,
) -> Option<Vec<String>> {
    let mut set = response
        .get_all(SET_COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .filter_map(set_cookie)
        .filter(|(name, _)| !rule.ignored_cookies.ignores(name))
        .peekable();
    set.peek()?;
    let names = set
        .filter(|(name, value)| rule.is_identifying_cookie(name, value))
        .take(MAX_PURGED_NAMES)
        .map(|(name, value)| hash(hasher, IdentityKind::Cookie, name, value));
    let sessions = rule.sessions.0.iter().filter_map(|session| {
        let read = session.set_in(response, hasher)?;
        Some(session_names(session, &read, hasher))
    });
    Some(sessions.flatten().chain(names).collect())
}

fn hash(hasher: &Hasher, kind: IdentityKind, name: &[u8], value: &[u8]) -> String {
    // A name has no NUL, so that no name and value can imitate another pair.
    hasher.hex("caller", &[&[kind as u8], name, b"\0", value].concat())
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn names(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        {
            let (rule, hasher) = (CredentialRule::default(), Hasher::default());
            caller_names(&rule, &[], &headers(lines), &hasher, MAX_NAMES)
        }
    }

    #[test]
    fn a_flash_cookie_does_not_change_who_a_caller_is() {
        let plain = names(&[("cookie", "sessionid=a")]);
        assert_eq!(plain.len(), 1);
        for cookies in ["sessionid=a; flash=Saved", "flash=x; sessionid=a", "lang=en;sessionid=a"] {
            assert_eq!(names(&[("cookie", cookies)]), plain, "{cookies}");
        }
        assert_ne!(names(&[("cookie", "sessionid=b")]), plain);
        let both = names(&[("cookie", "sessionid=a"), ("authorization", "Bearer t")]);
        assert!(both.len() == 2 && both.contains(&plain[0]));
    }

    #[test]
    fn a_caller_without_a_credential_has_no_name() {
        for lines in [&[][..], &[("cookie", "lang=en; _ga=1")], &[("cookie", "sessionid=")]] {
            assert!(names(lines).is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn names_are_bounded_and_stay_the_same_in_any_order() {
        let forward = "sid1=a; sid2=a; sid3=a; sid4=a; sid5=a; sid6=a; sid7=a; sid8=a; sid9=a";
        let backward = "sid9=a; sid8=a; sid7=a; sid6=a; sid5=a; sid4=a; sid3=a; sid2=a; sid1=a";
        assert_eq!(names(&[("cookie", forward)]).len(), MAX_NAMES);
        assert_eq!(names(&[("cookie", forward)]), names(&[("cookie", backward)]));
    }

    #[test]
    fn a_response_names_its_caller_by_the_cookies_that_it_sets() {
        let (rule, hasher) = (CredentialRule::default(), Hasher::default());
        let set = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("set-cookie", *line)).collect();
            names_set_by(&rule, &headers(&lines), &hasher)
        };
        assert_eq!(set(&[]), None);
        assert_eq!(set(&["_ga=1; Path=/"]), None, "it counts for nothing");
        assert_eq!(set(&["theme=dark"]), Some(Vec::new()), "it counts, and is no name");
        assert_eq!(set(&["sessionid=; Max-Age=0"]), Some(Vec::new()), "a logout");
        assert_eq!(
            set(&["sessionid=b; HttpOnly"]),
            Some(names(&[("cookie", "sessionid=b")])),
            "a login"
        );
    }
}
