//! A client that sends a head as a test writes it, byte for byte, from an address of the loopback
//! that the test chooses: HTTP/1 on a connection that it keeps, and HTTP/2 by prior knowledge.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{PATIENCE, Reply};
use crate::support::http1;

/// A client of one address.
pub struct WireClient {
    address: SocketAddr,
    from: Ipv4Addr,
    one: Option<TcpStream>,
    two: Option<http2::SendRequest<Empty<Bytes>>>,
}

impl WireClient {
    /// A client with this address of its own, which connects when it first sends something.
    pub fn new(address: SocketAddr, from: Ipv4Addr) -> Self {
        Self { address, from, one: None, two: None }
    }

    /// Sends a head of HTTP/1 as it is, and reads the response.
    pub async fn one(&mut self, head: &[u8]) -> Reply {
        let kept = self.one.take();
        let again = kept.is_some();
        match self.exchange(kept, head).await {
            // The peer may have closed what was kept.
            Err(_) if again => self.exchange(None, head).await,
            other => other,
        }
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(head)))
    }

    async fn exchange(&mut self, kept: Option<TcpStream>, head: &[u8]) -> io::Result<Reply> {
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(head).await?;
        let mut bytes = Vec::with_capacity(4096);
        let end = loop {
            if let Some(end) = response_length(&bytes, head.starts_with(b"HEAD ")) {
                break end;
            }
            if timeout(PATIENCE, stream.read_buf(&mut bytes)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        assert_eq!(end, bytes.len(), "one response to one request");
        let reply = Reply::read(&bytes, None);
        let ends = http1::names(&reply.headers, "connection", "close")
            || bytes.starts_with(b"HTTP/1.0")
                && !http1::names(&reply.headers, "connection", "keep-alive");
        if !ends {
            self.one = Some(stream);
        }
        Ok(reply)
    }

    /// Sends a request over HTTP/2, and reads the response.
    pub async fn two(&mut self, request: Request<()>) -> Reply {
        let shown = format!("{request:?}");
        let reply = async { self.exchange_two(request.map(|()| Empty::new())).await }.await;
        reply.unwrap_or_else(|error| panic!("{error}: {shown}"))
    }

    async fn exchange_two(&mut self, request: Request<Empty<Bytes>>) -> io::Result<Reply> {
        let mut kept = self.two.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = if let Some(sender) = kept {
            sender
        } else {
            let io = TokioIo::new(self.connect().await?);
            let handshake = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = handshake.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender
        };
        let response = timeout(PATIENCE, sender.send_request(request)).await?;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = timeout(PATIENCE, body.collect()).await?.map_err(io::Error::other)?;
        self.two = Some(sender);
        Ok(Reply::new(head.status.as_u16(), head.headers, body.to_bytes()))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((self.from, 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// How long the response at the start of these bytes is, when all of it is there.
fn response_length(bytes: &[u8], to_head: bool) -> Option<usize> {
    let head = http1::head_length(bytes)?;
    if to_head || matches!(http1::status(bytes), 204 | 304) {
        return Some(head);
    }
    let (_, headers) = http1::head(&bytes[..head]);
    let rest = &bytes[head..];
    if http1::names(&headers, "transfer-encoding", "chunked") {
        return http1::dechunked(rest).ok().map(|(_, used)| head + used);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok());
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a Content-Length");
    (rest.len() >= length).then_some(head + length)
}
