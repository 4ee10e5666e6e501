//! Verifies signatures with `ring`, in the place of a backend of `jsonwebtoken`.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{error::Unspecified, hmac};

static PROVIDER: CryptoProvider = CryptoProvider {
    // Nothing here signs.
    signer_factory: |_, _| Err(unsupported()),
    verifier_factory: |algorithm, key| {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
    },
    // Only conversions of private keys need it.
    jwk_utils: JwkUtils::new_unimplemented(),
};

fn unsupported() -> Error {
    ErrorKind::InvalidAlgorithm.into()
}

/// Whether this signature of `message` is that of the key.
pub(super) fn verify(
    signature: &str,
    message: &[u8],
    key: &DecodingKey,
    algorithm: Algorithm,
) -> bool {
    static INSTALL: Once = Once::new();
    // The provider counts for the whole process, in which nothing else uses `jsonwebtoken`.
    INSTALL.call_once(|| {
        let _ = PROVIDER.install_default();
    });
    jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        verified(self.algorithm, &self.key, message, signature).map_err(|_| signature::Error::new())
    }
}

fn verified(
    algorithm: Algorithm,
    key: &DecodingKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Unspecified> {
    let by_secret = |hash: hmac::Algorithm| {
        let secret = key.try_get_hmac_secret().map_err(|_| Unspecified)?;
        hmac::verify(&hmac::Key::new(hash, secret), message, signature)
    };
    let by_rsa = |parameters: &'static RsaParameters| match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
        }
        DecodingKeyKind::SecretOrDer(der) => {
            UnparsedPublicKey::new(parameters, der).verify(message, signature)
        }
    };
    let by_curve = |parameters: &'static dyn VerificationAlgorithm| match key.kind() {
        DecodingKeyKind::SecretOrDer(point) => {
            UnparsedPublicKey::new(parameters, point).verify(message, signature)
        }
        DecodingKeyKind::RsaModulusExponent { .. } => Err(Unspecified),
    };
    // SECURITY: a key is of one family, so that no public key is ever taken for a secret.
    if key.family() != algorithm.family() {
        return Err(Unspecified);
    }
    match algorithm {
        Algorithm::HS256 => by_secret(hmac::HMAC_SHA256),
        Algorithm::HS384 => by_secret(hmac::HMAC_SHA384),
        Algorithm::HS512 => by_secret(hmac::HMAC_SHA512),
        Algorithm::RS256 => by_rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => by_rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => by_rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => by_rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => by_rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => by_rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => by_curve(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => by_curve(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => by_curve(&ED25519),
    }
}

/// Some issuers write the sign byte of ASN.1, which RFC 7518 6.3.1.1 forbids and `ring` refuses.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|&byte| byte != 0).unwrap_or(number.len());
    &number[start..]
}
