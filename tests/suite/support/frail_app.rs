//! An app that fails: it refuses, hangs, breaks off in heads and in bodies, and restarts, on one port
//! or Unix socket. It counts what it does, and every body can be checked by itself: it says which
//! path it is for, in which version, and how long it is, and the rest follows from that.
//!
//! `/v/…` has a version, which each write to it raises; any other body has the number of its request
//! (`X-Id`) in place of one. `late` in a path takes a while, `drip` comes in pieces; `/never`,
//! `/events` and `/ws` are those of the patient app.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::HeaderMap;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::process::free_port;
use super::{http1, patient_app};

/// How long `late` takes at most, in milliseconds.
const LATE: u64 = 300;
/// The pieces of `drip`, and the pause before each.
const PIECES: usize = 8;
const PIECE_PAUSE: Duration = Duration::from_millis(40);
/// The longest body of a path, in bytes.
const LONGEST: u64 = 60_000;
const NEVER: Duration = Duration::from_mins(10);

/// How the app fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It does not.
    Well,
    /// It answers nothing until it is well again.
    Hangs,
    /// It closes connections in the midst of every third head.
    CutsHeads,
    /// It closes connections in the midst of every third body.
    CutsBodies,
}

/// What the app has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Connections accepted.
    pub connections: u64,
    /// Whole requests received.
    pub requests: u64,
    /// Responses sent to the end.
    pub responses: u64,
    /// Responses broken off on purpose.
    pub cut: u64,
    /// Requests for `/never`.
    pub nevers: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    responses: AtomicU64,
    cut: AtomicU64,
    nevers: AtomicU64,
}

struct State {
    mood: watch::Sender<Mood>,
    counters: Counters,
    versions: Mutex<HashMap<String, u64>>,
    /// How often a write of each number was carried out.
    writes: Mutex<HashMap<u64, u32>>,
}

enum Place {
    Tcp(SocketAddr),
    /// In a folder of its own.
    Unix(TempDir),
}

/// The app. Dropping it ends its listener.
pub struct FrailApp {
    place: Place,
    state: Arc<State>,
    listening: Option<(CancellationToken, JoinHandle<()>)>,
}

impl FrailApp {
    /// An app on a port of its own.
    pub async fn on_port() -> Self {
        Self::at(Place::Tcp(SocketAddr::from(([127, 0, 0, 1], free_port())))).await
    }

    /// An app on a Unix socket of its own.
    pub async fn on_socket() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        Self::at(Place::Unix(directory)).await
    }

    async fn at(place: Place) -> Self {
        let state = State {
            mood: watch::Sender::new(Mood::Well),
            counters: Counters::default(),
            versions: Mutex::default(),
            writes: Mutex::default(),
        };
        let mut app = Self { place, state: Arc::new(state), listening: None };
        app.begin().await;
        app
    }

    /// Where it is, as `upstream.url` says it.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(folder) => format!("unix:{}", socket(folder).display()),
        }
    }

    /// From now on it fails in this way.
    pub fn set(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// Ends as a process does: all its connections are closed, and new ones are refused.
    pub async fn end(&mut self) {
        if let Some((end, task)) = self.listening.take() {
            end.cancel();
            task.await.expect("the listener does not panic");
        }
    }

    /// Listens again, with the same data, where it listened before.
    pub async fn begin(&mut self) {
        let (end, state) = (CancellationToken::new(), Arc::clone(&self.state));
        let ended = end.clone();
        let task = match &self.place {
            Place::Tcp(address) => {
                // Connections that are still being closed may keep the port for a moment.
                let listener = loop {
                    match TcpListener::bind(address).await {
                        Ok(listener) => break listener,
                        Err(_) => sleep(Duration::from_millis(20)).await,
                    }
                };
                tokio::spawn(async move {
                    while let Some(Ok((stream, _))) =
                        ended.run_until_cancelled(listener.accept()).await
                    {
                        let _ = stream.set_nodelay(true);
                        spawn(stream, &state, &ended);
                    }
                })
            }
            Place::Unix(folder) => {
                let _ = std::fs::remove_file(socket(folder));
                let listener = UnixListener::bind(socket(folder)).expect("the path is free");
                tokio::spawn(async move {
                    while let Some(Ok((stream, _))) =
                        ended.run_until_cancelled(listener.accept()).await
                    {
                        spawn(stream, &state, &ended);
                    }
                })
            }
        };
        self.listening = Some((end, task));
    }

    /// What it has done so far.
    pub fn served(&self) -> Served {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let counters = &self.state.counters;
        Served {
            connections: count(&counters.connections),
            requests: count(&counters.requests),
            responses: count(&counters.responses),
            cut: count(&counters.cut),
            nevers: count(&counters.nevers),
        }
    }

    /// How often the write of this number was carried out.
    pub fn writes(&self, number: u64) -> u32 {
        self.state.writes.lock().get(&number).copied().unwrap_or(0)
    }

    /// The paths that were written more than once by one request.
    pub fn repeated_writes(&self) -> Vec<u64> {
        let writes = self.state.writes.lock();
        writes.iter().filter(|(_, count)| **count > 1).map(|(number, _)| *number).collect()
    }

    /// The version of a path.
    pub fn version(&self, path: &str) -> u64 {
        self.state.version(path)
    }
}

