//! The two bodies of a request: the client's, which must not stall, and the response's, which keeps
//! the connection busy until it is dropped, and which a drain may end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection_state::BusyGuard;
use crate::clock::Clock;
use crate::semantics::body::{Body, BodyError};
use crate::semantics::media_type::is_event_stream;
use crate::shares::PauseWatch;
use crate::telemetry::metrics::Counter;

/// A request's body. A frame that takes longer than the limit is an [`io::ErrorKind::TimedOut`], an
/// end that the client did not declare an [`io::ErrorKind::UnexpectedEof`].
pub(super) struct RequestBody {
    incoming: Incoming,
    end: RequestEnd,
    limits: BodyLimits,
    /// Created only when a frame is not there yet, which is rare.
    timer: Option<Pin<Box<Sleep>>>,
    _busy: BusyGuard,
}

/// What the end of a request's body looks like.
#[derive(Clone, Copy)]
pub(super) enum RequestEnd {
    /// HTTP/1: hyper reads to the end of the framing, and anything else is an error.
    Framed,
    /// HTTP/2: hyper takes a stream that was reset with `NO_ERROR` for one that has ended (RFC 9113
    /// 8.1 has it so for responses to a client). Only `END_STREAM` ends a request.
    EndStream,
}

impl RequestEnd {
    pub(super) fn of(version: Version) -> Self {
        if version < Version::HTTP_2 { Self::Framed } else { Self::EndStream }
    }

    /// Whether a body that gives no more frames is whole.
    fn is_reached(self, incoming: &Incoming) -> bool {
        match self {
            Self::Framed => true,
            // Of HTTP/2, it says whether END_STREAM came and all before it is read.
            Self::EndStream => incoming.is_end_stream(),
        }
    }
}

/// How long a request's body may pause.
pub(super) struct BodyLimits {
    /// At most, whatever else happens.
    pub(super) timeout: Duration,
    pub(super) timeouts: Arc<Counter>,
    /// It may be cut before that, if another peer waits.
    pub(super) watch: Arc<PauseWatch>,
    pub(super) clock: Clock,
}

impl RequestBody {
    pub(super) const fn new(
        incoming: Incoming,
        end: RequestEnd,
        limits: BodyLimits,
        busy: BusyGuard,
    ) -> Self {
        Self { incoming, end, limits, timer: None, _busy: busy }
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
        let BodyLimits { timeout, timeouts, watch, clock } = &this.limits;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            if this.timer.take().is_some() {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                watch.resume(clock.now(), data.map_or(0, Bytes::len));
            }
            if frame.is_none() && !this.end.is_reached(&this.incoming) {
                let why = "the client reset its request before the end of the body";
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, why);
                return Poll::Ready(Some(Err(error.into())));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(*timeout)));
        watch.pause(clock.now(), Some(cx.waker()));
        if !watch.is_cut() {
            ready!(timer.as_mut().poll(cx));
            timeouts.inc();
        }
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.timer.is_some() {
            // Nobody waits for the client any more.
            self.limits.watch.resume(self.limits.clock.now(), 0);
        }
    }
}

/// How long a response of unknown length has been silent if it waits for something to happen.
const QUIET: Duration = Duration::from_secs(1);

/// The end that a drain sets to a response that may have none of its own.
///
/// An event stream ends as if its origin had ended it: its client connects again, and no event is
/// cut in two that it would not drop. Another response of unknown length that has been silent for
/// [`QUIET`] is broken off, so that nobody takes it for whole. One that makes progress goes on.
pub(super) struct StreamEnd {
    due: Pin<Box<WaitForCancellationFutureOwned>>,
    is_events: bool,
    last: Instant,
    clock: Clock,
    ended: Arc<Counter>,
}

impl StreamEnd {
    /// For a response that is streamed and does not say how long it is; hits are in memory.
    pub(super) fn of(
        response: &Response<Body>,
        (due, clock, ended): (&CancellationToken, &Clock, &Arc<Counter>),
    ) -> Option<Box<Self>> {
        let body = response.body();
        if body.buffered_len().is_some() {
            return None;
        }
        let is_events = is_event_stream(response.headers());
        (is_events || body.size_hint().exact().is_none()).then(|| {
            Box::new(Self {
                due: Box::pin(due.clone().cancelled_owned()),
                is_events,
                last: clock.now(),
                clock: clock.clone(),
                ended: Arc::clone(ended),
            })
        })
    }

