//! One HTTP/1 connection to the origin: hyper's two halves, driven by the future that waits for
//! them, and one timer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::Request;
use tokio::time::Sleep;

use super::connect::{Driver, NewConnection, Sender};
use super::permits::Permits;
use super::socket::SocketHandle;
use super::upload::Upload;
use crate::clock::Clock;

/// A connection.
pub(super) struct Connection {
    sender: Sender,
    driver: DriverState,
    socket: SocketHandle,
    /// It serves no other request.
    spent: bool,
    /// From when on it serves no other request of the pool; `None` where that is never.
    expires: Option<Instant>,
    pub(super) deadline: DeadlineTimer,
}

/// Who keeps the connection moving.
enum DriverState {
    /// The future that waits for it.
    Here(Driver),
    /// A task of its own: the request must be sent while nothing reads the response.
    Task { _ends_with_this: AbortingTask },
    /// Nothing; it is closed.
    Over,
}

/// A task that ends when this is dropped.
struct AbortingTask(tokio::task::JoinHandle<()>);

impl Drop for AbortingTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The response that hyper will return.
pub(super) trait ResponseFuture:
    Future<Output = Result<http::Response<hyper::body::Incoming>, SendFailure>>
{
}
impl<F: Future<Output = Result<http::Response<hyper::body::Incoming>, SendFailure>>> ResponseFuture
    for F
{
}

/// Why there is no response, and the request if no byte of it was written.
pub(super) type SendFailure = hyper::client::conn::TrySendError<Request<Upload>>;

impl Connection {
    /// A connection that serves requests until `expires`.
    pub(super) fn new((sender, driver, socket): NewConnection, expires: Option<Instant>) -> Self {
        Self {
            sender,
            driver: DriverState::Here(driver),
            socket,
            spent: false,
            expires,
            deadline: DeadlineTimer::default(),
        }
    }

    /// Hands hyper a request. Nothing is written until the connection is driven.
    pub(super) fn send(&mut self, mut request: Request<Upload>) -> impl ResponseFuture + use<> {
        request.body_mut().begin(&self.socket);
        self.sender.try_send_request(request)
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let DriverState::Here(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            // Its error, if any, has gone to the request or the body. Dropping it ensures that
            // neither keeps waiting.
            self.driver = DriverState::Over;
        }
    }

    /// Polls `step` and drives the connection in turn until `step` is ready or both are pending.
    ///
    /// While the connection is driven from here its two ends talk within this task, and waking it
    /// for that would only cost a turn: they get a waker that does nothing, and the task's own is
    /// registered with the socket when there is nothing left to do.
    pub(super) fn drive_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !matches!(self.driver, DriverState::Here(_)) {
            return step(cx);
        }
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = step(&mut nobody) {
            return Poll::Ready(done);
        }
        self.drive(&mut nobody);
        if let Poll::Ready(done) = step(&mut nobody) {
            return Poll::Ready(done);
        }
        // Only here, so that a response which came whole costs nothing more.
        self.socket.set_waiting(true);
        self.drive(cx);
        self.socket.set_waiting(false);
        step(&mut nobody)
    }

    /// What the socket has noted.
    pub(super) const fn socket(&self) -> &SocketHandle {
        &self.socket
    }

    /// Closes the connection after this exchange.
    pub(super) const fn spend(&mut self) {
        self.spent = true;
    }

    /// Whether it is too old for another request.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Like [`Self::is_free`], with a look at the socket itself: bytes that have just arrived may
    /// not have been reported to this process yet.
    pub(super) fn is_free_now(&mut self) -> bool {
        self.socket.set_probe(true);
        let is_free = self.is_free();
        self.socket.set_probe(false);
        is_free
    }

    /// Whether the connection is open, silent and ready for a request.
    pub(super) fn is_free(&mut self) -> bool {
        // SECURITY: an origin that answers before it has the whole request may never read the rest,
        // and take it for the next request.
        if self.spent || self.socket.answered_early() {
            return false;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        // The first poll may only finish the last exchange. Unexpected bytes end the connection
        // here.
        for _ in 0..2 {
            self.drive(&mut nobody);
            match (&self.driver, self.sender.poll_ready(&mut nobody)) {
                (DriverState::Here(_), Poll::Ready(Ok(()))) => return true,
                (DriverState::Here(_), Poll::Pending) => {}
                _ => return false,
            }
        }
        false
    }

    /// Gives the connection a task of its own, which ends with this connection. The socket takes
    /// over the permits.
    pub(super) fn detach(&mut self, permits: Option<Permits>) {
        self.hold(permits);
        self.socket.set_waiting(true);
        match std::mem::replace(&mut self.driver, DriverState::Over) {
            DriverState::Here(driver) => {
                self.driver = DriverState::Task {
                    _ends_with_this: AbortingTask(tokio::spawn(async move { drop(driver.await) })),
                }
            }
            other => self.driver = other,
        }
    }

    /// Lets an upgraded connection go. Its socket, which takes over the permits, belongs to whoever
    /// awaits the upgrade.
    pub(super) fn into_tunnel(mut self, permits: Option<Permits>) {
        self.hold(permits);
        self.drive(&mut Context::from_waker(Waker::noop()));
        // The rest of the request is written in the background; the socket's keep-alive finds an
        // origin that is stuck.
        if let DriverState::Here(driver) = self.driver {
            tokio::spawn(driver);
        }
    }

    fn hold(&self, permits: Option<Permits>) {
        if let Some(permits) = permits {
            self.socket.hold(permits);
        }
    }
}

/// A deadline that is moved for every request and frame, over a timer that is touched only when it
/// fires or fires too late.
#[derive(Default)]
pub(super) struct DeadlineTimer {
    timer: Option<(Pin<Box<Sleep>>, Instant)>,
    deadline: Option<Instant>,
}

impl DeadlineTimer {
    /// Moves the deadline.
    pub(super) fn set(&mut self, now: Instant, after: Duration) {
        // A time that overflows the clock is no deadline.
        self.deadline = now.checked_add(after);
        let Some(deadline) = self.deadline else { return };
        match &self.timer {
            Some((_, fires)) if *fires <= deadline => {}
            _ => self.arm(now, deadline),
        }
    }

    /// Removes the deadline.
    pub(super) const fn clear(&mut self) {
        self.deadline = None;
    }

    /// Ready when the deadline has passed.
    pub(super) fn poll(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        while let (Some(deadline), Some((sleep, _))) = (self.deadline, &mut self.timer) {
            ready!(sleep.as_mut().poll(cx));
            let now = clock.now();
            if now >= deadline {
                return Poll::Ready(());
            }
            self.arm(now, deadline);
        }
        Poll::Pending
    }

    fn arm(&mut self, now: Instant, deadline: Instant) {
        let sleep = tokio::time::sleep(deadline.saturating_duration_since(now));
        match &mut self.timer {
            Some((timer, fires)) => {
                timer.as_mut().set(sleep);
                *fires = deadline;
            }
            None => self.timer = Some((Box::pin(sleep), deadline)),
        }
    }
}
