//! Who may share a response: credentials, and the admission of credentials to shared entries.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::clock::Wall;
use crate::policy::field;
use crate::units::{hex, short_hex};

/// Who may share an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The same credential.
    Private,
    /// Every credential that the app has admitted for the same key fields.
    Shared,
    /// Everyone; credentials are withheld from the app on a fill.
    Public,
}

impl Scope {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Public => "public",
        }
    }
}

/// What identifies a caller, besides `Authorization`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialRule {
    /// Further headers.
    pub headers: Box<[HeaderName]>,
    /// The cookies that count; `None` for the whole `Cookie` header.
    pub cookies: Option<Box<[Box<str>]>>,
}

/// A keyed hash of a caller's whole credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential(pub [u8; 32]);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", short_hex(&self.0))
    }
}

impl CredentialRule {
    /// The caller's credential; `None` for a caller who shows none.
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
                headers.get_all(COOKIE).iter().for_each(|value| part(b'C', b"", value.as_bytes()))
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

/// Hashes what must never be stored or shown in the clear, with the operator's secret where there
/// is one.
#[derive(Clone)]
pub struct Hasher(Hmac<Sha256>);

impl Hasher {
    /// A hasher keyed with this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        // A key of any length is hashed to the block size; 32 bytes are always accepted.
        let key: [u8; 32] = Sha256::digest(secret).into();
        Self(Hmac::new(&key.into_block()))
    }

    fn mac(&self, domain: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(domain.as_bytes());
        mac.update(&[0]);
        mac
    }

    /// A keyed digest of some bytes, for one purpose.
    #[must_use]
    pub fn digest(&self, domain: &str, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.mac(domain);
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// The same in 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self, domain: &str, bytes: &[u8]) -> String {
        hex(&self.digest(domain, bytes)[..16])
    }
}

trait IntoBlock {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>>;
}

impl IntoBlock for [u8; 32] {
    fn into_block(self) -> hmac::digest::Key<Hmac<Sha256>> {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&self);
        block
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(b"sidecache")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Which credential is asking for which route and key fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthorizationId(pub u128);

/// The credentials that the app itself has lately answered, for routes of scope `shared`.
///
/// Bounded: the least useful admissions go first, and cost their holders one request to the app.
#[derive(Debug)]
pub struct AuthorizedClients(Cache<AuthorizationId, Wall>);

impl AuthorizedClients {
    /// Room for this many admissions.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// The app has answered this credential with success.
    pub fn authorize(&self, id: AuthorizationId, now: Wall, admit_for: Duration) {
        self.0.insert(id, now.after(admit_for));
    }

    /// The app has refused this credential.
    pub fn revoke(&self, id: AuthorizationId) {
        self.0.remove(&id);
    }

    /// Whether this credential may be given the shared entry.
    #[must_use]
    pub fn is_authorized(&self, id: AuthorizationId, now: Wall) -> bool {
        self.0.get(&id).is_some_and(|until| now < until)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

    #[test]
    fn an_admission_ends_by_time_and_by_refusal() {
        let admissions = AuthorizedClients::new(100);
        let (id, now) = (AuthorizationId(7), Wall(1_000));
        assert!(!admissions.is_authorized(id, now));
        admissions.authorize(id, now, Duration::from_mins(1));
        assert!(admissions.is_authorized(id, Wall(60_999)));
        assert!(!admissions.is_authorized(id, Wall(61_000)));
        admissions.revoke(id);
        assert!(!admissions.is_authorized(id, now));
    }
}
