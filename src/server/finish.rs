//! Makes the response of the service ready for the connection that its request came on.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Response, Version};
use http_body::Body as _;
use tokio_util::sync::CancellationToken;

use super::bodies::{ResponseBody, StreamEnd};
use super::connection_state::BusyGuard;
use super::counters::ServerCounters;
use crate::clock::Clock;
use crate::semantics::body::Body;

/// What follows a response on its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseEnd {
    /// Nothing.
    pub(super) closes: bool,
    /// Bytes that are no HTTP.
    pub(super) opens_tunnel: bool,
}

/// What the server has for all responses.
#[derive(Clone, Copy)]
pub(super) struct ResponseContext<'a> {
    /// Each response is the last one of its connection.
    pub(super) leaving: &'a AtomicBool,
    /// Streams have to end.
    pub(super) streams: &'a CancellationToken,
    pub(super) clock: &'a Clock,
    pub(super) counters: &'a ServerCounters,
}

/// Makes a response ready for a client that speaks this version.
pub(super) fn finish(
    server: ResponseContext<'_>,
    mut response: Response<Body>,
    busy: BusyGuard,
    ResponseEnd { closes, opens_tunnel }: ResponseEnd,
    (version, is_head): (Version, bool),
) -> Response<ResponseBody> {
    let cut = &server.counters.cut_responses;
    // HTTP/2 has no such field (RFC 9113 section 8.2.2).
    if version >= Version::HTTP_2 {
        if closes {
            response.headers_mut().remove(CONNECTION);
        }
    } else if closes || !opens_tunnel && server.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if version < Version::HTTP_11 {
        end_without_length(&mut response);
    }
    let stream =
        StreamEnd::of(&response, (server.streams, server.clock, &server.counters.streams_ended));
    let (head, body) = response.into_parts();
    let body = ResponseBody::new(&head.headers, body_for(is_head, body), busy, cut);
    Response::from_parts(head, body.ending(stream))
}

/// A body without a length ends with its connection in HTTP/1.0. hyper would promise to keep it
/// open, and overwrite the header that says otherwise, unless the response is HTTP/1.0 as well.
fn end_without_length(response: &mut Response<Body>) {
    let has_length = response.body().size_hint().exact().is_some()
        || response.headers().contains_key(CONTENT_LENGTH);
    if !has_length || response.headers().contains_key(CONNECTION) {
        *response.version_mut() = Version::HTTP_10;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The body that goes out: none for a HEAD (RFC 9110 9.3.2), whatever the response is made with.
/// Over HTTP/2 hyper would send it. What comes from the origin is a stream, and empty.
fn body_for(is_head: bool, body: Body) -> Body {
    if is_head && body.buffered_len().is_some() { Body::empty() } else { body }
}
