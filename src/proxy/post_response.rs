//! The answer to a POST that says of itself that it is what a GET of the same target would bring
//! (RFC 9110 9.3.3).
//!
//! Invariant: such an answer is stored only if nothing was purged while the app made it but what
//! this very POST purged. The app may have made it before another write and sent it after; then it
//! is old news.

use std::sync::Arc;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use tokio::sync::oneshot;

use crate::clock::Wall;
use crate::coherence::TagSnapshot;
use crate::outcome::Reason;
use crate::policy::plan::{Plan, PolicyRules, RequestView};
use crate::policy::route::RouteMode;
use crate::proxy::Proxy;
use crate::proxy::fill::{FillRequest, FillResult};
use crate::proxy::miss::FillReason;
use crate::semantics::body::Body;
use crate::semantics::cache_control::CacheControl;
use crate::semantics::forward::ClientPeer;
use crate::semantics::{freshness, targeted_cache_control};

/// What was known before a POST was forwarded whose answer may be stored.
pub(crate) struct PendingPost {
    fill: FillRequest,
    target: Uri,
    requested: Wall,
}

impl Proxy {
    /// Reads the state of the tags that a GET of the same target would have, if a route takes it.
    pub(crate) async fn prepare_post(
        &self,
        rules: &PolicyRules,
        parts: &Parts,
        peer: ClientPeer,
    ) -> Option<PendingPost> {
        // RFC 9111 5.2.1.5.
        if parts.method != Method::POST || CacheControl::from_headers(&parts.headers).no_store {
            return None;
        }
        let mut headers = parts.headers.clone();
        for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let method = Method::GET;
        let asked = RequestView {
            method: &method,
            uri: &parts.uri,
            version: parts.version,
            headers: &headers,
            has_body: false,
            peer_is_trusted: peer.trusted,
        };
        let Plan::Lookup(lookup) = rules.plan(&asked) else { return None };
        // SECURITY: what the app has seen of this POST, the key has seen; it saw no credential,
        // cookie, header or parameter that the fill of a GET would have withheld.
        if lookup.route.spec.mode == RouteMode::Shadow
            || lookup.range
            || !lookup.unknown.is_empty()
            || !lookup.is_sent_unchanged()
        {
            return None;
        }
        let mut order = self.fill_request(
            parts,
            &lookup,
            peer,
            FillReason { snapshot: TagSnapshot::Unverifiable, reason: Reason::Method, stale: None },
        );
        order.snapshot = self.store.read(&order.tags).await;
        Some(PendingPost { fill: order, target: parts.uri.clone(), requested: self.clock.wall() })
    }

    /// Stores the answer to a POST while it is passed on, if it answers later GETs. `purges` is how
    /// often this POST itself purged.
    ///
    /// # Errors
    /// The answer, if it is not to be stored.
    pub(crate) async fn store_post_response(
        self: &Arc<Self>,
        posted: PendingPost,
        response: Response<Body>,
        purges: u64,
    ) -> Result<Response<Body>, Response<Body>> {
        let PendingPost { mut fill, target, requested } = posted;
        let received = self.clock.wall();
        // RFC 9110 8.7: the content is that of the target, and only a 200 has the whole of it.
        if response.status() != StatusCode::OK
            || !is_self_describing(&fill, &response, &target, received)
        {
            return Err(response);
        }
        let after = self.store.read(&fill.tags).await;
        if !after.is_later_by(&fill.snapshot, purges) {
            return Err(response);
        }
        fill.snapshot = after;
        let Ok(judged) = self.decide_store(&fill, &response, requested, received, None) else {
            return Err(response);
        };
        let (tell, told) = oneshot::channel();
        let proxy = Arc::clone(self);
        self.tasks
            .spawn(async move { proxy.stream_and_store(fill, None, tell, response, judged).await });
        match told.await {
            Ok(FillResult::Response { status, headers, body, .. }) => {
                Ok(crate::proxy::response::assemble(status, headers, body))
            }
            // The task panicked, and its panic was logged.
            _ => Err(crate::proxy::response::assemble(
                StatusCode::BAD_GATEWAY,
                HeaderMap::new(),
                Body::empty(),
            )),
        }
    }
}

/// Whether the answer is of its own target, and says itself for how long it is fresh.
fn is_self_describing(
    order: &FillRequest,
    response: &Response<Body>,
    target: &Uri,
    received: Wall,
) -> bool {
    let headers = response.headers();
    let lifetime =
        match targeted_cache_control::directives(headers, &order.route.response_rules.targeted) {
            Some(directives) => freshness::stated(&directives),
            None => freshness::lifetime(&CacheControl::from_headers(headers), headers, received),
        };
    lifetime.is_some_and(|lifetime| !lifetime.is_zero())
        && is_located_at(headers, &order.host, target)
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
    fn an_answer_is_located_at_its_own_target_alone() {
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
