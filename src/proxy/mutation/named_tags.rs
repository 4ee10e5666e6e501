//! The tags that the answer to a mutation names in its JSON (`{response:/id}` in a purge rule).
//!
//! Invariant: until the answer is read, the families of these tags stand for them: they are marked
//! before the origin sees the mutation, and purged if nobody can tell what it names. Once it is
//! read, its tags are purged while the marks of the families still stand, so that no fill comes
//! between.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{Request, StatusCode};

use crate::policy::field::AnsweredBody;
use crate::policy::plan::Mutation;
use crate::policy::purge_rule::MutationAnswer;
use crate::policy::response_fields;
use crate::policy::tag::Tag;
use crate::proxy::mutation::answer::PurgedShare;
use crate::proxy::mutation::new_rules::MutationContext;
use crate::proxy::mutation::streamed::{Arrived, READ_AHEAD, ReadFor};
use crate::proxy::mutation::unread_fields::record_unread_fields;
use crate::proxy::resources::Resources;
use crate::semantics::body::Body;

/// How long an answer that names tags may take to arrive whole. After it, the families are purged.
const NAMED_WITHIN: Duration = Duration::from_secs(2);

/// How many bytes of an answer are read for its tags: no more than of any other answer, since each
/// mutation in flight may hold as much.
fn longest_answer(context: &MutationContext) -> u64 {
    context.config.settings.tag_body.min(READ_AHEAD)
}

/// Asks the origin for an answer that can be read as it comes.
pub(super) fn ask_for_plain(mutation: &Mutation, request: &mut Request<Body>) {
    if mutation.awaits_response {
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

/// How far this answer is read ahead for the sake of its tags; none where no rule needs it.
pub(super) fn read_for_tags(
    mutation: &Mutation,
    context: &MutationContext,
    response: &http::Response<Body>,
) -> Option<ReadFor> {
    let is_readable = mutation.awaits_response
        && response.status().is_success()
        && response.status() != StatusCode::PARTIAL_CONTENT
        && response_fields::is_plain_json(response.headers());
    let most = longest_answer(context);
    is_readable.then_some(ReadFor { most, within: NAMED_WITHIN })
}

/// Which tags are purged, once the answer has come: those that it names in place of their families.
pub(super) fn named_share(
    resources: &Resources,
    context: &MutationContext,
    mutation: &Mutation,
    (share, tags): (PurgedShare, &[Tag]),
    answer: MutationAnswer,
    arrived: &Arrived,
    was_readable: bool,
) -> PurgedShare {
    if !mutation.awaits_response {
        return share;
    }
    let most = longest_answer(context);
    let body = arrived.whole().filter(|_| was_readable);
    if was_readable && arrived.is_longer_than(most) {
        resources.counters.tag_bodies_refused.inc();
    }
    let body = body.filter(|body| body.len() as u64 <= most);
    let response = body.as_deref().map_or(AnsweredBody::Unread, AnsweredBody::Whole);
    let Some(answered) = context.answered(response) else { return share };
    let is_new = |field: &&Arc<str>| !mutation.missing.contains(field);
    let missing: Vec<_> = answered.missing.iter().filter(is_new).cloned().collect();
    let is_new = |field: &&Arc<str>| !mutation.too_many.contains(field);
    let too_many: Vec<_> = answered.too_many.iter().filter(is_new).cloned().collect();
    record_unread_fields(resources, &context.parts, &missing, &too_many);
    let known = tags
        .iter()
        .filter(|tag| mutation.is_purged_by(answer, tag) && !mutation.until_response.contains(tag));
    let named = answered.tags.iter().filter(|tag| answered.is_purged_by(answer, tag));
    let mut purged: Vec<Tag> = known.chain(named).cloned().collect();
    purged.sort();
    purged.dedup();
    PurgedShare::Some(purged)
}
