//! The client's socket as hyper sees it: watched for framing, for a client that stops reading, and
//! closed with care.
//!
//! It notes what it sees in the connection's [`ConnectionState`] and decides nothing. It must stay
//! cheap: it runs for every read and write of every request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection_state::ConnectionState;
use super::framing::{Scanner, StreamPosition};
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

/// The socket of one connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    scanner: Scanner,
    /// What the state was last set to: most reads begin and end between two messages.
    position: StreamPosition,
    blocked: bool,
    closed: CloseState,
    clock: Clock,
    _permit: ConnectionPermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseState {
    No,
    ByClient,
    /// Closed by the server; so many bytes of the client are still tolerated.
    ByUs(usize),
}

impl Socket {
    pub(super) const fn new(
        stream: TcpStream,
        state: Arc<ConnectionState>,
        clock: Clock,
        permit: ConnectionPermit,
    ) -> Self {
        let scanner = Scanner::new();
        Self {
            stream,
            state,
            scanner,
            position: StreamPosition::Between,
            blocked: false,
            closed: CloseState::No,
            clock,
            _permit: permit,
        }
    }

    fn on_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.closed = CloseState::ByClient;
            return;
        }
        if self.position == StreamPosition::Opaque || self.state.is_opaque() {
            return;
        }
        let flawed = self.scanner.feed(bytes);
        self.state.set_scanned(&self.scanner, flawed);
        let place = self.scanner.position();
        if place != self.position {
            self.position = place;
            self.state.set_position(place);
        }
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
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.on_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.on_write(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.on_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A TCP socket has nothing to flush. hyper calls this in every turn, which makes it the place
    /// to look for a client that reset the connection while its request is served: hyper does not
    /// read then.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.take_probe()
            && let Some(error) = self.stream.take_error()?
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
        let mut left = match this.closed {
            CloseState::ByUs(left) => left,
            already => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
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
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                }
                _ => left = 0,
            }
        }
        Poll::Ready(Ok(()))
    }
}
