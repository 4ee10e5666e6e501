//! The stored form of an entry in Redis: version, checksum or keyed MAC, stamp, key, head, and the
//! body last.
//!
//! Invariants: unpacking a packed entry gives the same entry. Any other bytes give a
//! [`DecodeError`], never a panic, and allocate no more than the bytes received. A sidecar of
//! another version gets `DecodeError::Version`, which counts as a miss.
//!
//! ```text
//! "SCE" version kind integrity-kind | integrity (16) | length of meta (4) | meta | body
//! ```

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::cache::entry::{Entry, EntryMetadata, VaryMark, prepare};
use crate::clock::{Wall, millis};
use crate::coherence::stamp::{Nonce, Stamp};
use crate::policy::tag::Tag;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;

/// The version that is written, and the only one that is accepted.
pub const VERSION: u8 = 3;

const MAGIC: &[u8; 3] = b"SCE";
const ENTRY: u8 = b'E';
const VARY: u8 = b'V';
const CHECKSUM: u8 = 0;
const KEYED: u8 = 1;
const HEAD_BYTES: usize = 26;

/// The integrity check of stored entries, against damage or, with a secret, against forgery.
#[derive(Clone, Default)]
pub struct Seal(Option<Hmac<Sha256>>);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Seal(keyed)" } else { "Seal(checksum)" })
    }
}

impl Seal {
    /// A MAC with this secret: nobody can write entries without knowing it.
    #[must_use]
    pub fn keyed(secret: &[u8]) -> Self {
        // HMAC accepts keys of any length.
        Self(Hmac::<Sha256>::new_from_slice(secret).ok())
    }

    const fn kind(&self) -> u8 {
        if self.0.is_some() { KEYED } else { CHECKSUM }
    }

    fn over(&self, head: &[u8], rest: &[u8]) -> [u8; 16] {
        let mut seal = [0; 16];
        match &self.0 {
            None => {
                let mut crc = crc32fast::Hasher::new();
                crc.update(head);
                crc.update(rest);
                seal[..4].copy_from_slice(&crc.finalize().to_be_bytes());
            }
            Some(mac) => {
                let mut mac = mac.clone();
                mac.update(head);
                mac.update(rest);
                seal.copy_from_slice(&mac.finalize().into_bytes()[..16]);
            }
        }
        seal
    }
}

/// What a key in Redis holds.
#[derive(Clone, Debug)]
pub enum Unpacked {
    /// An entry and its stamp. It was received at a time by the clock of Redis.
    Entry(Box<Entry>, Stamp),
    /// The key has variants.
    Vary(VaryMark),
}

/// Why bytes are not a valid entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They do not have the format of this program.
    Foreign,
    /// They are of another version.
    Version,
    /// They were altered, or written with another secret.
    Integrity,
    /// They are truncated or contain an invalid value.
    Shape,
}

impl DecodeError {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Integrity => "integrity",
            Self::Shape => "shape",
        }
    }
}

/// Packs an entry with its stamp. `received` is when it was received, by the clock of Redis: no
/// reader depends on the clock of the sidecar that wrote it.
#[must_use]
pub fn pack(entry: &Entry, stamp: &Stamp, received: Wall, seal: &Seal) -> Bytes {
    let mut meta = Vec::with_capacity(256 + entry.key.len());
    put_u64(&mut meta, received.0);
    put_u64(&mut meta, millis(entry.times.initial_age));
    put_u64(&mut meta, millis(entry.times.lifetime));
    let Leeway { while_revalidate, if_error, unreachable, keep } = entry.leeway;
    for duration in [while_revalidate, if_error, unreachable, keep, entry.fetch_duration()] {
        put_u64(&mut meta, millis(duration));
    }
    meta.extend_from_slice(&entry.status.as_u16().to_be_bytes());
    meta.extend_from_slice(&stamp.generation.0);
    put_count(&mut meta, stamp.tags.len());
    for (tag, nonce) in &stamp.tags {
        put_bytes(&mut meta, tag.as_str().as_bytes());
        meta.extend_from_slice(&nonce.0);
    }
    put_bytes(&mut meta, &entry.key);
    put_count(&mut meta, entry.stored_headers().count());
    for (name, value) in entry.stored_headers() {
        put_bytes(&mut meta, name.as_str().as_bytes());
        put_bytes(&mut meta, value.as_bytes());
    }
    seal_bytes(ENTRY, &meta, &entry.body, seal)
}

