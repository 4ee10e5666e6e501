//! Finds out why Redis cannot be used: connects once more, by hand, and looks at each step. fred
//! tells only that there is no connection.
//!
//! Nothing is written to Redis, and a probe is made only after the client has failed.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use fred::prelude::TlsConnector;
use rustls::pki_types::ServerName;

use crate::clock::wait_while_running;
use crate::redis::RedisClient;
use crate::redis::error::CallError;
use crate::redis::fault::{FaultKind, RedisFault};
use crate::redis::node::{CONNECT_TIMEOUT, ConnectOptions, NodeAddress};
use crate::redis::settings::RedisAddress;
use crate::redis::topology::Topology;

/// The longest line that is read of a reply.
const MAX_LINE: usize = 1024;
/// The most members of a cluster, or sentinels, that are probed.
const MAX_PROBED: usize = 8;

/// A server that answers as it should, though a call to it has failed. If that happens again and
/// again, the fault is that it does not answer those calls.
#[derive(Debug)]
pub struct NothingWrong(pub RedisFault);

impl RedisClient {
    /// Why a call failed: what the server said, or what another attempt to connect finds. An error
    /// where that attempt finds nothing wrong: the call may have failed by a delay of our own.
    pub async fn diagnose(&self, error: &CallError) -> Result<RedisFault, NothingWrong> {
        if let Some(fault) = self.fault_of(error) {
            return Ok(fault);
        }
        let found = find(&self.topology).await;
        let silent =
            || RedisFault::new(FaultKind::Silent, self.shown_address(), &error.to_string());
        found.map(|fault| self.in_context(fault)).ok_or_else(|| NothingWrong(silent()))
    }

    /// What the reply to a call says, if there was one.
    #[must_use]
    pub fn fault_of(&self, error: &CallError) -> Option<RedisFault> {
        RedisFault::from_call(self.shown_address(), error).map(|fault| self.in_context(fault))
    }

    fn in_context(&self, fault: RedisFault) -> RedisFault {
        match self.settings.address {
            RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => fault.of_single_server(),
            RedisAddress::Sentinel(_) | RedisAddress::Cluster { .. } => fault,
        }
    }

    /// The address of the primary, or of all that the file names.
    #[must_use]
    pub fn shown_address(&self) -> String {
        if let Ok(servers) = self.session.load_full().servers() {
            return servers.primary.address.to_string();
        }
        let shown: Vec<String> =
            addresses(&self.settings.address).iter().map(ToString::to_string).collect();
        shown.join(", ")
    }
}

/// The servers that the file names.
fn addresses(address: &RedisAddress) -> Vec<NodeAddress> {
    let tcp = |(host, port): &(String, u16)| NodeAddress::Tcp(host.clone(), *port);
    match address {
        RedisAddress::Tcp { host, port, .. } => vec![NodeAddress::Tcp(host.clone(), *port)],
        RedisAddress::Unix(path) => vec![NodeAddress::Unix(path.clone())],
        RedisAddress::Sentinel(sentinel) => sentinel.nodes.iter().map(tcp).collect(),
        RedisAddress::Cluster { nodes, .. } => nodes.iter().map(tcp).collect(),
    }
}

/// What is wrong; `None` if the servers answer as they should.
async fn find(topology: &Topology) -> Option<RedisFault> {
    let settings = topology.settings();
    let all = addresses(&settings.address);
    let data = topology.access();
    match &settings.address {
        RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => probe(all.first()?, data).await.err(),
        RedisAddress::Cluster { .. } => {
            let (address, mut wire) = match first_answer(&all, data).await {
                Ok(found) => found,
                Err(fault) => return fault,
            };
            wire.expect_ok(&address, &["CLUSTER", "INFO"]).await.err()
        }
        RedisAddress::Sentinel(sentinel) => {
            let login = (sentinel.username.clone(), sentinel.password.clone());
            let access = ConnectOptions::to_sentinels(settings, login, topology.tls());
            let (address, mut wire) = match first_answer(&all, &access).await {
                Ok(found) => found,
                Err(fault) => return fault,
            };
            let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &sentinel.service];
            match wire.ask_for_address(&address, &ask).await {
                Ok(Some(primary)) => probe(&primary, data).await.err(),
                Ok(None) => {
                    let named = format!("`{}`", sentinel.service);
                    Some(RedisFault::new(FaultKind::UnknownService, address, &named))
                }
                Err(fault) => Some(fault),
            }
        }
    }
}

