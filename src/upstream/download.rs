//! A response's body on its way from the origin. Reading it drives its connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::checkout::Checkout;
use super::trailers::without_forbidden_trailers;
use crate::clock::Clock;
use crate::semantics::body::BodyError;
use crate::shares::{PauseWatch, PermitHolder};
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
pub(super) struct Download<C: Checkout> {
    ready: VecDeque<Result<Frame<Bytes>, BodyError>>,
    body: Incoming,
    slot: Arc<DownloadSlot<C>>,
    /// The connection was given back.
    released: bool,
    // How long the origin may be silent; `None` where silence is normal.
    idle_timeout: Option<Duration>,
    silent: bool,
    /// The size of the frame that the reader has now.
    last: usize,
    clock: Clock,
    timeouts: Arc<Counter>,
    broken: Arc<Counter>,
}

/// Where the connection is while its response is read. It can be taken away while the reader
/// pauses.
struct DownloadSlot<C> {
    checkout: Mutex<Option<C>>,
    /// Whether the reader pauses: then nobody polls the body.
    watch: PauseWatch,
}

impl<C: Checkout> PermitHolder for DownloadSlot<C> {
    fn paused_for(&self, now: Instant) -> Option<Duration> {
        self.watch.paused_for(now)
    }

    fn cut(&self) {
        let mut checkout = self.checkout.lock();
        // A reader that reads again polls the body, and must be woken by its connection.
        let taken = if self.watch.is_paused() { checkout.take() } else { None };
        drop(checkout);
        drop(taken);
    }
}

/// The origin was silent for too long in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the response's body fell silent")]
struct BodyIdleTimeout;

/// The reader paused while clients of another address waited for the connection.
#[derive(Debug, thiserror::Error)]
#[error("the response was not read while others waited for its connection")]
struct ReaderPaused;

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
        mut checkout: C,
        settings: DownloadSettings,
    ) -> Self {
        let DownloadSettings { idle_timeout, clock, timeouts, broken } = settings;
        let slot = Arc::new_cyclic(|slot: &Weak<DownloadSlot<C>>| {
            if let Some(permits) = &checkout.state().permits {
                let holder: Weak<dyn PermitHolder> = Weak::<DownloadSlot<C>>::clone(slot);
                permits.watch(holder);
            }
            DownloadSlot { checkout: Mutex::new(Some(checkout)), watch: PauseWatch::default() }
        });
        slot.watch.pause(clock.now(), None);
        let mut this = Self {
            ready,
            body,
            slot,
            released: false,
            idle_timeout,
            silent: false,
            last: 0,
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
        self.released = true;
        if let Some(checkout) = self.slot.checkout.lock().take() {
            checkout.release();
        }
    }

    fn fail(&mut self) {
        self.broken.inc();
        self.close();
    }

    fn close(&mut self) {
        self.released = true;
        let checkout = self.slot.checkout.lock().take();
        drop(checkout);
    }

    /// The origin is silent. The time counts from the first poll that had to wait, so that a slow
    /// client is not held against the origin.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut checkout = self.slot.checkout.lock();
        let (Some(idle_timeout), Some(connection)) =
            (self.idle_timeout, checkout.as_mut().and_then(C::connection))
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
        drop(checkout);
        self.timeouts.inc();
        self.close();
        Poll::Ready(Some(Err(Box::new(BodyIdleTimeout))))
    }

    fn next_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if self.released {
            return Poll::Ready(None);
        }
        let polled = self
            .slot
            .checkout
            .lock()
            .as_mut()
            .map(|checkout| poll_incoming(checkout, &mut self.body, cx));
        let Some(polled) = polled else {
            self.released = true;
            return Poll::Ready(Some(Err(Box::new(ReaderPaused))));
        };
        let Poll::Ready(frame) = polled else { return self.wait(cx) };
        self.silent = false;
        match frame {
            None => {
                self.release();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.release();
                }
                Poll::Ready(Some(Ok(without_forbidden_trailers(frame))))
            }
            Some(Err(error)) => {
                self.fail();
                Poll::Ready(Some(Err(error.into())))
            }
        }
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
        if this.released {
            return this.next_frame(cx);
        }
        this.slot.watch.resume(this.clock.now(), std::mem::take(&mut this.last));
        let polled = this.next_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.last = frame.data_ref().map_or(0, Bytes::len);
            this.slot.watch.pause(this.clock.now(), None);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.released
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
