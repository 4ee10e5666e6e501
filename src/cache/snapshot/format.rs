//! The bytes of a snapshot: a head, records, and an end, each with a MAC that covers all before it.
//!
//! Invariants: the decoder gives the records that the encoder was given, and reports the end only
//! if all of them were there. Any other bytes give a refusal, never a panic, and allocate no more
//! than the file holds.
//!
//! ```text
//! "SCMEM" version prover 0 | fingerprint (32) | date (8) | salt (16) | MAC (32)
//! length (4), not 0 | record | MAC (32)
//! 0 (4) | number of records (8) | MAC (32)
//! ```
//!
//! A record is an entry or a vary mark as Redis holds it (`entry/packed.rs`), with a checksum.
//! Numbers are big-endian. Each MAC is HMAC-SHA-256 over the MAC before it and the bytes since.

use std::io::{self, ErrorKind, Read, Write};

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::cache::entry::packed;
use crate::cache::snapshot::{SnapshotError, SnapshotProver, SnapshotRefusal};
use crate::clock::Wall;
use crate::policy::key;
use crate::secret::Hasher;

/// The version that is written, and the only one that is accepted.
const VERSION: u8 = 1;

pub(super) const MAGIC: &[u8; 5] = b"SCMEM";
const HEAD_BYTES: usize = 64;
const MAC_BYTES: usize = 32;
const END_BYTES: u64 = 4 + 8 + MAC_BYTES as u64;

/// What snapshots are authenticated with, and the configuration that they count for.
///
/// With a secret nobody can make one without knowing it. Without one the key is a constant: then
/// the MAC finds damage, and the owner and the mode of the file keep others from making one.
#[derive(Clone)]
pub struct SnapshotKey {
    mac: Hmac<Sha256>,
    fingerprint: [u8; 32],
}

impl std::fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotKey")
    }
}

impl SnapshotKey {
    /// For snapshots of a configuration that this text stands for, beside the secret in the hasher
    /// and the versions of keys and entries.
    #[must_use]
    pub fn new(hasher: &Hasher, configuration: &str) -> Self {
        let meaning = format!("{} {} {configuration}", key::VERSION, packed::VERSION);
        let fingerprint = hasher.digest("snapshot configuration", meaning.as_bytes());
        Self { mac: hasher.mac("snapshot"), fingerprint }
    }
}

/// The head of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotHead {
    /// How its entries are proven current.
    pub(super) prover: SnapshotProver,
    /// When it was written, by the machine's wall clock.
    pub(super) written: Wall,
}

/// The MAC over all that came before.
struct MacChain {
    key: Hmac<Sha256>,
    last: [u8; MAC_BYTES],
}

impl MacChain {
    fn new(key: &SnapshotKey) -> Self {
        Self { key: key.mac.clone(), last: [0; MAC_BYTES] }
    }

    fn next(&mut self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut mac = self.key.clone();
        mac.update(&self.last);
        for part in parts {
            mac.update(part);
        }
        self.last = mac.finalize().into_bytes().into();
        self.last
    }

    /// Whether these parts come next.
    fn accepts(&mut self, parts: &[&[u8]], mac: &[u8; MAC_BYTES]) -> bool {
        self.next(parts).ct_eq(mac).into()
    }
}

/// Writes a snapshot record by record.
pub(super) struct SnapshotEncoder<W> {
    out: W,
    chain: MacChain,
    records: u64,
    bytes: u64,
}

