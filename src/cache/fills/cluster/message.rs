//! The name of a fill, and the message that it has ended, in the form that all sidecars share.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::coherence::TagSnapshot;
use crate::policy::key::KeyHash;
use crate::units::hex;

/// The name of a fill among all sidecars: a key, and the state of the tags that were read before
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillName(pub(super) [u8; 32]);

impl FillName {
    /// The name of a fill. `None` if the snapshot is incomplete or not from Redis: then no other
    /// sidecar can have the same.
    #[must_use]
    pub fn from_snapshot(hash: KeyHash, read: &TagSnapshot) -> Option<Self> {
        let TagSnapshot::Shared(_, reading) = read else { return None };
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(&hash.digest);
        part(&reading.generation.0);
        part(reading.fence.as_bytes());
        for (tag, _) in &reading.records {
            part(tag.as_str().as_bytes());
            match reading.nonce(tag) {
                Some(nonce) => part(&nonce.0),
                // For a tag without a record, only the absence of any purge can be shown (as in
                // `TagSnapshot::may_join`).
                None => part(&reading.seq?.to_be_bytes()),
            }
        }
        Some(Self(digest.finalize().into()))
    }

    fn parse(hex: &[u8]) -> Option<Self> {
        let hex: &[u8; 64] = hex.try_into().ok()?;
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .filter(|_| !digit.is_ascii_uppercase())
                .and_then(|d| u8::try_from(d).ok())
        };
        let mut name = [0; 32];
        for (byte, pair) in name.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(name))
    }
}

/// The outcome of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// Its response is stored.
    Stored,
    /// Its response may not be stored, and the next one hardly will be.
    Uncacheable,
    /// Nothing was stored: the origin failed, or there was a purge during the fill.
    NotStored,
}

impl RemoteOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Stored, Self::Uncacheable, Self::NotStored];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Uncacheable => "uncacheable",
            Self::NotStored => "nothing",
        }
    }
}

/// The message that a fill has ended: `NAME OUTCOME`.
pub(super) fn message(name: FillName, outcome: RemoteOutcome) -> Bytes {
    format!("{} {}", hex(&name.0), outcome.as_str()).into()
}

/// Parses such a message. Invalid messages are ignored, since anybody may publish.
pub(super) fn parse(message: &[u8]) -> Option<(FillName, RemoteOutcome)> {
    let (name, outcome) = message.split_at_checked(64)?;
    let outcome = RemoteOutcome::ALL
        .into_iter()
        .find(|known| outcome.strip_prefix(b" ") == Some(known.as_str().as_bytes()))?;
    Some((FillName::parse(name)?, outcome))
}
