//! How a later response changes a stored head: the conditions that ask for a 304, and the update by
//! a 304 or by the 200 to a HEAD (RFC 9111 3.2, 4.3).
//!
//! Owns the comparison of validators between two responses. A doubtful validator is not sent, and a
//! doubtful 304 revalidates nothing. Knows nothing of bodies and times: the updated head goes
//! through `storability` again.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TE, TRAILER, TRANSFER_ENCODING, VARY, VIA,
};

use crate::clock::Wall;
use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE, is_own};
use crate::semantics::conditional::whole_entity_tag;
use crate::semantics::forward::strip_hop_by_hop;
use crate::semantics::freshness::parse_date;

/// The fields that ask for less than the whole response. A revalidation is the cache's own request,
/// for all its clients.
const CONDITIONS: [HeaderName; 6] =
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

/// The fields that an update never changes, beside the fields of one connection (RFC 9111 3.1,
/// 3.2).
///
/// `Content-Length`, `Content-Encoding`, `Content-Range` and the digests describe the stored bytes,
/// which an update does not bring; `Trailer` and `Transfer-Encoding` describe the message that
/// brought them. `X-Cache` belongs to this cache, and `Proxy-Authentication-Info` to one hop.
const NEVER_UPDATED: [HeaderName; 10] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    TRANSFER_ENCODING,
    TRAILER,
    TE,
    X_CACHE,
    HeaderName::from_static("proxy-authentication-info"),
];

/// The last second that an HTTP-date can express: 9999-12-31 23:59:59.
const LAST_DATE: u64 = 253_402_300_799;

/// Makes a request conditional on a stored head (RFC 9111 4.3.1). Returns whether a validator was
/// added; without one, the origin sends a whole response.
///
/// The request's own conditions and its `Range` are removed in any case: the caller evaluates them
/// against the response it gets.
pub fn add_conditions(stored: &HeaderMap, request: &mut HeaderMap) -> bool {
    for name in CONDITIONS {
        request.remove(name);
    }
    let etag = only(stored, &ETAG).filter(|etag| whole_entity_tag(etag.as_bytes()).is_some());
    if let Some(etag) = etag {
        request.insert(IF_NONE_MATCH, etag.clone());
    }
    let modified = strong_last_modified(stored);
    if let Some((modified, _)) = modified {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    etag.is_some() || modified.is_some()
}

/// Whether the origin can revalidate a response: whether [`add_conditions`] finds a validator in
/// it.
#[must_use]
pub fn has_validator(stored: &HeaderMap) -> bool {
    only(stored, &ETAG).is_some_and(|etag| whole_entity_tag(etag.as_bytes()).is_some())
        || strong_last_modified(stored).is_some()
}

/// Whether a 304 applies to this stored response and may update it (RFC 9111 4.3.4). If not, the
/// 304 must not be used, and the caller fetches the response without conditions.
///
/// The 304 responds to [`add_conditions`], so only one stored response can be meant:
///
/// - If both have an entity-tag, it decides. A strong one must equal the stored one and that one
///   must be strong too. A weak one must be the same except for the strength (RFC 9110 8.8.3.2).
///   `Last-Modified` does not matter then: an application may touch a resource without changing it.
/// - If only the 304 has an entity-tag, it does not apply, unless both have the same strong
///   `Last-Modified`.
/// - Without an entity-tag, `Last-Modified` must equal the stored one.
/// - Without any validator, the 304 means that the stored response, which the request named, has
///   not changed. (RFC 9110 15.4.5 lets `Last-Modified` be omitted, and many applications omit
///   `ETag` too.)
#[must_use]
pub fn validates(stored: &HeaderMap, update: &HeaderMap) -> bool {
    match (EntityTag::from_headers(update), EntityTag::from_headers(stored)) {
        // The tags match weakly, and the update does not claim more than the stored tag: bytes that
        // were called equivalent must not become identical.
        (Some(new), Some(old)) => new.opaque == old.opaque && (new.weak || !old.weak),
        (Some(_), None) => match (strong_last_modified(stored), date(update, &LAST_MODIFIED)) {
            (Some((_, old)), Some(new)) => old == new,
            _ => false,
        },
        // A malformed entity-tag is no validator, but one that was not there before means that
        // something has changed.
        (None, _) if update.contains_key(ETAG) && !same_lines(stored, update, &ETAG) => false,
        (None, _) => !update.contains_key(LAST_MODIFIED) || same_last_modified(stored, update),
    }
}

/// The stored head after an update by a 304 or by the 200 to a HEAD (RFC 9111 3.2). The caller has
/// checked with [`validates`] or [`head_agrees`] that the update applies.
///
/// Each field of the update replaces all stored lines of that name, except for fields that describe
/// the stored bytes and fields of one connection. `Date` comes from the update or, if it has no
/// valid one, is `now` (RFC 9110 6.6.1); `Age` comes from the update only; the placeholders for a
/// hit's own fields are removed.
///
/// SECURITY: the update may carry `no-store`, `private`, `Vary` or `Set-Cookie`, and so will the
/// result. It must pass `storability` like a response that has just arrived, before it is stored or
/// shared.
#[must_use]
pub fn merge(stored: &HeaderMap, update: &HeaderMap, now: Wall) -> HeaderMap {
    let mut fields = update.clone();
    strip_hop_by_hop(&mut fields);
    for name in NEVER_UPDATED {
        fields.remove(name);
    }
    ensure_date(&mut fields, now);
    keep_vary(stored, &mut fields);
    let mut merged = HeaderMap::with_capacity(stored.len() + fields.len());
    let retained =
        stored.iter().filter(|(name, value)| is_own(name, value) && !fields.contains_key(*name));
    for (name, value) in retained.chain(&fields) {
        merged.append(name.clone(), value.clone());
    }
    merged
}

/// Adds the stored `Vary` to that of an update: a 304 that names fewer headers does not say that
/// the stored bytes depend on fewer.
fn keep_vary(stored: &HeaderMap, update: &mut HeaderMap) {
    if !update.contains_key(VARY) {
        return;
    }
    let lines: Vec<HeaderValue> = update.get_all(VARY).iter().cloned().collect();
    update.remove(VARY);
    for line in stored.get_all(VARY) {
        update.append(VARY, line.clone());
    }
    for line in lines {
        if !update.get_all(VARY).iter().any(|known| *known == line) {
            update.append(VARY, line);
        }
    }
}

/// Dates a response that has no valid `Date`, as a recipient with a clock must before it stores or
/// forwards it (RFC 9110 6.6.1). Without a date, a stored head could never be revalidated by its
/// `Last-Modified`.
pub fn ensure_date(response: &mut HeaderMap, received: Wall) {
    if !response.get_all(DATE).iter().any(|date| parse_date(date).is_some())
        && let Some(date) = format_date(received)
    {
        response.insert(DATE, date);
    }
}

/// What the 200 to a HEAD says about a stored GET response (RFC 9111 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// The content is the same: [`merge`] may update the stored response with it.
    Same,
    /// The content differs: the stored response is out of date.
    Other,
    /// The 200 carries no validator to compare. The RFC would let it update the stored response;
    /// but then, with an origin that sends no validators, occasional HEAD requests would keep an
    /// old body fresh forever. So it neither updates nor invalidates.
    Unknown,
}

