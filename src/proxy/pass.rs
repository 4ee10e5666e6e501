//! Forwarding around the cache: streamed both ways, and tunnelled after a 101.

use std::sync::Arc;

use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;

use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::plan;
use crate::policy::plan::Lookup;
use crate::proxy::response;
use crate::proxy::{Proxy, ProxyResponse};
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::upstream;

impl Proxy {
    /// Forwards a request as it is.
    pub(super) async fn pass(
        self: &Arc<Self>,
        parts: Parts,
        body: Body,
        peer: ClientPeer,
        outcome: Outcome,
        route: Option<usize>,
    ) -> ProxyResponse {
        let upgrade = if body.is_empty() {
            forward::upgrade_wanted(&parts.headers, parts.version)
        } else {
            None
        };
        let client = parts.extensions.get::<OnUpgrade>().cloned();
        let request = self.upstream_request(parts, body, peer, upgrade.as_ref());
        match self.send_to_origin(request, route).await {
            Ok(response) => self.passed(response, outcome, route, upgrade.and(client)),
            Err(error) => failure_response(&error, &outcome, route),
        }
    }

    /// Forwards a request of a route whose answer is not to be stored, as a fill would: the app
    /// sees what the key has seen.
    pub(super) async fn pass_lookup(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        outcome: Outcome,
    ) -> ProxyResponse {
        let mut parts = parts.clone();
        if outcome.disposition == Disposition::Miss {
            (parts.uri, parts.headers) = lookup.fill_request();
        }
        let answer = self.pass(parts, Body::empty(), peer, outcome, Some(lookup.route.id)).await;
        self.record_refusal(lookup, answer.response.status());
        answer
    }

    /// However it was asked, the app has refused this credential.
    pub(super) fn record_refusal(&self, lookup: &Lookup<'_>, status: StatusCode) {
        if let (Some(id), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =
            (lookup.authorization, status)
        {
            self.authorized_clients.revoke(id);
        }
    }

    pub(super) fn passed(
        self: &Arc<Self>,
        mut response: Response<Body>,
        mut outcome: Outcome,
        route: Option<usize>,
        client: Option<OnUpgrade>,
    ) -> ProxyResponse {
        outcome.fwd_status = Some(response.status().as_u16());
        let version = response.version();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.tunnel(response, outcome, route, client);
        }
        forward::prepare_response(response.headers_mut(), version);
        response::set_cache_status(response.headers_mut(), &outcome);
        *response.version_mut() = Version::HTTP_11;
        ProxyResponse { response, outcome, route }
    }

    /// The app has switched protocols: from here on bytes go through as they are.
    fn tunnel(
        self: &Arc<Self>,
        mut response: Response<Body>,
        outcome: Outcome,
        route: Option<usize>,
        client: Option<OnUpgrade>,
    ) -> ProxyResponse {
        let protocol = response.headers().get(http::header::UPGRADE).cloned();
        let app = response.extensions_mut().remove::<OnUpgrade>();
        let (Some(client), Some(app), Some(protocol)) = (client, app, protocol) else {
            // SECURITY: a 101 that nobody asked for would leave bytes on the connection that no
            // rule has seen.
            let outcome = Outcome { reason: Some(Reason::UpstreamProtocolError), ..outcome };
            return ProxyResponse {
                response: response::failure(Reason::UpstreamProtocolError, &outcome),
                outcome,
                route,
            };
        };
        self.counters.tunnels.inc();
        let (idle, stop) = (self.config.load().settings.tunnel_timeout, self.stop.clone());
        self.tasks.spawn(async move {
            if let Err(error) = upstream::tunnel(client, app, idle, stop).await {
                tracing::debug!(%error, "a tunnel ended");
            }
        });
        let version = response.version();
        forward::prepare_response(response.headers_mut(), version);
        forward::set_upgrade(response.headers_mut(), &protocol);
        response::set_cache_status(response.headers_mut(), &outcome);
        ProxyResponse { response, outcome, route }
    }

    /// Sends a request to the app, and counts how long its answer takes, under the rules that are
    /// in force by then.
    pub(crate) async fn send_to_origin(
        &self,
        request: Request<Body>,
        route: Option<usize>,
    ) -> Result<Response<Body>, upstream::UpstreamError> {
        let since = self.clock.now();
        let response = self.upstream.send(request).await?;
        self.config.load().table.origin(route, self.clock.now().duration_since(since));
        Ok(response)
    }

    /// The request that the app gets.
    pub(crate) fn upstream_request(
        &self,
        parts: Parts,
        body: Body,
        peer: ClientPeer,
        upgrade: Option<&HeaderValue>,
    ) -> Request<Body> {
        let host = HeaderValue::from_str(&plan::authority(&parts.uri, &parts.headers)).ok();
        let mut headers = parts.headers;
        let host = headers
            .get(http::header::HOST)
            .cloned()
            .or(host)
            .unwrap_or_else(|| HeaderValue::from_static(""));
        forward::prepare_request(&mut headers, parts.version, &host, &peer, upgrade);
        if let Some(host) = self.upstream.host() {
            headers.insert(http::header::HOST, host.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = origin_form(parts.uri);
        *request.headers_mut() = headers;
        request
    }

    /// The request of a fill: this target and these headers alone.
    pub(super) fn fill_upstream_request(
        &self,
        method: Method,
        version: Version,
        target: Uri,
        headers: HeaderMap,
        peer: ClientPeer,
    ) -> Request<Body> {
        let mut own = Request::new(()).into_parts().0;
        own.method = method;
        own.version = version;
        own.uri = target;
        own.headers = headers;
        self.upstream_request(own, Body::empty(), peer, None)
    }
}

/// SECURITY: only path and query go to the app's one address, whatever authority the target named.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let mut origin = http::uri::Parts::default();
    origin.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(origin).unwrap_or(uri)
}

/// The app could not be asked, or did not answer.
pub(crate) fn failure_response(
    error: &upstream::UpstreamError,
    outcome: &Outcome,
    route: Option<usize>,
) -> ProxyResponse {
    tracing::debug!(%error, "the app did not answer");
    let reason = error.reason();
    let outcome = Outcome { reason: Some(reason), subject: None, ..outcome.clone() };
    ProxyResponse { response: response::failure(reason, &outcome), outcome, route }
}
