//! A sidecar as a service: one process after another, with the same file and the same ports, while
//! clients are at work.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::client::is_sent_again;
use super::process::{free_port, signal};
use super::{Client, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// Which names clients read and write.
const NAMES: usize = 4;

/// Lines of a service's file.
pub struct Lines {
    /// Of `[listen]`.
    pub listen: String,
    /// Of `[upstream]`.
    pub upstream: String,
    /// Further tables.
    pub rules: String,
}

impl Lines {
    fn of(app: SocketAddr, rules: &str) -> Self {
        let upstream = format!("url = \"http://{app}\"");
        Self { listen: String::new(), upstream, rules: rules.to_owned() }
    }
}

/// The service. Dropping it kills its processes.
pub struct Service {
    /// Where it answers clients.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
    /// The process that serves.
    pub child: Child,
    /// What the service manager holds, if it holds the socket.
    activated: Option<TcpListener>,
    /// The state folder, with its file and its logs.
    pub directory: TempDir,
    started: usize,
}

impl Service {
    /// A service that binds its ports itself.
    pub async fn start(app: SocketAddr, rules: &str) -> Self {
        Self::start_with(&Lines::of(app, rules), None, None).await
    }

    /// The same with these lines, whose socket the service manager holds if it is to.
    pub async fn with_lines(lines: &Lines, activated: bool) -> Self {
        let socket = activated.then(managed_socket);
        Self::start_with(lines, socket, None).await
    }

    /// The same, which tells a service manager at this socket of its changes.
    pub async fn notifying(app: SocketAddr, rules: &str, manager: &Path) -> Self {
        Self::start_with(&Lines::of(app, rules), None, Some(manager)).await
    }

    /// A service whose socket the service manager holds.
    pub async fn activated(app: SocketAddr, rules: &str) -> Self {
        Self::start_with(&Lines::of(app, rules), Some(managed_socket()), None).await
    }

    async fn start_with(
        lines: &Lines,
        activated: Option<TcpListener>,
        manager: Option<&Path>,
    ) -> Self {
        let [mut address, admin] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if let Some(listener) = &activated {
            address = listener.local_addr().expect("it is bound");
        }
        let directory = TempDir::new().expect("a temporary directory can be made");
        let text = format!(
            "[listen]\naddress = \"{address}\"\ndrain = \"20s\"\nstream_drain = \"1s\"\n{}\n\
             [upstream]\n{}\n[admin]\naddress = \"{admin}\"\n{}\n",
            lines.listen, lines.upstream, lines.rules
        );
        std::fs::write(directory.path().join("proxy.toml"), text).expect("it can be written to");
        let child = run(&directory, (activated.as_ref(), manager), 0, &[]);
        let service = Self { address, admin, child, activated, directory, started: 1 };
        service.accepting().await;
        service
    }

    /// Its file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("proxy.toml")
    }

    /// Starts a further process with these arguments.
    pub fn spawn(&mut self, arguments: &[&str]) -> Child {
        self.started += 1;
        run(&self.directory, (None, None), self.started - 1, arguments)
    }

    /// What the process of this number, from 0 on, has logged.
    pub fn said(&self, number: usize) -> String {
        let file = self.directory.path().join(format!("log-{number}"));
        std::fs::read_to_string(file).expect("it logs to a file")
    }

    /// How many bytes the process of this number has logged.
    pub fn logged(&self, number: usize) -> u64 {
        let file = self.directory.path().join(format!("log-{number}"));
        file.metadata().expect("it logs to a file").len()
    }

    /// What the process of this number has logged after so many bytes.
    pub fn said_after(&self, number: usize, bytes: u64) -> String {
        let path = self.directory.path().join(format!("log-{number}"));
        let mut file = std::fs::File::open(path).expect("it logs to a file");
        file.seek(SeekFrom::Start(bytes)).expect("a file has positions");
        let mut said = Vec::new();
        file.read_to_end(&mut said).expect("it can be read");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// What the process that was started last has logged.
    pub fn last_said(&self) -> String {
        self.said(self.started - 1)
    }

    /// Starts a successor, and returns the old process when the new one serves.
    pub async fn take_over(&mut self) -> Child {
        let successor = self.spawn(&["--take-over"]);
        let old = std::mem::replace(&mut self.child, successor);
        self.serving().await;
        old
    }

    /// Replaces the process by a successor, and waits until it has drained.
    pub async fn upgrade(&mut self) {
        let mut old = self.take_over().await;
        assert_eq!(end(&mut old).await.code(), Some(0), "the old process has drained");
    }

    /// Stops the process, and starts another one when it has drained, as a service manager does.
    pub async fn restart(&mut self) {
        signal(self.child.id(), "TERM");
        assert_eq!(end(&mut self.child).await.code(), Some(0), "the old process has drained");
        self.begin().await;
    }

    /// Kills the process, and starts another one.
    pub async fn crash(&mut self) {
        signal(self.child.id(), "KILL");
        end(&mut self.child).await;
        self.begin().await;
    }

    async fn begin(&mut self) {
        self.child = run(&self.directory, (self.activated.as_ref(), None), self.started, &[]);
        self.started += 1;
        self.serving().await;
    }

    /// How many processes there have been.
    pub fn started(&self) -> usize {
        self.started
    }

    /// Returns when the process that was started last serves.
    pub async fn serving(&mut self) {
        let number = self.started - 1;
        for _ in 0..LONG_ENOUGH.as_millis() / 10 {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "it has ended: {ended:?}\n{}", self.said(number));
            if self.said(number).contains("listening") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not serve:\n{}", self.said(number));
    }

    async fn accepting(&self) {
        eventually("the sidecar accepts connections", LONG_ENOUGH, || async {
            TcpStream::connect(self.admin).await.is_ok()
                && TcpStream::connect(self.address).await.is_ok()
        })
        .await;
    }

    /// Where the processes meet.
    pub fn meeting_place(&self) -> PathBuf {
        let name = format!("listen-{}", self.address).replace(':', "_");
        self.directory.path().join(name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket as a service manager binds it.
fn managed_socket() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket can be made");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&address.into()).expect("the port is free");
    socket.listen(4096).expect("a bound socket listens");
    socket.into()
}

/// How a process ends.
pub async fn end(child: &mut Child) -> ExitStatus {
    for _ in 0..LONG_ENOUGH.as_millis() / 10 {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the process still runs after {LONG_ENOUGH:?}");
}

fn run(
    directory: &TempDir,
    (socket, manager): (Option<&TcpListener>, Option<&Path>),
    number: usize,
    arguments: &[&str],
) -> Child {
    let binary = env!("CARGO_BIN_EXE_sidecache");
    let mut command = Command::new(binary);
    if socket.is_some() {
        // As systemd does: the first descriptor is 3, and the process is told that it is for it.
        command = Command::new("sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
        command.args(["-c", script, binary]);
    }
    let stdin = match socket {
        None => Stdio::null(),
        Some(listener) => {
            Stdio::from(OwnedFd::from(listener.try_clone().expect("a descriptor can be copied")))
        }
    };
    match manager {
        Some(path) => command.env("NOTIFY_SOCKET", path),
        None => command.env_remove("NOTIFY_SOCKET"),
    };
    let log = std::fs::File::create(directory.path().join(format!("log-{number}")));
    command
        .arg("--config")
        .arg(directory.path().join("proxy.toml"))
        .args(arguments)
        .env("STATE_DIRECTORY", directory.path())
        .env_remove("RUST_LOG")
        .stdin(stdin)
        .stderr(log.expect("the temporary directory can be written to"))
        .spawn()
        .expect("the binary was built with the tests")
}

/// What clients do to a service, and what went wrong.
pub struct Load {
    stop: Arc<AtomicBool>,
    state: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    /// They wait for an event that never comes.
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The newest version of each name whose write was answered.
    answered: [AtomicU64; NAMES],
    requests: AtomicU64,
    hits: AtomicU64,
    streams: AtomicU64,
    events_ended: AtomicU64,
    wrong: parking_lot::Mutex<Vec<String>>,
}

impl Shared {
    fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }
}

impl Load {
    /// So many clients that read and write, over kept connections, connections of their own and
    /// HTTP/2, and so many that listen to a stream of events.
    pub fn start(address: SocketAddr, clients: usize, streams: usize) -> Self {
        let (stop, state) = (Arc::new(AtomicBool::new(false)), Arc::<Shared>::default());
        let work = (0..clients).map(|number| {
            tokio::spawn(work(address, number, Arc::clone(&stop), Arc::clone(&state)))
        });
        let listen = (0..streams)
            .map(|_| tokio::spawn(listen(address, Arc::clone(&stop), Arc::clone(&state))));
        let (clients, listeners) = (work.collect(), listen.collect());
        Self { stop, state, clients, listeners }
    }

    /// Returns when all streams are open, and the clients have had so many more answers, some of them
    /// hits.
    pub async fn goes_on(&self, streams: u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let (requests, hits) = (count(&self.state.requests), count(&self.state.hits));
        eventually("the clients are at work", LONG_ENOUGH, || async {
            assert!(self.state.wrong.lock().is_empty(), "{:?}", self.state.wrong.lock());
            count(&self.state.requests) > requests + 200
                && count(&self.state.hits) > hits + 20
                && self.streams() == streams
        })
        .await;
    }

    /// How many streams are open.
    pub fn streams(&self) -> u64 {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        count(&self.state.streams) - count(&self.state.events_ended)
    }

    /// Stops the clients. Fails if anything went wrong.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let Self { state, clients, listeners, .. } = self;
        for client in clients {
            client.await.expect("a client does not panic");
        }
        for listener in listeners {
            listener.abort();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        println!(
            "{} requests, {} hits, {} streams",
            count(&state.requests),
            count(&state.hits),
            count(&state.streams)
        );
        let wrong = state.wrong.lock();
        assert!(wrong.is_empty(), "{} went wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

async fn work(address: SocketAddr, number: usize, stop: Arc<AtomicBool>, state: Arc<Shared>) {
    let connect = || if number % 8 == 7 { Client::http2(address) } else { Client::new(address) };
    let mut client = connect();
    for round in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        if number % 4 == 3 && number % 8 != 7 {
            client = connect();
        }
        let name = (round + number) % NAMES;
        let write = round % 10 == 9;
        let newest = state.answered[name].load(Ordering::SeqCst);
        let (method, path) =
            if write { ("PUT", format!("/w/n{name}")) } else { ("GET", format!("/v/n{name}")) };
        let mut reply = client.try_send(method, &path, &[], "").await;
        if reply.as_ref().is_err_and(is_sent_again) {
            client = connect();
            reply = client.try_send(method, &path, &[], "").await;
        }
        match reply {
            Ok(reply) if reply.status == 200 => {
                let got: u64 = reply.text().parse().expect("a version");
                if write {
                    state.answered[name].fetch_max(got, Ordering::SeqCst);
                } else if got < newest {
                    state.wrong(format!("{path}: {got} after {newest}, {}", reply.cache_status()));
                }
                state.hits.fetch_add(u64::from(reply.cache() == "HIT"), Ordering::SeqCst);
            }
            Ok(reply) => state.wrong(format!("{method} {path}: {} {}", reply.status, reply.text())),
            Err(error) => state.wrong(format!("{method} {path} of {number}: {error:?}")),
        }
        state.requests.fetch_add(1, Ordering::SeqCst);
        // The pace of a client.
        sleep(Duration::from_millis(40)).await;
    }
}

async fn listen(address: SocketAddr, stop: Arc<AtomicBool>, state: Arc<Shared>) {
    while !stop.load(Ordering::SeqCst) {
        let response = match Client::new(address).open("GET", "/events", &[], "").await {
            Ok(response) => response,
            Err(error) => return state.wrong(format!("a stream: {error:?}")),
        };
        state.streams.fetch_add(1, Ordering::SeqCst);
        // It ends as a whole response does.
        if let Err(error) = response.into_body().collect().await {
            return state.wrong(format!("a stream broke: {error:?}"));
        }
        state.events_ended.fetch_add(1, Ordering::SeqCst);
    }
}