impl Drop for FrailApp {
    fn drop(&mut self) {
        if let Some((end, _)) = &self.listening {
            end.cancel();
        }
    }
}

impl State {
    fn version(&self, path: &str) -> u64 {
        self.versions.lock().get(path).copied().unwrap_or(0)
    }

    fn mood(&self) -> Mood {
        *self.mood.borrow()
    }

    /// Whether this response is one that breaks off.
    fn cuts(&self, mood: Mood) -> bool {
        let cuts =
            self.mood() == mood && self.counters.requests.load(Ordering::SeqCst).is_multiple_of(3);
        self.counters.cut.fetch_add(u64::from(cuts), Ordering::SeqCst);
        cuts
    }
}

fn spawn<S>(stream: S, state: &Arc<State>, end: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (state, end) = (Arc::clone(state), end.clone());
    state.counters.connections.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        let _ = end.run_until_cancelled(serve(stream, &state)).await;
    });
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("app.sock")
}

struct Asked {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The number of the request.
    fn number(&self) -> u64 {
        self.header("x-id").parse().unwrap_or(0)
    }
}

/// The next request, unless the peer closes before all of it is there.
async fn next<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<Asked> {
    let more = async |stream: &mut S, buffer: &mut Vec<u8>| match stream.read_buf(buffer).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        _ => Ok(()),
    };
    let length = loop {
        match http1::head_length(buffer) {
            Some(length) => break length,
            None => more(stream, buffer).await?,
        }
    };
    let head: Vec<u8> = buffer.drain(..length).collect();
    let (line, headers) = http1::head(&head);
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked { method, path, headers, body: Vec::new() };
    if http1::names(&asked.headers, "transfer-encoding", "chunked") {
        let (body, used) = loop {
            match http1::dechunked(buffer) {
                Ok(whole) => break whole,
                Err(_) => more(stream, buffer).await?,
            }
        };
        buffer.drain(..used);
        asked.body = body;
    } else {
        let length: usize = asked.header("content-length").parse().unwrap_or(0);
        while buffer.len() < length {
            more(stream, buffer).await?;
        }
        asked.body = buffer.drain(..length).collect();
    }
    Ok(asked)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, state: &State) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let asked = next(&mut stream, &mut buffer).await?;
        state.counters.requests.fetch_add(1, Ordering::SeqCst);
        respond(&mut stream, state, &asked).await?;
        state.counters.responses.fetch_add(1, Ordering::SeqCst);
    }
}

async fn respond<S>(stream: &mut S, state: &State, asked: &Asked) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Asked { method, path, .. } = asked;
    if ["/never", "/events", "/ws"].iter().any(|name| path.contains(name)) {
        state.counters.nevers.fetch_add(u64::from(path.contains("/never")), Ordering::SeqCst);
        return patient_app::answer(stream, &format!("{method} {path}")).await;
    }
    if state.mood() == Mood::Hangs {
        let mut mood = state.mood.subscribe();
        tokio::select! {
            _ = mood.wait_for(|mood| *mood != Mood::Hangs) => {}
            ended = patient_app::work(stream, NEVER) => ended?,
        }
    }
    let version = carry_out(state, asked);
    if path.contains("/late") {
        let time = (version.wrapping_mul(37) + u64::from(crc32fast::hash(path.as_bytes()))) % LATE;
        patient_app::work(stream, Duration::from_millis(time)).await?;
    }
    if asked.header("if-none-match").contains(&format!("\"{version}\"")) {
        let head = format!("HTTP/1.1 304 Not Modified\r\nETag: \"{version}\"\r\n\r\n");
        return stream.write_all(head.as_bytes()).await;
    }
    let body = content(path, version);
    let chunked = crc32fast::hash(path.as_bytes()).is_multiple_of(2) && method != "HEAD";
    let mut head = format!("HTTP/1.1 200 OK\r\nX-Upload: {}\r\n", digest(&asked.body));
    if path.starts_with("/v/") {
        let _ = write!(head, "ETag: \"{version}\"\r\n");
    }
    if chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
    } else {
        let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    }
    if state.cuts(Mood::CutsHeads) {
        stream.write_all(&head.as_bytes()[..head.len() / 2]).await?;
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    stream.write_all(head.as_bytes()).await?;
    if method == "HEAD" {
        return Ok(());
    }
    send(stream, state, &body, chunked, path.contains("/drip")).await
}

