//! One server of Redis, and the connections to it.
//!
//! Invariants:
//! - A connection is never mended. The first that breaks, or cannot be made, ends the node:
//!   [`RedisNode::over`] tells, every later call fails at once, and whoever needs the server opens
//!   it anew. A mended connection might lead to a Redis that was restarted from an old dump, and
//!   nobody would have noticed.
//! - It ends when it is dropped, a wedged client included: a router that is held by a full send
//!   buffer ends by abort alone.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use fred::clients::{Pipeline, WithOptions};
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::prelude::{Builder, Client, Config, TlsConnector};
use fred::types::config::{Options, ReconnectError, ServerConfig, TcpConfig, UnresponsiveConfig};
use fred::types::{ClusterHash, CustomCommand, RespVersion, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::error::SetupError;
use crate::redis::RedisSettings;
use crate::secret::Secret;

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// After so many missed deadlines in a row a node that keeps entries alone counts as gone.
const MAX_MISSED_DEADLINES: u32 = 3;

/// Where one server listens.
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

/// How to connect: what all servers of one Redis have in common.
#[derive(Clone)]
pub(super) struct ConnectOptions {
    username: Option<String>,
    password: Option<Secret>,
    database: Option<u8>,
    tls: Option<TlsConnector>,
    deadline: Duration,
}

impl ConnectOptions {
    /// To the servers that keep data.
    pub(super) fn to_data(settings: &RedisSettings, tls: Option<&TlsConnector>) -> Self {
        Self {
            username: settings.username.clone(),
            password: settings.password.clone(),
            database: Some(settings.database),
            tls: tls.cloned(),
            deadline: settings.deadline,
        }
    }

    /// To sentinels, which have a login of their own, or none.
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
            deadline: settings.deadline,
        }
    }

    fn config(&self, place: &NodeAddress) -> Config {
        let server = match place {
            NodeAddress::Tcp(host, port) => ServerConfig::new_centralized(host.clone(), *port),
            NodeAddress::Unix(path) => ServerConfig::new_unix_socket(path.clone()),
        };
        // fred writes the credentials of `HELLO`, with which RESP3 begins, as words of one line;
        // `AUTH` of RESP2 takes them as they are.
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
            // One try for each client; without a policy fred makes none otherwise.
            fail_fast: true,
            username: self.username.clone(),
            password: self.password.as_ref().map(|password| password.expose().to_owned()),
            database: self.database,
            tls: self.tls.as_ref().map(|tls| tls.clone().into()),
            ..Config::default()
        }
    }

    /// A client that makes one connection and never another. The settings are those that survived
    /// the failure tests; the defaults wait for ever.
    pub(super) fn client(&self, place: &NodeAddress) -> Result<Client, SetupError> {
        let mut builder = Builder::from_config(self.config(place));
        builder.with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = 10_000;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(1)),
                interval: Duration::from_millis(200),
            };
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            if matches!(place, NodeAddress::Tcp(..)) {
                // Without it a full send buffer holds the router, and with it all reads.
                connection.tcp.user_timeout = Some(Duration::from_millis(1500));
            }
            connection.reconnect_errors = vec![
                ReconnectError::ReadOnly,
                ReconnectError::Loading,
                ReconnectError::ClusterDown,
                ReconnectError::MasterDown,
            ];
        });
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = self.deadline.saturating_mul(2);
            performance.broadcast_channel_capacity = 4096;
        });
        builder.build().map_err(|error| SetupError {
            what: "the Redis client".to_owned(),
            why: format!("{error}; look at [redis] in proxy.toml"),
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
        // Each node is spoken to by itself: fred has no say in where a command goes.
        CustomCommand::new_static(name, ClusterHash::FirstKey, false)
    }
}

/// One server. Dropped, it ends.
pub(super) struct RedisNode {
    /// Where it is.
    pub(super) address: NodeAddress,
    clients: Vec<WithOptions<Client>>,
    /// Set for those that wait for replicas: on the others' connections everybody would wait.
    slow: Option<WithOptions<Client>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    closed: CancellationToken,
    missed_deadlines: AtomicU32,
}

impl RedisNode {
    /// Begins to connect, and does not wait for it.
    pub(super) fn open(
        place: NodeAddress,
        access: &ConnectOptions,
        connections: usize,
        with_slow: bool,
    ) -> Result<Self, SetupError> {
        let over = CancellationToken::new();
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..connections.max(1) + usize::from(with_slow) {
            let client = access.client(&place)?;
            let mut errors = client.error_rx();
            let router = AbortOnDrop(client.connect());
            let over = over.clone();
            tasks.push(tokio::spawn(async move {
                // An error is a sign of a lost connection, and so is a receiver that lags behind
                // the errors.
                tokio::select! {
                    _ = errors.recv() => {}
                    () = router => {}
                }
                over.cancel();
            }));
            clients.push(client.with_options(&Options {
                fail_fast: true,
                max_attempts: Some(1),
                timeout: Some(access.deadline),
                ..Options::default()
            }));
        }
        let slow = if with_slow { clients.pop() } else { None };
        Ok(Self {
            address: place,
            clients,
            slow,
            tasks,
            closed: over,
            missed_deadlines: AtomicU32::new(0),
        })
    }

    /// The client of this turn.
    pub(super) fn client(&self, turn: usize) -> &WithOptions<Client> {
        &self.clients[turn % self.clients.len()]
    }

    /// Ends when one of its connections has ended.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether one of its connections has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits for the first connection to be made. The caller minds the time.
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

    /// Sends a command for a key whose slot is on its way to this node.
    pub(super) async fn send_asking(
        &self,
        turn: usize,
        command: RedisCommand,
    ) -> Result<Value, fred::error::Error> {
        let asking = RedisCommand::new("ASKING", Vec::new());
        self.send_both(self.client(turn), asking, command).await.1
    }

    /// Sends two commands, one right after the other on a connection of which others expect no
    /// haste.
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
        let mut answers = pipeline.try_all::<Value>().await.into_iter();
        let first = answers.next().unwrap_or_else(|| Err(gone()));
        // One answer for both: neither got through.
        let second = answers
            .next()
            .unwrap_or_else(|| Err(first.as_ref().err().cloned().unwrap_or_else(gone)));
        (first, second)
    }

    /// Notes how a call went that keeps entries alone; several missed deadlines in a row end the
    /// node.
    pub(super) fn record_call(&self, missed: bool) {
        if !missed {
            self.missed_deadlines.store(0, SeqCst);
        } else if self.missed_deadlines.fetch_add(1, SeqCst) + 1 >= MAX_MISSED_DEADLINES {
            self.closed.cancel();
        }
    }
}

impl Drop for RedisNode {
    fn drop(&mut self) {
        self.closed.cancel();
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What two commands were answered.
pub(super) type PairReply = (Result<Value, fred::error::Error>, Result<Value, fred::error::Error>);

fn gone() -> fred::error::Error {
    fred::error::Error::new(fred::error::ErrorKind::Canceled, "the connection is gone")
}

/// Carries fred's router task, so that dropping the carrier aborts it.
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

/// What makes TLS connections that trust these roots, or the system's.
pub(super) fn tls_connector(ca_file: Option<&std::path::Path>) -> Result<TlsConnector, SetupError> {
    let failed = |why: String| SetupError { what: "TLS for Redis".to_owned(), why };
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            for certificate in certificates {
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
