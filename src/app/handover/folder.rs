//! The folder in which the processes of one sidecar meet. Its name follows from the address that
//! clients connect to, so that sidecars on other addresses have others.
//!
//! SECURITY: whoever can enter it could be handed the listening sockets. It belongs to the user of
//! this process, has the mode 0700, and is no link; where somebody else has made it, it is not
//! used.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct HandoverFolder(PathBuf);

/// The socket in the folder, on which the process that serves waits for the one that takes over.
#[derive(Debug)]
pub(crate) struct HandoverSocket {
    pub(super) listener: UnixListener,
    /// The file of this process. None where another process has it now.
    file: Option<OwnSocketFile>,
}

/// The file of a socket, and which one it is: another process may have put its own in its place.
#[derive(Debug)]
struct OwnSocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OwnSocketFile {
    fn find(path: PathBuf) -> io::Result<Self> {
        let found = fs::symlink_metadata(&path)?;
        Ok(Self { path, identity: (found.dev(), found.ino()) })
    }
}

impl HandoverFolder {
    /// The folder of the sidecar with this address, which is made if there is none yet.
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let root = root();
        own_folder(&root.path, root.is_ours)?;
        let name: String = address
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
            .collect();
        let path = root.path.join(format!("listen-{name}"));
        own_folder(&path, true)?;
        Ok(Self(path))
    }

    /// Makes it anew, where another process has removed it.
    pub(super) fn renew(&self) -> io::Result<()> {
        own_folder(&self.0, true)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn socket_path(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// Whether a process listens on the socket.
    pub(crate) fn is_served(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket_path()).is_ok()
    }

    /// Listens on the socket, in place of a process that has died. Called once the ports are bound:
    /// only one process has them.
    pub(crate) fn listen(&self) -> io::Result<HandoverSocket> {
        let path = self.socket_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(HandoverSocket { listener, file: Some(OwnSocketFile::find(path)?) })
    }

    /// The socket of another process, which that has until it has handed over.
    pub(super) const fn borrow(listener: UnixListener) -> HandoverSocket {
        HandoverSocket { listener, file: None }
    }

    /// The other process has handed the socket over.
    pub(crate) fn own(&self, socket: &mut HandoverSocket) {
        socket.file = OwnSocketFile::find(self.socket_path()).ok();
    }

    /// Removes the folder, if nobody uses it.
    pub(crate) fn remove_if_empty(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl HandoverSocket {
    /// It was handed over: it stays.
    pub(super) fn keep(&mut self) {
        self.file = None;
    }
}

impl Drop for HandoverSocket {
    fn drop(&mut self) {
        let Some(own) = &self.file else { return };
        let found = OwnSocketFile::find(own.path.clone());
        if found.is_ok_and(|found| found.identity == own.identity) {
            let _ = fs::remove_file(&own.path);
        }
    }
}

/// Where folders of sidecars are.
struct Root {
    path: PathBuf,
    /// Whether nobody but this program puts anything there.
    is_ours: bool,
}

fn root() -> Root {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // systemd may name several folders, separated by colons.
    if let Some(folders) = variable("STATE_DIRECTORY")
        && let Some(first) = folders.to_string_lossy().split(':').next()
    {
        return Root { path: PathBuf::from(first), is_ours: false };
    }
    if let Some(folder) = variable("XDG_RUNTIME_DIR") {
        return Root { path: PathBuf::from(folder).join("sidecache"), is_ours: true };
    }
    let user = rustix::process::geteuid().as_raw();
    Root { path: std::env::temp_dir().join(format!("sidecache-{user}")), is_ours: true }
}

/// Makes the folder if it is missing. One that must be ours has to belong to this user alone.
fn own_folder(path: &Path, must_be_ours: bool) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !must_be_ours {
        return Ok(());
    }
    let found = fs::symlink_metadata(path)?;
    // The lowest six bits are the rights of the group and of others.
    let user = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == user && found.mode().trailing_zeros() >= 6 {
        return Ok(());
    }
    let why = format!(
        "{} must be a folder of this user with the mode 0700; remove it, or name another place \
         with STATE_DIRECTORY",
        path.display()
    );
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_of_others_is_not_used() {
        let top = tempfile::TempDir::new().expect("a folder");
        let path = top.path().join("own");
        own_folder(&path, true).expect("it is made");
        own_folder(&path, true).expect("it is used again");
        fs::set_permissions(&path, Permissions::from_mode(0o750)).expect("it is ours");
        let error = own_folder(&path, true).expect_err("others may enter").to_string();
        assert!(error.contains("0700"), "{error}");
        let link = top.path().join("link");
        symlink(top.path(), &link).expect("a link");
        assert!(own_folder(&link, true).is_err(), "a link");
    }

    #[tokio::test]
    async fn a_socket_takes_the_place_of_a_dead_one_and_goes_unless_handed_over() {
        let top = tempfile::TempDir::new().expect("a folder");
        let folder = HandoverFolder(top.path().to_owned());
        assert!(!folder.is_served());
        drop(std::os::unix::net::UnixListener::bind(folder.socket_path()).expect("a socket"));
        assert!(!folder.is_served(), "its process is dead");
        let socket = folder.listen().expect("a socket");
        assert!(folder.is_served());
        let mode = fs::metadata(folder.socket_path()).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!folder.socket_path().exists());
        let mut socket = folder.listen().expect("a socket");
        socket.keep();
        drop(socket);
        assert!(folder.socket_path().exists());
    }

    #[tokio::test]
    async fn r844_the_socket_of_the_next_process_stays() {
        let top = tempfile::TempDir::new().expect("a folder");
        let folder = HandoverFolder(top.path().to_owned());
        let old = folder.listen().expect("a socket");
        let next = folder.listen().expect("its port was free");
        drop(old);
        assert!(folder.is_served(), "the next process can be taken over from");
        drop(next);
        assert!(!folder.socket_path().exists());
    }
}
