//! The cookies that were verified lately, so that a hit costs a short hash in place of a
//! signature, an inflation and a parser.
//!
//! SECURITY: no cookie is kept, only 64 bits of its hash under a key that the process makes up, and
//! the end of its signature, which nobody can make without the secret: what is taken for a
//! remembered cookie has its signature and, by a chance of one in 2^64, its hash. A cookie that is
//! not verified is not kept, so that strangers cannot fill the memory; what does not fit costs a
//! signature again. The age of a cookie is judged at each use, by the time that it was signed at.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::policy::session::verified::VerifiedSession;

/// How many verified cookies are remembered for each field.
pub(super) const MAX_REMEMBERED: usize = 4096;

/// The hash of a cookie, and the end of its signature.
type CookieMark = (u64, [u8; MARKED_BYTES]);

/// How much of the end of a signature counts beside the hash.
const MARKED_BYTES: usize = 16;

/// The cookies of one field that were verified lately.
pub(super) struct SessionMemory {
    hasher: RandomState,
    known: Cache<CookieMark, Arc<VerifiedSession>>,
}

impl Default for SessionMemory {
    fn default() -> Self {
        Self { hasher: RandomState::new(), known: Cache::new(MAX_REMEMBERED) }
    }
}

impl SessionMemory {
    fn mark(&self, value: &[u8], signature: Option<&[u8]>) -> CookieMark {
        let end = signature.unwrap_or(value).last_chunk().copied();
        (self.hasher.hash_one((value, signature)), end.unwrap_or_default())
    }

    /// What this cookie says, if it was verified lately.
    pub(super) fn get(
        &self,
        value: &[u8],
        signature: Option<&[u8]>,
    ) -> Option<Arc<VerifiedSession>> {
        self.known.get(&self.mark(value, signature))
    }

    /// Remembers a verified cookie.
    pub(super) fn keep(
        &self,
        value: &[u8],
        signature: Option<&[u8]>,
        session: &Arc<VerifiedSession>,
    ) {
        self.known.insert(self.mark(value, signature), Arc::clone(session));
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
