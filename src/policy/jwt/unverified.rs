//! A token as it is written, without the key that verifies it.
//!
//! SECURITY: anybody can write such a token. What is read here may be counted and suggested, and
//! never decides what is served.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::HeaderMap;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::MAX_TOKEN_BYTES;
use super::request::{TokenPlace, token};

/// The most claims of a token that are looked at, and the longest name and value, in bytes.
const MAX_CLAIMS: usize = 12;
const MAX_NAME: usize = 32;
const MAX_VALUE: usize = 128;

/// Claims that are of one token alone, or of one login (RFC 7519, RFC 9068, `OpenID` Connect Core,
/// and what identity providers add).
#[rustfmt::skip]
const OF_ONE_TOKEN: &[&str] = &[
    "iat", "exp", "nbf", "jti", "auth_time", "nonce", "at_hash", "c_hash", "s_hash", "sid",
    "session_state", "uti", "aio", "rh", "origin_jti", "event_id", "ver", "iss", "aud", "typ",
];

/// What a request's token says, if it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedToken {
    /// The algorithm of its header.
    pub algorithm: Algorithm,
    /// Claims with one value: the name, and the value as JSON.
    pub claims: Vec<(Box<str>, Box<str>)>,
    /// Who made it, and for whom, where it names one.
    pub issuer: Option<Box<str>>,
    pub audience: Option<Box<str>>,
}

impl UnverifiedToken {
    /// The token in `Authorization`; `None` if there is none.
    #[must_use]
    pub fn of_request(headers: &HeaderMap) -> Option<Self> {
        let token = token(&TokenPlace::Authorization, headers).ok()?;
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, payload) = (object(parts.next()?)?, object(parts.next()?)?);
        // A signature, and nothing after it.
        let is_token = parts.next().is_some() && parts.next().is_none();
        let algorithm = header.get("alg")?.as_str()?.parse().ok().filter(|_| is_token)?;
        let claims =
            payload.iter().filter(|(name, _)| is_plain(name)).filter_map(|(name, value)| {
                let text = match value {
                    Value::String(_) | Value::Number(_) | Value::Bool(_) => value.to_string(),
                    _ => return None,
                };
                (text.len() <= MAX_VALUE).then(|| (name.as_str().into(), text.into()))
            });
        let claims = claims.take(MAX_CLAIMS).collect();
        let (issuer, audience) = (one_name(payload.get("iss")), one_name(payload.get("aud")));
        Some(Self { algorithm, claims, issuer, audience })
    }
}

/// The name of an issuer or of an audience, if it is the only one.
fn one_name(value: Option<&Value>) -> Option<Box<str>> {
    let text = match value? {
        Value::String(text) => text,
        Value::Array(all) if all.len() == 1 => all[0].as_str()?,
        _ => return None,
    };
    let is_plain = text.len() <= MAX_VALUE && text.bytes().all(|byte| byte.is_ascii_graphic());
    (is_plain && !text.is_empty()).then(|| text.into())
}

/// Whether a claim may be the name of a group: a short word, and none that each token has anew.
fn is_plain(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_word)
        && !OF_ONE_TOKEN.contains(&name)
}

/// An object in base64 (RFC 7515).
fn object(part: &[u8]) -> Option<Map<String, Value>> {
    if part.len() > MAX_TOKEN_BYTES {
        return None;
    }
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn read(header: &str, payload: &str, rest: &str) -> Option<UnverifiedToken> {
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let value = format!("Bearer {}.{}{rest}", encoded(header), encoded(payload));
        let value = HeaderValue::from_str(&value).expect("a value");
        UnverifiedToken::of_request(&[(AUTHORIZATION, value)].into_iter().collect())
    }

    #[test]
    fn claims_with_one_value_are_read_and_those_of_one_token_are_not() {
        let payload =
            r#"{"tenant": "acme", "n": 7, "a/b": 1, "exp": 9, "roles": ["x"], "iss": "i"}"#;
        let found = read(r#"{"alg": "HS256"}"#, payload, ".c2ln").expect("a token");
        assert_eq!(found.algorithm, Algorithm::HS256);
        let claims: Vec<(&str, &str)> =
            found.claims.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(claims, [("n", "7"), ("tenant", "\"acme\"")]);
        assert_eq!((found.issuer.as_deref(), found.audience), (Some("i"), None));
        let found = read(r#"{"alg": "HS256"}"#, r#"{"aud": ["x"], "iss": "a b"}"#, ".c2ln");
        let found = found.expect("a token");
        assert_eq!((found.issuer, found.audience.as_deref()), (None, Some("x")));
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        let (header, payload) = (r#"{"alg": "HS256"}"#, r#"{"tenant": "acme"}"#);
        for (header, payload, rest) in [
            (r#"{"alg": "none"}"#, payload, ".c2ln"),
            (header, payload, ""),
            (header, payload, ".a.b"),
            (header, "[1]", ".c2ln"),
            ("{}", payload, ".c2ln"),
        ] {
            assert_eq!(read(header, payload, rest), None, "{header} {payload} {rest}");
        }
        let many: Vec<String> = (0..1000).map(|at| format!("\"c{at}\": {at}")).collect();
        let found = read(header, &format!("{{{}}}", many.join(",")), ".c2ln").expect("a token");
        assert_eq!(found.claims.len(), MAX_CLAIMS);
    }
}
