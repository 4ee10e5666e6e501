//! Nothing that may be served is stored: the response is fetched from the origin, once for all
//! requests for the same key at the same time.
//!
//! Invariants:
//! - A stale response stands in for the origin only if no hard purge has touched it, its window is
//!   open, and neither the origin nor the client forbids it.
//! - Of the requests that wait for a fill that fails, each tries for itself at most once.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;

use crate::cache::fills::{BodyReader, FillKey, FillRole, JoinOutcome, Leader, SharedHead};
use crate::outcome::{Disposition, Outcome, Reason};
use crate::proxy::cluster::{ClusterFill, fill_in_cluster};
use crate::proxy::context::LookupContext;
use crate::proxy::fill::request::FillReason;
use crate::proxy::fill::{fill, is_already_filled, withheld_outcome};
use crate::proxy::hit;
use crate::proxy::pass;
use crate::proxy::range_budget::{RangeBudget, RangeLimit};
use crate::proxy::refresh;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::cache_status;
use crate::semantics::range;
use crate::semantics::vary::VarySpec;
use crate::shares::ShareOwner;

/// Fetches a response, for all requests that need it now. None: another fill has just stored it, so
/// repeat the lookup.
pub(super) async fn fetch(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    mut fill_key: FillKey,
    reason: FillReason,
    may_retry: bool,
) -> Option<ProxyResponse> {
    let FillReason { reason: miss_reason, stale, .. } = &reason;
    let (fills, clock) = (&resources.fills, &resources.clock);
    if let Some(failure) = fills.failed_slowly(&fill_key, clock.wall()) {
        let outcome = Outcome::new(Disposition::Stale);
        let stale = stale.as_ref();
        if let Some(response) =
            hit::serve_stale_on_error(resources, context, stale, outcome, failure)
        {
            // No request waits a second time for an origin that hangs; it is asked in the
            // background.
            refresh::refresh(resources, context, fill_key, reason);
            return Some(response);
        }
    }
    let mut may_try_again = true;
    // Once by the key that is known; once more when a fill has shown what the response varies by,
    // once when its body is not for this caller, and once when it has failed.
    for _ in 0..4 {
        let follower = match fills.role(fill_key, &reason.snapshot, clock.wall()) {
            FillRole::Leader(leader) => {
                return lead(resources, context, fill_key, reason, leader, may_retry).await;
            }
            FillRole::Alone => break,
            FillRole::Follower(follower) => follower,
        };
        // SECURITY: what another caller's fill brings is for those alone who are authorized for it.
        let may_share = |head: &SharedHead| {
            fill_key.caller.is_some() || context.may_share(head.variant, head.digest, clock.wall())
        };
        let variant = |vary: &VarySpec| context.lookup.variant_hash(vary);
        match follower.join(&reason.snapshot, variant, may_share).await {
            JoinOutcome::Shared(head, reader) => {
                return Some(respond_to_follower(context, &head, reader, *miss_reason));
            }
            JoinOutcome::OtherVariant(head) => {
                if let Some(outcome) = withheld_outcome(context.lookup, &head.vary) {
                    return Some(pass::pass_lookup(resources, context, outcome).await);
                }
                fill_key.hash = context.lookup.variant_hash(&head.vary);
            }
            JoinOutcome::OtherCaller => fill_key.caller = context.caller(),
            JoinOutcome::RetryLookup if may_retry => return None,
            JoinOutcome::Alone | JoinOutcome::RetryLookup => break,
            JoinOutcome::Failed(failure) => {
                let outcome =
                    Outcome { collapsed: true, forwarded: true, ..Outcome::miss(*miss_reason) };
                let stale = stale.as_ref();
                let stood_in =
                    hit::serve_stale_on_error(resources, context, stale, outcome.clone(), failure);
                if stood_in.is_some() {
                    return stood_in;
                }
                if failure == Reason::UpstreamError {
                    // The origin did answer, and this request may get its answer.
                    break;
                }
                let quick =
                    matches!(failure, Reason::UpstreamUnreachable | Reason::UpstreamProtocolError);
                if !(quick && std::mem::take(&mut may_try_again)) {
                    let outcome = Outcome { reason: Some(failure), ..outcome };
                    return Some(ProxyResponse {
                        response: response::failure(failure, &outcome),
                        outcome,
                        route: Some(context.route()),
                    });
                }
            }
        }
    }
    Some(fill(resources, context, reason, None).await)
}

