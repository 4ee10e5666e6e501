//! A stored response: its head, body and times, and the stamp that proves it current.
//!
//! Owns the shape; [`packed`] owns the bytes in Redis. Knows nothing of where entries are kept.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AGE, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

use crate::clock::Wall;
use crate::policy::tag::Tag;
use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE, is_own};
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;

pub mod packed;

/// A value that stands for one state of a tag, or of the whole cache. New at every purge, never
/// seen before.
///
/// It has two halves. A hard purge makes both anew, by chance. A soft purge leaves the first; the
/// second is then the time, 44 bits of milliseconds of Redis's clock, and 20 bits of the purge's
/// step. So two states with one first half have soft purges alone between them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A value that no other state has.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// When the last of the soft purges was that alone made this state of an earlier one, in
    /// milliseconds of Redis's clock. Nothing where the two are the same, or anything else came
    /// between.
    #[must_use]
    pub fn soft_purged_from(self, earlier: Self) -> Option<u64> {
        let (now, then) = (u128::from_be_bytes(self.0), u128::from_be_bytes(earlier.0));
        let soft = now & u128::from(u64::MAX);
        // Of 44 bits, so the conversion never fails.
        if now != then && now >> 64 == then >> 64 { u64::try_from(soft >> 20).ok() } else { None }
    }

    /// Reads 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        if digits.len() != 32 {
            return None;
        }
        let mut nonce = [0; 16];
        for (byte, pair) in nonce.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(nonce))
    }

    /// Writes 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        crate::units::hex(&self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", crate::units::short_hex(&self.0))
    }
}

/// What the records in Redis said when an entry was stored. It is current while they still say the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The generation of the whole cache.
    pub generation: Nonce,
    /// Each tag with its nonce.
    pub tags: Box<[(Tag, Nonce)]>,
}

/// A stored response.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The canonical key that it answers. Compared on every hit.
    pub key: Bytes,
    /// Its status.
    pub status: StatusCode,
    /// The header of a hit, made ready: end-to-end fields, `Content-Length`, and a place for each
    /// field that a hit fills in (`prepare`), so that a clone of it needs no room for more.
    pub headers: HeaderMap,
    /// Its content, whole.
    pub body: Bytes,
    /// Its times.
    pub times: Times,
    /// What it may be used for when it is no longer fresh.
    pub leeway: Leeway,
    /// How long the app took to send it.
    pub fetch_duration: Duration,
    /// The tags that the app named. A 304 need not name them again.
    pub response_tags: Box<[Tag]>,
}

/// What is said of a response besides its head and body.
#[derive(Clone, Debug)]
pub struct EntryMetadata {
    /// Its times.
    pub times: Times,
    /// What it may be used for when it is no longer fresh.
    pub leeway: Leeway,
    /// How long the app took to send it.
    pub fetch_duration: Duration,
    /// The tags that the app named.
    pub response_tags: Box<[Tag]>,
}

/// Says which headers the variants of a key differ by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryMark {
    /// The canonical key, before it is narrowed.
    pub key: Bytes,
    /// The headers.
    pub spec: VarySpec,
}

impl Entry {
    /// An entry that shares no memory with the buffers its parts were read into.
    ///
    /// Slices of hyper's and fred's read buffers would keep those buffers alive (measured: 16 KiB
    /// for 100 bytes).
    #[must_use]
    pub fn compact(
        key: &[u8],
        status: StatusCode,
        headers: &HeaderMap,
        body: &[Bytes],
        facts: EntryMetadata,
    ) -> Self {
        let content = body.iter().map(Bytes::len).sum();
        let mut whole = joined(key, headers, body.iter().map(|chunk| &chunk[..]), content);
        let key = whole.split_to(key.len());
        let headers = own_headers(&mut whole, headers, content);
        Self::new(key, status, headers, whole, facts)
    }

    /// The same response with another head: what the app has just confirmed. The body is shared,
    /// not copied.
    #[must_use]
    pub fn revalidated(&self, key: &[u8], headers: &HeaderMap, facts: EntryMetadata) -> Self {
        let mut whole = joined(key, headers, std::iter::empty(), 0);
        let key = whole.split_to(key.len());
        let headers = own_headers(&mut whole, headers, self.body.len());
        Self::new(key, self.status, headers, self.body.clone(), facts)
    }

    fn new(
        key: Bytes,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        facts: EntryMetadata,
    ) -> Self {
        let EntryMetadata { times, leeway, fetch_duration: took, response_tags: named } = facts;
        Self {
            key,
            status,
            headers,
            body,
            times,
            leeway,
            fetch_duration: took,
            response_tags: named,
        }
    }

    /// For how long it is still kept: the rest of its freshness, and the longest of its windows.
    #[must_use]
    pub fn retained_for(&self, now: Wall) -> Duration {
        let keep = i64::try_from(self.leeway.keep.as_millis()).unwrap_or(i64::MAX);
        Duration::from_millis(
            u64::try_from(self.times.ttl_ms(now).saturating_add(keep)).unwrap_or_default(),
        )
    }

    /// The fields that are the response's own, and not places for a hit to fill in.
    pub fn stored_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, value)| is_own(name, value))
    }

    /// How much memory it takes, all overhead counted.
    #[must_use]
    pub fn weight(&self) -> usize {
        // A slot of a HeaderMap holds a name, a value and a hash; its index has two bytes twice.
        // Measured with jemalloc.
        const SLOT: usize = 112;
        let names: usize = self.headers.keys().map(|name| name.as_str().len()).sum();
        let values: usize = self.headers.values().map(HeaderValue::len).sum();
        let tags: usize = self.response_tags.iter().map(|tag| tag.as_str().len() + 32).sum();
        size_of::<Self>()
            + tags
            + self.key.len()
            + self.body.len()
            + names
            + values
            + self.headers.capacity().max(self.headers.len()) * SLOT
    }
}