/// Packs a vary mark.
#[must_use]
pub fn pack_vary(mark: &VaryMark, seal: &Seal) -> Bytes {
    let mut meta = Vec::new();
    put_bytes(&mut meta, &mark.key);
    seal_bytes(VARY, &meta, &mark.spec.encode(), seal)
}

fn seal_bytes(kind: u8, meta: &[u8], body: &[u8], seal: &Seal) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_BYTES + meta.len() + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, kind, seal.kind()]);
    out.extend_from_slice(&[0; 16]);
    put_count(&mut out, meta.len());
    out.extend_from_slice(meta);
    out.extend_from_slice(body);
    let integrity = seal.over(&out[..6], &out[22..]);
    out[6..22].copy_from_slice(&integrity);
    Bytes::from(out)
}

/// Bytes behind a head with the right seal, whatever they are: for the fuzzer. The first one is the
/// kind.
#[cfg(feature = "internals")]
pub fn sealed(bytes: &[u8], seal: &Seal) -> Bytes {
    let (kind, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (length, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (meta, body) = rest.split_at(usize::from(*length).min(rest.len()));
    seal_bytes(kind % 4, meta, body, seal)
}

/// Unpacks the result of [`pack`] or [`pack_vary`]. Key, header values and body are slices of
/// `packed`.
pub fn unpack(packed: &Bytes, seal: &Seal) -> Result<Unpacked, DecodeError> {
    let head = packed.get(..HEAD_BYTES).ok_or(DecodeError::Foreign)?;
    if !head.starts_with(MAGIC) {
        return Err(DecodeError::Foreign);
    }
    if head[3] != VERSION {
        return Err(DecodeError::Version);
    }
    // SECURITY: a sidecar with a secret rejects entries that were sealed without it. The comparison
    // takes constant time, so that its duration does not show where a forged MAC differs.
    let integrity = seal.over(&head[..6], &packed[22..]);
    if head[5] != seal.kind() || !bool::from(head[6..22].ct_eq(&integrity)) {
        return Err(DecodeError::Integrity);
    }
    let meta_len = usize::try_from(u32::from_be_bytes([head[22], head[23], head[24], head[25]]))
        .map_err(|_| DecodeError::Shape)?;
    let body_at = HEAD_BYTES
        .checked_add(meta_len)
        .filter(|at| *at <= packed.len())
        .ok_or(DecodeError::Shape)?;
    let mut meta = Cursor { whole: packed, at: HEAD_BYTES, end: body_at };
    match head[4] {
        ENTRY => meta.entry(packed.slice(body_at..)),
        VARY => {
            let key = meta.bytes()?;
            let spec = VarySpec::decode(&packed[body_at..]).ok_or(DecodeError::Shape)?;
            Ok(Unpacked::Vary(VaryMark { key, spec }))
        }
        _ => Err(DecodeError::Shape),
    }
}

/// Whether the body has the length that its head states. A client that is told a greater one waits
/// for bytes that never come.
fn fits(headers: &HeaderMap, body: &Bytes) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => {
            line.to_str().is_ok_and(|text| text.parse::<usize>() == Ok(body.len()))
        }
        _ => false,
    }
}

struct Cursor<'a> {
    whole: &'a Bytes,
    at: usize,
    end: usize,
}

impl Cursor<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], DecodeError> {
        let end =
            self.at.checked_add(length).filter(|end| *end <= self.end).ok_or(DecodeError::Shape)?;
        let taken = &self.whole[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Shape)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn millis(&mut self) -> Result<Duration, DecodeError> {
        self.u64().map(Duration::from_millis)
    }

