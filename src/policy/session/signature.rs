//! Verifies the signatures of session cookies, and takes the cookies apart.
//!
//! Each format was checked against its framework: `tests/sessions` holds what they make.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::policy::session::fault::SessionFault;
use crate::policy::session::format::SessionFormat;
use crate::policy::session::payload::MAX_PAYLOAD;
use crate::secret::Secret;

/// The salt of Flask's `SecureCookieSessionInterface`.
const FLASK_SALT: &[u8] = b"cookie-session";
/// The salt of `django.contrib.sessions.backends.signed_cookies`, and what `Signer` adds to it.
const DJANGO_SALT: &[u8] = b"django.contrib.sessions.backends.signed_cookiessigner";

/// The keys that sign a cookie, made of the secrets.
pub(super) enum SignatureKeys {
    Flask(Box<[Hmac<Sha1>]>),
    Django(Box<[Hmac<Sha256>]>),
    Express(Box<[Hmac<Sha1>]>),
}

/// What a right signature covers.
#[derive(Debug)]
pub(super) struct SignedText {
    /// The payload, decoded and inflated.
    pub(super) payload: Vec<u8>,
    /// When it was signed, in seconds since the epoch.
    pub(super) signed: Option<u64>,
}

impl SignatureKeys {
    pub(super) fn new(format: SessionFormat, secrets: &[Secret]) -> Self {
        let bytes = secrets.iter().map(|secret| secret.expose().as_bytes());
        match format {
            SessionFormat::Flask => {
                let derived = bytes.map(|secret| {
                    let mut mac = sha1_mac(secret);
                    mac.update(FLASK_SALT);
                    sha1_mac(&mac.finalize().into_bytes())
                });
                Self::Flask(derived.collect())
            }
            SessionFormat::Django => {
                let derived = bytes.map(|secret| {
                    let key = Sha256::new().chain_update(DJANGO_SALT).chain_update(secret);
                    sha256_mac(&key.finalize())
                });
                Self::Django(derived.collect())
            }
            SessionFormat::Express => Self::Express(bytes.map(sha1_mac).collect()),
        }
    }

    /// What the cookie says, if one of the keys has signed it. `signature` is the value of the
    /// cookie that holds it, where it is one of its own.
    pub(super) fn verify(
        &self,
        name: &str,
        value: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<SignedText, SessionFault> {
        match self {
            Self::Flask(keys) => {
                let (text, signature) = split_last(value, b'.')?;
                let (payload, time) = split_last(text, b'.')?;
                let signature = url_safe(signature).ok_or(SessionFault::Malformed)?;
                if !keys.iter().any(|key| key.clone().chain_update(text).is(&signature)) {
                    return Err(SessionFault::BadSignature);
                }
                let time = url_safe(time).filter(|time| !time.is_empty() && time.len() <= 8);
                let time = time.ok_or(SessionFault::Malformed)?;
                let seconds = time.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                Ok(SignedText { payload: decoded(payload)?, signed: Some(seconds) })
            }
            Self::Django(keys) => {
                let (text, signature) = split_last(value, b':')?;
                let (payload, time) = split_last(text, b':')?;
                let signature = url_safe(signature).ok_or(SessionFault::Malformed)?;
                if !keys.iter().any(|key| key.clone().chain_update(text).is(&signature)) {
                    return Err(SessionFault::BadSignature);
                }
                let seconds = base62(time).ok_or(SessionFault::Malformed)?;
                Ok(SignedText { payload: decoded(payload)?, signed: Some(seconds) })
            }
            Self::Express(keys) => {
                let signature = signature.ok_or(SessionFault::NoSignature)?;
                let signature = url_safe(signature).ok_or(SessionFault::Malformed)?;
                let signs = |key: &Hmac<Sha1>| {
                    let text = key.clone().chain_update(name).chain_update(b"=");
                    text.chain_update(value).is(&signature)
                };
                if !keys.iter().any(signs) {
                    return Err(SessionFault::BadSignature);
                }
                let payload =
                    BASE64_STANDARD.decode(value).map_err(|_| SessionFault::Unreadable)?;
                Ok(SignedText { payload, signed: None })
            }
        }
    }
}

/// The payload of a cookie whose signature has a time, as it is written.
///
/// SECURITY: nothing is verified. For suggestions alone.
pub(super) fn unverified_payload(format: SessionFormat, value: &[u8]) -> Option<Vec<u8>> {
    let separator = match format {
        SessionFormat::Flask => b'.',
        SessionFormat::Django => b':',
        SessionFormat::Express => return None,
    };
    let (text, _) = split_last(value, separator).ok()?;
    let (payload, _) = split_last(text, separator).ok()?;
    decoded(payload).ok()
}

/// Compares a signature in constant time.
trait IsSignature {
    fn is(self, signature: &[u8]) -> bool;
}

impl<M: hmac::Mac> IsSignature for M {
    fn is(self, signature: &[u8]) -> bool {
        self.verify_slice(signature).is_ok()
    }
}

/// HMAC accepts a key of any length, but only through a fallible constructor.
fn sha1_mac(key: &[u8]) -> Hmac<Sha1> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn sha256_mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// What stands before and after the last separator; neither is empty.
fn split_last(text: &[u8], separator: u8) -> Result<(&[u8], &[u8]), SessionFault> {
    let at = text.iter().rposition(|&byte| byte == separator).ok_or(SessionFault::Malformed)?;
    let (before, after) = (&text[..at], &text[at + 1..]);
    if before.is_empty() || after.is_empty() {
        return Err(SessionFault::Malformed);
    }
    Ok((before, after))
}

fn url_safe(text: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// The payload of Flask and Django: base64, after a `.` compressed.
fn decoded(payload: &[u8]) -> Result<Vec<u8>, SessionFault> {
    let Some(compressed) = payload.strip_prefix(b".") else {
        return url_safe(payload).ok_or(SessionFault::Unreadable);
    };
    let compressed = url_safe(compressed).ok_or(SessionFault::Unreadable)?;
    // SECURITY: a cookie of 4 KiB may inflate to 4 MiB.
    decompress_to_vec_zlib_with_limit(&compressed, MAX_PAYLOAD).map_err(|error| {
        match error.status {
            TINFLStatus::HasMoreOutput => SessionFault::TooLarge,
            _ => SessionFault::Unreadable,
        }
    })
}

/// Django's time: seconds in base 62, digits first, then capitals.
fn base62(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |sum, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        sum.checked_mul(62)?.checked_add(u64::from(digit))
    })
}
