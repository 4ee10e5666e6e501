//! A fill: fetches a whole response from the origin, shares it as it comes, and stores it once it
//! is proven whole and current.
//!
//! The fill is a task of its own: the leader is its first reader, and may leave like any other.
//! Where something is stored already, the fill revalidates it; what the origin confirms is stored
//! anew only if nothing was purged since the tags were read.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;

use crate::cache::fills::{FillKey, Leader};
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::key::KeyHash;
use crate::policy::plan::{Lookup, Plan, RequestView};
use crate::policy::scope::Scope;
use crate::policy::surrogate::CarriedTags;
use crate::proxy::context::{LookupContext, request_view};
use crate::proxy::fill::authorization::record_confirmation;
use crate::proxy::fill::guest_proof::GuestProof;
use crate::proxy::fill::origin_response::OriginResponse;
use crate::proxy::fill::request::{FillReason, FillRequest, FillResult, StaleCandidate};
use crate::proxy::fill::store::{prepare_head, store_response, stream_and_store};
use crate::proxy::fill::unwanted::fetch_while_wanted;
use crate::proxy::hit;
use crate::proxy::key_watch;
use crate::proxy::pass;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::proxy::shareable_head::ShareableHead;
use crate::proxy::store_decision::{StoreDecision, date_skew, decide_store};
use crate::semantics::body::Body;
use crate::semantics::cache_status;
use crate::semantics::digest::Digest;
use crate::semantics::vary::VarySpec;
use crate::upstream::UpstreamError;

mod authorization;
mod coding;
mod guest_proof;
mod origin_response;
mod own_redirect;
pub(super) mod request;
pub(super) mod store;
mod unwanted;

/// Fetches a response, as the leader of a fill or for this request alone.
pub(super) async fn fill(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    reason: FillReason,
    leader: Option<Leader>,
) -> ProxyResponse {
    // A fill that this request has followed may have been refused meanwhile.
    if resources.fills.is_refused(&context.refusal_key(), resources.clock.wall()) {
        let outcome = Outcome::bypass(Reason::FillRefused);
        return Box::pin(pass::pass_lookup(resources, context, outcome)).await;
    }
    if context.guests_differ(resources) {
        let outcome = Outcome::bypass(Reason::GuestsDiffer);
        return Box::pin(pass::pass_lookup(resources, context, outcome)).await;
    }
    let outcome = Outcome { forwarded: true, ..Outcome::miss(reason.reason) };
    let stale = reason.stale.clone();
    let request = FillRequest::awaited(context, reason);
    let (sender, receiver) = oneshot::channel();
    let shared = Arc::clone(resources);
    resources.tasks.spawn(async move { run_fill(&shared, request, leader, sender).await });
    respond_to_leader(resources, context, outcome, stale, receiver.await.ok()).await
}

/// The response to the request that began a fill. Where the response to the fill is not for this
/// request, it goes to the origin as it is.
pub(super) async fn respond_to_leader(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    outcome: Outcome,
    stale: Option<StaleCandidate>,
    result: Option<FillResult>,
) -> ProxyResponse {
    let route = Some(context.route());
    match &result {
        Some(FillResult::Refused(outcome)) => {
            return pass_instead(resources, context, outcome.clone(), stale.as_ref()).await;
        }
        Some(FillResult::Response { vary, .. }) => {
            if let Some(outcome) = withheld_outcome(context.lookup, vary) {
                return fill_again(resources, context, outcome, vary).await;
            }
        }
        _ => {}
    }
    match (result, stale) {
        (
            Some(FillResult::Response {
                status,
                mut headers,
                body,
                stored,
                revalidated,
                date_skew,
                origin,
                ..
            }),
            stale,
        ) => {
            let outcome = Outcome { date_skew, origin, ..outcome };
            let outcome = filled_outcome(outcome, status, stored, revalidated);
            cache_status::set_cache_status(&mut headers, &outcome);
            hit::add_debug_headers(context, &mut headers);
            let request = &context.parts.headers;
            let response = response::conditional_of_fetched(request, status, headers, body);
            let response = match stale {
                // The whole is at hand; of a new response a range gets the whole, as it comes (RFC
                // 9110 14.2).
                Some(StaleCandidate { candidate, .. }) if revalidated && context.lookup.range => {
                    let (whole, most) =
                        (&candidate.cached.entry.body, context.settings().max_ranges);
                    response::apply_range(response, request, whole, most)
                }
                _ => response,
            };
            ProxyResponse { response, outcome, route }
        }
        (Some(FillResult::ServedStale(status)), Some(stale)) => {
            resources.counters.stale_if_error.inc();
            let outcome = Outcome {
                fwd_status: Some(status.as_u16()),
                reason: Some(Reason::UpstreamError),
                ..outcome
            };
            hit::serve_stale(context, &stale, outcome, resources.clock.wall())
        }
        (Some(FillResult::Failed(error)), stale) => {
            let (stale, reason) = (stale.as_ref(), error.reason());
            let outcome = outcome.with_failure(error.cause());
            hit::serve_stale_on_error(resources, context, stale, outcome.clone(), reason)
                .unwrap_or_else(|| ProxyResponse::upstream_failure(&error, &outcome, route))
        }
        // The task panicked, and its panic was logged.
        _ => ProxyResponse::upstream_failure(
            &UpstreamError::Broken("the fill ended early".into()),
            &outcome,
            route,
        ),
    }
}