/// Compares the 200 to a HEAD with a stored GET response (RFC 9111 4.3.5): each validator that it
/// carries, and its `Content-Length` if there is one, must equal the stored one.
#[must_use]
pub fn head_agrees(stored: &HeaderMap, head: &HeaderMap) -> HeadVerdict {
    let etag = head.contains_key(ETAG).then(|| same_lines(stored, head, &ETAG));
    let modified = head.contains_key(LAST_MODIFIED).then(|| same_last_modified(stored, head));
    let length = head
        .contains_key(CONTENT_LENGTH)
        .then(|| length(head).is_some_and(|new| length(stored) == Some(new)));
    if [etag, modified, length].contains(&Some(false)) {
        HeadVerdict::Other
    } else if etag.or(modified).is_some() {
        HeadVerdict::Same
    } else {
        HeadVerdict::Unknown
    }
}

/// A response's entity-tag (RFC 9110 8.8.3).
struct EntityTag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    fn from_headers(headers: &'a HeaderMap) -> Option<Self> {
        let value = only(headers, &ETAG)?.as_bytes();
        whole_entity_tag(value)
            .map(|opaque| Self { weak: value.trim_ascii().starts_with(b"W/"), opaque })
    }
}

/// The value of a field that has exactly one line. Several lines are ambiguous.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Wall> {
    only(headers, name).and_then(parse_date)
}

/// A `Last-Modified` that distinguishes this state from every later one (RFC 9110 8.8.2.2): at
/// least one second earlier than `Date`. Without that second, the response may predate a write
/// within the same second, and that write would go unnoticed.
fn strong_last_modified(headers: &HeaderMap) -> Option<(&HeaderValue, Wall)> {
    let value = only(headers, &LAST_MODIFIED)?;
    let modified = parse_date(value)?;
    (modified.seconds() < date(headers, &DATE)?.seconds()).then_some((value, modified))
}

/// Whether both give the same time, in any date format, or the same text if it is not a date.
fn same_last_modified(one: &HeaderMap, other: &HeaderMap) -> bool {
    match (date(one, &LAST_MODIFIED), date(other, &LAST_MODIFIED)) {
        (Some(one), Some(other)) => one == other,
        _ => same_lines(one, other, &LAST_MODIFIED),
    }
}

fn same_lines(one: &HeaderMap, other: &HeaderMap, name: &HeaderName) -> bool {
    one.get_all(name) == other.get_all(name)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    only(headers, &CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn format_date(at: Wall) -> Option<HeaderValue> {
    let time = UNIX_EPOCH + Duration::from_secs(at.seconds().min(LAST_DATE));
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
}

/// Whether two heads are the same except for fields that change with every response.
#[must_use]
pub fn is_same_head(one: &HeaderMap, two: &HeaderMap) -> bool {
    let is_transient =
        |name: &HeaderName| [AGE, DATE, EXPIRES, VIA, X_CACHE, CACHE_STATUS].contains(name);
    let count = |headers: &HeaderMap| headers.keys().filter(|name| !is_transient(name)).count();
    count(one) == count(two)
        && one
            .keys()
            .filter(|name| !is_transient(name))
            .all(|name| one.get_all(name).iter().eq(two.get_all(name)))
}

#[cfg(test)]
mod tests;
