//! An app that does what a test tells it to: it answers by a closure, counts what it sees, and holds requests until it is told to go on.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::Rng as _;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A request as the app saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Asked {
    /// A header's values, joined as HTTP joins them; None when it is absent.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }
}

/// What the app does about it.
pub enum Answer {
    /// It responds.
    Reply(Response<Full<Bytes>>),
    /// It closes the connection.
    HangUp,
}

impl Answer {
    /// A 200 with this body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200, body)
    }

    /// A response with this status and body.
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status of HTTP");
        Self::Reply(response)
    }

    /// The same with one more header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Reply(response) = &mut self {
            let value = HeaderValue::from_str(value).expect("a value of HTTP");
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
        self
    }
}

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before the app has read or changed anything.
    Before,
    /// After it has, with the answer ready to go out.
    After,
}

type Handler = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;
type Place = (Method, String, Point);

struct Inner {
    handler: Handler,
    latency: RangeInclusive<Duration>,
    counts: Mutex<HashMap<(Method, String), u64>>,
    gates: Mutex<HashMap<Place, Arc<Gate>>>,
}

struct Gate {
    arrived: Semaphore,
    open: CancellationToken,
}

/// The app.
pub struct TestApp {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl TestApp {
    /// An app that answers at once as `handler` says.
    pub async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, handler).await
    }

    /// An app that takes this long for each answer.
    pub async fn slow(latency: Duration, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::varying(latency..=latency, handler).await
    }

    /// An app that takes between this and that long for each answer, after it has read or changed what it answers about.
    pub async fn varying(latency: RangeInclusive<Duration>, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let inner = Arc::new(Inner { handler: Box::new(handler), latency, counts: Mutex::default(), gates: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { address, inner, task }
    }

    /// How many requests of this method and path (without the query) it has seen.
    pub fn count(&self, method: &str, path: &str) -> u64 {
        let method = Method::try_from(method).expect("a method of HTTP");
        lock(&self.inner.counts).get(&(method, path.to_owned())).copied().unwrap_or(0)
    }

    /// How many requests it has seen.
    pub fn total(&self) -> u64 {
        lock(&self.inner.counts).values().sum()
    }

    /// From now on, requests of this method and path wait at this point until the hold is released or dropped.
    pub fn hold(&self, method: &str, path: &str, point: Point) -> Hold {
        let place = (Method::try_from(method).expect("a method of HTTP"), path.to_owned(), point);
        let gate = Arc::new(Gate { arrived: Semaphore::new(0), open: CancellationToken::new() });
        lock(&self.inner.gates).insert(place.clone(), Arc::clone(&gate));
        Hold { inner: Arc::clone(&self.inner), place, gate }
    }
}

impl Drop for TestApp {
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
        let waiting = tokio::time::timeout(Duration::from_secs(10), self.gate.arrived.acquire()).await;
        waiting.unwrap_or_else(|_| panic!("no request came to {:?}", self.place)).expect("the semaphore is never closed").forget();
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

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&inner)));
    }
}

async fn connection(stream: TcpStream, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        // A task of its own: an app that has begun to write goes on, whether its client stays or not.
        let answer = tokio::spawn(answer(Arc::clone(&inner), request));
        async move {
            match answer.await.map_err(io::Error::other)? {
                Answer::Reply(response) => Ok(response),
                Answer::HangUp => Err(io::Error::other("told to hang up")),
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().map(str::to_owned));
    let asked = Asked { method: parts.method, path, query, headers: parts.headers };
    *lock(&inner.counts).entry((asked.method.clone(), asked.path.clone())).or_default() += 1;
    let _ = body.collect().await;
    wait_at(&inner, &asked, Point::Before).await;
    let answer = (inner.handler)(&asked);
    wait_at(&inner, &asked, Point::After).await;
    if !inner.latency.end().is_zero() {
        let latency = rand::thread_rng().gen_range(inner.latency.clone());
        tokio::time::sleep(latency).await;
    }
    answer
}

async fn wait_at(inner: &Inner, asked: &Asked, point: Point) {
    let gate = lock(&inner.gates).get(&(asked.method.clone(), asked.path.clone(), point)).cloned();
    if let Some(gate) = gate {
        gate.arrived.add_permits(1);
        gate.open.cancelled().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with the lock held")
}

/// Numbers that writes count up: a GET of `/v/NAME` answers the number, a PUT or POST of `/w/NAME` (or `/v/NAME`) adds one.
/// The header `x-test` changes what a write does: `401` refuses it; `500` and `hangup` happen after it is done.
pub fn versioned() -> impl Fn(&Asked) -> Answer + Send + Sync {
    let versions: Mutex<HashMap<String, u64>> = Mutex::default();
    move |asked| {
        let name = asked.path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut versions = lock(&versions);
        let version = versions.entry(name).or_default();
        if matches!(asked.method, Method::GET | Method::HEAD) {
            return Answer::ok(version.to_string());
        }
        match asked.header("x-test").as_deref() {
            Some("401") => return Answer::status(401, "no"),
            Some("500") => {
                *version += 1;
                return Answer::status(500, "after the write");
            }
            Some("hangup") => {
                *version += 1;
                return Answer::HangUp;
            }
            _ => *version += 1,
        }
        Answer::ok(version.to_string())
    }
}

/// Routes and purge rules for [`versioned`]: writes to `/w/NAME` purge `/v/NAME` by tag alone, not by their own URL.
pub const VERSIONED_RULES: &str = r#"
[[routes]]
path  = "/v/{name}"
ttl   = "5m"
scope = "public"
tags  = ["v:{name}"]

[[purges]]
path = "/w/{name}"
tags = ["v:{name}"]
"#;

/// Answers everybody who they are: tenant, credentials and account as they came, and what was asked for. Without a bearer token, or
/// with one that begins with `bad`, it says the same with a 401; public paths need no token.
pub fn identity(asked: &Asked) -> Answer {
    let authorization = asked.header("authorization");
    let known = authorization.as_deref().is_some_and(|value| value.starts_with("Bearer ") && !value.starts_with("Bearer bad"));
    let body = json!({
        "tenant": asked.header("x-tenant-id"),
        "authorization": authorization,
        "cookie": asked.header("cookie"),
        "account": asked.header("x-account-id"),
        "path": asked.path,
        "query": asked.query,
    });
    let status = if known || asked.path.starts_with("/public") { 200 } else { 401 };
    Answer::status(status, body.to_string())
}
