//! The flow: what happens to a request, from its head to its response. It reads from the top down.
//!
//! - A hit from memory: `at_once`, by the same steps as below.
//! - A GET or HEAD on a route: `lookup` (with `serve`, the decision), `hit`, `miss`, `fill`;
//!   `cluster` where all sidecars share a fill, `refresh` in the background, `head` for HEAD.
//! - Another method on a route that has its body in the key: `body_read`, then as a GET.
//! - A route that has in its key who the caller is: `identity`, then as a GET.
//! - A write: `mutation`, and `post_response` where its response answers later GETs.
//! - Anything else: `pass`.
//! - `shadow` and `audit` find out whether the rules are right; `inspect` is for `explain`.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use crate::outcome::{Outcome, Reason};
use crate::policy::apps::AppId;
use crate::policy::known_callers::CallerParts;
use crate::policy::plan::{Lookup, Plan, RequestView};
use crate::policy::scope::Scope;
use crate::proxy::abandoned::PendingRequest;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::active_config::LiveConfig;
use crate::proxy::at_once::Planned;
use crate::proxy::client::ConnectionDemand;
use crate::proxy::context::{LookupContext, RequestContext, request_view};
use crate::proxy::inspect::Inspected;
use crate::proxy::mode_switches::ModeSwitches;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::semantics::forward;
use crate::semantics::forward::{BadRequest, UnreadHead};
use crate::semantics::request_fields::RequestFields;
use crate::semantics::server_timing;
use crate::telemetry::metrics;
use crate::telemetry::metrics::{BodySource, RequestRecord, RouteTable};

pub use crate::proxy::active_config::ActiveConfig;
pub use crate::proxy::at_once::FoundAtOnce;
pub use crate::proxy::client::ClientConnection;
pub use crate::proxy::cookie_use::CookieUse;
pub use crate::proxy::counters::ProxyCounters;
pub(crate) use crate::proxy::guest_proofs::GuestProofs;
pub(crate) use crate::proxy::identity_probes::IdentityProbes;
pub(crate) use crate::proxy::late_keys::LateKeys;
pub(crate) use crate::proxy::late_purges::LatePurges;
pub(crate) use crate::proxy::origin::{AppOrigins, OriginClient};
pub use crate::proxy::overlap::Overlap;
pub use crate::proxy::range_budget::RangeBudget;
pub use crate::proxy::resources::Resources;
pub use crate::proxy::settings::{DebugHeaders, ProxySettings};
pub(crate) use crate::proxy::uncovered_writes::UncoveredWrites;
pub(crate) use crate::proxy::unknown_outcomes::UnknownOutcomes;
pub(crate) use crate::proxy::upload_budget::UploadBudget;

mod abandoned;
mod access_log;
mod active_config;
mod at_once;
mod audit;
mod body_read;
mod client;
mod cluster;
mod context;
mod cookie_use;
mod counters;
mod fill;
mod guest_proofs;
mod head;
mod hit;
mod identity;
mod identity_probes;
pub mod inspect;
mod key_watch;
mod late_fill;
mod late_keys;
mod late_purges;
mod lookup;
mod miss;
pub mod mode_switches;
mod mutation;
mod origin;
mod overlap;
mod pass;
mod planned;
mod post_response;
mod purge_request;
mod range_budget;
mod refresh;
mod resources;
pub mod response;
mod serve;
mod settings;
mod shadow;
pub mod shareable_head;
mod store_decision;
mod uncovered_writes;
mod unknown_outcomes;
mod unrouted;
mod upload_budget;
mod webhook;

/// The entry of the flow. It alone holds the configuration in force: each request gets the one that
/// it begins with, and the steps get no other.
#[derive(Debug)]
pub struct Proxy {
    live: Arc<LiveConfig>,
    resources: Arc<Resources>,
    /// The switches that hold.
    pub switches: ModeSwitches,
}

/// The rest of the process reads tiers, metrics and counts here.
impl Deref for Proxy {
    type Target = Resources;

    fn deref(&self) -> &Resources {
        &self.resources
    }
}

