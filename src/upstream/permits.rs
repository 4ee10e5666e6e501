//! What a connection to the origin holds for as long as it counts towards a limit.

use std::sync::Weak;

use tokio::sync::OwnedSemaphorePermit;

use super::counters::CountGuard;
use crate::shares::{FairPermit, PermitHolder};

/// The permits of one connection: one of `max_connections`, and one of `max_pinned` if it belongs
/// to a client.
pub(super) struct Permits {
    connection: FairPermit,
    _pin: Option<PinPermit>,
}

/// One of `max_pinned`.
pub(super) struct PinPermit {
    _permit: OwnedSemaphorePermit,
    _pinned: CountGuard,
}

impl Permits {
    pub(super) const fn new(connection: FairPermit, pin: Option<PinPermit>) -> Self {
        Self { connection, _pin: pin }
    }

    /// Names what holds the connection, so that it can be cut for another peer's request.
    pub(super) fn watch(&self, holder: Weak<dyn PermitHolder>) {
        self.connection.watch(holder);
    }
}

impl PinPermit {
    pub(super) const fn new(permit: OwnedSemaphorePermit, pinned: CountGuard) -> Self {
        Self { _permit: permit, _pinned: pinned }
    }
}
