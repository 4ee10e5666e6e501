//! The client's socket as hyper sees it: watched for framing, for a client that stops reading, and
//! closed with care.
//!
//! What hyper writes of its own accord, the response without a body to a head that it refuses, is
//! dropped here, and the stream is given back for a better one. Such a response is told apart as
//! follows: hyper's buffer is empty whenever it calls `poll_flush`. If no message is in progress
//! then, every response of the service has been written; and if hyper writes again before it has
//! handed over another request, the bytes are its own.
//!
//! It notes what it sees in the connection's [`ConnectionState`] and decides nothing. It must stay
//! cheap: it runs for every read and write of every request.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::carry::Carry;
use super::connection_state::ConnectionState;
use super::framing::{ReadScan, Scanner, StreamPosition};
use super::listener::ClientStream;
use super::read_ahead::{ClientReading, ReadAhead};
use crate::clock::Clock;
use crate::shares::{FairPermit, PermitHolder};

/// How much a client may still send after the server has closed its side, before the connection is
/// cut off.
const LINGER_BYTES: usize = 1 << 20;

/// A permit for an open connection, released when the socket closes (after a tunnel, too).
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    permit: FairPermit,
    open: Arc<AtomicUsize>,
}

impl ConnectionPermit {
    /// Counts the connection as open for as long as it has the permit.
    pub(super) fn new(permit: FairPermit, open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self { permit, open: Arc::clone(open) }
    }

    /// Names the connection, so that it can be closed for another peer's.
    pub(super) fn watch(&self, state: &Arc<ConnectionState>) {
        let holder: Weak<dyn PermitHolder> = Arc::<ConnectionState>::downgrade(state);
        self.permit.watch(holder);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that hyper has dropped and whose sending side is open.
#[derive(Debug)]
pub(super) struct ReturnedStream {
    pub(super) stream: ClientStream,
    pub(super) scanner: Scanner,
    pub(super) permit: ConnectionPermit,
}

/// Where a [`Socket`] puts its stream when hyper drops it.
pub(super) type ReturnSlot = Arc<Mutex<Option<ReturnedStream>>>;

/// What a socket has until it is dropped.
#[derive(Debug)]
struct UntilDrop<T>(Option<T>);

impl<T> Deref for UntilDrop<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only the drop takes it")
    }
}

impl<T> DerefMut for UntilDrop<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("only the drop takes it")
    }
}

/// The socket of one connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UntilDrop<ClientStream>,
    state: Arc<ConnectionState>,
    scanner: UntilDrop<Scanner>,
    /// What hyper gets before it gets what the stream has.
    carry: Option<Box<Carry>>,
    /// What hyper has written, since its buffer was last empty.
    written: bool,
    /// How many requests there were when all of them had been answered and written.
    answered: u32,
    /// hyper has written a response of its own, which is dropped.
    refused: bool,
    slot: ReturnSlot,
    /// What the state was last set to: most reads begin and end between two messages.
    position: StreamPosition,
    blocked: bool,
    closed: CloseState,
    ahead: ReadAhead,
    clock: Clock,
    permit: Option<ConnectionPermit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseState {
    No,
    ByClient,
    /// Closed on both sides.
    Whole,
    /// Closed by the server; so many bytes of the client are still tolerated.
    ByUs(usize),
}

impl Socket {
    /// The slot gets the stream when hyper drops the socket before it has closed it.
    pub(super) fn new(
        stream: ClientStream,
        state: Arc<ConnectionState>,
        clock: Clock,
        permit: ConnectionPermit,
        slot: &ReturnSlot,
    ) -> Self {
        Self {
            stream: UntilDrop(Some(stream)),
            state,
            scanner: UntilDrop(Some(Scanner::new())),
            carry: None,
            written: false,
            answered: 0,
            refused: false,
            slot: Arc::clone(slot),
            position: StreamPosition::Between,
            blocked: false,
            closed: CloseState::No,
            ahead: ReadAhead::new(),
            clock,
            permit: Some(permit),
        }
    }

    /// Scans the bytes of a read. None where hyper gets them as they are.
    fn on_read(&mut self, bytes: &[u8]) -> Option<ReadScan> {
        if bytes.is_empty() {
            self.closed = CloseState::ByClient;
            return None;
        }
        if self.position == StreamPosition::Opaque || self.state.is_opaque() {
            self.state.note_word();
            return None;
        }
        let scan = self.scanner.feed(bytes);
        self.state.set_scanned(&self.scanner, scan.flawed);
        let place = self.scanner.position();
        if place != self.position {
            self.position = place;
            self.state.set_position(place);
        }
        (!Carry::is_needless(&scan)).then_some(scan)
    }