/// The first server that answers; else why the last one does not.
async fn first_answer(
    addresses: &[NodeAddress],
    options: &ConnectOptions,
) -> Result<(NodeAddress, Wire), Option<RedisFault>> {
    let mut last = None;
    for address in addresses.iter().take(MAX_PROBED) {
        match probe(address, options).await {
            Ok(wire) => return Ok((address.clone(), wire)),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last)
}

/// Whether an ACL refuses a subscription to this channel, and with which words.
pub(super) async fn refused_channel(
    address: &NodeAddress,
    options: &ConnectOptions,
    command: &str,
    channel: &str,
) -> Option<RedisFault> {
    let mut wire = probe(address, options).await.ok()?;
    let fault = wire.expect_ok(address, &[command, channel]).await.err()?;
    (fault.kind == FaultKind::NoPermission).then_some(fault)
}

/// Connects and logs in, as fred does.
async fn probe(address: &NodeAddress, options: &ConnectOptions) -> Result<Wire, RedisFault> {
    let within = options.connect_timeout();
    let mut wire = open(address, within).await?;
    if let Some(TlsConnector::Rustls(tls)) = options.tls() {
        let NodeAddress::Tcp(host, _) = address else { return Ok(wire) };
        let name = ServerName::try_from(host.clone()).map_err(|error| {
            RedisFault::new(FaultKind::Certificate, address, &error.to_string())
        })?;
        wire = match wait_while_running(within, tls.connect(name, wire.stream)).await {
            Some(Ok(stream)) => Wire::new(stream, true),
            Some(Err(error)) => {
                return Err(RedisFault::new(tls_fault(&error), address, &error.to_string()));
            }
            // A Redis that takes no TLS waits for the end of what it takes for a command.
            None if speaks_plainly(address, within).await => {
                return Err(RedisFault::new(FaultKind::NoTls, address, ""));
            }
            None => return Err(silent(address, within)),
        };
    }
    let (username, password) = options.login();
    if let Some(password) = password {
        let login: Vec<&str> =
            std::iter::once("AUTH").chain(username).chain([password.expose()]).collect();
        wire.expect_ok(address, &login).await.map_err(RedisFault::without_secrets)?;
    }
    if let Some(database) = options.database().filter(|database| *database != 0) {
        wire.expect_ok(address, &["SELECT", &database.to_string()]).await?;
    }
    wire.expect_ok(address, &["PING"]).await?;
    Ok(wire)
}

/// Whether a Redis answers without TLS. SECURITY: it is not told any password.
async fn speaks_plainly(address: &NodeAddress, within: Duration) -> bool {
    let Ok(mut wire) = open(address, within).await else { return false };
    let reply = wait_while_running(within, wire.exchange(&["PING"])).await;
    reply.is_some_and(|reply| reply.is_ok_and(|reply| reply.starts_with(['+', '-'])))
}

fn silent(address: &NodeAddress, within: Duration) -> RedisFault {
    RedisFault::new(FaultKind::Silent, address, &format!("for {within:?}"))
}

/// A connection without TLS.
async fn open(address: &NodeAddress, within: Duration) -> Result<Wire, RedisFault> {
    let opened = wait_while_running(within, connect(address)).await;
    opened.unwrap_or_else(|| Err(silent(address, within)))
}

async fn connect(address: &NodeAddress) -> Result<Wire, RedisFault> {
    let fault = |error: &io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => FaultKind::Refused,
            io::ErrorKind::PermissionDenied => FaultKind::Forbidden,
            io::ErrorKind::NotFound => FaultKind::NoSocket,
            _ => FaultKind::Unreachable,
        };
        let detail = if kind == FaultKind::Refused { String::new() } else { error.to_string() };
        RedisFault::new(kind, address, &detail)
    };
    let (host, port) = match address {
        NodeAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            return Ok(Wire::new(stream.map_err(|error| fault(&error))?, false));
        }
        NodeAddress::Tcp(host, port) => (host.as_str(), *port),
    };
    let found = lookup_host((host, port))
        .await
        .map_err(|error| RedisFault::new(FaultKind::Lookup, address, &error.to_string()))?;
    let mut stream = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
    for one in found {
        stream = TcpStream::connect(one).await;
        if stream.is_ok() {
            break;
        }
    }
    Ok(Wire::new(stream.map_err(|error| fault(&error))?, false))
}

