//! A HEAD for which nothing fresh is stored: the origin answers, and its head updates what is
//! stored, or ends it (RFC 9111 4.3.5).

use std::sync::Arc;

use http::{Method, Response, StatusCode, response};

use crate::clock::Wall;
use crate::outcome::{Outcome, Reason};
use crate::proxy::context::LookupContext;
use crate::proxy::fill;
use crate::proxy::fill::request::{FillReason, FillRequest, StaleCandidate};
use crate::proxy::hit;
use crate::proxy::pass;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::content_coding;
use crate::semantics::revalidation;
use crate::semantics::revalidation::HeadVerdict;

/// Forwards a HEAD, made from the key as the request of a fill is.
pub(super) async fn pass_head(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    reason: FillReason,
) -> ProxyResponse {
    let outcome = Outcome { forwarded: true, ..Outcome::miss(reason.reason) };
    let stale = reason.stale.clone();
    let request = FillRequest::from_context(context, reason);
    let requested = resources.clock.wall();
    let origin = context.request.origin();
    let mut sent = request.to_request(request.sent.clone());
    *sent.method_mut() = Method::HEAD;
    let route = Some(context.route());
    let asker = (request.peer, context.request.expendable());
    let response = match origin.send(asker, sent, &context.request.config.table, route).await {
        Ok(response) => response,
        Err(error) => {
            let (stale, failure) = (stale.as_ref(), error.reason());
            let outcome = outcome.with_failure(error.cause());
            return hit::serve_stale_on_error(resources, context, stale, outcome.clone(), failure)
                .unwrap_or_else(|| ProxyResponse::upstream_failure(&error, &outcome, route));
        }
    };
    let own = request.passes_after(&response, resources.clock.wall());
    if let Some(outcome) = own.or_else(|| request.own_request(response.headers())) {
        return pass::pass_lookup(resources, context, outcome).await;
    }
    if let Some(outcome) =
        fill::withheld_outcome(context.lookup, &request.variants_by(response.headers()))
    {
        return pass::pass_lookup(resources, context, outcome).await;
    }
    let (head, body) = response.into_parts();
    let now = resources.clock.wall();
    let may_replace = |stale: &&StaleCandidate| stale.may_serve_for(Reason::UpstreamError, now);
    if let Some(stale) =
        stale.as_ref().filter(may_replace).filter(|_| fill::is_failure(head.status))
    {
        resources.counters.stale_if_error.inc();
        let outcome = Outcome {
            fwd_status: Some(head.status.as_u16()),
            reason: Some(Reason::UpstreamError),
            ..outcome
        };
        return hit::serve_stale(context, stale, outcome, now);
    }
    request.record_refusal(&resources.authorized_clients, head.status, &head.headers);
    let may_be_coded = request.coding().is_some();
    // An origin that does not support HEAD says nothing of the response to GET.
    if let Some(stale) = stale
        && request.supersedes(head.status, &head.headers)
        && head.status != StatusCode::METHOD_NOT_ALLOWED
    {
        apply_head(resources, request, &stale, &head, requested).await;
    }
    let mut response = Response::from_parts(head, body);
    if may_be_coded {
        let status = response.status();
        content_coding::note_choice(status, response.headers_mut());
    }
    // As from the response to a GET.
    context.lookup.route.response_rules.response_tags.withhold(response.headers_mut());
    pass::passed(resources, context.request, response, outcome, route, None)
}

async fn apply_head(
    resources: &Resources,
    request: FillRequest,
    stale: &StaleCandidate,
    head: &response::Parts,
    requested: Wall,
) {
    let (key, cached) = (stale.key, &stale.candidate.cached);
    let entry = &cached.entry;
    let mut verdict = revalidation::head_agrees(&entry.origin_headers(), &head.headers);
    if entry.original().is_some() && !content_coding::stays_coded(&head.headers) {
        verdict = HeadVerdict::Other;
    }
    if head.status != entry.status || verdict == HeadVerdict::Other {
        resources.store.forget(key).await;
    }
    if head.status != entry.status || verdict != HeadVerdict::Same {
        return;
    }
    let mut update = Response::new(Body::empty());
    *update.version_mut() = head.version;
    *update.headers_mut() = head.headers.clone();
    fill::update_head(resources, request, key, cached, update, requested).await;
}
