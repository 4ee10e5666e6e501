//! A sidecar in front of a test's app: inside the test's process, or as a child that runs the real
//! binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sidecache::app::{BoundListeners, Clock};
use sidecache::config::Config;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Reply};
use super::process::{free_port, resident, signal};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_sidecache");

/// A running sidecar. Dropping it ends it.
pub struct Sidecar {
    /// Where it answers clients.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
    /// Its proxy.toml.
    pub file: PathBuf,
    app: SocketAddr,
    running: Running,
    _directory: TempDir,
}

enum Running {
    Inside { shutdown: CancellationToken, task: JoinHandle<()> },
    Child(Child),
}

impl Sidecar {
    /// A sidecar in this process, in front of `app`, with these tables of proxy.toml besides
    /// `[listen]`, `[upstream]` and `[admin]`.
    pub async fn start(app: SocketAddr, rules: &str) -> Self {
        Self::start_at(Clock::system(), app, rules).await
    }

    /// The same by a clock that a test may move forward.
    pub async fn start_at(clock: Clock, app: SocketAddr, rules: &str) -> Self {
        let (address, admin) = addresses();
        let text = tables(address, admin, app, rules);
        Self::inside(clock, (address, admin, app), &text).await
    }

    /// The same with these lines in tables that it writes itself, such as `[listen]`.
    pub async fn start_with(
        clock: Clock,
        app: SocketAddr,
        more: &[(&str, &str)],
        rules: &str,
    ) -> Self {
        let (address, admin) = addresses();
        let mut text = tables(address, admin, app, rules);
        for (table, lines) in more {
            text = match *table {
                "" => format!("{lines}\n{text}"),
                table => text.replacen(&format!("{table}\n"), &format!("{table}\n{lines}\n"), 1),
            };
        }
        Self::inside(clock, (address, admin, app), &text).await
    }

    /// The same with an admin token.
    pub async fn start_with_token(app: SocketAddr, rules: &str, token: &str) -> Self {
        let (address, admin) = addresses();
        let with_token = format!("[admin]\ntoken = \"{token}\"\n");
        let text = tables(address, admin, app, rules).replacen("[admin]\n", &with_token, 1);
        Self::inside(Clock::system(), (address, admin, app), &text).await
    }

    /// The same with the test's own address among the trusted proxies.
    pub async fn start_trusting(app: SocketAddr, rules: &str) -> Self {
        let (address, admin) = addresses();
        let trusting = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n";
        let text = tables(address, admin, app, rules).replacen("[listen]\n", trusting, 1);
        Self::inside(Clock::system(), (address, admin, app), &text).await
    }

    /// A sidecar in this process with a file as it ships, but for the three addresses in it.
    pub async fn start_shipped(file: &Path, app: SocketAddr) -> Self {
        let (address, admin) = addresses();
        let mut text = std::fs::read_to_string(file).expect("the file ships");
        let places =
            [("127.0.0.1:8080", address), ("127.0.0.1:8000", app), ("127.0.0.1:9090", admin)];
        for (shipped, ours) in places {
            assert!(text.contains(shipped), "{} names {shipped}", file.display());
            text = text.replace(shipped, &ours.to_string());
        }
        Self::inside(Clock::system(), (address, admin, app), &text).await
    }

