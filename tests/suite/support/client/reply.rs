//! A response as a client got it.

use bytes::Bytes;
use hyper::header::HeaderMap;
use tokio::time::Instant;

use crate::support::http1;

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status; 0 when none came.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or what came of it.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// When its first byte came, where that was looked at.
    pub first_byte: Option<Instant>,
    /// When its end came.
    pub end: Instant,
    complete: bool,
}

impl Reply {
    /// A whole response.
    pub fn new(status: u16, headers: HeaderMap, body: Bytes) -> Self {
        let (trailers, first_byte, end) = (None, None, Instant::now());
        Self { status, headers, body, trailers, first_byte, end, complete: true }
    }

    /// All the bytes that came on a connection, which end where the response does.
    pub(super) fn read(bytes: &[u8], first_byte: Option<Instant>) -> Self {
        let length = http1::head_length(bytes).unwrap_or(bytes.len());
        let (_, headers) = http1::head(&bytes[..length]);
        let rest = &bytes[length..];
        let (body, complete) = if http1::names(&headers, "transfer-encoding", "chunked") {
            match http1::dechunked(rest) {
                Ok((body, used)) => (body, used == rest.len()),
                Err(part) => (part, false),
            }
        } else {
            // A message without a length has no end that could be told from a break.
            let told = headers.get("content-length").and_then(|value| value.to_str().ok());
            (rest.to_vec(), told.is_some_and(|told| told.parse() == Ok(rest.len())))
        };
        let status = http1::status(bytes);
        Self { first_byte, complete, ..Self::new(status, headers, body.into()) }
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What `X-Cache` says.
    pub fn cache(&self) -> &str {
        self.header("x-cache")
    }

    /// What `Cache-Status` says.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    /// Whether `X-Cache` and the body are these.
    pub fn is(&self, cache: &str, text: &str) -> bool {
        self.cache() == cache && self.text() == text
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not UTF-8)")
    }

    /// The body, if it is whole; otherwise what came of it.
    pub fn whole(&self) -> Result<Vec<u8>, Vec<u8>> {
        if self.complete { Ok(self.body.to_vec()) } else { Err(self.body.to_vec()) }
    }
}
