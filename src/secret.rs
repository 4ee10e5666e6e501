//! Secrets and keyed hashes: values that must never be stored, logged or shown in the clear.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::units::hex;

/// A value that must never be shown: its `Debug` is redacted, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the code that has to send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: settings are logged with `Debug`; the output hides even the length.
        f.write_str("Secret(redacted)")
    }
}

/// Hashes values that must not be stored or shown in the clear, keyed with the operator's secret
/// where one is configured.
#[derive(Clone)]
pub struct Hasher(Hmac<Sha256>);

impl Hasher {
    /// A hasher keyed with this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        // HMAC accepts a key of any length, but only through a fallible constructor. 32 bytes
        // padded to a block cannot fail.
        let key: [u8; 32] = Sha256::digest(secret).into();
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&key);
        Self(Hmac::new(&block))
    }

    /// A keyed hash of bytes that are still to come, for one purpose (`domain`).
    #[must_use]
    pub fn mac(&self, domain: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(domain.as_bytes());
        mac.update(&[0]);
        mac
    }

    /// A keyed digest of some bytes, for one purpose (`domain`).
    #[must_use]
    pub fn digest(&self, domain: &str, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.mac(domain);
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// The first half of the digest, as 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self, domain: &str, bytes: &[u8]) -> String {
        hex(&self.digest(domain, bytes)[..16])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(Secret(redacted))");
    }

    #[test]
    fn the_secret_and_the_purpose_change_every_digest() {
        assert_ne!(Hasher::new(b"one").digest("a", b"b"), Hasher::new(b"two").digest("a", b"b"));
        assert_ne!(Hasher::default().digest("a", b"bc"), Hasher::default().digest("ab", b"c"));
    }
}
