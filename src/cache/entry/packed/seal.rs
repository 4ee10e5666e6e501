//! The seal over the bytes of a packed entry: a checksum, or a MAC with the secret of `[redis]`.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const CHECKSUM: u8 = 0;
const KEYED: u8 = 1;

/// The integrity check of stored entries, against damage or, with a secret, against forgery.
#[derive(Clone, Default)]
pub struct Seal(Option<Hmac<Sha256>>);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Seal(keyed)" } else { "Seal(checksum)" })
    }
}

impl Seal {
    /// A MAC with this secret: nobody can write entries without knowing it.
    #[must_use]
    pub fn keyed(secret: &[u8]) -> Self {
        // HMAC accepts keys of any length.
        Self(Hmac::<Sha256>::new_from_slice(secret).ok())
    }

    /// How it is named in the head.
    pub(super) const fn kind(&self) -> u8 {
        if self.0.is_some() { KEYED } else { CHECKSUM }
    }

    /// The seal over these bytes.
    pub(super) fn over(&self, head: &[u8], rest: &[u8]) -> [u8; 16] {
        let mut seal = [0; 16];
        match &self.0 {
            None => {
                let mut crc = crc32fast::Hasher::new();
                crc.update(head);
                crc.update(rest);
                seal[..4].copy_from_slice(&crc.finalize().to_be_bytes());
            }
            Some(mac) => {
                let mut mac = mac.clone();
                mac.update(head);
                mac.update(rest);
                seal.copy_from_slice(&mac.finalize().into_bytes()[..16]);
            }
        }
        seal
    }
}
