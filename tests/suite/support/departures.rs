//! Clients that leave, in all ways and at all moments: by FIN, by reset, half-closed, in the midst
//! of a request or an upload, while they wait, and by resets of HTTP/2 streams.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::patient_app::{read, reset};

/// How long a client that has closed its own half reads on.
const READS_ON: Duration = Duration::from_secs(1);

/// A GET.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n")
}

/// A POST of two bytes.
pub fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\n{{}}")
}

/// The begin of a WebSocket.
pub fn websocket(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
}

/// A sequence of numbers that is the same at each run.
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, which is less than this.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// A sequence of its own.
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::from(u32::MAX)))
    }
}

/// What one client of HTTP/1 asked for, and what it got before it left.
pub struct Departure {
    /// The methods and paths of its requests.
    pub asked: Vec<(&'static str, String)>,
    /// How many of them it sent to the end of their heads.
    pub heads: usize,
    /// What it read.
    pub got: Vec<u8>,
}

/// One client of HTTP/1 that leaves at some moment in some way.
pub async fn leave_somehow(address: SocketAddr, mut numbers: Numbers) -> io::Result<Departure> {
    let path = match numbers.below(8) {
        0 => "/quick".to_owned(),
        1 => "/never".to_owned(),
        2 => "/late".to_owned(),
        3 => "/drip".to_owned(),
        4 => "/events".to_owned(),
        5 => format!("/v/late/{}", numbers.below(3)),
        6 => format!("/v/drip/{}", numbers.below(3)),
        _ => format!("/v/quick/{}", numbers.below(100)),
    };
    let body = "x".repeat(usize::try_from(numbers.below(100_000)).expect("it is small"));
    let (asked, request) = match numbers.below(8) {
        0 => (vec![("GET", "/ws".to_owned())], websocket("/ws")),
        1 => {
            let length = body.len();
            let head =
                format!("POST /late HTTP/1.1\r\nHost: app.test\r\nContent-Length: {length}\r\n");
            (vec![("POST", "/late".to_owned())], format!("{head}\r\n{body}"))
        }
        2 => {
            let fields = "Expect: 100-continue\r\nContent-Length: 2";
            let request = post("/v/late").replace("Content-Length: 2", fields);
            (vec![("POST", "/v/late".to_owned())], request)
        }
        3 => {
            let request = format!("{}{}", get("/quick"), get(&path));
            (vec![("GET", "/quick".to_owned()), ("GET", path)], request)
        }
        4 => (vec![("HEAD", path.clone())], get(&path).replace("GET", "HEAD")),
        _ => (vec![("GET", path.clone())], get(&path)),
    };
    // A part of the request now and then.
    let most = if numbers.below(4) == 0 { numbers.below(request.len() as u64) } else { u64::MAX };
    let part = request.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    let heads = request[..part].matches("\r\n\r\n").count();
    let mut stream = TcpStream::connect(address).await?;
    let _ = stream.write_all(&request.as_bytes()[..part]).await;
    let stay = Duration::from_millis(numbers.below(400));
    let mut got = Vec::new();
    if numbers.below(2) == 0 {
        got = read(&mut stream, stay).await;
    } else {
        sleep(stay).await;
    }
    match numbers.below(3) {
        0 => reset(stream),
        1 => drop(stream),
        _ => {
            let _ = stream.shutdown().await;
            got.extend(read(&mut stream, READS_ON).await);
        }
    }
    Ok(Departure { asked, heads, got })
}

/// The requests of [`reset_somehow`].
pub const RESETS: [&str; 5] = ["/never", "/v/late/x", "/drip", "/events", "/quick"];

/// One client of HTTP/2 that resets its streams at some moment, and ends.
pub async fn reset_somehow(address: SocketAddr, mut numbers: Numbers) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let builder = http2::Builder::new(TokioExecutor::new());
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    for path in RESETS {
        let request = Request::get(format!("http://app.test{path}")).body(Empty::<Bytes>::new());
        let mut sender = sender.clone();
        let stay = Duration::from_millis(numbers.below(300));
        tokio::spawn(async move {
            let sending = sender.send_request(request.expect("a well-formed request"));
            let _ = timeout(stay, async { drop(sending.await) }).await;
        });
    }
    drop(sender);
    let _ = driver.await;
    Ok(())
}
