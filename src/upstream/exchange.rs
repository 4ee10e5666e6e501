//! One request and its response: which connection, whether to try again, and how the response is
//! framed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::checkout::Checkout;
use super::connect::Connector;
use super::connection::{Connection, SendFailure};
use super::counters::UpstreamCounters;
use super::download::{self, BodyStart, Download, DownloadSettings};
use super::error::UpstreamError;
use super::framing::{self, Framing};
use super::pinned::PinSlot;
use super::pool::{LastUse, Pool};
use super::upload::{Upload, UploadProgress};
use crate::clock::Clock;
use crate::semantics::body::{Body, BodyError};
use crate::semantics::media_type::{has_no_end, is_event_stream};
use crate::shares::Requester;

/// A request that must not be sent twice takes only a connection that was in use a moment ago,
/// because the origin is unlikely to close that one just now.
const MAX_UNSAFE_IDLE: Duration = Duration::from_secs(1);

/// Marks a response (in its extensions) whose body ends with the connection, so that its
/// completeness is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseDelimited;

/// Marks a request (in its extensions) that may change data, whatever its method: it is not sent
/// again once a byte of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOnce;

/// Which connection a request takes.
#[derive(Clone, Debug, Default)]
pub enum ConnectionChoice {
    /// Any. Others get it afterwards.
    #[default]
    Pooled,
    /// The client's own.
    Pinned(Arc<PinSlot>),
    /// Any. Nobody gets it afterwards.
    LastUse,
}

/// What every exchange needs.
pub(super) struct Exchanger {
    pub(super) pool: Arc<Pool>,
    pub(super) connector: Connector,
    pub(super) clock: Clock,
    pub(super) counters: UpstreamCounters,
    pub(super) first_byte_timeout: Duration,
    /// The most bytes of a response's head, and of the interim responses before it, together.
    pub(super) max_head_bytes: usize,
    pub(super) reuse_after_body: bool,
    pub(super) idle_timeout: Duration,
    pub(super) max_age: Duration,
    pub(super) host: Option<HeaderValue>,
    pub(super) via: bool,
    pub(super) authority: HeaderValue,
}

/// A request on its way to a connection. In a box, because each step of the way would move it.
type BoxedUpload = Box<Request<Upload>>;

/// Why an attempt failed, and the request if no byte of it was written.
struct AttemptFailure {
    error: UpstreamError,
    unsent: Option<BoxedUpload>,
    closed: bool,
}

impl AttemptFailure {
    /// What to send on a new connection: the request that was not written, or its copy.
    ///
    /// An origin may close an idle connection at any moment, and has then not acted on the request.
    /// A missed deadline, a broken body, or a response that is not HTTP would only recur.
    fn into_retry(self, copy: Option<BoxedUpload>) -> Result<BoxedUpload, UpstreamError> {
        match self.unsent.or(copy.filter(|_| self.closed)) {
            Some(request) => Ok(request),
            None => Err(self.error),
        }
    }
}

impl Exchanger {
    /// Until when a connection that is made now serves requests. The times differ, so that
    /// connections that were made together do not end together.
    fn expiry(&self) -> Option<Instant> {
        let life = self.max_age.mul_f64(1.0 - rand::random::<f64>() / 4.0);
        self.clock.now().checked_add(life)
    }

    /// Whether others may use the connection after this request.
    ///
    /// SECURITY: an origin that leaves a body unread takes it for the next request, and the
    /// response to that for the response to whoever is next on the connection (CL.0). Origins
    /// expect content with POST, PUT and PATCH alone (RFC 9110 9.3).
    ///
    /// SECURITY: the same harm comes from an origin that sends a body with the response to a HEAD,
    /// as Django does under waitress: what comes late is the next response on the connection.
    fn may_share_after(&self, request: &Request<Body>) -> bool {
        match *request.method() {
            Method::HEAD => false,
            _ if request.body().is_empty() => true,
            Method::POST | Method::PUT | Method::PATCH => self.reuse_after_body,
            _ => false,
        }
    }
}

pub(super) async fn send(
    inner: &Exchanger,
    mut request: Box<Request<Body>>,
    choice: &ConnectionChoice,
    requester: &Requester,
) -> Result<Response<Body>, UpstreamError> {
    normalise(&mut request);
    match choice {
        ConnectionChoice::Pooled if inner.may_share_after(&request) => {
            exchange(inner, inner.pool.pooled(requester).await?, request).await
        }
        ConnectionChoice::Pooled | ConnectionChoice::LastUse => {
            Box::pin(send_last(inner, request, requester)).await
        }
        ConnectionChoice::Pinned(slot) => {
            Box::pin(send_pinned(inner, slot, request, requester)).await
        }
    }
}

