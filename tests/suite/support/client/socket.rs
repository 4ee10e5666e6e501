//! The client as bytes: it sends what no library would, notes when the first byte came, and tells a
//! response that ended from one that broke off. Cheap enough for a thousand of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Reply};
use crate::support::http1;

/// How long a silent peer is listened to.
const SILENCE: Duration = Duration::from_secs(1);

/// How many connections are made at a time: fewer than any listener's queue holds.
const TOGETHER: usize = 50;

/// A connection.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    /// A connection.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the address accepts connections");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::new() }
    }

    /// A connection whose kernel takes in little of what its client does not read.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_recv_buffer_size(16 * 1024).expect("a TCP socket");
        socket
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .expect("the loopback has a free port");
        let stream = socket.connect(address).await.expect("the address accepts connections");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the peer reads");
    }

    /// Sends a GET after whose response the connection ends.
    pub async fn ask(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"))
            .await;
    }

    /// Reads until the connection ends, in whatever way.
    pub async fn read(&mut self) -> Reply {
        self.read_slowly(Duration::ZERO, CancellationToken::new()).await
    }

    /// The same, with a pause after each piece until it is told to hurry.
    pub async fn read_slowly(&mut self, pause: Duration, hurry: CancellationToken) -> Reply {
        let (mut bytes, mut first_byte) = (std::mem::take(&mut self.buffer), None);
        loop {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut bytes)).await;
            let Ok(1..) = read.expect("the response ends") else { break };
            first_byte.get_or_insert_with(Instant::now);
            if !pause.is_zero() {
                let _ = timeout(pause, hurry.cancelled()).await;
            }
        }
        Reply::read(&bytes, first_byte)
    }

    /// Sends a GET and reads its response, whose length is told beforehand. The connection stays.
    pub async fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n")).await;
        let mut first_byte = None;
        loop {
            self.fill().await;
            first_byte.get_or_insert_with(Instant::now);
            let Some(head) = http1::head_length(&self.buffer) else { continue };
            let (_, headers) = http1::head(&self.buffer[..head]);
            let length = headers.get("content-length").and_then(|value| value.to_str().ok());
            let length: usize =
                length.and_then(|length| length.parse().ok()).expect("a Content-Length");
            if self.buffer.len() == head + length {
                let bytes = std::mem::take(&mut self.buffer);
                return Reply::read(&bytes, first_byte);
            }
        }
    }

    /// Reads until these bytes have come, and returns all that came.
    pub async fn until(&mut self, wanted: &str) -> String {
        while !String::from_utf8_lossy(&self.buffer).contains(wanted) {
            self.fill().await;
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Reads one line.
    pub async fn line(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            self.fill().await;
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Ends the connection at once, by a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a TCP socket");
    }

    async fn fill(&mut self) {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        assert!(
            matches!(read, Ok(Ok(1..))),
            "nothing more came: {read:?}; before it {}",
            String::from_utf8_lossy(&self.buffer)
        );
    }
}

/// Sends a GET on a connection of its own, and reads the response.
pub async fn get(address: SocketAddr, target: &str) -> Reply {
    let mut socket = Socket::connect(address).await;
    socket.ask(target).await;
    socket.read().await
}

/// Sends these bytes on a connection of their own, and returns all that comes back until the peer
/// closes or falls silent.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let Socket { mut stream, .. } = Socket::connect(address).await;
    // The peer may refuse before it has read everything; what it said then counts.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = timeout(SILENCE, stream.read_buf(&mut answer)).await {}
    answer
}

/// Many clients that have asked for the same, each on a connection of its own.
pub struct Crowd {
    clients: Vec<JoinHandle<Reply>>,
    asked: Instant,
}

impl Crowd {
    /// Connects them all, then lets them ask. Returns when all requests are sent.
    pub async fn ask(address: SocketAddr, target: &str, count: usize) -> Self {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let more = TOGETHER.min(count - sockets.len());
            let next: Vec<_> = (0..more).map(|_| tokio::spawn(Socket::connect(address))).collect();
            for socket in next {
                sockets.push(socket.await.expect("no panic"));
            }
        }
        let asked = Instant::now();
        for socket in &mut sockets {
            socket.ask(target).await;
        }
        let read = |mut socket: Socket| tokio::spawn(async move { socket.read().await });
        Self { clients: sockets.into_iter().map(read).collect(), asked }
    }

    /// Whether any has its response.
    pub fn any_is_done(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Their responses.
    pub async fn answers(self) -> Vec<Reply> {
        let mut answers = Vec::new();
        for client in self.clients {
            answers.push(client.await.expect("no panic"));
        }
        answers
    }

    /// Their responses, all of them whole 200s, and how long it took from the first request to the
    /// last end.
    pub async fn time(self) -> (Vec<Reply>, Duration) {
        let asked = self.asked;
        let answers = self.answers().await;
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.cache_status());
            let got = answer.body.len();
            assert!(answer.whole().is_ok(), "broken after {got} bytes: {}", answer.cache_status());
        }
        let last = answers.iter().map(|answer| answer.end).max().expect("a crowd is somebody");
        (answers, last - asked)
    }
}
