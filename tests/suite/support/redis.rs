//! A real `redis-server` for one test, which can be stopped, killed and started again on the same
//! port.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{free_port, signal};

/// How many ports are tried.
const TRIES: usize = 10;
/// How often a server is asked whether it answers, with 10 ms in between.
const PATIENCE: usize = 3000;
/// Names another server than `redis-server`, such as a `valkey-server`: every test that starts a
/// Redis starts this program.
const SERVER_VARIABLE: &str = "SIDECACHE_REDIS_SERVER";

/// The program that tests start as their Redis.
pub fn server_program() -> OsString {
    std::env::var_os(SERVER_VARIABLE).unwrap_or_else(|| "redis-server".into())
}

/// The server. Dropping it kills the process.
pub struct RedisServer {
    /// The port of the loopback on which it listens, or would.
    pub port: u16,
    directory: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// A server that answers.
    pub fn start() -> Self {
        // A port may be taken between its choice and its use.
        for _ in 0..TRIES {
            let mut server = Self::absent();
            if server.begin(&[]) {
                return server;
            }
        }
        panic!("redis-server ends each time");
    }

    /// A port on which nobody listens yet: connections to it are refused until
    /// [`RedisServer::restart`].
    pub fn absent() -> Self {
        Self {
            port: free_port(),
            directory: TempDir::new().expect("a temporary directory can be made"),
            child: None,
        }
    }

    /// Starts the server, empty, and returns when it answers.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// What the server would have on disk if it saved now.
    pub fn dump(&self) -> Vec<u8> {
        let saved = self.command("SAVE").unwrap_or_default();
        assert!(saved.starts_with("+OK"), "SAVE: {saved}");
        let dump = std::fs::read(self.dump_file()).expect("SAVE wrote the dump");
        std::fs::remove_file(self.dump_file())
            .expect("the dump can be removed: a restart is empty");
        dump
    }

    /// Starts the server with what a dump holds, or empty when that is nothing, and returns when it
    /// answers.
    pub fn restart_with(&mut self, dump: &[u8]) {
        assert!(self.begin(dump), "port {} is taken", self.port);
    }

    /// Whether the server could start with what a dump holds, and answers.
    fn begin(&mut self, dump: &[u8]) -> bool {
        self.kill();
        if !dump.is_empty() {
            std::fs::write(self.dump_file(), dump)
                .expect("the temporary directory can be written to");
        }
        let child = Command::new(server_program())
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
            ])
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (tests/run installs it)");
        self.child = Some(child);
        for _ in 0..PATIENCE {
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("its state can be asked for").is_some() {
                return false;
            }
            // Whoever answers may be another one, on whose port this one cannot start.
            let own = format!("process_id:{}\r\n", child.id());
            let answers = |command, text: &str| {
                self.command(command).is_some_and(|answer| answer.contains(text))
            };
            if answers("PING", "+PONG") && answers("INFO server", &own) {
                // It is loaded, and must not be there at the next start. Without one there is
                // nothing to remove.
                let _ = std::fs::remove_file(self.dump_file());
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("redis-server on port {} does not answer", self.port);
    }

    /// Ends the server at once. What it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Freezes the server: connections stay, nothing is answered.
    pub fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    /// The `[redis]` table of a proxy.toml that uses this server. More keys can follow it.
    pub fn table(&self) -> String {
        format!("[redis]\nurl = \"redis://127.0.0.1:{}/0\"\n", self.port)
    }

    /// What the server answers to one inline command, as it stands on the wire; None when it does
    /// not.
    pub fn command(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        // The answer's end is not parsed: silence ends it.
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..read]);
            if answer.first() != Some(&b'*') && answer.ends_with(b"\r\n") {
                break;
            }
        }
        if answer.is_empty() { None } else { Some(String::from_utf8_lossy(&answer).into_owned()) }
    }

    fn dump_file(&self) -> PathBuf {
        self.directory.path().join("dump.rdb")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