    fn is_stream(&self) -> bool {
        self.is_events || self.clock.now().saturating_duration_since(self.last) >= QUIET
    }
}

/// How long an error waits, so that what came before it is written: hyper drops what it has not
/// written yet when a body fails, the head among it.
const HOLD_TIME: Duration = Duration::from_millis(10);

/// The error in which a response's body ends, until what came before it is on its way.
struct HeldError {
    error: BodyError,
    timer: Pin<Box<Sleep>>,
}

impl HeldError {
    fn new(error: BodyError) -> Self {
        Self { error, timer: Box::pin(tokio::time::sleep(HOLD_TIME)) }
    }

    /// Ready when the client had time to read what was there. One that does not read is closed by
    /// the limit of a write.
    fn poll_written(&mut self, busy: &BusyGuard, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.as_mut().poll(cx));
        while busy.is_blocked() {
            self.timer.set(tokio::time::sleep(HOLD_TIME));
            ready!(self.timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

/// A response's body. It is a type of its own, because a wrapper inside [`Body`] would cost an
/// allocation for each response.
pub(super) struct ResponseBody {
    body: Body,
    /// Its end was read.
    ended: bool,
    /// How many bytes are left to read, if that is known.
    left: Option<u64>,
    /// Counts it if it is dropped before its end.
    cut: Option<Arc<Counter>>,
    stream: Option<Box<StreamEnd>>,
    failed: Option<Box<HeldError>>,
    busy: BusyGuard,
}

impl ResponseBody {
    /// The body of a response with these headers.
    pub(super) fn new(
        headers: &HeaderMap,
        body: Body,
        busy: BusyGuard,
        cut: &Arc<Counter>,
    ) -> Self {
        // What is at hand as a whole is for hyper to send.
        let (cut, left) = match body.buffered_len() {
            Some(_) => (None, None),
            None => (Some(Arc::clone(cut)), body.size_hint().exact().or(stated_length(headers))),
        };
        Self { body, ended: false, left, cut, stream: None, failed: None, busy }
    }

    /// The same, which a drain may end.
    pub(super) fn ending(mut self, stream: Option<Box<StreamEnd>>) -> Self {
        self.stream = stream;
        self
    }
}

/// How long a response says that it is: hyper reads no further, and may never see the body's end.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl ResponseBody {
    /// The end of a response that broke off.
    fn poll_failed(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(failed) = &mut self.failed else { return Poll::Ready(None) };
        ready!(failed.poll_written(&self.busy, cx));
        let failed = self.failed.take();
        Poll::Ready(failed.map(|failed| Err(failed.error)))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(cut) = &self.cut
            && !self.ended
            && self.left != Some(0)
            && !self.body.is_end_stream()
        {
            cut.inc();
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.failed.is_some() {
            return this.poll_failed(cx);
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let polled = match polled {
            Poll::Ready(Some(Err(error))) => {
                // What has failed may look like one that was read to its end.
                if let Some(cut) = this.cut.take() {
                    cut.inc();
                }
                // Whatever the body holds at the origin is free at once.
                (this.body, this.stream) = (Body::empty(), None);
                this.failed = Some(Box::new(HeldError::new(error)));
                return this.poll_failed(cx);
            }
            polled => polled,
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let read = frame.data_ref().map_or(0, |data| data.len() as u64);
            this.left = this.left.map(|left| left.saturating_sub(read));
        }
        this.ended |= matches!(polled, Poll::Ready(None));
        let Some(stream) = &mut this.stream else { return polled };
        if polled.is_ready() {
            stream.last = stream.clock.now();
            return polled;
        }
        ready!(stream.due.as_mut().poll(cx));
        let (is_events, is_stream) = (stream.is_events, stream.is_stream());
        if !is_stream {
            this.stream = None;
            return Poll::Pending;
        }
        stream.ended.inc();
        this.stream = None;
        this.body = Body::empty();
        this.ended = true;
        let error = || io::Error::other("the sidecar stops, and the response has no end");
        Poll::Ready((!is_events).then(|| Err(error().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
