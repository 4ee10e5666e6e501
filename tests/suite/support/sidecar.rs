//! A sidecar in front of a test's app: inside the test's process, or as a child that runs the real binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sidecache::config::Config;
use sidecache::run::Bound;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::process::{free_port, resident};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_sidecache");

/// A running sidecar. Dropping it ends it.
pub struct Sidecar {
    /// Where it answers clients.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
    running: Running,
    _directory: TempDir,
}

enum Running {
    Inside { shutdown: CancellationToken, task: JoinHandle<()> },
    Child(Child),
}

impl Sidecar {
    /// A sidecar in this process, in front of `app`, with these tables of proxy.toml besides `[listen]`, `[upstream]` and `[admin]`.
    pub async fn start(app: SocketAddr, rules: &str) -> Self {
        let (address, admin) = addresses();
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = write_config(&directory, &tables(address, admin, app, rules));
        let (shutdown, task) = run_inside(&file);
        let sidecar = Self { address, admin, running: Running::Inside { shutdown, task }, _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// The same as a process of its own.
    pub async fn spawn(app: SocketAddr, rules: &str) -> Self {
        let (address, admin) = addresses();
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = write_config(&directory, &tables(address, admin, app, rules));
        let child =
            Command::new(BINARY).arg("--config").arg(&file).stdin(Stdio::null()).spawn().expect("the binary was built with the tests");
        let sidecar = Self { address, admin, running: Running::Child(child), _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// A sidecar in this process with a file as it ships, but for the three addresses in it.
    pub async fn start_shipped(file: &Path, app: SocketAddr) -> Self {
        let (address, admin) = addresses();
        let mut text = std::fs::read_to_string(file).expect("the file ships");
        for (shipped, ours) in [("127.0.0.1:8080", address), ("127.0.0.1:8000", app), ("127.0.0.1:9090", admin)] {
            assert!(text.contains(shipped), "{} names {shipped}", file.display());
            text = text.replace(shipped, &ours.to_string());
        }
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (shutdown, task) = run_inside(&write_config(&directory, &text));
        let sidecar = Self { address, admin, running: Running::Inside { shutdown, task }, _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// How much memory the child takes, in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid())
    }

    /// The child's process.
    pub fn pid(&self) -> u32 {
        match &self.running {
            Running::Child(child) => child.id(),
            Running::Inside { .. } => panic!("a sidecar inside the test is no process of its own"),
        }
    }

    async fn accepting(&self) {
        super::eventually("the sidecar accepts connections", Duration::from_secs(10), || async {
            if let Running::Inside { task, .. } = &self.running {
                assert!(!task.is_finished(), "the sidecar ended before it accepted a connection");
            }
            TcpStream::connect(self.address).await.is_ok() && TcpStream::connect(self.admin).await.is_ok()
        })
        .await;
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Inside { shutdown, task } => {
                shutdown.cancel();
                task.abort();
            }
            Running::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// What `sidecache check` says of a proxy.toml with this text.
pub fn check(text: &str) -> Output {
    let directory = TempDir::new().expect("a temporary directory can be made");
    check_file(&write_config(&directory, text))
}

/// What `sidecache check` says of this file.
pub fn check_file(file: &Path) -> Output {
    Command::new(BINARY).arg("check").arg("--config").arg(file).stdin(Stdio::null()).output().expect("the binary was built with the tests")
}

/// The only place that starts the library.
fn run_inside(file: &Path) -> (CancellationToken, JoinHandle<()>) {
    let config = Config::load(file).unwrap_or_else(|problems| panic!("{problems}"));
    let bound = Bound::bind(&config).unwrap_or_else(|error| panic!("{error}"));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        if let Err(error) = sidecache::run::serve(config, bound, stop).await {
            panic!("the sidecar failed: {error}");
        }
    });
    (shutdown, task)
}

fn addresses() -> (SocketAddr, SocketAddr) {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (address(free_port()), address(free_port()))
}

fn tables(address: SocketAddr, admin: SocketAddr, app: SocketAddr, rules: &str) -> String {
    format!("[listen]\naddress = \"{address}\"\n\n[upstream]\nurl = \"http://{app}\"\n\n[admin]\naddress = \"{admin}\"\n\n{rules}\n")
}

fn write_config(directory: &TempDir, text: &str) -> PathBuf {
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, text).expect("the temporary directory can be written to");
    file
}
