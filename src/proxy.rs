//! The flow: what happens to a request, from its head to its response. It reads from the top down.
//!
//! `proxy/fetch.rs` asks the app once for all, and `proxy/across.rs` once for all sidecars,
//! `proxy/fill.rs` does the asking and storing, `proxy/refresh.rs` does it in the background,
//! `proxy/pass.rs` forwards what is not to be stored, and `purge.rs` what changes data.
//! `proxy/shadow.rs` and `proxy/audit.rs` find out whether the rules are right.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::fills::Fills;
use crate::cache::fills::cluster::ClusterFills;
use crate::cache::store::memory::CachedEntry;
use crate::cache::store::{Candidate, LookupResult, Store};
use crate::clock::{Clock, Wall};
use crate::coherence::{Coherence, Proof, PurgeKind};
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::policy::credential::AuthorizedClients;
use crate::policy::plan::{Lookup, Plan, RequestView};
use crate::policy::request_directives::RequestDirectives;
use crate::policy::route::Route;
use crate::policy::tag::Tag;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::cluster::LookupAttempts;
use crate::proxy::miss::{FillReason, StaleCandidate};
use crate::semantics::body::Body;
use crate::semantics::early_refresh;
use crate::semantics::forward;
use crate::semantics::forward::ClientPeer;
use crate::shadow::Shadow;
use crate::telemetry::events::Events;
use crate::telemetry::hot_tags::{HotTags, TagEvent};
use crate::telemetry::log;
use crate::telemetry::metrics;
use crate::telemetry::metrics::{BodySource, Counter, Metrics, RequestRecord, RouteTable};
use crate::upstream::Upstream;

pub use crate::proxy::active_config::ActiveConfig;
pub(crate) use crate::proxy::post_response::PendingPost;

mod access_log;
mod active_config;
mod audit;
mod cluster;
mod fill;
pub mod inspect;
mod miss;
pub mod mutation;
mod pass;
mod post_response;
mod refresh;
pub mod response;
mod shadow;
mod store_decision;

/// Bounds and habits of the flow.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The most tags of an entry.
    pub max_tags: usize,
    /// The most variants of one key.
    pub max_variants: usize,
    /// How long an entry past its freshness is kept.
    pub keep_stale: Duration,
    /// The most ranges answered in one request.
    pub max_ranges: usize,
    /// The largest response that is fetched whole because a part of it was asked for, in bytes; 0
    /// for none.
    pub range_fill: u64,
    /// Refreshes in the background at once.
    pub max_refreshes: usize,
    /// The longest request body that purge rules read, in bytes.
    pub purge_body: u64,
    /// Mutations under way at once.
    pub mutations: usize,
    /// How long a mutation may take until others take it as committed; renewed while it goes on.
    pub mark_for: Duration,
    /// How long a tunnel may be silent.
    pub tunnel_timeout: Duration,
    /// Whether responses tell their key, tags and route.
    pub debug_headers: bool,
}

/// Counts of what the flow does.
#[derive(Clone, Debug, Default)]
pub struct ProxyCounters {
    /// Mutations forwarded.
    pub mutations: Arc<Counter>,
    /// Mutations that purged, because they were, or may have been, committed.
    pub purging: Arc<Counter>,
    /// Purge templates that named nothing, because the request lacks a field.
    pub missing_fields: Arc<Counter>,
    /// Mutations below a cached path that no purge rule speaks of.
    pub uncovered: Arc<Counter>,
    /// Requests refused because they break a rule of HTTP.
    pub refused: Arc<Counter>,
    /// Tunnels opened.
    pub tunnels: Arc<Counter>,
    /// Mutations refused because too many are under way.
    pub mutations_rejected: Arc<Counter>,
    /// Stored responses that the app confirmed with a 304.
    pub revalidated: Arc<Counter>,
    /// Responses served stale while they were fetched anew.
    pub while_revalidate: Arc<Counter>,
    /// Responses served stale because the app failed.
    pub stale_if_error: Arc<Counter>,
    /// Refreshes in the background.
    pub refreshes: Arc<Counter>,
    /// Refreshes not begun because too many are under way.
    pub refreshes_rejected: Arc<Counter>,
    /// Purges, by whom and how.
    pub purges: PurgeCounters,
    /// Responses that turned out not to be storable when their heads had gone out already.
    pub store_aborted: StoreAbortCounters,
}

