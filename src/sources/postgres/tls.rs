//! TLS for the client of PostgreSQL, by rustls.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;

use crate::upstream::tls_for;

/// The name of the protocol, by which PostgreSQL tells that TLS is meant for it.
const PROTOCOL: &[u8] = b"postgresql";

/// Makes TLS connections to the hosts of a URL.
#[derive(Clone)]
pub(super) struct PostgresTls(Option<TlsConnector>);

impl PostgresTls {
    /// For the hosts of this URL; the authorities are loaded where TLS may be used.
    pub(super) fn new(config: &Config, ca_file: Option<&Path>) -> Result<Self, String> {
        if config.get_ssl_mode() == SslMode::Disable {
            return Ok(Self(None));
        }
        tls_for(PROTOCOL, ca_file).map(|tls| Self(Some(tls))).map_err(|error| error.to_string())
    }
}

impl<S> MakeTlsConnect<S> for PostgresTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type TlsConnect = HostTls;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<HostTls> {
        Ok(HostTls { tls: self.0.clone(), host: domain.to_owned() })
    }
}

/// Makes TLS connections to one host.
pub(super) struct HostTls {
    tls: Option<TlsConnector>,
    host: String,
}

impl<S> TlsConnect<S> for HostTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = TlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let off = || io::Error::new(io::ErrorKind::Unsupported, "TLS is off");
            let tls = self.tls.ok_or_else(off)?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            tls.connect(name, stream).await.map(TlsStream)
        })
    }
}

/// A connection with TLS.
pub(super) struct TlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for TlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
