//! Making a connection: name lookup, TCP, TLS, and the socket as hyper sees it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::counters::{CountGuard, UpstreamCounters};
use super::error::{UpstreamError, UpstreamSetupError};
use super::resolver::Resolver;
use super::settings::{UpstreamAddress, UpstreamSettings};
use super::socket::{SocketHandle, Stream, UpstreamSocket};
use super::upload::Upload;
use crate::input_file::{self, MAX_CA_BYTES};

/// The smallest buffer that hyper accepts.
const SMALLEST_BUFFER: usize = 8192;

/// Pauses between two tries to connect to a Unix socket whose queue is full, from the first to the
/// longest.
const FULL_QUEUE_PAUSE: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(50));

/// The size of the table of headers that hyper keeps on the stack.
const HYPERS_MAX_HEADERS: usize = 100;

pub(super) type Sender = http1::SendRequest<Upload>;
/// The side of a connection that reads and writes. Boxed: hyper does not name the type of one that
/// may be upgraded.
pub(super) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

pub(super) type NewConnection = (Sender, Driver, SocketHandle);

/// Makes connections to the one target.
pub(super) struct Connector {
    address: UpstreamAddress,
    resolver: Resolver,
    timeout: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http: http1::Builder,
    counters: UpstreamCounters,
}

impl Connector {
    pub(super) fn new(
        settings: UpstreamSettings,
        resolver: Resolver,
        counters: &UpstreamCounters,
    ) -> Result<Self, UpstreamSetupError> {
        if settings.max_header_bytes < SMALLEST_BUFFER {
            return Err(UpstreamSetupError::Limit(
                "the largest head of a response must be at least 8192 bytes",
            ));
        }
        let address = settings.target.address;
        let tls = match &address {
            UpstreamAddress::Tcp { tls: true, host, .. } => {
                let name = ServerName::try_from(host.to_string())
                    .map_err(|_| UpstreamSetupError::Host(host.to_string()))?;
                Some((tls(settings.ca_file.as_deref())?, name))
            }
            UpstreamAddress::Tcp { tls: false, .. } | UpstreamAddress::Unix(_) => None,
        };
        let mut http = http1::Builder::new();
        http.max_buf_size(settings.max_header_bytes);
        http.title_case_headers(settings.title_case_headers);
        // RFC 9112 5.1 and 5.2: a proxy removes white space before the colon, and unfolds lines.
        // SECURITY: a line that is no field stays an error. hyper could leave it out, but it may be
        // the misspelt one that forbids storing.
        http.allow_spaces_after_header_name_in_responses(true);
        http.allow_obsolete_multiline_headers_in_responses(true);
        // Any number but hyper's own makes it allocate the table for each response: with 256, that
        // took 2 us of 17 us per request.
        if settings.max_headers != HYPERS_MAX_HEADERS {
            http.max_headers(settings.max_headers);
        }
        Ok(Self {
            address,
            resolver,
            timeout: settings.connect_timeout,
            tls,
            http,
            counters: counters.clone(),
        })
    }

    /// A new connection, within the connect timeout.
    pub(super) async fn connect(&self) -> Result<NewConnection, UpstreamError> {
        match tokio::time::timeout(self.timeout, self.dial()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(UpstreamError::Connect(error)),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        }
    }

    async fn dial(&self) -> io::Result<NewConnection> {
        let (stream, open) = match &self.address {
            UpstreamAddress::Tcp { host, port, .. } => {
                let tcp = self.tcp(host, *port).await?;
                let open = self.opened();
                let stream = match &self.tls {
                    None => Stream::Plain(tcp),
                    Some((tls, name)) => {
                        Stream::Tls(Box::new(tls.connect(name.clone(), tcp).await?))
                    }
                };
                (stream, open)
            }
            UpstreamAddress::Unix(path) => (Stream::Unix(unix(path).await?), self.opened()),
        };
        let handle = SocketHandle::default();
        let io = UpstreamSocket::new(stream, handle.clone(), open);
        let (sender, driver) =
            self.http.handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        Ok((sender, Box::pin(driver.with_upgrades()), handle))
    }

    fn opened(&self) -> CountGuard {
        self.counters.connects.inc();
        CountGuard::up(&self.counters.open)
    }

    /// Tries the target's addresses in turn. The name is looked up each time, so that an origin
    /// that moved is found without a restart.
    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolver.addresses(host, port, self.timeout).await?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for (index, address) in addresses.iter().enumerate() {
            // All but the last get a share of the time, so that a dead first address leaves time
            // for the others.
            let share =
                if index + 1 == addresses.len() { self.timeout } else { self.timeout / count };
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    tune(&stream)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => {
                    last = io::Error::new(
                        io::ErrorKind::TimedOut,
                        "one of the addresses did not answer",
                    );
                }
            }
        }
        Err(last)
    }
}

/// Connects to a socket of this machine. Where TCP waits while the origin's queue is full, such a
/// socket refuses at once (`EAGAIN`), so the wait is here. The caller bounds it.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FULL_QUEUE_PAUSE.0;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FULL_QUEUE_PAUSE.1);
            }
            other => return other,
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Finds an origin whose host vanished while an event stream or a tunnel was silent.
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// What makes TLS connections for HTTP/1.1.
fn tls(ca_file: Option<&Path>) -> Result<TlsConnector, UpstreamSetupError> {
    tls_for(b"http/1.1", ca_file)
}

/// What makes TLS connections for a protocol. It trusts the authorities of this PEM file, or those
/// of the system.
pub fn tls_for(
    protocol: &[u8],
    ca_file: Option<&Path>,
) -> Result<TlsConnector, UpstreamSetupError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca_file {
        let fail = |why: String| UpstreamSetupError::CaFile { path: path.to_owned(), why };
        let pem = input_file::read(path, MAX_CA_BYTES).map_err(|error| fail(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| fail(error.to_string()))?;
            roots.add(certificate).map_err(|error| fail(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(fail("it holds no certificate".to_owned()));
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why =
                found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(UpstreamSetupError::NoSystemRoots(why));
        }
    }
    // The provider is named here, so that it does not depend on what other libraries install
    // process-wide.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| UpstreamSetupError::Limit("TLS 1.2 and 1.3 are not available"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
