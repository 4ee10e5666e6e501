//! The origin of all suites: it answers by a handler that a test may replace as it goes, counts and
//! keeps what it receives, and holds requests until it is told to go on.
//!
//! It reads and writes the bytes itself, so that a test can have it say what no library would; see
//! [`Response`].

mod handlers;
mod response;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use sidecache::app::Clock;

use super::tls::Certificates;
use super::{eventually, http1};

pub use handlers::{VERSIONED_RULES, identity, versioned};
pub use response::Response;
use response::Step;

/// How many requests are kept. Tests that send more do not ask for them.
const KEPT: usize = 20_000;

/// A request as the origin received it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub target: String,
    /// Its path, without the query.
    pub path: String,
    /// Its query.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Head and body as they came.
    pub bytes: Bytes,
    /// How many requests of this method and target came before it.
    pub number: usize,
}

impl Request {
    /// A header's values, joined as HTTP joins them; None when it is absent.
    pub fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// Its method and target, as in `GET /stats`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Its body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before the origin has read or changed anything.
    Before,
    /// After it has, with the response ready to go out.
    After,
}

/// What the origin knows of the requests of one method for one target.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// When each of them came.
    pub begun: Vec<Instant>,
    /// When the first byte of a response went out first.
    pub first_byte: Option<Instant>,
    /// The most that were in hand at once: from their arrival until the last bytes of their
    /// responses went out.
    pub most_at_once: usize,
    in_hand: usize,
}

type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;
type Place = (Method, String, Point);

struct Inner {
    handler: Mutex<Handler>,
    clock: Mutex<Clock>,
    latency: RangeInclusive<Duration>,
    records: Mutex<HashMap<(Method, String), Record>>,
    requests: Mutex<Vec<Request>>,
    gates: Mutex<HashMap<Place, Arc<Gate>>>,
}

impl Inner {
    fn keep(&self, request: &Request) {
        let mut requests = lock(&self.requests);
        if requests.len() < KEPT {
            requests.push(request.clone());
        }
    }
}

struct Gate {
    arrived: Semaphore,
    open: CancellationToken,
}

