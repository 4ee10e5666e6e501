//! A response as a test writes it: a whole one in HTTP's own terms, or step by step with nothing
//! added.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use sidecache::app::Clock;
use tokio_util::sync::CancellationToken;

use crate::support::http1;

/// One step of a response.
pub(super) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Until(CancellationToken),
    Reset,
    Close,
}

/// What the origin does about a request.
#[derive(Default)]
pub struct Response {
    steps: Vec<Step>,
    chunked: bool,
    last: Option<Whole>,
}

/// A response that is completed when it is known what it answers: HEAD gets no body.
struct Whole {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Response {
    /// A 200 with this body, its length and a date.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200, body)
    }

    /// The same with this status.
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status of HTTP");
        let whole = Whole { status, headers: HeaderMap::new(), body: body.into() };
        Self { last: Some(whole), ..Self::default() }
    }

    /// The same with one more header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Some(whole) = &mut self.last {
            let value = HeaderValue::from_str(value).expect("a value of HTTP");
            whole.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// Nothing at all: the connection is closed.
    pub fn hang_up() -> Self {
        Self::new().close()
    }

    /// These bytes, whatever they are; then the connection is closed.
    pub fn raw(bytes: &[u8]) -> Self {
        Self::new().send(bytes).close()
    }

    /// Nothing yet: what comes before the head.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pause.
    pub fn wait(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Wait(pause));
        self
    }

    /// A pause that the test ends.
    pub fn until(mut self, gate: &CancellationToken) -> Self {
        self.steps.push(Step::Until(gate.clone()));
        self
    }

    /// The head of a 200 whose length is told by its end. `fields` are whole lines.
    pub fn chunked(mut self, fields: &str) -> Self {
        self.chunked = true;
        self.send(format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"))
    }

    /// The head of a 200 whose length is told beforehand. `fields` are whole lines.
    pub fn sized(mut self, fields: &str, length: usize) -> Self {
        self.chunked = false;
        self.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n"))
    }

    /// A piece of the body. It goes out in one write with what stands before it.
    pub fn piece(self, bytes: &[u8]) -> Self {
        if !self.chunked {
            return self.send(bytes);
        }
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.send(framed)
    }

    /// The end of a body whose length was not told.
    pub fn end(self) -> Self {
        self.end_with("")
    }

    /// The same with these trailers, which are whole lines.
    pub fn end_with(self, trailers: &str) -> Self {
        if self.chunked { self.send(format!("0\r\n{trailers}\r\n")) } else { self }
    }

    /// A whole 200 with these fields and no others.
    pub fn whole(self, fields: &str, body: &[u8]) -> Self {
        self.sized(fields, body.len()).piece(body)
    }

    /// The origin dies: its connection is reset.
    pub fn reset(mut self) -> Self {
        self.steps.push(Step::Reset);
        self
    }

    /// The connection is closed.
    pub fn close(mut self) -> Self {
        self.steps.push(Step::Close);
        self
    }

    fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        match self.steps.last_mut() {
            Some(Step::Send(before)) => before.extend_from_slice(bytes.as_ref()),
            _ => self.steps.push(Step::Send(bytes.as_ref().to_vec())),
        }
        self
    }

    /// The steps that answer a request of this method, after which the connection may be closed.
    pub(super) fn steps(mut self, method: &Method, close: bool, clock: &Clock) -> Vec<Step> {
        let Some(whole) = self.last.take() else { return self.steps };
        let close = close || http1::names(&whole.headers, "connection", "close");
        let bytes = whole.bytes(method, clock);
        let mut steps = self.send(bytes).steps;
        steps.extend(close.then_some(Step::Close));
        steps
    }
}

impl Whole {
    fn bytes(self, method: &Method, clock: &Clock) -> Vec<u8> {
        let Self { status, mut headers, body } = self;
        // RFC 9110 8.6 and 6.6.1: what any origin says without being told.
        let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bare && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        if !headers.contains_key(DATE) {
            let now = http1::date(clock, 0);
            headers.insert(DATE, now.parse().expect("a date is a value of HTTP"));
        }
        let reason = status.canonical_reason().unwrap_or("Unknown");
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in &headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        if !bare && method != Method::HEAD {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}
