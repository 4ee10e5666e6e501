//! Byte ranges of a complete stored 200 (RFC 9110 14): what a `Range` asks for, and the 206 or 416
//! that answers it.
//!
//! Owns the syntax of `Range` and `Content-Range`, the judgement of `If-Range`, and the form of
//! `multipart/byteranges`. A field that cannot be read, or that asks for more work than the answer
//! is worth, is ignored: the whole response is never wrong. Knows nothing of how the response was
//! found, and judges no other condition: those come first (RFC 9110 13.2.2).

use std::fmt::Write as _;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED, PRAGMA, RANGE,
};
use memchr::memmem;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use crate::semantics::conditional::strong_entity_tag;
use crate::semantics::freshness::parse_date;

/// Up to this many parts are sent just as they were asked for. More are sent only where that is
/// shorter than the whole response.
const MAX_FREE_PARTS: usize = 4;

/// What a part costs besides its content: delimiter and two header lines.
const PART_OVERHEAD: usize = 120;

/// Digests of the content as it is sent (RFC 9530 2, RFC 2616 14.15): those of the whole are not
/// those of a part.
const CONTENT_DIGESTS: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// Ranges of a body, in the order in which they are sent.
type Ranges = SmallVec<[Range<usize>; 4]>;

/// What a `Range` asks of a complete body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// The response itself: there is no `Range`, or it is to be ignored.
    Whole,
    /// Nothing that the body has.
    Unsatisfiable,
    /// One range, not empty.
    One(Range<usize>),
    /// Two ranges or more, none empty. No two touch, so together they are shorter than the body.
    Several(SmallVec<[Range<usize>; 4]>),
}

/// Judges `Range` and `If-Range` of a GET against a stored 200 whose other conditions have been
/// judged already.
///
/// `stored` is the response's head, `length` that of its body. A field with more than `most` ranges
/// is ignored.
#[must_use]
pub fn requested_range(
    request: &HeaderMap,
    stored: &HeaderMap,
    length: usize,
    most: usize,
) -> RequestedRange {
    // RFC 9110 14.2: `Range` is no list, so that two lines of it are not one field and are ignored.
    let Some(field) = only(request, &RANGE) else { return RequestedRange::Whole };
    // RFC 9110 13.2.2: a false If-Range ends the matter, whether the range could be satisfied or
    // not.
    if request.contains_key(IF_RANGE) && !is_unchanged(request, stored) {
        return RequestedRange::Whole;
    }
    let Some(ranges) = satisfiable(field.as_bytes(), length, most) else {
        return RequestedRange::Whole;
    };
    if ranges.is_empty() {
        return RequestedRange::Unsatisfiable;
    }
    if length == 0 {
        // RFC 9110 14.2: a suffix of nothing can be satisfied, but no `Content-Range` can say so.
        // The field may be ignored.
        return RequestedRange::Whole;
    }
    let ranges = coalesced(ranges);
    if let [only] = &ranges[..] {
        // RFC 9110 15.3.7.2: one range that remains needs no multipart.
        return RequestedRange::One(only.clone());
    }
    // Clients would take the coding for one of the multipart, though it is one of the parts.
    if stored.contains_key(CONTENT_ENCODING) || is_wasteful(&ranges, length) {
        RequestedRange::Whole
    } else {
        RequestedRange::Several(ranges)
    }
}

/// The one line of a field. A field that comes twice says nothing certain.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// Whether the parts that the client has are of this very response (RFC 9110 13.1.5). A malformed
/// condition is false.
fn is_unchanged(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = only(request, &IF_RANGE) else { return false };
    // RFC 9110 13.1.5: an entity-tag is known by a quote among its first three characters.
    if condition.as_bytes().iter().take(3).any(|byte| *byte == b'"') {
        let named = strong_entity_tag(condition.as_bytes());
        let current = only(stored, &ETAG).and_then(|etag| strong_entity_tag(etag.as_bytes()));
        return named.is_some() && named == current;
    }
    let stored_date = |name| only(stored, name).and_then(parse_date);
    match (parse_date(condition), stored_date(&LAST_MODIFIED), stored_date(&DATE)) {
        // RFC 9110 8.8.2.2: a date is a strong validator only where nothing can have changed later
        // in its own second.
        (Some(had), Some(modified), Some(generated)) => {
            had == modified && generated.seconds() > modified.seconds()
        }
        _ => false,
    }
}

