//! How many wrong signatures are verified in a second: each costs a stranger nothing and this
//! process up to a tenth of a millisecond.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Wall;

/// The most wrong signatures in a second, after which tokens that are not remembered are not
/// verified until the next one.
pub(super) const MAX_BAD_SIGNATURES: u64 = 500;

/// The second in the upper half, and the wrong signatures in it.
#[derive(Debug, Default)]
pub(super) struct FailureBudget(AtomicU64);

impl FailureBudget {
    /// Whether a signature may be verified.
    pub(super) fn is_left(&self, now: Wall) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        state >> 32 != second(now) || (state & COUNT) < MAX_BAD_SIGNATURES
    }

    /// Counts a wrong signature. Of two that begin a second at once, one may be lost.
    pub(super) fn spend(&self, now: Wall) {
        let state = self.0.load(Ordering::Relaxed);
        if state >> 32 == second(now) {
            self.0.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.store(second(now) << 32 | 1, Ordering::Relaxed);
        }
    }
}

const COUNT: u64 = u32::MAX as u64;

const fn second(now: Wall) -> u64 {
    now.seconds() & COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_budget_and_the_next_one_another() {
        let budget = FailureBudget::default();
        let (now, later) = (Wall(5_000), Wall(6_000));
        for _ in 0..MAX_BAD_SIGNATURES {
            assert!(budget.is_left(now));
            budget.spend(now);
        }
        assert!(!budget.is_left(now) && budget.is_left(later));
        budget.spend(later);
        assert!(budget.is_left(later));
    }
}
