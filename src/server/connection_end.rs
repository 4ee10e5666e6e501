//! How a connection ends.

use super::connection_state::ConnectionState;
use super::counters::ServerCounters;
use super::timeouts::Timeout;
use super::unread::Refused;

pub(super) enum ConnectionEnd {
    Closed(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    TimedOut(Timeout),
    /// The client had left, and another request needs the place.
    GivenUp,
    Aborted,
}

impl ConnectionEnd {
    /// Why the sidecar has ended it, where requests may be in progress.
    const fn why(&self) -> Option<&'static str> {
        match self {
            Self::Closed(_) => None,
            Self::TimedOut(Timeout::HalfClosed) => Some("after half_closed"),
            Self::TimedOut(_) => Some("after a timeout"),
            Self::GivenUp => Some("and its place given to another"),
            Self::Aborted => Some("as its connection was closed"),
        }
    }
}

/// Counts it, and tells a request in progress why.
pub(super) fn record_end(end: &ConnectionEnd, state: &ConnectionState, counters: &ServerCounters) {
    if let Some(why) = end.why() {
        state.departure().end(why);
    }
    match end {
        // hyper closes in the middle of a head only when it has rejected it. Its reason is lost if
        // the client does not close afterwards.
        ConnectionEnd::TimedOut(Timeout::Close) if state.is_in_head() => counters.head_errors.inc(),
        ConnectionEnd::Closed(Ok(()))
        | ConnectionEnd::Aborted
        | ConnectionEnd::TimedOut(Timeout::Idle | Timeout::Close) => {}
        ConnectionEnd::Closed(Err(error)) => {
            if Refused::from_error(&**error) == Some(Refused::Http2) {
                counters.http2_errors.inc();
            }
            tracing::debug!(%error, "a client's connection ended with an error");
        }
        ConnectionEnd::TimedOut(Timeout::Head) => counters.header_timeouts.inc(),
        ConnectionEnd::TimedOut(Timeout::Write) => counters.write_timeouts.inc(),
        ConnectionEnd::GivenUp | ConnectionEnd::TimedOut(Timeout::HalfClosed) => {
            counters.half_closed.inc();
        }
    }
}
