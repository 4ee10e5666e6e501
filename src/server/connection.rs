//! One client's connection from its first byte to its last: hyper in the middle, the patrol beside
//! it.
//!
//! Owns how hyper is set up, what is refused before the service sees it, and how a panic becomes an
//! answer. It must not know what the service does.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::{RequestBody, ResponseBody};
use super::connection_state::{Arrival, BusyGuard, ConnectionState};
use super::counters::ServerCounters;
use super::framing::StreamPosition;
use super::service::Service;
use super::settings::ServerSettings;
use super::socket::{ConnectionPermit, Socket};
use super::timeouts::{ConnectionTimer, Timeout, TimeoutLimits, TimerAction};
use crate::clock::Clock;
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;

/// hyper's own limit of headers. Setting it, even to the same number, makes hyper keep them on the
/// heap.
const HYPER_MAX_HEADERS: usize = 100;
/// hyper's smallest buffer; it panics when told to use a smaller one.
const HYPER_MIN_BUFFER: usize = 8 * 1024;

/// How much of an upload may be on its way per HTTP/2 stream and connection. Room for about 80
/// Mbit/s at 100 ms.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// How much of a response waits in memory for a slow HTTP/2 client, per stream.
const STREAM_BUFFER: usize = 64 * 1024;
/// HTTP/2 pings: the only thing that finds a dead client there.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(20);
/// Streams that a client opened and reset before we looked at them; more end the connection.
// SECURITY: "rapid reset" (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// What all connections share.
pub(super) struct ServerContext<S> {
    pub service: Arc<S>,
    pub settings: ServerSettings,
    pub counters: ServerCounters,
    pub clock: Clock,
    pub connections: TaskTracker,
    /// Nobody listens any more, and each answer is the last one of its connection: clients go
    /// elsewhere.
    pub leaving: AtomicBool,
    /// No new requests: connections close when nothing is under way. The flag is set before the
    /// token wakes them.
    pub draining: AtomicBool,
    pub drain: CancellationToken,
    /// The grace is over.
    pub abort: CancellationToken,
    builder: auto::Builder<TokioExecutor>,
}

impl<S: Service> ServerContext<S> {
    pub(super) fn new(
        settings: ServerSettings,
        service: Arc<S>,
        counters: ServerCounters,
        clock: Clock,
    ) -> Self {
        let builder = builder(&settings);
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        let (connections, leaving, draining) =
            (TaskTracker::new(), AtomicBool::new(false), AtomicBool::new(false));
        Self {
            service,
            settings,
            counters,
            clock,
            connections,
            leaving,
            draining,
            drain,
            abort: cut,
            builder,
        }
    }
}

/// What the requests of one connection share.
struct ConnectionContext<S> {
    server: Arc<ServerContext<S>>,
    state: Arc<ConnectionState>,
    addr: IpAddr,
    trusted: bool,
}

impl<S> ConnectionContext<S> {
    fn new(hub: Arc<ServerContext<S>>, state: Arc<ConnectionState>, addr: IpAddr) -> Self {
        let trusted = hub.settings.trusted_proxies.iter().any(|network| network.contains(addr));
        Self { server: hub, state, addr, trusted }
    }
}

fn builder(settings: &ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    // `pipeline_flush` stays off: it lifts the limit on what is buffered for a client that reads
    // slowly.
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.max_header_bytes.max(HYPER_MIN_BUFFER))
        // A client may close its half after its request and still wants the answer. This also means
        // that hyper does not read while a request is served, and would not see a reset: that is
        // what the patrol's probe is for.
        .half_close(true);
    if settings.max_headers != HYPER_MAX_HEADERS {
        http1.max_headers(settings.max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT);
    builder
}

const fn limits(settings: &ServerSettings) -> TimeoutLimits {
    TimeoutLimits {
        head: settings.header_timeout,
        idle: settings.idle_timeout,
        write: settings.write_timeout,
    }
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// Not polled yet, so that a drain would not wake it.
    New,
    /// Takes requests.
    Open,
    /// Has idled for too long and closes when nothing is in flight.
    Retired,
    /// The server drains: the connection closes when nothing is in flight, or when the grace is
    /// over.
    Draining,
}

impl ConnectionPhase {
    const fn is_leaving(self) -> bool {
        matches!(self, Self::Retired | Self::Draining)
    }
}

