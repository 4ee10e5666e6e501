//! A real MariaDB for one test: its own folder and port, and a password.
//!
//! Making the folder of a server takes seconds, so it is made once and copied for each test.
//! MariaDB refuses to run as root. Where the tests do, it runs as the user `mysql`, whom Debian's
//! package has made.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use super::process::{free_port, signal};

/// How many ports are tried.
const TRIES: usize = 10;

/// The password of the users. A URL can hold it only with an escape.
const PASSWORD: &str = "pa/ss-hunter";

/// Small files, and no pauses for a disk.
const FLAGS: [&str; 10] = [
    "--innodb-log-file-size=4M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-buffer-pool-size=32M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--performance-schema=off",
    "--skip-name-resolve",
    "--bind-address=127.0.0.1",
    "--max-connections=60",
    "--character-set-server=latin1",
];

/// The server. Dropping it ends the process.
pub struct MariaDbServer {
    /// The port of the loopback on which it listens, or would.
    pub port: u16,
    directory: TempDir,
    flags: Vec<String>,
    child: Option<Child>,
}

impl MariaDbServer {
    /// A server that answers, with an empty database `app`.
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// The same with these flags, beside files with these texts. In a flag, `{}` is the folder of
    /// the files.
    pub async fn start_with(flags: &[&str], files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let folder = directory.path().to_owned();
        copy_folder(&template(), &folder.join("data"));
        let mut init = "CREATE DATABASE IF NOT EXISTS app;\n".to_owned();
        for (user, grant) in
            [("app", "GRANT ALL ON *.* TO app@'%' WITH GRANT OPTION;\n"), ("sidecache", "")]
        {
            let _ = writeln!(
                init,
                "CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY '{PASSWORD}';\n{grant}"
            );
        }
        for (name, text) in files.iter().chain(&[("init.sql", init.as_str())]) {
            std::fs::write(folder.join(name), text).expect("the directory can be written to");
        }
        give_away(&folder);
        let flags = flags.iter().map(|flag| flag.replace("{}", &folder.to_string_lossy()));
        let flags = flags.collect();
        let mut server = Self { port: free_port(), directory, flags, child: None };
        for _ in 0..TRIES {
            if server.begin().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("MariaDB ends each time:\n{}", server.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts it, and says whether it answers. It has ended if not.
    async fn begin(&mut self) -> bool {
        let folder = self.directory.path();
        let log = std::fs::File::create(folder.join("log"));
        let log = log.expect("the temporary directory can be written to");
        let child = Command::new(program("mariadbd"))
            .arg("--no-defaults")
            .args(FLAGS)
            .args(user_flag())
            .arg(format!("--datadir={}", folder.join("data").display()))
            .arg(format!("--socket={}", folder.join("socket").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!("--init-file={}", folder.join("init.sql").display()))
            .arg(format!("--port={}", self.port))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mariadbd runs");
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
        panic!("MariaDB on port {} does not answer:\n{}", self.port, self.log());
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), "KILL");
            let _ = child.wait();
        }
    }

    /// Starts it again after [`MariaDbServer::kill`].
    pub async fn restart(&mut self) {
        assert!(self.begin().await, "port {} is taken:\n{}", self.port, self.log());
    }

    /// The URL of a server at this port, for `proxy.toml`: that of a user without rights of its
    /// own.
    pub fn url_at(port: u16) -> String {
        format!("mysql://sidecache:{}@127.0.0.1:{port}/app", PASSWORD.replace('/', "%2F"))
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    async fn try_connect(&self) -> Option<Conn> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .prefer_socket(false)
            .user(Some("app"))
            .pass(Some(PASSWORD))
            .db_name(Some("app"));
        Conn::new(options).await.ok()
    }

    /// A client of it that may do everything.
    pub async fn client(&self) -> Conn {
        self.try_connect().await.expect("the server answers")
    }

    /// Runs SQL of several statements, each of which ends with a line.
    pub async fn run(&self, sql: &str) {
        let mut client = self.client().await;
        for statement in sql.split_inclusive(";\n").map(str::trim).filter(|text| !text.is_empty()) {
            let done = client.query_drop(statement).await;
            done.unwrap_or_else(|error| panic!("{statement}\n{error}"));
        }
    }
}

impl Drop for MariaDbServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of a new server, which is made by the first test that needs it.
fn template() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(parent).expect("the folder of the target can be written to");
    let whole = parent.join("mariadb");
    if whole.exists() {
        return whole;
    }
    // The user of the server may not reach the folder of the target.
    let making = TempDir::new().expect("a temporary directory can be made");
    let data = making.path().join("data");
    std::fs::create_dir(&data).expect("the directory can be written to");
    give_away(making.path());
    let made = Command::new(program("mariadb-install-db"))
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(&FLAGS[..3])
        .arg("--innodb-undo-tablespaces=0")
        .args(user_flag())
        .arg(format!("--datadir={}", data.display()))
        .current_dir("/")
        .output()
        .expect("mariadb-install-db runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stdout));
    let copy = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
    copy_folder(&data, &copy.path().join("data"));
    // Another test may have been faster.
    let _ = std::fs::rename(copy.path().join("data"), &whole);
    whole
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success(), "the folder of the server is copied");
}

fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"];
    let mut found = folders.iter().map(|folder| Path::new(folder).join(name));
    found.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("{name} is missing: tests/run --install installs the package mariadb-server")
    })
}

/// Says which user the server runs as, if that is not this one.
fn user_flag() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=mysql")
}

fn give_away(folder: &Path) {
    if user_flag().is_some() {
        let given = Command::new("chown").args(["-R", "mysql:"]).arg(folder).status();
        assert!(given.expect("chown runs").success(), "root may give files away");
    }
}