/// What a failed handshake says. A server that does not speak TLS answers in its own protocol, or
/// hangs up.
fn tls_fault(error: &io::Error) -> FaultKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            FaultKind::Certificate
        }
        Some(rustls::Error::AlertReceived(_)) => FaultKind::Unreachable,
        _ => FaultKind::NoTls,
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection on which commands are written by hand.
struct Wire {
    stream: Box<dyn Duplex>,
    is_tls: bool,
    has_answered: bool,
}

impl Wire {
    fn new(stream: impl Duplex + 'static, is_tls: bool) -> Self {
        Self { stream: Box::new(stream), is_tls, has_answered: false }
    }

    /// Sends a command; a reply that is an error, or none, is what is wrong.
    async fn expect_ok(
        &mut self,
        address: &NodeAddress,
        words: &[&str],
    ) -> Result<String, RedisFault> {
        let reply = match wait_while_running(CONNECT_TIMEOUT, self.exchange(words)).await {
            Some(Ok(reply)) => reply,
            // What was written was not taken, or nothing came back.
            Some(Err(_)) => String::new(),
            None => return Err(silent(address, CONNECT_TIMEOUT)),
        };
        let fault = |kind, detail: &str| Err(RedisFault::new(kind, address, detail));
        let is_first = !std::mem::replace(&mut self.has_answered, true);
        match reply.as_bytes().first() {
            None if is_first && !self.is_tls => fault(FaultKind::WantsTls, ""),
            None => fault(FaultKind::Unreachable, "it closed the connection"),
            Some(b'-') => Err(RedisFault::from_reply(address, &reply[1..])),
            Some(b'+' | b':' | b'$' | b'*' | b'>' | b'%' | b'_') => Ok(reply),
            // An alert of TLS.
            Some(0x15) => fault(FaultKind::WantsTls, ""),
            Some(b'<') => fault(FaultKind::Http, ""),
            Some(_) if reply.starts_with("HTTP/") => fault(FaultKind::Http, &reply),
            Some(_) => fault(FaultKind::NotRedis, &reply),
        }
    }

    /// Asks a sentinel for the primary; `None` if it knows none of the name.
    async fn ask_for_address(
        &mut self,
        address: &NodeAddress,
        words: &[&str],
    ) -> Result<Option<NodeAddress>, RedisFault> {
        if self.expect_ok(address, words).await? != "*2" {
            return Ok(None);
        }
        let mut lines = Vec::new();
        for _ in 0..4 {
            match wait_while_running(CONNECT_TIMEOUT, self.line()).await {
                Some(Ok(line)) => lines.push(line),
                _ => return Err(silent(address, CONNECT_TIMEOUT)),
            }
        }
        // Each is a length and a text.
        let port = lines[3].parse().ok();
        Ok(port.map(|port| NodeAddress::Tcp(std::mem::take(&mut lines[1]), port)))
    }

    async fn exchange(&mut self, words: &[&str]) -> io::Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(command, "${}\r\n{word}\r\n", word.len());
        }
        // Redis skips an empty line. To an HTTP server it is the end of a head, which it answers.
        command.push_str("\r\n");
        self.stream.write_all(command.as_bytes()).await?;
        self.stream.flush().await?;
        self.line().await
    }

    /// A line without its end; what came of it where the connection ends.
    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while line.len() < MAX_LINE {
            let mut byte = [0];
            match self.stream.read(&mut byte).await {
                Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
                // What has arrived says more than that the rest is missing.
                Err(error) if line.is_empty() => return Err(error),
                _ => break,
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }
}
