//! A Unix socket to listen on: its file, its peers, and what others left at its path.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;

const GET: &[u8] = b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("sidecache.sock")
    }

    fn address(&self) -> ListenAddress {
        ListenAddress::Unix { path: self.socket(), mode: 0o640 }
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings { address: self.address(), ..settings() }
    }
}

async fn exchange(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn refusal(address: &ListenAddress) -> String {
    listen(address).map(drop).unwrap_err().to_string()
}

#[tokio::test]
async fn clients_of_a_socket_are_served_and_its_file_goes_with_the_server() {
    let folder = Folder::new();
    let server = start(folder.settings());
    let mode = std::fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(exchange(&folder.socket(), GET).await.ends_with("unix false"));
    // Many requests on one connection, and a body that must be read.
    let mut stream = UnixStream::connect(folder.socket()).await.unwrap();
    for _ in 0..3 {
        let post = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        stream.write_all(post).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"/x 3") {
            answer.push(stream.read_u8().await.unwrap());
        }
    }
    server.shutdown.cancel();
    drop(stream);
    assert!(server.done.await.unwrap().is_clean());
    assert!(!folder.socket().exists(), "the file is removed");
}

#[tokio::test]
async fn peers_of_a_socket_are_trusted_only_by_name() {
    let folder = Folder::new();
    let networks = |texts: &[&str]| {
        let networks: Vec<crate::semantics::forward::Network> =
            texts.iter().map(|text| text.parse().unwrap()).collect();
        TrustedProxies::from(networks)
    };
    for (trusted, expected) in
        [(networks(&["0.0.0.0/0", "::/0"]), "unix false"), (networks(&["unix"]), "unix true")]
    {
        let server = start(ServerSettings { trusted_proxies: trusted, ..folder.settings() });
        let answer = exchange(&folder.socket(), GET).await;
        assert!(answer.ends_with(expected), "{answer}");
        server.shutdown.cancel();
        server.done.await.unwrap();
    }
}

#[tokio::test]
async fn a_second_start_on_a_socket_fails_and_leaves_the_first_alone() {
    let folder = Folder::new();
    let _server = start(folder.settings());
    assert!(refusal(&folder.address()).contains("another process listens"));
    assert!(exchange(&folder.socket(), GET).await.ends_with("unix false"));
}

#[tokio::test]
async fn starts_at_once_leave_one_listener() {
    let folder = Folder::new();
    for _ in 0..20 {
        // A process that was killed leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(folder.socket()));
        let starts = (0..4).map(|_| {
            let address = folder.address();
            tokio::task::spawn_blocking(move || listen(&address))
        });
        let mut listening = Vec::new();
        for start in starts.collect::<Vec<_>>() {
            listening.extend(start.await.unwrap().ok());
        }
        assert_eq!(listening.len(), 1);
        UnixStream::connect(folder.socket()).await.expect("the one that listens is reachable");
    }
}

#[tokio::test]
async fn what_is_no_socket_is_never_removed() {
    let folder = Folder::new();
    let (path, other) = (folder.socket(), folder.0.path().join("other"));
    std::fs::write(&path, "data").unwrap();
    assert!(refusal(&folder.address()).contains("no socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    std::fs::remove_file(&path).unwrap();
    // A link, even to a socket on which nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&other).unwrap());
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert!(refusal(&folder.address()).contains("a link"));
    assert!(other.exists() && path.is_symlink());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refusal(&folder.address()).contains("no socket"));
    std::fs::remove_dir(&path).unwrap();
    let datagram = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    assert!(refusal(&folder.address()).contains("in doubt"));
    drop(datagram);
    let missing = ListenAddress::Unix { path: folder.0.path().join("none/a.sock"), mode: 0o600 };
    assert!(refusal(&missing).contains("its folder"));
}

#[tokio::test]
async fn a_file_that_another_process_made_is_left() {
    let folder = Folder::new();
    let server = start(folder.settings());
    std::fs::remove_file(folder.socket()).unwrap();
    let other = std::os::unix::net::UnixListener::bind(folder.socket()).unwrap();
    server.shutdown.cancel();
    server.done.await.unwrap();
    assert!(folder.socket().exists());
    drop(other);
}
