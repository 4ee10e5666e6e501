//! Mutations: their tags are marked, the request is forwarded, the tags are purged, and only then
//! does the client get the response.
//!
//! Invariants:
//! - The first byte of a mutation's response goes out only after its tags were purged, or after the
//!   origin refused it with a 4xx.
//! - No client's departure ends a mutation: it runs in a task of its own, from before the mark to
//!   after the purge.
//! - An unknown outcome (5xx, timeout, reset, an upload that broke off after a part of it was sent)
//!   purges; a plain 4xx purges nothing, so that nobody can flush by POST. While nobody has the
//!   answer, one purge covers many of them: see `mutation/gather.rs`.
//! - Small bodies are read before a mark, a permit or a connection is taken: an upload that breaks
//!   off before was never sent. See `mutation/body.rs`.
//! - A response that is still on its way when its tags are purged is purged for once more at its
//!   end: see `mutation/streamed.rs`.
//! - A mutation that ends under other rules than it began under purges by both: see
//!   `mutation/new_rules.rs`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Response, Version};
use tokio::sync::oneshot;

use crate::outcome::{Outcome, Reason};
use crate::policy::plan;
use crate::policy::plan::Mutation;
use crate::policy::tag::Tag;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::context::{RequestContext, request_view};
use crate::proxy::mutation::body::{ReadBody, ReadFailure, read_body};
use crate::proxy::mutation::named_tags::ask_for_plain;
use crate::proxy::mutation::new_rules::MutationContext;
use crate::proxy::mutation::permit::take_permit;
use crate::proxy::mutation::run::{MutationRequest, MutationResult, run_mutation};
use crate::proxy::mutation::unread_fields::record_unread_fields;
use crate::proxy::post_response::prepare_post;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::broken_upload::BrokenUpload;
use crate::semantics::cache_status;
use crate::semantics::forward;
use crate::shares::Requester;
use crate::upstream::UpstreamError;

mod answer;
pub(super) mod body;
mod gather;
mod late_guard;
mod named_tags;
mod named_targets;
mod new_rules;
mod permit;
mod purge;
mod run;
mod streamed;
mod unread_fields;

/// Forwards a request that may change data. `live` is for the rules in force when it ends.
pub(super) async fn mutate(
    resources: &Arc<Resources>,
    live: &Arc<LiveConfig>,
    context: RequestContext<'_>,
    parts: Parts,
    body: Body,
    effective: Method,
) -> ProxyResponse {
    let write = resources.overlap.write();
    let outcome = {
        let rules = &context.config.rules;
        let view = request_view(context.app(), &parts, &body, context.peer, rules, context.now);
        Outcome::bypass(rules.reason_of_write(&view, &effective))
    };
    let requester = context.requester(&parts);
    let (config, peer) = (context.config, context.peer);
    let read = match read_body(resources, context, &requester, &parts, body, &effective).await {
        Ok(read) => read,
        Err(ReadFailure::Busy) => return failed(Reason::UpstreamBusy, outcome),
        Err(ReadFailure::Broken(error)) => {
            tracing::debug!(%error, "an upload broke off before it was forwarded");
            resources.counters.uploads_unsent.inc();
            return unanswered(resources, &UpstreamError::RequestBody(error), &outcome);
        }
    };
    let ReadBody { fields, body, is_whole, permit } = read;
    let permit = match permit {
        Some(permit) => permit,
        None => match take_permit(resources, &requester).await {
            Some(permit) => permit,
            None => return failed(Reason::UpstreamBusy, outcome),
        },
    };
    let view = request_view(context.app(), &parts, &body, peer, &config.rules, context.now);
    let mutation = match config.rules.mutation(&view, &effective, fields.as_ref()) {
        Ok(mutation) => mutation,
        Err(header) => {
            resources.counters.refused.inc();
            return ProxyResponse::refused_header(None, &header);
        }
    };
    record_mutation(resources, &parts, &mutation);
    let host = plan::authority(&parts.uri, &parts.headers).into_owned();
    let post = prepare_post(resources, context, &parts).await;
    let begun = MutationContext::new(context, live, &parts, !body.is_empty(), effective, fields)
        .lasting(write);
    let mut request = *context.origin().request(parts, body, peer, None);
    ask_for_plain(&mutation, &mut request);
    let departure = Some(Arc::clone(&begun.departure));
    let via = (context.connection.choice.clone(), Requester { departure, ..requester });
    let request =
        MutationRequest { request, is_whole, via, mutation, context: begun, host, post, permit };
    let (sender, receiver) = oneshot::channel();
    let shared = Arc::clone(resources);
    resources.tasks.spawn(async move {
        let tags = request.mutation.tags.clone();
        let run = Box::pin(run_mutation(&shared, request, sender));
        if AssertUnwindSafe(run).catch_unwind().await.is_err() {
            // The origin may have committed. No other sidecar would ever purge, since this one
            // lives.
            shared.coherence.purge(&tags).await;
        }
    });
    match receiver.await {
        Ok(MutationResult::Response { response, purged, is_ready }) => {
            mutation_response(context, response, &purged, is_ready, outcome)
        }
        Ok(MutationResult::Failed(error)) => unanswered(resources, &error, &outcome),
        Ok(MutationResult::Refused) => failed(Reason::WriteRefused, outcome),
        // The task panicked, and its panic was logged.
        Err(_) => failed(Reason::UpstreamProtocolError, outcome),
    }
}

/// There is no response, perhaps because the request's own body broke off.
pub(super) fn unanswered(
    resources: &Resources,
    error: &UpstreamError,
    outcome: &Outcome,
) -> ProxyResponse {
    if let UpstreamError::RequestBody(error) = error {
        match BrokenUpload::of(error) {
            BrokenUpload::Left => resources.counters.abandoned.inc(),
            BrokenUpload::Malformed => resources.counters.refused.inc(),
            BrokenUpload::Ended | BrokenUpload::Late | BrokenUpload::Other => {}
        }
    }
    ProxyResponse::upstream_failure(error, outcome, None)
}

fn failed(reason: Reason, outcome: Outcome) -> ProxyResponse {
    let outcome = Outcome { reason: Some(reason), ..outcome };
    ProxyResponse { response: response::failure(reason, &outcome), outcome, route: None }
}

fn record_mutation(resources: &Resources, parts: &Parts, mutation: &Mutation) {
    resources.counters.mutations.inc();
    record_unread_fields(resources, parts, &mutation.missing, &mutation.too_many);
    let path = parts.uri.path();
    if mutation.uncovered_cached_path {
        resources.counters.uncovered.inc();
        resources.uncovered_writes.record(&parts.method, path, &resources.clock);
    }
}

/// Makes the origin's response ready for the client.
fn mutation_response(
    context: RequestContext<'_>,
    mut response: Response<Body>,
    purged: &[Tag],
    is_ready: bool,
    mut outcome: Outcome,
) -> ProxyResponse {
    outcome.fwd_status = Some(response.status().as_u16());
    outcome.origin = response.extensions_mut().remove();
    outcome.stored = is_ready;
    if !is_ready {
        let version = response.version();
        forward::prepare_response(response.headers_mut(), version);
    }
    cache_status::set_cache_status(response.headers_mut(), &outcome);
    if context.config.settings.debug.keys && !purged.is_empty() {
        let names: Vec<&str> = purged.iter().map(Tag::shown).collect();
        if let Ok(value) = HeaderValue::from_str(&names.join(" ")) {
            response.headers_mut().insert(response::X_CACHE_PURGED, value);
        }
    }
    *response.version_mut() = Version::HTTP_11;
    ProxyResponse { response, outcome, route: None }
}
