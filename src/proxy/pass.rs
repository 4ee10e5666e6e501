//! Forwarding around the cache: streamed both ways, and tunnelled after a 101.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, UPGRADE, VARY};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use crate::outcome::{Outcome, Reason};
use crate::policy::plan::Lookup;
use crate::policy::refusal::Refusal;
use crate::proxy::context::{LookupContext, RequestContext, shared_client};
use crate::proxy::key_watch;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::cache_status;
use crate::semantics::forward;
use crate::semantics::vary::VarySpec;
use crate::upstream;

/// How many unknown headers of a request are counted besides the one that its outcome names.
const MAX_COUNTED: usize = 15;

/// A request on its way to the origin. In a box, because each step of the way would move it.
pub(super) type PassedRequest = Box<(Parts, Body)>;

/// Forwards a request as it is.
// Not `async`: a future around another one is moved with it.
pub(super) fn pass(
    resources: &Arc<Resources>,
    context: RequestContext<'_>,
    request: PassedRequest,
    outcome: Outcome,
    route: Option<usize>,
) -> impl Future<Output = ProxyResponse> {
    pass_and(resources, context, request, outcome, route, |_, _| {})
}

/// Forwards a request as it is. `settle` sees the head of the response before the outcome is told.
async fn pass_and(
    resources: &Arc<Resources>,
    context: RequestContext<'_>,
    request: PassedRequest,
    mut outcome: Outcome,
    route: Option<usize>,
    settle: impl FnOnce(&HeaderMap, &mut Outcome),
) -> ProxyResponse {
    let (parts, body) = *request;
    let upgrade = context.connection.upgrade.as_ref();
    let client = parts.extensions.get::<OnUpgrade>().cloned();
    let requester = context.requester(&parts);
    let cookies = key_watch::cookies_of(&parts.headers);
    let rules = &context.config.rules;
    let sent = rules.identities.as_ref().map(|_| parts.headers.clone());
    let request = context.origin().request(parts, body, context.peer, upgrade);
    let (choice, table) = (&context.connection.choice, &context.config.table);
    match context.origin().send_on(choice, &requester, request, table, route).await {
        Ok((response, call)) => {
            outcome.origin = Some(call);
            // SECURITY: a protocol that was not offered is none that may be tunnelled.
            let accepted = |offered| forward::accepts_upgrade(offered, response.headers());
            let client = client.filter(|_| upgrade.is_some_and(accepted));
            context.config.rolling_cookies.observe(&cookies, response.headers());
            if let Some(sent) = &sent {
                // The origin may have taken it for a write, too.
                if outcome.reason == Some(Reason::MethodOverride) {
                    rules.end_identity(sent);
                }
                rules.end_identity_by(sent, response.headers());
            }
            settle(response.headers(), &mut outcome);
            passed(resources, context, response, outcome, route, client)
        }
        Err(error) => ProxyResponse::upstream_failure(&error, &outcome, route),
    }
}

/// Forwards a request of a route whose response is not to be stored, as it is.
pub(super) async fn pass_lookup(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    outcome: Outcome,
) -> ProxyResponse {
    pass_parts(resources, context, context.parts.clone(), outcome).await
}

/// The same, without content codings: parts of two codings must not end up in one download.
pub(super) async fn pass_plain(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    outcome: Outcome,
) -> ProxyResponse {
    let mut parts = context.parts.clone();
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    pass_parts(resources, context, parts, outcome).await
}

async fn pass_parts(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    parts: Parts,
    outcome: Outcome,
) -> ProxyResponse {
    let settle = |headers: &HeaderMap, outcome: &mut Outcome| {
        resources.counters.headers_unlearned.add(learn_vary(context, headers));
        blame(resources, context, outcome);
    };
    let route = Some(context.route());
    let body = context.lookup.body.as_ref().map(|body| body.sent.clone());
    let request = Box::new((parts, body.map_or_else(Body::empty, Body::full)));
    let passed = pass_and(resources, context.request, request, outcome, route, settle).await;
    let (status, headers) = (passed.response.status(), passed.response.headers());
    let rules = &context.request.config.rules;
    let host = context.lookup.host();
    if Refusal::from_response(&rules.credential, host, status, headers).is_some() {
        revoke(resources, context.lookup).await;
    }
    passed
}