/// One range-spec (RFC 9110 14.1.1).
enum RangeSpec {
    /// `first-last`, both counted from 0 and both included.
    Int { first: usize, last: usize },
    /// `-length`: so many bytes of the end.
    Suffix(usize),
}

impl RangeSpec {
    /// Reads a range-spec; `None` when it is not a valid one.
    fn read(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        match (&text[..dash], &text[dash + 1..]) {
            ([], length) => number(length).map(Self::Suffix),
            (first, []) => number(first).map(|first| Self::Int { first, last: usize::MAX }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Int { first, last })
            }
        }
    }

    /// What it means for a body of this length; `None` when it cannot be satisfied (RFC 9110
    /// 14.1.2).
    fn within(&self, length: usize) -> Option<Range<usize>> {
        match *self {
            Self::Int { first, last } => {
                (first < length).then(|| first..last.saturating_add(1).min(length))
            }
            Self::Suffix(suffix) => (suffix > 0).then(|| length.saturating_sub(suffix)..length),
        }
    }
}

/// A position: digits and nothing else. RFC 9110 14.1.1: any number of them; what is too large is
/// past every end.
fn number(digits: &[u8]) -> Option<usize> {
    let add = |sum: usize, byte: &u8| {
        byte.is_ascii_digit()
            .then(|| sum.saturating_mul(10).saturating_add(usize::from(byte - b'0')))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// The ranges of a field that can be satisfied, as they stand there. `None`: the field is to be
/// ignored.
fn satisfiable(field: &[u8], length: usize, most: usize) -> Option<Ranges> {
    let equals = field.iter().position(|byte| *byte == b'=')?;
    // RFC 9110 14.2: an unknown unit is ignored. 14.1: the names of units know no case.
    if !field[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut count = 0;
    let mut ranges = Ranges::new();
    // RFC 9110 5.6.1.2: empty members of a list are passed over.
    for member in field[equals + 1..]
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
    {
        count += 1;
        // SECURITY: what follows is not even read, so that a stranger's list of ranges costs a
        // known amount.
        if count > most {
            return None;
        }
        // RFC 9110 14.2: a set with an invalid range may be ignored, and is.
        ranges.extend(RangeSpec::read(member)?.within(length));
    }
    (count > 0).then_some(ranges)
}

/// The same bytes in ranges that neither overlap nor touch (RFC 9110 15.3.7.2), each where its
/// first member stood.
///
/// SECURITY: nothing is sent twice, however often it was asked for; so the parts are never more
/// than the body.
fn coalesced(ranges: Ranges) -> Ranges {
    let mut sorted: SmallVec<[(usize, Range<usize>); 4]> = ranges.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, range)| range.start);
    let mut merged: SmallVec<[(usize, Range<usize>); 4]> = SmallVec::new();
    for (place, range) in sorted {
        match merged.last_mut() {
            Some((first, last)) if range.start <= last.end => {
                last.end = last.end.max(range.end);
                *first = place.min(*first);
            }
            _ => merged.push((place, range)),
        }
    }
    merged.sort_unstable_by_key(|(place, _)| *place);
    merged.into_iter().map(|(_, range)| range).collect()
}

/// Whether these are many small parts that take more than the whole response would (RFC 9110 14.2,
/// 15.3.7.2).
fn is_wasteful(ranges: &Ranges, length: usize) -> bool {
    let content: usize = ranges.iter().map(Range::len).sum();
    ranges.len() > MAX_FREE_PARTS && content + ranges.len() * PART_OVERHEAD >= length
}

/// The status and the pieces of content that answer what is asked of `body`. `headers`, a copy of
/// the stored head, becomes the answer's.
///
/// The pieces are slices of the body, and between them the lines of the multipart. A range that is
/// not within the body is cut to it.
#[must_use]
pub fn respond(
    asked: &RequestedRange,
    headers: &mut HeaderMap,
    body: &Bytes,
) -> (StatusCode, Vec<Bytes>) {
    match asked {
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
            // RFC 9110 15.3.7.2: each part says its own range, the head of the whole none.
            headers.remove(CONTENT_RANGE);
            headers
                .insert(CONTENT_TYPE, value(format!("multipart/byteranges; boundary={boundary}")));
            partial(headers, pieces)
        }
    }
}