impl<W: Write> SnapshotEncoder<W> {
    /// Writes the head.
    pub(super) fn begin(mut out: W, key: &SnapshotKey, head: SnapshotHead) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, prover_byte(head.prover), 0]);
        bytes.extend_from_slice(&key.fingerprint);
        bytes.extend_from_slice(&head.written.0.to_be_bytes());
        bytes.extend_from_slice(&rand::random::<[u8; 16]>());
        let mut chain = MacChain::new(key);
        out.write_all(&bytes)?;
        out.write_all(&chain.next(&[&bytes]))?;
        Ok(Self { out, chain, records: 0, bytes: (HEAD_BYTES + MAC_BYTES) as u64 })
    }

    /// How long the file is once a record of this length is added, and the end.
    pub(super) const fn length_with(&self, record: usize) -> u64 {
        self.bytes + 4 + record as u64 + MAC_BYTES as u64 + END_BYTES
    }

    /// Adds a record.
    pub(super) fn record(&mut self, record: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(ErrorKind::FileTooLarge);
        let length = u32::try_from(record.len()).map_err(too_long)?.to_be_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(record)?;
        self.out.write_all(&self.chain.next(&[&length, record]))?;
        self.bytes += 4 + record.len() as u64 + MAC_BYTES as u64;
        self.records += 1;
        Ok(())
    }

    /// Writes the end. Returns the length of the file.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        let end = [&[0; 4][..], &self.records.to_be_bytes()].concat();
        self.out.write_all(&end)?;
        self.out.write_all(&self.chain.next(&[&end]))?;
        self.out.flush()?;
        Ok((self.out, self.bytes + END_BYTES))
    }
}

/// Reads a snapshot record by record. Nothing of it counts before the end was reached.
pub(super) struct SnapshotDecoder<R> {
    input: R,
    chain: MacChain,
    records: u64,
    /// How many bytes are left.
    left: u64,
}

impl<R: Read> SnapshotDecoder<R> {
    /// Reads the head of a snapshot of this length.
    pub(super) fn begin(
        input: R,
        length: u64,
        key: &SnapshotKey,
    ) -> Result<(Self, SnapshotHead), SnapshotError> {
        let mut decoder = Self { input, chain: MacChain::new(key), records: 0, left: length };
        let head: [u8; HEAD_BYTES] = decoder.array()?;
        if !head.starts_with(MAGIC) {
            return Err(SnapshotError::new(SnapshotRefusal::Foreign, "it is not a snapshot"));
        }
        if head[5] != VERSION {
            let why = format!("it has version {}, and this is version {VERSION}", head[5]);
            return Err(SnapshotError::new(SnapshotRefusal::Version, why));
        }
        if !bool::from(head[8..40].ct_eq(&key.fingerprint)) {
            let why = "it was made with another [upstream], [redis], secret or version";
            return Err(SnapshotError::new(SnapshotRefusal::Configuration, why));
        }
        let mac = decoder.array()?;
        if !decoder.chain.accepts(&[&head], &mac) {
            return Err(broken());
        }
        let prover = match head[6] {
            b'O' => SnapshotProver::Origin,
            b'R' => SnapshotProver::Records,
            _ => return Err(broken()),
        };
        let written = head[40..48].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Ok((decoder, SnapshotHead { prover, written: Wall(written) }))
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let length: [u8; 4] = self.array()?;
        let count = u32::from_be_bytes(length);
        if count == 0 {
            let records: [u8; 8] = self.array()?;
            let mac = self.array()?;
            let whole = self.chain.accepts(&[&length, &records], &mac)
                && u64::from_be_bytes(records) == self.records
                && self.left == 0;
            return if whole { Ok(None) } else { Err(broken()) };
        }
        if u64::from(count) > self.left {
            return Err(broken());
        }
        let mut record = vec![0; usize::try_from(count).map_err(|_| broken())?];
        self.fill(&mut record)?;
        let mac = self.array()?;
        if !self.chain.accepts(&[&length, &record], &mac) {
            return Err(broken());
        }
        self.records += 1;
        Ok(Some(record.into()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(broken)?;
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => broken(),
            _ => error.into(),
        })
    }
}

const fn prover_byte(prover: SnapshotProver) -> u8 {
    match prover {
        SnapshotProver::Origin => b'O',
        SnapshotProver::Records => b'R',
    }
}