/// Purges, by whom and how.
#[derive(Clone, Debug, Default)]
pub struct PurgeCounters {
    /// By writes; these are hard.
    pub write: Arc<Counter>,
    /// By the admin API, of the hard kind.
    pub admin_hard: Arc<Counter>,
    /// By the admin API, of the soft kind.
    pub admin_soft: Arc<Counter>,
}

impl PurgeCounters {
    /// One more by the admin API.
    pub fn admin(&self, kind: PurgeKind) {
        match kind {
            PurgeKind::Hard => self.admin_hard.inc(),
            PurgeKind::Soft => self.admin_soft.inc(),
        }
    }
}

/// Why responses whose heads said `stored` were not.
#[derive(Clone, Debug, Default)]
pub struct StoreAbortCounters {
    truncated: Arc<Counter>,
    too_large: Arc<Counter>,
    trailers: Arc<Counter>,
    purged: Arc<Counter>,
    failed: Arc<Counter>,
    client_gone: Arc<Counter>,
}

impl StoreAbortCounters {
    /// Each reason with its count.
    #[must_use]
    pub fn counts(&self) -> [(Reason, &Arc<Counter>); 6] {
        [
            (Reason::Truncated, &self.truncated),
            (Reason::TooLarge, &self.too_large),
            (Reason::Trailers, &self.trailers),
            (Reason::PurgedDuringFill, &self.purged),
            (Reason::StoreFailed, &self.failed),
            (Reason::ClientGone, &self.client_gone),
        ]
    }

    /// One more, with a line in the log. What is none of the others counts as failed.
    fn count(&self, reason: Reason, route: &Route) {
        tracing::debug!(
            reason = reason.as_str(),
            route = route.name(),
            "a response was not stored after all"
        );
        let counted = self.counts().into_iter().find(|(counted, _)| *counted == reason);
        counted.map_or(&self.failed, |(_, counter)| counter).inc();
    }
}

/// Everything that a request meets.
#[derive(Debug)]
pub struct Proxy {
    /// The rules and settings in force.
    pub config: ArcSwap<ActiveConfig>,
    /// The tiers.
    pub store: Arc<Store>,
    /// What proves entries current.
    pub coherence: Arc<Coherence>,
    /// Fills under way.
    pub fills: Arc<Fills>,
    /// Fills shared with the other sidecars, where a route asks for it.
    pub cluster_fills: OnceLock<Arc<ClusterFills>>,
    /// Credentials that the app has admitted.
    pub authorized_clients: Arc<AuthorizedClients>,
    /// The app.
    pub upstream: Upstream,
    /// What routes in shadow would have done, and what audits found.
    pub shadow: Arc<Shadow>,
    /// All that is counted.
    pub metrics: Arc<Metrics>,
    /// The busiest tags, and what bypasses speak of.
    pub hot_tags: HotTags,
    /// What operators hear of.
    pub events: Arc<Events>,
    /// Time.
    pub clock: Clock,
    /// Fills, mutations and tunnels: the drain waits for them.
    pub tasks: TaskTracker,
    /// Ends tunnels.
    pub stop: CancellationToken,
    /// Places for mutations.
    pub mutation_permits: Arc<Semaphore>,
    /// Places for refreshes in the background.
    pub refresh_permits: Arc<Semaphore>,
    /// What it has done.
    pub counters: ProxyCounters,
}

/// How a stored response may be served.
enum Serve {
    /// It is fresh.
    Fresh,
    /// It is stale, and will do while it is fetched anew (RFC 5861 3).
    WhileRevalidate,
}

/// What was done with a request: its response, and what to say of it.
pub(crate) struct ProxyResponse {
    pub(crate) response: Response<Body>,
    pub(crate) outcome: Outcome,
    pub(crate) route: Option<usize>,
}

impl Proxy {
    /// Answers a request. It never fails: failures are responses.
    pub async fn handle(
        self: &Arc<Self>,
        request: Request<Body>,
        peer: ClientPeer,
    ) -> Response<Body> {
        let since = self.clock.now();
        let is_head = request.method() == Method::HEAD;
        let logged = log::enabled().then(|| AccessRecord::from_request(&request, peer));
        let live = self.active_config();
        let mut answer = self.respond(&live, request, peer).await;
        let took = self.clock.now().duration_since(since);
        count(&live.table, &mut answer, took, is_head);
        self.record_subject(&live, &answer);
        if let Some(line) = logged {
            line.write(&answer, &live.rules, took);
        }
        answer.response
    }

