//! Nonces, which stand for states of tags, and stamps, which say in what states an entry was
//! stored.

use std::fmt;

use crate::policy::tag::Tag;
use crate::units::{hex, short_hex};

/// A value that stands for one state of a tag, or of the whole cache. Every purge makes a new one.
///
/// It has two halves. A hard purge makes both at random. A soft purge keeps the first half; the
/// second half is then the time, 44 bits of milliseconds of Redis's clock, and 20 bits of the
/// purge's step. So if two states have the same first half, only soft purges came between them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A random value, which no other state has.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// If only soft purges led from the earlier state to this one, the time of the last of them, in
    /// milliseconds of Redis's clock. `None` if the states are equal, or if anything else came
    /// between.
    #[must_use]
    pub fn soft_purged_from(self, earlier: Self) -> Option<u64> {
        let (now, then) = (u128::from_be_bytes(self.0), u128::from_be_bytes(earlier.0));
        let soft = now & u128::from(u64::MAX);
        // The value has 44 bits, so the conversion never fails.
        if now != then && now >> 64 == then >> 64 { u64::try_from(soft >> 20).ok() } else { None }
    }

    /// Parses 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        if digits.len() != 32 {
            return None;
        }
        let mut nonce = [0; 16];
        let mut are_digits = true;
        for (byte, pair) in nonce.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (hex_digit(pair[0]), hex_digit(pair[1]));
            are_digits &= high < 16 && low < 16;
            *byte = high << 4 | low;
        }
        are_digits.then_some(Self(nonce))
    }

    /// Formats 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// The value of a hexadecimal digit; 255 of any other byte.
const fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => u8::MAX,
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", short_hex(&self.0))
    }
}

/// What the records in Redis said when an entry was stored. The entry is current while they still
/// say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The generation of the whole cache.
    pub generation: Nonce,
    /// The nonce of each tag.
    pub tags: Box<[(Tag, Nonce)]>,
}

/// The item that fits, looked for from where the last one was found: lists of the tags of one entry
/// have the same order, and an entry may have thousands.
pub(super) fn find_from<'a, T>(
    items: &'a [T],
    from: &mut usize,
    fits: impl Fn(&T) -> bool,
) -> Option<&'a T> {
    let (before, after) = items.split_at((*from).min(items.len()));
    let found = after.iter().position(&fits).map(|at| at + before.len());
    let found = found.or_else(|| before.iter().position(&fits))?;
    *from = found + 1;
    items.get(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_survives_its_digits() {
        let nonce = Nonce::random();
        assert_eq!(Nonce::from_hex(nonce.to_hex().as_bytes()), Some(nonce));
        assert_eq!(Nonce::from_hex(b"zz"), None);
        let upper = nonce.to_hex().to_uppercase();
        assert_eq!(Nonce::from_hex(upper.as_bytes()), Some(nonce));
        // Each byte at each place: no other than a digit is read, not even a sign before one.
        for (at, byte) in (0..32).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut digits = [b'7'; 32];
            digits[at] = byte;
            let read = Nonce::from_hex(&digits);
            assert_eq!(read.is_some(), byte.is_ascii_hexdigit(), "{byte} at {at}");
            if let Some(read) = read {
                let written = read.to_hex();
                assert!(written.as_bytes().eq_ignore_ascii_case(&digits), "{written}");
            }
        }
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
