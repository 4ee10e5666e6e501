//! The admin listener: health, metrics, statistics, purges, events, requests as they
//! happen and the dashboard, over plain
//! HTTP/1.1.
//!
//! Owns access control and the paths of the API; [`AdminState`] holds the parts that it reads and
//! controls. It never shares a port with the origin's traffic, so it cannot shadow a path of the
//! origin.

mod api;
mod auth;
mod connections;
mod dashboard;
mod events;
mod history;
mod memory;
mod modes;
mod openapi;
mod peers;
mod readiness;
mod reasons_page;
mod reload;
mod remedies;
mod response;
mod settings;
mod state;
mod stats;
mod tail;
mod uncached;
mod under;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::api::ApiContext;
use self::auth::AdminAuth;
use self::connections::{AdminConnection, AdminConnections};
use self::events::StreamPermit;
pub(crate) use self::openapi::document as openapi_document;
use self::peers::PeerBoard;

pub use self::readiness::{Readiness, Ready, ReadyState};
pub use self::reload::{CheckedText, IncludedText, ReloadHandle, ReloadReply, ReloadStatus};
pub use self::settings::AdminSettings;
pub use self::state::AdminState;
pub(crate) use self::uncached::drafts;

/// How many connections may be open at once. A further one takes the place of the oldest one that
/// has sent no request; if all have, it waits.
pub const MAX_CONNECTIONS: usize = 64;
/// The time from accepting a connection to the end of the request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may stay open, so that a stalled reader cannot keep probes out for longer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);
/// The same for streams of events, of which fewer are allowed than connections. Clients reconnect
/// afterwards.
const STREAM_LIFETIME: Duration = Duration::from_mins(15);
/// How long requests in progress may continue after the sidecar has stopped serving.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// The largest request head, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after a failed accept, for example when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin API until `shutdown` is cancelled, then lets the requests in progress finish.
pub async fn run(
    listener: TcpListener,
    settings: AdminSettings,
    state: Arc<AdminState>,
    shutdown: CancellationToken,
) {
    let AdminSettings { address, token, hosts, name } = settings;
    let bound = listener.local_addr().unwrap_or(address);
    let peers = Arc::new(PeerBoard::new(Arc::clone(&state), name.as_deref()));
    let tasks = TaskTracker::new();
    let (board, stop) = (Arc::clone(&peers), shutdown.clone());
    tasks.spawn(async move { board.publish(stop).await });
    let router = api::router(Arc::new(ApiContext {
        state,
        auth: AdminAuth::new(bound.ip(), token.as_ref(), hosts),
        peers,
    }));
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
    let connections = AdminConnections::new(MAX_CONNECTIONS);
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let place = connections.place().await;
                let (router, shutdown) = (router.clone(), shutdown.clone());
                tasks.spawn(async move { connection(stream, router, place, &shutdown).await });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the admin listener cannot accept connections; it \
                        keeps trying");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    place: AdminConnection,
    shutdown: &CancellationToken,
) {
    let permit = StreamPermit::default();
    let handler = TowerToHyperService::new(router.layer(axum::Extension(permit.clone())));
    let service = service_fn(|request| {
        place.requested();
        handler.call(request)
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            // Scrapes and probes are seconds apart, so reuse gains nothing. Without it, the
            // lifetime of a connection also limits its one request.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut whole = pin!(async {
        if shutdown.run_until_cancelled(serving.as_mut()).await.is_none() {
            serving.as_mut().graceful_shutdown();
            // At worst this cuts off a scrape; the next one goes to the successor.
            drop(timeout(SHUTDOWN_GRACE, serving).await);
        }
    });
    // The connection is looked at first: a request that has arrived is answered.
    let mut whole = pin!(async {
        tokio::select! {
            biased;
            () = whole.as_mut() => {}
            () = place.unwanted() => {}
        }
    });
    // Ignore the error: a broken or timed out connection matters to its client only.
    if timeout(CONNECTION_LIFETIME, whole.as_mut()).await.is_err() && permit.is_set() {
        drop(timeout(STREAM_LIFETIME, whole).await);
    }
}

#[cfg(test)]
mod tests;
