//! A mutation in a task of its own, from before the mark to after the purge.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::coherence::{HitGuard, PendingMutation};
use crate::policy::plan::Mutation;
use crate::policy::purge_rule::{MutationAnswer, MutationGuard};
use crate::policy::tag::Tag;
use crate::proxy::mutation::answer::purged_share;
use crate::proxy::mutation::gather::{UnknownOutcome, gather};
use crate::proxy::mutation::late_guard::LateGuard;
use crate::proxy::mutation::named_tags::{named_share, read_for_tags};
use crate::proxy::mutation::named_targets::{named_groups, named_targets};
use crate::proxy::mutation::new_rules::MutationContext;
use crate::proxy::mutation::purge::{publish_purge, purge};
use crate::proxy::mutation::streamed::{EndPurge, read_ahead};
use crate::proxy::post_response::{PendingPost, store_post_response};
use crate::proxy::resources::Resources;
use crate::semantics::body::Body;
use crate::shadow::mutations::TrackedMutation;
use crate::shadow::write_answers::AnsweredWrite;
use crate::shares::{FairPermit, Requester};
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
    /// Whether all of its body is in memory.
    pub(super) is_whole: bool,
    /// Which connection it takes, and whose share it counts for.
    pub(super) via: (ConnectionChoice, Requester),
    pub(super) mutation: Mutation,
    pub(super) context: MutationContext,
    pub(super) host: String,
    pub(super) post: Option<PendingPost>,
    pub(super) permit: FairPermit,
}

/// Carries out a mutation. The result goes to its client, if that still waits.
pub(super) async fn run_mutation(
    resources: &Arc<Resources>,
    request: MutationRequest,
    mut sender: oneshot::Sender<MutationResult>,
) {
    let MutationRequest { request, is_whole, via, mut mutation, context, host, post, permit } =
        request;
    let (coherence, clock) = (&resources.coherence, &resources.clock);
    let mark_for = context.config.settings.mark_for;
    let guard = match mutation.guard {
        MutationGuard::Bypass => HitGuard::Always,
        MutationGuard::Mark => HitGuard::IfRefusing,
    };
    let tags = std::mem::take(&mut mutation.tags);
    let tracked = resources.shadow.begin_mutation(
        request.method(),
        request.uri().path(),
        &tags,
        clock.wall(),
    );
    let (mut late, request) = LateGuard::new(coherence, guard, request, is_whole);
    // A mutation that cannot be marked is refused, where the operator prefers that to a stale read.
    let Ok(mut pending) = coherence.mark(tags, late.first(), mark_for).await else {
        tracked.refused();
        let _ = sender.send(MutationResult::Refused);
        return;
    };
    let (begun, since) = (clock.wall(), clock.now());
    let sending =
        context.config.origins.of(context.app).send_once(&via, request, &context.config.table);
    let sent = renew_while(resources, &context, sending, &mut pending, &mut late).await;
    // Before anybody learns of the answer.
    context.caller.record();
    let result = match sent {
        Ok(response) => {
            context.caller.answered(response.headers());
            record_answer(resources, &context, &mutation, &response);
            if response.status().is_server_error() && sender.is_closed() {
                let (context, repurge_after) = (&context, &*mutation.repurge_after);
                let outcome = UnknownOutcome { pending, context, repurge_after, tracked, permit };
                return Box::pin(gather(resources, outcome, &mut sender)).await;
            }
            if is_whole {
                resources.unknown_outcomes.record_latency(clock.now().duration_since(since));
            }
            let answer = context.answer(response.status(), response.headers(), begun);
            let ended =
                AnsweredMutation { answer, pending, mutation, context, tracked, host, post };
            Box::pin(end_answered(resources, response, ended)).await
        }
        Err(error) => {
            let (context, repurge_after) = (&context, &*mutation.repurge_after);
            let outcome = UnknownOutcome { pending, context, repurge_after, tracked, permit };
            Box::pin(end_failed(resources, outcome, &error, &mut sender)).await;
            if late.refused { MutationResult::Refused } else { MutationResult::Failed(error) }
        }
    };
    let _ = sender.send(result);
}

/// Ends a mutation that has no response.
async fn end_failed(
    resources: &Arc<Resources>,
    outcome: UnknownOutcome<'_>,
    error: &UpstreamError,
    sender: &mut oneshot::Sender<MutationResult>,
) {
    if !error.may_have_reached_origin() {
        outcome.tracked.refused();
        resources.coherence.refused(outcome.pending).await;
    } else if is_unanswered(error, sender) {
        gather(resources, outcome, sender).await;
    } else {
        // The origin may have committed before the connection broke.
        outcome.purge(resources).await;
    }
}