/// The head of a 206: all that the 200 says (RFC 9110 15.3.7), but for what is true of its content
/// alone.
fn partial(headers: &mut HeaderMap, pieces: Vec<Bytes>) -> (StatusCode, Vec<Bytes>) {
    for name in CONTENT_DIGESTS {
        headers.remove(name);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(pieces.iter().map(Bytes::len).sum::<usize>()));
    (StatusCode::PARTIAL_CONTENT, pieces)
}

/// The head of a 416 (RFC 9110 15.5.17): the length that there is, and what the stored head says of
/// other things than its content.
fn unsatisfiable_head(stored: &HeaderMap, length: usize) -> HeaderMap {
    let mut headers: HeaderMap = stored
        .iter()
        .filter(|(name, _)| !is_of_the_200(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.insert(CONTENT_RANGE, value(format!("bytes */{length}")));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    // SECURITY: the freshness of the 200 would let the next cache keep this answer for requests
    // without a range.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

/// Whether a field describes the stored 200 or says how long it may be kept, by `CDN-Cache-Control`
/// and its like too.
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
/// SECURITY: who writes a body may know the first choice in advance and put it there, to smuggle in
/// a part of its own or to have us look for another one time and again. The second choice depends
/// on the parts' every byte, so that they cannot hold it.
fn boundary(headers: &HeaderMap, ranges: &Ranges, body: &Bytes) -> String {
    let mut digest = Sha256::new();
    digest.update(headers.get(ETAG).map_or(&b""[..], HeaderValue::as_bytes));
    digest.update(body.len().to_be_bytes());
    for range in ranges {
        digest.update(range.start.to_be_bytes());
        digest.update(range.end.to_be_bytes());
    }
    let first = crate::units::hex(&digest.clone().finalize()[..16]);
    let finder = memmem::Finder::new(&first);
    if ranges.iter().all(|range| finder.find(&body[range.clone()]).is_none()) {
        return first;
    }
    for range in ranges {
        digest.update(&body[range.clone()]);
    }
    crate::units::hex(&digest.finalize()[..16])
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
        // The line break before a delimiter is a part of it. The first needs none, for nothing
        // stands before it.
        let open = if pieces.is_empty() { "--" } else { "\r\n--" };
        lines.extend_from_slice(open.as_bytes());
        lines.extend_from_slice(boundary.as_bytes());
        if let Some(content_type) = content_type {
            // SECURITY: a header value holds no line breaks, so that it cannot end the part's head.
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
    // Made of visible ASCII above; the fallback only keeps a mistake there from becoming a panic.
    HeaderValue::try_from(line).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The whole length that a 206 tells in `Content-Range: bytes 0-1/9`. `None` when it is not known,
/// or the field is not a valid one.
#[must_use]
pub fn complete_length(headers: &HeaderMap) -> Option<u64> {
    let (unit, rest) = only(headers, &CONTENT_RANGE)?.to_str().ok()?.split_once(' ')?;
    let (range, length) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (exact(first)?, exact(last)?, exact(length)?);
    // RFC 9110 14.4: a field that contradicts itself is invalid.
    (unit.eq_ignore_ascii_case("bytes") && first <= last && last < length).then_some(length)
}

/// A number of digits alone (`parse` would let a sign pass), and none that was cut to fit.
fn exact(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