/// Fetches a response for all requests that follow. None: repeat the lookup.
async fn lead(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    fill_key: FillKey,
    reason: FillReason,
    leader: Leader,
    may_retry: bool,
) -> Option<ProxyResponse> {
    if may_retry
        && reason.reason != Reason::RequestNoCache
        && is_already_filled(resources, &fill_key, &reason)
    {
        leader.retry_lookup();
        return None;
    }
    let shared = ClusterFill::find(resources, context.lookup.route, &fill_key, &reason);
    match shared.filter(|_| may_retry) {
        Some(shared) => fill_in_cluster(resources, context, reason, leader, shared).await,
        None => Some(fill(resources, context, reason, Some(leader)).await),
    }
}

/// A part of what is not stored: the origin sends the part, and the whole is fetched in the
/// background, if it is not too large, and this peer has received enough of parts.
pub(super) async fn pass_range(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    fill_key: FillKey,
    reason: FillReason,
) -> ProxyResponse {
    let mut passed = pass::pass_plain(resources, context, Outcome::bypass(Reason::Range)).await;
    let headers = passed.response.headers();
    let length = match passed.response.status() {
        StatusCode::PARTIAL_CONTENT => range::complete_length(headers),
        // An origin that knows no ranges has sent the whole.
        StatusCode::OK => headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .or_else(|| passed.response.body().buffered_len()),
        _ => None,
    };
    let settings = context.settings();
    if settings.range_fill == 0 {
        return passed;
    }
    let rules = &context.request.config.rules;
    let peer = rules.client_address.share(&context.parts.headers, &context.request.peer);
    let (budget, limit) = (&resources.range_budget, RangeLimit::from_settings(settings));
    if let Some(length) = length.filter(|length| *length <= settings.range_fill)
        && budget.take(peer, length, limit)
        && !refresh::refresh(resources, context, fill_key, reason)
    {
        budget.give_back(peer, length, limit);
    }
    passed.response = passed.response.map(|body| credited(body, budget, peer, limit));
    passed
}

/// The body, which counts for the peer's budget as it is read.
fn credited(body: Body, budget: &Arc<RangeBudget>, peer: ShareOwner, limit: RangeLimit) -> Body {
    if let Some(bytes) = body.buffered_len() {
        budget.credit(peer, bytes, limit);
        return body;
    }
    let budget = Arc::clone(budget);
    Body::stream(body.map_frame(move |frame| {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        budget.credit(peer, bytes as u64, limit);
        frame
    }))
}

/// The response to a request that follows another one's fill.
fn respond_to_follower(
    context: &LookupContext<'_>,
    head: &SharedHead,
    reader: BodyReader,
    miss_reason: Reason,
) -> ProxyResponse {
    let outcome = Outcome { collapsed: true, ttl: Some(head.ttl), ..Outcome::miss(miss_reason) };
    let outcome = if head.revalidated {
        Outcome {
            disposition: Disposition::Revalidated,
            fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()),
            ..outcome
        }
    } else {
        Outcome { fwd_status: Some(head.status.as_u16()), ..outcome }
    };
    let mut headers = head.headers.clone();
    cache_status::set_cache_status(&mut headers, &outcome);
    hit::add_debug_headers(context, &mut headers);
    let request = &context.parts.headers;
    let response = response::conditional(request, head.status, headers, Body::stream(reader));
    ProxyResponse { response, outcome, route: Some(context.route()) }
}
