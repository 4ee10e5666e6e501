//! A small HTTP/1.1 client for one address over plain TCP, with which the commands talk to a
//! sidecar.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take. Sidecars are close, so this is short.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address, IPv6 without brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `http://host:port`, `host:port` or `host`.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
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
        Ok(Self { host, port })
    }

    /// The address of a listener on this machine. An unspecified address becomes loopback.
    pub(super) fn for_listener(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { host: ip.to_string(), port: address.port() }
    }

    /// Connects. Also returns the resolved address.
    pub(super) async fn connect(&self) -> io::Result<(SendRequest<Full<Bytes>>, SocketAddr)> {
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            )
        };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| late())??;
        let address = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // The task ends with the sender. Errors reach the caller through `send_request`.
        tokio::spawn(connection);
        Ok((sender, address))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Runs a future on a runtime of its own.
pub(super) fn block_on<F: Future>(conversation: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(conversation))
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
