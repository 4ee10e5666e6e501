//! A `redis-server` that is reached in other ways than by a plain port: a Unix socket, a password,
//! an ACL user, TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::process::free_port;
use super::redis::server_program;

/// How many ports are tried.
const TRIES: usize = 10;
/// How often a server is asked whether it answers, with 10 ms in between.
const PATIENCE: usize = 3000;

/// The server. Dropping it kills the process.
pub struct RedisKind {
    /// Its port, plain or TLS as it was asked for.
    pub port: u16,
    /// Its Unix socket.
    pub socket: PathBuf,
    child: Child,
    _directory: TempDir,
}

impl RedisKind {
    /// A server with these arguments besides where it listens. `port_option` is `--port`, or
    /// `--tls-port` for TLS alone.
    pub fn start(port_option: &str, arguments: &[&str]) -> Self {
        // A port may be taken between its choice and its use; that of a cluster's bus, ten thousand
        // above, is among those that connections to others get.
        (0..TRIES)
            .find_map(|_| Self::spawn(port_option, arguments).when_it_answers())
            .unwrap_or_else(|| panic!("redis-server {arguments:?} ends each time"))
    }

    fn spawn(port_option: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (port, socket) = (free_port(), directory.path().join("redis.sock"));
        let mut command = Command::new(server_program());
        if port_option != "--port" {
            command.args(["--port", "0"]);
        }
        command.args([
            port_option,
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--loglevel",
            "warning",
        ]);
        command
            .arg("--dir")
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(&socket)
            .args(["--unixsocketperm", "700"]);
        let child = command
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (tests/run installs it)");
        Self { port, socket, child, _directory: directory }
    }

    /// The server, once it answers; `None` if it has ended before.
    fn when_it_answers(mut self) -> Option<Self> {
        for _ in 0..PATIENCE {
            if self.child.try_wait().expect("its state can be asked for").is_some() {
                return None;
            }
            if self.answers() {
                return Some(self);
            }
            sleep(Duration::from_millis(10));
        }
        panic!("redis-server on port {} does not answer", self.port);
    }
}

impl RedisKind {
    /// Whether it replies to a command, be it with an error. It listens before it knows whether it
    /// can start: the port of its cluster's bus comes last.
    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(&self.socket) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let is_answered =
            stream.write_all(b"PING\r\n").is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1..));
        is_answered && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

impl Drop for RedisKind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