/// Whether nobody waits for the answer to a mutation that failed, or who waits can wait for longer:
/// a client that broke off its own upload.
fn is_unanswered(error: &UpstreamError, sender: &oneshot::Sender<MutationResult>) -> bool {
    matches!(error, UpstreamError::RequestBody(_)) || sender.is_closed()
}

/// Sends the request, and moves the deadline of its mark for as long as that takes.
async fn renew_while(
    resources: &Resources,
    context: &MutationContext,
    sending: impl Future<Output = Result<Response<Body>, UpstreamError>>,
    pending: &mut PendingMutation,
    late: &mut LateGuard,
) -> Result<Response<Body>, UpstreamError> {
    let (coherence, mark_for) = (&resources.coherence, context.config.settings.mark_for);
    tokio::pin!(sending);
    let every = coherence.renew_every(mark_for);
    loop {
        tokio::select! {
            result = &mut sending => {
                late.release();
                return result;
            }
            () = late.end_is_held() => late.begin(coherence, pending, mark_for).await,
            () = tokio::time::sleep(every) => coherence.renew(pending, mark_for).await,
        }
    }
}

/// A mutation that the origin has answered.
struct AnsweredMutation {
    answer: MutationAnswer,
    pending: PendingMutation,
    mutation: Mutation,
    context: MutationContext,
    tracked: TrackedMutation,
    host: String,
    post: Option<PendingPost>,
}

/// Purges what the answer says, and hands it on.
async fn end_answered(
    resources: &Arc<Resources>,
    response: Response<Body>,
    ended: AnsweredMutation,
) -> MutationResult {
    let AnsweredMutation { answer, pending, mutation, context, tracked, host, post } = ended;
    let coherence = &resources.coherence;
    let share = purged_share(&mutation, pending.tags(), answer);
    if share.is_none() {
        // A refusal may end a session: then what its own caller was given is over.
        let headers = response.headers();
        let callers = context.config.rules.caller_purges(&context.parts.headers, Some(headers));
        if !callers.is_empty() {
            coherence.purge(&callers).await;
        }
        tracked.refused();
        coherence.refused(pending).await;
        return MutationResult::Response { response, purged: Vec::new(), is_ready: false };
    }
    let needed = read_for_tags(&mutation, &context, &response);
    let arrived = read_ahead(response, needed.as_ref()).await;
    let known = (share, pending.tags());
    let is_readable = needed.is_some();
    let share = named_share(resources, &context, &mutation, known, answer, &arrived, is_readable);
    let mut purged = share.of(pending.tags());
    if mutation.awaits_response {
        tracked.also_purged(&purged);
    }
    let own = purged.len();
    let named = named_by(arrived.head().headers(), &host, &context, answer);
    if !named.is_empty() {
        tracked.also_purged(&named);
        coherence.purge(&named).await;
        purged.extend(named);
    }
    purge(resources, pending, &context, &share, &mutation.repurge_after).await;
    tracked.ended(resources.clock.wall());
    publish_purge(resources, &context, &purged);
    let steps = 1 + u64::from(purged.len() > own);
    let end = || EndPurge {
        resources: Arc::clone(resources),
        tags: purged.clone(),
        context,
        repurge_after: mutation.repurge_after,
        runtime: Handle::current(),
    };
    let (response, post) = arrived.into_response(post, end);
    forward_response(resources, response, purged, post, steps).await
}

/// Notes the answer for the advice on purge rules.
fn record_answer(
    resources: &Resources,
    context: &MutationContext,
    mutation: &Mutation,
    response: &Response<Body>,
) {
    resources.shadow.mutations.answers.record(
        &AnsweredWrite {
            method: &context.parts.method,
            path: context.parts.uri.path(),
            headers: &context.parts.headers,
            mutation,
            status: response.status(),
            answer: response.headers(),
        },
        &context.config.rules.credential,
    );
}

/// What an answer names beside the tags of the request. A refusal names nothing.
fn named_by(
    headers: &HeaderMap,
    host: &str,
    context: &MutationContext,
    answer: MutationAnswer,
) -> Vec<Tag> {
    if answer == MutationAnswer::Refusal {
        return Vec::new();
    }
    let stored_under =
        context.config.rules.apps.get(context.app).host_key.as_deref().unwrap_or(host);
    let mut named = named_targets(headers, host, stored_under, &context.parts.uri);
    named.extend(named_groups(headers, stored_under));
    named.extend(context.config.rules.caller_purges(&context.parts.headers, Some(headers)));
    named
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