async fn send_last(
    inner: &Exchanger,
    request: Box<Request<Body>>,
    requester: &Requester,
) -> Result<Response<Body>, UpstreamError> {
    exchange(inner, LastUse::new(inner.pool.pooled(requester).await?), request).await
}

async fn send_pinned(
    inner: &Exchanger,
    slot: &Arc<PinSlot>,
    request: Box<Request<Body>>,
    requester: &Requester,
) -> Result<Response<Body>, UpstreamError> {
    match slot.checkout(requester).await? {
        Some(pinned) => exchange(inner, pinned, request).await,
        None => send_last(inner, request, requester).await,
    }
}

/// Sends the request on a connection that is kept, or else on a new one.
async fn exchange<C: Checkout>(
    inner: &Exchanger,
    mut checkout: C,
    request: Box<Request<Body>>,
) -> Result<Response<Body>, UpstreamError> {
    let upgrade = request.headers().contains_key(UPGRADE);
    if upgrade {
        // Before the origin begins a session that would be refused.
        checkout.set_tunnel(Some(inner.pool.tunnel_permit()?));
    }
    // RFC 9110 9.2.2 allows repeating all idempotent methods. PUT and DELETE are left out: if
    // another write came in between, the repetition would undo it.
    let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && request.extensions().get::<SendOnce>().is_none()
        && request.body().replayable().is_some();
    let now = inner.clock.now();
    let max_age = if repeatable { Duration::MAX } else { MAX_UNSAFE_IDLE };

    let (parts, body) = (*request).into_parts();
    let has_body = !body.is_empty();
    let copy = if repeatable { body.replayable() } else { None };
    let (upload, progress) = Upload::new(body);
    let request = Box::new(Request::from_parts(parts, upload));
    let request = match checkout.reuse(now, max_age) {
        None => request,
        Some(connection) => {
            inner.counters.reused.inc();
            let copy = copy.map(|bytes| duplicate(&request, bytes));
            match attempt(inner, connection, request, progress.as_deref(), now).await {
                Ok(response) => {
                    let sent = SentRequest { progress: progress.as_deref(), has_body, upgrade };
                    return receive(inner, checkout, response, sent);
                }
                Err(failure) => {
                    checkout.close();
                    let request = failure.into_retry(copy)?;
                    inner.counters.retries.inc();
                    request
                }
            }
        }
    };
    let connection = Box::pin(inner.connector.connect()).await?;
    let connection = checkout.install(Connection::new(connection, inner.expiry()));
    match attempt(inner, connection, request, progress.as_deref(), inner.clock.now()).await {
        Ok(response) => {
            let sent = SentRequest { progress: progress.as_deref(), has_body, upgrade };
            receive(inner, checkout, response, sent)
        }
        Err(failure) => Err(failure.error),
    }
}

/// Sends the request and waits for the head of the response.
async fn attempt(
    inner: &Exchanger,
    connection: &mut Connection,
    request: BoxedUpload,
    progress: Option<&UploadProgress>,
    now: Instant,
) -> Result<Response<Incoming>, AttemptFailure> {
    connection.socket().await_head(inner.max_head_bytes);
    let result = poll_head(inner, connection, request, progress, now).await;
    if connection.socket().end_head() && result.is_err() {
        // SECURITY: hyper takes interim responses for as long as more of them are there, which
        // would hold up all requests of this thread.
        inner.counters.interim.inc();
        return Err(AttemptFailure {
            error: UpstreamError::InterimResponses,
            unsent: None,
            closed: false,
        });
    }
    result
}

