//! Codes the bodies of responses for clients, once for each coding, before they are stored.
//!
//! Invariants:
//! - What takes long runs beside the threads that serve requests, and no more of it at a time than
//!   half of the processors. No hit waits for it, and neither does the client of the fill.
//! - A fill goes on until its response is stored, and others join it until then. So nothing waits
//!   for longer than [`MAX_WAIT`], and what is longer than [`LONGEST`] is not coded at all: the
//!   levels that `check` allows take about a tenth of a second for that.
//! - A response is stored in any case: a body that cannot be coded, or not now, is stored as the
//!   origin sent it.
//! - What is coded is what the origin sent, and is smaller than that by an eighth.
//!
//! Knows nothing of routes and clients: the coding has been chosen.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::semantics::content_coding::{Coding, PlainReason};
use crate::semantics::digest::{Digest, Digester};
use crate::telemetry::metrics::Counter;

/// How long a body waits for others that are being coded, at most. Then it is stored as it is.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// The longest body that is coded.
pub const LONGEST: usize = 1 << 20;

/// The longest body that is coded by a thread that serves requests, in the order of
/// [`Coding::ALL`]. Measured at the usual levels: at most 140 µs each, on a busy machine.
const LONG: [usize; Coding::ALL.len()] = [4 << 10, 2 << 10, 4 << 10];

/// The highest levels at which that holds.
const QUICK_LEVELS: [u8; Coding::ALL.len()] = [9, 5, 6];

/// How brotli looks back at most: 4 MiB, which every decoder has room for.
const BROTLI_WINDOW: i32 = 22;

/// How many bytes the encoder of brotli gives away at once.
const BROTLI_PIECE: usize = 8 << 10;

/// A body to be coded.
#[derive(Clone, Debug)]
pub struct EncodeJob {
    /// The coding.
    pub coding: Coding,
    /// How thorough it is.
    pub level: u8,
    /// The status of the response.
    pub status: StatusCode,
    /// The body, which is whole.
    pub chunks: Vec<Bytes>,
}

/// A body that takes fewer bytes, and what it was made of.
#[derive(Clone, Debug)]
pub struct EncodedBody {
    /// The coded bytes.
    pub bytes: Bytes,
    /// The length of what the origin sent.
    pub length: u64,
    /// The digest of that and of the status.
    pub digest: Digest,
}

impl EncodeJob {
    /// The length of the body.
    #[must_use]
    pub fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether it takes so long that it runs beside the threads that serve requests.
    #[must_use]
    pub fn takes_long(&self) -> bool {
        let at = self.coding as usize;
        self.level > QUICK_LEVELS[at] || self.length() > LONG[at]
    }

    /// Codes the body. None if that saves too little.
    #[must_use]
    pub fn run(&self) -> Option<EncodedBody> {
        let length = self.length();
        let bytes = encoded(self.coding, self.level, &self.chunks, length)?;
        let mut digester = Digester::new(self.status);
        self.chunks.iter().for_each(|chunk| digester.update(chunk));
        Some(EncodedBody { bytes: bytes.into(), length: length as u64, digest: digester.finish() })
    }
}

/// The coded bytes. None if they are not fewer by an eighth, or if there is no memory for them.
fn encoded(coding: Coding, level: u8, chunks: &[Bytes], length: usize) -> Option<Vec<u8>> {
    let out = BoundedOutput::new(length - length / 8);
    let out = match coding {
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(out, i32::from(level)).ok()?;
            encoder.set_pledged_src_size(Some(length as u64)).ok()?;
            write_all(&mut encoder, chunks).ok()?;
            encoder.finish().ok()?
        }
        Coding::Brotli => {
            let params = BrotliEncoderParams {
                quality: i32::from(level),
                lgwin: BROTLI_WINDOW,
                size_hint: length,
                ..BrotliEncoderParams::default()
            };
            let mut encoder = CompressorWriter::with_params(out, BROTLI_PIECE, &params);
            write_all(&mut encoder, chunks).ok()?;
            encoder.into_inner()
        }
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::new(level.into()));
            write_all(&mut encoder, chunks).ok()?;
            encoder.finish().ok()?
        }
    };
    out.whole()
}