impl Proxy {
    /// A flow with this configuration in force.
    #[must_use]
    pub fn new(config: ActiveConfig, resources: Resources) -> Self {
        let (live, resources) = (Arc::new(LiveConfig::new(config)), Arc::new(resources));
        let switches = ModeSwitches::new(Arc::clone(&live), Arc::clone(&resources));
        Self { live, resources, switches }
    }

    /// The configuration in force.
    #[must_use]
    pub fn active_config(&self) -> Arc<ActiveConfig> {
        self.live.load()
    }

    /// Puts another configuration in force, at once and as a whole, with the switches that hold.
    /// Requests in flight go on by the one that they began with.
    pub fn activate(&self, config: ActiveConfig) {
        self.switches.activate(config);
    }

    /// Answers a request. It never fails: failures are responses. `flaw` is what the server has
    /// found wrong with it.
    pub fn handle(
        &self,
        request: Request<Body>,
        client: &ClientConnection,
        flaw: Option<BadRequest>,
    ) -> impl Future<Output = Response<Body>> + Send {
        self.handle_found(request, client, flaw, FoundAtOnce::default())
    }

    /// The same with what [`Self::answer_at_once`] has found of it.
    pub async fn handle_found(
        &self,
        request: Request<Body>,
        client: &ClientConnection,
        flaw: Option<BadRequest>,
        found: FoundAtOnce,
    ) -> Response<Body> {
        let since = self.clock.now();
        let is_head = request.method() == Method::HEAD;
        let config = self.live.load();
        let logged = config.settings.access_log;
        let peer = client.peer(&config);
        let head = (request.method(), request.uri(), request.headers());
        let record = AccessRecord::begin(head, peer, logged, &self.resources);
        let caller = caller_of(&config, request.uri(), request.headers());
        let mut pending =
            PendingRequest::new(&self.resources, &config, &client.departure, record, since);
        let mut answered = match flaw {
            None => {
                let webhooks = &config.rules.webhooks;
                match webhooks.source_of(request.method(), request.uri().path()) {
                    Some(source) => {
                        let from = (&*config, &peer);
                        Box::pin(webhook::answer(&self.resources, from, source, request)).await
                    }
                    None => self.respond(&config, client, (request, found), &pending).await,
                }
            }
            Some(bad) => self.refuse_request(bad),
        };
        let record = pending.answer();
        // SECURITY: the origin has not seen what a guest sends.
        let caller = caller.filter(|_| !pending.is_guest());
        self.conclude(&config, &mut answered, record, caller.as_ref(), (since, is_head));
        answered.response
    }

    /// Counts and logs what was done with a request that began at this time, and makes its response
    /// ready for the client.
    fn conclude(
        &self,
        config: &ActiveConfig,
        answered: &mut ProxyResponse,
        record: Option<AccessRecord>,
        caller: Option<&CallerParts>,
        (since, is_head): (Instant, bool),
    ) {
        let duration = self.clock.now().duration_since(since);
        count(&config.table, answered, duration, is_head);
        response::tell_browser(&config.rules.routes, answered, &self.clock);
        if config.settings.debug.server_timing {
            server_timing::add(answered.response.headers_mut(), &answered.outcome, duration);
        }
        self.record_subject(config, answered);
        if let Some(caller) = caller {
            self.record_caller(config, caller, answered);
        }
        if let Some(record) = record {
            record.write(answered, &config.rules, duration, &self.resources);
        }
    }

    /// Answers a request without a body at once, if it is a hit from memory: the same answer as
    /// that of [`Self::handle`].
    ///
    /// # Errors
    /// It is for that, with what was found of it.
    pub fn answer_at_once(
        &self,
        parts: &Parts,
        client: &ClientConnection,
    ) -> Result<Response<Body>, FoundAtOnce> {
        let (since, now) = self.clock.both();
        let config = self.live.load();
        let found = at_once::find(&self.resources, &config, client, (parts, now));
        let (mut answered, is_guest) = found.map_err(FoundAtOnce)?;
        let (peer, logged) = (client.peer(&config), config.settings.access_log);
        let head = (&parts.method, &parts.uri, &parts.headers);
        let record = AccessRecord::begin(head, peer, logged, &self.resources);
        // SECURITY: the origin has not seen what a guest sends.
        let caller = if is_guest { None } else { caller_of(&config, &parts.uri, &parts.headers) };
        let is_head = parts.method == Method::HEAD;
        self.conclude(&config, &mut answered, record, caller.as_ref(), (since, is_head));
        Ok(answered.response)
    }

