//! Tokens (JWT, RFC 7519) whose claims are fields: verified with keys that somebody else fetches.
//!
//! A token that is verified supplies values, and ends at its `exp`. It admits nobody: who may be
//! given a stored response is decided as for any other credential.
//!
//! `claims` reads the payload, `keys` holds the keys, `ring_backend` verifies signatures with
//! them, `verifier` decides on a token and remembers it, `request` finds the tokens of a request.
//! `unverified` is for suggestions alone.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Wall, millis};
use crate::telemetry::metrics::Counter;

pub(in crate::policy) use self::claims::ClaimTree;
pub use self::claims::ClaimValue;
pub use self::key_store::{KeyStore, WantKeys};
pub use self::keys::{KeySetError, MAX_JWKS_BYTES, VerifyKey, parse_jwks, parse_pem};
pub use self::request::{RequestTokens, TokenError, TokenPlace};
pub use self::unverified::UnverifiedToken;
pub use self::verifier::TokenVerifier;

mod claims;
mod failure_budget;
mod key_store;
mod keys;
mod request;
mod ring_backend;
mod spki;
mod unverified;
mod verifier;

pub use jsonwebtoken::{Algorithm, AlgorithmFamily};

/// The longest token that is looked at, in bytes. Longer ones are not verified.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The longest value of a claim, in bytes. A longer one counts as missing.
pub const MAX_CLAIM_BYTES: usize = 1024;

/// Where the value of a field from a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenField {
    /// A JSON pointer (RFC 6901) into the claims.
    pub pointer: Arc<str>,
    /// Where the token is.
    pub place: TokenPlace,
}

/// What a token must have to count as verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// The algorithms of signatures that are accepted. All of one kind: HMAC, or public keys.
    pub algorithms: Box<[Algorithm]>,
    /// The issuers, of which `iss` must be one; empty for any.
    pub issuers: Box<[Box<str>]>,
    /// The audiences, of which `aud` must hold one; empty for any.
    pub audiences: Box<[Box<str>]>,
    /// How far the clocks of the issuer and of this machine may differ.
    pub leeway: Duration,
    /// How many verified tokens are remembered.
    pub capacity: usize,
}

/// Why a token is not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// It is not a signed token in the compact form, or its header cannot be read.
    NotJwt,
    /// It is longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Its algorithm is not one of those that the operator names.
    Algorithm,
    /// Its claims cannot be read, or in two ways; or it has no `exp`.
    Claims,
    /// Its `exp` has passed.
    Expired,
    /// Its `nbf` is still to come.
    NotYet,
    /// Its `iss` is another one.
    OtherIssuer,
    /// Its `aud` names others.
    OtherAudience,
    /// No key is known that could have signed it.
    UnknownKey,
    /// Its signature is not that of the key.
    Signature,
    /// Too many signatures have been wrong in this second.
    TooManyBad,
    /// The keys could not be fetched.
    KeysUnavailable,
}

impl TokenFault {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::NotJwt,
        Self::TooLong,
        Self::Algorithm,
        Self::Claims,
        Self::Expired,
        Self::NotYet,
        Self::OtherIssuer,
        Self::OtherAudience,
        Self::UnknownKey,
        Self::Signature,
        Self::TooManyBad,
        Self::KeysUnavailable,
    ];

    /// The words in headers, logs and `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJwt => "not a JWT",
            Self::TooLong => "too long",
            Self::Algorithm => "other algorithm",
            Self::Claims => "unreadable claims",
            Self::Expired => "expired",
            Self::NotYet => "not yet valid",
            Self::OtherIssuer => "other issuer",
            Self::OtherAudience => "other audience",
            Self::UnknownKey => "unknown key",
            Self::Signature => "bad signature",
            Self::TooManyBad => "too many bad signatures",
            Self::KeysUnavailable => "keys unavailable",
        }
    }

    /// The value of the metric label `result`.
    #[must_use]
    pub fn label(self) -> String {
        self.as_str().to_ascii_lowercase().replace(' ', "_")
    }
}

/// What is counted of tokens. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct TokenCounters {
    /// Tokens that were verified and not remembered from before.
    pub verified: Arc<Counter>,
    /// Tokens that were not verified, by [`TokenFault`].
    pub faults: [Arc<Counter>; TokenFault::ALL.len()],
    /// Verified tokens that were forgotten to make room for others.
    pub evicted: Arc<Counter>,
    /// Fetches of keys that gave keys.
    pub fetched: Arc<Counter>,
    /// Fetches of keys that failed.
    pub fetch_failed: Arc<Counter>,
    /// Unknown keys for which no fetch began at once, because one had just begun.
    pub fetch_delayed: Arc<Counter>,
}

impl TokenCounters {
    /// Counts a token that is not verified.
    pub fn fault(&self, fault: TokenFault) {
        self.faults[fault as usize].inc();
    }
}

/// A time that a token states in seconds, as this process counts.
fn wall_of_seconds(seconds: f64) -> Option<Wall> {
    // 2^53 milliseconds are 285,000 years.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let ms = (seconds * 1000.0).floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    let wall = |ms: f64| Wall(ms.min(MOST) as u64);
    (seconds.is_finite() && seconds >= 0.0).then(|| wall(ms))
}

/// Whether a moment has come, where clocks may differ by `leeway`.
fn has_come(moment: Wall, now: Wall, leeway: Duration) -> bool {
    now.0.saturating_add(millis(leeway)) >= moment.0
}