fn write_all(encoder: &mut impl Write, chunks: &[Bytes]) -> io::Result<()> {
    chunks.iter().try_for_each(|chunk| encoder.write_all(chunk))
}

/// Takes so many bytes at most: an encoder that makes more has saved too little.
struct BoundedOutput {
    bytes: Vec<u8>,
    most: usize,
    is_full: bool,
}

impl BoundedOutput {
    const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, is_full: false }
    }

    fn whole(mut self) -> Option<Vec<u8>> {
        self.bytes.shrink_to_fit();
        (!self.is_full).then_some(self.bytes)
    }
}

impl Write for BoundedOutput {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let has_room = piece.len() <= self.most - self.bytes.len();
        if !has_room || self.bytes.try_reserve(piece.len()).is_err() {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Codes bodies, a bounded number at once.
#[derive(Debug)]
pub struct Encoder {
    clock: Clock,
    running: Arc<Semaphore>,
    /// Counts of what it does.
    pub counters: EncoderCounters,
}

impl Encoder {
    /// One that has nothing to do.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            clock,
            running: Arc::new(Semaphore::new(processors.div_ceil(2))),
            counters: EncoderCounters::default(),
        }
    }

    /// Codes a body.
    ///
    /// # Errors
    /// Why it stays as it is.
    pub async fn encode(&self, job: EncodeJob) -> Result<EncodedBody, PlainReason> {
        let (coding, length) = (job.coding, job.length());
        let (clock, spent) = (self.clock.clone(), Arc::clone(&self.counters.of(coding).micros));
        let is_long = job.takes_long();
        let timed = move || {
            let begun = clock.now();
            let encoded = job.run();
            let spent_here = clock.now().saturating_duration_since(begun).as_micros();
            spent.add(u64::try_from(spent_here).unwrap_or(u64::MAX));
            encoded
        };
        let encoded = if is_long {
            let place = timeout(MAX_WAIT, Arc::clone(&self.running).acquire_owned()).await;
            let Ok(Ok(place)) = place else { return Err(PlainReason::Busy) };
            // The job has its place until it ends, even if nobody waits for it any more.
            let job = move || {
                let encoded = timed();
                drop(place);
                encoded
            };
            // Fail open: a runtime that shuts down codes nothing.
            spawn_blocking(job).await.map_err(|_| PlainReason::Busy)?
        } else {
            timed()
        };
        let encoded = encoded.ok_or(PlainReason::Incompressible)?;
        let counters = self.counters.of(coding);
        counters.bodies.inc();
        counters.original_bytes.add(length as u64);
        counters.coded_bytes.add(encoded.bytes.len() as u64);
        Ok(encoded)
    }
}

/// Counts of the bodies of routes that code them.
#[derive(Clone, Debug, Default)]
pub struct EncoderCounters {
    codings: [CodingCounters; Coding::ALL.len()],
    plain: [Arc<Counter>; PlainReason::ALL.len()],
    /// The bytes of hits that would have been fewer with a coding, by an estimate.
    pub missed_bytes: Arc<Counter>,
}

/// Counts of one coding.
#[derive(Clone, Debug, Default)]
pub struct CodingCounters {
    /// Bodies coded.
    pub bodies: Arc<Counter>,
    /// Their bytes as the origin sent them.
    pub original_bytes: Arc<Counter>,
    /// Their bytes as they are stored.
    pub coded_bytes: Arc<Counter>,
    /// The time that it took, in microseconds; that of bodies that became hardly smaller, too.
    pub micros: Arc<Counter>,
}

impl EncoderCounters {
    /// The counts of this coding.
    #[must_use]
    pub const fn of(&self, coding: Coding) -> &CodingCounters {
        &self.codings[coding as usize]
    }

    /// How many bodies were stored as they were, for this reason.
    #[must_use]
    pub const fn plain(&self, reason: PlainReason) -> &Arc<Counter> {
        &self.plain[reason as usize]
    }
}

#[cfg(test)]
mod tests;