    /// What a reason speaks of, for operators: the name of a header, of a field.
    fn record_subject(&self, live: &ActiveConfig, answer: &ProxyResponse) {
        if let (Some(reason), Some(subject)) = (answer.outcome.reason, &answer.outcome.subject) {
            let route = answer
                .route
                .and_then(|id| live.rules.routes.get(id))
                .map_or(metrics::NONE, |route| route.name());
            self.hot_tags.subject(route, reason.as_str(), subject);
        }
    }

    async fn respond(
        self: &Arc<Self>,
        live: &Arc<ActiveConfig>,
        request: Request<Body>,
        peer: ClientPeer,
    ) -> ProxyResponse {
        if let Err(bad) = forward::check_request(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
        ) {
            self.counters.refused.inc();
            let outcome = Outcome::bypass_with(Reason::BadRequest, bad.as_str());
            return ProxyResponse {
                response: response::refusal(bad.status(), bad.as_str(), &outcome),
                outcome,
                route: None,
            };
        }
        let (parts, body) = request.into_parts();
        let rules = &live.rules;
        let asked = request_view(&parts, &body, peer);
        let plan = rules.plan(&asked);
        if let Some(shadowed) = self.shadow_request(&parts, &plan, peer) {
            drop(plan);
            return Box::pin(self.pass_in_shadow(parts, body, peer, shadowed)).await;
        }
        // What asks the app is boxed: its state is large, and hits should not carry it around.
        match plan {
            Plan::Lookup(lookup) => match self.fast_hit(&parts, &lookup, peer) {
                Ok(answer) => answer,
                Err(looks) => Box::pin(self.serve_lookup(&parts, &lookup, peer, looks)).await,
            },
            Plan::Mutate(method) => Box::pin(self.mutate(live, parts, body, peer, method)).await,
            Plan::Pass(route, outcome) => {
                let route = route.map(|route| route.id);
                Box::pin(self.pass(parts, body, peer, outcome, route)).await
            }
            Plan::Refuse(route, header) => self.refuse_header(route, &header),
        }
    }

    /// A header that a key, tag or rule reads came twice, or would not arrive: a 400, not a guess.
    pub(crate) fn refuse_header(
        &self,
        route: Option<&Arc<Route>>,
        header: &HeaderName,
    ) -> ProxyResponse {
        self.counters.refused.inc();
        let why =
            format!("the header {header} must come once, and must not be named in Connection");
        let outcome = Outcome::bypass_with(Reason::BadRequest, header.as_str());
        ProxyResponse {
            response: response::refusal(StatusCode::BAD_REQUEST, &why, &outcome),
            outcome,
            route: route.map(|route| route.id),
        }
    }

    /// A hit that needs nothing but this process.
    fn fast_hit(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
    ) -> Result<ProxyResponse, LookupAttempts> {
        let now = self.clock.wall();
        if self.uncovered_header(lookup).is_some() {
            return Err(LookupAttempts::default());
        }
        let Some(resident) = self.store.lookup_memory(lookup, now) else {
            return Err(LookupAttempts::default());
        };
        let wish = RequestDirectives::new(lookup.route, &parts.headers);
        if wish.bypass.is_some()
            || !self.is_authorized(lookup, now)
            || !wish.accepts(&resident.entry.times, now)
        {
            return Err(LookupAttempts::default());
        }
        if lookup.route.spec.early_refresh
            && early_refresh::should_refresh_early(
                &resident.entry.times,
                resident.entry.fetch_duration,
                now,
                rand::random,
            )
        {
            if matches!(resident.proof, Proof::Shared(_)) {
                // What is fetched has to be judged by the records from before it: the long way
                // reads them.
                return Err(LookupAttempts::with_refresh_due());
            }
            self.refresh_memory_hit(parts, lookup, peer, &resident);
        }
        self.audit(parts, lookup, peer, &resident);
        Ok(self.hit(parts, lookup, &resident, Tier::Memory, now))
    }