/// The origin. Dropping it ends its listener.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Origin {
    /// An origin that answers at once as `handler` says.
    pub fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, handler)
    }

    /// An origin that takes this long for each response.
    pub fn slow(
        latency: Duration,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::varying(latency..=latency, handler)
    }

    /// An origin that takes between this and that long for each response, after it has read or
    /// changed what it answers about.
    pub fn varying(
        latency: RangeInclusive<Duration>,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::listen(([127, 0, 0, 1], 0).into(), None, latency, Arc::new(handler))
    }

    /// An origin at this address that answers everything with 200.
    pub fn at(address: SocketAddr) -> Self {
        let none = Duration::ZERO..=Duration::ZERO;
        Self::listen(address, None, none, Arc::new(|_: &Request| Response::ok("")))
    }

    /// An origin that answers every request with the same bytes, then closes.
    pub fn raw(bytes: &'static [u8]) -> Self {
        Self::start(|_| Response::raw(bytes))
    }

    /// An origin that answers each method and target, such as `GET /stats`, with a status and a
    /// text; everything else with a 404.
    pub fn scripted(responses: &[(&str, u16, &str)]) -> Self {
        let own = |(line, status, text): &(&str, u16, &str)| {
            ((*line).to_owned(), (*status, (*text).to_owned()))
        };
        let responses: HashMap<_, _> = responses.iter().map(own).collect();
        Self::start(move |request| match responses.get(&request.line()) {
            Some((status, text)) => Response::status(*status, text.clone()),
            None => Response::status(404, ""),
        })
    }

    /// An origin that speaks TLS with the certificate of a server.
    pub fn tls(
        certificates: &Certificates,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let none = Duration::ZERO..=Duration::ZERO;
        let any = ([127, 0, 0, 1], 0).into();
        Self::listen(any, Some(certificates.acceptor()), none, Arc::new(handler))
    }

    fn listen(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        latency: RangeInclusive<Duration>,
        handler: Handler,
    ) -> Self {
        // A thousand connections at once are more than a listener keeps by default; TCP tries again
        // only after a second.
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_reuseaddr(true).expect("a socket has this option");
        socket.bind(address).expect("the port is free");
        let listener = socket.listen(4096).expect("a bound socket listens");
        let address = listener.local_addr().expect("a bound listener has an address");
        let inner = Arc::new(Inner {
            handler: Mutex::new(handler),
            clock: Mutex::new(Clock::system()),
            latency,
            records: Mutex::default(),
            requests: Mutex::default(),
            gates: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&inner)));
        Self { address, inner, task }
    }

    /// From now on it dates its responses by this clock.
    pub fn follow(&self, clock: &Clock) {
        *lock(&self.inner.clock) = clock.clone();
    }

    /// From now on it answers so.
    pub fn answers(&self, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) {
        *lock(&self.inner.handler) = Arc::new(handler);
    }

    /// From now on its port refuses connections; those that are open stay.
    pub fn stop_listening(&self) {
        self.task.abort();
    }

    /// From now on, requests of this method and path wait at this point until the hold is released
    /// or dropped.
    pub fn hold(&self, method: &str, path: &str, point: Point) -> Hold {
        let place = (method_of(method), path.to_owned(), point);
        let gate = Arc::new(Gate { arrived: Semaphore::new(0), open: CancellationToken::new() });
        lock(&self.inner.gates).insert(place.clone(), Arc::clone(&gate));
        Hold { inner: Arc::clone(&self.inner), place, gate }
    }

    /// How many requests of this method have come for this path with whatever query, or for this
    /// target if it has a query.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let method = method_of(method);
        let is_path = |target: &str| target == path || target.split('?').next() == Some(path);
        let records = lock(&self.inner.records);
        let records = records.iter().filter(|((of, target), _)| *of == method && is_path(target));
        records.map(|(_, record)| record.begun.len()).sum()
    }

    /// How many requests have come.
    pub fn total(&self) -> usize {
        lock(&self.inner.records).values().map(|record| record.begun.len()).sum()
    }

    /// What it knows of the GETs of this target.
    pub fn record(&self, target: &str) -> Record {
        let key = (Method::GET, target.to_owned());
        lock(&self.inner.records).get(&key).cloned().unwrap_or_default()
    }

    /// Returns when so many GETs of this target have come.
    pub async fn reached(&self, target: &str, count: usize) {
        let what = format!("{count} requests for {target} reach the origin");
        eventually(&what, Duration::from_secs(20), || async { self.count("GET", target) >= count })
            .await;
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        let requests = lock(&self.inner.requests);
        assert!(requests.len() < KEPT, "more requests than are kept");
        requests.clone()
    }

    /// The requests for this path, without the query, in order.
    pub fn seen(&self, path: &str) -> Vec<Request> {
        let requests = lock(&self.inner.requests);
        assert!(requests.len() < KEPT, "more requests than are kept");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// The last request for this path.
    pub fn last(&self, path: &str) -> Request {
        self.seen(path).pop().unwrap_or_else(|| panic!("the origin was never asked for {path}"))
    }

    /// The bytes of all requests, one after the other.
    pub fn received(&self) -> Vec<u8> {
        self.requests().iter().flat_map(|request| request.bytes.to_vec()).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A point at which requests wait.
pub struct Hold {
    inner: Arc<Inner>,
    place: Place,
    gate: Arc<Gate>,
}

impl Hold {
    /// Returns when a request waits here; each request counts once.
    pub async fn arrived(&self) {
        let waiting = tokio::time::timeout(Duration::from_secs(10), self.gate.arrived.acquire());
        let waiting =
            waiting.await.unwrap_or_else(|_| panic!("no request came to {:?}", self.place));
        waiting.expect("the semaphore is never closed").forget();
    }

    /// Lets those that wait go on, and those that come later pass.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.inner.gates).remove(&self.place);
        self.gate.open.cancel();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let inner = Arc::clone(&inner);
        match tls.clone() {
            None => drop(tokio::spawn(connection(stream, inner, |stream: &TcpStream| {
                let _ = stream.set_zero_linger();
            }))),
            Some(tls) => drop(tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    connection(stream, inner, |_| {}).await;
                }
            })),
        }
    }
}

