//! The compressed form of a body: its length as eight bytes, and one frame of Zstandard (RFC 8878).
//!
//! Does not know which bodies are worth it. The seal is over the compressed bytes; this file trusts
//! none of them.

use std::cell::RefCell;
use std::io::{self, Cursor};

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::decode_error::DecodeError;

/// How long the length before the frame is.
const LENGTH_BYTES: usize = size_of::<u64>();

/// A body that takes fewer bytes.
#[derive(Debug)]
pub struct CompressedBody(Vec<u8>);

impl CompressedBody {
    /// Compresses a body. None if that saves less than an eighth, which is not worth the time of
    /// each hit, or if there is no memory for it.
    #[must_use]
    pub fn of(body: &[u8], level: u8) -> Option<Self> {
        let most = body.len() - body.len() / 8;
        let mut out = Vec::new();
        out.try_reserve_exact(most).ok()?;
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        let mut out = Cursor::new(out);
        out.set_position(LENGTH_BYTES as u64);
        let mut compressor = Compressor::new(i32::from(level)).ok()?;
        // The length stands before the frame, and the seal is over all of it.
        compressor.include_contentsize(false).ok()?;
        compressor.include_checksum(false).ok()?;
        // What is longer than `most` does not fit, which is an error of it.
        compressor.compress_to_buffer(body, &mut out).ok()?;
        let mut out = out.into_inner();
        out.shrink_to_fit();
        Some(Self(out))
    }

    /// The bytes that are stored in place of the body.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body again: for the fuzzer.
    #[cfg(feature = "internals")]
    pub fn inflated(&self, longest: u64) -> Result<Bytes, DecodeError> {
        inflate(&Bytes::copy_from_slice(&self.0), 0, longest)
    }
}

/// How long the body says it is.
pub(super) fn stated_length(body: &[u8]) -> Option<u64> {
    body.first_chunk().copied().map(u64::from_be_bytes)
}

/// The first `body_at` of these bytes, and the body that stands compressed behind them: one piece
/// of memory, which shares none with `packed`.
///
/// SECURITY: whoever can write to Redis may have written a few bytes that become gigabytes. What is
/// allocated is what they state, and never more than a body of `longest`; and no more than that is
/// written.
pub(super) fn inflate(packed: &Bytes, body_at: usize, longest: u64) -> Result<Bytes, DecodeError> {
    let body = &packed[body_at..];
    let length = stated_length(body).ok_or(DecodeError::Shape)?;
    let whole = usize::try_from(length)
        .ok()
        .filter(|_| length <= longest)
        .and_then(|length| length.checked_add(body_at))
        .ok_or(DecodeError::Compression)?;
    let mut out = Vec::new();
    out.try_reserve_exact(whole).map_err(|_| DecodeError::Compression)?;
    out.extend_from_slice(&packed[..body_at]);
    let mut out = Cursor::new(out);
    out.set_position(body_at as u64);
    decompress(&body[LENGTH_BYTES..], &mut out).map_err(|_| DecodeError::Compression)?;
    let out = out.into_inner();
    // The allocator may have given more than was asked for.
    if out.len() == whole { Ok(Bytes::from(out)) } else { Err(DecodeError::Compression) }
}

/// Decompresses a frame, and nothing beyond what `out` has room for.
fn decompress(frame: &[u8], out: &mut Cursor<Vec<u8>>) -> io::Result<usize> {
    // Each thread keeps what it works with, of 160 KiB. Measured: to make it anew takes 8 µs, and
    // 10 KiB of JSON take 6.
    thread_local! {
        static KEPT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(frame, out)
    })
}