    async fn inside(
        clock: Clock,
        (address, admin, app): (SocketAddr, SocketAddr, SocketAddr),
        text: &str,
    ) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = write_config(&directory, text);
        let (shutdown, task) = run_inside(&file, clock);
        let running = Running::Inside { shutdown, task };
        let sidecar = Self { address, admin, file, app, running, _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// A sidecar that runs the real binary as a process of its own.
    pub async fn spawn(app: SocketAddr, rules: &str) -> Self {
        Self::process(app, rules, |_| Stdio::inherit()).await
    }

    /// The same with a log that a test reads with [`Sidecar::said`].
    pub async fn spawn_logged(app: SocketAddr, rules: &str) -> Self {
        Self::process(app, rules, |file| {
            let log = std::fs::File::create(file.with_extension("log"));
            log.expect("the temporary directory can be written to").into()
        })
        .await
    }

    /// The real binary with these lines in tables that it writes itself, such as `[admin]`.
    pub async fn spawn_with(app: SocketAddr, more: &[(&str, &str)], rules: &str) -> Self {
        let (address, admin) = addresses();
        let directory = TempDir::new().expect("a temporary directory can be made");
        let mut text = tables(address, admin, app, rules);
        for (table, lines) in more {
            text = text.replacen(&format!("{table}\n"), &format!("{table}\n{lines}\n"), 1);
        }
        let file = write_config(&directory, &text);
        let running = Running::Child(run_child(&file, Stdio::inherit()));
        let sidecar = Self { address, admin, file, app, running, _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// What a sidecar that was started with [`Sidecar::spawn_logged`] has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.file.with_extension("log")).expect("it was spawned with a log")
    }

    async fn process(app: SocketAddr, rules: &str, log: impl FnOnce(&Path) -> Stdio) -> Self {
        let (address, admin) = addresses();
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = write_config(&directory, &tables(address, admin, app, rules));
        let running = Running::Child(run_child(&file, log(&file)));
        let sidecar = Self { address, admin, file, app, running, _directory: directory };
        sidecar.accepting().await;
        sidecar
    }

    /// The text of a proxy.toml for this very sidecar, with these tables.
    pub fn with_rules(&self, rules: &str) -> String {
        tables(self.address, self.admin, self.app, rules)
    }

    /// Writes other tables into the file, in one step, as editors and deployments do. Nobody is
    /// told.
    pub fn rewrite(&self, rules: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, self.with_rules(rules))
            .expect("the temporary directory can be written to");
        std::fs::rename(&new, &self.file).expect("a file can be renamed within its directory");
    }

    /// A GET of the admin API.
    pub async fn admin_get(&self, path: &str) -> Reply {
        Client::of_admin(self.admin).get(path, &[]).await
    }

    /// A POST to the admin API, of JSON.
    pub async fn admin_post(&self, path: &str, body: &serde_json::Value) -> Reply {
        Client::of_admin(self.admin)
            .send("POST", path, &[("content-type", "application/json")], body.to_string())
            .await
    }

    /// A POST to the admin API that must go well: its answer.
    pub async fn admin_ok(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let reply = self.admin_post(path, body).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// The numbers.
    pub async fn stats(&self) -> serde_json::Value {
        self.admin_get("/stats").await.json()
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

    /// Ends it as SIGTERM does. Returns when it has drained.
    pub async fn stop(&mut self) {
        match &mut self.running {
            Running::Inside { shutdown, task } => {
                shutdown.cancel();
                task.await.expect("the sidecar drains");
            }
            Running::Child(child) => {
                signal(child.id(), "TERM");
                super::eventually("the sidecar drains", Duration::from_secs(30), || {
                    let ended = child.try_wait().expect("a child can be waited for");
                    async move { ended.is_some() }
                })
                .await;
            }
        }
    }

    /// Ends the child at once, as `kill -9` does.
    pub fn crash(&mut self) {
        let Running::Child(child) = &mut self.running else {
            panic!("a sidecar inside the test is no process of its own")
        };
        let _ = (child.kill(), child.wait());
    }

    /// Starts one that has ended once more, with its file as it is now. One inside the test goes by
    /// this clock.
    pub async fn start_again(&mut self, clock: &Clock) {
        self.running = match &self.running {
            Running::Inside { .. } => {
                let (shutdown, task) = run_inside(&self.file, clock.clone());
                Running::Inside { shutdown, task }
            }
            Running::Child(_) => {
                let log = std::fs::File::options()
                    .append(true)
                    .open(self.file.with_extension("log"))
                    .map_or_else(|_| Stdio::inherit(), Into::into);
                Running::Child(run_child(&self.file, log))
            }
        };
        self.accepting().await;
    }

    async fn accepting(&self) {
        super::eventually("the sidecar accepts connections", Duration::from_secs(10), || async {
            if let Running::Inside { task, .. } = &self.running {
                assert!(!task.is_finished(), "the sidecar ended before it accepted a connection");
            }
            TcpStream::connect(self.address).await.is_ok()
                && TcpStream::connect(self.admin).await.is_ok()
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
    Command::new(BINARY)
        .arg("check")
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built with the tests")
}

fn run_child(file: &Path, log: Stdio) -> Child {
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(file).env_remove("RUST_LOG").stderr(log).stdin(Stdio::null());
    command.spawn().expect("the binary was built with the tests")
}

/// The only place that starts the library.
fn run_inside(file: &Path, clock: Clock) -> (CancellationToken, JoinHandle<()>) {
    let config = Config::load(file).unwrap_or_else(|problems| panic!("{problems}"));
    let bound = BoundListeners::bind(&config).unwrap_or_else(|error| panic!("{error}"));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        if let Err(error) = sidecache::app::serve_with(config, bound, stop, clock).await {
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
    format!(
        "[listen]\naddress = \"{address}\"\n\n[upstream]\nurl = \"http://{app}\"\n\n\
         [admin]\naddress = \"{admin}\"\n\n{rules}\n"
    )
}

fn write_config(directory: &TempDir, text: &str) -> PathBuf {
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, text).expect("the temporary directory can be written to");
    file
}
