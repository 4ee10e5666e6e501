//! The client of all suites: HTTP/1.1 or HTTP/2 on a connection that it keeps, one request at a
//! time as a browser's tab would send them, or bytes as they are on a [`Socket`].

mod reply;
mod socket;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub use reply::Reply;
pub use socket::{Crowd, Socket, exchange, get};
pub use wire::WireClient;

/// No response takes this long unless something hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// For how long a sidecar that ends leaves a connection open that is idle (`IDLE_LINGER`).
const LINGER: Duration = Duration::from_millis(300);

type Content = UnsyncBoxBody<Bytes, Infallible>;

type Unsent = TrySendError<Request<Content>>;

/// A connection.
enum Connection {
    One(http1::SendRequest<Content>),
    Two(http2::SendRequest<Content>),
}

impl Connection {
    async fn ready(&mut self) -> bool {
        match self {
            Self::One(connection) => connection.ready().await.is_ok(),
            Self::Two(connection) => connection.ready().await.is_ok(),
        }
    }

    /// Sends a request, which comes back with the error if nothing of it was sent.
    async fn send(&mut self, request: Request<Content>) -> Result<Response<Incoming>, Unsent> {
        match self {
            Self::One(connection) => connection.try_send_request(request).await,
            Self::Two(connection) => connection.try_send_request(request).await,
        }
    }
}

/// A connection of HTTP/1 ended before a byte of the response, after it may have been idle for
/// [`LINGER`]: a server that ends closes it then, and a client that was held up until that moment
/// sends on it. One that was closed sooner is an error of the server.
#[derive(Debug, thiserror::Error)]
#[error("closed while it was idle: {0}")]
struct ClosedIdle(#[source] hyper::Error);

/// Whether any client sends the request again on another connection: the server has done nothing
/// with it (RFC 9112 9.3.1, RFC 9113 6.8).
pub fn is_sent_again(error: &io::Error) -> bool {
    let cause: Option<&(dyn std::error::Error + Send + Sync)> = error.get_ref();
    matches!(cause, Some(cause) if cause.is::<ClosedIdle>())
        || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR")
}

/// A client of one address.
pub struct Client {
    address: SocketAddr,
    host: String,
    http2: bool,
    connection: Option<Connection>,
    /// When the last request on that connection was sent.
    asked: Option<Instant>,
}

impl Client {
    /// A client that connects when it first sends something.
    pub fn new(address: SocketAddr) -> Self {
        // The Host is the same for all clients: several sidecars in front of one origin have one
        // name.
        Self { address, host: "app.test".to_owned(), http2: false, connection: None, asked: None }
    }

    /// A client that speaks HTTP/2, by prior knowledge.
    pub fn http2(address: SocketAddr) -> Self {
        Self { http2: true, ..Self::new(address) }
    }

    /// The same, of a site with this host.
    pub fn at_host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    /// A client of an admin listener, which answers under its own name alone.
    pub fn of_admin(address: SocketAddr) -> Self {
        Self { host: address.to_string(), ..Self::new(address) }
    }

    /// Another client on the same connection, which has to be one of HTTP/2.
    pub async fn beside(&mut self) -> Self {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await.expect("the address accepts connections"));
        }
        let Some(Connection::Two(connection)) = &self.connection else { panic!("not HTTP/2") };
        let connection = Some(Connection::Two(connection.clone()));
        Self { host: self.host.clone(), connection, ..*self }
    }

    /// Sends a GET. Panics when no response comes.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, "").await
    }

    /// Sends a request. Panics when no response comes.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let reply = self.try_send(method, path, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request, and reads the response to its end.
    pub async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> io::Result<Reply> {
        whole(self.open(method, path, headers, body).await?).await
    }

    /// Sends a request whose body comes in pieces, and reads the response to its end.
    pub async fn upload<S>(&mut self, method: &str, path: &str, pieces: S) -> Reply
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let body = StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync();
        let response = self.exchange(method, path, &[], body).await;
        let reply = async { whole(response?).await }.await;
        reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request, and returns as soon as the response's head is there.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> io::Result<Response<Incoming>> {
        self.exchange(method, path, headers, Full::new(body.into()).boxed_unsync()).await
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Content,
    ) -> io::Result<Response<Incoming>> {
        let request = Request::builder().method(method);
        let mut request = if self.http2 {
            request.uri(format!("http://{}{path}", self.host))
        } else {
            request.uri(path).header(HOST, &self.host)
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(io::Error::other)?;
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && !connection.ready().await
        {
            kept = None;
        }
        let asked = self.asked.take().filter(|_| kept.is_some());
        let connection = self.connection.insert(match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        });
        let now = Instant::now();
        let mut failed = match timeout(PATIENCE, connection.send(request)).await? {
            Ok(response) => {
                self.asked = Some(now);
                return Ok(response);
            }
            Err(failed) => failed,
        };
        // The connection was closed while it was idle, as it may be: nothing of the request was
        // sent, and any client sends it on another connection.
        let Some(request) = failed.take_message() else {
            let error = failed.into_error();
            let was_idle = !self.http2 && asked.is_some_and(|at| at.elapsed() >= LINGER);
            return Err(if was_idle && (error.is_incomplete_message() || is_reset(&error)) {
                io::Error::other(ClosedIdle(error))
            } else {
                io::Error::other(error)
            });
        };
        let connection = self.connection.insert(self.connect().await?);
        let response = timeout(PATIENCE, connection.send(request)).await?;
        response.map_err(|failed| io::Error::other(failed.into_error()))
    }

    async fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if self.http2 {
            let handshake = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = handshake.map_err(io::Error::other)?;
            tokio::spawn(connection);
            return Ok(Connection::Two(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection::One(sender))
    }
}

/// Whether the other side no longer reads.
fn is_reset(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let kind = cause.map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

async fn whole(response: Response<Incoming>) -> io::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await?.map_err(io::Error::other)?;
    let trailers = body.trailers().cloned();
    let mut reply = Reply::new(head.status.as_u16(), head.headers, body.to_bytes());
    reply.trailers = trailers;
    Ok(reply)
}
