//! A stored response: its head, body and times, and the stamp that proves it current.
//!
//! Owns the shape; [`packed`] owns the bytes in Redis. Knows nothing of where entries are kept.

use std::iter;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{AGE, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use once_cell::race::OnceBox;

use crate::cache::entry::head::StoredHead;
use crate::clock::{Wall, millis};
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE, is_own};
use crate::semantics::content_coding;
use crate::semantics::digest::{self, Digest, Digester};
use crate::semantics::revalidation;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;
use crate::units::allocated;

mod head;
pub mod packed;

/// A stored response.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The canonical key of the entry. Compared on every hit.
    pub key: Bytes,
    /// Its status.
    pub status: StatusCode,
    /// The bytes that its body's buffer has besides the body.
    beside_body: u32,
    /// Whether its key and its head have a buffer of their own: they came after the body.
    is_renewed: bool,
    /// The head of a hit, prepared: end-to-end fields, `Content-Length`, and a placeholder for each
    /// field that a hit fills in (`prepare`).
    pub head: StoredHead,
    /// The complete content.
    pub body: Bytes,
    /// Its times.
    pub times: Times,
    /// How it may be used once it is stale.
    pub leeway: Leeway,
    /// How long the origin took to send it, in milliseconds.
    fetch_ms: u32,
    /// The tags in the origin's response. A 304 need not repeat them.
    pub response_tags: Box<[Tag]>,
    /// What few entries have.
    extras: OnceBox<EntryExtras>,
}

/// What few entries have: hashes, each made at its first use, and what it was before the cache
/// coded it.
#[derive(Clone, Debug, Default)]
struct EntryExtras {
    key: OnceLock<KeyHash>,
    /// The digest of status and body.
    content: OnceLock<Digest>,
    /// The digest of status, body and head.
    whole: OnceLock<Digest>,
    /// None where it is as the origin sent it.
    original: Option<OriginalForm>,
}

/// What a response was before the cache coded its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalForm {
    /// The length of its body.
    pub length: u64,
    /// The digest of its status and its body.
    pub digest: Digest,
    /// Whether its entity-tag was strong.
    pub had_strong_tag: bool,
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

