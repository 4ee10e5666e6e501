//! What a connection to the origin holds for as long as it counts towards a limit.

use std::sync::{Arc, Weak};

use tokio::sync::OwnedSemaphorePermit;

use super::counters::CountGuard;
use crate::shares::{Departure, FairPermit, PermitHolder};

/// The permits of one connection: one of `max_connections`, one of `max_pinned` if it belongs to
/// a client, and one of `max_tunnels` if it is one.
pub(super) struct Permits {
    connection: FairPermit,
    _pin: Option<LimitPermit>,
    tunnel: Option<LimitPermit>,
}

/// One of `max_pinned`, or of `max_tunnels`.
pub(super) struct LimitPermit {
    _permit: OwnedSemaphorePermit,
    _count: CountGuard,
}

impl Permits {
    pub(super) const fn new(connection: FairPermit, pin: Option<LimitPermit>) -> Self {
        Self { connection, _pin: pin, tunnel: None }
    }

    /// Names the request that holds the connection, which gives it up for others when its clients
    /// have left.
    pub(super) fn attach(&mut self, departure: &Arc<Departure>) {
        self.connection.attach(departure);
    }

    /// The head of the response is there: the request is no longer given up for others.
    pub(super) fn settle(&mut self) {
        self.connection.settle();
    }

    /// The connection becomes a tunnel or an event stream, or is one no longer.
    pub(super) fn set_tunnel(&mut self, tunnel: Option<LimitPermit>) {
        self.tunnel = tunnel;
    }

    pub(super) const fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Names what holds the connection, so that it can be cut for another peer's request.
    pub(super) fn watch(&self, holder: Weak<dyn PermitHolder>) {
        self.connection.watch(holder);
    }
}

impl LimitPermit {
    pub(super) const fn new(permit: OwnedSemaphorePermit, count: CountGuard) -> Self {
        Self { _permit: permit, _count: count }
    }
}
