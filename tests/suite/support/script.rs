//! An app that plays what a test has written: bytes, pauses, gates and resets, with nothing added. It counts what it is asked and notes
//! when it began, when its first byte went out, and how many requests it had in hand at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::eventually;

/// A request as the app saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
}

/// One step of an answer.
enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Until(CancellationToken),
    Reset,
}

/// An answer, step by step.
#[derive(Default)]
pub struct Script {
    steps: Vec<Step>,
    chunked: bool,
}

impl Script {
    /// Nothing yet: what comes before the head.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pause.
    pub fn wait(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Wait(pause));
        self
    }

    /// A pause that the test ends.
    pub fn until(mut self, gate: &CancellationToken) -> Self {
        self.steps.push(Step::Until(gate.clone()));
        self
    }

    /// The head of a 200 whose length is told by its end. `fields` are whole lines.
    pub fn chunked(mut self, fields: &str) -> Self {
        self.chunked = true;
        self.send(format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"))
    }

    /// The head of a 200 whose length is told beforehand. `fields` are whole lines.
    pub fn sized(mut self, fields: &str, length: usize) -> Self {
        self.chunked = false;
        self.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n"))
    }

    /// A piece of the body. It goes out in one write with what stands before it.
    pub fn piece(self, bytes: &[u8]) -> Self {
        if !self.chunked {
            return self.send(bytes);
        }
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.send(framed)
    }

    /// The end of a body whose length was not told.
    pub fn end(self) -> Self {
        if self.chunked { self.send("0\r\n\r\n") } else { self }
    }

    /// A whole 200.
    pub fn whole(self, fields: &str, body: &[u8]) -> Self {
        self.sized(fields, body.len()).piece(body)
    }

    /// The app dies: its connection is reset.
    pub fn reset(mut self) -> Self {
        self.steps.push(Step::Reset);
        self
    }

    fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        match self.steps.last_mut() {
            Some(Step::Send(before)) => before.extend_from_slice(bytes.as_ref()),
            _ => self.steps.push(Step::Send(bytes.as_ref().to_vec())),
        }
        self
    }
}

/// What the app knows of the requests for one target.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// When each of them came.
    pub begun: Vec<Instant>,
    /// When the first byte of an answer went out first.
    pub first_byte: Option<Instant>,
    /// The most that were in hand at once: from their arrival until the last bytes of their answers went out.
    pub most_at_once: usize,
    in_hand: usize,
}

type Handler = Box<dyn Fn(&Seen, usize) -> Script + Send + Sync>;

struct Inner {
    handler: Handler,
    records: Mutex<HashMap<Seen, Record>>,
}

impl Inner {
    fn records(&self) -> MutexGuard<'_, HashMap<Seen, Record>> {
        self.records.lock().expect("no test panics with the lock held")
    }
}

/// The app.
pub struct ScriptApp {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl ScriptApp {
    /// An app that plays what `handler` returns for a request and the number of equal ones that came before it.
    pub fn start(handler: impl Fn(&Seen, usize) -> Script + Send + Sync + 'static) -> Self {
        // A thousand connections at once are more than a listener keeps by default; TCP tries again only after a second.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("the loopback has a free port");
        let listener = socket.listen(4096).expect("a bound socket listens");
        let address = listener.local_addr().expect("a bound listener has an address");
        let inner = Arc::new(Inner { handler: Box::new(handler), records: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { address, inner, task }
    }

    /// What it knows of the GETs of this target.
    pub fn record(&self, target: &str) -> Record {
        let seen = Seen { method: "GET".to_owned(), target: target.to_owned() };
        self.inner.records().get(&seen).cloned().unwrap_or_default()
    }

    /// How many GETs of this target it has seen.
    pub fn count(&self, target: &str) -> usize {
        self.record(target).begun.len()
    }

    /// Returns when so many GETs of this target have come.
    pub async fn asked(&self, target: &str, count: usize) {
        let what = format!("{count} requests for {target} reach the app");
        eventually(&what, Duration::from_secs(20), || async { self.count(target) >= count }).await;
    }
}

impl Drop for ScriptApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&inner)));
    }
}

async fn connection(mut stream: TcpStream, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    while let Some(seen) = request(&mut stream).await {
        let number = {
            let mut records = inner.records();
            let record = records.entry(seen.clone()).or_default();
            record.begun.push(Instant::now());
            record.in_hand += 1;
            record.most_at_once = record.most_at_once.max(record.in_hand);
            record.begun.len() - 1
        };
        let script = (inner.handler)(&seen, number);
        if !play(&mut stream, script, InHand { inner: &inner, seen }).await {
            return;
        }
    }
}

/// Reads one request to its end. Its body, if any, has a `Content-Length`.
async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut words = text.split(' ');
    Some(Seen { method: words.next()?.to_owned(), target: words.next()?.to_owned() })
}

/// A request is in hand as long as this lives.
struct InHand<'a> {
    inner: &'a Inner,
    seen: Seen,
}

impl InHand<'_> {
    fn note_first_byte(&self) {
        if let Some(record) = self.inner.records().get_mut(&self.seen) {
            record.first_byte.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.inner.records().get_mut(&self.seen) {
            record.in_hand -= 1;
        }
    }
}

/// Plays a script; says whether the connection goes on.
async fn play(stream: &mut TcpStream, script: Script, in_hand: InHand<'_>) -> bool {
    let last = script.steps.len().saturating_sub(1);
    let mut in_hand = Some(in_hand);
    for (number, step) in script.steps.into_iter().enumerate() {
        match step {
            Step::Wait(pause) => sleep(pause).await,
            Step::Until(gate) => gate.cancelled().await,
            Step::Send(bytes) => {
                in_hand.iter().for_each(InHand::note_first_byte);
                if number == last {
                    // Whoever has read these bytes may come again before this task runs on.
                    in_hand = None;
                }
                if stream.write_all(&bytes).await.is_err() {
                    return false;
                }
            }
            Step::Reset => {
                let _ = stream.set_zero_linger();
                return false;
            }
        }
    }
    true
}
