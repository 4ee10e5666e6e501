//! Connections that belong to one client connection, because its client logs in the connection
//! itself (NTLM, Negotiate). They are a type of their own, which has no way into the pool.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::checkout::{Checkout, CheckoutState};
use super::connection::Connection;
use super::counters::CountGuard;
use super::error::UpstreamError;
use super::permits::{LimitPermit, Permits};
use super::pool::{Pool, Sweep};
use crate::shares::Requester;

/// Where one client connection keeps its own connection to the origin between two requests.
/// Dropping it closes that connection.
pub struct PinSlot {
    idle: Mutex<Option<CheckoutState>>,
    pool: Arc<Pool>,
}

impl PinSlot {
    pub(super) fn new(pool: &Arc<Pool>) -> Arc<Self> {
        let slot = Arc::new(Self { idle: Mutex::new(None), pool: Arc::clone(pool) });
        let watched: Weak<dyn Sweep> = Arc::<Self>::downgrade(&slot);
        pool.watch(watched);
        slot
    }

    pub(super) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// The client's own connection, or the permits for one. None: all pins are taken.
    pub(super) async fn checkout(
        self: &Arc<Self>,
        requester: &Requester,
    ) -> Result<Option<PinnedConnection>, UpstreamError> {
        let idle = self.idle.lock().take();
        if let Some(mut state) = idle {
            if let (Some(permits), Some(departure)) = (&mut state.permits, &requester.departure) {
                permits.attach(departure);
            }
            if !state.connection.as_mut().is_some_and(|connection| connection.is_free_now()) {
                state.connection = None;
            }
            return Ok(Some(PinnedConnection { state, slot: Arc::clone(self) }));
        }
        let Ok(permit) = Arc::clone(&self.pool.pin_permits).try_acquire_owned() else {
            self.pool.counters.pins_rejected.inc();
            return Ok(None);
        };
        let pin = LimitPermit::new(permit, CountGuard::up(&self.pool.counters.pinned));
        let permits = Permits::new(self.pool.permit(requester).await?, Some(pin));
        Ok(Some(PinnedConnection { state: CheckoutState::new(permits), slot: Arc::clone(self) }))
    }
}

impl Sweep for PinSlot {
    fn sweep(&self) {
        let mut idle = self.idle.lock();
        let is_open = |state: &mut CheckoutState| {
            state.connection.as_mut().is_some_and(|connection| connection.is_free())
        };
        let closing =
            if idle.as_mut().is_some_and(|state| !is_open(state)) { idle.take() } else { None };
        drop(idle);
        drop(closing);
    }
}

impl std::fmt::Debug for PinSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinSlot").finish_non_exhaustive()
    }
}

/// A connection that goes back to its client.
pub(super) struct PinnedConnection {
    state: CheckoutState,
    slot: Arc<PinSlot>,
}

impl Checkout for PinnedConnection {
    const IS_SHARED: bool = false;

    fn state(&mut self) -> &mut CheckoutState {
        &mut self.state
    }

    /// The client's own connection, however long it was idle: a new one would not be logged in.
    fn reuse(&mut self, _: Instant, _: Duration) -> Option<&mut Connection> {
        self.connection()
    }

    fn release(mut self) {
        if let Some(connection) = &mut self.state.connection
            && connection.is_free()
        {
            connection.deadline.clear();
            if let Some(permits) = &mut self.state.permits {
                permits.set_tunnel(None);
            }
            *self.slot.idle.lock() = Some(self.state);
        }
    }
}