impl VaryMark {
    /// The memory that it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        // With two counts of references.
        let itself = allocated(size_of::<Self>() + 2 * size_of::<usize>());
        itself + allocated(self.key.len()) + self.spec.weight()
    }
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
        let mut head = StoredHead::sharing(&prepared(headers, content));
        let mut whole = joined(key, &head, body.iter().map(|chunk| &chunk[..]), content);
        let key = whole.split_to(key.len());
        head.move_to(&mut whole);
        Self::of(key, status, head, whole, metadata)
    }

    /// The same for a response whose body the cache has coded.
    #[must_use]
    pub fn with_original(self, original: OriginalForm) -> Self {
        let extras = EntryExtras { original: Some(original), ..EntryExtras::default() };
        Self { extras: OnceBox::with_value(Box::new(extras)), ..self }
    }

    /// What it was before the cache coded it; none where it is as the origin sent it.
    #[must_use]
    pub fn original(&self) -> Option<&OriginalForm> {
        self.extras.get().and_then(|extras| extras.original.as_ref())
    }

    /// Its head as the origin knows it: what it is asked by, and what its heads are compared with.
    #[must_use]
    pub fn origin_headers(&self) -> HeaderMap {
        let headers = self.headers();
        match self.original() {
            None => headers,
            Some(original) => {
                content_coding::original_head(&headers, original.had_strong_tag, original.length)
            }
        }
    }

    /// Its head after an update by one of the origin, which confirms it.
    #[must_use]
    pub fn updated_headers(&self, update: &HeaderMap, date: Wall) -> HeaderMap {
        let mut merged = revalidation::merge(&self.headers(), update, date);
        if self.original().is_some() {
            content_coding::keep_coded(&mut merged);
        }
        merged
    }

    /// The same response with another head, after a revalidation. The body is shared, not copied.
    #[must_use]
    pub fn revalidated(&self, key: &[u8], headers: &HeaderMap, metadata: EntryMetadata) -> Self {
        let mut head = StoredHead::sharing(&prepared(headers, self.body.len()));
        let mut whole = joined(key, &head, iter::empty(), 0);
        let key = whole.split_to(key.len());
        head.move_to(&mut whole);
        let mut again = Self::of(key, self.status, head, self.body.clone(), metadata);
        (again.beside_body, again.is_renewed) = (self.beside_body, true);
        if let Some(original) = self.original() {
            again = again.with_original(*original);
        }
        if let Some(content) = self.extras.get().and_then(|extras| extras.content.get()) {
            let _ = again.extras().content.set(*content);
        }
        again
    }

    /// Shares with other entries what their heads have alike: for one that stays in memory, where
    /// it takes slices of a buffer of this length.
    pub fn settle_in(&mut self, buffer: usize) {
        self.head = StoredHead::sharing(&self.head.to_map());
        self.beside_body = length(buffer.saturating_sub(self.body.len()));
    }

    /// An entry that was read from its packed form.
    fn new(
        key: Bytes,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        metadata: EntryMetadata,
    ) -> Self {
        Self::of(key, status, StoredHead::alone(headers), body, metadata)
    }

    fn of(
        key: Bytes,
        status: StatusCode,
        head: StoredHead,
        body: Bytes,
        metadata: EntryMetadata,
    ) -> Self {
        let EntryMetadata { times, leeway, fetch_duration, response_tags } = metadata;
        Self {
            status,
            beside_body: length(key.len() + head.own_len()),
            is_renewed: false,
            key,
            head,
            body,
            times,
            leeway,
            fetch_ms: u32::try_from(millis(fetch_duration)).unwrap_or(u32::MAX),
            response_tags,
            extras: OnceBox::new(),
        }
    }

    /// How long the origin took to send it.
    #[must_use]
    pub fn fetch_duration(&self) -> Duration {
        Duration::from_millis(u64::from(self.fetch_ms))
    }

    /// Its head as a map, with the placeholders.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        self.head.to_map()
    }

    fn extras(&self) -> &EntryExtras {
        self.extras.get_or_init(Box::default)
    }

    /// The hashes of its key. Computed at the first call, and kept.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        *self.extras().key.get_or_init(|| KeyHash::from_canonical(&self.key))
    }

    /// The digest of all that a client is given of it: what clients are authorized for, in scope
    /// `shared`.
    ///
    /// Computed at the first call, when the entry is stored or was just read from Redis, and kept:
    /// a hit costs no hash. In other scopes nobody calls this.
    #[must_use]
    pub fn digest(&self) -> Digest {
        *self.extras().whole.get_or_init(|| self.digest_with(&self.headers()))
    }

    /// The digest of the same response with another head.
    #[must_use]
    pub fn digest_with(&self, headers: &HeaderMap) -> Digest {
        digest::with_head(self.content_digest(), headers)
    }

    /// The digest of its status and its body alone, as the origin sent it.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        if let Some(original) = self.original() {
            return original.digest;
        }
        *self.extras().content.get_or_init(|| {
            let mut digester = Digester::for_response(self.status, &self.headers());
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
        self.head.lines().filter(|(name, value)| is_own(name, value))
    }

    /// The memory of what it points to.
    #[must_use]
    pub fn weight(&self) -> usize {
        // The count of the references to a buffer.
        const COUNT: usize = 32;
        let beside = usize::try_from(self.beside_body).unwrap_or(usize::MAX);
        let buffer = allocated(self.body.len().saturating_add(beside)) + COUNT;
        let renewed = allocated(self.key.len() + self.head.own_len()) + COUNT;
        let texts = self.response_tags.iter().map(Tag::weight).sum::<usize>();
        buffer
            + if self.is_renewed { renewed } else { 0 }
            + self.head.weight()
            + allocated(size_of_val(&*self.response_tags))
            + self.original().map_or(0, |_| allocated(size_of::<EntryExtras>()))
            + texts
    }
}

