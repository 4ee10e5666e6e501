//! The client of the origin, as the flow uses it: builds the requests that the origin gets, sends
//! them, and counts how long the responses take.

use futures_util::TryFutureExt as _;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Uri};

use std::sync::Arc;

use crate::clock::Clock;
use crate::outcome::OriginCall;
use crate::policy::apps::AppId;
use crate::policy::plan;
use crate::policy::plan::X_REQUEST_ID;
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::shares::{Departure, Requester, ShareOwner};
use crate::telemetry::metrics::RouteTable;
use crate::upstream::{ConnectionChoice, OriginHealth, PinSlot, SendOnce, Upstream, UpstreamError};

/// The client of the origin of each app.
#[derive(Debug)]
pub(crate) struct AppOrigins {
    first: Arc<OriginClient>,
    listed: Box<[Arc<OriginClient>]>,
}

impl AppOrigins {
    /// Those of `[upstream]` and of `[[apps]]`.
    pub(crate) fn new(first: Arc<OriginClient>, listed: Box<[Arc<OriginClient>]>) -> Self {
        Self { first, listed }
    }

    /// That of an app.
    pub(crate) fn of(&self, app: AppId) -> &Arc<OriginClient> {
        let listed = app.index().checked_sub(1).and_then(|place| self.listed.get(place));
        listed.unwrap_or(&self.first)
    }

    /// That of `[upstream]`.
    pub(crate) fn first(&self) -> &Arc<OriginClient> {
        &self.first
    }

    /// Whether all of them answer; none while nothing is known of the first one.
    pub(crate) fn answer(&self) -> Option<bool> {
        let fails = |client: &Arc<OriginClient>| client.health().status().answers == Some(false);
        if self.iter().any(fails) { Some(false) } else { self.first.health().status().answers }
    }

    /// All of them, that of `[upstream]` first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<OriginClient>> {
        std::iter::once(&self.first).chain(&self.listed)
    }
}

/// The client of the origin.
#[derive(Debug)]
pub(crate) struct OriginClient {
    upstream: Upstream,
    clock: Clock,
}

impl OriginClient {
    pub(crate) fn new(upstream: Upstream, clock: Clock) -> Self {
        Self { upstream, clock }
    }

    /// Whether the origin answers.
    pub(crate) fn health(&self) -> &OriginHealth {
        self.upstream.health()
    }

    /// A place for one client connection's own connection to the origin.
    pub(super) fn pin(&self) -> Arc<PinSlot> {
        self.upstream.pin()
    }

    /// The host of the origin's own URL, for requests that name none.
    pub(super) fn authority(&self) -> HeaderValue {
        self.upstream.authority().clone()
    }

    /// Whether a place is for connections of this client.
    pub(super) fn owns(&self, pin: &PinSlot) -> bool {
        self.upstream.owns(pin)
    }

    /// Closes the connections that are not in use, and each of the others after its exchange.
    pub(crate) fn retire(&self) {
        self.upstream.retire();
    }

    /// Sends a request of the sidecar's own to the origin, for this peer, and counts how long its
    /// response takes, under this route of this table. The departure is that of all clients that
    /// it is sent for, if it may be given up then. The response has its [`OriginCall`] in its
    /// extensions.
    pub(super) async fn send(
        &self,
        (peer, departure): (ShareOwner, Option<Arc<Departure>>),
        request: Request<Body>,
        table: &RouteTable,
        route: Option<usize>,
    ) -> Result<Response<Body>, UpstreamError> {
        let requester = Requester { peer, upload: None, departure };
        let choice = &ConnectionChoice::Pooled;
        self.send_on(choice, &requester, Box::new(request), table, route).await.map(with_call)
    }

    /// Like [`Self::send`], for a client's request that is passed on. The call is beside the
    /// response: extensions are dear, and most requests need no other.
    // Not `async`: see `Upstream::send_for`.
    pub(super) fn send_on<'a>(
        &'a self,
        choice: &'a ConnectionChoice,
        requester: &'a Requester,
        request: Box<Request<Body>>,
        table: &'a RouteTable,
        route: Option<usize>,
    ) -> impl Future<Output = Result<(Response<Body>, Arc<OriginCall>), UpstreamError>> + Send + 'a
    {
        let since = self.clock.now();
        let request_id = request.headers().get(X_REQUEST_ID).cloned();
        let sending = self.upstream.send_for(choice, requester, request);
        async move {
            let response = sending.await?;
            let took = self.clock.now().duration_since(since);
            table.origin(route, took);
            let call = OriginCall { took: Some(took), request_id, cause: None };
            Ok((response, Arc::new(call)))
        }
    }

    /// Like [`Self::send`], for a request that may change data, whatever its method.
    pub(super) fn send_once<'a>(
        &'a self,
        (choice, requester): &'a (ConnectionChoice, Requester),
        mut request: Request<Body>,
        table: &'a RouteTable,
    ) -> impl Future<Output = Result<Response<Body>, UpstreamError>> + Send + 'a {
        request.extensions_mut().insert(SendOnce);
        self.send_on(choice, requester, Box::new(request), table, None).map_ok(with_call)
    }

    /// The request that the origin gets for a request of a client.
    pub(super) fn request(
        &self,
        parts: Parts,
        body: Body,
        peer: ClientPeer,
        upgrade: Option<&HeaderValue>,
    ) -> Box<Request<Body>> {
        let authority = || HeaderValue::from_str(&plan::authority(&parts.uri, &parts.headers)).ok();
        let host = parts.headers.get(HOST).cloned().or_else(authority);
        let host = host.unwrap_or_else(|| HeaderValue::from_static(""));
        let mut headers = parts.headers;
        let via = self.upstream.via();
        forward::prepare_request(&mut headers, parts.version, &host, &peer, upgrade, via);
        if let Some(host) = self.upstream.host() {
            headers.insert(HOST, host.clone());
        }
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = parts.method;
        *request.uri_mut() = origin_form(parts.uri);
        *request.headers_mut() = headers;
        request
    }
}

/// A response with its [`OriginCall`] in its extensions.
fn with_call((mut response, call): (Response<Body>, Arc<OriginCall>)) -> Response<Body> {
    response.extensions_mut().insert(call);
    response
}

/// SECURITY: only path and query go to the origin's one address, whatever authority the target
/// named.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let mut origin = http::uri::Parts::default();
    origin.path_and_query = uri.path_and_query().cloned();
    match Uri::from_parts(origin) {
        // A path of no characters would leave the target of the request line empty.
        Ok(whole) if whole.path().is_empty() => Uri::from_static("/"),
        Ok(whole) => whole,
        Err(_) => uri,
    }
}
