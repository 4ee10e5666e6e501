//! The link to Redis: the only file that names fred.
//!
//! Invariants, each of which fred's defaults break (measured): no call outlives its deadline; a connection that broke is
//! told to whoever asks for [`Link::broken`]; a client that is wedged can be replaced by a new one, because its own
//! reconnection may hang for ever behind a full send buffer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::clients::WithOptions;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::prelude::{Builder, Client, Config, KeysInterface as _, LuaInterface as _, PubsubInterface as _, ReconnectPolicy, TlsConnector};
use fred::types::config::{Options, ReconnectError, ServerConfig, TcpConfig, UnresponsiveConfig};
use fred::types::{Expiration, Key, RespVersion, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;
use tokio::sync::Notify;

use crate::error::SetupError;
use crate::metrics::Counter;
use crate::units::Secret;

mod batch;
pub mod ear;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
    },
    /// A socket file.
    Unix(PathBuf),
}

/// What to do with reads while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Serve from memory what this sidecar filled itself meanwhile, each entry for at most `degraded_ttl`.
    Memory,
    /// Go to the app.
    Bypass,
}

/// What to do with writes while Redis is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Forward them; their purges are replayed when Redis is back.
    Forward,
    /// Refuse them with 503 before the app sees them.
    Refuse,
}

/// The shared tier's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub address: Address,
    /// The database's number.
    pub database: u8,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// PEM roots in place of the system's, for `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// The prefix of all keys.
    pub namespace: String,
    /// How long one call may take.
    pub deadline: Duration,
    /// How many connections calls are spread over.
    pub connections: usize,
    /// How long the local table may be trusted after the sending of a heartbeat that came back.
    pub lease: Duration,
    /// How long to wait after Redis is back, so that the others have replayed their purges.
    pub rejoin_grace: Duration,
    /// What reads do without Redis.
    pub on_redis_loss: OnLoss,
    /// How old an entry that was filled without Redis may become.
    pub degraded_ttl: Duration,
    /// What writes do without Redis.
    pub writes: Writes,
    /// The file that keeps purges for the rejoin; without it memory does.
    pub journal: Option<PathBuf>,
    /// Seals entries, and keys the hashes of credentials.
    pub secret: Option<Secret>,
}

/// A call to Redis that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// No answer within the deadline.
    #[error("no answer within the deadline")]
    Timeout,
    /// There is no connection, or it broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// Redis is out of memory and refuses to write.
    #[error("out of memory")]
    OutOfMemory,
    /// Redis answered with an error, or with what cannot be.
    #[error("{0}")]
    Answer(String),
}

impl CallError {
    fn of(error: &fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        let details = error.details();
        if details.starts_with("OOM") || details.contains("OOM command not allowed") {
            return Self::OutOfMemory;
        }
        match error.kind() {
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Auth | ErrorKind::Backpressure | ErrorKind::Tls | ErrorKind::Routing => {
                Self::Connection(details.to_owned())
            }
            _ => Self::Answer(details.to_owned()),
        }
    }
}

/// A Lua script and its digest.
#[derive(Debug)]
pub struct Script {
    lua: String,
    sha1: String,
}

impl Script {
    /// A script made of these pieces.
    #[must_use]
    pub fn new(pieces: &[&str]) -> Self {
        let lua = pieces.concat();
        let sha1 = fred::types::scripts::Script::from_lua(lua.as_str()).sha1().to_string();
        Self { lua, sha1 }
    }
}

/// What a script returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Nothing.
    Nil,
    /// One value.
    One(Bytes),
    /// Several values.
    Many(Vec<Bytes>),
}

/// Counts of what the link does.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Calls made.
    pub calls: Arc<Counter>,
    /// Calls that missed their deadline.
    pub timeouts: Arc<Counter>,
    /// Calls that failed otherwise.
    pub errors: Arc<Counter>,
    /// Clients replaced because they did not recover.
    pub renewals: Arc<Counter>,
}

