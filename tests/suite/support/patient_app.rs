//! An app that takes its time, and clients that do not: they leave by FIN, by reset, or by closing
//! only their own half.
//!
//! What the app does stands in the path: `/never` gets no response, `/late` one after a while,
//! `/drip` a body in pieces, `/events` one event and then silence, `/trickle`
//! the same as lines of JSON, `/ws` a tunnel that echoes; all
//! else is answered at once. It notices when a peer closes while it works.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::http1;

/// How long `/late` takes.
pub const LATE: Duration = Duration::from_millis(700);
/// The pieces of `/drip`, and the pause before each.
const PIECES: usize = 20;
const PIECE_PAUSE: Duration = Duration::from_millis(150);

#[derive(Debug, Default)]
struct Seen {
    begun: Vec<String>,
    finished: Vec<String>,
}

/// The app. Dropping it ends its listener.
pub struct PatientApp {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl PatientApp {
    /// An app without requests.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = serve(stream, &seen).await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// How many requests with this line have come.
    pub fn begun(&self, line: &str) -> usize {
        lock(&self.seen).begun.iter().filter(|begun| *begun == line).count()
    }

    /// How many requests with this line were answered, or their answers sent to the end.
    pub fn finished(&self, line: &str) -> usize {
        lock(&self.seen).finished.iter().filter(|finished| *finished == line).count()
    }

    /// Waits for so many requests with this line.
    pub async fn reached(&self, line: &str, count: usize) {
        let what = format!("the app has {count} of {line}");
        let within = Duration::from_secs(20);
        super::eventually(&what, within, || async { self.begun(line) >= count }).await;
    }
}

impl Drop for PatientApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works for this long, unless the peer closes before.
pub async fn work<S: AsyncRead + Unpin>(stream: &mut S, time: Duration) -> std::io::Result<()> {
    let mut byte = [0];
    match timeout(time, stream.read(&mut byte)).await {
        Err(_) => Ok(()),
        Ok(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
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
        let (line, headers) = http1::head(&head);
        let line = line.rsplit_once(' ').map_or(&*line, |(line, _)| line).to_owned();
        lock(seen).begun.push(line.clone());
        let body = headers.get("content-length");
        let body: usize = body.and_then(|n| n.to_str().ok()?.parse().ok()).unwrap_or(0);
        while buffer.len() < body {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..body);
        answer(&mut stream, &line).await?;
        lock(seen).finished.push(line);
    }
}

/// Answers a request with this method and path.
pub async fn answer<S>(stream: &mut S, line: &str) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (method, path) = line.split_once(' ').unwrap_or(("", line));
    if path.contains("/never") {
        work(stream, Duration::from_mins(10)).await?;
    } else if path.contains("/late") {
        work(stream, LATE).await?;
    } else if path.contains("/drip") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        for _ in 0..PIECES {
            work(stream, PIECE_PAUSE).await?;
            stream.write_all(b"4\r\ndrip\r\n").await?;
        }
        return stream.write_all(b"0\r\n\r\n").await;
    } else if path.contains("/events") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n8\r\ndata:1\n\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        return work(stream, Duration::from_mins(10)).await;
    } else if path.contains("/trickle") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        return work(stream, Duration::from_mins(10)).await;
    } else if path.contains("/ws") {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => stream.write_all(&bytes[..count]).await?,
            }
        }
    }
    let body = if method == "HEAD" { "" } else { "data" };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).await
}

/// A client that sends these bytes.
pub async fn sent(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the address accepts connections");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.write_all(bytes.as_bytes()).await.expect("the peer reads");
    stream
}

/// Closes the client's own half.
pub async fn half_close(stream: &mut TcpStream) {
    stream.shutdown().await.expect("the connection is open");
}

/// Resets the connection.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(stream);
}

/// All that comes until the connection ends, or for so long.
pub async fn read(stream: &mut TcpStream, most: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = sleep(most);
    tokio::pin!(end);
    loop {
        tokio::select! {
            read = stream.read_buf(&mut bytes) => {
                if !matches!(read, Ok(1..)) {
                    return bytes;
                }
            }
            () = &mut end => return bytes,
        }
    }
}
