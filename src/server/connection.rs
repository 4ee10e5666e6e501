//! One client's connection from its first byte to its last: hyper serves it, and the connection
//! timer limits it.
//!
//! Owns how hyper is set up, what is rejected before the service sees it, and how a panic becomes a
//! response. It must not know what the service does.

use std::any::Any;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::bodies::{BodyLimits, RequestBody, RequestEnd, ResponseBody};
use super::connection_end::{ConnectionEnd, record_end};
use super::connection_state::{Arrival, BusyGuard, ConnectionState};
use super::counters::ServerCounters;
use super::finish::{ResponseContext, ResponseEnd, finish};
use super::listener::ClientStream;
use super::service::Service;
use super::settings::ServerSettings;
use super::socket::{ConnectionPermit, ReturnSlot, Socket};
use super::timeouts::{ConnectionTimer, TimeoutLimits, TimerAction};
use super::unread::{self, Refused};
use crate::clock::Clock;
use crate::peer_address::PeerAddress;
use crate::semantics::body::Body;
use crate::semantics::forward::{BadRequest, ClientPeer};
use crate::shares::{FairSemaphore, PauseWatch, Queues, ShareOwner, ShareSettings};

/// hyper's own limit of headers. Setting it, even to the same number, makes hyper keep them on the
/// heap.
const HYPER_MAX_HEADERS: usize = 100;
/// hyper's smallest buffer; hyper panics if a smaller one is set.
const HYPER_MIN_BUFFER: usize = 8 * 1024;

/// How much of an upload may be in flight per HTTP/2 stream and connection: enough for about 80
/// Mbit/s at 100 ms.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// How much of a response waits in memory for a slow HTTP/2 client, per stream.
const STREAM_BUFFER: usize = 64 * 1024;
/// HTTP/2 pings: nothing else finds a dead HTTP/2 client.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(20);
/// The most streams that a client may open and reset before they are looked at; more end the
/// connection.
// SECURITY: "rapid reset" (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// The most connections that wait for the place of another one.
pub const MAX_WAITING: usize = 256;
/// How long they wait after the longest pause that is allowed to others is over.
const WAIT_AFTER_STALL: Duration = Duration::from_secs(1);

/// What all connections share.
pub(super) struct ServerContext<S> {
    pub service: Arc<S>,
    pub settings: ServerSettings,
    pub counters: ServerCounters,
    pub clock: Clock,
    pub connections: TaskTracker,
    /// A permit for each open connection.
    pub permits: FairSemaphore,
    /// The listener is closed, and each response is the last one of its connection, so that clients
    /// go to another server.
    pub leaving: AtomicBool,
    /// No new requests: connections close when nothing is in flight. The flag is set before the
    /// token wakes them.
    pub draining: AtomicBool,
    pub drain: CancellationToken,
    /// Streams have to end.
    pub streams: CancellationToken,
    /// A token for each connection that may begin another request.
    pub opening: TaskTracker,
    /// The grace time is over.
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
        let shares = ShareSettings {
            permits: settings.max_connections,
            max_waiting: MAX_WAITING.min(settings.max_connections),
            wait: settings.stall + WAIT_AFTER_STALL,
            stall: settings.stall,
            queues: Queues::BehindLargerPeers,
        };
        let permits = FairSemaphore::new(shares, clock.clone(), counters.shares.clone());
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let (connections, leaving, draining) =
            (TaskTracker::new(), AtomicBool::new(false), AtomicBool::new(false));
        Self {
            service,
            settings,
            counters,
            clock,
            connections,
            permits,
            leaving,
            draining,
            drain,
            streams: CancellationToken::new(),
            opening: TaskTracker::new(),
            abort,
            builder,
        }
    }
}

impl<S> ServerContext<S> {
    const fn for_responses(&self) -> ResponseContext<'_> {
        let Self { leaving, streams, clock, counters, .. } = self;
        ResponseContext { leaving, streams, clock, counters }
    }

    /// Whether what connects from there is one of the trusted proxies.
    fn trusts(&self, addr: PeerAddress) -> bool {
        self.settings.trusted_proxies.includes(addr)
    }

    /// Whose connection it is.
    pub(super) fn peer(&self, addr: PeerAddress) -> ShareOwner {
        if self.trusts(addr) { ShareOwner::TrustedProxy } else { ShareOwner::from_peer(addr) }
    }
}

/// What the requests of one connection share.
struct ConnectionContext<S: Service> {
    server: Arc<ServerContext<S>>,
    state: Arc<ConnectionState>,
    client: S::Client,
}

