//! The file of a listening Unix socket: made with its mode, taken over from a process that is gone,
//! and removed at the end.
//!
//! Invariants:
//! - A file that is not a socket is never removed, and no link is followed.
//! - A socket on which a process listens is never removed: a second start fails, as on a TCP port.
//!   Processes that start at once take turns, by a lock of the folder.
//! - At the end a file is removed only if it is still the one that was made.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// How often the lock of the folder is tried, and the pause between two tries.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The file of a socket, which dropping this removes.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    id: (u64, u64),
    /// Cancelled once another process has the socket, and its file with it.
    left: OnceLock<CancellationToken>,
}

impl SocketFile {
    /// The file of a socket that another process has handed over. None if it is gone.
    pub(super) fn handed_over(path: &Path) -> Option<Self> {
        let id = id(&socket_at(path).ok()?);
        Some(Self { path: path.to_owned(), id, left: OnceLock::new() })
    }

    /// Leaves the file where it is, if this has been cancelled by the end.
    pub(super) fn leave_after(&self, superseded: &CancellationToken) {
        let _ = self.left.set(superseded.clone());
    }

    /// Listens on the socket of this path, whose file gets this mode.
    pub(super) fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, Self)> {
        let _lock = lock(path)?;
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        let file = Self { path: path.to_owned(), id: id(&socket_at(path)?), left: OnceLock::new() };
        // Nobody can connect before `listen`, so there is no moment with another mode.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(backlog)?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.left.get().is_some_and(CancellationToken::is_cancelled) {
            return;
        }
        if socket_at(&self.path).is_ok_and(|found| id(&found) == self.id) {
            // Ignore the error: the next start removes a file on which nobody listens.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The socket at this path, and not what a link there leads to.
fn socket_at(path: &Path) -> io::Result<Metadata> {
    let found = fs::symlink_metadata(path)?;
    if found.file_type().is_socket() {
        return Ok(found);
    }
    let what = if found.is_symlink() { "a link" } else { "no socket" };
    Err(io::Error::new(
        ErrorKind::AlreadyExists,
        format!("there is {what} at this path, which is left as it is"),
    ))
}

/// Removes a socket on which nobody listens, which a process left behind that ended at once.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    socket_at(path)?;
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue must not hold up the start.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(io::Error::new(
            error.kind(),
            format!("the socket exists, and is in doubt: {error}"),
        )),
        Ok(()) | Err(_) => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on this socket"))
        }
    }
}

/// The right to change sockets in the folder of this path. Dropping it gives it back.
fn lock(path: &Path) -> io::Result<File> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let file = File::open(folder).map_err(|error| {
        io::Error::new(error.kind(), format!("its folder {}: {error}", folder.display()))
    })?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        ErrorKind::TimedOut,
        format!("another process keeps a lock on {}", folder.display()),
    ))
}
