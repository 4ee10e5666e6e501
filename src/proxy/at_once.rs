//! A hit that is answered at once, before its request has a future: a future carries the state of
//! all that may follow, and is moved several times, which costs more than the hit does.
//!
//! Invariant: the answer is the one that the flow would give. A request that gets none here is as
//! it was, and nothing was noted of it but what its plan has shown.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Version};

use crate::clock::Wall;
use crate::outcome::{Outcome, Reason};
use crate::policy::plan::{Plan, RequestView};
use crate::policy::route::{Route, RouteMode};
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::client::{ClientConnection, ConnectionDemand};
use crate::proxy::context::{LookupContext, RequestContext, view_with};
use crate::proxy::lookup;
use crate::proxy::lookup::LookupAttempts;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::request_fields::RequestFields;

/// What was found of a request that was not answered at once.
#[derive(Debug, Default)]
pub struct FoundAtOnce(pub(super) Option<Planned>);

/// What was found of its plan.
#[derive(Debug)]
pub(super) enum Planned {
    /// No route of this configuration matches.
    NoRoute(Arc<ActiveConfig>),
    /// By this configuration it passes: the route that matches, and why.
    Passed(Arc<ActiveConfig>, Option<Arc<Route>>, Box<Outcome>),
    /// What is stored is due for an early refresh: decided once for each request.
    RefreshDue,
    /// It has to be planned again, and what it carries was counted.
    Counted,
}

impl Planned {
    /// The plan of a request.
    pub(super) fn plan<'a>(
        planned: Option<&'a Self>,
        config: &'a Arc<ActiveConfig>,
        request: &RequestView<'a>,
    ) -> Plan<'a> {
        match planned {
            Some(Self::NoRoute(own)) if Arc::ptr_eq(own, config) => {
                Plan::Pass(None, Outcome::bypass(Reason::NoRoute))
            }
            Some(Self::Passed(own, route, outcome)) if Arc::ptr_eq(own, config) => {
                Plan::Pass(route.as_ref(), Outcome::clone(outcome))
            }
            _ => config.rules.plan(request),
        }
    }

    /// A hit, unless it is known that there is none.
    pub(super) fn fast_hit(
        planned: Option<&Self>,
        resources: &Arc<Resources>,
        context: &LookupContext<'_>,
    ) -> Result<ProxyResponse, LookupAttempts> {
        match planned {
            Some(Self::RefreshDue) => Err(LookupAttempts::refresh_due()),
            _ => lookup::fast_hit(resources, context),
        }
    }
}

/// The hit for a request that came at this time, and whether it goes by the policy for guests.
/// `Err`: the request goes the whole way, with what was found of it.
pub(super) fn find(
    resources: &Arc<Resources>,
    config: &Arc<ActiveConfig>,
    client: &ClientConnection,
    (parts, now): (&Parts, Wall),
) -> Result<(ProxyResponse, bool), Option<Planned>> {
    let rules = &config.rules;
    if !is_plain(parts) || resources.overlap.passes() || !rules.may_plan_twice() {
        return Err(None);
    }
    let fields = RequestFields::of(&parts.headers);
    let head = (&parts.headers, fields);
    let checked = forward::check_request(&parts.method, &parts.uri, parts.version, head);
    if !checked.is_ok_and(|options| !options.upgrade) {
        return Err(None);
    }
    let app = rules.apps.of(&parts.uri, &parts.headers);
    let connection = &ConnectionDemand::plain(client, head, app).ok_or(None)?;
    let peer = client.peer(config);
    let context = RequestContext { config, peer, departure: &client.departure, connection, now };
    match rules.lookup_of(&view_with(app, (parts, fields), &Body::empty(), peer, rules, now)) {
        Ok(lookup) if lookup.route.mode() == RouteMode::On => {
            let clients = &resources.authorized_clients;
            let context = LookupContext::new(context, parts, &lookup, clients);
            match lookup::fast_hit(resources, &context) {
                Ok(answered) => Ok((answered, lookup.route.is_for_guests())),
                Err(attempts) if attempts.is_refresh_due() => Err(Some(Planned::RefreshDue)),
                Err(_) => Err(rules.verify_callers().then_some(Planned::Counted)),
            }
        }
        Err(Plan::Pass(None, outcome)) if outcome.reason == Some(Reason::NoRoute) => {
            Err(Some(Planned::NoRoute(Arc::clone(config))))
        }
        // What could not be verified is not verified twice.
        Err(Plan::Pass(route, outcome)) if rules.verify_callers() => {
            let config = Arc::clone(config);
            Err(Some(Planned::Passed(config, route.cloned(), Box::new(outcome))))
        }
        _ => Err(rules.verify_callers().then_some(Planned::Counted)),
    }
}

/// Whether nothing of a request has to be settled before it is planned.
fn is_plain(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD)
        && matches!(parts.version, Version::HTTP_11 | Version::HTTP_2)
        && (parts.version == Version::HTTP_2 || parts.uri.authority().is_none())
        && parts.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'))
}
