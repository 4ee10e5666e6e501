//! What clients connect to, a TCP port or a Unix socket, and the connections that come of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use socket2::{SockAddr, SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::socket_file::SocketFile;
use super::tcp::{BACKLOG, adopt};
use crate::peer_address::PeerAddress;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its absolute path.
        path: PathBuf,
        /// The mode of its file.
        mode: u32,
    },
}

impl ListenAddress {
    /// The TCP port, if it is one.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens. Dropping it closes it, and removes the file of a Unix socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket, and its file unless somebody else made it.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// The address, with the port that was taken for port 0.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
            Self::Unix(listener, _) => listener
                .local_addr()
                .ok()
                .and_then(|address| Some(format!("unix:{}", address.as_pathname()?.display())))
                .unwrap_or_else(|| "unix".to_owned()),
        }
    }

    /// The listener of another process that has handed it over, for this address.
    ///
    /// # Errors
    /// When it cannot be made non-blocking. Needs a Tokio runtime.
    pub fn from_socket(socket: OwnedFd, address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(_) => adopt(socket.into()).map(Self::Tcp),
            ListenAddress::Unix { path, .. } => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let file = SocketFile::handed_over(path);
                Ok(Self::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }

    /// Leaves the file of a Unix socket where it is, if this has been cancelled by the end.
    pub fn leave_file_after(&self, superseded: &CancellationToken) {
        if let Self::Unix(_, Some(file)) = self {
            file.leave_after(superseded);
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<(ClientStream, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((ClientStream::Tcp(stream), address.ip().to_canonical().into()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((ClientStream::Unix(stream), PeerAddress::Unix))
            }
        }
    }
}

impl Listener {
    /// Closes it. Returns the clients that waited in the kernel until then, and the error that has
    /// kept more of them from being accepted.
    ///
    /// A client that still waits when the socket is closed is reset, unless another process has the
    /// socket, too. It may have sent a write already, which a proxy in front does not repeat. So
    /// between the answer that nobody waits and the end of the socket nothing else is done: the
    /// kernel itself is asked, since what the runtime knows may be older than a client that has
    /// just come, and nobody is woken.
    pub(super) fn close(self) -> (Vec<(ClientStream, PeerAddress)>, io::Result<()>) {
        match self {
            Self::Tcp(listener) => match listener.into_std() {
                Ok(listener) => accepted_last(listener, |socket, address| {
                    let stream = TcpStream::from_std(socket.into())?;
                    let ip = match address.as_socket() {
                        Some(address) => address.ip(),
                        None => stream.peer_addr()?.ip(),
                    };
                    Ok((ClientStream::Tcp(stream), ip.to_canonical().into()))
                }),
                Err(error) => (Vec::new(), Err(error)),
            },
            Self::Unix(listener, _file) => match listener.into_std() {
                Ok(listener) => accepted_last(listener, |socket, _| {
                    let stream = UnixStream::from_std(socket.into())?;
                    Ok((ClientStream::Unix(stream), PeerAddress::Unix))
                }),
                Err(error) => (Vec::new(), Err(error)),
            },
        }
    }
}

/// A further descriptor of a listening socket, for a process that takes over.
///
/// It is closed before the listener is: as long as one descriptor is open, clients come to wait at
/// the socket, and whoever has closed the last one resets them.
#[derive(Clone, Debug, Default)]
pub struct SpareSocket(Arc<Mutex<Option<OwnedFd>>>);

impl SpareSocket {
    /// Keeps a descriptor of this socket.
    ///
    /// # Errors
    /// When there is none left.
    pub fn keep(&self, listener: &Listener) -> io::Result<()> {
        *self.0.lock() = Some(listener.as_fd().try_clone_to_owned()?);
        Ok(())
    }

    /// A descriptor to send to another process; `None` once the listener is about to be closed.
    ///
    /// # Errors
    /// When there is none left.
    pub fn for_taker(&self) -> io::Result<Option<OwnedFd>> {
        self.0.lock().as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Closes it, and keeps none any more.
    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }
}

/// The clients that wait at a listener, which is closed.
fn accepted_last(
    listener: impl AsFd,
    client: impl Fn(Socket, SockAddr) -> io::Result<(ClientStream, PeerAddress)>,
) -> (Vec<(ClientStream, PeerAddress)>, io::Result<()>) {
    let mut waiting = Vec::with_capacity(64);
    let mut ended = Ok(());
    let socket = SockRef::from(&listener);
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok(accepted) => waiting.push(accepted),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
    }
    drop(listener);
    let mut clients = Vec::with_capacity(waiting.len());
    for (socket, address) in waiting {
        match socket.set_nonblocking(true).and_then(|()| client(socket, address)) {
            Ok(accepted) => clients.push(accepted),
            Err(error) => ended = Err(error),
        }
    }
    (clients, ended)
}

/// Whether accepting failed because this one client has already gone.
pub(super) fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// A client's end of a connection.
#[derive(Debug)]
pub(super) enum ClientStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ClientStream {
    /// Sends small responses at once, and does not wait for acknowledgements.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The error that the socket has met since it was last asked.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
