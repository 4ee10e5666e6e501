//! The admin listener: health, metrics, numbers, purges, events and the dashboard, over plain
//! HTTP/1.1.
//!
//! Owns who may ask and what there is to ask for; the parts that it reads and moves are its
//! [`AdminState`]. It never shares a port with the app's traffic, so no path of the app can be
//! shadowed by it.

mod api;
mod auth;
mod events;
mod openapi;
mod remedies;
mod response;
mod state;
mod stats;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::api::ApiContext;
use self::auth::AdminAuth;
use self::events::StreamPermit;
pub(crate) use self::openapi::document as openapi_document;
use crate::secret::Secret;

pub use self::state::AdminState;

/// Connections at one time; the next ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// From the opening of a connection to the end of the request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// From the opening of a connection to its end: a reader that takes nothing must not keep probes
/// out for longer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// The same for streams of events, of which there are fewer than connections. Who listens on opens
/// another one.
const STREAM_LIFETIME: Duration = Duration::from_mins(15);
/// How long requests under way may take to finish once the sidecar stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// The largest request head.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after an accept that failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `[admin]`, compiled.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where to listen. Anything but loopback needs a token: the configuration is refused without.
    pub address: SocketAddr,
    /// What callers must present, except for `/live` and `/ready`.
    pub token: Option<Secret>,
    /// Names by which it may be asked for, lower-case, besides localhost and its addresses.
    pub hosts: Box<[Box<str>]>,
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
    /// What is not as it should be, in words. A sidecar without its Redis still serves: it is
    /// ready, and degraded.
    pub degraded: Vec<String>,
}

impl Ready {
    /// The state in a word.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (self.ready, self.degraded.is_empty()) {
            (true, true) => "ready",
            (true, false) => "degraded",
            (false, _) => "unready",
        }
    }
}

/// Serves the admin API until `shutdown` is cancelled, then lets the requests under way finish.
pub async fn run(
    listener: TcpListener,
    settings: AdminSettings,
    office: Arc<AdminState>,
    shutdown: CancellationToken,
) {
    let AdminSettings { address, token, hosts } = settings;
    let bound = listener.local_addr().unwrap_or(address);
    let router = api::router(Arc::new(ApiContext {
        state: office,
        auth: AdminAuth::new(bound.ip(), token.as_ref(), hosts),
    }));
    let tasks = TaskTracker::new();
    shutdown.run_until_cancelled(accept(&listener, &router, &tasks, &shutdown)).await;
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let (router, shutdown) = (router.clone(), shutdown.clone());
                tasks.spawn(async move {
                    connection(stream, router, &shutdown).await;
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

async fn connection(stream: TcpStream, router: Router, shutdown: &CancellationToken) {
    let lasting = StreamPermit::default();
    let service = TowerToHyperService::new(router.layer(axum::Extension(lasting.clone())));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            // Scrapes and probes are seconds apart. Without reuse a connection is one request, and
            // its lifetime a limit on that.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut whole = pin!(async {
        if shutdown.run_until_cancelled(serving.as_mut()).await.is_none() {
            serving.as_mut().graceful_shutdown();
            // What is cut off here is a scrape; the next one goes to the successor.
            drop(timeout(SHUTDOWN_GRACE, serving).await);
        }
    });
    // A connection that breaks, or that is cut for taking too long, concerns nobody but its client.
    if timeout(CONNECTION_LIFETIME, whole.as_mut()).await.is_err() && lasting.is_set() {
        drop(timeout(STREAM_LIFETIME, whole).await);
    }
}

#[cfg(test)]
mod tests;
