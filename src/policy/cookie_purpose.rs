//! What a cookie is for, as far as its name tells: whether a response may lose it.

use crate::policy::cookies::{ANALYTICS, CONSENT};
use crate::policy::credential::CredentialRule;
use crate::policy::glob::Glob;
use crate::policy::names::{Meaning, meaning};

/// The cookies that load balancers, networks in front of sites and monitors set and read
/// themselves: no app answers by them. Some of them change with each response.
const DELIVERY: &[&str] = &[
    "__cf_bm",
    "__cflb",
    "_cfuvid",
    "AWSALB",
    "AWSALBCORS",
    "AWSALBTG",
    "AWSALBTGCORS",
    "ak_bmsc",
    "bm_sv",
    "bm_sz",
    "_abck",
    "_dd_s",
];

/// Parts of names of cookies whose value belongs to a form in the body.
const FORM_PARTS: [&str; 4] = ["csrf", "xsrf", "antiforgery", "requestverification"];

/// Names of sessions and of tokens of forms, as frameworks have them. A pattern that matches one of
/// them was hardly meant for others alone.
const SESSIONS: &[&str] = &[
    "session",
    "sessionid",
    "connect.sid",
    "PHPSESSID",
    "JSESSIONID",
    "ASP.NET_SessionId",
    "_app_session",
    "laravel_session",
    "wordpress_logged_in_0",
    "remember_me",
    "auth",
    "token",
    "jwt",
    "csrftoken",
    "XSRF-TOKEN",
    "_csrf",
    "user",
    "cart",
    "0123456789abcdef0123456789abcdef",
];

/// Whether a pattern of names may mean a session or the token of a form. In doubt it does.
#[must_use]
pub fn may_name_session(pattern: &Glob) -> bool {
    CookiePurpose::from_name(pattern.as_str()) == CookiePurpose::Session
        || (!pattern.is_literal() && SESSIONS.iter().any(|name| pattern.matches(name.as_bytes())))
}

/// Whether the value of a cookie of this name probably belongs to a form in the body.
#[must_use]
pub fn is_form_token(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    FORM_PARTS.iter().any(|part| memchr::memmem::find(&lower, part.as_bytes()).is_some())
}

/// The probable purpose of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookiePurpose {
    /// It counts visitors, or steers connections: no response depends on it.
    Noise,
    /// It is the caller's session, or the token of a form: what is stored without it, or without
    /// regard to it, may be somebody else's.
    Session,
    /// The choice of the visitor about cookies.
    Consent,
    /// The name does not tell.
    Unknown,
}

impl CookiePurpose {
    /// Judges by the name. In doubt it is a session.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let is_in = |set: &[&str]| set.iter().any(|glob| Glob::new(glob).matches(name.as_bytes()));
        let lower = name.to_ascii_lowercase();
        // A glob in a name could stand for other cookies.
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        // Rails keeps the session of an app in `_NAME_session`, whatever its name is.
        let is_plain = name.bytes().all(is_plain);
        if is_plain && !lower.ends_with("_session") && (is_in(ANALYTICS) || is_in(DELIVERY)) {
            return Self::Noise;
        }
        let is_session = is_form_token(lower.as_bytes())
            || matches!(meaning(name), Some(Meaning::Credential | Meaning::Caller))
            || CredentialRule::default().is_identifying_cookie(name.as_bytes(), b"1");
        if is_session {
            Self::Session
        } else if is_in(CONSENT) {
            Self::Consent
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_mean_a_session() {
        for (pattern, may) in [
            ("*", true),
            ("s*", true),
            ("*id", true),
            ("*_session", true),
            ("connect.sid", true),
            ("wordpress_*", true),
            ("x*token", true),
            ("_ga", false),
            ("_ga_*", false),
            ("pref_*", false),
            ("theme", false),
            ("promo_*", false),
        ] {
            assert_eq!(may_name_session(&Glob::new(pattern)), may, "{pattern}");
        }
    }

    #[test]
    fn sessions_are_sessions() {
        for name in SESSIONS {
            assert_eq!(CookiePurpose::from_name(name), CookiePurpose::Session, "{name}");
        }
    }

    #[test]
    fn a_name_tells_what_a_cookie_is_for() {
        use CookiePurpose::{Consent, Noise, Session, Unknown};
        for (name, purpose) in [
            ("_ga", Noise),
            ("_ga_ABC", Noise),
            ("AWSALB", Noise),
            ("__cf_bm", Noise),
            ("session", Session),
            ("_ga_session", Session),
            ("PHPSESSID", Session),
            ("csrftoken", Session),
            ("XSRF-TOKEN", Session),
            ("connect.sid", Session),
            ("remember_token", Session),
            ("user_id", Session),
            ("0123456789abcdef0123456789abcdef", Session),
            ("cookieconsent_status", Consent),
            ("_ga_*", Unknown),
            ("mp_*_mixpanel", Unknown),
            ("theme", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(CookiePurpose::from_name(name), purpose, "{name}");
        }
    }
}
