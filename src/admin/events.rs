//! `/events`: events as they happen, as server-sent events, for the dashboard and other clients.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::{Extensions, StatusCode};
use tokio::sync::broadcast::error::RecvError;

use super::response::{ApiError, set_security_headers};
use super::state::{AdminState, MAX_SUBSCRIBERS};
use crate::telemetry::events::OperatorEvent;

/// How often an idle stream sends a comment, to keep the connection alive.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Marks a connection as a stream of events or requests, which may stay open for longer.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamPermit(Arc<AtomicBool>);

impl StreamPermit {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The last few events, then all events from now on.
pub(super) fn stream(state: &Arc<AdminState>, last: usize, extensions: &Extensions) -> Response {
    let Ok(permit) = Arc::clone(&state.subscribers).try_acquire_owned() else {
        let refused = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_SUBSCRIBERS} clients are subscribed to events already"),
        );
        return refused.hint("close another dashboard or stream").into_response();
    };
    if let Some(connection) = extensions.get::<StreamPermit>() {
        connection.set();
    }
    let (recent, receiver) = state.proxy.events.listen(last);
    let first = stream::iter(recent.into_iter().map(|event| Ok(sse_event(&event))));
    let stop = state.stop.clone();
    let more = stream::unfold((receiver, stop, permit), async |(mut receiver, stop, permit)| {
        loop {
            // The drain does not wait for subscribers.
            match stop.run_until_cancelled(receiver.recv()).await? {
                Ok(event) => return Some((Ok(sse_event(&event)), (receiver, stop, permit))),
                // The gap in the numbers of the events shows that some were missed.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let mut response = Sse::new(all(first, more))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    set_security_headers(response.headers_mut());
    response
}

fn all(
    first: impl Stream<Item = Result<Sent, Infallible>>,
    more: impl Stream<Item = Result<Sent, Infallible>>,
) -> impl Stream<Item = Result<Sent, Infallible>> {
    futures_util::StreamExt::chain(first, more)
}

fn sse_event(event: &OperatorEvent) -> Sent {
    let data = serde_json::to_string(event).unwrap_or_default();
    Sent::default().event(event.what.kind()).id(event.id.to_string()).data(data)
}
