//! The keys by which tokens are verified: of a JWKS (RFC 7517), of PEM files, or one secret.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::ring_backend;
use super::spki::{PublicKey, modulus_bits, public_key};

/// The largest JWKS, in bytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
/// The most keys of a JWKS, usable or not.
pub const MAX_JWKS_KEYS: usize = 100;
/// The longest id of a key, in bytes.
const MAX_KEY_ID_BYTES: usize = 256;
/// The smallest and the largest modulus of an RSA key, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key.
#[derive(Clone)]
pub struct VerifyKey {
    /// Its id, if it has one.
    pub id: Option<Box<str>>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    kind: KeyKind,
    key: DecodingKey,
    /// Names the key: a digest of it, its kind, its algorithm and its id.
    pub print: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum KeyKind {
    Secret = 1,
    Rsa = 2,
    P256 = 3,
    P384 = 4,
    Ed25519 = 5,
}

/// Why a set of keys is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is no JSON object with a list `keys`.
    #[error("it is not a JWKS, a JSON object with a list `keys`")]
    NotJwks,
    /// It is too large.
    #[error("it is larger than {} KiB", MAX_JWKS_BYTES / 1024)]
    TooLarge,
    /// It has too many keys.
    #[error("it has more than {MAX_JWKS_KEYS} keys")]
    TooManyKeys,
    /// None of its keys can be used.
    #[error("it has {0} keys, and none for the algorithms that are named")]
    NoneUsable(usize),
    /// It is no public key in PEM.
    #[error("it holds no PUBLIC KEY in PEM (RSA of 2048 to 8192 bits, P-256, P-384, Ed25519)")]
    NotPem,
}

impl VerifyKey {
    fn new(
        kind: KeyKind,
        key: DecodingKey,
        id: Option<&str>,
        algorithm: Option<Algorithm>,
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update([kind as u8]);
        digest.update(format!("{algorithm:?} {id:?} "));
        match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => digest.update(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                digest.update((n.len() as u64).to_be_bytes());
                digest.update(n);
                digest.update(e);
            }
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut print = [0; 16];
        print.copy_from_slice(&digest[..16]);
        Self { id: id.map(Into::into), algorithm, kind, key, print }
    }

    /// A shared secret.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self::new(KeyKind::Secret, DecodingKey::from_secret(secret), None, None)
    }

    /// The key of a JWK; `None` for one that is not for verifying signatures, of an unknown kind,
    /// or a secret, which no JWKS may hold.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|is| *is == PublicKeyUse::Signature);
        let operations = common.key_operations.as_deref();
        let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        let algorithm = match common.key_algorithm {
            None => None,
            Some(named) => Some(named.to_string().parse().ok()?),
        };
        let id = common.key_id.as_deref();
        if !signs || !verifies || id.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let length = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            DecodingKeyKind::RsaModulusExponent { n, .. } => modulus_bits(n),
        };
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) if RSA_BITS.contains(&length) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 if length == 65 => KeyKind::P256,
                EllipticCurve::P384 if length == 97 => KeyKind::P384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair)
                if pair.curve == EllipticCurve::Ed25519 && length == 32 =>
            {
                KeyKind::Ed25519
            }
            // SECURITY: whoever can read a JWKS could sign with a secret that is in it.
            _ => return None,
        };
        Some(Self::new(kind, key, id, algorithm))
    }

    /// Whether it verifies signatures by this algorithm.
    #[must_use]
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        let fits = match self.kind {
            KeyKind::Secret => algorithm.family() == AlgorithmFamily::Hmac,
            KeyKind::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            KeyKind::P256 => algorithm == Algorithm::ES256,
            KeyKind::P384 => algorithm == Algorithm::ES384,
            KeyKind::Ed25519 => algorithm == Algorithm::EdDSA,
        };
        fits && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether it may have signed a token with this id in its header. A key without an id, or a
    /// token without one, may be any.
    pub(super) fn may_be(&self, id: Option<&str>) -> bool {
        match (self.id.as_deref(), id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        }
    }

    /// Whether this signature of `message` is that of the key.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        self.is_for(algorithm) && ring_backend::verify(signature, message, &self.key, algorithm)
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: it may be a secret.
        f.debug_struct("VerifyKey")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The keys of a JWKS that are for one of these algorithms. Keys of other kinds are passed over.
