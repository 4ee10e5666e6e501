//! What the origin answers to a fill: the whole response, or that the stored one still holds.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Response, StatusCode};

use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::outcome::OriginCall;
use crate::proxy::fill::request::FillRequest;
use crate::proxy::resources::Resources;
use crate::semantics::body::Body;
use crate::semantics::content_coding;
use crate::semantics::forward;
use crate::semantics::revalidation;
use crate::upstream::UpstreamError;

/// What the origin made of a fill's request.
pub(super) struct OriginResponse {
    pub(super) response: Response<Body>,
    pub(super) requested: Wall,
    pub(super) received: Wall,
    /// What is stored, if the origin has confirmed it. The response is that one then, with its head
    /// brought up to date.
    pub(super) revalidated: Option<Arc<CachedEntry>>,
}

impl OriginResponse {
    /// The stored response, its head brought up to date by the origin's 304, or by the head that a
    /// HEAD got. `date` is for an update without one.
    pub(super) fn confirm(self, cached: &Arc<CachedEntry>, date: Wall) -> Self {
        let (mut update, _) = self.response.into_parts();
        forward::prepare_response(&mut update.headers, update.version);
        let entry = &cached.entry;
        let mut response = Response::new(Body::full(entry.body.clone()));
        if let Some(call) = update.extensions.remove::<Arc<OriginCall>>() {
            response.extensions_mut().insert(call);
        }
        *response.status_mut() = entry.status;
        *response.headers_mut() = entry.updated_headers(&update.headers, date);
        Self { response, revalidated: Some(Arc::clone(cached)), ..self }
    }
}

/// Asks the origin whether what is stored still holds, or for the whole response where nothing is
/// stored.
pub(super) async fn revalidate_or_fetch(
    resources: &Resources,
    request: &FillRequest,
) -> Result<OriginResponse, UpstreamError> {
    // A stored error page has no validators that the origin would recognise.
    let stale = request
        .stale
        .as_ref()
        .map(|stale| &stale.candidate.cached)
        .filter(|cached| cached.entry.status == StatusCode::OK)
        // RFC 9110 13.1.2: with another method than GET, a match is a failure (412).
        .filter(|_| request.body.is_none());
    let fills = &resources.fills;
    let may_confirm = |cached: &&Arc<CachedEntry>| {
        let headers = cached.entry.origin_headers();
        revalidation::has_validator(&headers)
            && !fills.is_unconfirmed(request.primary.hash(), &headers)
    };
    if let Some(cached) = stale.filter(may_confirm) {
        let (stored, mut headers) = (cached.entry.origin_headers(), request.sent.clone());
        revalidation::add_conditions(&stored, &mut headers);
        let origin = send(resources, request, headers).await?;
        if origin.response.status() != StatusCode::NOT_MODIFIED {
            return Ok(origin);
        }
        let is_confirmed = revalidation::validates(&stored, origin.response.headers());
        if is_confirmed && !keeps_form(request, cached, origin.response.headers()) {
            return send(resources, request, request.sent.clone()).await;
        }
        if is_confirmed {
            resources.counters.revalidated.inc();
            return Ok(origin.confirm(cached, resources.clock.date()));
        }
        fills.mark_unconfirmed(request.primary.hash(), &stored);
        // RFC 9111 4.3.4: it confirms something else. Only this cache sent a condition, so no
        // client can use it.
    }
    send(resources, request, request.sent.clone()).await
}

/// Whether what is stored may stay in the form that the cache has coded it in: the origin has not
/// forbidden it since, and the bytes need no comparison with its own.
fn keeps_form(request: &FillRequest, cached: &CachedEntry, update: &HeaderMap) -> bool {
    cached.entry.original().is_none()
        || (content_coding::stays_coded(update) && !request.needs_guest_proof(update))
}

pub(super) async fn send(
    resources: &Resources,
    request: &FillRequest,
    headers: HeaderMap,
) -> Result<OriginResponse, UpstreamError> {
    let requested = resources.clock.wall();
    let sent = request.to_request(headers);
    let asker = (request.peer, request.departure.clone());
    let response =
        request.origin().send(asker, sent, &request.config.table, Some(request.route.id)).await?;
    let received = resources.clock.wall();
    Ok(OriginResponse { response, requested, received, revalidated: None })
}
