//! What the server counts.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::semantics::forward::BadRequest;
use crate::shares::ShareCounters;
use crate::telemetry::metrics::Counter;

/// What the server counts. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted, including those that were then rejected.
    pub accepted: Arc<Counter>,
    /// Connections open now, tunnels included.
    pub open: Arc<AtomicUsize>,
    /// How the permits of connections are shared.
    pub shares: ShareCounters,
    /// Connections rejected because `max_connections` were open.
    pub refused_full: Arc<Counter>,
    /// Failures to accept a connection.
    pub accept_errors: Arc<Counter>,
    /// Requests rejected because they have both `Content-Length` and `Transfer-Encoding`.
    pub framing_errors: Arc<Counter>,
    /// Requests rejected because their head is malformed, or not HTTP/1 at all (400).
    pub head_errors: Arc<Counter>,
    /// Requests rejected because their head or their target is too large (414, 431).
    pub large_heads: Arc<Counter>,
    /// Requests rejected because they have too many fields (431).
    pub crowded_heads: Arc<Counter>,
    /// HTTP/2 connections that ended because of what the client sent.
    pub http2_errors: Arc<Counter>,
    /// Connections closed because a request's head was not complete in time.
    pub header_timeouts: Arc<Counter>,
    /// Connections closed because no request came.
    pub idle_closed: Arc<Counter>,
    /// Request bodies that ended because the client paused for too long.
    pub body_timeouts: Arc<Counter>,
    /// Connections closed because the client stopped reading its response.
    pub write_timeouts: Arc<Counter>,
    /// Requests of clients that had closed their side, given up because the response made no
    /// progress in time or because others needed the place.
    pub half_closed: Arc<Counter>,
    /// Responses that were not sent to their end.
    pub cut_responses: Arc<Counter>,
    /// Requests that made the service panic.
    pub panics: Arc<Counter>,
    /// Streams of responses that a drain ended.
    pub streams_ended: Arc<Counter>,
    /// Connections closed at the end of the drain, with requests in progress.
    pub aborted: Arc<Counter>,
}

impl ServerCounters {
    /// The counter of heads that are refused for this.
    pub(super) fn refused_head(&self, why: BadRequest) -> &Counter {
        match why {
            BadRequest::HeadTooLarge | BadRequest::TargetTooLong => &self.large_heads,
            BadRequest::TooManyFields => &self.crowded_heads,
            _ => &self.head_errors,
        }
    }
}