/// Sends a body, or a part of it.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    state: &State,
    body: &[u8],
    chunked: bool,
    drips: bool,
) -> io::Result<()> {
    let pieces = if drips { PIECES } else { 2 };
    let cut = state.cuts(Mood::CutsBodies);
    for (number, piece) in body.chunks(body.len().div_ceil(pieces)).enumerate() {
        if drips {
            patient_app::work(stream, PIECE_PAUSE).await?;
        }
        if cut && number == pieces / 2 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        }
        stream.write_all(piece).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
    }
    if chunked { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
}

/// Carries out what is asked, and returns the version of the response.
fn carry_out(state: &State, asked: &Asked) -> u64 {
    let is_safe = matches!(&*asked.method, "GET" | "HEAD" | "OPTIONS");
    if !is_safe && asked.number() != 0 {
        *state.writes.lock().entry(asked.number()).or_default() += 1;
    }
    if !asked.path.starts_with("/v/") {
        return asked.number();
    }
    let mut versions = state.versions.lock();
    let version = versions.entry(asked.path.clone()).or_default();
    *version += u64::from(!is_safe);
    *version
}

/// What stands for an upload.
pub fn digest(body: &[u8]) -> String {
    format!("{}-{:08x}", body.len(), crc32fast::hash(body))
}

/// The body of a path in a version.
pub fn content(path: &str, version: u64) -> Vec<u8> {
    let seed = u64::from(crc32fast::hash(path.as_bytes()));
    let length = seed.wrapping_mul(2_654_435_761) % LONGEST + version % 100;
    let mut body = format!("{path} {version} {length}\n").into_bytes();
    let end = body.len() + usize::try_from(length).expect("it is small");
    let mut number = (seed << 20) ^ version;
    while body.len() < end {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.truncate(end);
    body
}

/// The version of a body for this path, if it is right; and whole, where that is wanted.
pub fn check(path: &str, body: &[u8], whole: bool) -> Result<Option<u64>, String> {
    let text = || String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    let Some(line) = body.iter().position(|byte| *byte == b'\n') else {
        let is_begin = !whole
            && (path.as_bytes().starts_with(body)
                || body.starts_with(format!("{path} ").as_bytes()));
        return if is_begin { Ok(None) } else { Err(format!("{path}: {:?}", text())) };
    };
    let line = String::from_utf8_lossy(&body[..line]);
    let version = line.split(' ').nth(1).and_then(|version| version.parse().ok());
    let Some(version) = version else { return Err(format!("{path}: {:?}", text())) };
    let right = content(path, version);
    if body == right || !whole && right.starts_with(body) {
        return Ok(Some(version));
    }
    let same = body.iter().zip(&right).take_while(|(one, other)| one == other).count();
    let (got, want) = (body.len(), right.len());
    Err(format!("{path}: {got} bytes for {want}, the same up to {same}: {:?}", text()))
}

#[test]
fn a_wrong_body_is_found() {
    let mut body = content("/v/a", 3);
    assert_eq!(check("/v/a", &body, true), Ok(Some(3)));
    assert_eq!(check("/v/a", &body[..40], false), Ok(Some(3)));
    assert_eq!(check("/v/a", &body[..3], false), Ok(None));
    assert!(check("/v/a", &body[..40], true).is_err());
    assert!(check("/v/b", &body, true).is_err());
    assert!(check("/v/b", &body[..4], false).is_err());
    *body.last_mut().expect("it is not empty") ^= 1;
    assert!(check("/v/a", &body, true).is_err());
    assert!(check("/v/a", b"bad gateway", true).is_err());
}
