//! What a later answer makes of a stored head: the conditions that ask for a 304, and what a 304,
//! or a HEAD's 200, changes (RFC 9111 3.2, 4.3).
//!
//! Owns the comparison of validators between two responses. A doubtful validator is not sent, and a
//! doubtful answer confirms nothing. Knows nothing of bodies and times: what it makes is a head to
//! be judged anew by `admit`.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TE, TRAILER, TRANSFER_ENCODING, VIA,
};

use crate::clock::Wall;
use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE, is_own};
use crate::semantics::conditional::whole_entity_tag;
use crate::semantics::forward::strip_hop_by_hop;
use crate::semantics::freshness::parse_date;

/// What a client asks for beyond the whole response. A revalidation is the cache's own request, for
/// all its clients.
const CONDITIONS: [HeaderName; 6] =
    [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

/// What stays as it is stored, whatever an update says, beside the fields of one connection (RFC
/// 9111 3.1, 3.2).
///
/// `Content-Length`, `Content-Encoding`, `Content-Range` and the digests describe the stored bytes,
/// which an update does not bring; `Trailer` and `Transfer-Encoding` the message they came in.
/// `X-Cache` is this cache's own word, and `Proxy-Authentication-Info` is one hop's.
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

/// The last second that an HTTP-date can say: 9999-12-31 23:59:59.
const LAST_DATE: u64 = 253_402_300_799;

/// Makes a request conditional on a stored head (RFC 9111 4.3.1). Says whether a validator went in;
/// without one the answer will be a whole response.
///
/// The request's own conditions and its `Range` are removed in any case: they are for the caller to
/// judge, by the response that it ends up with.
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

/// Whether a response can be confirmed by the app: whether [`add_conditions`] finds a validator in
/// it.
#[must_use]
pub fn has_validator(stored: &HeaderMap) -> bool {
    only(stored, &ETAG).is_some_and(|etag| whole_entity_tag(etag.as_bytes()).is_some())
        || strong_last_modified(stored).is_some()
}

/// Whether a 304 speaks of this stored response, and may update it (RFC 9111 4.3.4). If not, it
/// must not be used, and the response is to be fetched without conditions.
///
/// The 304 answers [`add_conditions`], so that there is one response it can mean:
///
/// - Its entity-tag decides where both have one. A strong one must be the stored one, strength too.
///   A weak one must be the same but for the strength (RFC 9110 8.8.3.2). What `Last-Modified` says
///   besides does not matter then: an app may touch what it does not change.
/// - An entity-tag that the stored response lacks is a strange one, unless a strong `Last-Modified`
///   is the same on both sides.
/// - Without an entity-tag, a `Last-Modified` must be the stored one.
/// - Without any validator it says "none of what you named has changed", and the stored one was
///   named. (RFC 9110 15.4.5 lets `Last-Modified` be left out, and many an app leaves out the
///   `ETag` too.)
#[must_use]
pub fn validates(stored: &HeaderMap, update: &HeaderMap) -> bool {
    match (EntityTag::from_headers(update), EntityTag::from_headers(stored)) {
        // The tags are the same, weakly; and the update's claims no more than the stored one can
        // keep: bytes that were called equivalent must not come to be called identical.
        (Some(new), Some(old)) => new.opaque == old.opaque && (new.weak || !old.weak),
        (Some(_), None) => match (strong_last_modified(stored), date(update, &LAST_MODIFIED)) {
            (Some((_, old)), Some(new)) => old == new,
            _ => false,
        },
        // A malformed entity-tag is no validator; but one that was not there before says that
        // something is different.
        (None, _) if update.contains_key(ETAG) && !same_lines(stored, update, &ETAG) => false,
        (None, _) => !update.contains_key(LAST_MODIFIED) || same_last_modified(stored, update),
    }
}

/// The stored head as an update of it, a 304 or a HEAD's 200, leaves it (RFC 9111 3.2). For an
/// update that [`confirms`] or [`head_agrees`] has found to be of this response.
///
/// Each field of the update takes the place of all stored lines of that name, except what describes
/// the stored bytes and what belongs to a connection. `Date` is the update's or, where it has no
/// valid one, `now` (RFC 9110 6.6.1); `Age` is the update's alone; the places that a ready head has
/// for hits are gone.
///
/// SECURITY: the update may say `no-store`, `private`, `Vary` or `Set-Cookie`, and then so does the
/// result. It must pass `admit` like a response that has just arrived, before it is stored or
/// shared.
#[must_use]
pub fn merge(stored: &HeaderMap, update: &HeaderMap, now: Wall) -> HeaderMap {
    let mut news = update.clone();
    strip_hop_by_hop(&mut news);
    for name in NEVER_UPDATED {
        news.remove(name);
    }
    ensure_date(&mut news, now);
    let mut merged = HeaderMap::with_capacity(stored.len() + news.len());
    let kept =
        stored.iter().filter(|(name, value)| is_own(name, value) && !news.contains_key(*name));
    for (name, value) in kept.chain(&news) {
        merged.append(name.clone(), value.clone());
    }
    merged
}

/// Dates a response that has no valid `Date`, as a recipient with a clock must before it stores or
/// forwards it (RFC 9110 6.6.1). A stored head without it could never be revalidated by its
/// `Last-Modified`.
pub fn ensure_date(response: &mut HeaderMap, received: Wall) {
    if !response.get_all(DATE).iter().any(|date| parse_date(date).is_some())
        && let Some(date) = format_date(received)
    {
        response.insert(DATE, date);
    }
}

/// What a HEAD's 200 says of a stored GET response (RFC 9111 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// It is of the same content: [`merge`] may update the stored response with it.
    Same,
    /// It is of other content: the stored response is out of date.
    Other,
    /// It carries no validator to tell by. The RFC would let it update the stored response; but
    /// then an app without validators that is asked by HEAD now and then would keep an old body
    /// fresh for ever. So it does neither.
    Unknown,
}

/// Compares a HEAD's 200 with a stored GET response (RFC 9111 4.3.5): each validator that it
/// carries, and its `Content-Length` if there is one, must be the stored one.
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

/// A field of one line. With more of them nobody can tell which one is meant.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Wall> {
    only(headers, name).and_then(parse_date)
}

/// A `Last-Modified` that tells one state from every later one (RFC 9110 8.8.2.2): at least one
/// second earlier than `Date`. Without that second the response may have been made between two
/// writes, and the later one would go unseen.
fn strong_last_modified(headers: &HeaderMap) -> Option<(&HeaderValue, Wall)> {
    let value = only(headers, &LAST_MODIFIED)?;
    let modified = parse_date(value)?;
    (modified.seconds() < date(headers, &DATE)?.seconds()).then_some((value, modified))
}

/// Whether both say the same moment, whatever the form; or the same text, if it is no date.
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

/// Whether two heads differ in nothing but the moment they were sent.
#[must_use]
pub fn is_same_head(one: &HeaderMap, two: &HeaderMap) -> bool {
    let of_the_moment =
        |name: &HeaderName| [AGE, DATE, EXPIRES, VIA, X_CACHE, CACHE_STATUS].contains(name);
    let said = |headers: &HeaderMap| headers.keys().filter(|name| !of_the_moment(name)).count();
    said(one) == said(two)
        && one
            .keys()
            .filter(|name| !of_the_moment(name))
            .all(|name| one.get_all(name).iter().eq(two.get_all(name)))
}

#[cfg(test)]
mod tests;
