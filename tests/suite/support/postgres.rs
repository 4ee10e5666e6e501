//! A real PostgreSQL for one test: its own folder and port, and a password.
//!
//! PostgreSQL refuses to run as root. Where the tests do, it runs as the user `postgres`, whom
//! Debian's package has made.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::process::{free_port, signal};

/// How many ports are tried.
const TRIES: usize = 10;

/// The password of the one user, `app`. A URL can hold it only with an escape.
const PASSWORD: &str = "pa/ss-hunter";

/// The server. Dropping it ends the process.
pub struct PostgresServer {
    /// The port of the loopback on which it listens, or would.
    pub port: u16,
    directory: TempDir,
    child: Option<Child>,
}

impl PostgresServer {
    /// A server that answers, with an empty database.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with these lines at the end of its configuration, beside files with these texts.
    pub async fn start_with_files(lines: &str, files: &[(&str, &str)]) -> Self {
        let mut server = Self::make();
        for (name, text) in files {
            let path = server.data().join(name);
            std::fs::write(&path, text).expect("the temporary directory can be written to");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                .expect("the mode of a file of ours can be set");
            give_away(&path);
        }
        server.configure(lines);
        for _ in 0..TRIES {
            if server.begin().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("PostgreSQL ends each time:\n{}", server.log());
    }

    async fn start_with(lines: &str) -> Self {
        Self::start_with_files(lines, &[]).await
    }

    fn make() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let server = Self { port: free_port(), directory, child: None };
        let password = server.directory.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the temporary directory can be written to");
        give_away(server.directory.path());
        give_away(&password);
        let made = as_user(Command::new(program("initdb")))
            .args(["--no-sync", "--auth=scram-sha-256", "--username=app", "--encoding=UTF8"])
            .args(["--locale=C", "--no-instructions"])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(server.data())
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server
    }

    fn configure(&self, lines: &str) {
        let mut text =
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
                        shared_buffers = '16MB'\nmax_connections = 40\nautovacuum = off\n"
                .to_owned();
        let _ = writeln!(text, "{lines}");
        let path = self.data().join("postgresql.auto.conf");
        std::fs::write(&path, text).expect("the data folder can be written to");
        give_away(&path);
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts it, and says whether it answers. It has ended if not.
    async fn begin(&mut self) -> bool {
        let log = std::fs::File::create(self.directory.path().join("log"));
        let log = log.expect("the temporary directory can be written to");
        let child = as_user(Command::new(program("postgres")))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        self.child = Some(child);
        for _ in 0..3_000 {
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("its state can be asked for").is_some() {
                self.child = None;
                return false;
            }
            if self.try_connect().await.is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("PostgreSQL on port {} does not answer:\n{}", self.port, self.log());
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The other processes of the server end when they miss it; QUIT tells them.
            signal(child.id(), "QUIT");
            let _ = child.wait();
        }
    }

    /// Starts it again after [`PostgresServer::kill`].
    pub async fn restart(&mut self) {
        assert!(self.begin().await, "port {} is taken:\n{}", self.port, self.log());
    }

    /// The URL of a server at this port, for `proxy.toml`.
    pub fn url_at(port: u16) -> String {
        format!("postgres://app:{}@127.0.0.1:{port}/postgres", PASSWORD.replace('/', "%2F"))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    async fn try_connect(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        self.try_connect().await.expect("the server answers")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of the package, which is in no folder of the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("{name} is missing: tests/run --install installs the package postgresql")
    })
}

/// The user that the server runs as, if that is not this one.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("there are users");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("the package postgresql has made the user postgres");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().expect("a number"));
    Some((numbers.next().expect("a user"), numbers.next().expect("a group")))
}

fn as_user(mut command: Command) -> Command {
    if let Some((user, group)) = user() {
        command.uid(user).gid(group);
    }
    command
}

fn give_away(path: &Path) {
    if let Some((user, group)) = user() {
        chown(path, Some(user), Some(group)).expect("root may give a file away");
    }
}
