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
        });
    }
}