///
/// # Errors
/// When it is no JWKS, has too many keys, or none that can be used.
pub fn parse_jwks(text: &[u8], algorithms: &[Algorithm]) -> Result<Vec<VerifyKey>, KeySetError> {
    if text.len() > MAX_JWKS_BYTES {
        return Err(KeySetError::TooLarge);
    }
    let mut set: Value = serde_json::from_slice(text).map_err(|_| KeySetError::NotJwks)?;
    let Some(Value::Array(list)) = set.get_mut("keys").map(Value::take) else {
        return Err(KeySetError::NotJwks);
    };
    let count = list.len();
    if count > MAX_JWKS_KEYS {
        return Err(KeySetError::TooManyKeys);
    }
    let keys: Vec<VerifyKey> = list
        .into_iter()
        .filter_map(|one| serde_json::from_value::<Jwk>(one).ok())
        .filter_map(|jwk| VerifyKey::from_jwk(&jwk))
        .filter(|key| algorithms.iter().any(|algorithm| key.is_for(*algorithm)))
        .collect();
    if keys.is_empty() { Err(KeySetError::NoneUsable(count)) } else { Ok(keys) }
}

/// The public keys of a PEM file.
///
/// # Errors
/// When there is none, or one that cannot be used.
pub fn parse_pem(text: &[u8]) -> Result<Vec<VerifyKey>, KeySetError> {
    let mut keys = Vec::new();
    for found in SubjectPublicKeyInfoDer::pem_slice_iter(text).take(MAX_JWKS_KEYS) {
        let der = found.map_err(|_| KeySetError::NotPem)?;
        let (kind, key) = match public_key(&der).ok_or(KeySetError::NotPem)? {
            PublicKey::Rsa(key, bits) if RSA_BITS.contains(&bits) => (KeyKind::Rsa, key),
            PublicKey::Rsa(..) => return Err(KeySetError::NotPem),
            PublicKey::P256(key) => (KeyKind::P256, key),
            PublicKey::P384(key) => (KeyKind::P384, key),
            PublicKey::Ed25519(key) => (KeyKind::Ed25519, key),
        };
        keys.push(VerifyKey::new(kind, key, None, None));
    }
    if keys.is_empty() { Err(KeySetError::NotPem) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    /// RFC 7515 A.2: a token signed by RS256, and its key; with the sign byte that some issuers
    /// write.
    #[test]
    fn an_rsa_signature_of_the_rfc_is_verified() {
        const MODULUS: &str = "\
            ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJ\
            PMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0\
            LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uD\
            Zlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2\
            PAcDTW9gb54h4FRWyuXpoQ";
        const SIGNATURE: &str = "\
            cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF\
            5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK\
            5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt\
            FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
            p0igcN_IoypGlUPQGe77Rw";
        const MESSAGE: &str = "\
            eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9\
            leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let padded = URL_SAFE_NO_PAD
            .encode([&[0][..], &URL_SAFE_NO_PAD.decode(MODULUS).expect("base64")].concat());
        for n in [MODULUS, &padded] {
            let key = json!({ "kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256" });
            let text = json!({ "keys": [key] }).to_string();
            let keys = parse_jwks(text.as_bytes(), &[Algorithm::RS256]).expect("a key");
            let key = &keys[0];
            assert!(key.verifies(Algorithm::RS256, MESSAGE.as_bytes(), SIGNATURE));
            assert!(!key.verifies(Algorithm::RS256, b"another", SIGNATURE));
            assert!(!key.verifies(Algorithm::PS256, MESSAGE.as_bytes(), SIGNATURE));
            assert!(!key.verifies(Algorithm::HS256, MESSAGE.as_bytes(), SIGNATURE));
        }
    }
}
