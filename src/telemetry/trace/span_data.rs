//! A span as OpenTelemetry has it, with the attributes of its semantic conventions for HTTP servers
//! and our own under `sidecache.`.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use http::uri::Authority;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::outcome::Tier;
use crate::telemetry::trace::FinishedSpan;

/// The longest text of a stranger in a span, in bytes.
const MAX_TEXT: usize = 1024;

/// The span in the form that is sent.
pub(super) fn span_data(span: &FinishedSpan, scope: &InstrumentationScope) -> SpanData {
    let start_time = UNIX_EPOCH + span.start.since_epoch;
    let (attributes, method) = (attributes(span), known_method(&span.method));
    let method = if method == "_OTHER" { "HTTP" } else { method };
    let name = match &span.route {
        Some(route) => Cow::Owned(format!("{method} {route}")),
        None => Cow::Borrowed(method),
    };
    let (trace, id) =
        (TraceId::from_bytes(span.start.trace_id), SpanId::from_bytes(span.start.span_id));
    // A client's mistake is no error of the server.
    let failed = span.status >= 500;
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: span.start.parent_id.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.start.parent_id.is_some(),
        span_kind: SpanKind::Server,
        name,
        start_time,
        end_time: start_time + span.duration,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
}

fn attributes(span: &FinishedSpan) -> Vec<KeyValue> {
    let outcome = &span.outcome;
    let text = |name: &'static str, value: &str| KeyValue::new(name, bounded(value).to_owned());
    let mut attributes = vec![
        KeyValue::new("http.request.method", known_method(&span.method)),
        text("url.path", span.path.split(['?', '#']).next().unwrap_or_default()),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("http.response.status_code", i64::from(span.status)),
        KeyValue::new("sidecache.disposition", outcome.disposition.as_str()),
        KeyValue::new("sidecache.stored", outcome.stored),
        KeyValue::new("sidecache.collapsed", outcome.collapsed),
    ];
    if let Some(route) = &span.route {
        attributes.push(text("http.route", route));
    }
    if let Some(host) = span.host.as_ref().and_then(|host| host.parse::<Authority>().ok()) {
        attributes.push(text("server.address", host.host()));
    }
    if let Some(ip) = span.peer.ip() {
        attributes.push(KeyValue::new("network.peer.address", ip.to_string()));
    }
    if let Some(reason) = outcome.reason {
        attributes.push(KeyValue::new("sidecache.reason", reason.as_str()));
    }
    if let Some(tier) = outcome.tier {
        attributes.push(KeyValue::new("sidecache.tier", Tier::as_str(tier)));
    }
    if let Some(id) = &span.request_id {
        attributes.push(text("sidecache.request_id", id));
    }
    if let Some(call) = outcome.origin.as_deref() {
        if let Some(took) = call.took {
            attributes.push(KeyValue::new("sidecache.app_us", micros(took)));
        }
        if let Some(cause) = call.cause.as_deref() {
            attributes.push(text("sidecache.cause", cause));
        }
    }
    if span.status >= 500 {
        attributes.push(KeyValue::new("error.type", span.status.to_string()));
    }
    attributes
}

/// The method, or the word for those that strangers make up.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
