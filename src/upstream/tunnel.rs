//! Connections that have stopped speaking HTTP: bytes from either end to the other, until both have
//! ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Bytes that are read at once, in each direction.
const BUFFER: usize = 16 * 1024;

/// How often the idle time is checked within one idle time: silence is noticed at most a quarter
/// late.
const CHECKS_PER_TIMEOUT: u32 = 4;

/// Why a tunnel could not be opened, or broke.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// One of the two ends never changed protocols.
    #[error("the upgrade failed: {0}")]
    Upgrade(#[source] hyper::Error),
    /// One of the two ends did not change protocols in time, or before the sidecar stopped.
    #[error("the upgrade was not completed")]
    Incomplete,
    /// One of the two connections broke.
    #[error("the tunnel broke: {0}")]
    Io(#[source] io::Error),
}

/// Splices an upgraded client connection and an upgraded upstream connection until both end, the
/// idle limit passes, or `stop` is cancelled. An end that has sent everything may still receive.
///
/// Returns the number of bytes from the client to the origin, and from the origin to the client.
///
/// # Errors
/// When one of the ends did not change protocols, or broke.
pub async fn tunnel(
    client: OnUpgrade,
    app: OnUpgrade,
    idle: Duration,
    stop: CancellationToken,
) -> Result<(u64, u64), TunnelError> {
    let ends = tokio::select! {
        ends = async { tokio::try_join!(client, app) } => ends.map_err(TunnelError::Upgrade)?,
        () = tokio::time::sleep(idle) => return Err(TunnelError::Incomplete),
        () = stop.cancelled() => return Err(TunnelError::Incomplete),
    };
    let (mut client, mut app) = (TunnelEnd::new(ends.0), TunnelEnd::new(ends.1));
    let (up, down) = (Arc::clone(&client.read), Arc::clone(&app.read));
    let count = || (up.load(Ordering::Relaxed), down.load(Ordering::Relaxed));
    tokio::select! {
        done = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut app, BUFFER, BUFFER) => {
            done.map_err(TunnelError::Io)
        }
        () = wait_for_silence(idle, count) => Ok(count()),
        () = stop.cancelled() => Ok(count()),
    }
}

/// Ends when nothing has moved for the idle time.
async fn wait_for_silence(idle: Duration, moved: impl Fn() -> (u64, u64)) {
    let mut last = moved();
    let mut still = 0;
    while still < CHECKS_PER_TIMEOUT {
        tokio::time::sleep(idle / CHECKS_PER_TIMEOUT).await;
        let now = moved();
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
}

/// One end, counting the bytes it has read.
struct TunnelEnd {
    io: TokioIo<Upgraded>,
    read: Arc<AtomicU64>,
}

impl TunnelEnd {
    fn new(io: Upgraded) -> Self {
        Self { io: TokioIo::new(io), read: Arc::default() }
    }
}

impl AsyncRead for TunnelEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        this.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for TunnelEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