/// A length that does not fit is that of no head.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The key, the head's own values and the body, concatenated in a buffer of just their length.
fn joined<'a>(
    key: &[u8],
    head: &StoredHead,
    body: impl Iterator<Item = &'a [u8]>,
    content: usize,
) -> Bytes {
    let mut buffer = BytesMut::with_capacity(key.len() + head.own_len() + content);
    buffer.extend_from_slice(key);
    head.own_values().for_each(|value| buffer.extend_from_slice(value));
    body.for_each(|chunk| buffer.extend_from_slice(chunk));
    buffer.freeze()
}

/// The head of a hit: what is stored of these fields, the length, and the placeholders.
fn prepared(headers: &HeaderMap, content: usize) -> HeaderMap {
    let mut prepared = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers.iter().filter(|(name, _)| is_stored(name)) {
        prepared.append(name.clone(), value.clone());
    }
    prepared.insert(CONTENT_LENGTH, HeaderValue::from(content));
    prepare(&mut prepared);
    prepared
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
        assert_eq!(entry.headers().get_all("link").iter().count(), 2);
        assert_eq!(
            (&entry.headers()["age"], &entry.headers()["x-cache"]),
            (&HeaderValue::from_static("0"), &HeaderValue::from_static("HIT"))
        );
        assert_eq!(entry.headers()[CONTENT_LENGTH], "3");
        assert!(entry.weight() > 100);

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
            (again.headers().contains_key("link"), &again.headers()[CONTENT_LENGTH]),
            (false, &HeaderValue::from_static("3"))
        );
    }

    #[test]
    fn a_coded_entry_is_confirmed_as_the_origin_knows_it() {
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
        let strong = HeaderValue::from_static("\"1\"");
        let plain = HeaderMap::from_iter([(http::header::ETAG, strong.clone())]);
        let head = content_coding::coded_head(&plain, content_coding::Coding::Gzip);
        let body = [Bytes::from_static(b"coded")];
        let original = OriginalForm { length: 9, digest: [1; 16], had_strong_tag: true };
        let entry = Entry::compact(b"key", StatusCode::OK, &head, &body, metadata.clone());
        let lighter = entry.weight();
        let entry = entry.with_original(original);
        assert!(entry.weight() > lighter);
        let known = entry.origin_headers();
        assert_eq!((&known["etag"], &known["content-length"]), (&strong, &HeaderValue::from(9)));
        assert!(!known.contains_key("content-encoding"));
        let updated = entry.updated_headers(&plain, Wall(2));
        assert_eq!(
            (&updated["etag"], &updated["content-encoding"]),
            (&head["etag"], &head["content-encoding"])
        );
        let again = entry.revalidated(b"key", &updated, metadata);
        assert_eq!((again.original(), &again.headers()["etag"]), (Some(&original), &head["etag"]));
        assert_eq!(again.headers()[CONTENT_LENGTH], "5");
        assert_eq!(again.content_digest(), [1; 16]);
    }

    #[test]
    fn r1369_an_entry_weighs_no_more_for_being_confirmed_again_and_again() {
        let times = Times {
            received: Wall(1),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(1),
        };
        let metadata = EntryMetadata {
            times,
            leeway: Leeway::default(),
            fetch_duration: Duration::from_millis(7),
            response_tags: Box::default(),
        };
        let headers =
            HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]);
        let body = [Bytes::from(vec![b'x'; 1000])];
        let filled = Entry::compact(b"key", StatusCode::OK, &headers, &body, metadata.clone());
        assert_eq!(filled.fetch_duration(), Duration::from_millis(7));
        let once = filled.revalidated(b"key", &headers, metadata.clone());
        let _first_ones = [once.clone(), once.clone(), once.clone()];
        let mut often = once.clone();
        for _ in 0..100 {
            often = often.revalidated(b"key", &headers, metadata.clone());
        }
        assert_eq!(often.weight(), once.weight());
        assert!(once.weight() > filled.weight(), "it has a buffer more");
        assert!(filled.weight() > 1000 && once.weight() < 1500, "{}", once.weight());
    }
}
