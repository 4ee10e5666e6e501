//! The 206 or 416 that answers a `Range` from a complete stored 200 (RFC 9110 14, 15.3.7).
//!
//! Owns the heads of both and the form of `multipart/byteranges`. Knows nothing of how the response
//! was found.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, PRAGMA,
};
use memchr::memmem;
use sha2::{Digest as _, Sha256};

use crate::semantics::range::request::{PART_OVERHEAD, Ranges, RequestedRange};
use crate::units::hex;

/// Digests of the content as it is sent (RFC 9530 2, RFC 2616 14.15): those of the whole do not
/// apply to a part.
const CONTENT_DIGESTS: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// The status and the content of the response to `requested`. `headers`, a copy of the stored head,
/// becomes the head of that response.
///
/// The content is slices of the body and, between them, the lines of the multipart. A range beyond
/// the body is cut to it.
#[must_use]
pub fn respond(
    requested: &RequestedRange,
    headers: &mut HeaderMap,
    body: &Bytes,
) -> (StatusCode, Vec<Bytes>) {
    match requested {
        RequestedRange::Whole => (StatusCode::OK, vec![body.clone()]),
        RequestedRange::Unsatisfiable => {
            *headers = unsatisfiable_head(headers, body.len());
            (StatusCode::RANGE_NOT_SATISFIABLE, Vec::new())
        }
        RequestedRange::One(range) => {
            let range = clip(range, body);
            headers.insert(CONTENT_RANGE, value(content_range(&range, body.len())));
            partial(headers, vec![body.slice(range)])
        }
        RequestedRange::Several(ranges) => {
            let ranges: Ranges = ranges.iter().map(|range| clip(range, body)).collect();
            let boundary = boundary(headers, &ranges, body);
            let pieces = multipart(&boundary, headers.get(CONTENT_TYPE), &ranges, body);
            // RFC 9110 15.3.7.2: each part has its own Content-Range, and the head has none.
            headers.remove(CONTENT_RANGE);
            headers
                .insert(CONTENT_TYPE, value(format!("multipart/byteranges; boundary={boundary}")));
            partial(headers, pieces)
        }
    }
}

/// The head of a 206: all fields of the 200 (RFC 9110 15.3.7), except for those that describe its
/// content only.
fn partial(headers: &mut HeaderMap, pieces: Vec<Bytes>) -> (StatusCode, Vec<Bytes>) {
    for name in CONTENT_DIGESTS {
        headers.remove(name);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(pieces.iter().map(Bytes::len).sum::<usize>()));
    (StatusCode::PARTIAL_CONTENT, pieces)
}

/// The head of a 416 (RFC 9110 15.5.17): the length of the body, and the stored fields that do not
/// describe its content.
fn unsatisfiable_head(stored: &HeaderMap, length: usize) -> HeaderMap {
    let mut headers: HeaderMap = stored
        .iter()
        .filter(|(name, _)| !is_of_the_200(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.insert(CONTENT_RANGE, value(format!("bytes */{length}")));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    // SECURITY: with the freshness of the 200, the next cache could serve this response to requests
    // without a range.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

/// Whether a field describes the stored 200 or its freshness, including `CDN-Cache-Control` and
/// similar fields.
fn is_of_the_200(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("content-")
        || text.ends_with("cache-control")
        || ["digest", "repr-digest", "surrogate-control", "x-accel-expires"].contains(&text)
        || [ETAG, EXPIRES, LAST_MODIFIED, PRAGMA].contains(name)
}

fn clip(range: &Range<usize>, body: &Bytes) -> Range<usize> {
    let end = range.end.min(body.len());
    range.start.min(end)..end
}

fn content_range(range: &Range<usize>, length: usize) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// A delimiter that does not occur in the parts (RFC 2046 5.1.1).
///
/// SECURITY: the author of a body can predict the first choice and put it there, to smuggle in a
/// part or to make this function search again and again. The second choice depends on every byte of
/// the parts, so they cannot contain it.
fn boundary(headers: &HeaderMap, ranges: &Ranges, body: &Bytes) -> String {
    let mut digest = Sha256::new();
    digest.update(headers.get(ETAG).map_or(&b""[..], HeaderValue::as_bytes));
    digest.update(body.len().to_be_bytes());
    for range in ranges {
        digest.update(range.start.to_be_bytes());
        digest.update(range.end.to_be_bytes());
    }
    let first = hex(&digest.clone().finalize()[..16]);
    let finder = memmem::Finder::new(&first);
    if ranges.iter().all(|range| finder.find(&body[range.clone()]).is_none()) {
        return first;
    }
    for range in ranges {
        digest.update(&body[range.clone()]);
    }
    hex(&digest.finalize()[..16])
}

/// The parts and the lines between them (RFC 9110 14.6, RFC 2046 5.1.1).
fn multipart(
    boundary: &str,
    content_type: Option<&HeaderValue>,
    ranges: &Ranges,
    body: &Bytes,
) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    let mut lines = BytesMut::with_capacity((ranges.len() + 1) * PART_OVERHEAD);
    for range in ranges {
        // The line break before a delimiter belongs to it. The first delimiter has none, since
        // nothing precedes it.
        let open = if pieces.is_empty() { "--" } else { "\r\n--" };
        lines.extend_from_slice(open.as_bytes());
        lines.extend_from_slice(boundary.as_bytes());
        if let Some(content_type) = content_type {
            // SECURITY: a header value contains no line breaks, so it cannot end the part's head.
            lines.extend_from_slice(b"\r\nContent-Type: ");
            lines.extend_from_slice(content_type.as_bytes());
        }
        // Writing to memory does not fail.
        let _ = write!(lines, "\r\nContent-Range: {}\r\n\r\n", content_range(range, body.len()));
        pieces.push(lines.split().freeze());
        pieces.push(body.slice(range.clone()));
    }
    let _ = write!(lines, "\r\n--{boundary}--\r\n");
    pieces.push(lines.freeze());
    pieces
}

fn value(line: String) -> HeaderValue {
    // Made of visible ASCII above; the fallback only turns a bug there into an empty value, not a
    // panic.
    HeaderValue::try_from(line).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