/// A client with its background task.
struct Connected {
    clients: Vec<WithOptions<Client>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Connected {
    /// The client of this turn.
    fn client(&self, turn: usize) -> WithOptions<Client> {
        self.clients[turn % self.clients.len()].clone()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // A wedged router ends by abort alone.
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The link.
pub struct Link {
    settings: Settings,
    tls: Option<TlsConnector>,
    current: Arc<ArcSwap<Connected>>,
    broken: Arc<Notify>,
    next: AtomicUsize,
    lines: Vec<Arc<batch::Line>>,
    drivers: Vec<tokio::task::JoinHandle<()>>,
    /// What it has done.
    pub counters: Counters,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.settings.address).finish_non_exhaustive()
    }
}

impl Link {
    /// Starts to connect, and does not wait for it. Needs a tokio runtime.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let tls = match &settings.address {
            Address::Tcp { tls: true, .. } => Some(tls_connector(settings.ca_file.as_deref())?),
            _ => None,
        };
        let broken = Arc::new(Notify::new());
        let connected = connect(&settings, tls.as_ref(), &broken)?;
        let current = Arc::new(ArcSwap::from_pointee(connected));
        let lines: Vec<Arc<batch::Line>> = (0..settings.connections.max(1)).map(|_| Arc::default()).collect();
        let drive = |(turn, line): (usize, &Arc<batch::Line>)| {
            tokio::spawn(batch::drive(Arc::clone(line), Arc::clone(&current), turn, settings.deadline))
        };
        let drivers = lines.iter().enumerate().map(drive).collect();
        Ok(Self { settings, tls, current, broken, next: AtomicUsize::new(0), lines, drivers, counters: Counters::default() })
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends when a connection has broken.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Replaces the client. What the old one still had under way is given up.
    pub fn renew(&self) {
        self.counters.renewals.inc();
        match connect(&self.settings, self.tls.as_ref(), &self.broken) {
            Ok(connected) => self.current.store(Arc::new(connected)),
            Err(error) => tracing::error!(%error, "the Redis client could not be made anew"),
        }
    }

    /// The values of some keys, all in one slot or on a Redis without slots.
    pub async fn mget(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, CallError> {
        self.counters.calls.inc();
        let told = self.lines[self.turn()].ask(keys);
        let result = match tokio::time::timeout(self.settings.deadline, told).await {
            Ok(Ok(values)) => values,
            // The driver ended with the link.
            Ok(Err(_)) => Err(CallError::Connection("the client is gone".to_owned())),
            Err(_) => Err(CallError::Timeout),
        };
        self.counted(result)
    }

    /// Stores a value, for so many milliseconds where a number is given.
    pub async fn put(&self, key: Bytes, value: Bytes, expire_ms: Option<u64>) -> Result<(), CallError> {
        let client = self.client();
        let expire = expire_ms.map(|ms| Expiration::PX(i64::try_from(ms).unwrap_or(i64::MAX)));
        self.call(Box::pin(client.set::<(), _, _>(Key::from(key), Value::Bytes(value), expire, None, false))).await
    }

    /// Deletes keys. Allowed even when Redis is out of memory.
    pub async fn unlink(&self, keys: Vec<Bytes>) -> Result<(), CallError> {
        let keys: Vec<Key> = keys.into_iter().map(Key::from).collect();
        let client = self.client();
        self.call(Box::pin(client.unlink::<(), _>(keys))).await
    }

    /// Publishes a message.
    pub async fn publish(&self, channel: String, message: Bytes) -> Result<(), CallError> {
        let client = self.client();
        self.call(Box::pin(client.publish::<(), _, _>(channel, Value::Bytes(message)))).await
    }

    /// Runs a script.
    pub async fn run(&self, script: &Script, keys: Vec<Bytes>, args: Vec<Bytes>) -> Result<Returned, CallError> {
        let client = self.client();
        let keys: Vec<Key> = keys.into_iter().map(Key::from).collect();
        let args: Vec<Value> = args.into_iter().map(Value::Bytes).collect();
        let value = self
            .call(Box::pin(async {
                let known = client.evalsha::<Value, _, _, _>(script.sha1.as_str(), keys.clone(), args.clone()).await;
                match known {
                    // Redis has forgotten the script, as it does at every restart.
                    Err(error) if error.details().contains("NOSCRIPT") => client.eval(script.lua.as_str(), keys, args).await,
                    known => known,
                }
            }))
            .await?;
        Ok(match value {
            Value::Null => Returned::Nil,
            Value::Array(values) => Returned::Many(values.into_iter().filter_map(Value::into_bytes).collect()),
            other => other.into_bytes().map_or(Returned::Nil, Returned::One),
        })
    }

    fn client(&self) -> WithOptions<Client> {
        self.current.load().client(self.turn())
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % self.lines.len()
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, fred::error::Error>>) -> Result<T, CallError> {
        self.counters.calls.inc();
        self.counted(match tokio::time::timeout(self.settings.deadline, call).await {
            Ok(result) => result.map_err(|error| CallError::of(&error)),
            Err(_) => Err(CallError::Timeout),
        })
    }

    fn counted<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        match &result {
            Ok(_) => {}
            Err(CallError::Timeout) => self.counters.timeouts.inc(),
            Err(_) => self.counters.errors.inc(),
        }
        result
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for driver in &self.drivers {
            driver.abort();
        }
    }
}

