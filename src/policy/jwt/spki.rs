//! A public key in DER (RFC 5280 4.1.2.7, `SubjectPublicKeyInfo`): which kind it is, and its bytes.

use jsonwebtoken::DecodingKey;

/// The identifiers of algorithms and curves, as DER writes them.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The size of the number that an RSA key is measured by, in bits.
pub(super) fn modulus_bits(n: &[u8]) -> usize {
    let start = n.iter().position(|&byte| byte != 0).unwrap_or(n.len());
    let n = &n[start..];
    n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize)
}

/// What a key in DER is.
#[derive(Debug)]
pub(super) enum PublicKey {
    /// With the bits of its modulus.
    Rsa(DecodingKey, usize),
    P256(DecodingKey),
    P384(DecodingKey),
    Ed25519(DecodingKey),
}

/// Reads a `SubjectPublicKeyInfo`. `None` for what is none, or of another kind.
pub(super) fn public_key(der: &[u8]) -> Option<PublicKey> {
    let (info, rest) = take(der, SEQUENCE)?;
    let (algorithm, after) = take(info, SEQUENCE)?;
    let (bits, end) = take(after, BIT_STRING)?;
    let (kind, parameters) = take(algorithm, OBJECT_ID)?;
    // The first byte counts the unused bits of the last one.
    let key = bits.strip_prefix(&[0])?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    match kind {
        RSA => {
            let (numbers, rest) = take(key, SEQUENCE)?;
            let (modulus, _) = take(numbers, INTEGER)?;
            let bits = modulus_bits(modulus);
            rest.is_empty().then(|| PublicKey::Rsa(DecodingKey::from_rsa_der(key), bits))
        }
        EC => match take(parameters, OBJECT_ID)?.0 {
            P256 if key.len() == 65 => Some(PublicKey::P256(DecodingKey::from_ec_der(key))),
            P384 if key.len() == 97 => Some(PublicKey::P384(DecodingKey::from_ec_der(key))),
            _ => None,
        },
        ED25519 if key.len() == 32 => Some(PublicKey::Ed25519(DecodingKey::from_ed_der(key))),
        _ => None,
    }
}

/// The content of an element with this tag at the start, and what comes after it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = public_key(&bytes);
        }

        #[test]
        fn no_elements_panic(tags in proptest::collection::vec(
            prop_oneof![Just(SEQUENCE), Just(OBJECT_ID), Just(BIT_STRING), Just(0x82), 0u8..8],
            0..24,
        )) {
            let _ = public_key(&tags);
        }
    }
}
