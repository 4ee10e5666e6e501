//! A request's line in the access log. What the line needs of the request is kept here from before
//! the request is consumed.

use std::time::Duration;

use http::{Method, Request};

use crate::policy::plan::PolicyRules;
use crate::policy::request_target;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::forward::{ClientPeer, UnreadHead};
use crate::telemetry::log;
use crate::telemetry::log::AccessLine;

pub(super) struct AccessRecord {
    method: Method,
    path: String,
    host: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    peer: ClientPeer,
}

impl AccessRecord {
    pub(super) fn from_request(request: &Request<Body>, peer: ClientPeer) -> Self {
        let text = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        Self {
            method: request.method().clone(),
            path: request_target::escaped_path(request.uri().path()).into_owned(),
            host: request.uri().authority().map(ToString::to_string).or_else(|| text("host")),
            request_id: text("x-request-id"),
            trace_id: text("traceparent").as_deref().and_then(trace_id).map(str::to_owned),
            peer,
        }
    }

    /// Of a request whose head could not be read, as far as it is known.
    pub(super) fn from_unread(head: &UnreadHead, peer: ClientPeer) -> Self {
        // A dash is a token, so it is a method.
        let unknown = || Method::from_bytes(b"-").unwrap_or_default();
        Self {
            method: head.method.clone().unwrap_or_else(unknown),
            path: head.target.clone().unwrap_or_else(|| "-".to_owned()),
            host: None,
            request_id: None,
            trace_id: None,
            peer,
        }
    }

    pub(super) fn write(self, answered: &ProxyResponse, rules: &PolicyRules, duration: Duration) {
        let length = answered.response.headers().get(http::header::CONTENT_LENGTH);
        log::access(&AccessLine {
            method: &self.method,
            path: &self.path,
            host: self.host.as_deref(),
            peer: self.peer.addr,
            route: answered
                .route
                .and_then(|id| rules.routes.iter().nth(id))
                .map(|route| route.name()),
            status: answered.response.status().as_u16(),
            outcome: &answered.outcome,
            bytes: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            duration,
            request_id: self.request_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
        });
    }
}

/// The trace that a `traceparent` names (W3C Trace Context, 3.2). Later versions begin in the same
/// way, and may have more at their end.
fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, digits: usize| is_hex(text, digits) && text.contains(|c| c != '0');
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let ends = version != "00" || parts.next().is_none();
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && ends;
    is_valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_that_is_valid_names_a_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for valid in ["00-TRACE-00f067aa0ba902b7-01", "cc-TRACE-00f067aa0ba902b7-01-what-comes"] {
            assert_eq!(trace_id(&valid.replace("TRACE", trace)), Some(trace), "{valid}");
        }
        for broken in [
            "",
            "00",
            "ff-TRACE-00f067aa0ba902b7-01",
            "00-TRACE-00f067aa0ba902b7",
            "00-TRACE-00f067aa0ba902b7-01-more",
            "00-TRACE-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf9-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_id(&broken.replace("TRACE", trace)), None, "{broken}");
        }
    }
}
