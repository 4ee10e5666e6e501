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
    /// How this response turns its caller away, if it does.
    #[must_use]
    pub fn from_response(
        credential: &CredentialRule,
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
                .filter(|location| credential.is_login(location))
                .map(|_| Self::Credential),
            _ => None,
        }
    }
}