/// What a fill that has brought a response makes of this outcome.
fn filled_outcome(
    outcome: Outcome,
    status: StatusCode,
    stored: Result<i64, Reason>,
    revalidated: bool,
) -> Outcome {
    let (disposition, fwd_status) = if revalidated {
        (Disposition::Revalidated, StatusCode::NOT_MODIFIED)
    } else {
        (Disposition::Miss, status)
    };
    let outcome = Outcome { disposition, fwd_status: Some(fwd_status.as_u16()), ..outcome };
    match stored {
        Ok(ttl) => Outcome { stored: true, ttl: Some(ttl), ..outcome },
        Err(reason) => Outcome { reason: Some(reason), ..outcome },
    }
}

/// Why a response that varies so is not for this request, if it is not. What the fill has withheld
/// is learned.
pub(super) fn withheld_outcome(lookup: &Lookup<'_>, vary: &VarySpec) -> Option<Outcome> {
    lookup.withheld_from(vary)?;
    // What there is no room for makes the request pass, which counts it.
    let _ = lookup.route.learn(vary, &lookup.withheld_names(), &lookup.roles);
    let name = lookup.withheld_for_good(vary)?;
    Some(Outcome::bypass_with(Reason::WithheldHeader, name.as_str()))
}

/// Fetches a response with the headers that have just been learned, for this request and those like
/// it. Where there is more that a fill withholds, the request goes to the origin as it is.
async fn fill_again(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    outcome: Outcome,
    vary: &VarySpec,
) -> ProxyResponse {
    let rules = &context.request.config.rules;
    let (peer, now) = (context.request.peer, context.request.now);
    let view = request_view(context.request.app(), context.parts, &Body::empty(), peer, rules, now);
    let (seen_body, identity) = (context.lookup.seen_body(), Some(&context.lookup.identity));
    let view = RequestView { seen_body, identity, ..view };
    match rules.plan(&view) {
        Plan::Lookup(lookup) if lookup.withheld_from(vary).is_none() => {
            let clients = &resources.authorized_clients;
            let context = LookupContext::new(context.request, context.parts, &lookup, clients);
            let snapshot = resources.store.read(&lookup.tags()).await;
            let key = lookup.variant_hash(vary);
            let reason = FillReason { snapshot, ..FillReason::not_stored(Reason::VaryMiss, key) };
            Box::pin(fill(resources, &context, reason, None)).await
        }
        _ => Box::pin(pass::pass_lookup(resources, context, outcome)).await,
    }
}

