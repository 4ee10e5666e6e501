//! What the client towards the origin counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::shares::ShareCounters;
use crate::telemetry::metrics::Counter;

/// What the client towards the origin counts. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct UpstreamCounters {
    /// Connections made.
    pub connects: Arc<Counter>,
    /// Requests sent on a connection that was used before.
    pub reused: Arc<Counter>,
    /// Requests sent a second time because the connection that was reused had been closed.
    pub retries: Arc<Counter>,
    /// How the permits of connections are shared.
    pub shares: ShareCounters,
    /// Connections closed because too many interim responses came before a response.
    pub interim: Arc<Counter>,
    /// Connections closed because they were too old for another request.
    pub expired: Arc<Counter>,
    /// Requests that found no connection: queue full, or waited too long.
    pub busy: Arc<Counter>,
    /// Requests that could not connect, in time or at all.
    pub unreachable: Arc<Counter>,
    /// Requests whose response did not begin in time, and bodies that fell silent.
    pub timeouts: Arc<Counter>,
    /// Responses that broke off or were not HTTP.
    pub broken: Arc<Counter>,
    /// Sockets open towards the origin now.
    pub open: Arc<AtomicUsize>,
    /// Connections waiting for a request now.
    pub idle: Arc<AtomicUsize>,
    /// Connections that belong to one client now, in use or not.
    pub pinned: Arc<AtomicUsize>,
    /// Requests that got a connection for themselves alone, because too many belong to clients.
    pub pins_rejected: Arc<Counter>,
    /// Tunnels and event streams open now.
    pub tunnels: Arc<AtomicUsize>,
    /// Requests for a tunnel or an event stream that got none, because too many were open.
    pub tunnels_rejected: Arc<Counter>,
    /// Requests waiting for a connection now.
    pub waiting: Arc<AtomicUsize>,
}

/// Counts something for as long as it lives.
pub(super) struct CountGuard(Arc<AtomicUsize>);

impl CountGuard {
    pub(super) fn up(gauge: &Arc<AtomicUsize>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauge))
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