async fn connection<S>(mut stream: S, inner: Arc<Inner>, reset: fn(&S))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut buffer = Vec::new();
    while let Some((mut request, close)) = next(&mut stream, &mut buffer).await {
        let in_hand = InHand::new(&inner, &mut request);
        inner.keep(&request);
        let response = answer(&inner, &request).await;
        let clock = lock(&inner.clock).clone();
        let steps = response.steps(&request.method, close, &clock);
        if !play(&mut stream, steps, in_hand, reset).await {
            return;
        }
    }
}

/// Reads one request to its end. Says as well whether its sender wants the connection to be closed
/// after the response.
async fn next<S>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<(Request, bool)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = loop {
        if let Some(length) = http1::head_length(buffer) {
            break length;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let (line, headers) = http1::head(&buffer[..length]);
    let sized = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let mut waits = http1::names(&headers, "expect", "100-continue");
    let (body, used) = loop {
        let rest = &buffer[length..];
        if http1::names(&headers, "transfer-encoding", "chunked") {
            if let Ok((body, used)) = http1::dechunked(rest) {
                break (body, used);
            }
        } else if let Some(body) = rest.get(..sized.unwrap_or(0)) {
            break (body.to_vec(), body.len());
        }
        if std::mem::take(&mut waits) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let bytes: Vec<u8> = buffer.drain(..length + used).collect();
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?.to_owned());
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.clone(), None),
    };
    let close = line.ends_with("HTTP/1.0") || http1::names(&headers, "connection", "close");
    let (method, body, bytes) = (method_of(method), body.into(), bytes.into());
    Some((Request { method, target, path, query, headers, body, bytes, number: 0 }, close))
}

async fn answer(inner: &Inner, request: &Request) -> Response {
    wait_at(inner, request, Point::Before).await;
    let handler = Arc::clone(&lock(&inner.handler));
    let response = handler(request);
    wait_at(inner, request, Point::After).await;
    if !inner.latency.end().is_zero() {
        let latency = rand::thread_rng().gen_range(inner.latency.clone());
        sleep(latency).await;
    }
    response
}

async fn wait_at(inner: &Inner, request: &Request, point: Point) {
    let place = (request.method.clone(), request.path.clone(), point);
    let gate = lock(&inner.gates).get(&place).cloned();
    if let Some(gate) = gate {
        gate.arrived.add_permits(1);
        gate.open.cancelled().await;
    }
}

/// A request is in hand as long as this lives.
struct InHand<'a> {
    inner: &'a Inner,
    key: (Method, String),
}

impl<'a> InHand<'a> {
    fn new(inner: &'a Inner, request: &mut Request) -> Self {
        let key = (request.method.clone(), request.target.clone());
        let mut records = lock(&inner.records);
        let record = records.entry(key.clone()).or_default();
        request.number = record.begun.len();
        record.begun.push(Instant::now());
        record.in_hand += 1;
        record.most_at_once = record.most_at_once.max(record.in_hand);
        Self { inner, key }
    }

    fn note_first_byte(&self) {
        if let Some(record) = lock(&self.inner.records).get_mut(&self.key) {
            record.first_byte.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(record) = lock(&self.inner.records).get_mut(&self.key) {
            record.in_hand -= 1;
        }
    }
}

/// Plays a response; says whether the connection goes on.
async fn play<S>(stream: &mut S, steps: Vec<Step>, in_hand: InHand<'_>, reset: fn(&S)) -> bool
where
    S: AsyncWrite + Unpin,
{
    let last = steps.iter().rposition(|step| matches!(step, Step::Send(_)));
    let mut in_hand = Some(in_hand);
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Wait(pause) => sleep(pause).await,
            Step::Until(gate) => gate.cancelled().await,
            Step::Send(bytes) => {
                in_hand.iter().for_each(InHand::note_first_byte);
                if Some(number) == last {
                    // Whoever has read these bytes may come again before this task runs on.
                    in_hand = None;
                }
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return false;
                }
            }
            Step::Reset => {
                reset(stream);
                return false;
            }
            Step::Close => {
                let _ = stream.shutdown().await;
                return false;
            }
        }
    }
    true
}

fn method_of(name: &str) -> Method {
    Method::try_from(name).expect("a method of HTTP")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with the lock held")
}
