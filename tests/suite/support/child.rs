//! The real binary with any `[upstream]`, watched to its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::process::{free_port, signal};

/// Where its settings are, in a directory of its own.
const FILE: &str = "proxy.toml";
/// Where its log is, if a test reads it.
const LOG: &str = "sidecache.log";

/// The process. Dropping it kills it.
pub struct ChildSidecar {
    /// Where it answers clients.
    pub address: SocketAddr,
    /// Where its metrics are, if that is known.
    pub admin: Option<SocketAddr>,
    child: Child,
    directory: TempDir,
}

impl ChildSidecar {
    /// A sidecar with these lines of `[upstream]` and these tables.
    pub async fn spawn(upstream: &str, rules: &str) -> Self {
        let [address, admin] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let text = format!(
            "[listen]\naddress = \"{address}\"\ndrain = \"10s\"\n[upstream]\n{upstream}\n\
             [admin]\naddress = \"{admin}\"\n{rules}\n"
        );
        let mut sidecar = Self::spawn_file(address, &text).await;
        sidecar.admin = Some(admin);
        sidecar
    }

    /// The same, with a log that a test reads with [`Self::said`], in a shell that has run this
    /// line.
    pub async fn spawn_limited(line: &str, upstream: &str, rules: &str) -> Self {
        let [address, admin] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let text = format!(
            "[listen]\naddress = \"{address}\"\n[upstream]\n{upstream}\n[admin]\naddress = \
             \"{admin}\"\n{rules}\n"
        );
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = directory.path().join(FILE);
        std::fs::write(&file, text).expect("the temporary directory can be written to");
        let log = std::fs::File::create(directory.path().join(LOG));
        let child = Command::new("sh")
            .args(["-c", &format!("{line}; exec \"$0\" --config \"$1\"")])
            .arg(env!("CARGO_BIN_EXE_sidecache"))
            .arg(file)
            .stdin(Stdio::null())
            .stderr(log.expect("the temporary directory can be written to"))
            .spawn()
            .expect("sh runs");
        let sidecar = Self { address, admin: Some(admin), child, directory };
        sidecar.accepting().await;
        sidecar
    }

    /// What a sidecar that was started with [`Self::spawn_limited`] has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(LOG)).expect("it has a log")
    }

    /// A sidecar with this file, in which it listens on `address`.
    pub async fn spawn_file(address: SocketAddr, text: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        std::fs::write(directory.path().join(FILE), text)
            .expect("the temporary directory can be written to");
        let sidecar = Self { address, admin: None, child: run(&directory), directory };
        sidecar.accepting().await;
        sidecar
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts a process that has ended once more, with the same file.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = run(&self.directory);
        self.accepting().await;
    }

    async fn accepting(&self) {
        super::eventually("the sidecar accepts connections", Duration::from_secs(10), || async {
            TcpStream::connect(self.address).await.is_ok()
        })
        .await;
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// How the process ends. Panics when it has not by `within`.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        for _ in 0..within.as_millis() / 10 {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the sidecar still runs after {within:?}");
    }
}

impl Drop for ChildSidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(directory: &TempDir) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
    let file = directory.path().join(FILE);
    command
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null())
        .spawn()
        .expect("the binary was built with the tests")
}
