//! A stored response: its head, body and times, and the stamp that proves it current.
//!
//! Owns the shape; [`packed`] owns the bytes in Redis. Knows nothing of where entries are kept.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AGE, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use once_cell::race::OnceBox;

use crate::clock::Wall;
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE, is_own};
use crate::semantics::digest::{self, Digest, Digester};
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;

pub mod packed;

/// A stored response.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The canonical key of the entry. Compared on every hit.
    pub key: Bytes,
    /// Its status.
    pub status: StatusCode,
    /// The head of a hit, prepared: end-to-end fields, `Content-Length`, and a placeholder for each
    /// field that a hit fills in (`prepare`), so that a clone never has to grow.
    pub headers: HeaderMap,
    /// The complete content.
    pub body: Bytes,
    /// Its times.
    pub times: Times,
    /// How it may be used once it is stale.
    pub leeway: Leeway,
    /// How long the origin took to send it.
    pub fetch_duration: Duration,
    /// The tags in the origin's response. A 304 need not repeat them.
    pub response_tags: Box<[Tag]>,
    /// What somebody has asked for.
    hashes: OnceBox<EntryHashes>,
}

/// Hashes of an entry, each made at its first use. Most entries need none.
#[derive(Clone, Debug, Default)]
struct EntryHashes {
    key: OnceLock<KeyHash>,
    /// The digest of status and body.
    content: OnceLock<Digest>,
    /// The digest of status, body and head.
    whole: OnceLock<Digest>,
}

/// The metadata of a response besides its head and body.
#[derive(Clone, Debug)]
pub struct EntryMetadata {
    /// Its times.
    pub times: Times,
    /// How it may be used once it is stale.
    pub leeway: Leeway,
    /// How long the origin took to send it.
    pub fetch_duration: Duration,
    /// The tags in the origin's response.
    pub response_tags: Box<[Tag]>,
}

/// The headers by which the variants of a key differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryMark {
    /// The canonical key before `Vary` narrows it.
    pub key: Bytes,
    /// The headers.
    pub spec: VarySpec,
}

impl Entry {
    /// An entry that shares no memory with the buffers its parts were read into.
    ///
    /// Slices of the read buffers of hyper and fred would keep those buffers alive (measured: 16
    /// KiB for 100 bytes).
    #[must_use]
    pub fn compact(
        key: &[u8],
        status: StatusCode,
        headers: &HeaderMap,
        body: &[Bytes],
        metadata: EntryMetadata,
    ) -> Self {
        let content = body.iter().map(Bytes::len).sum();
        let mut whole = joined(key, headers, body.iter().map(|chunk| &chunk[..]), content);
        let key = whole.split_to(key.len());
        let headers = own_headers(&mut whole, headers, content);
        Self::new(key, status, headers, whole, metadata)
    }

    /// The same response with another head, after a revalidation. The body is shared, not copied.
    #[must_use]
    pub fn revalidated(&self, key: &[u8], headers: &HeaderMap, metadata: EntryMetadata) -> Self {
        let mut whole = joined(key, headers, std::iter::empty(), 0);
        let key = whole.split_to(key.len());
        let headers = own_headers(&mut whole, headers, self.body.len());
        let again = Self::new(key, self.status, headers, self.body.clone(), metadata);
        if let Some(content) = self.hashes.get().and_then(|hashes| hashes.content.get()) {
            let _ = again.hashes().content.set(*content);
        }
        again
    }

    fn new(
        key: Bytes,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        metadata: EntryMetadata,
    ) -> Self {
        let EntryMetadata { times, leeway, fetch_duration, response_tags } = metadata;
        Self {
            key,
            status,
            headers,
            body,
            times,
            leeway,
            fetch_duration,
            response_tags,
            hashes: OnceBox::new(),
        }
    }

    fn hashes(&self) -> &EntryHashes {
        self.hashes.get_or_init(Box::default)
    }

