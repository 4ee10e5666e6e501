//! What the `Range` of a request asks of a complete stored 200 (RFC 9110 14).
//!
//! Owns the syntax of `Range` and `Content-Range`, and the evaluation of `If-Range`. A field that
//! cannot be parsed, or that asks for more work than it saves, is ignored: the whole response is
//! always correct. Evaluates no other condition: those come first (RFC 9110 13.2.2).

use std::ops::Range;

use http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use smallvec::SmallVec;

use crate::semantics::conditional::strong_entity_tag;
use crate::semantics::freshness::parse_date;

/// Up to this many parts are sent just as they were asked for. More are sent only where that is
/// shorter than the whole response.
pub(super) const MAX_FREE_PARTS: usize = 4;

/// What a part costs besides its content: delimiter and two header lines.
pub(super) const PART_OVERHEAD: usize = 120;

/// Ranges of a body, in the order in which they are sent.
pub(super) type Ranges = SmallVec<[Range<usize>; 4]>;

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
