//! The two bodies of a request: the client's, which must not stall, and the response's, which keeps
//! the connection busy until it is dropped.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::connection_state::BusyGuard;
use crate::semantics::body::{Body, BodyError};
use crate::telemetry::metrics::Counter;

/// A request's body. A frame that takes longer than the limit is an [`io::ErrorKind::TimedOut`].
pub(super) struct RequestBody {
    incoming: Incoming,
    limit: Duration,
    /// Created only when a frame is not there yet, which is rare.
    timer: Option<Pin<Box<Sleep>>>,
    timeouts: Arc<Counter>,
    _busy: BusyGuard,
}

impl RequestBody {
    pub(super) const fn new(
        incoming: Incoming,
        limit: Duration,
        late: Arc<Counter>,
        busy: BusyGuard,
    ) -> Self {
        Self { incoming, limit, timer: None, timeouts: late, _busy: busy }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.limit)));
        ready!(timer.as_mut().poll(cx));
        this.timeouts.inc();
        let error =
            io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending its request body");
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A response's body. It is a type of its own, because a wrapper inside [`Body`] would cost an
/// allocation for each response.
pub(super) struct ResponseBody {
    body: Body,
    _busy: BusyGuard,
}

impl ResponseBody {
    pub(super) const fn new(body: Body, busy: BusyGuard) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
