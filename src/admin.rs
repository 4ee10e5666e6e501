//! The admin listener: liveness, readiness and metrics, over plain HTTP/1.1.
//!
//! Owns who may ask and what there is to ask for. Must not know how the sidecar works: it is handed the metrics and something that
//! tells whether the sidecar is ready. It never shares a port with the app's traffic, so no path of the app can be shadowed by it.

mod guard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::guard::{Guard, Refusal};
use crate::body::Body;
use crate::metrics::{Format, Metrics};
use crate::units::Secret;

/// Connections at one time; the next ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// From the opening of a connection to the end of the request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// From the opening of a connection to its end: a reader that takes nothing must not keep probes out for longer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// How long requests under way may take to finish once the sidecar stops.
const DRAIN: Duration = Duration::from_secs(2);
/// The largest request head.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after an accept that failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `[admin]`, compiled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen. Anything but loopback needs a token: the configuration is refused without.
    pub address: SocketAddr,
    /// What callers must present, except for `/live` and `/ready`.
    pub token: Option<Secret>,
}

/// Tells whether the sidecar can do its work.
pub trait Readiness: Send + Sync {
    /// The state right now. Must be quick, and must not wait.
    fn state(&self) -> Ready;
}

/// Whether the sidecar can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// False while it starts or drains: traffic should go elsewhere.
    pub ready: bool,
    /// What is not as it should be, in words. A sidecar without its Redis still serves: it is ready, and degraded.
    pub degraded: Vec<String>,
}

/// What there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Live,
    Ready,
    Metrics,
}

impl Page {
    const ALL: [Self; 3] = [Self::Live, Self::Ready, Self::Metrics];

    const fn path(self) -> &'static str {
        match self {
            Self::Live => "/live",
            Self::Ready => "/ready",
            Self::Metrics => "/metrics",
        }
    }

    fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }

    /// Probes of an orchestrator cannot carry secrets, and tell none.
    const fn is_probe(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }
}

struct Admin {
    guard: Guard,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
}

/// Serves the admin pages until `shutdown` is cancelled, then lets the requests under way finish.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: CancellationToken,
) {
    let Settings { address, token } = settings;
    let bound = listener.local_addr().unwrap_or(address);
    let admin = Arc::new(Admin { guard: Guard::new(bound.ip(), token.as_ref()), metrics, readiness });
    let tasks = TaskTracker::new();
    shutdown.run_until_cancelled(accept(&listener, &admin, &tasks, &shutdown)).await;
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener, admin: &Arc<Admin>, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let (admin, shutdown) = (Arc::clone(admin), shutdown.clone());
                tasks.spawn(async move {
                    connection(stream, admin, &shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the admin listener cannot accept connections, and keeps trying");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, shutdown: &CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = admin.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            // Scrapes and probes are seconds apart. Without reuse a connection is one request, and its lifetime a limit on that.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let whole = async {
        if shutdown.run_until_cancelled(serving.as_mut()).await.is_none() {
            serving.as_mut().graceful_shutdown();
            // What is cut off here is a scrape; the next one goes to the successor.
            drop(timeout(DRAIN, serving).await);
        }
    };
    // A connection that breaks, or that is cut for taking too long, concerns nobody but its client.
    drop(timeout(CONNECTION_LIFETIME, whole).await);
}

impl Admin {
    /// Answers one request. Its body is never read: nothing here takes one.
    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if let Err(refusal) = self.guard.check(request.uri(), request.headers()) {
            return refuse(refusal);
        }
        let page = Page::at(request.uri().path());
        if !page.is_some_and(Page::is_probe) && !self.guard.admits(request.headers()) {
            return refuse(Refusal::Token);
        }
        let Some(page) = page else {
            let paths = Page::ALL.map(Page::path);
            return json(StatusCode::NOT_FOUND, &json!({ "error": "there is no such page", "pages": paths }));
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only GET and HEAD" }));
            // RFC 9110 15.5.6: a 405 says which methods there are.
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match page {
            Page::Live => respond(StatusCode::OK, "text/plain; charset=utf-8", "live"),
            Page::Ready => self.ready(),
            Page::Metrics => {
                let accept: Vec<&str> = request.headers().get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
                let format = Format::negotiate(Some(&accept.join(",")));
                respond(StatusCode::OK, format.content_type(), self.metrics.encode_as(format))
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let Ready { ready, degraded } = self.readiness.state();
        let (code, status) = match (ready, degraded.is_empty()) {
            (true, true) => (StatusCode::OK, "ready"),
            (true, false) => (StatusCode::OK, "degraded"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
        };
        json(code, &json!({ "status": status, "reasons": degraded }))
    }
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let mut response = json(refusal.status(), &json!({ "error": refusal.as_str() }));
    if refusal == Refusal::Token {
        // RFC 9110 15.5.2: a 401 says how to authenticate.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    respond(status, "application/json", format!("{value}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // SECURITY: labels hold route names; a browser must not read markup into them.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
