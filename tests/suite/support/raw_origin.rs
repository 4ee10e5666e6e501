//! An origin that knows its connections: it keeps what each of them is, says which request came on
//! which, and leaves bodies unread if it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::http1;

/// What a connection has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The number of the connection, from 0 on.
    pub connection: usize,
    /// The request line, without the version.
    pub line: String,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The request line and the fields.
    pub head: String,
}

impl RawRequest {
    /// The request line, without the version.
    pub fn line(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        line.rsplit_once(' ').map_or(line, |(line, _)| line).to_owned()
    }

    /// A field's value; empty when it is absent.
    pub fn field(&self, name: &str) -> String {
        let (_, headers) = http1::head(self.head.as_bytes());
        let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        value.map(std::borrow::Cow::into_owned).unwrap_or_default()
    }
}

/// What the origin does with a request.
#[derive(Clone, Debug)]
pub struct RawResponse {
    /// How long it takes.
    pub delay: Duration,
    /// What it sends.
    pub bytes: Vec<u8>,
    /// What it sends a while later, although nobody has asked.
    pub unasked: Vec<u8>,
    /// Whether it closes then.
    pub close: bool,
}

impl RawResponse {
    /// A response of this status, with these further lines of its head.
    pub fn new(status: &str, fields: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n");
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        Self { delay: Duration::ZERO, bytes, unasked: Vec::new(), close: false }
    }

    /// A 200.
    pub fn ok(body: &str) -> Self {
        Self::new("200 OK", "", body)
    }
}

/// Whether the origin reads the bodies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// As it should.
    Read,
    /// What stands in a body is taken for the next request.
    LeftUnread,
}

#[derive(Debug, Default)]
struct Seen {
    arrivals: Vec<Arrival>,
    open: usize,
}

/// The origin. Dropping it ends its listener.
pub struct RawOrigin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl RawOrigin {
    /// An origin that answers so. `S` is what it keeps of each connection.
    pub async fn start<S: Default + Send + 'static>(
        bodies: Bodies,
        handler: impl Fn(&mut S, &RawRequest) -> RawResponse + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (handler, seen) = (Arc::new(handler), Arc::<Mutex<Seen>>::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&shared));
                lock(&seen).open += 1;
                tokio::spawn(async move {
                    let _ = serve(stream, number, bodies, &*handler, &seen).await;
                    lock(&seen).open -= 1;
                });
            }
        });
        Self { address, seen, task }
    }

    /// All requests so far, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.seen).arrivals.clone()
    }

    /// The connections of the requests with this line, in order.
    pub fn connections(&self, line: &str) -> Vec<usize> {
        let arrivals = self.arrivals();
        arrivals.iter().filter(|seen| seen.line == line).map(|seen| seen.connection).collect()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        lock(&self.seen).open
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve<S: Default>(
    mut stream: TcpStream,
    connection: usize,
    bodies: Bodies,
    handler: &(impl Fn(&mut S, &RawRequest) -> RawResponse + Sync),
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut state, mut buffer) = (S::default(), Vec::new());
    loop {
        let length = loop {
            if let Some(length) = http1::head_length(&buffer) {
                break length;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..length).collect();
        if bodies == Bodies::Read {
            let (_, headers) = http1::head(&head);
            read_body(&mut stream, &mut buffer, &headers).await?;
        }
        let request = RawRequest { head: String::from_utf8_lossy(&head).into_owned() };
        lock(seen).arrivals.push(Arrival { connection, line: request.line() });
        let mut response = handler(&mut state, &request);
        if request.line().starts_with("HEAD ") {
            response.bytes.truncate(http1::head_length(&response.bytes).unwrap_or_default());
        }
        sleep(response.delay).await;
        stream.write_all(&response.bytes).await?;
        if !response.unasked.is_empty() {
            sleep(Duration::from_millis(20)).await;
            stream.write_all(&response.unasked).await?;
        }
        if response.close {
            return Ok(());
        }
    }
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    headers: &hyper::HeaderMap,
) -> std::io::Result<()> {
    let length =
        headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    let is_chunked = http1::names(headers, "transfer-encoding", "chunked");
    loop {
        let used = match length {
            Some(length) if buffer.len() >= length => Some(length),
            None if is_chunked => http1::dechunked(buffer).ok().map(|(_, used)| used),
            None => Some(0),
            Some(_) => None,
        };
        if let Some(used) = used {
            buffer.drain(..used);
            return Ok(());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
