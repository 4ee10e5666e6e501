//! Bytes as they are: a client that sends what no library would, and an app that answers so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a silent peer is listened to.
const SILENCE: Duration = Duration::from_secs(1);

/// Sends these bytes on a connection of their own, and returns all that comes back until the peer closes or falls silent.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the address accepts connections");
    // The peer may refuse before it has read everything; what it said then counts.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Ok(read @ 1..)) = timeout(SILENCE, stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..read]);
    }
    answer
}

/// The status of the first response in these bytes; 0 when there is none.
pub fn status(answer: &[u8]) -> u16 {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).split(' ').nth(1).and_then(|status| status.trim().parse().ok()).unwrap_or(0)
}

/// An app that answers every request head with the same bytes, then closes.
pub struct RawApp {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl RawApp {
    /// An app that answers with `answer`.
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, answer, Arc::clone(&received)));
        Self { address, received, task }
    }

    /// All bytes that have reached it, on all connections.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().expect("no test panics with the lock held").clone()
    }
}

impl Drop for RawApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, answer: &'static [u8], received: Arc<Mutex<Vec<u8>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            let mut head = Vec::new();
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                received.lock().expect("no test panics with the lock held").extend_from_slice(&buffer[..read]);
                head.extend_from_slice(&buffer[..read]);
                if head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        });
    }
}
