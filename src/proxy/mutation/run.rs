//! A mutation in a task of its own, from before the mark to after the purge.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::coherence::{PendingMutation, PurgeKind};
use crate::policy::plan::Mutation;
use crate::policy::purge_rule::{MutationAnswer, MutationGuard};
use crate::policy::tag::Tag;
use crate::proxy::mutation::answer::{PurgedShare, purged_share};
use crate::proxy::mutation::named_targets::{named_groups, named_targets};
use crate::proxy::mutation::new_rules::{MutationContext, NewRulePurges};
use crate::proxy::post_response::{PendingPost, store_post_response};
use crate::proxy::resources::Resources;
use crate::semantics::body::Body;
use crate::shadow::write_answers::AnsweredWrite;
use crate::telemetry::events::{EventKind, PurgeEvent, truncate};
use crate::telemetry::hot_tags::TagEvent;
use crate::upstream::{ConnectionChoice, UpstreamError};

/// What the client's request learns of its mutation.
pub(super) enum MutationResult {
    Response {
        response: Response<Body>,
        purged: Vec<Tag>,
        /// Whether the response was made ready for the client already.
        is_ready: bool,
    },
    Failed(UpstreamError),
    Refused,
}

/// All that a mutation needs once its client is gone.
pub(super) struct MutationRequest {
    pub(super) request: Request<Body>,
    pub(super) choice: ConnectionChoice,
    pub(super) mutation: Mutation,
    pub(super) context: MutationContext,
    pub(super) host: String,
    pub(super) post: Option<PendingPost>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Carries out a mutation. The result goes to its client, if that still waits.
pub(super) async fn run_mutation(
    resources: &Arc<Resources>,
    request: MutationRequest,
    sender: oneshot::Sender<MutationResult>,
) {
    let MutationRequest { request, choice, mut mutation, context, host, post, permit: _permit } =
        request;
    let (coherence, clock) = (&resources.coherence, &resources.clock);
    let mark_for = context.config.settings.mark_for;
    let guarded = mutation.guard == MutationGuard::Bypass;
    let tags = std::mem::take(&mut mutation.tags);
    let tracked = resources.shadow.begin_mutation(
        request.method(),
        request.uri().path(),
        &tags,
        clock.wall(),
    );
    // A mutation that cannot be marked is refused, where the operator prefers that to a stale read.
    let Ok(mut pending) = coherence.mark(tags, guarded, mark_for).await else {
        tracked.refused();
        let _ = sender.send(MutationResult::Refused);
        return;
    };
    let begun = clock.wall();
    let sending = resources.origin.send_once(&choice, request, &context.config.table);
    let result = match renew_while(resources, &context, sending, &mut pending).await {
        Ok(response) => {
            resources.shadow.mutations.answers.record(
                &AnsweredWrite {
                    method: &context.parts.method,
                    path: context.parts.uri.path(),
                    headers: &context.parts.headers,
                    mutation: &mutation,
                    status: response.status(),
                    answer: response.headers(),
                },
                &context.config.rules.credential,
            );
            let answer = context.answer(response.status(), response.headers(), begun);
            let share = purged_share(&mutation, pending.tags(), answer);
            if share.is_none() {
                tracked.refused();
                coherence.refused(pending).await;
                MutationResult::Response { response, purged: Vec::new(), is_ready: false }
            } else {
                let mut purged = share.of(pending.tags());
                let own = purged.len();
                let named = named_by(&response, &host, &context, answer);
                if !named.is_empty() {
                    tracked.also_purged(&named);
                    coherence.purge(&named).await;
                    purged.extend(named);
                }
                purge(resources, pending, &context, &share, &mutation.repurge_after).await;
                tracked.ended(clock.wall());
                publish_purge(resources, &context, &purged);
                let steps = 1 + u64::from(purged.len() > own);
                forward_response(resources, response, purged, post, steps).await
            }
        }
        Err(error) => {
            if error.may_have_reached_origin() {
                // The origin may have committed before the connection broke.
                let purged = pending.tags().to_vec();
                let share = PurgedShare::All;
                purge(resources, pending, &context, &share, &mutation.repurge_after).await;
                tracked.ended(clock.wall());
                publish_purge(resources, &context, &purged);
            } else {
                tracked.refused();
                coherence.refused(pending).await;
            }
            MutationResult::Failed(error)
        }
    };
    let _ = sender.send(result);
}

/// Sends the request, and moves the deadline of its mark for as long as that takes.
async fn renew_while(
    resources: &Resources,
    context: &MutationContext,
    sending: impl Future<Output = Result<Response<Body>, UpstreamError>>,
    pending: &mut PendingMutation,
) -> Result<Response<Body>, UpstreamError> {
    let (coherence, mark_for) = (&resources.coherence, context.config.settings.mark_for);
    tokio::pin!(sending);
    let every = coherence.renew_every(mark_for);
    loop {
        tokio::select! {
            result = &mut sending => return result,
            () = tokio::time::sleep(every) => coherence.renew(pending, mark_for).await,
        }
    }
}

/// What an answer names beside the tags of the request. A refusal names nothing.
fn named_by(
    response: &Response<Body>,
    host: &str,
    context: &MutationContext,
    answer: MutationAnswer,
) -> Vec<Tag> {
    if answer == MutationAnswer::Refusal {
        return Vec::new();
    }
    let mut named = named_targets(response.headers(), host, &context.parts.uri);
    named.extend(named_groups(response.headers(), host));
    named
}

/// Purges this share of the tags of a mutation that was, or may have been, committed; again after
/// these times.
async fn purge(
    resources: &Resources,
    pending: PendingMutation,
    context: &MutationContext,
    share: &PurgedShare,
    repurge_after: &[Duration],
) {
    let coherence = &resources.coherence;
    resources.counters.purging.inc();
    let mut tags: Vec<Tag> =
        if repurge_after.is_empty() { Vec::new() } else { share.of(pending.tags()) };
    // Before it is committed: what is filled by still later rules is read after the mutation.
    let new_rule_purges = context.new_rule_purges(pending.tags());
    match share {
        PurgedShare::All => coherence.committed(pending).await,
        PurgedShare::Some(purged) => {
            // While the marks still stand, so that no fill comes between.
            coherence.purge(purged).await;
            coherence.refused(pending).await;
        }
    }
    match new_rule_purges {
        NewRulePurges::Nothing => {}
        NewRulePurges::Tags(more) => {
            coherence.purge(&more).await;
            tags.extend(more);
        }
        NewRulePurges::Everything => coherence.purge_everything(PurgeKind::Hard).await,
    }
    repurge(resources, &tags, repurge_after);
}

/// Purges these tags again after these times.
fn repurge(resources: &Resources, tags: &[Tag], repurge_after: &[Duration]) {
    for &after in repurge_after {
        let (coherence, tags) = (Arc::clone(&resources.coherence), tags.to_vec());
        // Not tracked: a drain does not wait for it. The purge itself has been made; a repeat that
        // ends with the process is lost.
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            coherence.purge(&tags).await;
        });
    }
}

/// Shows operators that a mutation has purged.
fn publish_purge(resources: &Resources, context: &MutationContext, tags: &[Tag]) {
    let names = || tags.iter().map(Tag::as_str);
    resources.counters.purges.write.inc();
    resources.hot_tags.record(names(), TagEvent::Purged);
    let parts = &context.parts;
    let (method, path) = (Some(truncate(parts.method.as_str())), Some(truncate(parts.uri.path())));
    let purged =
        PurgeEvent { by: "write", method, path, ..PurgeEvent::default() }.with_tags(names());
    resources.events.publish(resources.clock.wall(), EventKind::Purge(purged));
}

/// Hands the response on, and stores it if it answers later GETs.
async fn forward_response(
    resources: &Arc<Resources>,
    response: Response<Body>,
    purged: Vec<Tag>,
    post: Option<PendingPost>,
    steps: u64,
) -> MutationResult {
    let Some(post) = post else {
        return MutationResult::Response { response, purged, is_ready: false };
    };
    match store_post_response(resources, post, response, steps).await {
        Ok(response) => MutationResult::Response { response, purged, is_ready: true },
        Err(response) => MutationResult::Response { response, purged, is_ready: false },
    }
}
