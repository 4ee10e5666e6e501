//! A request that was planned once already, and lacked something: its body ([`super::body_read`]),
//! or who its caller is ([`super::identity`]). It is planned again with that, and goes its way.

use std::sync::Arc;

use http::request::Parts;

use crate::outcome::{Outcome, Reason};
use crate::policy::keyed_body::SeenBody;
use crate::policy::plan::{Plan, RequestView};
use crate::policy::route::RouteMode;
use crate::proxy::abandoned::PendingRequest;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::context::{LookupContext, RequestContext, request_view};
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::proxy::upload_budget::ReservedBytes;
use crate::proxy::{identity, key_watch, lookup, pass, shadow, unrouted};
use crate::semantics::body::Body;

/// The body of a request that is planned again.
pub(super) struct PlannedBody {
    /// All of it, to be forwarded.
    pub(super) forward: Body,
    /// Whether the client has sent one.
    pub(super) has_body: bool,
    /// What was read of it, with its place in memory.
    pub(super) read: Option<(SeenBody, ReservedBytes)>,
}

/// Plans a request again, and answers it.
pub(super) async fn answer(
    resources: &Arc<Resources>,
    live: &Arc<LiveConfig>,
    context: RequestContext<'_>,
    pending: &PendingRequest<'_>,
    parts: Parts,
    body: PlannedBody,
) -> ProxyResponse {
    let PlannedBody { forward, has_body, read } = body;
    let (seen, reserved) = read.unzip();
    let (rules, bypass) = (&context.config.rules, context.connection.bypass());
    let view = request_view(context.app(), &parts, &forward, context.peer, rules, context.now);
    let view = RequestView { has_body, bypass, seen_body: seen.as_ref(), ..view };
    let identified;
    let plan = match rules.plan(&view) {
        Plan::Identify(route) => {
            let waits = route.mode() != RouteMode::Shadow;
            identified = identity::identify(resources, context, &view, &parts, waits).await;
            rules.plan(&RequestView { identity: Some(&identified), is_again: true, ..view })
        }
        plan => plan,
    };
    let route = plan.route().map(|route| route.id);
    context.config.cookie_use.observe(&parts.headers);
    pending.set_route(route);
    pending.set_guest(plan.route());
    if plan.may_give_up(&view) {
        context.departure.set_expendable();
    }
    // Of a GraphQL endpoint, what is in doubt is counted where it is found.
    if matches!(plan, Plan::Mutate(_)) && !rules.is_endpoint(context.app(), parts.uri.path()) {
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
            pass::pass(resources, context, Box::new((parts, forward)), outcome, route).await
        }
        Plan::Refuse(route, header) => {
            resources.counters.refused.inc();
            ProxyResponse::refused_header(route, &header)
        }
        // What they lack is given.
        Plan::ReadBody(route) => {
            let (outcome, route) = (Outcome::bypass(Reason::AmbiguousBody), Some(route.id));
            pass::pass(resources, context, Box::new((parts, forward)), outcome, route).await
        }
        Plan::Identify(route) => {
            let (outcome, route) = (Outcome::bypass(Reason::IdentityUnknown), Some(route.id));
            pass::pass(resources, context, Box::new((parts, forward)), outcome, route).await
        }
    };
    drop(reserved);
    answered
}
