//! What a connection to the origin holds for as long as it counts towards a limit.

use tokio::sync::OwnedSemaphorePermit;

use super::counters::CountGuard;

/// The permits of one connection: one of `max_connections`, and one of `max_pinned` if it belongs
/// to a client.
pub(super) struct Permits {
    _connection: OwnedSemaphorePermit,
    _pin: Option<PinPermit>,
}

/// One of `max_pinned`.
pub(super) struct PinPermit {
    _permit: OwnedSemaphorePermit,
    _pinned: CountGuard,
}

impl Permits {
    pub(super) const fn new(connection: OwnedSemaphorePermit, pin: Option<PinPermit>) -> Self {
        Self { _connection: connection, _pin: pin }
    }
}

impl PinPermit {
    pub(super) const fn new(permit: OwnedSemaphorePermit, pinned: CountGuard) -> Self {
        Self { _permit: permit, _pinned: pinned }
    }
}