impl<S: Service> ConnectionContext<S> {
    fn new(server: Arc<ServerContext<S>>, state: Arc<ConnectionState>, addr: PeerAddress) -> Self {
        let trusted = server.trusts(addr);
        let client = server.service.connect(ClientPeer { addr, trusted }, state.departure());
        Self { server, state, client }
    }
}

fn builder(settings: &ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    // `pipeline_flush` stays off: it removes the limit on what is buffered for a slow reader.
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.max_header_bytes.max(HYPER_MIN_BUFFER))
        // A client may close its half after its request and still want the response. As a
        // consequence, hyper does not read while a request is served; the socket does.
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
        half_closed: settings.half_closed,
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

    /// The phase that begins now, in which the connection closes once nothing is in flight.
    fn next(self, draining: &AtomicBool, state: &ConnectionState) -> Option<Self> {
        match self {
            Self::Draining => None,
            _ if draining.load(Ordering::Acquire) => Some(Self::Draining),
            Self::Open if state.is_unwanted() => Some(Self::Retired),
            Self::New | Self::Open | Self::Retired => None,
        }
    }
}

/// Serves a connection until either side ends it, and answers a head that hyper has refused.
pub(super) async fn serve<S: Service>(
    server: Arc<ServerContext<S>>,
    stream: ClientStream,
    addr: PeerAddress,
    (permit, opening): (ConnectionPermit, Option<TaskTrackerToken>),
) {
    let state = Arc::new(ConnectionState::default());
    let context = Arc::new(ConnectionContext::new(Arc::clone(&server), Arc::clone(&state), addr));
    permit.watch(&state);
    let slot = ReturnSlot::default();
    let socket = Socket::new(stream, Arc::clone(&state), server.clock.clone(), permit, &slot);
    let end = serve_requests(&context, socket, opening).await;
    record_end(&end, &state, &server.counters);
    // After an upgrade the socket stays open.
    state.set_tunnel();
    let returned = slot.lock().take();
    if let ConnectionEnd::Closed(Err(error)) = end
        && let Some(Refused::Head(why)) = Refused::from_error(&*error)
    {
        let (service, max) = (&*server.service, server.settings.max_header_bytes);
        let (head, client) = ((why, state.served()), (service, &context.client));
        unread::answer(client, &server.counters, head, max, returned).await;
    }
}

/// Serves requests until either side ends the connection.
async fn serve_requests<S: Service>(
    context: &Arc<ConnectionContext<S>>,
    socket: Socket,
    mut opening: Option<TaskTrackerToken>,
) -> ConnectionEnd {
    let (server, state) = (Arc::clone(&context.server), Arc::clone(&context.state));
    let context = Arc::clone(context);
    let io = TokioIo::new(socket);
    let service = service_fn(move |request: Request<Incoming>| begin(&context, request));
    let mut connection = pin!(server.builder.serve_connection_with_upgrades(io, service));

    let mut timer = ConnectionTimer::new(limits(&server.settings), server.clock.clone(), &state);
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut drain = pin!(server.drain.cancelled());
    let mut abort = pin!(server.abort.cancelled());
    let mut phase = ConnectionPhase::New;

    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ConnectionEnd::Closed(result));
            }
            match phase {
                // One registration is enough to be woken by the drain; after that the flag is
                // enough. Polling again would take a lock that all connections share.
                ConnectionPhase::New => {
                    let _ = drain.as_mut().poll(cx);
                    state.wake_when_unwanted(cx.waker());
                    phase = ConnectionPhase::Open;
                }
                ConnectionPhase::Draining if abort.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(ConnectionEnd::Aborted);
                }
                ConnectionPhase::Open | ConnectionPhase::Retired | ConnectionPhase::Draining => {}
            }
            if let Some(end) = end_for_others(&server, &state) {
                return Poll::Ready(end);
            }
            if let Some(next) = phase.next(&server.draining, &state) {
                phase = next;
                timer.restart();
                state.await_word();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            opening.take_if(|_| phase == ConnectionPhase::Draining && state.is_last_request());
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
                    server.counters.idle_closed.inc();
                    state.await_word();
                    connection.as_mut().graceful_shutdown();
                }
                TimerAction::Close(overdue) => {
                    return Poll::Ready(ConnectionEnd::TimedOut(overdue));
                }
            }
        }
    })
    .await
}

/// Whether the connection ends because others need its place, or that of its request.
fn end_for_others<S>(server: &ServerContext<S>, state: &ConnectionState) -> Option<ConnectionEnd> {
    if state.departure().is_cut() {
        return Some(ConnectionEnd::GivenUp);
    }
    let ends = state.is_unwanted() && state.is_stuck(server.clock.now());
    ends.then_some(ConnectionEnd::Aborted)
}

