//! The cookies that were verified lately, so that a hit costs two short hashes in place of a
//! signature, an inflation and a parser.
//!
//! SECURITY: no cookie is kept, only 128 bits of its hash under keys that the process makes up. A
//! cookie that is not verified is not kept, so that strangers cannot fill the memory; what does not
//! fit costs a signature again. The age of a cookie is judged at each use, by the time that it was
//! signed at.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::policy::session::verified::VerifiedSession;

/// How many verified cookies are remembered for each field.
pub(super) const MAX_REMEMBERED: usize = 4096;

/// The cookies of one field that were verified lately.
pub(super) struct SessionMemory {
    hashers: [RandomState; 2],
    known: Cache<u128, Arc<VerifiedSession>>,
}

impl Default for SessionMemory {
    fn default() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            known: Cache::new(MAX_REMEMBERED),
        }
    }
}

impl SessionMemory {
    fn hash(&self, value: &[u8], signature: Option<&[u8]>) -> u128 {
        let [high, low] =
            self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one((value, signature))));
        high << 64 | low
    }

    /// What this cookie says, if it was verified lately.
    pub(super) fn get(
        &self,
        value: &[u8],
        signature: Option<&[u8]>,
    ) -> Option<Arc<VerifiedSession>> {
        self.known.get(&self.hash(value, signature))
    }

    /// Remembers a verified cookie.
    pub(super) fn keep(
        &self,
        value: &[u8],
        signature: Option<&[u8]>,
        session: &Arc<VerifiedSession>,
    ) {
        self.known.insert(self.hash(value, signature), Arc::clone(session));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl fmt::Debug for SessionMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionMemory({})", self.known.len())
    }
}