    /// The hashes of its key. Computed at the first call, and kept.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        *self.hashes().key.get_or_init(|| KeyHash::from_canonical(&self.key))
    }

    /// The digest of all that a client is given of it: what clients are authorized for, in scope
    /// `shared`.
    ///
    /// Computed at the first call, when the entry is stored or was just read from Redis, and kept:
    /// a hit costs no hash. In other scopes nobody calls this.
    #[must_use]
    pub fn digest(&self) -> Digest {
        *self.hashes().whole.get_or_init(|| self.digest_with(&self.headers))
    }

    /// The digest of the same response with another head.
    #[must_use]
    pub fn digest_with(&self, headers: &HeaderMap) -> Digest {
        digest::with_head(self.content_digest(), headers)
    }

    /// The digest of its status and its body alone.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        *self.hashes().content.get_or_init(|| {
            let mut digester = Digester::for_response(self.status, &self.headers);
            digester.update(&self.body);
            digester.finish()
        })
    }

    /// How much longer it is retained: the rest of its freshness plus the longest of its windows.
    #[must_use]
    pub fn retained_for(&self, now: Wall) -> Duration {
        let keep = i64::try_from(self.leeway.keep.as_millis()).unwrap_or(i64::MAX);
        Duration::from_millis(
            u64::try_from(self.times.ttl_ms(now).saturating_add(keep)).unwrap_or_default(),
        )
    }

    /// The response's own fields, without the placeholders for a hit.
    pub fn stored_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, value)| is_own(name, value))
    }

    /// The memory it takes, including all overhead.
    #[must_use]
    pub fn weight(&self) -> usize {
        // A slot of a HeaderMap holds a name, a value and a hash; its index takes two bytes twice.
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

/// The key, the values of the headers and the body, concatenated.
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

/// The prepared head of a hit, whose values are slices from the front of `whole`.
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
            // These bytes were a header value before, so the fallback is never taken.
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

/// Whether a field is stored. Fields of one connection or of one moment are not.
fn is_stored(name: &HeaderName) -> bool {
    !(*name == AGE || *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH || *name == X_CACHE)
}

/// A copy of the name that does not share memory with a read buffer.
fn own_name(name: &HeaderName) -> HeaderName {
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_entry_keeps_every_line_of_its_own_fields() {
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
        let metadata = EntryMetadata {
            times,
            leeway: Leeway::default(),
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let body = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let entry = Entry::compact(b"key", StatusCode::OK, &headers, &body, metadata.clone());
        assert_eq!((&entry.key[..], &entry.body[..]), (&b"key"[..], &b"abc"[..]));
        assert_eq!(entry.headers.get_all("link").iter().count(), 2);
        assert_eq!(
            (&entry.headers["age"], &entry.headers["x-cache"]),
            (&HeaderValue::from_static("0"), &HeaderValue::from_static("HIT"))
        );
        assert_eq!(entry.headers[CONTENT_LENGTH], "3");
        assert!(entry.weight() > 300);

        let error = StatusCode::NOT_FOUND;
        let error = Entry::compact(b"key", error, &headers, &body, metadata.clone());
        assert_ne!(error.digest(), entry.digest());
        assert_ne!(entry.digest(), entry.content_digest());
        headers.remove("link");
        let again = entry.revalidated(b"key 2", &headers, metadata);
        assert_eq!(
            (&again.key[..], &again.body[..], again.body.as_ptr()),
            (&b"key 2"[..], &b"abc"[..], entry.body.as_ptr())
        );
        assert_eq!(again.content_digest(), entry.content_digest());
        assert_ne!(again.digest(), entry.digest(), "of the head, too");
        assert_eq!(again.key_hash(), KeyHash::from_canonical(b"key 2"), "of its own key");
        assert_ne!(again.key_hash(), entry.key_hash());
        assert_eq!(again.digest(), entry.digest_with(&headers), "as it was before it was stored");
        assert_eq!(
            (again.headers.contains_key("link"), &again.headers[CONTENT_LENGTH]),
            (false, &HeaderValue::from_static("3"))
        );
    }
}
