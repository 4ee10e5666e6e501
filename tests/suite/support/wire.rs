//! Clients on bare sockets, cheap enough for a thousand of them: they note when the first byte came, and tell a message that ended from
//! one that broke off.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// No answer takes this long unless something hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// How many connections are made at a time: fewer than any listener's queue holds.
const TOGETHER: usize = 50;

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Message {
    /// When its first byte came, if any did.
    pub first_byte: Option<Instant>,
    /// When its end came.
    pub end: Instant,
    bytes: Vec<u8>,
    head: usize,
}

impl Message {
    fn new(bytes: Vec<u8>, first_byte: Option<Instant>) -> Self {
        let head = head_length(&bytes).unwrap_or(bytes.len());
        Self { first_byte, end: Instant::now(), bytes, head }
    }

    /// Its status; 0 when there is none.
    pub fn status(&self) -> u16 {
        super::raw::status(&self.bytes)
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        header(&self.bytes[..self.head], name)
    }

    /// What `X-Cache` says.
    pub fn cache(&self) -> &str {
        self.header("x-cache")
    }

    /// The body, if it is whole; otherwise what came of it.
    pub fn body(&self) -> Result<Vec<u8>, Vec<u8>> {
        let rest = &self.bytes[self.head..];
        if self.header("transfer-encoding") == "chunked" {
            return dechunked(rest);
        }
        // A message without a length has no end that could be told from a break.
        let whole = self.header("content-length").parse() == Ok(rest.len());
        if whole { Ok(rest.to_vec()) } else { Err(rest.to_vec()) }
    }
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn header<'a>(head: &'a [u8], name: &str) -> &'a str {
    let lines = std::str::from_utf8(head).unwrap_or_default().lines();
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
}

fn dechunked(mut rest: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return Err(body) };
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.unwrap_or_else(|| panic!("no size of a chunk: {:?}", &rest[..line]));
        rest = &rest[line + 2..];
        if size == 0 {
            return if rest == b"\r\n" { Ok(body) } else { Err(body) };
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            return Err(body);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// A connection.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("the address accepts connections");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// A connection whose kernel takes in little of what its client does not read.
pub async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_recv_buffer_size(16 * 1024).expect("a TCP socket");
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("the loopback has a free port");
    socket.connect(address).await.expect("the address accepts connections")
}

/// Sends a GET after whose answer the connection ends.
pub async fn ask(stream: &mut TcpStream, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the sidecar takes the request");
}

/// Reads until the connection ends, in whatever way.
pub async fn read(stream: &mut TcpStream) -> Message {
    let (mut bytes, mut first_byte) = (Vec::new(), None);
    while let Ok(1..) = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("the response ends") {
        first_byte.get_or_insert_with(Instant::now);
    }
    Message::new(bytes, first_byte)
}

/// The same, with a pause after each piece until it is told to hurry.
pub async fn read_slowly(stream: &mut TcpStream, pause: Duration, hurry: CancellationToken) -> Message {
    let (mut bytes, mut first_byte) = (Vec::new(), None);
    while let Ok(1..) = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("the response ends") {
        first_byte.get_or_insert_with(Instant::now);
        let _ = timeout(pause, hurry.cancelled()).await;
    }
    Message::new(bytes, first_byte)
}

/// Sends a GET on a connection of its own, and reads the answer.
pub async fn get(address: SocketAddr, target: &str) -> Message {
    let mut stream = connect(address).await;
    ask(&mut stream, target).await;
    read(&mut stream).await
}

/// Many clients that have asked for the same, each on a connection of its own.
pub struct Crowd {
    clients: Vec<JoinHandle<Message>>,
    asked: Instant,
}

impl Crowd {
    /// Connects them all, then lets them ask. Returns when all requests are sent.
    pub async fn ask(address: SocketAddr, target: &str, count: usize) -> Self {
        let mut streams = Vec::new();
        while streams.len() < count {
            let next: Vec<_> = (0..TOGETHER.min(count - streams.len())).map(|_| tokio::spawn(connect(address))).collect();
            for stream in next {
                streams.push(stream.await.expect("no panic"));
            }
        }
        let asked = Instant::now();
        for stream in &mut streams {
            ask(stream, target).await;
        }
        let clients = streams.into_iter().map(|mut stream| tokio::spawn(async move { read(&mut stream).await })).collect();
        Self { clients, asked }
    }

    /// Whether any has its answer.
    pub fn any_is_done(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Their answers.
    pub async fn answers(self) -> Vec<Message> {
        let mut answers = Vec::new();
        for client in self.clients {
            answers.push(client.await.expect("no panic"));
        }
        answers
    }

    /// Their answers, all of them whole 200s, and how long it took from the first request to the last end.
    pub async fn time(self) -> (Vec<Message>, Duration) {
        let asked = self.asked;
        let answers = self.answers().await;
        for answer in &answers {
            assert_eq!(answer.status(), 200, "{}", answer.header("cache-status"));
            assert!(answer.body().is_ok(), "broken after {} bytes: {}", answer.bytes.len(), answer.header("cache-status"));
        }
        let last = answers.iter().map(|answer| answer.end).max().expect("a crowd is somebody");
        (answers, last - asked)
    }
}

/// A client that asks for the same again and again on one connection.
pub struct Repeater {
    stream: TcpStream,
    request: String,
}

impl Repeater {
    /// A client of this target.
    pub async fn connect(address: SocketAddr, target: &str) -> Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n");
        Self { stream: connect(address).await, request }
    }

    /// Asks, and reads an answer whose length is told beforehand.
    pub async fn get(&mut self) -> Message {
        self.stream.write_all(self.request.as_bytes()).await.expect("the sidecar takes the request");
        let (mut bytes, mut first_byte) = (Vec::with_capacity(1024), None);
        loop {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut bytes)).await.expect("the response ends");
            assert!(matches!(read, Ok(1..)), "the connection ended: {read:?}");
            first_byte.get_or_insert_with(Instant::now);
            let Some(head) = head_length(&bytes) else { continue };
            let length: usize = header(&bytes[..head], "content-length").parse().expect("a Content-Length");
            if bytes.len() == head + length {
                return Message::new(bytes, first_byte);
            }
        }
    }
}