enum ConnectionEnd {
    Closed(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    TimedOut(Timeout),
    Aborted,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve<S: Service>(
    hub: Arc<ServerContext<S>>,
    stream: TcpStream,
    addr: IpAddr,
    permit: ConnectionPermit,
) {
    let state = Arc::new(ConnectionState::default());
    let link = Arc::new(ConnectionContext::new(Arc::clone(&hub), Arc::clone(&state), addr));
    let io = TokioIo::new(Socket::new(stream, Arc::clone(&state), permit));
    // The arrival is noted here and not in the future, which HTTP/2 runs in another task.
    let service = service_fn(move |request: Request<Incoming>| {
        let (arrival, version) = (link.state.begin(), request.version());
        let verdict = check_request(&link.server, &arrival, request);
        respond(Arc::clone(&link), arrival.busy, verdict, version)
    });
    let mut connection = pin!(hub.builder.serve_connection_with_upgrades(io, service));

    let mut timer = ConnectionTimer::new(limits(&hub.settings), hub.clock.clone(), &state);
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut drain = pin!(hub.drain.cancelled());
    let mut abort = pin!(hub.abort.cancelled());
    let mut phase = ConnectionPhase::New;

    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ConnectionEnd::Closed(result));
            }
            match phase {
                // One registration is enough to be woken by the drain; the flag says the rest. This
                // spares each turn a lock that all connections share.
                ConnectionPhase::New => {
                    let _ = drain.as_mut().poll(cx);
                    phase = ConnectionPhase::Open;
                }
                ConnectionPhase::Draining if abort.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(ConnectionEnd::Aborted);
                }
                ConnectionPhase::Open | ConnectionPhase::Retired | ConnectionPhase::Draining => {}
            }
            if phase != ConnectionPhase::Draining && hub.draining.load(Ordering::Acquire) {
                phase = ConnectionPhase::Draining;
                timer.restart();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            match timer.next_action(&state, sleep.is_elapsed(), phase.is_leaving()) {
                TimerAction::Wait => return Poll::Pending,
                TimerAction::SetTimer(after) => {
                    sleep.set(tokio::time::sleep(after));
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                TimerAction::Probe => state.ask_probe(),
                TimerAction::Retire => {
                    phase = ConnectionPhase::Retired;
                    hub.counters.idle_closed.inc();
                    connection.as_mut().graceful_shutdown();
                }
                TimerAction::Close(overdue) => {
                    return Poll::Ready(ConnectionEnd::TimedOut(overdue));
                }
            }
        }
    })
    .await;
    record_end(&end, &state, &hub.counters);
    // After an upgrade the socket lives on, as a tunnel.
    state.set_position(StreamPosition::Opaque);
}

fn record_end(end: &ConnectionEnd, state: &ConnectionState, counters: &ServerCounters) {
    match end {
        // hyper closes amid a head only when it has refused it. Its reason is lost when the client
        // does not close after us.
        ConnectionEnd::TimedOut(Timeout::Close) if state.is_in_head() => counters.head_errors.inc(),
        ConnectionEnd::Closed(Ok(()))
        | ConnectionEnd::Aborted
        | ConnectionEnd::TimedOut(Timeout::Idle | Timeout::Close) => {}
        ConnectionEnd::Closed(Err(error)) => {
            let cause = error.downcast_ref::<hyper::Error>();
            if cause.is_some_and(|cause| cause.is_parse() || cause.is_parse_too_large()) {
                counters.head_errors.inc();
            }
            tracing::debug!(%error, "a client's connection ended with an error");
        }
        ConnectionEnd::TimedOut(Timeout::Head) => counters.header_timeouts.inc(),
        ConnectionEnd::TimedOut(Timeout::Write) => counters.write_timeouts.inc(),
    }
}

/// A request that may go to the service, or what it is refused with.
#[expect(clippy::large_enum_variant, reason = "a box would cost an allocation for each request")]
enum RequestCheck {
    Admitted(Request<Body>),
    Refused(StatusCode, &'static str),
}

/// Looks at a request before the service does. Everything here happens before a future is made:
/// each layer of futures would move the request once more.
fn check_request<S>(
    hub: &ServerContext<S>,
    arrival: &Arrival,
    request: Request<Incoming>,
) -> RequestCheck {
    if arrival.flawed {
        // SECURITY: request smuggling. RFC 9112 section 6.1 allows to reject such a message, and to
        // close is a must.
        hub.counters.framing_errors.inc();
        return RequestCheck::Refused(
            StatusCode::BAD_REQUEST,
            "both Content-Length and Transfer-Encoding",
        );
    }
    if request.headers().len() > hub.settings.max_headers {
        // HTTP/1 does not get here: hyper counts there. In HTTP/2 it knows only the size of the
        // list.
        hub.counters.head_errors.inc();
        return RequestCheck::Refused(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too many header fields",
        );
    }
    RequestCheck::Admitted(request.map(|incoming| request_body(incoming, hub, &arrival.busy)))
}

async fn respond<S: Service>(
    link: Arc<ConnectionContext<S>>,
    busy: BusyGuard,
    verdict: RequestCheck,
    version: Version,
) -> Result<Response<ResponseBody>, Infallible> {
    let service = &link.server.service;
    let mut response = match verdict {
        RequestCheck::Refused(status, why) => refuse(&**service, version, status, why),
        RequestCheck::Admitted(request) => {
            let peer = ClientPeer { addr: link.addr, trusted: link.trusted };
            match AssertUnwindSafe(service.call(request, peer)).catch_unwind().await {
                Ok(response) => response,
                Err(panic) => panicked(&link.server, &*panic),
            }
        }
    };
    if link.server.leaving.load(Ordering::Relaxed)
        && version < Version::HTTP_2
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| ResponseBody::new(body, busy)))
}

#[cold]
fn panicked<S: Service>(hub: &ServerContext<S>, panic: &(dyn Any + Send)) -> Response<Body> {
    hub.counters.panics.inc();
    tracing::error!(panic = text(panic), "a request made the service panic; this is a bug");
    hub.service.refuse(StatusCode::INTERNAL_SERVER_ERROR, "the service panicked")
}

fn refuse<S: Service>(
    service: &S,
    version: Version,
    status: StatusCode,
    why: &'static str,
) -> Response<Body> {
    let mut response = service.refuse(status, why);
    // RFC 9113 section 8.2.2: HTTP/2 has no such field.
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn request_body<S>(incoming: Incoming, hub: &ServerContext<S>, busy: &BusyGuard) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    let late = Arc::clone(&hub.counters.body_timeouts);
    Body::stream(RequestBody::new(incoming, hub.settings.body_timeout, late, busy.another()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
