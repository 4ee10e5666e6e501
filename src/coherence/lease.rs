//! What hits look at: the core's [`LeaseState`], as atomics.
//!
//! Invariant: who finds the lease in force *and then* the session unchanged knows that the table
//! was whole when it looked at the lease. So the session is published before the lease, and is read
//! after it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::coherence::core::{LeaseState, MonotonicTime};

/// The gate.
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
    /// A gate that is shut, in this epoch.
    #[must_use]
    pub fn new(epoch: u64, clock: Clock) -> Self {
        let began = clock.now();
        let zero = || AtomicU64::new(0);
        Self {
            epoch: AtomicU64::new(epoch),
            session: zero(),
            contact_until: zero(),
            lease_until: zero(),
            started: began,
            clock,
        }
    }

    /// The time as the core counts it.
    #[must_use]
    pub fn now(&self) -> MonotonicTime {
        self.clock.now().saturating_duration_since(self.started)
    }

    /// Publishes the core's. Under the core's lock, so that two never cross.
    pub fn publish(&self, gate: LeaseState) {
        self.epoch.store(gate.epoch, SeqCst);
        self.session.store(gate.session, SeqCst);
        self.contact_until.store(nanos(gate.contact_until), SeqCst);
        self.lease_until.store(nanos(gate.lease_until), SeqCst);
    }

    /// The number of the present mode's stretch of time.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// The stretch of time in which nothing was missed.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session.load(SeqCst)
    }

    /// Whether records may be read on the authority of the connection.
    #[must_use]
    pub fn has_contact(&self) -> bool {
        let until = self.contact_until.load(SeqCst);
        nanos(self.now()) < until
    }

    /// Whether the local table may be trusted.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        let until = self.lease_until.load(SeqCst);
        // The usual case without Redis, or without a lease: no clock is read.
        until != 0 && nanos(self.now()) < until
    }
}

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}