    /// What is stored for a request, and how it would be answered. None where nothing is stored.
    pub async fn inspect(&self, lookup: &Lookup<'_>, headers: &HeaderMap) -> Option<Inspected> {
        inspect::inspect(&self.resources, lookup, headers).await
    }

    async fn respond(
        &self,
        config: &Arc<ActiveConfig>,
        client: &ClientConnection,
        (request, FoundAtOnce(planned)): (Request<Body>, FoundAtOnce),
        pending: &PendingRequest<'_>,
    ) -> ProxyResponse {
        let (resources, live) = (&self.resources, &self.live);
        let (mut parts, body) = request.into_parts();
        forward::complete_target(&mut parts.uri);
        let head = (&parts.headers, RequestFields::of(&parts.headers));
        let checked = forward::check_request(&parts.method, &parts.uri, parts.version, head);
        let options = match checked {
            Ok(options) => options,
            Err(bad) => return self.refuse_request(bad),
        };
        let (peer, now, is_bare) = (client.peer(config), self.clock.wall(), body.is_empty());
        let connection = &connection_demand((config, client), &mut parts, options.upgrade, is_bare);
        let departure = &client.departure;
        let context = RequestContext { config, peer, departure, connection, now };
        let view = request_view(connection.app, &parts, &body, peer, &config.rules, now);
        let view = RequestView { bypass: connection.bypass(), is_again: planned.is_some(), ..view };
        let plan = Planned::plan(planned.as_ref(), config, &view);
        pending.set_guest(plan.route());
        // A write that only passes counts, too: another process may cache what it changes.
        let _write = (!parts.method.is_safe()).then(|| resources.overlap.write());
        // Hits do not get here: nothing can come between them and their response.
        let (route, may_give_up) = (plan.route().map(|route| route.id), plan.may_give_up(&view));
        let observe = || {
            config.cookie_use.observe(&parts.headers);
            pending.set_route(route);
            if may_give_up {
                client.departure.set_expendable();
            }
        };
        if let Some(shadowed) = shadow::shadow_request(resources, context, &parts, &plan) {
            observe();
            key_watch::observe_plan(resources, &plan);
            drop(plan);
            let passing = shadow::pass_in_shadow(resources, context, parts, body, shadowed);
            return Box::pin(passing).await;
        }
        // Steps with large futures are boxed, so that others do not carry their state around.
        match plan {
            Plan::Lookup(lookup) => {
                let clients = &resources.authorized_clients;
                let context = LookupContext::new(context, &parts, &lookup, clients);
                if resources.overlap.passes() {
                    observe();
                    let outcome = Outcome::bypass(Reason::Handover);
                    return Box::pin(pass::pass_lookup(resources, &context, outcome)).await;
                }
                match Planned::fast_hit(planned.as_ref(), resources, &context) {
                    Ok(answered) => answered,
                    Err(attempts) => {
                        observe();
                        Box::pin(lookup::serve_lookup(resources, &context, attempts)).await
                    }
                }
            }
            Plan::Mutate(method) => {
                observe();
                Box::pin(unrouted::mutate(resources, live, context, parts, body, method)).await
            }
            Plan::Pass(route, outcome) => {
                observe();
                key_watch::record_removed(resources, route, &outcome);
                let route = route.map(|route| route.id);
                unrouted::pass(resources, context, Box::new((parts, body)), outcome, route).await
            }
            Plan::ReadBody(_) | Plan::Identify(_) => {
                Box::pin(body_read::answer(resources, live, context, pending, parts, body)).await
            }
            Plan::Refuse(route, header) => {
                self.counters.refused.inc();
                ProxyResponse::refused_header(route, &header)
            }
        }
    }

    /// Answers a request whose head the server could not read. It is counted and logged as others
    /// are.
    pub fn refuse_head(&self, head: &UnreadHead, client: &ClientConnection) -> Response<Body> {
        let config = self.live.load();
        let mut answered = self.refuse_request(head.why);
        let is_head = head.method == Some(Method::HEAD);
        count(&config.table, &mut answered, Duration::ZERO, is_head);
        self.record_subject(&config, &answered);
        let (peer, logged) = (client.peer(&config), config.settings.access_log);
        if let Some(record) = AccessRecord::begin_unread(head, peer, logged, &self.resources) {
            record.write(&answered, &config.rules, Duration::ZERO, &self.resources);
        }
        answered.response
    }

