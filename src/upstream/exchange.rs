//! One request and its response: which connection, whether to try again, and how the response is
//! framed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::connect::Connector;
use super::connection::{Connection, SendFailure};
use super::counters::UpstreamCounters;
use super::download::{self, BodyStart, Download, DownloadSettings};
use super::error::UpstreamError;
use super::pool::{Pool, PooledConnection};
use super::upload::{Upload, UploadProgress};
use crate::clock::Clock;
use crate::semantics::body::{Body, BodyError};
use crate::semantics::media_type::is_event_stream;

/// A request that must not be sent twice takes only a connection that was in use a moment ago: it
/// is unlikely to be closed just now.
const MAX_UNSAFE_IDLE: Duration = Duration::from_secs(1);

/// Marks a response (in its extensions) whose body ends with the connection: nobody can tell
/// whether it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseDelimited;

/// What every exchange needs.
pub(super) struct Exchanger {
    pub(super) pool: Arc<Pool>,
    pub(super) connector: Connector,
    pub(super) clock: Clock,
    pub(super) counters: UpstreamCounters,
    pub(super) first_byte_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) host: Option<HeaderValue>,
}

/// Why an attempt failed, and the request if no byte of it was written.
struct AttemptFailure {
    error: UpstreamError,
    unsent: Option<Box<Request<Upload>>>,
    closed: bool,
}

impl AttemptFailure {
    /// What to send on a new connection: the request that was not written, or its copy.
    ///
    /// An app may close a waiting connection at any moment, and then it has not acted on the
    /// request. A deadline that has passed, a body that broke, or a response that is not HTTP would
    /// only come again.
    fn into_retry(self, copy: Option<Request<Upload>>) -> Result<Request<Upload>, UpstreamError> {
        match self.unsent.map(|request| *request).or(copy.filter(|_| self.closed)) {
            Some(request) => Ok(request),
            None => Err(self.error),
        }
    }
}

pub(super) async fn send(
    inner: &Exchanger,
    mut request: Request<Body>,
) -> Result<Response<Body>, UpstreamError> {
    normalise(&mut request);
    let upgrade = request.headers().contains_key(UPGRADE);
    // RFC 9110 9.2.2 allows to repeat all idempotent methods. PUT and DELETE are left out: what
    // they do twice may not be what the user saw once, if another write came between.
    let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && request.body().replayable().is_some();
    let mut lease = inner.pool.permit().await?;
    let now = inner.clock.now();
    let max_age = if repeatable { Duration::MAX } else { MAX_UNSAFE_IDLE };

    let (parts, body) = request.into_parts();
    let copy = if repeatable { body.replayable() } else { None };
    let (upload, progress) = Upload::new(body);
    let request = Request::from_parts(parts, upload);
    let request = match lease.reuse(now, max_age) {
        None => request,
        Some(link) => {
            inner.counters.reused.inc();
            let copy = copy.map(|bytes| duplicate(&request, bytes));
            match attempt(inner, link, request, progress.as_deref(), now).await {
                Ok(response) => {
                    return receive(inner, lease, response, progress.as_deref(), upgrade);
                }
                Err(failure) => {
                    lease.close();
                    let request = failure.into_retry(copy)?;
                    inner.counters.retries.inc();
                    request
                }
            }
        }
    };
    let link = Box::pin(inner.connector.connect()).await?;
    let link = lease.install(Connection::new(link));
    match attempt(inner, link, request, progress.as_deref(), inner.clock.now()).await {
        Ok(response) => receive(inner, lease, response, progress.as_deref(), upgrade),
        Err(failure) => Err(failure.error),
    }
}