/// Checks a request before the service sees it, and gives it its body. This happens outside of any
/// future, because each layer of futures would move the request once more.
///
/// # Errors
/// The reason to reject it. The service does, so that it is logged as others are.
fn check_request<S>(
    server: &ServerContext<S>,
    state: &ConnectionState,
    arrival: &Arrival,
    (parts, incoming): (&mut Parts, Incoming),
) -> Result<Body, BadRequest> {
    if let Some(flaw) = arrival.flaw {
        // SECURITY: request smuggling. RFC 9112 section 6.1 allows rejecting a message with two
        // lengths, and requires closing the connection. A target that was cut names something else
        // than the client does.
        if flaw.is_of_framing() {
            server.counters.framing_errors.inc();
        }
        return Err(flaw.bad_request());
    }
    if parts.headers.len() > server.settings.max_headers {
        // Only HTTP/2 gets here: for HTTP/1 hyper counts the fields, for HTTP/2 it knows only the
        // size of the list.
        server.counters.crowded_heads.inc();
        return Err(BadRequest::TooManyFields);
    }
    if incoming.is_end_stream() {
        return Ok(Body::empty());
    }
    let upload = Arc::default();
    let end = RequestEnd::of(parts.version);
    let body = request_body((incoming, end), server, &arrival.busy, &upload);
    state.add_upload(&upload);
    parts.extensions.insert(upload);
    Ok(body)
}

/// The response to a request, or what brings it.
fn begin<S: Service>(
    context: &Arc<ConnectionContext<S>>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + use<S> {
    // The arrival is recorded here and not in the future, because HTTP/2 runs that in another task.
    let (arrival, (mut parts, incoming)) = (context.state.begin(), request.into_parts());
    let about = (parts.version, parts.method == Method::HEAD);
    let checked = check_request(&context.server, &context.state, &arrival, (&mut parts, incoming));
    let found = match respond_at_once(context, &parts, &checked) {
        Ok(response) => {
            let (server, end) = (context.server.for_responses(), ResponseEnd::default());
            let response = finish(server, response, arrival.busy, end, about);
            return Either::Left(ready(Ok(response)));
        }
        Err(found) => found,
    };
    let (body, flaw) = match checked {
        Ok(body) => (body, None),
        Err(flaw) => (Body::empty(), Some(flaw)),
    };
    let (request, context) = (Request::from_parts(parts, body), Arc::clone(context));
    Either::Right(Box::pin(respond(context, arrival.busy, request, (flaw, found), about)))
}

/// The response to a request for which there is nothing to wait for, without a future that would be
/// moved more often than it is worth.
fn respond_at_once<S: Service>(
    context: &ConnectionContext<S>,
    parts: &Parts,
    checked: &Result<Body, BadRequest>,
) -> Result<Response<Body>, S::Found> {
    if !checked.as_ref().is_ok_and(Body::is_empty) {
        return Err(S::Found::default());
    }
    let answer = || context.server.service.call_at_once(parts, &context.client);
    let answered = std::panic::catch_unwind(AssertUnwindSafe(answer));
    answered.unwrap_or_else(|panic| Ok(panicked(&context.server, &*panic)))
}

async fn respond<S: Service>(
    context: Arc<ConnectionContext<S>>,
    busy: BusyGuard,
    request: Request<Body>,
    (flaw, found): (Option<BadRequest>, S::Found),
    about: (Version, bool),
) -> Result<Response<ResponseBody>, Infallible> {
    let is_connect = request.method() == Method::CONNECT;
    let service = &context.server.service;
    let call = service.call(request, &context.client, flaw, found);
    let response = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => panicked(&context.server, &*panic),
    };
    let opens_tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || is_connect && response.status().is_success();
    if opens_tunnel {
        context.state.set_upgrading();
    }
    let end = ResponseEnd { closes: flaw.is_some(), opens_tunnel };
    Ok(finish(context.server.for_responses(), response, busy, end, about))
}

#[cold]
fn panicked<S: Service>(server: &ServerContext<S>, panic: &(dyn Any + Send)) -> Response<Body> {
    server.counters.panics.inc();
    tracing::error!(panic = text(panic), "a request made the service panic; this is a bug");
    server.service.refuse(StatusCode::INTERNAL_SERVER_ERROR, "the service panicked")
}

fn request_body<S>(
    (incoming, end): (Incoming, RequestEnd),
    server: &ServerContext<S>,
    busy: &BusyGuard,
    upload: &Arc<PauseWatch>,
) -> Body {
    let watch = Arc::clone(upload);
    let timeouts = Arc::clone(&server.counters.body_timeouts);
    let limits = BodyLimits {
        timeout: server.settings.body_timeout,
        timeouts,
        watch,
        clock: server.clock.clone(),
    };
    Body::stream(RequestBody::new(incoming, end, limits, busy.another()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
