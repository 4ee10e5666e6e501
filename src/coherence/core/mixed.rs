//! Sidecars that speak another protocol in the same namespace: what they call a tag need not be
//! what this version calls it, so that neither side purges what the other one has stored.
//!
//! While one of them may be there, nothing is served or stored by what Redis says, and what is
//! purged for a write is everything, which all versions understand. When it is gone, everything is
//! purged before Redis is trusted.

use super::state::Core;
use super::types::{MonotonicTime, Phase, ReplayBatch};

impl Core {
    /// Whether a sidecar that speaks another protocol may be there.
    #[must_use]
    pub const fn is_mixed(&self) -> bool {
        self.mixed_until.is_some()
    }

    /// A sidecar that speaks another protocol was seen.
    pub(super) fn on_other_protocol(&mut self, now: MonotonicTime) {
        let until = self.settings.lease_expiry(now);
        self.mixed_until = self.mixed_until.max(Some(until));
        if self.phase == Phase::Joined {
            // From the records past the own table to neither.
            self.lease_state.epoch += 2;
            self.phase = Phase::Joining(now);
        }
    }

    /// Purges everything once no such sidecar is there any more.
    pub(super) fn end_mix(&mut self, now: MonotonicTime) {
        if self.mixed_until.is_some_and(|until| now >= until) {
            self.mixed_until = None;
            self.add_to_journal(ReplayBatch { everything: true, ..ReplayBatch::default() });
        }
    }
}
