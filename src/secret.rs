//! Secrets and keyed hashes: values that must never be stored, logged or shown in the clear.

use std::cell::RefCell;
use std::fmt;
use std::hash::Hasher as _;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

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
pub struct Hasher {
    mac: Hmac<Sha256>,
    /// Names digests that were made before. Each hasher has its own, so that none is given what
    /// another one made.
    name_key: [u8; 16],
}

/// How many digests a thread remembers.
const REMEMBERED: usize = 1024;

/// The digests that this thread has made lately, by a keyed hash of what they were made of: callers
/// come again, and where the processor has no instructions for it, a SHA-256 of a token costs more
/// than a hit.
///
/// SECURITY: two inputs with one name would be taken for each other. The name has 128 bits, is
/// keyed with what nobody knows, and is never shown (see `policy/jwt/verifier.rs`).
struct RememberedDigests(Box<[(u128, [u8; 32])]>);

impl RememberedDigests {
    fn get(&mut self, name: u128, make: impl FnOnce() -> [u8; 32]) -> [u8; 32] {
        let place = usize::try_from(name % self.0.len() as u128).unwrap_or(0);
        let slot = &mut self.0[place];
        if slot.0 != name {
            *slot = (name, make());
        }
        slot.1
    }
}

thread_local! {
    // Nothing has the name 0: an empty place would have to be told from one.
    static REMEMBERED_DIGESTS: RefCell<RememberedDigests> =
        RefCell::new(RememberedDigests(vec![(0, [0; 32]); REMEMBERED].into()));
}

impl Hasher {
    /// A hasher keyed with this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        // HMAC accepts a key of any length, but only through a fallible constructor. 32 bytes
        // padded to a block cannot fail.
        let key: [u8; 32] = Sha256::digest(secret).into();
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&key);
        Self { mac: Hmac::new(&block), name_key: rand::random() }
    }

    /// A keyed digest of these pieces, one after the other, for one purpose (`domain`): the same as
    /// that of [`Self::mac`]. `pieces` says them all, and may be called twice.
    #[must_use]
    pub fn digest_of(&self, domain: &str, pieces: impl Fn(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
        let mut name = SipHasher13::new_with_key(&self.name_key);
        name.write(domain.as_bytes());
        name.write_u8(0);
        pieces(&mut |piece| name.write(piece));
        let make = || {
            let mut mac = self.mac(domain);
            pieces(&mut |piece| mac.update(piece));
            mac.finalize().into_bytes().into()
        };
        REMEMBERED_DIGESTS
            .with_borrow_mut(|known| known.get(name.finish128().as_u128().max(1), make))
    }

    /// A keyed hash of bytes that are still to come, for one purpose (`domain`).
    #[must_use]
    pub fn mac(&self, domain: &str) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
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

    #[test]
    fn r1332_a_remembered_digest_is_that_of_the_same_secret_purpose_and_bytes() {
        let hashers = [Hasher::new(b"one"), Hasher::new(b"two"), Hasher::new(b"one")];
        // More than a thread remembers, so that they take places from each other.
        for round in 0..2 {
            for number in 0..3 * REMEMBERED as u64 {
                let bytes = number.to_be_bytes();
                for (hasher, domain) in hashers.iter().zip(["a", "a", "b"]) {
                    let made = hasher.digest_of(domain, |write| {
                        write(&bytes[..5]);
                        write(&bytes[5..]);
                    });
                    assert_eq!(made, hasher.digest(domain, &bytes), "{round} {number}");
                }
            }
        }
        let (one, two) = (&hashers[0], &hashers[2]);
        let of = |hasher: &Hasher| hasher.digest_of("a", |write| write(b"x"));
        assert_eq!(of(one), of(two), "another process makes the same");
    }
}
