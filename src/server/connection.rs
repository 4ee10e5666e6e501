//! One client's connection from its first byte to its last: hyper in the middle, the patrol beside it.
//!
//! Owns how hyper is set up, what is refused before the service sees it, and how a panic becomes an answer. It must not know
//! what the service does.

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
use super::connection_state::{Arrival, Busy, State};
use super::framing::Place;
use super::socket::{Permit, Socket};
use super::timeouts::{Limits, Order, Overdue, Patrol};
use super::{Counters, Service, Settings};
use crate::clock::Clock;
use crate::semantics::body::Body;
use crate::semantics::forward::Peer;

/// hyper's own limit of headers. Setting it, even to the same number, makes hyper keep them on the heap.
const HYPER_MAX_HEADERS: usize = 100;
/// hyper's smallest buffer; it panics when told to use a smaller one.
const HYPER_MIN_BUFFER: usize = 8 * 1024;

/// How much of an upload may be on its way per HTTP/2 stream and connection. Room for about 80 Mbit/s at 100 ms.
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
pub(super) struct Hub<S> {
    pub service: Arc<S>,
    pub settings: Settings,
    pub counters: Counters,
    pub clock: Clock,
    pub connections: TaskTracker,
    /// Nobody listens any more, and each answer is the last one of its connection: clients go elsewhere.
    pub leaving: AtomicBool,
    /// No new requests: connections close when nothing is under way. The flag is set before the token wakes them.
    pub draining: AtomicBool,
    pub drain: CancellationToken,
    /// The grace is over.
    pub cut: CancellationToken,
    builder: auto::Builder<TokioExecutor>,
}

impl<S: Service> Hub<S> {
    pub(super) fn new(settings: Settings, service: Arc<S>, counters: Counters, clock: Clock) -> Self {
        let builder = builder(&settings);
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        let (connections, leaving, draining) = (TaskTracker::new(), AtomicBool::new(false), AtomicBool::new(false));
        Self { service, settings, counters, clock, connections, leaving, draining, drain, cut, builder }
    }
}

/// What the requests of one connection share.
struct Link<S> {
    hub: Arc<Hub<S>>,
    state: Arc<State>,
    addr: IpAddr,
    trusted: bool,
}

impl<S> Link<S> {
    fn new(hub: Arc<Hub<S>>, state: Arc<State>, addr: IpAddr) -> Self {
        let trusted = hub.settings.trusted_proxies.iter().any(|network| network.contains(addr));
        Self { hub, state, addr, trusted }
    }
}

fn builder(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    // `pipeline_flush` stays off: it lifts the limit on what is buffered for a client that reads slowly.
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.max_header_bytes.max(HYPER_MIN_BUFFER))
        // A client may close its half after its request and still wants the answer. This also means that hyper does not read
        // while a request is served, and would not see a reset: that is what the patrol's probe is for.
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

const fn limits(settings: &Settings) -> Limits {
    Limits { head: settings.header_timeout, idle: settings.idle_timeout, write: settings.write_timeout }
}

enum End {
    Closed(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    Overdue(Overdue),
    Cut,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve<S: Service>(hub: Arc<Hub<S>>, stream: TcpStream, addr: IpAddr, permit: Permit) {
    let state = Arc::new(State::default());
    let link = Arc::new(Link::new(Arc::clone(&hub), Arc::clone(&state), addr));
    let io = TokioIo::new(Socket::new(stream, Arc::clone(&state), permit));
    // The arrival is noted here and not in the future, which HTTP/2 runs in another task.
    let service = service_fn(move |request: Request<Incoming>| {
        let (arrival, version) = (link.state.begin(), request.version());
        let verdict = judge(&link.hub, &arrival, request);
        answer(Arc::clone(&link), arrival.busy, verdict, version)
    });
    let mut connection = pin!(hub.builder.serve_connection_with_upgrades(io, service));

    let mut patrol = Patrol::new(limits(&hub.settings), hub.clock.clone(), &state);
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut drain = pin!(hub.drain.cancelled());
    let mut cut = pin!(hub.cut.cancelled());
    // Of the drain it needs to be told only once; the flag says the rest. This spares each turn a lock that all connections share.
    let (mut listening, mut rang, mut draining, mut retired) = (false, true, false, false);

    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Closed(result));
            }
            if !listening {
                listening = true;
                let _ = drain.as_mut().poll(cx);
            }
            if draining && cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
            if !draining && hub.draining.load(Ordering::Acquire) {
                (draining, rang) = (true, true);
                patrol.restart();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            match patrol.inspect(&state, rang || timer.is_elapsed(), draining || retired) {
                Order::Rest => return Poll::Pending,
                Order::Ring(after) => {
                    timer.set(tokio::time::sleep(after));
                    rang = timer.as_mut().poll(cx).is_ready();
                    if !rang {
                        return Poll::Pending;
                    }
                }
                Order::Probe => state.ask_probe(),
                Order::Retire => {
                    retired = true;
                    hub.counters.idle_closed.inc();
                    connection.as_mut().graceful_shutdown();
                }
                Order::End(overdue) => return Poll::Ready(End::Overdue(overdue)),
            }
        }
    })
    .await;
    note(&end, &state, &hub.counters);
    // After an upgrade the socket lives on, as a tunnel.
    state.set_place(Place::Opaque);
}