    fn count(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| DecodeError::Shape)
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.count()?;
        let from = self.at;
        self.take(length)?;
        Ok(self.whole.slice(from..from + length))
    }

    fn entry(&mut self, body: Bytes) -> Result<Unpacked, DecodeError> {
        let times = Times {
            received: Wall(self.u64()?),
            initial_age: Duration::from_millis(self.u64()?),
            lifetime: Duration::from_millis(self.u64()?),
        };
        let leeway = Leeway {
            while_revalidate: self.millis()?,
            if_error: self.millis()?,
            unreachable: self.millis()?,
            keep: self.millis()?,
        };
        let fetch_duration = self.millis()?;
        let status = StatusCode::from_u16(u16::from_be_bytes(self.array()?))
            .map_err(|_| DecodeError::Shape)?;
        let generation = Nonce(self.array()?);
        let mut tags = Vec::new();
        for _ in 0..self.count()? {
            let tag = self.bytes()?;
            let tag = std::str::from_utf8(&tag).map_err(|_| DecodeError::Shape)?;
            tags.push((Tag::new(tag), Nonce(self.array()?)));
        }
        let key = self.bytes()?;
        let lines = self.count()?;
        // A line takes at least eight bytes, so the count cannot request more memory than was
        // received.
        let mut headers = HeaderMap::with_capacity(lines.min((self.end - self.at) / 8) + 3);
        for _ in 0..lines {
            let name = HeaderName::from_bytes(&self.bytes()?).map_err(|_| DecodeError::Shape)?;
            let value =
                HeaderValue::from_maybe_shared(self.bytes()?).map_err(|_| DecodeError::Shape)?;
            headers.try_append(name, value).map_err(|_| DecodeError::Shape)?;
        }
        if self.at != self.end {
            return Err(DecodeError::Shape);
        }
        if !fits(&headers, &body) {
            return Err(DecodeError::Shape);
        }
        prepare(&mut headers);
        // The stamp's tags are a superset of the response's tags: they include those of the
        // request.
        let response_tags = tags.iter().map(|(tag, _)| tag.clone()).collect();
        let metadata = EntryMetadata { times, leeway, fetch_duration, response_tags };
        let entry = Entry::new(key, status, headers, body, metadata);
        Ok(Unpacked::Entry(Box::new(entry), Stamp { generation, tags: tags.into() }))
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Lengths and counts are bounded by the size of an HTTP head, far below 4 GiB.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::head::StoredHead;
    use proptest::prelude::*;

    fn sample() -> (Entry, Stamp) {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("application/json"));
        headers.append("link", HeaderValue::from_static("<a>"));
        headers.append("link", HeaderValue::from_static("<b>"));
        let times = Times {
            received: Wall(1_700_000_000_123),
            initial_age: Duration::from_millis(7),
            lifetime: Duration::from_mins(1),
        };
        let [while_revalidate, if_error, unreachable, keep, fetch_duration] =
            [1, 2, 3, 4, 5].map(Duration::from_secs);
        let leeway = Leeway { while_revalidate, if_error, unreachable, keep };
        let metadata =
            EntryMetadata { times, leeway, fetch_duration, response_tags: [Tag::new("a")].into() };
        let entry = Entry::compact(
            b"canonical key",
            StatusCode::OK,
            &headers,
            &[Bytes::from_static(b"{\"a\":1}")],
            metadata,
        );
        let stamp = Stamp {
            generation: Nonce([1; 16]),
            tags: [(Tag::new("a"), Nonce([2; 16])), (Tag::new("b"), Nonce([3; 16]))].into(),
        };
        (entry, stamp)
    }

    fn unpacked(packed: &Bytes, seal: &Seal) -> (Entry, Stamp) {
        match unpack(packed, seal).expect("an entry") {
            Unpacked::Entry(entry, stamp) => (*entry, stamp),
            Unpacked::Vary(_) => panic!("a mark"),
        }
    }

    #[test]
    fn an_entry_is_unpacked_as_it_was_packed() {
        for seal in [Seal::default(), Seal::keyed(b"secret")] {
            let (entry, stamp) = sample();
            let packed = pack(&entry, &stamp, entry.times.received, &seal);
            let (again, stamp_again) = unpacked(&packed, &seal);
            assert_eq!(stamp, stamp_again);
            assert_eq!(again.digest(), entry.digest(), "computed anew");
            assert_eq!(
                (again.headers(), &again.key, again.status, &again.body),
                (entry.headers(), &entry.key, entry.status, &entry.body)
            );
            assert_eq!(
                (again.times, again.leeway, again.fetch_duration()),
                (entry.times, entry.leeway, entry.fetch_duration())
            );
            assert_eq!(
                again.response_tags[..],
                [Tag::new("a"), Tag::new("b")],
                "all tags, since the stamp does not say which came with the response"
            );
        }
    }

    #[test]
    fn the_body_is_a_slice_of_the_packed_bytes() {
        let (entry, stamp) = sample();
        let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
        let (again, _) = unpacked(&packed, &Seal::default());
        let range = packed.as_ptr_range();
        assert!(range.contains(&again.body.as_ptr()));
    }

    /// Version 2 counted by the clock of the sidecar that wrote it.
    #[test]
    fn the_fixture_of_version_2_is_a_miss() {
        let fixture = Bytes::from_static(include_bytes!("fixtures/entry-v2.bin"));
        assert_eq!(unpack(&fixture, &Seal::default()).err(), Some(DecodeError::Version));
    }

    /// Written by version 3. It must stay readable for as long as version 3 is accepted.
    #[test]
    fn the_fixture_of_version_3_is_unpacked() {
        let fixture = include_bytes!("fixtures/entry-v3.bin");
        let (entry, stamp) = unpacked(&Bytes::from_static(fixture), &Seal::default());
        let (expected, expected_stamp) = sample();
        assert_eq!(
            (&entry.key, &entry.body, entry.times, stamp),
            (&expected.key, &expected.body, expected.times, expected_stamp)
        );
        assert_eq!(
            (entry.leeway, entry.fetch_duration()),
            (expected.leeway, expected.fetch_duration())
        );
    }

    #[test]
    fn entries_sealed_with_another_secret_are_rejected() {
        let (entry, stamp) = sample();
        let plain = pack(&entry, &stamp, entry.times.received, &Seal::default());
        let sealed = pack(&entry, &stamp, entry.times.received, &Seal::keyed(b"one"));
        for (packed, seal) in [
            (&plain, Seal::keyed(b"one")),
            (&sealed, Seal::keyed(b"two")),
            (&sealed, Seal::default()),
        ] {
            assert_eq!(unpack(packed, &seal).err(), Some(DecodeError::Integrity));
        }
    }

    /// A client that is told a greater length waits for bytes that never come.
    #[test]
    fn a_length_that_does_not_fit_the_body_is_a_miss() {
        let seal = Seal::default();
        for length in ["0", "6", "8", "99", "x", "7, 7"] {
            let (mut entry, stamp) = sample();
            let mut headers = entry.headers();
            headers.insert("content-length", HeaderValue::from_static(length));
            entry.head = StoredHead::alone(headers);
            let packed = pack(&entry, &stamp, entry.times.received, &seal);
            assert_eq!(unpack(&packed, &seal).err(), Some(DecodeError::Shape), "{length}");
        }
    }

    #[test]
    fn another_version_is_a_miss() {
        let (entry, stamp) = sample();
        let mut packed = pack(&entry, &stamp, entry.times.received, &Seal::default()).to_vec();
        packed[3] = VERSION - 1;
        assert_eq!(
            unpack(&Bytes::from(packed), &Seal::default()).err(),
            Some(DecodeError::Version)
        );
        assert_eq!(
            unpack(&Bytes::from_static(b"{}"), &Seal::default()).err(),
            Some(DecodeError::Foreign)
        );
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(at in 0usize..200, bit in 0u8..8) {
            let (entry, stamp) = sample();
            let mut packed = pack(&entry, &stamp, entry.times.received, &Seal::default()).to_vec();
            let at = at % packed.len();
            packed[at] ^= 1 << bit;
            prop_assert!(unpack(&Bytes::from(packed), &Seal::default()).is_err());
        }

        #[test]
        fn no_bytes_from_redis_cause_a_panic(
            meta in proptest::collection::vec(any::<u8>(), 0..200),
            kind in prop_oneof![Just(ENTRY), Just(VARY), any::<u8>()],
        ) {
            // Correctly sealed, so that the decoder has to check every length itself.
            let packed = seal_bytes(kind, &meta, b"body", &Seal::default());
            let _ = unpack(&packed, &Seal::default());
        }

        #[test]
        fn a_shortened_entry_is_noticed(cut in 1usize..200) {
            let (entry, stamp) = sample();
            let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
            let short = packed.slice(..packed.len() - cut.min(packed.len()));
            prop_assert!(unpack(&short, &Seal::default()).is_err());
        }
    }
}
