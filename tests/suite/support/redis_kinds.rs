//! A `redis-server` that is reached in other ways than by a plain port: a Unix socket, a password,
//! an ACL user, TLS.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::process::free_port;

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
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (port, socket) = (free_port(), directory.path().join("redis.sock"));
        let mut command = Command::new("redis-server");
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
        let server = Self { port, socket, child, _directory: directory };
        for _ in 0..500 {
            if UnixStream::connect(&server.socket).is_ok()
                && TcpStream::connect(("127.0.0.1", port)).is_ok()
            {
                return server;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("redis-server on port {port} does not answer");
    }
}

impl Drop for RedisKind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
