//! One Redis server, and the connections to it.
//!
//! Invariants:
//! - A connection is never reconnected. The first one that breaks, or cannot be made, closes the
//!   node: [`RedisNode::closed`] returns, later calls fail at once, and the caller opens the server
//!   anew. A reconnected client might talk to a Redis that was restarted from an old snapshot,
//!   without anything noticing.
//! - No timer of this process closes a connection by itself: a missed deadline only raises a
//!   suspicion. The connection is closed when a `PING` that was sent then stays unanswered for
//!   `loss_after` of time in which this process ran. fred's own check of unresponsive connections
//!   goes by the clock alone, so it is off.
//! - Dropping a node ends its connections, even if a client is wedged: a router that hangs behind a
//!   full send buffer only ends by being aborted.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use fred::clients::{Pipeline, WithOptions};
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::prelude::{Builder, Client, Config, TlsConnector};
use fred::types::config::{Options, ReconnectError, ServerConfig, TcpConfig, UnresponsiveConfig};
use fred::types::{ClusterHash, CustomCommand, RespVersion, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::wait_while_running;
use crate::error::SetupError;
use crate::input_file::{self, MAX_CA_BYTES};
use crate::redis::settings::RedisSettings;
use crate::secret::Secret;

/// How long connecting may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How much longer than `loss_after` the kernel keeps what nobody acknowledges.
const USER_TIMEOUT_MARGIN: Duration = Duration::from_millis(500);

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeAddress {
    /// A host and a port.
    Tcp(String, u16),
    /// A socket file.
    Unix(PathBuf),
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How to connect: the same for all servers of one Redis.
#[derive(Clone)]
pub(super) struct ConnectOptions {
    username: Option<String>,
    password: Option<Secret>,
    database: Option<u8>,
    tls: Option<TlsConnector>,
    loss_after: Duration,
    patience: Duration,
}

impl ConnectOptions {
    /// Options for servers that hold data.
    pub(super) fn to_data(settings: &RedisSettings, tls: Option<&TlsConnector>) -> Self {
        Self {
            username: settings.username.clone(),
            password: settings.password.clone(),
            database: Some(settings.database),
            tls: tls.cloned(),
            loss_after: settings.loss_after,
            patience: settings.patience(),
        }
    }

    /// Options for sentinels, which have a login of their own, or none.
    pub(super) fn to_sentinels(
        settings: &RedisSettings,
        login: (Option<String>, Option<Secret>),
        tls: Option<&TlsConnector>,
    ) -> Self {
        Self {
            username: login.0,
            password: login.1,
            database: None,
            tls: tls.cloned(),
            loss_after: settings.loss_after,
            patience: settings.patience(),
        }
    }

    /// How long connecting may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT.max(self.loss_after)
    }

    pub(super) const fn tls(&self) -> Option<&TlsConnector> {
        self.tls.as_ref()
    }

    pub(super) const fn database(&self) -> Option<u8> {
        self.database
    }

    /// The user and the password, if there are any.
    pub(super) fn login(&self) -> (Option<&str>, Option<&Secret>) {
        (self.username.as_deref(), self.password.as_ref())
    }

    fn config(&self, address: &NodeAddress) -> Config {
        let server = match address {
            NodeAddress::Tcp(host, port) => ServerConfig::new_centralized(host.clone(), *port),
            NodeAddress::Unix(path) => ServerConfig::new_unix_socket(path.clone()),
        };
        // fred writes the credentials of `HELLO` (RESP3) unquoted into one line; `AUTH` (RESP2)
        // takes them as they are.
        let spaced = |text: &str| text.contains([' ', '\t', '"', '\'', '\\']);
        let password = self.password.as_ref().is_some_and(|password| spaced(password.expose()));
        let version = if password || self.username.as_deref().is_some_and(spaced) {
            RespVersion::RESP2
        } else {
            RespVersion::RESP3
        };
        Config {
            server,
            version,
            // One attempt for each client; without a policy fred would make none otherwise.
            fail_fast: true,
            username: self.username.clone(),
            password: self.password.as_ref().map(|password| password.expose().to_owned()),
            database: self.database,
            tls: self.tls.as_ref().map(|tls| tls.clone().into()),
            ..Config::default()
        }
    }

    /// A client that connects once and never again. These settings survived the failure tests; with
    /// fred's defaults it would wait for ever.
    pub(super) fn client(&self, address: &NodeAddress) -> Result<Client, SetupError> {
        let mut builder = Builder::from_config(self.config(address));
        builder.with_connection_config(|connection| {
            connection.connection_timeout = self.connect_timeout();
            // For all the commands of a login together, each of which is a round trip.
            connection.internal_command_timeout = CONNECT_TIMEOUT.max(self.loss_after * 2);
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = 10_000;
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: None, ..UnresponsiveConfig::default() };
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            // Other systems have no such option: there `loss_after` alone tells.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            if matches!(address, NodeAddress::Tcp(..)) {
                // Without this a full send buffer blocks the router, and with it all reads.
                connection.tcp.user_timeout = Some(self.loss_after + USER_TIMEOUT_MARGIN);
            }
            connection.reconnect_errors = vec![
                ReconnectError::ReadOnly,
                ReconnectError::Loading,
                ReconnectError::ClusterDown,
                ReconnectError::MasterDown,
            ];
        });
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = self.patience;
            performance.broadcast_channel_capacity = 4096;
        });
        builder.build().map_err(|error| SetupError {
            what: "the Redis client".to_owned(),
            why: format!("{error}; check [redis] in proxy.toml"),
        })
    }
}

