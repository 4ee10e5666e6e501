//! The response to a POST that states that it is what a GET of the same target would bring (RFC
//! 9110 9.3.3).
//!
//! Invariant: such a response is stored only if nothing but this very POST has purged its tags
//! since the POST was forwarded. The origin may have made the response before another mutation and
//! sent it after; then it is out of date.

use std::sync::Arc;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use tokio::sync::oneshot;

use crate::clock::Wall;
use crate::outcome::Reason;
use crate::policy::plan::{self, Plan, RequestView};
use crate::policy::route::RouteMode;
use crate::proxy::context::RequestContext;
use crate::proxy::fill::request::{FillReason, FillRequest, FillResult};
use crate::proxy::fill::store::stream_and_store;
use crate::proxy::resources::Resources;
use crate::proxy::response::assemble;
use crate::proxy::store_decision::decide_store;
use crate::semantics::body::Body;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::request_fields::RequestFields;
use crate::semantics::{freshness, targeted_cache_control};

/// What was known before a POST was forwarded whose response may be stored.
pub(super) struct PendingPost {
    fill: FillRequest,
    target: Uri,
    requested: Wall,
}

/// Reads the state of the tags that a GET of the same target would have, if a route takes it.
pub(super) async fn prepare_post(
    resources: &Resources,
    context: RequestContext<'_>,
    parts: &Parts,
) -> Option<PendingPost> {
    if resources.overlap.passes() {
        return None;
    }
    // RFC 9111 5.2.1.5.
    if parts.method != Method::POST || CacheControl::from_headers(&parts.headers).no_store {
        return None;
    }
    let mut headers = parts.headers.clone();
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let method = Method::GET;
    let view = RequestView {
        app: context.app(),
        method: &method,
        uri: &parts.uri,
        version: parts.version,
        headers: &headers,
        fields: RequestFields::of(&headers),
        has_body: false,
        seen_body: None,
        identity: None,
        peer_is_trusted: context.peer.trusted,
        bypass: context.connection.bypass(),
        client: context.config.rules.client_address.address(&headers, &context.peer),
        now: context.now,
        is_again: false,
    };
    let Plan::Lookup(lookup) = context.config.rules.plan(&view) else { return None };
    // SECURITY: the origin has seen a body and headers that no key holds. So nobody but the sender
    // may be given the response: the key holds its whole credential, and it has one.
    let is_same_target = (lookup.path(), lookup.query()) == (parts.uri.path(), parts.uri.query());
    if lookup.route.mode() == RouteMode::Shadow
        || lookup.range
        || !lookup.unknown.is_empty()
        || !lookup.has_owner()
        // Two browsers of one user may have the same session.
        || !lookup.route.session_rules.is_empty()
        || !is_same_target
        // The origin was asked for another host than a fill is for.
        || lookup.host() != plan::authority(&parts.uri, &parts.headers)
    {
        return None;
    }
    let reason = FillReason::not_stored(Reason::Method, lookup.key.hash());
    let mut fill = FillRequest::new(context, &lookup, reason);
    // SECURITY: that a caller may write a resource does not say that it may read it.
    fill.client = None;
    fill.snapshot = resources.store.read(&fill.tags).await;
    Some(PendingPost { fill, target: parts.uri.clone(), requested: resources.clock.wall() })
}

/// Stores the response to a POST while it is passed on, if it answers later GETs. `purges` is how
/// often this POST itself purged.
///
/// # Errors
/// The response, if it is not to be stored.
pub(super) async fn store_post_response(
    resources: &Arc<Resources>,
    post: PendingPost,
    response: Response<Body>,
    purges: u64,
) -> Result<Response<Body>, Response<Body>> {
    let PendingPost { mut fill, target, requested } = post;
    let received = resources.clock.wall();
    // RFC 9110 8.7: the content is that of the target, and only a 200 has the whole of it.
    if response.status() != StatusCode::OK
        || !is_self_describing(&fill, &response, &target, resources.clock.date())
    {
        return Err(response);
    }
    let after = resources.store.read(&fill.tags).await;
    if !after.is_later_by(&fill.snapshot, purges) {
        return Err(response);
    }
    fill.snapshot = after;
    let times = (requested, received);
    let Ok(decision) = decide_store(&resources.store, &fill, &response, times, None) else {
        return Err(response);
    };
    let (sender, result) = oneshot::channel();
    let shared = Arc::clone(resources);
    resources.tasks.spawn(async move {
        let storing = stream_and_store(&shared, fill, None, sender, response, (decision, None));
        Box::pin(storing).await;
    });
    match result.await {
        Ok(FillResult::Response { status, headers, body, .. }) => {
            Ok(assemble(status, headers, body))
        }
        // The task panicked, and its panic was logged.
        _ => Err(assemble(StatusCode::BAD_GATEWAY, HeaderMap::new(), Body::empty())),
    }
}

/// Whether the response is of its own target, and states for how long it is fresh.
fn is_self_describing(
    fill: &FillRequest,
    response: &Response<Body>,
    target: &Uri,
    dated: Wall,
) -> bool {
    let headers = response.headers();
    let lifetime =
        match targeted_cache_control::directives(headers, &fill.route.response_rules.targeted) {
            Some(directives) => freshness::stated(&directives),
            None => freshness::lifetime(&CacheControl::from_headers(headers), headers, dated),
        };
    lifetime.is_some_and(|lifetime| !lifetime.is_zero())
        && is_located_at(headers, &fill.host, target)
}

/// Whether `Content-Location` names the target of the request, and nothing else does.
fn is_located_at(headers: &HeaderMap, host: &str, target: &Uri) -> bool {
    let mut lines = headers.get_all(CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let whole = target.path_and_query().map_or("/", |path| path.as_str());
    let (Ok(base), Ok(line)) = (url::Url::parse(&format!("http://{host}{whole}")), line.to_str())
    else {
        return false;
    };
    base.join(line).is_ok_and(|located| {
        (located.host_str(), located.path(), located.query())
            == (base.host_str(), base.path(), base.query())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_response_is_located_at_its_own_target_alone() {
        let target = Uri::from_static("/api/search?q=1");
        let located = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LOCATION, HeaderValue::from_static(line));
            }
            is_located_at(&headers, "app:8080", &target)
        };
        assert!(
            located(&["/api/search?q=1"])
                && located(&["search?q=1"])
                && located(&["https://app/api/search?q=1"])
        );
        assert!(
            !located(&["/api/search"])
                && !located(&["/api/search?q=2"])
                && !located(&["http://elsewhere/api/search?q=1"])
        );
        assert!(!located(&[]) && !located(&["/api/search?q=1", "/x"]) && !located(&["http://["]));
    }
}
