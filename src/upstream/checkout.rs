//! A connection for one exchange. Its type decides what becomes of it afterwards: it goes back into
//! the pool, back to the one client that it belongs to, or nowhere.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::permits::{LimitPermit, Permits};

/// A connection for one exchange. Dropping it closes the connection.
pub(super) trait Checkout: Send + Unpin + 'static {
    /// Whether the next exchange on the connection may be another client's.
    const IS_SHARED: bool;

    /// The connection and its permits.
    fn state(&mut self) -> &mut CheckoutState;

    /// Takes an idle connection, if one has been idle for less than `max_age`.
    fn reuse(&mut self, now: Instant, max_age: Duration) -> Option<&mut Connection>;

    /// The exchange is over.
    fn release(self);

    /// The connection, if there is one.
    fn connection(&mut self) -> Option<&mut Connection> {
        self.state().connection.as_deref_mut()
    }

    /// Replaces the connection.
    fn install(&mut self, connection: Connection) -> &mut Connection {
        self.state().connection.insert(Box::new(connection))
    }

    /// Closes the connection and keeps the permits.
    fn close(&mut self) {
        self.state().connection = None;
    }

    /// The head of the response is there: the request is no longer given up for others.
    fn settle(&mut self) {
        if let Some(permits) = &mut self.state().permits {
            permits.settle();
        }
    }

    /// The connection becomes a tunnel or an event stream, or is one no longer.
    fn set_tunnel(&mut self, tunnel: Option<LimitPermit>) {
        if let Some(permits) = &mut self.state().permits {
            permits.set_tunnel(tunnel);
        }
    }

    /// Whether it counts as a tunnel.
    fn is_tunnel(&mut self) -> bool {
        self.state().permits.as_ref().is_some_and(Permits::is_tunnel)
    }

    /// Gives the connection a task of its own. It then serves no other exchange.
    fn detach(&mut self) {
        let CheckoutState { connection, permits } = self.state();
        if let Some(connection) = connection {
            connection.detach(permits.take());
        }
    }

    /// Lets an upgraded connection go.
    fn become_tunnel(&mut self) {
        let CheckoutState { connection, permits } = self.state();
        if let Some(connection) = connection.take() {
            connection.into_tunnel(permits.take());
        }
    }
}

/// What every checkout holds. The connection is dropped first, so that it is closed before the next
/// request gets the permit.
pub(super) struct CheckoutState {
    pub(super) connection: Option<Box<Connection>>,
    pub(super) permits: Option<Permits>,
}

impl CheckoutState {
    pub(super) const fn new(permits: Permits) -> Self {
        Self { connection: None, permits: Some(permits) }
    }
}
