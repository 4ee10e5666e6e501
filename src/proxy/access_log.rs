//! A request's line in the access log and in the live tail, and its span. What they need of the
//! request is kept here from before the request is consumed.

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Uri};

use crate::policy::plan::PolicyRules;
use crate::policy::request_target;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::semantics::forward::{ClientPeer, UnreadHead};
use crate::telemetry::log;
use crate::telemetry::log::AccessLine;
use crate::telemetry::tail::FinishedRequest;
use crate::telemetry::trace::{FinishedSpan, SpanStart, TraceParent};

pub(super) struct AccessRecord {
    is_logged: bool,
    is_tailed: bool,
    span: Option<SpanStart>,
    method: Method,
    path: String,
    host: Option<String>,
    request_id: Option<String>,
    trace: Option<TraceParent>,
    peer: ClientPeer,
}

impl AccessRecord {
    /// Of a request that is logged, gets a span, or somebody listens to the live tail; none of
    /// another one. Without a listener the tail costs one relaxed load.
    pub(super) fn begin(
        head: (&Method, &Uri, &HeaderMap),
        peer: ClientPeer,
        is_logged: bool,
        resources: &Resources,
    ) -> Option<Self> {
        let tracer = resources.tracer.as_ref();
        let span = tracer.and_then(|tracer| tracer.begin(head.2, peer.trusted, &resources.clock));
        let is_tailed = resources.tail.is_heard();
        (is_logged || is_tailed || span.is_some()).then(|| Self {
            is_logged,
            is_tailed,
            span,
            ..Self::from_request(head, peer)
        })
    }

    fn from_request((method, uri, headers): (&Method, &Uri, &HeaderMap), peer: ClientPeer) -> Self {
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            is_logged: false,
            is_tailed: false,
            span: None,
            method: method.clone(),
            path: request_target::escaped_path(uri.path()).into_owned(),
            host: uri.authority().map(ToString::to_string).or_else(|| text("host")),
            request_id: text("x-request-id"),
            trace: TraceParent::from_headers(headers),
            peer,
        }
    }

    /// Of a request whose head could not be read, as far as it is known; none where nobody is told.
    pub(super) fn begin_unread(
        head: &UnreadHead,
        peer: ClientPeer,
        is_logged: bool,
        resources: &Resources,
    ) -> Option<Self> {
        let is_tailed = resources.tail.is_heard();
        (is_logged || is_tailed).then(|| Self {
            is_logged,
            is_tailed,
            ..Self::from_unread(head, peer)
        })
    }

    fn from_unread(head: &UnreadHead, peer: ClientPeer) -> Self {
        // A dash is a token, so it is a method.
        let unknown = || Method::from_bytes(b"-").unwrap_or_default();
        Self {
            is_logged: false,
            is_tailed: false,
            span: None,
            method: head.method.clone().unwrap_or_else(unknown),
            path: head.target.clone().unwrap_or_else(|| "-".to_owned()),
            host: None,
            request_id: None,
            trace: None,
            peer,
        }
    }

    /// Writes the lines, and hands on the span.
    pub(super) fn write(
        mut self,
        answered: &ProxyResponse,
        rules: &PolicyRules,
        duration: Duration,
        resources: &Resources,
    ) {
        let route = answered.route.and_then(|id| rules.routes.iter().nth(id));
        let route = route.map(|route| route.name());
        if self.is_logged {
            self.log(answered, route, duration);
        }
        if self.is_tailed {
            let request = FinishedRequest {
                method: &self.method,
                path: &self.path,
                route,
                status: answered.response.status().as_u16(),
                outcome: &answered.outcome,
                bytes: length(answered),
                duration,
            };
            resources.tail.tell(resources.clock.now(), resources.clock.wall(), &request);
        }
        if let (Some(tracer), Some(start)) = (&resources.tracer, self.span.take()) {
            tracer.finish(FinishedSpan {
                start,
                duration,
                method: self.method,
                path: self.path,
                host: self.host,
                request_id: self.request_id,
                peer: self.peer.addr,
                route: route.map(str::to_owned),
                status: answered.response.status().as_u16(),
                outcome: answered.outcome.clone(),
            });
        }
    }

    fn log(&self, answered: &ProxyResponse, route: Option<&str>, duration: Duration) {
        let of_caller = self.trace.map(|caller| caller.trace_id);
        // A span without a caller begins a trace.
        let trace_id = self.span.as_ref().map(|span| span.trace_id).or(of_caller);
        let trace_id = trace_id.map(|id| format!("{:032x}", u128::from_be_bytes(id)));
        log::access(&AccessLine {
            method: &self.method,
            path: &self.path,
            host: self.host.as_deref(),
            peer: self.peer.addr,
            route,
            status: answered.response.status().as_u16(),
            outcome: &answered.outcome,
            bytes: length(answered),
            duration,
            request_id: self.request_id.as_deref(),
            trace_id: trace_id.as_deref(),
        });
    }
}

/// The size of the body in bytes, if the head says it.
fn length(answered: &ProxyResponse) -> Option<u64> {
    answered.response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
