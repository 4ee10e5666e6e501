//! What becomes of the body of a fill before it is stored, on a route that codes its responses.
//!
//! Invariant: the client of the fill and its followers get what the origin sends, as it comes. Only
//! what is stored is coded.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;

use crate::cache::encoder::{EncodeJob, EncodedBody, LONGEST};
use crate::cache::entry::{Entry, EntryMetadata, OriginalForm};
use crate::policy::compress_rule::CompressRule;
use crate::policy::plan::Lookup;
use crate::proxy::resources::Resources;
use crate::semantics::content_coding::{self, Coding, PlainReason};

/// The codings that the route of a fill offers, and the one that is in its key.
#[derive(Clone, Debug)]
pub(crate) struct FillCoding {
    rule: Arc<CompressRule>,
    coding: Option<Coding>,
}

impl FillCoding {
    /// Of this request; none where the route codes nothing.
    pub(crate) fn of(lookup: &Lookup<'_>) -> Option<Self> {
        let (rule, coding) = lookup.offered_coding()?;
        Some(Self { rule: Arc::clone(rule), coding })
    }

    /// What codes a response before it is stored, or why it stays as it is.
    pub(super) fn job(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        chunks: Vec<Bytes>,
    ) -> Result<EncodeJob, PlainReason> {
        content_coding::may_code(status, headers)?;
        let coding = self.coding.ok_or(PlainReason::Client)?;
        let job = EncodeJob { coding, level: self.rule.level(coding), status, chunks };
        if (job.length() as u64) < self.rule.min_size {
            return Err(PlainReason::Small);
        }
        if job.length() > LONGEST {
            return Err(PlainReason::Large);
        }
        Ok(job)
    }
}

/// The entry of a response that has just come whole: coded, where there is a job for it.
pub(super) async fn new_entry(
    resources: &Resources,
    key: &[u8],
    (status, headers): (StatusCode, &HeaderMap),
    chunks: &[Bytes],
    facts: EntryMetadata,
    job: Option<EncodeJob>,
) -> Entry {
    let plain = |facts| Entry::compact(key, status, headers, chunks, facts);
    let Some(job) = job else { return plain(facts) };
    let coding = job.coding;
    match resources.encoder.encode(job).await {
        Ok(EncodedBody { bytes, length, digest }) => {
            let had_strong_tag = content_coding::has_strong_tag(headers);
            let coded = content_coding::coded_head(headers, coding);
            Entry::compact(key, status, &coded, &[bytes], facts).with_original(OriginalForm {
                length,
                digest,
                had_strong_tag,
            })
        }
        Err(reason) => {
            resources.encoder.counters.plain(reason).inc();
            plain(facts)
        }
    }
}
