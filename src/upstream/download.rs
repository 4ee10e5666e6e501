//! A response's body on its way from the origin. Reading it drives its connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::PooledConnection;
use super::trailers::without_forbidden_trailers;
use crate::clock::Clock;
use crate::semantics::body::BodyError;
use crate::telemetry::metrics::Counter;

/// What became of a body while its head was looked at.
pub(super) enum BodyStart {
    /// All of it has come.
    Whole(Bytes),
    /// The rest is still to come, or it broke off.
    Part(VecDeque<Result<Frame<Bytes>, BodyError>>),
}

/// Reads what has come of the body together with its head. A small response is then whole, and its
/// connection free at once.
pub(super) fn begin(
    lease: &mut PooledConnection,
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> BodyStart {
    let mut frames = VecDeque::new();
    let mut first: Option<Bytes> = None;
    loop {
        match poll_incoming(lease, body, cx) {
            Poll::Ready(None) => match first {
                Some(bytes) => return BodyStart::Whole(bytes),
                None => return BodyStart::Whole(Bytes::new()),
            },
            Poll::Ready(Some(Ok(frame))) => match (frame.into_data(), first.take()) {
                (Ok(bytes), None) if body.is_end_stream() => return BodyStart::Whole(bytes),
                (Ok(bytes), None) => first = Some(bytes),
                (next, before) => {
                    frames.extend(before.map(|bytes| Ok(Frame::data(bytes))));
                    frames.push_back(Ok(next.map_or_else(without_forbidden_trailers, Frame::data)));
                    return BodyStart::Part(frames);
                }
            },
            Poll::Ready(Some(Err(error))) => {
                frames.extend(first.map(|bytes| Ok(Frame::data(bytes))));
                frames.push_back(Err(error.into()));
                return BodyStart::Part(frames);
            }
            Poll::Pending => {
                frames.extend(first.map(|bytes| Ok(Frame::data(bytes))));
                return BodyStart::Part(frames);
            }
        }
    }
}

fn poll_incoming(
    lease: &mut PooledConnection,
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
    match lease.connection() {
        Some(link) => link.drive_until(cx, |cx| Pin::new(&mut *body).poll_frame(cx)),
        None => Pin::new(body).poll_frame(cx),
    }
}

/// A response's body. Its connection is free again when it has been read to the end, and closed if
/// it is dropped before.
pub(super) struct Download {
    ready: VecDeque<Result<Frame<Bytes>, BodyError>>,
    body: Incoming,
    connection: Option<PooledConnection>,
    // How long the app may be silent; `None` where silence is normal.
    idle_timeout: Option<Duration>,
    silent: bool,
    clock: Clock,
    timeouts: Arc<Counter>,
    broken: Arc<Counter>,
}

/// The app said nothing for too long in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the response's body fell silent")]
struct BodyIdleTimeout;

/// What a [`Download`] needs besides its body.
pub(super) struct DownloadSettings {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) clock: Clock,
    pub(super) timeouts: Arc<Counter>,
    pub(super) broken: Arc<Counter>,
}

impl Download {
    pub(super) fn new(
        ready: VecDeque<Result<Frame<Bytes>, BodyError>>,
        body: Incoming,
        lease: PooledConnection,
        terms: DownloadSettings,
    ) -> Self {
        let DownloadSettings { idle_timeout: patience, clock, timeouts, broken } = terms;
        let mut this = Self {
            ready,
            body,
            connection: Some(lease),
            idle_timeout: patience,
            silent: false,
            clock,
            timeouts,
            broken,
        };
        match this.ready.back() {
            Some(Err(_)) => this.fail(),
            // Trailers end a body.
            Some(Ok(frame)) if frame.is_trailers() || this.body.is_end_stream() => this.release(),
            _ => {}
        }
        this
    }

    fn release(&mut self) {
        if let Some(lease) = self.connection.take() {
            lease.release();
        }
    }

    fn fail(&mut self) {
        self.broken.inc();
        self.connection = None;
    }

    /// The app is silent. Counted from the first time somebody waited for it, so that a slow client
    /// is not held against the app.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (Some(patience), Some(link)) =
            (self.idle_timeout, self.connection.as_mut().and_then(PooledConnection::connection))
        else {
            return Poll::Pending;
        };
        if !self.silent {
            self.silent = true;
            link.deadline.set(self.clock.now(), patience);
        }
        if link.deadline.poll(&self.clock, cx).is_pending() {
            return Poll::Pending;
        }
        self.timeouts.inc();
        self.connection = None;
        Poll::Ready(Some(Err(Box::new(BodyIdleTimeout))))
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.ready.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let Some(lease) = &mut this.connection else { return Poll::Ready(None) };
        let frame = match poll_incoming(lease, &mut this.body, cx) {
            Poll::Pending => return this.wait(cx),
            Poll::Ready(frame) => frame,
        };
        this.silent = false;
        match frame {
            None => {
                this.release();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.release();
                }
                Poll::Ready(Some(Ok(without_forbidden_trailers(frame))))
            }
            Some(Err(error)) => {
                this.fail();
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let waiting: u64 = self
            .ready
            .iter()
            .flatten()
            .filter_map(Frame::data_ref)
            .map(|bytes| bytes.len() as u64)
            .sum();
        match self.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + waiting),
            None => SizeHint::default(),
        }
    }
}