    /// A GET or HEAD on a route.
    async fn serve_lookup(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        mut looks: LookupAttempts,
    ) -> ProxyResponse {
        let wish = RequestDirectives::new(lookup.route, &parts.headers);
        if let Some(reason) = wish.bypass {
            return Box::pin(self.pass_lookup(parts, lookup, peer, Outcome::bypass(reason))).await;
        }
        if let Some(name) = self.uncovered_header(lookup) {
            let outcome = Outcome::bypass_with(Reason::UnkeyedHeader, name.as_str());
            return Box::pin(self.pass_unkeyed(parts, lookup, peer, outcome)).await;
        }
        loop {
            if let Some(answer) = self.lookup_once(parts, lookup, peer, &wish, &mut looks).await {
                return answer;
            }
        }
    }

    /// One look into the store, and what follows from it. None: another sidecar has filled
    /// meanwhile, so look again.
    async fn lookup_once(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        wish: &RequestDirectives,
        looks: &mut LookupAttempts,
    ) -> Option<ProxyResponse> {
        let now = self.clock.wall();
        let LookupResult { key, candidate: found, miss_reason: why, snapshot: read } =
            self.store.lookup(lookup, now).await;
        let flight = self.fill_key(lookup, &key);
        let may = found.as_ref().map(|found| self.may_serve(lookup, found, wish, now));
        let spare = found.filter(|_| self.is_authorized(lookup, now)).map(|found| StaleCandidate {
            candidate: found,
            key: key.hash(),
            may_serve_on_error: wish.allows_stale(),
        });
        let why = match (may, &spare) {
            (Some(Ok(Serve::Fresh)), Some(spare)) => {
                if let Some(why) = looks.first {
                    return Some(self.respond_from_cluster(
                        parts,
                        lookup,
                        &spare.candidate.cached,
                        why,
                    ));
                }
                self.audit(parts, lookup, peer, &spare.candidate.cached);
                let answer =
                    self.hit(parts, lookup, &spare.candidate.cached, spare.candidate.tier, now);
                self.refresh_early((parts, lookup, peer), flight, read, spare, looks.refresh_due);
                return Some(answer);
            }
            (Some(Ok(Serve::WhileRevalidate)), Some(spare)) => {
                let outcome = Outcome {
                    reason: Some(Reason::StaleWhileRevalidate),
                    ..Outcome::new(Disposition::Stale)
                };
                let answer = self.serve_stale(parts, lookup, spare, outcome, now);
                self.counters.while_revalidate.inc();
                let errand = FillReason {
                    snapshot: read,
                    reason: Reason::StaleWhileRevalidate,
                    stale: Some(spare.clone()),
                };
                self.refresh(parts, lookup, peer, flight, errand);
                return Some(answer);
            }
            (Some(Err(why)), _) => why,
            _ => why,
        };
        let errand = FillReason { snapshot: read, reason: why, stale: spare };
        // Boxed, each of them: a hit from Redis should not carry around what asks the app.
        Some(match why {
            Reason::CacheUnavailable | Reason::MutationPending => {
                Box::pin(self.pass_lookup(parts, lookup, peer, Outcome::bypass(why))).await
            }
            _ if wish.only_if_cached => {
                let outcome = Outcome::miss(why);
                ProxyResponse {
                    response: response::failure(Reason::OnlyIfCached, &outcome),
                    outcome,
                    route: Some(lookup.route.id),
                }
            }
            _ if parts.method == Method::HEAD => {
                Box::pin(self.pass_head(parts, lookup, peer, key.hash(), errand)).await
            }
            // What is stored is confirmed, and the part is cut from it; of what is not, the app
            // sends the part itself.
            _ if lookup.range && errand.stale.is_none() => {
                Box::pin(self.pass_range(parts, lookup, peer, flight, errand)).await
            }
            _ => {
                // Who asks for something new does not wait for what another sidecar fetches.
                let may_look_again = looks.may_retry() && wish.allows_stale();
                let fetched =
                    Box::pin(self.fetch(parts, lookup, peer, flight, errand, may_look_again)).await;
                if fetched.is_none() {
                    looks.retry(why);
                }
                return fetched;
            }
        })
    }

