//! The stored form of an entry in Redis: version, checksum or keyed MAC, stamp, key, head, and the
//! body last.
//!
//! Invariants: unpacking a packed entry gives the same entry, in whichever form its body is. Any
//! other bytes give a [`DecodeError`], never a panic, and allocate no more than the bytes received
//! and one body of the length that is allowed. A sidecar of another version gets
//! `DecodeError::Version`, and one that does not know a kind `DecodeError::Shape`; both count as a
//! miss.
//!
//! ```text
//! "SCE" version kind integrity-kind | integrity (16) | length of meta (4) | meta | body
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq as _;

use crate::cache::entry::{Entry, EntryMetadata, OriginalForm, VaryMark, prepare};
use crate::clock::{Wall, millis};
use crate::coherence::stamp::{Nonce, Stamp};
use crate::policy::tag::Tag;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;

pub use self::compression::CompressedBody;
pub use self::decode_error::DecodeError;
pub use self::seal::Seal;

mod compression;
mod decode_error;
mod seal;

/// The version that is written, and the only one that is accepted.
pub const VERSION: u8 = 3;

const MAGIC: &[u8; 3] = b"SCE";
const ENTRY: u8 = b'E';
/// An entry whose body is compressed. A kind and no version, so that entries in plain form stay
/// what they were before there was any compression.
const COMPRESSED: u8 = b'Z';
/// An entry whose body the cache has coded for clients: its meta ends with what it was before. Of
/// routes whose keys a sidecar without `[compress]` does not make.
const CODED: u8 = b'C';
const VARY: u8 = b'V';
/// Where the meta part begins.
const HEAD_BYTES: usize = 26;

/// What a key in Redis holds.
#[derive(Clone, Debug)]
pub enum Unpacked {
    /// An entry and its stamp. It was received at a time by the clock of Redis.
    Entry(Box<Entry>, Stamp),
    /// The key has variants.
    Vary(VaryMark),
}

/// Packs an entry with its stamp. `received` is when it was received, by the clock of Redis: no
/// reader depends on the clock of the sidecar that wrote it.
#[must_use]
pub fn pack(entry: &Entry, stamp: &Stamp, received: Wall, seal: &Seal) -> Bytes {
    let kind = if entry.original().is_some() { CODED } else { ENTRY };
    seal_bytes(kind, &meta_of(entry, stamp, received), &entry.body, seal)
}

/// The same with its body in compressed form.
#[must_use]
pub fn pack_compressed(
    (entry, body): (&Entry, &CompressedBody),
    stamp: &Stamp,
    received: Wall,
    seal: &Seal,
) -> Bytes {
    seal_bytes(COMPRESSED, &meta_of(entry, stamp, received), body.as_bytes(), seal)
}

fn meta_of(entry: &Entry, stamp: &Stamp, received: Wall) -> Vec<u8> {
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
    if let Some(OriginalForm { length, digest, had_strong_tag }) = entry.original() {
        put_u64(&mut meta, *length);
        meta.extend_from_slice(digest);
        meta.push(u8::from(*had_strong_tag));
    }
    meta
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
    let kind = [ENTRY, VARY, COMPRESSED, CODED, *kind][usize::from(kind % 5)];
    seal_bytes(kind, meta, body, seal)
}

/// How long the body of these bytes is, if they say that it is compressed. Nothing of it is
/// verified: it tells how much work they may be, and that what is unpacked shares no memory with
/// them.
#[must_use]
pub fn stated_length(packed: &[u8]) -> Option<u64> {
    let head = packed.get(..HEAD_BYTES)?;
    let is_compressed = head.starts_with(MAGIC) && head[3..5] == [VERSION, COMPRESSED];
    let body = is_compressed.then(|| packed.get(body_at(packed).ok()?..)).flatten()?;
    compression::stated_length(body)
}

/// How many bytes stand before the body.
#[must_use]
pub fn bytes_before_body(packed: &[u8]) -> usize {
    packed.get(..HEAD_BYTES).and_then(|_| body_at(packed).ok()).unwrap_or_default()
}

/// Where the body begins, of bytes that have a whole head.
fn body_at(packed: &[u8]) -> Result<usize, DecodeError> {
    let meta = u32::from_be_bytes([packed[22], packed[23], packed[24], packed[25]]);
    usize::try_from(meta)
        .ok()
        .and_then(|meta| meta.checked_add(HEAD_BYTES))
        .filter(|at| *at <= packed.len())
        .ok_or(DecodeError::Shape)
}

/// Unpacks what one of the functions above has packed. Key, header values and body are slices of
/// `packed`; or of memory of their own, where the body is compressed. It may then be of this length
/// at most.
pub fn unpack(packed: &Bytes, seal: &Seal, longest: u64) -> Result<Unpacked, DecodeError> {
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
    let body_at = body_at(packed)?;
    let kind = head[4];
    let mut meta = Cursor { whole: packed, at: HEAD_BYTES, end: body_at, kind };
    match kind {
        ENTRY | CODED => meta.entry(packed.slice(body_at..)),
        COMPRESSED => {
            let whole = compression::inflate(packed, body_at, longest)?;
            let body = whole.slice(body_at..);
            Cursor { whole: &whole, ..meta }.entry(body)
        }
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
    kind: u8,
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

    fn original(&mut self) -> Result<OriginalForm, DecodeError> {
        let (length, digest) = (self.u64()?, self.array()?);
        let had_strong_tag = match self.array()? {
            [0] => false,
            [1] => true,
            [_] => return Err(DecodeError::Shape),
        };
        Ok(OriginalForm { length, digest, had_strong_tag })
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
        let original = if self.kind == CODED { Some(self.original()?) } else { None };
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
        let entry = original.into_iter().fold(entry, Entry::with_original);
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
mod tests;
