//! One of several Redis processes that belong together: a master, a replica, a sentinel, a member
//! of a cluster.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{free_port, signal};
use super::redis::server_program;

/// How many ports are tried.
const TRIES: usize = 10;

/// The process. Dropping it kills it.
pub struct RedisNode {
    /// The port of the loopback on which it listens.
    pub port: u16,
    child: Child,
    _directory: TempDir,
}

impl RedisNode {
    /// A server with these arguments besides where it listens.
    pub fn start(arguments: &[&str]) -> Self {
        Self::started(|| Self::spawn(arguments))
    }

    fn spawn(arguments: &[&str]) -> Self {
        let (port, directory) = (free_port(), folder());
        let mut command = Command::new(server_program());
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(directory.path()).args(arguments);
        Self::run(port, directory, &mut command)
    }

    /// A sentinel that watches over the master on this port under the name `mymaster`.
    pub fn sentinel(master: u16) -> Self {
        Self::started(|| Self::spawn_sentinel(master))
    }

    fn spawn_sentinel(master: u16) -> Self {
        let (port, directory) = (free_port(), folder());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 3000\n",
            directory.path().display()
        );
        std::fs::write(&file, text).expect("the temporary directory can be written to");
        let mut command = Command::new(server_program());
        command.arg(&file).arg("--sentinel");
        Self::run(port, directory, &mut command)
    }

    fn run(port: u16, directory: TempDir, command: &mut Command) -> Self {
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (tests/run installs it)");
        Self { port, child, _directory: directory }
    }

    /// A process that answers. A port may be taken between its choice and its use, that of a
    /// cluster's bus as well: such a process ends, and another one gets other ports.
    fn started(spawn: impl Fn() -> Self) -> Self {
        for _ in 0..TRIES {
            let (mut node, mut has_ended) = (spawn(), false);
            until("a Redis answers", || {
                has_ended = node.child.try_wait().expect("its state can be asked for").is_some();
                has_ended || node.ask(&["PING"]) == "PONG"
            });
            if !has_ended {
                return node;
            }
        }
        panic!("redis-server ends each time");
    }

    /// What it answers, as `redis-cli` prints it for programs; nothing when it does not answer.
    pub fn ask(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(words)
            .stderr(Stdio::null())
            .output();
        String::from_utf8_lossy(&output.expect("redis-cli comes with redis-server").stdout)
            .trim()
            .replace('\r', "")
    }

    /// Freezes it: connections stay, nothing is answered.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisNode {
    fn drop(&mut self) {
        self.kill();
    }
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary directory can be made")
}

/// Waits, without a runtime, until processes have found each other.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if check() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("not within a minute: {what}");
}
