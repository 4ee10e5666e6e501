//! What goes to Redis and comes from it: entries are packed and unpacked here, with their bodies in
//! compressed form where `[redis] compress` says so.
//!
//! Invariants:
//! - What takes long runs beside the threads that serve requests, and no more of it at a time than
//!   there are processors. A hit never waits for what is being stored.
//! - An entry is stored and served in any case: a body that cannot be compressed, or not now, is
//!   stored as it is.

use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::cache::entry::packed::{CompressedBody, DecodeError, Seal, Unpacked};
use crate::cache::entry::{Entry, VaryMark, packed};
use crate::cache::store::counters::{BodyForm, PackingCounters};
use crate::clock::{Clock, Wall};
use crate::coherence::stamp::Stamp;
use crate::redis::BodyCompression;
use crate::semantics::media_type::is_compressible;

/// The longest body that is compressed by a thread that serves requests. Measured at level 3:
/// 10 KiB of JSON take 30 µs, 32 KiB of HTML 84 µs.
const LONG_TO_COMPRESS: u64 = 16 << 10;

/// The highest level at which that holds.
const QUICK_LEVEL: u8 = 6;

/// The longest body that is decompressed by a thread that serves requests. Measured: 97 kB of JSON
/// take 60 µs.
const LONG_TO_DECOMPRESS: u64 = 64 << 10;

/// How many bodies may be compressed or wait for it. Further ones are stored as they are.
const MAX_COMPRESSIONS: usize = 64;

/// `min_size` of bodies that would be compressed, where nothing is.
const USUAL_MIN_SIZE: u64 = 1 << 10;

/// Packs and unpacks entries.
#[derive(Debug)]
pub(super) struct Packing {
    seal: Seal,
    compression: Option<BodyCompression>,
    /// The longest body that is unpacked.
    longest: u64,
    clock: Clock,
    compressions: Arc<Semaphore>,
    compressing: Arc<Semaphore>,
    decompressing: Arc<Semaphore>,
    counters: PackingCounters,
}

impl Packing {
    pub(super) fn new(seal: Seal, longest: u64, clock: Clock, counters: PackingCounters) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        let places = |most| Arc::new(Semaphore::new(most));
        Self {
            seal,
            compression: None,
            longest,
            clock,
            compressions: places(MAX_COMPRESSIONS),
            compressing: places(processors.div_ceil(2)),
            decompressing: places(processors),
            counters,
        }
    }

    pub(super) fn with_compression(self, compression: Option<BodyCompression>) -> Self {
        Self { compression, ..self }
    }

    /// Packs an entry, whose times are by the clock of Redis.
    pub(super) async fn pack(&self, entry: &Entry, stamp: &Stamp, received: Wall) -> Bytes {
        let plain = entry.body.len() as u64;
        let (form, stored, bytes) = match self.compressed(entry).await {
            Ok(body) => {
                let bytes = packed::pack_compressed((entry, &body), stamp, received, &self.seal);
                (BodyForm::Compressed, body.as_bytes().len() as u64, bytes)
            }
            Err(form) => (form, plain, packed::pack(entry, stamp, received, &self.seal)),
        };
        self.counters.of(form).inc();
        self.counters.original_bytes.add(plain);
        self.counters.stored_bytes.add(stored);
        bytes
    }

    /// Packs a vary mark.
    pub(super) fn pack_vary(&self, mark: &VaryMark) -> Bytes {
        packed::pack_vary(mark, &self.seal)
    }

    /// Compresses the body of an entry; or says in which form it is stored otherwise.
    async fn compressed(&self, entry: &Entry) -> Result<CompressedBody, BodyForm> {
        let (length, setting) = (entry.body.len() as u64, self.compression);
        judge(
            &entry.headers(),
            length,
            setting.map_or(USUAL_MIN_SIZE, |setting| setting.min_size),
        )?;
        let level = setting.ok_or(BodyForm::Off)?.level;
        let (body, clock) = (entry.body.clone(), self.clock.clone());
        let spent = Arc::clone(&self.counters.compress_micros);
        let job = move || {
            let begun = clock.now();
            let compressed = CompressedBody::of(&body, level);
            spent.add(micros(&clock, begun));
            compressed
        };
        let compressed = if length <= LONG_TO_COMPRESS && level <= QUICK_LEVEL {
            job()
        } else {
            let _waits = self.compressions.try_acquire().map_err(|_| BodyForm::Busy)?;
            beside(&self.compressing, job).await.ok_or(BodyForm::Busy)?
        };
        compressed.ok_or(BodyForm::Incompressible)
    }

    /// Unpacks bytes of Redis. `own` says that the result will be kept, and so must share no memory
    /// with them: they are a slice of the read buffer of fred.
    pub(super) async fn unpack(&self, bytes: &Bytes, own: bool) -> Option<Unpacked> {
        let compressed = packed::stated_length(bytes);
        let unpacked = match compressed {
            None => {
                let bytes = if own { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
                packed::unpack(&bytes, &self.seal, self.longest)
            }
            Some(length) => self.inflated(bytes, length).await,
        };
        unpacked
            .inspect_err(|error| {
                self.counters.decode_errors.inc();
                if *error == DecodeError::Compression {
                    self.counters.decompress_errors.inc();
                }
                tracing::debug!(
                    error = error.as_str(),
                    "bytes in Redis are not an entry of this version; counted as a miss"
                );
            })
            .map(|mut unpacked| {
                if own && let Unpacked::Entry(entry, _) = &mut unpacked {
                    let plain = |_| packed::bytes_before_body(bytes) + entry.body.len();
                    entry.settle_in(compressed.map_or(bytes.len(), plain));
                }
                unpacked
            })
            .ok()
    }

    /// Unpacks an entry whose body is compressed, and says that it is of this length.
    async fn inflated(&self, bytes: &Bytes, length: u64) -> Result<Unpacked, DecodeError> {
        let (seal, longest, clock) = (self.seal.clone(), self.longest, self.clock.clone());
        let spent = Arc::clone(&self.counters.decompress_micros);
        let is_long = length.max(bytes.len() as u64) > LONG_TO_DECOMPRESS && length <= longest;
        let bytes = bytes.clone();
        let job = move || {
            let begun = clock.now();
            let unpacked = packed::unpack(&bytes, &seal, longest);
            spent.add(micros(&clock, begun));
            unpacked
        };
        let unpacked = if is_long {
            // Fail open: an entry that could not be unpacked is a miss.
            beside(&self.decompressing, job).await.unwrap_or(Err(DecodeError::Compression))
        } else {
            job()
        };
        unpacked.inspect(|_| self.counters.decompressed.inc())
    }
}

/// Whether a body is to be compressed, and why not otherwise.
fn judge(headers: &HeaderMap, length: u64, min_size: u64) -> Result<(), BodyForm> {
    let is_identity =
        |coding: &http::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if length < min_size {
        Err(BodyForm::Small)
    } else if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        Err(BodyForm::Coded)
    } else if is_compressible(headers) {
        Ok(())
    } else {
        Err(BodyForm::Type)
    }
}

/// Runs a job beside the threads that serve requests, once there is a place. The job has its place
/// until it ends, even if nobody waits for it any more. None if the runtime is shutting down.
async fn beside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place: OwnedSemaphorePermit = Arc::clone(places).acquire_owned().await.ok()?;
    let job = move || {
        let done = job();
        drop(place);
        done
    };
    spawn_blocking(job).await.ok()
}

fn micros(clock: &Clock, since: std::time::Instant) -> u64 {
    let spent = clock.now().saturating_duration_since(since);
    u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
