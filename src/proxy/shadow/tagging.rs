//! Keeps the body of a response in shadow until its end, as far as tags are read from it.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::outcome::Reason;
use crate::proxy::fill::request::FillRequest;
use crate::proxy::store_decision::StoreDecision;
use crate::semantics::digest::{Digest, Digester};
use crate::shadow::digest::BodyDigester;

/// Digests a body, and keeps it where tags are read from it.
pub(super) struct TaggingDigester {
    digester: Digester,
    /// None where nobody needs it, or it is too long.
    kept: Option<Vec<u8>>,
    most: usize,
}

impl BodyDigester for TaggingDigester {
    type Output = (Digest, Option<Bytes>);

    fn update(&mut self, bytes: &[u8]) {
        self.digester.update(bytes);
        match &mut self.kept {
            Some(kept) if kept.len() + bytes.len() <= self.most => kept.extend_from_slice(bytes),
            kept => *kept = None,
        }
    }

    fn finish(self) -> Self::Output {
        (self.digester.finish(), self.kept.map(Bytes::from))
    }
}

/// What digests a response with this head, and keeps of it what its tags need.
pub(super) fn digester(
    (status, headers): (StatusCode, &HeaderMap),
    decision: &Result<StoreDecision, Reason>,
    fill: &FillRequest,
) -> TaggingDigester {
    let needs_body = decision.as_ref().is_ok_and(|decision| decision.reads_body);
    let most = usize::try_from(fill.config.settings.tag_body).unwrap_or(usize::MAX);
    let digester = Digester::for_response(status, headers);
    TaggingDigester { digester, kept: needs_body.then(Vec::new), most }
}

/// The digest of a body that has come. What would be stored gets the tags that the body tells.
pub(super) fn digest_of(
    (digest, kept): (Digest, Option<Bytes>),
    decided: &mut Result<StoreDecision, Reason>,
    fill: &FillRequest,
) -> Digest {
    add_body_tags(decided, fill, kept);
    digest
}

/// Adds the tags that a body tells. One that did not come, or was too long to be kept, tells none,
/// and then nothing would have been stored.
pub(super) fn add_body_tags(
    decided: &mut Result<StoreDecision, Reason>,
    fill: &FillRequest,
    body: Option<Bytes>,
) {
    let Ok(decision) = decided else { return };
    if !decision.reads_body {
        return;
    }
    let told = match body {
        Some(body) => decision.add_body_tags(fill, &[body]),
        None => Err(Reason::TagBodyTooLarge),
    };
    if let Err(reason) = told {
        *decided = Err(reason);
    }
}
