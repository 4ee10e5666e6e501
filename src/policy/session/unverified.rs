//! A session cookie as it is written, without the secret that verifies it.
//!
//! SECURITY: anybody can write such a cookie. What is read here may be counted and suggested, and
//! never decides what is served.

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

use super::{MAX_COOKIE, SessionFormat, payload, signature};
use crate::clock::Wall;
use crate::policy::cookie_header::{cookies, is_cleared, seconds_left, set_cookie};

/// How many cookies of a request are looked at.
const MAX_COOKIES: usize = 64;

/// What a request's session cookie says, if it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedSession {
    /// The name of the cookie.
    pub cookie: Box<str>,
    /// How it looks signed. It has a time, and so may be signed anew each time.
    pub format: SessionFormat,
    /// The payload: the same bytes only for the same payload.
    pub payload: Vec<u8>,
    /// The value of the cookie.
    pub value: Box<[u8]>,
}

/// What a response makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRenewal {
    /// For how many seconds browsers keep the cookie; none if until they end.
    pub kept_for: Option<u64>,
}

impl UnverifiedSession {
    /// The session of a request. `None` if no cookie of it looks like one that is signed with a
    /// time, or several do.
    #[must_use]
    pub fn of_request(headers: &HeaderMap) -> Option<Self> {
        let mut found = None;
        for (name, value) in cookies(headers).take(MAX_COOKIES) {
            let Some((format, payload)) = read(value) else { continue };
            let cookie = std::str::from_utf8(name).ok()?.into();
            let value = value.into();
            if found.replace(Self { cookie, format, payload, value }).is_some() {
                return None;
            }
        }
        found
    }

    /// How a response renews it. `None` if the response sets another payload, another cookie, or
    /// nothing.
    #[must_use]
    pub fn renewed_by(&self, response: &HeaderMap, now: Wall) -> Option<SessionRenewal> {
        let lines = || response.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let renews = |line: &[u8]| {
            let (name, value) = set_cookie(line)?;
            let is_own = name == self.cookie.as_bytes() && !is_cleared(line, now);
            let (format, payload) = read(value).filter(|_| is_own)?;
            Some((format, &*payload) == (self.format, &*self.payload))
        };
        let last = lines().next_back()?;
        lines()
            .all(|line| renews(line) == Some(true))
            .then(|| SessionRenewal { kept_for: seconds_left(last, now) })
    }
}

/// The cookies of a response that look like sessions which are signed with a time: name and value.
pub fn sessions_set_by(response: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = response.get_all(SET_COOKIE).iter().take(MAX_COOKIES);
    lines
        .filter_map(|line| set_cookie(line.as_bytes()))
        .filter(|(_, value)| SessionFormat::guess(value).is_some_and(SessionFormat::has_time))
}

/// The payload of a cookie that looks signed with a time.
fn read(value: &[u8]) -> Option<(SessionFormat, Vec<u8>)> {
    let format = SessionFormat::guess(value).filter(|format| format.has_time())?;
    if value.len() > MAX_COOKIE {
        return None;
    }
    let text = signature::unverified_payload(format, value)?;
    let mut bytes = Vec::new();
    payload::parse(&text).ok()?.write(&mut bytes);
    Some((format, bytes))
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    // `{"user":"ann"}`, with signatures that nobody has made.
    const FLASK_COOKIE: &str = "eyJ1c2VyIjoiYW5uIn0.ahilAA.AAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const FLASK_COOKIE_LATER: &str = "eyJ1c2VyIjoiYW5uIn0.ahilBB.BAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const DJANGO_COOKIE: &str =
        "eyJ1c2VyIjoiYW5uIn0:1tLkqA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn request(cookies: &str) -> HeaderMap {
        [(COOKIE, HeaderValue::from_str(cookies).expect("a value"))].into_iter().collect()
    }

    fn response(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_str(line).expect("a value"));
        lines.map(|line| (SET_COOKIE, line)).collect()
    }

    #[test]
    fn a_payload_is_read_and_whatever_is_no_session_is_not() {
        let flask = UnverifiedSession::of_request(&request(&format!("a=1; s={FLASK_COOKIE}")));
        let flask = flask.expect("a session");
        assert_eq!((&*flask.cookie, flask.format), ("s", SessionFormat::Flask));
        let later = UnverifiedSession::of_request(&request(&format!("s={FLASK_COOKIE_LATER}")));
        assert_eq!(later.map(|later| later.payload), Some(flask.payload), "signed anew");
        let django = UnverifiedSession::of_request(&request(&format!("s={DJANGO_COOKIE}")));
        assert_eq!(django.map(|session| session.format), Some(SessionFormat::Django));
        let two = format!("s={FLASK_COOKIE}; t={DJANGO_COOKIE}");
        for cookies in ["", "s=1", "s=eyJ.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaa", &two] {
            assert_eq!(UnverifiedSession::of_request(&request(cookies)), None, "{cookies}");
        }
    }

    #[test]
    fn a_response_renews_a_session_only_if_it_sets_the_same_payload_alone() {
        let session = UnverifiedSession::of_request(&request(&format!("s={FLASK_COOKIE}")));
        let session = session.expect("a session");
        let renewed = |lines: &[&str]| session.renewed_by(&response(lines), Wall(0));
        let later = format!("s={FLASK_COOKIE_LATER}; Path=/");
        assert_eq!(renewed(&[&later]), Some(SessionRenewal { kept_for: None }));
        let kept = format!("s={FLASK_COOKIE_LATER}; Expires=Thu, 01 Jan 1970 00:10:00 GMT");
        assert_eq!(renewed(&[&kept]), Some(SessionRenewal { kept_for: Some(600) }));
        let other = format!("s={DJANGO_COOKIE}");
        let cleared = format!("s={FLASK_COOKIE_LATER}; Max-Age=0");
        let elsewhere = format!("t={FLASK_COOKIE_LATER}");
        for lines in [&[][..], &[&*other], &[&*cleared], &[&*elsewhere], &[&*later, "theme=dark"]] {
            assert_eq!(renewed(lines), None, "{lines:?}");
        }
    }
}
