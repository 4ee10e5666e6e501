//! Decides whether a token is verified, and remembers those that are: a hit costs a hash of its
//! token, and no signature.

use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::claims::{ClaimTree, ClaimValue};
use super::failure_budget::FailureBudget;
use super::key_store::{KeySet, KeyStore};
use super::keys::VerifyKey;
use super::{MAX_TOKEN_BYTES, TokenCounters, TokenFault, TokenRules, has_come, wall_of_seconds};
use crate::clock::{Clock, Wall};
use crate::telemetry::metrics::Counter;

/// The most keys that are tried for one token: several only where it, or they, have no id.
const MAX_TRIED_KEYS: usize = 8;

/// Verifies tokens by the rules of one `[jwt]`.
pub struct TokenVerifier {
    rules: TokenRules,
    /// The claims that fields read.
    pointers: Box<[Arc<str>]>,
    keys: Arc<KeyStore>,
    remembered: Cache<u128, Arc<VerifiedToken>, UnitWeighter, DefaultHashBuilder, TokenEvictions>,
    /// Keys the names under which tokens are remembered.
    name_key: [u8; 16],
    failures: FailureBudget,
    counters: TokenCounters,
    clock: Clock,
}

/// A token that is verified.
#[derive(Debug)]
pub struct VerifiedToken {
    /// When it ends: `exp`, and the leeway.
    pub until: Wall,
    /// The id of the key that signed it, if the key has one.
    pub key_id: Option<Box<str>>,
    key: [u8; 16],
    /// The generation of the keys by which the key was last found among them.
    generation: AtomicU64,
    claims: Box<[(Arc<str>, ClaimValue)]>,
}

impl VerifiedToken {
    /// The claim at this pointer, if the token has it.
    #[must_use]
    pub fn claim(&self, pointer: &str) -> Option<&ClaimValue> {
        self.claims.iter().find(|(name, _)| **name == *pointer).map(|(_, value)| value)
    }
}

/// Counts evictions, and not what is replaced or forgotten.
#[derive(Clone, Debug)]
struct TokenEvictions(Arc<Counter>);

impl Lifecycle<u128, Arc<VerifiedToken>> for TokenEvictions {
    type RequestState = ();

    fn before_evict(&self, (): &mut (), _: &u128, _: &mut Arc<VerifiedToken>) {
        self.0.inc();
    }

    fn on_evict(&self, (): &mut (), _: u128, _: Arc<VerifiedToken>) {}
}

impl TokenVerifier {
    /// Verifies by these rules, and reads the claims at these pointers.
    #[must_use]
    pub fn new(
        rules: TokenRules,
        pointers: Box<[Arc<str>]>,
        keys: Arc<KeyStore>,
        counters: TokenCounters,
        clock: Clock,
    ) -> Self {
        let lifecycle = TokenEvictions(Arc::clone(&counters.evicted));
        let (capacity, hasher) = (rules.capacity, DefaultHashBuilder::default());
        let remembered = Cache::with(capacity, capacity as u64, UnitWeighter, hasher, lifecycle);
        let name_key = rand::random();
        let failures = FailureBudget::default();
        Self { rules, pointers, keys, remembered, name_key, failures, counters, clock }
    }

    /// Whether it does the same as one by these rules, with these claims and keys.
    #[must_use]
    pub fn is_like(&self, rules: &TokenRules, pointers: &[Arc<str>], keys: &Arc<KeyStore>) -> bool {
        self.rules == *rules && *self.pointers == *pointers && Arc::ptr_eq(&self.keys, keys)
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.remembered.len()
    }