/// Sends the request and waits for the head of the response.
async fn attempt(
    inner: &Exchanger,
    link: &mut Connection,
    request: Request<Upload>,
    progress: Option<&UploadProgress>,
    now: Instant,
) -> Result<Response<Incoming>, AttemptFailure> {
    let mut answer = pin!(link.send(request));
    link.deadline.set(now, inner.first_byte_timeout);
    let mut frames = 0;
    let mut started = false;
    poll_fn(|cx| {
        let answered = if started {
            link.drive_until(cx, |cx| answer.as_mut().poll(cx))
        } else {
            // The first turn writes, and then there is nothing to do but wait.
            started = true;
            link.drive(cx);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        if let Poll::Ready(answer) = answered {
            return Poll::Ready(answer.map_err(|error| failure(error, progress)));
        }
        // The app's time starts when it has been given the last of the request.
        if let Some(seen) = progress.map(UploadProgress::frames).filter(|&seen| seen != frames) {
            frames = seen;
            link.deadline.set(inner.clock.now(), inner.first_byte_timeout);
        }
        link.deadline.poll(&inner.clock, cx).map(|()| {
            Err(AttemptFailure {
                error: UpstreamError::FirstByteTimeout,
                unsent: None,
                closed: false,
            })
        })
    })
    .await
}

fn failure(mut unanswered: SendFailure, progress: Option<&UploadProgress>) -> AttemptFailure {
    let unsent = unanswered.take_message().map(Box::new);
    let cause = unanswered.into_error();
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

/// Makes the response out of its head and what has come of its body.
fn receive(
    inner: &Exchanger,
    mut lease: PooledConnection,
    response: Response<Incoming>,
    progress: Option<&UploadProgress>,
    upgrade: bool,
) -> Result<Response<Body>, UpstreamError> {
    let (mut parts, mut body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // SECURITY: an upgrade that nobody asked for would make a tunnel of a connection that rules
        // are to watch.
        if !upgrade {
            return Err(UpstreamError::Broken("switched protocols unasked".into()));
        }
        lease.into_tunnel();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let chunked = check_framing(&parts.headers)?;
    if body.is_end_stream() {
        lease.release();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    if !chunked && !parts.headers.contains_key(CONTENT_LENGTH) {
        parts.extensions.insert(CloseDelimited);
    }
    if progress.is_some_and(|progress| !progress.over()) {
        // The app answers while the client still sends. Both must flow, whoever of them reads
        // first.
        lease.detach();
    }
    // The turn after this one registers the waker: the body is polled before anybody sleeps on it.
    let body = match download::begin(&mut lease, &mut body, &mut Context::from_waker(Waker::noop()))
    {
        BodyStart::Whole(bytes) => {
            lease.release();
            Body::full(bytes)
        }
        BodyStart::Part(ready) => {
            let terms = DownloadSettings {
                idle_timeout: (!is_event_stream(&parts.headers)).then_some(inner.idle_timeout),
                clock: inner.clock.clone(),
                timeouts: Arc::clone(&inner.counters.timeouts),
                broken: Arc::clone(&inner.counters.broken),
            };
            Body::stream(Download::new(ready, body, lease, terms))
        }
    };
    Ok(Response::from_parts(parts, body))
}

/// Whether the body is chunked, if its framing has one reading only.
fn check_framing(headers: &HeaderMap) -> Result<bool, UpstreamError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    // SECURITY: RFC 9112 6.3 calls this an attempt at response splitting; whoever stores such a
    // response may store another one's.
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(UpstreamError::Broken("both Content-Length and Transfer-Encoding".into()));
    }
    // A coding besides `chunked` would be lost with the header that names it.
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some() || !(chunked || coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(UpstreamError::Broken("unsupported Transfer-Encoding".into()));
    }
    Ok(chunked)
}

/// Makes the request one that HTTP/1.1 can carry whole, whatever version it came in.
fn normalise(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    // SECURITY: origin-form only; an absolute target would let the request choose where the app
    // believes it was sent.
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
        // RFC 9110 8.6: these methods mean something by having no content, and some apps insist
        // that it is said.
        if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if request.body().size_hint().exact().is_none() {
        // Without this hyper takes a GET of unknown length for one without a body.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// A second copy of a request, for the case that the first is lost on a connection that was being
/// closed.
fn duplicate(request: &Request<Upload>, body: bytes::Bytes) -> Request<Upload> {
    let mut copy = Request::new(Upload::unwatched(Body::full(body)));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}
