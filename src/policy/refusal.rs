//! Whether the origin turns a caller away.

use http::StatusCode;
use http::header::{HeaderMap, LOCATION};

use crate::policy::credential::CredentialRule;

/// How the origin turns a caller away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It refuses the credential: 401, 403, or a redirect to the login.
    Credential,
    /// It says that nothing is there: 404 or 410. Many an application answers so where a caller may
    /// not see what is there.
    NotFound,
}

impl Refusal {
    /// How this response to a request to this host turns its caller away, if it does.
    #[must_use]
    pub fn from_response(
        credential: &CredentialRule,
        host: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Self::Credential),
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(Self::NotFound),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => headers
                .get(LOCATION)
                .filter(|location| credential.is_login(location, host))
                .map(|_| Self::Credential),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_caller_is_turned_away_by_a_status_or_towards_the_login() {
        let credential =
            CredentialRule { login_paths: ["/login".into()].into(), ..CredentialRule::default() };
        let of = |status: u16, location: Option<&'static str>| {
            let location = location.map(|location| (LOCATION, HeaderValue::from_static(location)));
            let status = StatusCode::from_u16(status).expect("a status");
            Refusal::from_response(&credential, "app.test", status, &location.into_iter().collect())
        };
        for status in [401, 403] {
            assert_eq!(of(status, None), Some(Refusal::Credential));
        }
        for status in [404, 410] {
            assert_eq!(of(status, Some("/login")), Some(Refusal::NotFound));
        }
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(of(status, Some("/login?next=/a")), Some(Refusal::Credential));
            assert_eq!((of(status, Some("/a")), of(status, None)), (None, None));
        }
        for status in [200, 201, 304, 400, 406, 429, 500] {
            assert_eq!(of(status, Some("/login")), None);
        }
    }
}
