//! Requests with a body that change nothing, by the operator's word: POST and the like on a route
//! with `read_only`. The body is read before anything is looked up, since it is in the key.
//!
//! Invariants:
//! - What is in memory counts for `limits.uploads` until the head of the response is there, and is
//!   at most `limits.read_body` long; the client has `limits.upload_time` for it.
//! - Whatever does not become a lookup goes on as it came: what was read, and the rest.
//! - A fill is sent once: where the origin closes the connection after it has had a byte of it, it
//!   is not sent again, as no POST is. Nor is it made conditional.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use crate::outcome::{Outcome, Reason};
use crate::policy::keyed_body::SeenBody;
use crate::policy::plan::{Plan, RequestView};
use crate::proxy::abandoned::PendingRequest;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::context::{LookupContext, RequestContext, request_view};
use crate::proxy::mutation::body::bodies::{PrefixedBody, WholeUpload};
use crate::proxy::mutation::body::timed::{TimedUpload, UploadLimit};
use crate::proxy::mutation::unanswered;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::proxy::upload_budget::ReservedBytes;
use crate::proxy::{key_watch, lookup, pass, shadow, unrouted};
use crate::semantics::body::{Body, BodyError};
use crate::upstream::UpstreamError;

/// A body that was read, or whose beginning was.
struct ReadUpload {
    seen: SeenBody,
    /// All of it, to be forwarded.
    forward: Body,
    /// Its place in memory.
    reserved: ReservedBytes,
}

/// Answers a request whose body a route has in its key.
pub(super) async fn answer(
    resources: &Arc<Resources>,
    live: &Arc<LiveConfig>,
    context: RequestContext<'_>,
    pending: &PendingRequest<'_>,
    parts: Parts,
    body: Body,
) -> ProxyResponse {
    let config = context.config;
    let has_body = !body.is_empty();
    let ReadUpload { seen, forward, reserved } = match read(resources, context, &parts, body).await
    {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!(%error, "an upload broke off before it was looked up");
            resources.counters.uploads_unsent.inc();
            let outcome = Outcome::bypass(Reason::Method);
            return unanswered(resources, &UpstreamError::RequestBody(error), &outcome);
        }
    };
    let view = request_view(&parts, &forward, context.peer, &config.rules, context.now);
    let bypass = context.connection.bypass();
    let view = RequestView { has_body, bypass, seen_body: Some(&seen), ..view };
    let is_endpoint = config.rules.is_endpoint(parts.uri.path());
    let plan = config.rules.plan(&view);
    let route = plan.route().map(|route| route.id);
    config.cookie_use.observe(&parts.headers);
    pending.set_route(route);
    pending.set_guest(plan.route());
    if plan.may_give_up(&view) {
        context.departure.set_expendable();
    }
    // Of a GraphQL endpoint, what is in doubt is counted where it is found.
    if matches!(plan, Plan::Mutate(_)) && !is_endpoint {
        resources.counters.reads_as_writes.inc();
    }
    if let Some(shadowed) = shadow::shadow_request(resources, context, &parts, &plan) {
        key_watch::observe_plan(resources, &plan);
        drop(plan);
        return shadow::pass_in_shadow(resources, context, parts, forward, shadowed).await;
    }
    let answered = match plan {
        Plan::Lookup(lookup) => {
            let clients = &resources.authorized_clients;
            let context = LookupContext::new(context, &parts, &lookup, clients);
            if resources.overlap.passes() {
                let outcome = Outcome::bypass(Reason::Handover);
                pass::pass_lookup(resources, &context, outcome).await
            } else {
                match lookup::fast_hit(resources, &context) {
                    Ok(answered) => answered,
                    Err(attempts) => lookup::serve_lookup(resources, &context, attempts).await,
                }
            }
        }
        Plan::Mutate(method) => {
            // It is read again, for the purge rules.
            drop(reserved);
            let mutated = unrouted::mutate(resources, live, context, parts, forward, method);
            return Box::pin(mutated).await;
        }
        Plan::Pass(route, outcome) => {
            key_watch::record_removed(resources, route, &outcome);
            let route = route.map(|route| route.id);
            pass::pass(resources, context, parts, forward, outcome, route).await
        }
        Plan::Refuse(route, header) => {
            resources.counters.refused.inc();
            ProxyResponse::refused_header(route, &header)
        }
        // Its body is given.
        Plan::ReadBody(route) => {
            let (outcome, route) = (Outcome::bypass(Reason::AmbiguousBody), Some(route.id));
            pass::pass(resources, context, parts, forward, outcome, route).await
        }
    };
    drop(reserved);
    answered
}

/// Reads the body, unless it is too long.
async fn read(
    resources: &Resources,
    context: RequestContext<'_>,
    parts: &Parts,
    body: Body,
) -> Result<ReadUpload, BodyError> {
    let config = context.config;
    let most = config.rules.max_read_body;
    let requester = context.requester(parts);
    let mut reserved = resources.upload_budget.reserve(requester.peer);
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > most) {
        resources.counters.read_bodies_too_large.inc();
        return Ok(ReadUpload { seen: SeenBody::TooLarge, forward: body, reserved });
    }
    let mut body = if body.buffered_len().is_some() {
        body
    } else {
        let limit = UploadLimit {
            time: config.settings.upload_time,
            exceeded: resources.counters.uploads_too_slow.clone(),
            clock: resources.clock.clone(),
        };
        Body::stream(TimedUpload::new(body, limit))
    };
    let mut data = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data().map_err(Frame::into_trailers) {
            Ok(chunk) => {
                let fits = (data.len() + chunk.len()) as u64 <= most;
                if !fits {
                    resources.counters.read_bodies_too_large.inc();
                }
                let has_room = fits && reserved.grow(chunk.len() as u64);
                data.extend_from_slice(&chunk);
                if !has_room {
                    let forward = Body::stream(PrefixedBody::new(data.freeze(), body));
                    return Ok(ReadUpload { seen: SeenBody::TooLarge, forward, reserved });
                }
            }
            Err(found) => {
                trailers = found.ok();
                break;
            }
        }
    }
    let data: Bytes = data.freeze();
    if trailers.is_some() {
        let forward = Body::stream(WholeUpload::new(data, trailers));
        return Ok(ReadUpload { seen: SeenBody::WithTrailers, forward, reserved });
    }
    let forward = if length.is_some() {
        Body::full(data.clone())
    } else {
        Body::stream(WholeUpload::new(data.clone(), None))
    };
    Ok(ReadUpload { seen: SeenBody::Whole(data), forward, reserved })
}