/// Revokes the authorization of a caller whom the origin has turned away, whatever the request was.
async fn revoke(resources: &Resources, lookup: &Lookup<'_>) {
    if let Some(client) = shared_client(lookup) {
        let key = resources.store.entry_key(lookup, resources.clock.wall()).await;
        resources.authorized_clients.revoke(client, key);
    }
}

/// Learns which headers of this request the origin names in `Vary` that no key has seen. Returns
/// how many there is no room for.
fn learn_vary(context: &LookupContext<'_>, response: &HeaderMap) -> u64 {
    if !response.contains_key(VARY) {
        return 0;
    }
    let lookup = context.lookup;
    VarySpec::from_response(&context.parts.headers, response)
        .map_or(0, |vary| lookup.route.learn(&vary, &lookup.withheld_names(), &lookup.roles))
}

/// Names the header that is at fault among those that no key has seen: what the response has just
/// shown to be covered by `Vary` is in the key from now on. The others are counted.
fn blame(resources: &Resources, context: &LookupContext<'_>, outcome: &mut Outcome) {
    let lookup = context.lookup;
    if outcome.reason != Some(Reason::UnkeyedHeader) {
        return;
    }
    let unlearned = lookup.unlearned();
    let Some((name, others)) = unlearned.split_first() else { return };
    key_watch::observe_unkeyed(resources, context);
    outcome.subject = Some(name.as_str().into());
    // The outcome names one of them. Whoever has to do something about it needs all.
    for other in others.iter().take(MAX_COUNTED) {
        let (route, reason) = (lookup.route.name(), Reason::UnkeyedHeader.as_str());
        resources.hot_tags.subject(route, reason, other.as_str());
    }
}

/// Makes the origin's response ready for the client.
pub(super) fn passed(
    resources: &Resources,
    context: RequestContext<'_>,
    mut response: Response<Body>,
    mut outcome: Outcome,
    route: Option<usize>,
    client: Option<OnUpgrade>,
) -> ProxyResponse {
    outcome.fwd_status = Some(response.status().as_u16());
    if let Some(call) = response.extensions_mut().remove() {
        outcome.origin = Some(call);
    }
    let version = response.version();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel(resources, context, response, outcome, route, client);
    }
    forward::prepare_response(response.headers_mut(), version);
    cache_status::set_cache_status(response.headers_mut(), &outcome);
    *response.version_mut() = Version::HTTP_11;
    ProxyResponse { response, outcome, route }
}

/// The origin has switched protocols: from here on bytes go through as they are.
fn tunnel(
    resources: &Resources,
    context: RequestContext<'_>,
    mut response: Response<Body>,
    outcome: Outcome,
    route: Option<usize>,
    client: Option<OnUpgrade>,
) -> ProxyResponse {
    let protocol = response.headers().get(UPGRADE).cloned();
    let origin = response.extensions_mut().remove::<OnUpgrade>();
    let (Some(client), Some(origin), Some(protocol)) = (client, origin, protocol) else {
        // SECURITY: a 101 that nobody asked for would leave bytes on the connection that no rule
        // has seen.
        let outcome = Outcome { reason: Some(Reason::UpstreamProtocolError), ..outcome };
        return ProxyResponse {
            response: response::failure(Reason::UpstreamProtocolError, &outcome),
            outcome,
            route,
        };
    };
    resources.counters.tunnels.inc();
    let (idle, stop) = (context.config.settings.tunnel_timeout, resources.streams.clone());
    resources.tasks.spawn(async move {
        if let Err(error) = upstream::tunnel(client, origin, idle, stop).await {
            tracing::debug!(%error, "a tunnel ended");
        }
    });
    let version = response.version();
    forward::prepare_response(response.headers_mut(), version);
    forward::set_upgrade(response.headers_mut(), &protocol);
    cache_status::set_cache_status(response.headers_mut(), &outcome);
    ProxyResponse { response, outcome, route }
}
