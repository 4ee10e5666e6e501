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
use http::Method;
use http::request::Parts;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use crate::outcome::{Outcome, Reason};
use crate::policy::keyed_body::SeenBody;
use crate::proxy::abandoned::PendingRequest;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::context::RequestContext;
use crate::proxy::mutation::body::bodies::{PrefixedBody, WholeUpload};
use crate::proxy::mutation::body::timed::{TimedUpload, UploadLimit};
use crate::proxy::mutation::unanswered;
use crate::proxy::planned;
use crate::proxy::planned::PlannedBody;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::proxy::upload_budget::ReservedBytes;
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

/// Answers a request of which a route has the body in its key, or who its caller is.
pub(super) async fn answer(
    resources: &Arc<Resources>,
    live: &Arc<LiveConfig>,
    context: RequestContext<'_>,
    pending: &PendingRequest<'_>,
    parts: Parts,
    body: Body,
) -> ProxyResponse {
    let has_body = !body.is_empty();
    if matches!(parts.method, Method::GET | Method::HEAD) {
        let body = PlannedBody { forward: body, has_body, read: None };
        return planned::answer(resources, live, context, pending, parts, body).await;
    }
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
    let body = PlannedBody { forward, has_body, read: Some((seen, reserved)) };
    planned::answer(resources, live, context, pending, parts, body).await
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