    /// Gives hyper what is carried, and then what the client sends behind it.
    #[cold]
    fn poll_read_carried(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut carry = self.carry.take().unwrap_or_default();
        let mut scratch = [0; 4096];
        let read = loop {
            if carry.give(buf) {
                break Poll::Ready(Ok(()));
            }
            // A character is not whole. What follows it is scanned together with it.
            let kept = carry.unfinished().len();
            scratch[..kept].copy_from_slice(carry.unfinished());
            let mut more = ReadBuf::new(&mut scratch);
            more.set_filled(kept);
            let read = if self.ahead.take(&mut more) {
                Poll::Ready(Ok(()))
            } else {
                Pin::new(&mut *self.stream).poll_read(cx, &mut more)
            };
            match read {
                Poll::Ready(Ok(())) if more.filled().len() > kept => {
                    let scan = self.on_read(more.filled()).unwrap_or_default();
                    carry.add(more.filled(), &scan);
                }
                // The end, in the middle of a head: hyper drops what it has of it.
                Poll::Ready(Ok(())) => {
                    self.closed = CloseState::ByClient;
                    return Poll::Ready(Ok(()));
                }
                other => break other,
            }
        };
        if !carry.is_over() {
            self.carry = Some(carry);
        }
        read
    }

    /// Whether what hyper is about to write is a response of its own.
    fn speaks_for_itself(&self) -> bool {
        self.refused
            || !self.written
                && self.state.is_answered(self.answered)
                && self.position != StreamPosition::Opaque
                && !self.state.is_opaque()
    }

    fn on_write<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            if !self.blocked {
                self.blocked = true;
                self.state.set_blocked(self.clock.now());
            }
        } else if self.blocked {
            self.blocked = false;
            self.state.set_unblocked();
        }
        if self.ahead.has_ended() && result.is_ready() {
            self.state.set_taken();
        }
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.carry.is_some() {
            return this.poll_read_carried(cx, buf);
        }
        let before = buf.filled().len();
        if !this.ahead.take(buf) {
            ready!(Pin::new(&mut *this.stream).poll_read(cx, buf))?;
        }
        let Some(scan) = this.on_read(&buf.filled()[before..]) else { return Poll::Ready(Ok(())) };
        let mut carry = Box::<Carry>::default();
        carry.add(&buf.filled()[before..], &scan);
        buf.set_filled(before);
        this.carry = Some(carry);
        this.poll_read_carried(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.speaks_for_itself() {
            this.refused = true;
            return Poll::Ready(Ok(buf.len()));
        }
        this.written = true;
        let result = Pin::new(&mut *this.stream).poll_write(cx, buf);
        this.on_write(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.speaks_for_itself() {
            this.refused = true;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        this.written = true;
        let result = Pin::new(&mut *this.stream).poll_write_vectored(cx, bufs);
        this.on_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A socket has nothing to flush. hyper calls this in every turn, which makes it the place
    /// to look for a client that leaves while its request is served: hyper does not read then.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.written = false;
        this.answered = this.state.answered().unwrap_or(this.answered);
        if this.state.is_busy() && !this.state.is_opaque() {
            let reading = this.ahead.poll(&mut *this.stream, cx)?;
            if reading == ClientReading::JustEnded {
                this.state.set_half_closed();
                // The timer of the connection has to see it.
                cx.waker().wake_by_ref();
            }
        }
        // A reset is not seen where more was read ahead than is kept.
        if this.state.take_probe()
            && let Some(error) = this.stream.take_error()?
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the server's side. If the client is in the middle of a message, its bytes are read
    /// and dropped for a while: closing the socket with unread bytes sends a reset, which can
    /// destroy the last response before the client reads it (RFC 9112 section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            // Whoever gets the stream back closes it.
            return Poll::Ready(Ok(()));
        }
        let mut left = match this.closed {
            CloseState::ByUs(left) => left,
            already => {
                ready!(Pin::new(&mut *this.stream).poll_shutdown(cx))?;
                this.closed = CloseState::Whole;
                if already == CloseState::ByClient
                    || this.state.is_opaque()
                    || !this.state.is_inside_message()
                {
                    return Poll::Ready(Ok(()));
                }
                this.state.set_lingering();
                LINGER_BYTES
            }
        };
        let mut scratch = [0; 4096];
        while left > 0 {
            this.closed = CloseState::ByUs(left);
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                }
                _ => left = 0,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    /// Gives the stream back, unless the server has closed its side of it, or a tunnel has.
    fn drop(&mut self) {
        if matches!(self.closed, CloseState::No | CloseState::ByClient)
            && !self.written
            && self.state.is_answered(self.answered)
            && !self.state.is_opaque()
            && let Some(stream) = self.stream.0.take()
            && let Some(scanner) = self.scanner.0.take()
            && let Some(permit) = self.permit.take()
        {
            *self.slot.lock() = Some(ReturnedStream { stream, scanner, permit });
        }
    }
}