/// Forwards the request as it is, since the origin's answer to the fill is not for it.
async fn pass_instead(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    outcome: Outcome,
    stale: Option<&StaleCandidate>,
) -> ProxyResponse {
    let passed = Box::pin(pass::pass_lookup(resources, context, outcome)).await;
    let refused =
        matches!(passed.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if let (true, Scope::Private, Some(stale)) = (refused, context.lookup.route.spec.scope, stale) {
        // The origin no longer gives this caller what is stored for it.
        resources.store.forget(stale.key).await;
    }
    passed
}

/// Carries out a fill. The result goes to the request that began it, if that still waits.
pub(super) async fn run_fill(
    resources: &Resources,
    request: FillRequest,
    mut leader: Option<Leader>,
    mut sender: oneshot::Sender<FillResult>,
) {
    let begun = resources.clock.wall();
    let fetching = fetch_while_wanted(resources, &request, &mut sender, leader.as_ref());
    let origin = match fetching.await {
        Ok(origin) => origin,
        Err(UpstreamError::GivenUp) => return leader.map_or((), Leader::finish_unshared),
        Err(error) => {
            if let Some(leader) = leader {
                let now = resources.clock.wall();
                leader.fail(error.reason(), now.since(begun), now);
            }
            return drop(sender.send(FillResult::Failed(error)));
        }
    };
    let status = origin.response.status();
    record_head(resources, &request, status, origin.response.headers());
    if let Some(outcome) = request.passes_after(&origin.response, resources.clock.wall()) {
        resources.fills.refuse(request.refusal_key, origin.received);
        if let Some(leader) = leader {
            leader.finish_unshared();
        }
        let _ = sender.send(FillResult::Refused(outcome));
        return;
    }
    record_authorization(resources, &request, &origin);
    if let (true, Some(stale)) = (is_failure(status), &request.stale) {
        if let Some(leader) = leader.take() {
            leader.fail(Reason::UpstreamError, origin.received.since(begun), origin.received);
        }
        if stale.may_serve_for(Reason::UpstreamError, origin.received) {
            let _ = sender.send(FillResult::ServedStale(status));
            return;
        }
    }
    if let Some(leader) = &leader {
        leader.clear_failure();
    }
    match decide(resources, &request, &origin, leader.is_some(), &mut sender) {
        Ok(decided) => {
            let response = origin.response;
            let storing = stream_and_store(resources, request, leader, sender, response, decided);
            Box::pin(storing).await;
        }
        Err(reason) => answer_unstored(resources, &request, leader, sender, origin, reason).await,
    }
}

/// Whether a response may be stored, and what it needs to prove before; or why not. `leads`:
/// whether others wait for it.
fn decide(
    resources: &Resources,
    request: &FillRequest,
    origin: &OriginResponse,
    leads: bool,
    sender: &mut oneshot::Sender<FillResult>,
) -> Result<(StoreDecision, Option<GuestProof>), Reason> {
    let OriginResponse { response, requested, received, revalidated } = origin;
    let times = (*requested, *received);
    let decision = decide_store(&resources.store, request, response, times, revalidated.clone());
    if let Some(outcome) = request.own_request(response.headers()) {
        let is_fresh = |decision: &StoreDecision| decision.policy.times.is_fresh(*received);
        if !decision.as_ref().is_ok_and(is_fresh) {
            // Each request of such a client would be sent twice.
            resources.fills.refuse(request.refusal_key, *received);
        }
        // The fill goes on for the others.
        let nobody = oneshot::channel().0;
        let _ = std::mem::replace(sender, nobody).send(FillResult::Refused(outcome));
    }
    let decision = decision?;
    let proof = GuestProof::for_response(resources, request, response.headers(), leads)?;
    Ok((decision, proof))
}

/// Gives the request that began a fill a response that is not stored.
async fn answer_unstored(
    resources: &Resources,
    request: &FillRequest,
    leader: Option<Leader>,
    sender: oneshot::Sender<FillResult>,
    origin: OriginResponse,
    reason: Reason,
) {
    let OriginResponse { response, requested, received, revalidated } = origin;
    let (status, confirmed) = (response.status(), revalidated.is_some());
    let vary = request.variants_by(response.headers());
    let supersedes = request.supersedes(status, response.headers());
    drop_stale(resources, request, supersedes, confirmed, reason).await;
    // An accident, not a habit: the next request may lead for all again.
    let is_accident = status.is_server_error() || reason == Reason::GuestsUncompared;
    match leader {
        Some(leader) if is_accident => leader.finish_unshared(),
        Some(leader) => leader.finish_uncacheable(received),
        None => {}
    }
    let date_skew = date_skew(&resources.store, response.headers(), (requested, received));
    let now = resources.clock.date();
    let call = response.extensions().get().cloned();
    let ((status, mut headers), body) = prepare_head(request, response, confirmed, now);
    if let Some(stored) = &revalidated {
        record_confirmation(resources, request, stored, &headers);
    }
    // A CDN may store what is not stored here.
    let carried = CarriedTags { tags: &request.tags, is_complete: false };
    request.config.settings.name_tags(&request.route, &mut headers, carried);
    let (stored, revalidated) = (Err(reason), confirmed);
    let _ = sender.send(FillResult::Response {
        status,
        headers,
        body,
        stored,
        revalidated,
        date_skew,
        vary,
        origin: call,
    });
}

/// Whether a fill that ended after this request looked into the store has brought what it needs.
pub(super) fn is_already_filled(
    resources: &Resources,
    fill_key: &FillKey,
    reason: &FillReason,
) -> bool {
    let known = reason.stale.as_ref().map(|stale| stale.candidate.cached.entry.times.received);
    // SECURITY: a caller who is not authorized is not served what another caller's fill brought.
    fill_key.caller.is_none()
        && resources.store.has_newer(fill_key.hash, known, &reason.snapshot, resources.clock.wall())
}

/// Stores a response with the newer head that a HEAD has brought, if it may be stored, and forgets
/// it otherwise.
pub(super) async fn update_head(
    resources: &Resources,
    request: FillRequest,
    key: KeyHash,
    cached: &Arc<CachedEntry>,
    head: Response<Body>,
    requested: Wall,
) {
    let received = resources.clock.wall();
    let origin = OriginResponse { response: head, requested, received, revalidated: None };
    let response = origin.confirm(cached, resources.clock.date()).response;
    let confirmed = Some(Arc::clone(cached));
    let store = &resources.store;
    let stored = match decide_store(store, &request, &response, (requested, received), confirmed) {
        // A HEAD has no body by which it could be proven.
        Ok(_) if request.needs_guest_proof(response.headers()) => Err(Reason::GuestsUncompared),
        Ok(decision) => {
            let ((status, headers), _) = prepare_head(&request, response, true, received);
            let head = ShareableHead::new(headers);
            store_response(resources, &request, decision, status, &head, &[]).await.map(drop)
        }
        Err(reason) => Err(reason),
    };
    if stored.is_err() {
        store.forget(key).await;
    }
}

/// The failures that a stale response may stand in for (RFC 5861 4).
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The origin has sent another response than the stored one, and it is not to be stored. The stored
/// one is no longer what the origin would send (RFC 9111 4.3.3), and must not be served as stale.
async fn drop_stale(
    resources: &Resources,
    request: &FillRequest,
    supersedes: bool,
    confirmed: bool,
    reason: Reason,
) {
    resources.counters.note_unread(reason);
    let Some(stale) = &request.stale else { return };
    // A confirmed response that only brings a cookie is still the same.
    let same = confirmed
        && matches!(
            reason,
            Reason::SetCookie
                | Reason::SessionChanged
                | Reason::GuestsUncompared
                | Reason::Unverifiable
        );
    if !same && supersedes {
        resources.store.forget(stale.key).await;
    }
}

/// Records what the head of a response says of the caller, and of cookies.
fn record_head(
    resources: &Resources,
    request: &FillRequest,
    status: StatusCode,
    headers: &HeaderMap,
) {
    request.record_refusal(&resources.authorized_clients, status, headers);
    request.config.rules.end_identity_by(&request.sent, headers);
    request.config.rolling_cookies.observe(&request.sent, headers);
    if request.sets_cookie(headers) {
        key_watch::record_set_cookies(resources, &request.route, headers);
    }
}

/// By `admit = "route"`, a 2xx authorizes its caller for all that the route stores.
///
/// SECURITY: where clients are authorized by entry, a response whose body is new authorizes for
/// this very response alone, so only at its end.
fn record_authorization(resources: &Resources, request: &FillRequest, origin: &OriginResponse) {
    let Some(client) = request.client.filter(|client| !client.by_entry()) else { return };
    if origin.response.status().is_success() {
        let times = (resources.clock.wall(), request.route.spec.admit_for);
        resources.authorized_clients.authorize(client, request.key, Digest::default(), times);
    }
}