async fn poll_head(
    inner: &Exchanger,
    connection: &mut Connection,
    request: BoxedUpload,
    progress: Option<&UploadProgress>,
    now: Instant,
) -> Result<Response<Incoming>, AttemptFailure> {
    let mut response = pin!(connection.send(*request));
    connection.deadline.set(now, inner.first_byte_timeout);
    let mut frames = 0;
    let mut started = false;
    poll_fn(|cx| {
        let polled = if started {
            connection.drive_until(cx, |cx| response.as_mut().poll(cx))
        } else {
            // The first poll writes the request; after that there is only the wait.
            started = true;
            connection.drive(cx);
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        if let Poll::Ready(response) = polled {
            return Poll::Ready(response.map_err(|error| failure(error, progress)));
        }
        // The origin's time starts when it has received the last of the request.
        if let Some(seen) = progress.map(UploadProgress::frames).filter(|&seen| seen != frames) {
            frames = seen;
            connection.deadline.set(inner.clock.now(), inner.first_byte_timeout);
        }
        connection.deadline.poll(&inner.clock, cx).map(|()| {
            Err(AttemptFailure {
                error: UpstreamError::FirstByteTimeout,
                unsent: None,
                closed: false,
            })
        })
    })
    .await
}

fn failure(mut failed: SendFailure, progress: Option<&UploadProgress>) -> AttemptFailure {
    let unsent = failed.take_message().map(Box::new);
    let cause = failed.into_error();
    let closed = !cause.is_parse() && !cause.is_user();
    let cause: BodyError = Box::new(cause);
    let error = if unsent.is_some() {
        UpstreamError::Unsent(cause)
    } else if progress.is_some_and(UploadProgress::failed) {
        UpstreamError::RequestBody(cause)
    } else {
        UpstreamError::Broken(cause)
    };
    AttemptFailure { error, unsent, closed }
}

/// What matters of a request once its response comes.
#[derive(Clone, Copy)]
struct SentRequest<'a> {
    progress: Option<&'a UploadProgress>,
    has_body: bool,
    upgrade: bool,
}

/// Makes the response from its head and the part of its body that has arrived.
fn receive<C: Checkout>(
    inner: &Exchanger,
    mut checkout: C,
    response: Response<Incoming>,
    sent: SentRequest<'_>,
) -> Result<Response<Body>, UpstreamError> {
    let SentRequest { progress, has_body, upgrade } = sent;
    let (mut parts, mut body) = response.into_parts();
    checkout.settle();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // SECURITY: an upgrade that the client did not request would turn a connection into a
        // tunnel that no rule watches.
        if !upgrade {
            return Err(UpstreamError::Broken("switched protocols without a request".into()));
        }
        checkout.become_tunnel();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let Framing { is_chunked, is_dubious } = framing::settle(&mut parts, body.is_end_stream())?;
    // SECURITY: an origin that refuses a request may not have read its body.
    let is_unread = C::IS_SHARED
        && has_body
        && (parts.status.is_client_error() || parts.status.is_server_error());
    if is_unread || is_dubious {
        checkout.connection().map(Connection::spend);
    }
    if !has_no_end(&parts.headers) || body.is_end_stream() {
        checkout.set_tunnel(None);
    } else if !checkout.is_tunnel() {
        checkout.set_tunnel(Some(inner.pool.tunnel_permit()?));
    }
    if body.is_end_stream() {
        checkout.release();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    if !is_chunked && !parts.headers.contains_key(CONTENT_LENGTH) {
        parts.extensions.insert(CloseDelimited);
    }
    if progress.is_some_and(|progress| !progress.over()) {
        // The origin responds while the client still sends. Both directions must make progress,
        // whichever is read first.
        checkout.detach();
    }
    // The next poll registers the waker: the body is polled before anything waits for it.
    let body =
        match download::begin(&mut checkout, &mut body, &mut Context::from_waker(Waker::noop())) {
            BodyStart::Whole(bytes) => {
                checkout.release();
                Body::full(bytes)
            }
            BodyStart::Part(ready) => {
                let settings = DownloadSettings {
                    idle_timeout: (!is_event_stream(&parts.headers)).then_some(inner.idle_timeout),
                    clock: inner.clock.clone(),
                    timeouts: Arc::clone(&inner.counters.timeouts),
                    broken: Arc::clone(&inner.counters.broken),
                };
                Body::stream(Download::new(ready, body, checkout, settings))
            }
        };
    Ok(Response::from_parts(parts, body))
}

/// Turns a request of any version into one for HTTP/1.1.
fn normalise(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    // SECURITY: origin-form only; an absolute target would let the request choose the host that the
    // origin believes it was sent to.
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        let target = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(target);
    }
    if request.headers().contains_key(CONTENT_LENGTH) {
        return;
    }
    if request.body().is_empty() {
        // These methods expect content, so its absence is stated (RFC 9110 8.6); some origins
        // insist on it.
        if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if request.body().size_hint().exact().is_none() {
        // Without this, hyper treats a GET of unknown length as one without a body.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// A copy of a request, in case the first is lost on a connection that was being closed.
fn duplicate(request: &Request<Upload>, body: bytes::Bytes) -> BoxedUpload {
    let mut copy = Box::new(Request::new(Upload::unwatched(Body::full(body))));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}
