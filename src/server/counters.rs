//! What the server counts.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::telemetry::metrics::Counter;

/// What happened at the edge. Clones share their numbers.
#[derive(Clone, Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted, those that were then refused included.
    pub accepted: Arc<Counter>,
    /// Connections open now, tunnels included.
    pub open: Arc<AtomicUsize>,
    /// Connections refused because `max_connections` were open.
    pub refused_full: Arc<Counter>,
    /// Accepts that failed.
    pub accept_errors: Arc<Counter>,
    /// Requests refused for carrying both `Content-Length` and `Transfer-Encoding`.
    pub framing_errors: Arc<Counter>,
    /// Requests refused because their head is malformed or too large (400, 414, 431).
    pub head_errors: Arc<Counter>,
    /// Connections ended because a head did not come to its end.
    pub header_timeouts: Arc<Counter>,
    /// Connections closed because no request came.
    pub idle_closed: Arc<Counter>,
    /// Request bodies given up because the client paused.
    pub body_timeouts: Arc<Counter>,
    /// Connections ended because the client took no byte of its response.
    pub write_timeouts: Arc<Counter>,
    /// Requests that made the service panic.
    pub panics: Arc<Counter>,
    /// Connections cut at the end of the drain.
    pub aborted: Arc<Counter>,
}
