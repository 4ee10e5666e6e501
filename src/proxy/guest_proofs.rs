//! Proofs that an answer is the same for all guests. Where the answer to a guest sets cookies, it
//! may hold what belongs to them: it is stored only if a second request without cookies is answered
//! with the same bytes.
//!
//! Bounded: [`MAX_PROOFS`] at a time, each of [`PROOF_TIMEOUT`]; and of a key whose answers differ,
//! one in [`DIFFERING_TTL`], for [`MAX_DIFFERING`] keys.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Wall;
use crate::policy::key::KeyHash;
use crate::telemetry::metrics::Counter;

/// How many proofs run at a time. While there are more answers to prove, they are not stored.
pub const MAX_PROOFS: usize = 16;

/// How long the second answer may take, with its body.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the guests of a key count as given different answers: their requests go to the origin
/// as they are.
const DIFFERING_TTL: Duration = Duration::from_mins(1);

/// How many such keys are remembered.
const MAX_DIFFERING: usize = 10_000;

/// What came of comparing two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofResult {
    /// They are the same.
    Same,
    /// They differ.
    Differs,
    /// There was no second answer, or not in time.
    Failed,
}

/// Counts of proofs.
#[derive(Clone, Debug, Default)]
pub struct GuestProofCounters {
    same: Arc<Counter>,
    differs: Arc<Counter>,
    failed: Arc<Counter>,
    /// Answers that were not stored because too many were being proven.
    pub rejected: Arc<Counter>,
}

impl GuestProofCounters {
    /// The results by the values of their label, each with its count.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, &Arc<Counter>); 3] {
        [("same", &self.same), ("differs", &self.differs), ("failed", &self.failed)]
    }

    pub(super) fn count(&self, result: ProofResult) {
        match result {
            ProofResult::Same => self.same.inc(),
            ProofResult::Differs => self.differs.inc(),
            ProofResult::Failed => self.failed.inc(),
        }
    }
}

/// The proofs in progress, and the keys for which there is none.
#[derive(Debug)]
pub struct GuestProofs {
    permits: Arc<Semaphore>,
    differing: Cache<KeyHash, Wall>,
    /// Counts of proofs.
    pub counters: GuestProofCounters,
}

impl Default for GuestProofs {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_PROOFS)),
            differing: Cache::new(MAX_DIFFERING),
            counters: GuestProofCounters::default(),
        }
    }
}

impl GuestProofs {
    /// The right to prove one answer, unless too many are being proven.
    pub(super) fn begin(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        if permit.is_none() {
            self.counters.rejected.inc();
        }
        permit
    }

    /// Remembers that the guests of this key get different answers.
    pub(super) fn mark_differing(&self, key: KeyHash, now: Wall) {
        self.differing.insert(key, now.after(DIFFERING_TTL));
    }

    /// Whether the guests of this key got different answers a moment ago.
    #[must_use]
    pub fn differ(&self, key: KeyHash, now: Wall) -> bool {
        match self.differing.get(&key) {
            Some(until) if now < until => true,
            Some(_) => {
                self.differing.remove(&key);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_bounded_in_number() {
        let proofs = GuestProofs::default();
        let running: Vec<_> = (0..MAX_PROOFS).filter_map(|_| proofs.begin()).collect();
        assert_eq!(running.len(), MAX_PROOFS);
        assert!(proofs.begin().is_none());
        assert_eq!(proofs.counters.rejected.get(), 1);
        drop(running);
        assert!(proofs.begin().is_some());
    }

    #[test]
    fn a_key_counts_as_differing_for_a_while() {
        let (proofs, key) = (GuestProofs::default(), KeyHash::of_byte(1));
        let now = Wall(1_000);
        assert!(!proofs.differ(key, now));
        proofs.mark_differing(key, now);
        assert!(proofs.differ(key, now) && !proofs.differ(KeyHash::of_byte(2), now));
        assert!(!proofs.differ(key, now.after(DIFFERING_TTL)));
    }
}