    /// The token, if it is verified. It is counted, unless this is done again.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(&self, token: &[u8], is_again: bool) -> Result<Arc<VerifiedToken>, TokenFault> {
        let now = self.clock.wall();
        let keys = self.keys.load();
        let result = if token.len() > MAX_TOKEN_BYTES {
            Err(TokenFault::TooLong)
        } else {
            let name = self.name_of(token);
            match self.remembered.get(&name) {
                Some(known) if now < known.until && holds(&known, &keys, now) => return Ok(known),
                Some(_) => {
                    self.remembered.remove(&name);
                }
                None => {}
            }
            let verified = self.verify_anew(token, &keys, now).map(Arc::new);
            if let Ok(verified) = &verified {
                self.remembered.insert(name, Arc::clone(verified));
            }
            verified
        };
        match &result {
            _ if is_again => {}
            Ok(_) => self.counters.verified.inc(),
            Err(fault) => self.counters.fault(*fault),
        }
        result
    }

    /// SECURITY: two tokens with one name would be taken for each other. The name has 128 bits, is
    /// keyed with what nobody knows, and is never shown. `SipHash`-1-3 is enough for that (the best
    /// known way to two texts with one name succeeds once in 2^167 tries, Dobraunig et al. 2014),
    /// and costs half of `SipHash`-2-4.
    fn name_of(&self, token: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.name_key);
        hasher.write(token);
        hasher.finish128().as_u128()
    }

    /// What costs little comes first: a signature costs a stranger nothing to get wrong.
    fn verify_anew(
        &self,
        token: &[u8],
        keys: &KeySet,
        now: Wall,
    ) -> Result<VerifiedToken, TokenFault> {
        let token = str::from_utf8(token).map_err(|_| TokenFault::NotJwt)?;
        let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::NotJwt)?;
        let (_, payload) = message.split_once('.').ok_or(TokenFault::NotJwt)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::NotJwt)?;
        // RFC 7515 4.1.11: what must be understood, and is not, makes a token invalid.
        if header.crit.is_some() || signature.is_empty() {
            return Err(TokenFault::NotJwt);
        }
        // SECURITY: the operator names the algorithms, and a token only says which one of them.
        if !self.rules.algorithms.contains(&header.alg) {
            return Err(TokenFault::Algorithm);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenFault::NotJwt)?;
        let claims = ClaimTree::parse(&payload).ok_or(TokenFault::Claims)?;
        let until = self.check_claims(&claims, now)?;
        let key = self.signing_key(&header, message, signature, (keys, now))?;
        Ok(VerifiedToken {
            until,
            key_id: key.id.clone(),
            key: key.print,
            generation: AtomicU64::new(keys.generation),
            claims: self
                .pointers
                .iter()
                .filter_map(|pointer| Some((Arc::clone(pointer), claims.at(pointer)?.claim()?)))
                .collect(),
        })
    }

    /// Checks the times, the issuer and the audience. Returns when the token ends. A claim of
    /// another type than it must have is an error, and is not passed over.
    fn check_claims(&self, claims: &ClaimTree, now: Wall) -> Result<Wall, TokenFault> {
        let time = |name: &str| match claims.member(name) {
            None => Ok(None),
            Some(value) => {
                value.as_seconds().and_then(wall_of_seconds).map(Some).ok_or(TokenFault::Claims)
            }
        };
        let rules = &self.rules;
        let until = time("exp")?.ok_or(TokenFault::Claims)?.after(rules.leeway);
        if now >= until {
            return Err(TokenFault::Expired);
        }
        if time("nbf")?.is_some_and(|begin| !has_come(begin, now, rules.leeway)) {
            return Err(TokenFault::NotYet);
        }
        let is_one_of = |allowed: &[Box<str>], text: Option<&str>| {
            text.is_some_and(|text| allowed.iter().any(|one| **one == *text))
        };
        let issuer = claims.member("iss").and_then(ClaimTree::as_text);
        if !rules.issuers.is_empty() && !is_one_of(&rules.issuers, issuer) {
            return Err(TokenFault::OtherIssuer);
        }
        let is_for_us = match claims.member("aud") {
            Some(ClaimTree::List(list)) => {
                list.iter().any(|one| is_one_of(&rules.audiences, one.as_text()))
            }
            other => is_one_of(&rules.audiences, other.and_then(ClaimTree::as_text)),
        };
        if !rules.audiences.is_empty() && !is_for_us {
            return Err(TokenFault::OtherAudience);
        }
        Ok(until)
    }

    /// The key whose signature the token has.
    ///
    /// SECURITY: of the header, only the id counts, and only to choose among the operator's keys.
    /// What it says of keys (`jwk`, `jku`, `x5c`, `x5u`) is never looked at.
    fn signing_key<'k>(
        &self,
        header: &Header,
        message: &str,
        signature: &str,
        (keys, now): (&'k KeySet, Wall),
    ) -> Result<&'k VerifyKey, TokenFault> {
        let may_be = |key: &&VerifyKey| key.is_for(header.alg) && key.may_be(header.kid.as_deref());
        let mut tried = keys.keys(now).filter(may_be).take(MAX_TRIED_KEYS).peekable();
        if tried.peek().is_none() {
            if keys.lacks_fetched(now) {
                return Err(TokenFault::KeysUnavailable);
            }
            self.keys.want();
            return Err(TokenFault::UnknownKey);
        }
        if !self.failures.is_left(now) {
            return Err(TokenFault::TooManyBad);
        }
        let found = tried.find(|key| key.verifies(header.alg, message.as_bytes(), signature));
        found.ok_or_else(|| {
            self.failures.spend(now);
            // The right key may be waiting to be fetched, unless it is here by its name.
            let is_here =
                |key: &VerifyKey| key.id.is_some() && key.id.as_deref() == header.kid.as_deref();
            if keys.keys(now).any(is_here) {
                return TokenFault::Signature;
            }
            if keys.lacks_fetched(now) {
                return TokenFault::KeysUnavailable;
            }
            self.keys.want();
            TokenFault::Signature
        })
    }
}

/// Whether the key that signed a remembered token still counts.
fn holds(token: &VerifiedToken, keys: &KeySet, now: Wall) -> bool {
    if token.generation.load(Ordering::Relaxed) == keys.generation && !keys.lacks_fetched(now) {
        return true;
    }
    let holds = keys.has(&token.key, now);
    if holds {
        token.generation.store(keys.generation, Ordering::Relaxed);
    }
    holds
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("rules", &self.rules)
            .field("remembered", &self.remembered.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
