//! A small HTTP/1.1 client for one address over plain TCP or a Unix socket, with which the commands
//! talk to a sidecar.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::server::ListenAddress;

/// How long connecting may take. Sidecars are close, so this is short.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        port: u16,
    },
    /// The path of a socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `http://host:port`, `host:port`, `host`, or `unix:/path`.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("unix:/") {
            let path = &text["unix:".len()..];
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        if lower.starts_with("https://") {
            return Err("the sidecar speaks plain HTTP only; write http://HOST:PORT, and use an \
                        SSH tunnel from another machine"
                .to_owned());
        }
        let with_scheme =
            if lower.starts_with("http://") { text.to_owned() } else { format!("http://{text}") };
        // SECURITY: a URL may contain a password by mistake, so messages do not repeat its text.
        let url = url::Url::parse(&with_scheme).map_err(|error| {
            format!("it is not a URL: {error}; write it as http://127.0.0.1:{default_port}")
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it must not contain a user or password".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "it must be http://HOST:PORT only, but it has the path {}",
                url.path()
            ));
        }
        let host = url
            .host_str()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        // The parser drops the scheme's default port, but `http://host:80` does mean 80.
        let port = url.port().unwrap_or(if with_scheme.trim_end_matches('/').ends_with(":80") {
            80
        } else {
            default_port
        });
        Ok(Self::Tcp { host, port })
    }

    /// Where a sidecar on this machine serves its clients.
    pub(super) fn for_clients(address: &ListenAddress) -> Self {
        match address {
            ListenAddress::Tcp(address) => Self::for_listener(*address),
            ListenAddress::Unix { path, .. } => Self::Unix(path.clone()),
        }
    }

    /// The address of a listener on this machine. An unspecified address becomes loopback.
    pub(super) fn for_listener(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::Tcp { host: ip.to_string(), port: address.port() }
    }

    /// What stands in a `Host` header.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { .. } => self.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Connects. Also returns what stands in `Host`: the resolved address, or `localhost` for a
    /// socket.
    pub(super) async fn connect(&self) -> io::Result<(SendRequest<Full<Bytes>>, String)> {
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            )
        };
        match self {
            Self::Tcp { host, port } => {
                let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)))
                    .await
                    .map_err(|_| late())??;
                let address = stream.peer_addr()?;
                stream.set_nodelay(true)?;
                Ok((handshaken(stream).await?, address.to_string()))
            }
            Self::Unix(path) => {
                let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path))
                    .await
                    .map_err(|_| late())??;
                Ok((handshaken(stream).await?, self.authority()))
            }
        }
    }
}

async fn handshaken<T>(stream: T) -> io::Result<SendRequest<Full<Bytes>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The task ends with the sender. Errors reach the caller through `send_request`.
    tokio::spawn(connection);
    Ok(sender)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Runs a future on a runtime of its own.
pub(super) fn block_on<F: Future>(conversation: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(conversation);
    // A write to a pipe that nobody reads does not hold up the end.
    runtime.shutdown_background();
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_in_the_forms_that_people_write() {
        for (given, read) in [
            ("http://127.0.0.1:9091", "127.0.0.1:9091"),
            ("HTTP://127.0.0.1:9091/", "127.0.0.1:9091"),
            ("127.0.0.1:9091", "127.0.0.1:9091"),
            ("sidecar", "sidecar:9090"),
            ("http://sidecar:80", "sidecar:80"),
            ("[::1]:9091", "[::1]:9091"),
            ("unix:/run/s.sock", "unix:/run/s.sock"),
            ("unix:///run/s.sock", "unix:/run/s.sock"),
        ] {
            assert_eq!(
                Endpoint::parse(given, 9090).map(|place| place.to_string()).as_deref(),
                Ok(read),
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_no_place_is_refused_without_being_repeated() {
        for given in [
            "https://h:1",
            "http://user:hunter2@h:1",
            "http://h:1/hunter2?a",
            "http://h:hunter2",
            "",
        ] {
            let said = Endpoint::parse(given, 9090).unwrap_err();
            assert!(!said.contains("user:"), "{given}: {said}");
        }
        assert!(Endpoint::parse("user:hunter2@h", 1).is_err_and(|said| !said.contains("hunter2")));
    }

    #[test]
    fn what_listens_everywhere_is_asked_on_the_loopback() {
        let place = |text: &str| Endpoint::for_listener(text.parse().unwrap()).to_string();
        assert_eq!(
            [place("0.0.0.0:1"), place("[::]:1"), place("10.0.0.7:1")],
            ["127.0.0.1:1", "[::1]:1", "10.0.0.7:1"]
        );
    }
}