/// One command.
#[derive(Clone, Debug)]
pub(super) struct RedisCommand {
    name: &'static str,
    args: Vec<Value>,
}

impl RedisCommand {
    /// A command with these arguments.
    pub(super) const fn new(name: &'static str, args: Vec<Value>) -> Self {
        Self { name, args }
    }

    fn custom(name: &'static str) -> CustomCommand {
        // Each node has its own clients, so fred must not decide where a command goes.
        CustomCommand::new_static(name, ClusterHash::FirstKey, false)
    }
}

/// One server. Dropping it ends its connections.
pub(super) struct RedisNode {
    /// Where it is.
    pub(super) address: NodeAddress,
    clients: Vec<WithOptions<Client>>,
    /// For calls that wait for replicas: on the other connections, all calls would wait with them.
    slow: Option<WithOptions<Client>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    closed: CancellationToken,
    /// Whether it was closed because it left a probe unanswered.
    silent: Arc<AtomicBool>,
    /// Wakes the probe of each connection.
    suspected: Vec<Arc<Notify>>,
}

impl RedisNode {
    /// Begins to connect in the background.
    pub(super) fn open(
        address: NodeAddress,
        options: &ConnectOptions,
        connections: usize,
        with_slow: bool,
    ) -> Result<Self, SetupError> {
        let closed = CancellationToken::new();
        let silent = Arc::new(AtomicBool::new(false));
        let (mut clients, mut tasks, mut suspected) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..connections.max(1) + usize::from(with_slow) {
            let client = options.client(&address)?;
            let mut errors = client.error_rx();
            let router = AbortOnDrop(client.connect());
            let client = client.with_options(&Options {
                fail_fast: true,
                max_attempts: Some(1),
                timeout: Some(options.patience),
                ..Options::default()
            });
            let suspicion = Arc::new(Notify::new());
            suspected.push(Arc::clone(&suspicion));
            let (closed, prober, loss_after) = (closed.clone(), client.clone(), options.loss_after);
            let silence = Arc::clone(&silent);
            tasks.push(tokio::spawn(async move {
                // An error means a lost connection, and so does a receiver that lags behind the
                // errors.
                tokio::select! {
                    _ = errors.recv() => {}
                    () = router => {}
                    () = until_silent(&prober, &suspicion, loss_after) => {
                        silence.store(true, SeqCst);
                    }
                }
                closed.cancel();
            }));
            clients.push(client);
        }
        let slow = if with_slow { clients.pop() } else { None };
        Ok(Self { address, clients, slow, tasks, closed, silent, suspected })
    }