fn is_tcp(address: &Address) -> bool {
    matches!(address, Address::Tcp { .. })
}

fn config(settings: &Settings, tls: Option<&TlsConnector>) -> Config {
    let server = match &settings.address {
        Address::Tcp { host, port, .. } => ServerConfig::new_centralized(host.clone(), *port),
        Address::Unix(path) => ServerConfig::new_unix_socket(path.clone()),
    };
    // fred writes the credentials of `HELLO`, with which RESP3 begins, as words of one line; `AUTH` of RESP2 takes them as they are.
    let spaced = |text: &str| text.contains([' ', '\t', '"', '\'', '\\']);
    let password = settings.password.as_ref().is_some_and(|password| spaced(password.expose()));
    let version = if password || settings.username.as_deref().is_some_and(spaced) { RespVersion::RESP2 } else { RespVersion::RESP3 };
    Config {
        server,
        version,
        fail_fast: false,
        username: settings.username.clone(),
        password: settings.password.as_ref().map(|password| password.expose().to_owned()),
        database: Some(settings.database),
        tls: tls.map(|tls| tls.clone().into()),
        ..Config::default()
    }
}

fn connect(settings: &Settings, tls: Option<&TlsConnector>, broken: &Arc<Notify>) -> Result<Connected, SetupError> {
    let config = config(settings, tls);
    let mut policy = ReconnectPolicy::new_exponential(0, 20, 200, 2);
    policy.set_jitter(20);
    let mut connected = Connected { clients: Vec::new(), tasks: Vec::new() };
    for _ in 0..settings.connections.max(1) {
        let client = build(config.clone(), settings.deadline, is_tcp(&settings.address), Some(policy.clone()))
            .map_err(|error| SetupError { what: "the Redis client".to_owned(), why: format!("{error}; look at [redis] in proxy.toml") })?;
        let (mut errors, broken) = (client.error_rx(), Arc::clone(broken));
        connected.tasks.push(tokio::spawn(async move {
            // A lagging receiver has missed errors, which is an error as well.
            while !matches!(errors.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                broken.notify_one();
            }
        }));
        let router = client.connect();
        connected.tasks.push(tokio::spawn(AbortOnDrop(router)));
        connected.clients.push(client.with_options(&Options {
            fail_fast: true,
            max_attempts: Some(1),
            timeout: Some(settings.deadline),
            ..Options::default()
        }));
    }
    Ok(connected)
}

/// Carries fred's router task, so that aborting the carrier aborts it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The settings that survived the failure tests; the defaults wait for ever.
fn build(config: Config, deadline: Duration, is_tcp: bool, policy: Option<ReconnectPolicy>) -> Result<Client, fred::error::Error> {
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| {
        connection.connection_timeout = Duration::from_millis(500);
        connection.internal_command_timeout = Duration::from_millis(500);
        connection.max_command_attempts = 1;
        connection.max_command_buffer_len = 10_000;
        connection.unresponsive = UnresponsiveConfig { max_timeout: Some(Duration::from_secs(1)), interval: Duration::from_millis(200) };
        connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        if is_tcp {
            // Without it a full send buffer holds the router, and with it all reads and reconnection.
            connection.tcp.user_timeout = Some(Duration::from_millis(1500));
        }
        connection.reconnect_errors =
            vec![ReconnectError::ReadOnly, ReconnectError::Loading, ReconnectError::ClusterDown, ReconnectError::MasterDown];
    });
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = deadline.saturating_mul(2);
        performance.broadcast_channel_capacity = 4096;
    });
    if let Some(policy) = policy {
        builder.set_policy(policy);
    }
    builder.build()
}

fn tls_connector(ca_file: Option<&std::path::Path>) -> Result<TlsConnector, SetupError> {
    let failed = |why: String| SetupError { what: "TLS for Redis".to_owned(), why };
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(format!("{}: {error}", path.display())))?;
                roots.add(certificate).map_err(|error| failed(format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(failed("no root certificate to trust; install ca-certificates or set ca_file".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config))
}