fn note(end: &End, state: &State, counters: &Counters) {
    match end {
        // hyper closes amid a head only when it has refused it. Its reason is lost when the client does not close after us.
        End::Overdue(Overdue::Close) if state.is_amid_head() => counters.head_refused.inc(),
        End::Closed(Ok(())) | End::Cut | End::Overdue(Overdue::Idle | Overdue::Close) => {}
        End::Closed(Err(error)) => {
            let cause = error.downcast_ref::<hyper::Error>();
            if cause.is_some_and(|cause| cause.is_parse() || cause.is_parse_too_large()) {
                counters.head_refused.inc();
            }
            tracing::debug!(%error, "a client's connection ended with an error");
        }
        End::Overdue(Overdue::Head) => counters.header_timeouts.inc(),
        End::Overdue(Overdue::Write) => counters.write_timeouts.inc(),
    }
}

/// A request that may go to the service, or what it is refused with.
#[expect(clippy::large_enum_variant, reason = "a box would cost an allocation for each request")]
enum Verdict {
    Admitted(Request<Body>),
    Refused(StatusCode, &'static str),
}

/// Looks at a request before the service does. Everything here happens before a future is made: each layer of futures would move
/// the request once more.
fn judge<S>(hub: &Hub<S>, arrival: &Arrival, request: Request<Incoming>) -> Verdict {
    if arrival.flawed {
        // SECURITY: request smuggling. RFC 9112 section 6.1 allows to reject such a message, and to close is a must.
        hub.counters.framing_errors.inc();
        return Verdict::Refused(StatusCode::BAD_REQUEST, "both Content-Length and Transfer-Encoding");
    }
    if request.headers().len() > hub.settings.max_headers {
        // HTTP/1 does not get here: hyper counts there. In HTTP/2 it knows only the size of the list.
        hub.counters.head_refused.inc();
        return Verdict::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields");
    }
    Verdict::Admitted(request.map(|incoming| admit(incoming, hub, &arrival.busy)))
}

async fn answer<S: Service>(
    link: Arc<Link<S>>,
    busy: Busy,
    verdict: Verdict,
    version: Version,
) -> Result<Response<ResponseBody>, Infallible> {
    let service = &link.hub.service;
    let mut response = match verdict {
        Verdict::Refused(status, why) => refuse(&**service, version, status, why),
        Verdict::Admitted(request) => {
            let peer = Peer { addr: link.addr, trusted: link.trusted };
            match AssertUnwindSafe(service.call(request, peer)).catch_unwind().await {
                Ok(response) => response,
                Err(panic) => panicked(&link.hub, &*panic),
            }
        }
    };
    if link.hub.leaving.load(Ordering::Relaxed) && version < Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| ResponseBody::new(body, busy)))
}

#[cold]
fn panicked<S: Service>(hub: &Hub<S>, panic: &(dyn Any + Send)) -> Response<Body> {
    hub.counters.panics.inc();
    tracing::error!(panic = text(panic), "a request made the service panic; this is a bug");
    hub.service.refuse(StatusCode::INTERNAL_SERVER_ERROR, "the service panicked")
}

fn refuse<S: Service>(service: &S, version: Version, status: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = service.refuse(status, why);
    // RFC 9113 section 8.2.2: HTTP/2 has no such field.
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn admit<S>(incoming: Incoming, hub: &Hub<S>, busy: &Busy) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    let late = Arc::clone(&hub.counters.body_timeouts);
    Body::stream(RequestBody::new(incoming, hub.settings.body_timeout, late, busy.another()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