    fn refuse_request(&self, bad: BadRequest) -> ProxyResponse {
        self.counters.refused.inc();
        let outcome = Outcome::bypass_with(bad.reason(), bad.as_str());
        ProxyResponse {
            response: response::refusal(bad.status(), bad.as_str(), &outcome),
            outcome,
            route: None,
        }
    }

    /// Remembers a caller whom the origin accepts, where a write may depend on that.
    fn record_caller(&self, config: &ActiveConfig, caller: &CallerParts, answered: &ProxyResponse) {
        let status = answered.response.status();
        // In scope `public` the origin never sees the credential.
        let route = answered.route.and_then(|id| config.rules.routes.get(id));
        if (status.is_success() || status == StatusCode::NOT_MODIFIED)
            && route.is_none_or(|route| route.spec.scope != Scope::Public)
            && let Some(known) = &config.known_callers
            && !known.record(caller, self.clock.wall())
        {
            self.counters.callers_unremembered.inc();
        }
    }

    /// Counts the subject of a reason for operators: the name of a header, of a field.
    fn record_subject(&self, config: &ActiveConfig, answered: &ProxyResponse) {
        if let (Some(reason), Some(subject)) = (answered.outcome.reason, &answered.outcome.subject)
        {
            let route = answered
                .route
                .and_then(|id| config.rules.routes.get(id))
                .map_or(metrics::NONE, |route| route.name());
            self.hot_tags.subject(route, reason.as_str(), subject);
        }
    }
}

/// What a request asks of its connection, and the app that it is for. It gets a `Host` if it has
/// none.
fn connection_demand(
    (config, client): (&Arc<ActiveConfig>, &ClientConnection),
    parts: &mut Parts,
    wants_upgrade: bool,
    is_bare: bool,
) -> ConnectionDemand {
    let (version, headers) = (parts.version, &mut parts.headers);
    let fallback = || config.origins.first().authority();
    let lacks_host = forward::settle_host(headers, &parts.uri, version, fallback);
    // SECURITY: the host that it got is that of [upstream], whoever has that name otherwise.
    let app = if lacks_host { AppId::FIRST } else { config.rules.apps.of(&parts.uri, headers) };
    let upgrade = if wants_upgrade {
        forward::take_upgrade(headers, version, &config.rules.upgrades)
    } else {
        None
    };
    let peer = client.peer(config);
    let choice = client.choose_connection(config.origins.of(app), peer, headers, version);
    ConnectionDemand { choice, upgrade: upgrade.filter(|_| is_bare), lacks_host, app }
}

/// What a request carries of a credential, where callers are remembered. A login page is for
/// strangers as well, so that its answer says nothing.
fn caller_of(config: &ActiveConfig, uri: &Uri, headers: &HeaderMap) -> Option<CallerParts> {
    let (known, rule) = (config.known_callers.as_ref()?, &config.rules.credential);
    let app = config.rules.apps.of(uri, headers);
    let caller = known.parts(app, rule, headers, &config.rules.hasher);
    let counts = !caller.is_empty() && !rule.is_login_path(uri.path().as_bytes());
    counts.then_some(caller)
}

/// Counts a request, and the bytes of its response.
fn count(table: &RouteTable, answered: &mut ProxyResponse, duration: Duration, is_head: bool) {
    let route = answered.route;
    let &Outcome { disposition, reason, saved, .. } = &answered.outcome;
    let status = answered.response.status();
    table.request(route, &RequestRecord { disposition, reason, status, duration, saved });
    let source = BodySource::from_outcome(&answered.outcome);
    let body = answered.response.body_mut();
    match body.buffered_len() {
        // The response to a HEAD has no body (RFC 9110 9.3.2), whatever it is made with.
        _ if is_head => {}
        Some(bytes) => table.bytes(route, source, bytes),
        None => body.count(table.meter(route, source)),
    }
}
