//! The socket towards the origin as hyper sees it: watched for what comes unasked, or too early.
//!
//! It notes what it sees in a [`SocketHandle`], which the connection reads, and decides nothing.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::counters::CountGuard;
use super::permits::Permits;

/// What the two ends of a connection share: hyper has the socket, the connection decides.
#[derive(Clone, Default)]
pub(super) struct SocketHandle(Arc<SocketState>);

#[derive(Default)]
struct SocketState {
    /// The permits, when the socket outlives the exchange that held them (a tunnel).
    permits: Mutex<Option<Permits>>,
    /// The next read begins with a look at the socket itself.
    probe: AtomicBool,
    /// A [`RequestBodyState`].
    body: AtomicU8,
    /// The origin has answered before the request's body had been sent.
    early: AtomicBool,
    /// One more than the bytes that may still come before the head of a response is there; 0 where
    /// no head is awaited.
    head_left: AtomicUsize,
    /// The rest of a response is waited for.
    waiting: AtomicBool,
}

/// How far the body of the request is.
#[derive(Clone, Copy)]
enum RequestBodyState {
    /// There is none, or all of it has been sent.
    Sent = 0,
    /// There is more to come.
    Coming = 1,
    /// hyper has all of it; some of it may still wait for the socket.
    Buffered = 2,
}

impl SocketHandle {
    /// Ties the permits to the socket: closing the socket releases them.
    pub(super) fn hold(&self, permits: Permits) {
        *self.0.permits.lock() = Some(permits);
    }

    /// Asks for a look at the socket itself: what has just arrived may not have been reported yet.
    pub(super) fn set_probe(&self, wanted: bool) {
        self.0.probe.store(wanted, Relaxed);
    }

    /// Says whether the rest of a response is waited for.
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.0.waiting.store(waiting, Relaxed);
    }

    /// A request with a body begins.
    pub(super) fn begin_body(&self) {
        self.set_body(RequestBodyState::Coming);
    }

    /// hyper has taken all of the body.
    pub(super) fn end_body(&self) {
        self.set_body(RequestBodyState::Buffered);
    }

    /// Whether the origin has answered before it had the whole request.
    pub(super) fn answered_early(&self) -> bool {
        self.0.early.load(Relaxed)
    }

    /// A request is sent: at most so many bytes come until the head of its response is there.
    pub(super) fn await_head(&self, limit: usize) {
        self.0.head_left.store(limit.saturating_add(1), Relaxed);
    }

    /// The head is there, or given up. Returns whether too many bytes have come instead of it.
    pub(super) fn end_head(&self) -> bool {
        self.0.head_left.swap(0, Relaxed) == 1
    }

    /// Fails if no more bytes may come before the head.
    fn check_head(&self) -> io::Result<()> {
        if self.0.head_left.load(Relaxed) == 1 {
            return Err(io::Error::other("too many bytes came before a response"));
        }
        Ok(())
    }

    fn on_head_bytes(&self, count: usize) {
        let left = self.0.head_left.load(Relaxed);
        if left > 0 {
            self.0.head_left.store(left.saturating_sub(count).max(1), Relaxed);
        }
    }

    fn set_body(&self, state: RequestBodyState) {
        self.0.body.store(state as u8, Relaxed);
    }

    fn on_flushed(&self) {
        if self.0.body.load(Relaxed) == RequestBodyState::Buffered as u8 {
            self.set_body(RequestBodyState::Sent);
        }
    }

    fn on_bytes(&self) {
        if self.0.body.load(Relaxed) != RequestBodyState::Sent as u8 {
            self.0.early.store(true, Relaxed);
        }
    }
}

/// A socket towards the origin.
pub(super) struct UpstreamSocket {
    stream: Stream,
    // The origin has stopped reading.
    write_closed: bool,
    /// Bytes have come of which the kernel may still owe the acknowledgement.
    owes_ack: bool,
    handle: SocketHandle,
    _open: CountGuard,
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Plain(stream) => SockRef::from(stream),
            Self::Tls(stream) => SockRef::from(stream.get_ref().0),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }
}

impl UpstreamSocket {
    pub(super) const fn new(stream: Stream, handle: SocketHandle, open: CountGuard) -> Self {
        Self { stream, write_closed: false, owes_ack: false, handle, _open: open }
    }

    /// Fails if bytes, or the end, have come from the origin although nothing was requested.
    fn probe(&self) -> io::Result<()> {
        let mut byte = [MaybeUninit::uninit()];
        match self.stream.socket().peek(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            // SECURITY: bytes that nobody asked for would be taken as the response to the next
            // request, whosever it is. With TLS it may be a mere ticket, which costs a connection.
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "bytes or the end came while nothing was requested",
            )),
        }
    }

    /// An origin that responds early (413, 401) and closes makes writes fail while its response
    /// waits to be read. From then on writes are discarded, and reading shows how the exchange
    /// ended.
    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.write_closed = true;
                self.handle.0.early.store(true, Relaxed);
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

/// Acknowledges what has come, instead of waiting up to 40 ms for something to send it with.
///
/// An origin that writes the head and the body apart, and has not set `TCP_NODELAY`, keeps the body
/// back until then (Nagle's algorithm). The option acts once: the kernel itself turns it off again.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn acknowledge_now(stream: &Stream) {
    // A Unix socket acknowledges nothing.
    if !matches!(stream, Stream::Unix(_)) {
        // It is an optimization, and a socket that refuses it only stays as slow as it was.
        drop(stream.socket().set_tcp_quickack(true));
    }
}

/// Other kernels have no such option.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const fn acknowledge_now(_: &Stream) {}

impl AsyncRead for UpstreamSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.handle.0.probe.load(Relaxed) {
            this.handle.0.probe.store(false, Relaxed);
            this.probe()?;
        }
        this.handle.check_head()?;
        let before = buf.filled().len();
        let polled = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            this.handle.on_bytes();
            this.handle.on_head_bytes(buf.filled().len() - before);
            this.owes_ack = true;
        } else if polled.is_pending() && this.owes_ack && this.handle.0.waiting.load(Relaxed) {
            this.owes_ack = false;
            acknowledge_now(&this.stream);
        }
        polled
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_closed {
            return Poll::Ready(Ok(buf.len()));
        }
        // What is sent carries the acknowledgement.
        this.owes_ack = false;
        let result = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        this.written(result, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if this.write_closed {
            return Poll::Ready(Ok(length));
        }
        this.owes_ack = false;
        let result = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        this.written(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.write_closed {
            return Poll::Ready(Ok(()));
        }
        let result = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        };
        if matches!(result, Poll::Ready(Ok(()))) {
            this.handle.on_flushed();
        }
        // TLS writes its buffered records here.
        match this.written(result.map_ok(|()| 0), 0) {
            Poll::Ready(written) => Poll::Ready(written.map(drop)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
