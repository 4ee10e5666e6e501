//! What identifies a client: its credential.

use std::fmt;

use hmac::Mac as _;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};

use crate::policy::field;
use crate::secret::Hasher;
use crate::units::short_hex;

/// What identifies a client, besides `Authorization`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialRule {
    /// Further headers that identify a client.
    pub headers: Box<[HeaderName]>,
    /// The cookies that count; `None` for the whole `Cookie` header.
    pub cookies: Option<Box<[Box<str>]>>,
}

/// A keyed hash of a client's whole credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential(pub [u8; 32]);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", short_hex(&self.0))
    }
}

impl CredentialRule {
    /// The client's credential; `None` for a request without one.
    #[must_use]
    pub fn credential(&self, headers: &HeaderMap, hasher: &Hasher) -> Option<Credential> {
        if !headers.contains_key(AUTHORIZATION)
            && !headers.contains_key(COOKIE)
            && self.headers.is_empty()
        {
            return None;
        }
        let mut mac = hasher.mac("credential");
        let mut any = false;
        let mut part = |kind: u8, name: &[u8], value: &[u8]| {
            any = true;
            mac.update(&[kind]);
            for bytes in [name, value] {
                mac.update(&(bytes.len() as u64).to_be_bytes());
                mac.update(bytes);
            }
        };
        for value in headers.get_all(AUTHORIZATION) {
            part(b'A', b"", value.as_bytes());
        }
        for name in &self.headers {
            for value in headers.get_all(name) {
                part(b'H', name.as_str().as_bytes(), value.as_bytes());
            }
        }
        match &self.cookies {
            None => {
                headers.get_all(COOKIE).iter().for_each(|value| part(b'C', b"", value.as_bytes()));
            }
            Some(names) => {
                for (name, value) in field::cookies(headers)
                    .filter(|(name, _)| names.iter().any(|wanted| wanted.as_bytes() == *name))
                {
                    part(b'c', name, value);
                }
            }
        }
        any.then(|| Credential(mac.finalize().into_bytes().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_credential_is_all_that_identifies_the_caller() {
        let hasher = Hasher::default();
        let rule = CredentialRule {
            headers: [HeaderName::from_static("x-api-key")].into(),
            cookies: None,
        };
        let of = |lines: &[_]| rule.credential(&headers(lines), &hasher);
        assert_eq!(of(&[("accept", "*/*")]), None);
        let all = [
            of(&[("authorization", "a")]),
            of(&[("cookie", "a")]),
            of(&[("x-api-key", "a")]),
            of(&[("authorization", "a"), ("cookie", "a")]),
            of(&[("authorization", "b")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some());
            assert!(!all[at + 1..].contains(one));
        }
    }

    #[test]
    fn only_the_named_cookies_count() {
        let hasher = Hasher::default();
        let rule = CredentialRule { headers: Box::default(), cookies: Some(["sid".into()].into()) };
        let of = |cookie: &'static str| rule.credential(&headers(&[("cookie", cookie)]), &hasher);
        assert_eq!(of("_ga=1; sid=x"), of("sid=x; _ga=2"));
        assert_ne!(of("sid=x"), of("sid=y"));
        assert_eq!(of("_ga=1"), None);
    }

    #[test]
    fn the_secret_changes_every_hash() {
        let headers = headers(&[("authorization", "a")]);
        let rule = CredentialRule::default();
        assert_ne!(
            rule.credential(&headers, &Hasher::new(b"one")),
            rule.credential(&headers, &Hasher::new(b"two"))
        );
        assert_ne!(Hasher::default().digest("a", b"bc"), Hasher::default().digest("ab", b"c"));
    }
}
