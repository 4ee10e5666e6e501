//! A response's body on its way from the origin. Reading it drives its connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::checkout::Checkout;
use super::trailers::without_forbidden_trailers;
use crate::clock::Clock;
use crate::semantics::body::BodyError;
use crate::telemetry::metrics::Counter;

/// The part of a body that arrived with its head.
pub(super) enum BodyStart {
    /// All of it has arrived.
    Whole(Bytes),
    /// The rest is still to come, or it broke off.
    Part(VecDeque<Result<Frame<Bytes>, BodyError>>),
}

/// Reads the part of the body that arrived with its head. A small response is then complete, and
/// its connection free at once.
pub(super) fn begin<C: Checkout>(
    checkout: &mut C,
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> BodyStart {
    let mut frames = VecDeque::new();
    let mut first: Option<Bytes> = None;
    loop {
        match poll_incoming(checkout, body, cx) {
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

fn poll_incoming<C: Checkout>(
    checkout: &mut C,
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
    match checkout.connection() {
        Some(connection) => connection.drive_until(cx, |cx| Pin::new(&mut *body).poll_frame(cx)),
        None => Pin::new(body).poll_frame(cx),
    }
}

/// A response's body. Reading it to the end frees its connection; dropping it before closes the
/// connection.
pub(super) struct Download<C> {
    ready: VecDeque<Result<Frame<Bytes>, BodyError>>,
    body: Incoming,
    checkout: Option<C>,
    // How long the origin may be silent; `None` where silence is normal.
    idle_timeout: Option<Duration>,
    silent: bool,
    clock: Clock,
    timeouts: Arc<Counter>,
    broken: Arc<Counter>,
}

/// The origin was silent for too long in the middle of a body.
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

impl<C: Checkout> Download<C> {
    pub(super) fn new(
        ready: VecDeque<Result<Frame<Bytes>, BodyError>>,
        body: Incoming,
        checkout: C,
        settings: DownloadSettings,
    ) -> Self {
        let DownloadSettings { idle_timeout, clock, timeouts, broken } = settings;
        let mut this = Self {
            ready,
            body,
            checkout: Some(checkout),
            idle_timeout,
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
        if let Some(checkout) = self.checkout.take() {
            checkout.release();
        }
    }

    fn fail(&mut self) {
        self.broken.inc();
        self.checkout = None;
    }

    /// The origin is silent. The time counts from the first poll that had to wait, so that a slow
    /// client is not held against the origin.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (Some(idle_timeout), Some(connection)) =
            (self.idle_timeout, self.checkout.as_mut().and_then(C::connection))
        else {
            return Poll::Pending;
        };
        if !self.silent {
            self.silent = true;
            connection.deadline.set(self.clock.now(), idle_timeout);
        }
        if connection.deadline.poll(&self.clock, cx).is_pending() {
            return Poll::Pending;
        }
        self.timeouts.inc();
        self.checkout = None;
        Poll::Ready(Some(Err(Box::new(BodyIdleTimeout))))
    }
}

impl<C: Checkout> HttpBody for Download<C> {
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
        let Some(checkout) = &mut this.checkout else { return Poll::Ready(None) };
        let frame = match poll_incoming(checkout, &mut this.body, cx) {
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
        self.ready.is_empty() && self.checkout.is_none()
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
