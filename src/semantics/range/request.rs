//! What the `Range` of a request selects from a complete stored 200 (RFC 9110 14).
//!
//! Owns the syntax of `Range` and `Content-Range`, and the evaluation of `If-Range`. A field that
//! cannot be parsed, or whose response would cost more than the whole one, is ignored: the whole
//! response is always correct. Evaluates no other condition: those come first (RFC 9110 13.2.2).

use std::ops::Range;

use http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use smallvec::SmallVec;

use crate::semantics::conditional::strong_entity_tag;
use crate::semantics::freshness::parse_date;

/// Up to this many parts are always sent as requested. More are sent only if that is shorter than
/// the whole response.
pub(super) const MAX_FREE_PARTS: usize = 4;

/// The overhead of a part besides its content: delimiter and two header lines.
pub(super) const PART_OVERHEAD: usize = 120;

/// Ranges of a body, in the order in which they are sent.
pub(super) type Ranges = SmallVec<[Range<usize>; 4]>;

/// Which part of a complete body a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// The whole response: there is no `Range`, or it is ignored.
    Whole,
    /// No range that the body can satisfy.
    Unsatisfiable,
    /// One range, not empty.
    One(Range<usize>),
    /// Two or more ranges, none empty. No two touch, so together they are shorter than the body.
    Several(SmallVec<[Range<usize>; 4]>),
}

/// Evaluates `Range` and `If-Range` of a GET against a stored 200. The caller has evaluated all
/// other conditions.
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
    // RFC 9110 14.2: `Range` is not a list field, so two lines are invalid and ignored.
    let Some(field) = only(request, &RANGE) else { return RequestedRange::Whole };
    // RFC 9110 13.2.2: if If-Range is false, Range is ignored, whether it could be satisfied or
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
        // RFC 9110 14.2: a suffix of an empty body can be satisfied, but no `Content-Range` can
        // express it. The field may be ignored.
        return RequestedRange::Whole;
    }
    let ranges = coalesced(ranges);
    if let [only] = &ranges[..] {
        // RFC 9110 15.3.7.2: a single remaining range needs no multipart.
        return RequestedRange::One(only.clone());
    }
    // Clients would apply the content coding to the multipart, although it applies to its parts.
    if stored.contains_key(CONTENT_ENCODING) || is_wasteful(&ranges, length) {
        RequestedRange::Whole
    } else {
        RequestedRange::Several(ranges)
    }
}

/// The value of a field that has exactly one line. A repeated field is ambiguous.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// Whether the parts that the client already has belong to this response (RFC 9110 13.1.5). A
/// malformed condition is false.
fn is_unchanged(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = only(request, &IF_RANGE) else { return false };
    // RFC 9110 13.1.5: an entity-tag has a quote among its first three characters.
    if condition.as_bytes().iter().take(3).any(|byte| *byte == b'"') {
        let client_tag = strong_entity_tag(condition.as_bytes());
        let stored_tag = only(stored, &ETAG).and_then(|etag| strong_entity_tag(etag.as_bytes()));
        return client_tag.is_some() && client_tag == stored_tag;
    }
    let stored_date = |name| only(stored, name).and_then(parse_date);
    match (parse_date(condition), stored_date(&LAST_MODIFIED), stored_date(&DATE)) {
        // RFC 9110 8.8.2.2: a date is a strong validator only if nothing can have changed later
        // within that second.
        (Some(client_date), Some(modified), Some(generated)) => {
            client_date == modified && generated.seconds() > modified.seconds()
        }
        _ => false,
    }
}

/// One range-spec (RFC 9110 14.1.1).
enum RangeSpec {
    /// `first-last`, both counted from 0 and inclusive.
    Int { first: usize, last: usize },
    /// `-length`: the last `length` bytes.
    Suffix(usize),
}

impl RangeSpec {
    /// Parses a range-spec; `None` if it is invalid.
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

    /// The range that it selects from a body of this length; `None` if it cannot be satisfied (RFC
    /// 9110 14.1.2).
    fn within(&self, length: usize) -> Option<Range<usize>> {
        match *self {
            Self::Int { first, last } => {
                (first < length).then(|| first..last.saturating_add(1).min(length))
            }
            Self::Suffix(suffix) => (suffix > 0).then(|| length.saturating_sub(suffix)..length),
        }
    }
}

/// Parses a position: digits only. RFC 9110 14.1.1 allows any number of them; a value that is too
/// large is past every end.
fn number(digits: &[u8]) -> Option<usize> {
    let add = |sum: usize, byte: &u8| {
        byte.is_ascii_digit()
            .then(|| sum.saturating_mul(10).saturating_add(usize::from(byte - b'0')))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// The satisfiable ranges of a field, in their order. `None` if the field is to be ignored.
fn satisfiable(field: &[u8], length: usize, most: usize) -> Option<Ranges> {
    let equals = field.iter().position(|byte| *byte == b'=')?;
    // RFC 9110 14.2: an unknown unit is ignored. 14.1: unit names are case-insensitive.
    if !field[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut count = 0;
    let mut ranges = Ranges::new();
    // RFC 9110 5.6.1.2: empty members of a list are ignored.
    for member in field[equals + 1..]
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
    {
        count += 1;
        // SECURITY: parsing stops here, so that a client's list of ranges has a bounded cost.
        if count > most {
            return None;
        }
        // RFC 9110 14.2: a set with an invalid range may be ignored, and it is.
        ranges.extend(RangeSpec::read(member)?.within(length));
    }
    (count > 0).then_some(ranges)
}

/// The same bytes in ranges that neither overlap nor touch (RFC 9110 15.3.7.2), each at the
/// position of its first member.
///
/// SECURITY: no byte is sent twice, however often it is requested, so the parts never exceed the
/// body.
fn coalesced(ranges: Ranges) -> Ranges {
    let mut sorted: SmallVec<[(usize, Range<usize>); 4]> = ranges.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, range)| range.start);
    let mut merged: SmallVec<[(usize, Range<usize>); 4]> = SmallVec::new();
    for (position, range) in sorted {
        match merged.last_mut() {
            Some((first, last)) if range.start <= last.end => {
                last.end = last.end.max(range.end);
                *first = position.min(*first);
            }
            _ => merged.push((position, range)),
        }
    }
    merged.sort_unstable_by_key(|(position, _)| *position);
    merged.into_iter().map(|(_, range)| range).collect()
}

/// Whether there are many small parts that take more bytes than the whole response (RFC 9110 14.2,
/// 15.3.7.2).
fn is_wasteful(ranges: &Ranges, length: usize) -> bool {
    let content: usize = ranges.iter().map(Range::len).sum();
    ranges.len() > MAX_FREE_PARTS && content + ranges.len() * PART_OVERHEAD >= length
}

/// The complete length in the `Content-Range: bytes 0-1/9` of a 206. `None` if it is unknown, or if
/// the field is invalid.
#[must_use]
pub fn complete_length(headers: &HeaderMap) -> Option<u64> {
    let (unit, rest) = only(headers, &CONTENT_RANGE)?.to_str().ok()?.split_once(' ')?;
    let (range, length) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (exact(first)?, exact(last)?, exact(length)?);
    // RFC 9110 14.4: a field that contradicts itself is invalid.
    (unit.eq_ignore_ascii_case("bytes") && first <= last && last < length).then_some(length)
}

/// Parses digits only (`parse` would accept a sign); `None` if the number does not fit.
fn exact(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