    /// A header that no key has seen, and that the response is not known to vary by.
    fn uncovered_header<'a>(&self, lookup: &'a Lookup<'_>) -> Option<&'a HeaderName> {
        if lookup.unknown.is_empty() {
            return None;
        }
        let mark = self.store.known_vary(&lookup.key);
        lookup.unknown.iter().find(|name| !mark.as_ref().is_some_and(|mark| mark.spec.covers(name)))
    }

    /// SECURITY: a shared entry is for those alone whom the app itself has lately answered.
    fn is_authorized(&self, lookup: &Lookup<'_>, now: Wall) -> bool {
        lookup.authorization.is_none_or(|id| self.authorized_clients.is_authorized(id, now))
    }

    /// Whether this caller may have this entry, as fresh or stale as it is.
    fn may_serve(
        &self,
        lookup: &Lookup<'_>,
        found: &Candidate,
        wish: &RequestDirectives,
        now: Wall,
    ) -> Result<Serve, Reason> {
        let entry = &found.cached.entry;
        if !self.is_authorized(lookup, now) {
            return Err(Reason::NotAdmitted);
        }
        if found.fresh {
            return if wish.accepts(&entry.times, now) {
                Ok(Serve::Fresh)
            } else {
                Err(Reason::RequestNoCache)
            };
        }
        let open = wish.allows_stale() && found.is_within(entry.leeway.while_revalidate, now);
        if open { Ok(Serve::WhileRevalidate) } else { Err(Reason::Expired) }
    }

    fn hit(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        resident: &CachedEntry,
        tier: Tier,
        now: Wall,
    ) -> ProxyResponse {
        if let Some(times) = self.hot_tags.sample_hit(rand::random) {
            self.hot_tags.record(lookup.tags().iter().map(Tag::as_str), TagEvent::Hit(times));
        }
        let ttl = Some(resident.entry.times.ttl_ms(now) / 1000);
        let outcome = Outcome {
            tier: Some(tier),
            ttl,
            saved: Some(resident.entry.fetch_duration),
            ..Outcome::new(Disposition::Hit)
        };
        self.respond_from(parts, lookup, resident, outcome, now)
    }

    fn respond_from(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        resident: &CachedEntry,
        outcome: Outcome,
        now: Wall,
    ) -> ProxyResponse {
        let head_only = parts.method == Method::HEAD;
        let ranges = lookup.range.then(|| self.config.load().settings.max_ranges);
        let mut response =
            response::hit(&resident.entry, &parts.headers, head_only, now, &outcome, ranges);
        self.add_debug_headers(response.headers_mut(), lookup);
        ProxyResponse { response, outcome, route: Some(lookup.route.id) }
    }

    pub(crate) fn add_debug_headers(&self, headers: &mut HeaderMap, lookup: &Lookup<'_>) {
        if !self.config.load().settings.debug_headers {
            return;
        }
        response::set_cache_key_header(headers, &lookup.key.hash().to_hex());
        let tags: Vec<String> = lookup.tags().iter().map(ToString::to_string).collect();
        let lines = [
            (response::X_CACHE_KEY, lookup.key.hash().to_hex()),
            (response::X_CACHE_ROUTE, lookup.route.name().to_owned()),
            (response::X_CACHE_TAGS, tags.join(" ")),
        ];
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Counts what was done with a request, and the bytes that it is answered with.
fn count(table: &RouteTable, answer: &mut ProxyResponse, took: Duration, is_head: bool) {
    let route = answer.route;
    let &Outcome { disposition, reason, saved, .. } = &answer.outcome;
    table.request(route, &RequestRecord { disposition, reason, duration: took, saved });
    let (body, source) = (answer.response.body_mut(), BodySource::from_disposition(disposition));
    match body.buffered_len() {
        // The answer to a HEAD has no body (RFC 9110 9.3.2), whatever it is made with.
        _ if is_head => {}
        Some(bytes) => table.bytes(route, source, bytes),
        None => body.count(table.meter(route, source)),
    }
}

/// The head of a request, as far as the rules care.
pub(crate) fn request_view<'a>(parts: &'a Parts, body: &Body, peer: ClientPeer) -> RequestView<'a> {
    RequestView {
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        has_body: !body.is_empty(),
        peer_is_trusted: peer.trusted,
    }
}
