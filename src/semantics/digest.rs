//! The digest of a status and a body: whether two responses say the same, without keeping both.

use http::StatusCode;
use sha2::{Digest as _, Sha256};

/// The first half of the SHA-256 of a status and a body.
pub type Digest = [u8; 16];

/// Digests a status and the body that follows it.
#[derive(Clone)]
pub struct Digester(Sha256);

impl Digester {
    /// A digester for a response of this status.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self(Sha256::new_with_prefix(status.as_u16().to_be_bytes()))
    }

    /// Adds the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn finish(self) -> Digest {
        let whole: [u8; 32] = self.0.finalize().into();
        let mut half = Digest::default();
        half.copy_from_slice(&whole[..16]);
        half
    }
}