/// The key, the values of the headers and the body, one after the other.
fn joined<'a>(
    key: &[u8],
    headers: &'a HeaderMap,
    body: impl Iterator<Item = &'a [u8]>,
    content: usize,
) -> Bytes {
    let values: usize = headers.values().map(HeaderValue::len).sum();
    let mut buffer = BytesMut::with_capacity(key.len() + values + content);
    buffer.extend_from_slice(key);
    for part in headers.values().map(HeaderValue::as_bytes).chain(body) {
        buffer.extend_from_slice(part);
    }
    buffer.freeze()
}

/// The ready head of a hit, its values taken from the front of `whole`.
fn own_headers(whole: &mut Bytes, headers: &HeaderMap, content: usize) -> HeaderMap {
    let lines = headers
        .keys()
        .filter(|name| is_stored(name))
        .map(|name| headers.get_all(name).iter().count())
        .sum::<usize>();
    let mut own = HeaderMap::with_capacity(lines + 4);
    for (name, value) in headers {
        let bytes = whole.split_to(value.len());
        if is_stored(name) {
            // The bytes were a header value a moment ago, so the fallback is never taken.
            own.append(
                own_name(name),
                HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone()),
            );
        }
    }
    own.insert(CONTENT_LENGTH, HeaderValue::from(content));
    prepare(&mut own);
    own
}

/// Makes places for the fields that a hit fills in. The app's own `Cache-Status` stays in its
/// place.
pub(crate) fn prepare(headers: &mut HeaderMap) {
    headers.insert(AGE, HeaderValue::from_static("0"));
    headers.insert(X_CACHE, HeaderValue::from_static("HIT"));
    if headers.get_all(CACHE_STATUS).iter().nth(1).is_some() {
        // A list in several lines is the same list in one (RFC 9110 5.3), and that is how a hit
        // adds to it.
        let lines: Vec<&[u8]> =
            headers.get_all(CACHE_STATUS).iter().map(HeaderValue::as_bytes).collect();
        // Made of header values, so the fallback is never taken.
        let line = HeaderValue::from_bytes(&lines.join(&b", "[..]))
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(CACHE_STATUS, line);
    }
    headers.entry(CACHE_STATUS).or_insert(HeaderValue::from_static(""));
}

/// Fields that are not stored: they belong to the connection or to one moment.
fn is_stored(name: &HeaderName) -> bool {
    !(*name == AGE || *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH || *name == X_CACHE)
}

/// A name that does not share memory with a read buffer.
fn own_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_entry_keeps_every_line_and_drops_what_is_not_its_own() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("link", "<a>"), ("link", "<b>"), ("age", "5"), ("x-cache", "HIT"), ("etag", "\"1\"")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        let times = Times {
            received: Wall(1),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(1),
        };
        let facts = EntryMetadata {
            times,
            leeway: Leeway::default(),
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let body = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let entry = Entry::compact(b"key", StatusCode::OK, &headers, &body, facts.clone());
        assert_eq!((&entry.key[..], &entry.body[..]), (&b"key"[..], &b"abc"[..]));
        assert_eq!(entry.headers.get_all("link").iter().count(), 2);
        assert_eq!(
            (&entry.headers["age"], &entry.headers["x-cache"]),
            (&HeaderValue::from_static("0"), &HeaderValue::from_static("HIT"))
        );
        assert_eq!(entry.headers[CONTENT_LENGTH], "3");
        assert!(entry.weight() > 300);

        headers.remove("link");
        let again = entry.revalidated(b"key 2", &headers, facts);
        assert_eq!(
            (&again.key[..], &again.body[..], again.body.as_ptr()),
            (&b"key 2"[..], &b"abc"[..], entry.body.as_ptr())
        );
        assert_eq!(
            (again.headers.contains_key("link"), &again.headers[CONTENT_LENGTH]),
            (false, &HeaderValue::from_static("3"))
        );
    }

    #[test]
    fn a_nonce_survives_its_digits() {
        let nonce = Nonce::random();
        assert_eq!(Nonce::from_hex(nonce.to_hex().as_bytes()), Some(nonce));
        assert_eq!(Nonce::from_hex(b"zz"), None);
        assert_ne!(nonce, Nonce::random());
    }

    #[test]
    fn a_nonce_tells_soft_purges_from_all_others() {
        let then = Nonce::random();
        let soft = |ms: u64, step: u64| {
            let mut nonce = then;
            nonce.0[8..].copy_from_slice(&(ms << 20 | step).to_be_bytes());
            nonce
        };
        assert_eq!(then.soft_purged_from(then), None);
        assert_eq!(
            soft(1_700_000_000_123, 0xf_ffff).soft_purged_from(then),
            Some(1_700_000_000_123)
        );
        assert_eq!(soft(8, 2).soft_purged_from(soft(8, 1)), Some(8), "two in one millisecond");
        let mut hard = soft(8, 1);
        hard.0[0] ^= 1;
        assert_eq!((hard.soft_purged_from(then), hard.soft_purged_from(soft(8, 1))), (None, None));
    }
}
