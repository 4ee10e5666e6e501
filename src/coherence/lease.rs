//! Lock-free copy of the core's [`LeaseState`], read on every hit.
//!
//! Invariant: a reader that finds the lease held *and then* the session unchanged knows that the
//! local table was complete when it checked the lease. So the session is written before the lease,
//! and read after it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::coherence::core::{LeaseState, MonotonicTime};

/// A copy of the lease state, as atomics.
#[derive(Debug)]
pub struct AtomicLeaseState {
    epoch: AtomicU64,
    session: AtomicU64,
    contact_until: AtomicU64,
    lease_until: AtomicU64,
    started: Instant,
    clock: Clock,
}

impl AtomicLeaseState {
    /// A copy without contact and without a lease, in this epoch.
    #[must_use]
    pub fn new(epoch: u64, clock: Clock) -> Self {
        let started = clock.now();
        let zero = || AtomicU64::new(0);
        Self {
            epoch: AtomicU64::new(epoch),
            session: zero(),
            contact_until: zero(),
            lease_until: zero(),
            started,
            clock,
        }
    }

    /// The time as the core counts it.
    #[must_use]
    pub fn now(&self) -> MonotonicTime {
        self.clock.now().saturating_duration_since(self.started)
    }

    /// That time as an instant; `None` if it is too far away.
    #[must_use]
    pub fn instant(&self, at: MonotonicTime) -> Option<Instant> {
        self.started.checked_add(at)
    }

    /// Copies the core's state. Call it under the core's lock, so that two calls cannot cross.
    pub fn publish(&self, lease_state: LeaseState) {
        self.epoch.store(lease_state.epoch, SeqCst);
        self.session.store(lease_state.session, SeqCst);
        self.contact_until.store(nanos(lease_state.contact_until), SeqCst);
        self.lease_until.store(nanos(lease_state.lease_until), SeqCst);
    }

    /// The number of the present epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Changes whenever a message may have been missed.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session.load(SeqCst)
    }

    /// Whether records may be read on the strength of the connection.
    #[must_use]
    pub fn has_contact(&self) -> bool {
        let until = self.contact_until.load(SeqCst);
        nanos(self.now()) < until
    }

    /// Whether the local table may be trusted.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        let until = self.lease_until.load(SeqCst);
        // Without Redis or a lease, which is common, no clock is read.
        until != 0 && nanos(self.now()) < until
    }
}

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}