pub(super) fn broken() -> SnapshotError {
    let why = "it is damaged, not whole, or was not written by this sidecar";
    SnapshotError::new(SnapshotRefusal::Broken, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(secret: &[u8]) -> SnapshotKey {
        SnapshotKey::new(&Hasher::new(secret), "app")
    }

    const HEAD: SnapshotHead = SnapshotHead { prover: SnapshotProver::Origin, written: Wall(7) };

    fn written(records: &[&[u8]]) -> Vec<u8> {
        let mut encoder = SnapshotEncoder::begin(Vec::new(), &key(b"a"), HEAD).expect("memory");
        for record in records {
            encoder.record(record).expect("memory");
        }
        let expected = encoder.length_with(0) - 4 - MAC_BYTES as u64;
        let (bytes, length) = encoder.finish().expect("memory");
        assert_eq!((bytes.len() as u64, length), (expected, expected));
        bytes
    }

    fn decoded(bytes: &[u8], key: &SnapshotKey) -> Result<Vec<Bytes>, SnapshotRefusal> {
        let all = || {
            let (mut decoder, head) = SnapshotDecoder::begin(bytes, bytes.len() as u64, key)?;
            assert_eq!(head, HEAD);
            let mut records = Vec::new();
            while let Some(record) = decoder.next()? {
                records.push(record);
            }
            Ok(records)
        };
        all().map_err(|error: SnapshotError| error.refusal)
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        for records in [&[][..], &[&b"a"[..], b"longer"]] {
            assert_eq!(decoded(&written(records), &key(b"a")).expect("whole"), records);
        }
    }

    /// Written by version 1. It must stay readable for as long as version 1 is accepted.
    #[test]
    fn the_fixture_of_version_1_is_read() {
        let fixture = include_bytes!("fixtures/snapshot-v1.bin");
        let key = SnapshotKey { mac: Hasher::new(b"a").mac("snapshot"), fingerprint: [1; 32] };
        assert_eq!(decoded(fixture, &key).expect("whole"), [&b"one"[..], b"two"]);
    }

    #[test]
    fn every_shortened_or_longer_file_is_broken() {
        let whole = written(&[b"one", b"two"]);
        for length in 0..whole.len() {
            assert_eq!(
                decoded(&whole[..length], &key(b"a")),
                Err(SnapshotRefusal::Broken),
                "{length}"
            );
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(decoded(&longer, &key(b"a")), Err(SnapshotRefusal::Broken));
    }

    #[test]
    fn records_cannot_be_moved_dropped_or_taken_from_another_file() {
        let (one, two) = (written(&[b"aaaa", b"bbbb"]), written(&[b"cccc", b"dddd"]));
        let record = |at: usize| {
            let begin = HEAD_BYTES + MAC_BYTES + at * (4 + 4 + MAC_BYTES);
            begin..begin + 4 + 4 + MAC_BYTES
        };
        let mut moved = one.clone();
        moved[record(0)].copy_from_slice(&one[record(1)]);
        moved[record(1)].copy_from_slice(&one[record(0)]);
        let mut dropped = one.clone();
        dropped.drain(record(1));
        let mut foreign = one.clone();
        foreign[record(0)].copy_from_slice(&two[record(0)]);
        for bytes in [moved, dropped, foreign] {
            assert_eq!(decoded(&bytes, &key(b"a")), Err(SnapshotRefusal::Broken));
        }
    }

    #[test]
    fn another_secret_configuration_version_or_format_is_refused() {
        let whole = written(&[b"a"]);
        let other = SnapshotKey::new(&Hasher::new(b"a"), "another app");
        for key in [key(b"b"), other] {
            assert_eq!(decoded(&whole, &key), Err(SnapshotRefusal::Configuration));
        }
        // SECURITY: forged by somebody who knows the configuration, but not the secret.
        let forging = SnapshotKey { mac: key(b"b").mac, ..key(b"a") };
        let forged = SnapshotEncoder::begin(Vec::new(), &forging, HEAD).expect("memory");
        let (forged, _) = forged.finish().expect("memory");
        assert_eq!(decoded(&forged, &key(b"a")), Err(SnapshotRefusal::Broken));
        let mut newer = whole.clone();
        newer[5] += 1;
        assert_eq!(decoded(&newer, &key(b"a")), Err(SnapshotRefusal::Version));
        let text = [b'x'; 200];
        assert_eq!(decoded(&text, &key(b"a")), Err(SnapshotRefusal::Foreign));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(at in 0_usize..400, bit in 0_u8..8) {
            let mut bytes = written(&[b"one", b"2", b"three"]);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decoded(&bytes, &key(b"a")).is_err());
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decoded(&bytes, &key(b"a")).is_err());
        }
    }
}
