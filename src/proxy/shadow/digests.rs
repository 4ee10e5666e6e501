//! Digests that name a caller and what a fill would withhold of a request, without keeping it.

use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use crate::policy::canonical_json::CanonicalJson;
use crate::policy::plan::Lookup;
use crate::proxy::fill::request::FillRequest;
use crate::shadow::history::Caller;

/// Names the caller's credential, in scope `public` too.
pub(super) fn credential_digest(fill: &FillRequest, headers: &HeaderMap) -> u64 {
    let rules = &fill.config.rules;
    let credential = rules.caller(headers);
    credential
        .and_then(|credential| credential.0.first_chunk().copied())
        .map_or(0, u64::from_be_bytes)
}

/// Names the caller, and all of a request that a fill would withhold.
pub(super) fn others_digest(caller: Caller, withheld: &[HeaderName], headers: &HeaderMap) -> u64 {
    let mut digest = Sha256::new();
    digest.update(caller.credential.to_be_bytes());
    digest.update(caller.withheld_query.to_be_bytes());
    for name in withheld {
        for value in headers.get_all(name) {
            for bytes in [name.as_str().as_bytes(), value.as_bytes()] {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// Names the query and the body, where a fill would send the origin others.
pub(super) fn withheld_query_digest(lookup: &Lookup<'_>, parts: &Parts) -> u64 {
    let query = parts.uri.query().unwrap_or_default();
    let has_query = lookup.query().unwrap_or_default() != query;
    // Another text of the same value is no other body.
    let body = lookup.body.as_ref().and_then(|body| {
        let whole = CanonicalJson::parse(&body.sent).ok()?.to_bytes();
        (whole != body.canonical).then_some(whole)
    });
    if !has_query && body.is_none() {
        return 0;
    }
    let mut digest = Sha256::new();
    if has_query {
        digest.update(query);
    }
    if let Some(body) = body {
        digest.update([0]);
        digest.update(body);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
}