    /// The client whose turn it is.
    pub(super) fn client(&self, turn: usize) -> &WithOptions<Client> {
        &self.clients[turn % self.clients.len()]
    }

    /// Returns when one of the connections has ended.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether one of the connections has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Whether it was closed because it left a probe unanswered.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(SeqCst)
    }

    /// Waits for the first connection. The caller enforces a deadline.
    pub(super) async fn connected(&self) -> bool {
        tokio::select! {
            connected = self.clients[0].wait_for_connect() => connected.is_ok(),
            () = self.closed() => false,
        }
    }

    /// Sends one command.
    pub(super) async fn send(
        &self,
        turn: usize,
        command: RedisCommand,
    ) -> Result<Value, fred::error::Error> {
        if self.is_closed() {
            return Err(gone());
        }
        self.client(turn).custom(RedisCommand::custom(command.name), command.args).await
    }

    /// Sends a command for a key whose slot is moving to this node.
    pub(super) async fn send_asking(
        &self,
        turn: usize,
        command: RedisCommand,
    ) -> Result<Value, fred::error::Error> {
        let asking = RedisCommand::new("ASKING", Vec::new());
        self.send_both(self.client(turn), asking, command).await.1
    }

    /// Sends two commands in a row, on a connection where other calls may have to wait.
    pub(super) async fn send_slowly(&self, first: RedisCommand, second: RedisCommand) -> PairReply {
        self.send_both(self.slow.as_ref().unwrap_or(&self.clients[0]), first, second).await
    }

    async fn send_both(
        &self,
        client: &WithOptions<Client>,
        first: RedisCommand,
        second: RedisCommand,
    ) -> PairReply {
        if self.is_closed() {
            return (Err(gone()), Err(gone()));
        }
        let pipeline: WithOptions<Pipeline<Client>> =
            client.pipeline().with_options(client.options());
        for command in [first, second] {
            if let Err(error) = pipeline
                .custom::<Value, Value>(RedisCommand::custom(command.name), command.args)
                .await
            {
                return (Err(error.clone()), Err(error));
            }
        }
        let mut replies = pipeline.try_all::<Value>().await.into_iter();
        let first = replies.next().unwrap_or_else(|| Err(gone()));
        // One reply for both: neither command got through.
        let second = replies
            .next()
            .unwrap_or_else(|| Err(first.as_ref().err().cloned().unwrap_or_else(gone)));
        (first, second)
    }

    /// Notes that a call missed its deadline: every connection is probed.
    pub(super) fn suspect(&self) {
        self.suspected.iter().for_each(|suspicion| suspicion.notify_one());
    }
}

/// Returns when a server that missed a deadline does not reply to a probe either. Any reply proves
/// contact, however late it is and whatever it says.
async fn until_silent(client: &WithOptions<Client>, suspicion: &Notify, loss_after: Duration) {
    loop {
        suspicion.notified().await;
        // Connecting has its own time limits, and takes several round trips.
        if client.wait_for_connect().await.is_err() {
            continue;
        }
        if wait_while_running(loss_after, Box::pin(client.ping::<Value>(None))).await.is_none() {
            return;
        }
    }
}

impl Drop for RedisNode {
    fn drop(&mut self) {
        self.closed.cancel();
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The replies to two commands.
pub(super) type PairReply = (Result<Value, fred::error::Error>, Result<Value, fred::error::Error>);

fn gone() -> fred::error::Error {
    fred::error::Error::new(fred::error::ErrorKind::Canceled, "the connection is gone")
}

/// Wraps fred's router task, and aborts it when dropped.
pub(super) struct AbortOnDrop<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes TLS connections that trust these roots, or those of the system.
pub(super) fn tls_connector(ca_file: Option<&std::path::Path>) -> Result<TlsConnector, SetupError> {
    let failed = |why: String| SetupError { what: "TLS for Redis".to_owned(), why };
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let pem = input_file::read(path, MAX_CA_BYTES)
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate =
                    certificate.map_err(|error| failed(format!("{}: {error}", path.display())))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(failed(
            "no root certificate to trust; install ca-certificates or set ca_file".to_owned(),
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config))
}
