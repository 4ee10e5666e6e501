//! The flow: what happens to a request, from its head to its response. It reads from the top down.
//!
//! `proxy/fetch.rs` asks the app once for all, and `proxy/across.rs` once for all sidecars, `proxy/fill.rs` does the asking and storing,
//! `proxy/refresh.rs` does it in the background, `proxy/pass.rs` forwards what is not to be stored, and `purge.rs` what changes data.
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

use crate::body::Body;
use crate::clock::{Clock, Wall};
use crate::coalesce::Flights;
use crate::coalesce::across::Across;
use crate::coherence::{Coherence, Proof, PurgeKind};
use crate::events::Events;
use crate::forward::{self, Peer};
use crate::insight::{Deed, Insight};
use crate::metrics::{self, Counter, Metrics, RouteTable, Seen, Source};
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::plan::{Asked, Lookup, Plan};
use crate::proxy::across::Looks;
use crate::proxy::fetch::{Errand, Spare};
use crate::proxy::line::Line;
use crate::proxy::wish::Wish;
use crate::respond;
use crate::route::Route;
use crate::scope::Admissions;
use crate::shadow::Shadow;
use crate::stale;
use crate::store::memory::Resident;
use crate::store::{Consulted, Found, Store};
use crate::tag::Tag;
use crate::telemetry;
use crate::upstream::Upstream;

pub use crate::proxy::live::Live;
pub(crate) use crate::proxy::posted::Posted;

mod across;
mod audit;
mod fetch;
mod fill;
pub mod inspect;
mod judge;
mod line;
mod live;
mod pass;
mod posted;
mod refresh;
mod shadow;
mod wish;

/// Bounds and habits of the flow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most tags of an entry.
    pub max_tags: usize,
    /// The most variants of one key.
    pub max_variants: usize,
    /// How long an entry past its freshness is kept.
    pub keep_stale: Duration,
    /// The most ranges answered in one request.
    pub max_ranges: usize,
    /// The largest response that is fetched whole because a part of it was asked for, in bytes; 0 for none.
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
pub struct Counters {
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
    pub crowded: Arc<Counter>,
    /// Stored responses that the app confirmed with a 304.
    pub revalidated: Arc<Counter>,
    /// Responses served stale while they were fetched anew.
    pub while_revalidate: Arc<Counter>,
    /// Responses served stale because the app failed.
    pub stood_in: Arc<Counter>,
    /// Refreshes in the background.
    pub refreshes: Arc<Counter>,
    /// Refreshes not begun because too many are under way.
    pub crowded_refreshes: Arc<Counter>,
    /// Purges, by whom and how.
    pub purges: Purges,
    /// Responses that turned out not to be storable when their heads had gone out already.
    pub late: Late,
}

/// Purges, by whom and how.
#[derive(Clone, Debug, Default)]
pub struct Purges {
    /// By writes; these are hard.
    pub write: Arc<Counter>,
    /// By the admin API, of the hard kind.
    pub admin_hard: Arc<Counter>,
    /// By the admin API, of the soft kind.
    pub admin_soft: Arc<Counter>,
}

impl Purges {
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
pub struct Late {
    truncated: Arc<Counter>,
    too_large: Arc<Counter>,
    trailers: Arc<Counter>,
    purged: Arc<Counter>,
    failed: Arc<Counter>,
    client_gone: Arc<Counter>,
}

impl Late {
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
    fn note(&self, reason: Reason, route: &Route) {
        tracing::debug!(reason = reason.as_str(), route = route.name(), "a response was not stored after all");
        let counted = self.counts().into_iter().find(|(counted, _)| *counted == reason);
        counted.map_or(&self.failed, |(_, counter)| counter).inc();
    }
}

/// Everything that a request meets.
#[derive(Debug)]
pub struct Proxy {
    /// The rules and settings in force.
    pub live: ArcSwap<Live>,
    /// The tiers.
    pub store: Arc<Store>,
    /// What proves entries current.
    pub coherence: Arc<Coherence>,
    /// Fills under way.
    pub flights: Arc<Flights>,
    /// Fills shared with the other sidecars, where a route asks for it.
    pub across: OnceLock<Arc<Across>>,
    /// Credentials that the app has admitted.
    pub admissions: Arc<Admissions>,
    /// The app.
    pub upstream: Upstream,
    /// What routes in shadow would have done, and what audits found.
    pub shadow: Arc<Shadow>,
    /// All that is counted.
    pub metrics: Arc<Metrics>,
    /// The busiest tags, and what bypasses speak of.
    pub insight: Insight,
    /// What operators hear of.
    pub events: Arc<Events>,
    /// Time.
    pub clock: Clock,
    /// Fills, mutations and tunnels: the drain waits for them.
    pub tasks: TaskTracker,
    /// Ends tunnels.
    pub stop: CancellationToken,
    /// Places for mutations.
    pub mutation_places: Arc<Semaphore>,
    /// Places for refreshes in the background.
    pub refresh_places: Arc<Semaphore>,
    /// What it has done.
    pub counters: Counters,
}

/// How a stored response may be served.
enum Serve {
    /// It is fresh.
    Fresh,
    /// It is stale, and will do while it is fetched anew (RFC 5861 3).
    WhileRevalidate,
}

/// What was done with a request: its response, and what to say of it.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) outcome: Outcome,
    pub(crate) route: Option<usize>,
}

impl Proxy {
    /// Answers a request. It never fails: failures are responses.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let since = self.clock.now();
        let is_head = request.method() == Method::HEAD;
        let logged = telemetry::enabled().then(|| Line::of(&request, peer));
        let live = self.live();
        let mut answer = self.answer(&live, request, peer).await;
        let took = self.clock.now().duration_since(since);
        count(&live.table, &mut answer, took, is_head);
        self.note_subject(&live, &answer);
        if let Some(line) = logged {
            line.write(&answer, &live.rules, took);
        }
        answer.response
    }

    /// What a reason speaks of, for operators: the name of a header, of a field.
    fn note_subject(&self, live: &Live, answer: &Answer) {
        if let (Some(reason), Some(subject)) = (answer.outcome.reason, &answer.outcome.subject) {
            let route = answer.route.and_then(|id| live.rules.routes.get(id)).map_or(metrics::NONE, |route| route.name());
            self.insight.subject(route, reason.as_str(), subject);
        }
    }

    async fn answer(self: &Arc<Self>, live: &Arc<Live>, request: Request<Body>, peer: Peer) -> Answer {
        if let Err(bad) = forward::check_request(request.method(), request.uri(), request.version(), request.headers()) {
            self.counters.refused.inc();
            let outcome = Outcome::bypass_of(Reason::BadRequest, bad.as_str());
            return Answer { response: respond::refusal(bad.status(), bad.as_str(), &outcome), outcome, route: None };
        }
        let (parts, body) = request.into_parts();
        let rules = &live.rules;
        let asked = asked(&parts, &body, peer);
        let plan = rules.plan(&asked);
        if let Some(shadowed) = self.shadowed(&parts, &plan, peer) {
            drop(plan);
            return Box::pin(self.pass_in_shadow(parts, body, peer, shadowed)).await;
        }
        // What asks the app is boxed: its state is large, and hits should not carry it around.
        match plan {
            Plan::Lookup(lookup) => match self.hit_at_once(&parts, &lookup, peer) {
                Ok(answer) => answer,
                Err(looks) => Box::pin(self.look_up(&parts, &lookup, peer, looks)).await,
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
    pub(crate) fn refuse_header(&self, route: Option<&Arc<Route>>, header: &HeaderName) -> Answer {
        self.counters.refused.inc();
        let why = format!("the header {header} must come once, and must not be named in Connection");
        let outcome = Outcome::bypass_of(Reason::BadRequest, header.as_str());
        Answer { response: respond::refusal(StatusCode::BAD_REQUEST, &why, &outcome), outcome, route: route.map(|route| route.id) }
    }

    /// A hit that needs nothing but this process.
    fn hit_at_once(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer) -> Result<Answer, Looks> {
        let now = self.clock.wall();
        if self.uncovered_header(lookup).is_some() {
            return Err(Looks::default());
        }
        let Some(resident) = self.store.at_hand(lookup, now) else { return Err(Looks::default()) };
        let wish = Wish::of(lookup.route, &parts.headers);
        if wish.bypass.is_some() || !self.is_admitted(lookup, now) || !wish.is_met_by(&resident.entry.times, now) {
            return Err(Looks::default());
        }
        if lookup.route.spec.early_refresh && stale::is_due(&resident.entry.times, resident.entry.took, now, rand::random) {
            if matches!(resident.proof, Proof::Shared(_)) {
                // What is fetched has to be judged by the records from before it: the long way reads them.
                return Err(Looks::due());
            }
            self.refresh_at_hand(parts, lookup, peer, &resident);
        }
        self.audit(parts, lookup, peer, &resident);
        Ok(self.hit(parts, lookup, &resident, Tier::Memory, now))
    }

    /// A GET or HEAD on a route.
    async fn look_up(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, mut looks: Looks) -> Answer {
        let wish = Wish::of(lookup.route, &parts.headers);
        if let Some(reason) = wish.bypass {
            return Box::pin(self.pass_lookup(parts, lookup, peer, Outcome::bypass(reason))).await;
        }
        if let Some(name) = self.uncovered_header(lookup) {
            let outcome = Outcome::bypass_of(Reason::UnkeyedHeader, name.as_str());
            return Box::pin(self.pass_unkeyed(parts, lookup, peer, outcome)).await;
        }
        loop {
            if let Some(answer) = self.look(parts, lookup, peer, &wish, &mut looks).await {
                return answer;
            }
        }
    }

    /// One look into the store, and what follows from it. None: another sidecar has filled meanwhile, so look again.
    async fn look(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, wish: &Wish, looks: &mut Looks) -> Option<Answer> {
        let now = self.clock.wall();
        let Consulted { key, found, why, read } = self.store.consult(lookup, now).await;
        let flight = self.flight_key(lookup, &key);
        let may = found.as_ref().map(|found| self.may_serve(lookup, found, wish, now));
        let spare =
            found.filter(|_| self.is_admitted(lookup, now)).map(|found| Spare { found, key: key.hash(), may_stand_in: wish.bears_stale() });
        let why = match (may, &spare) {
            (Some(Ok(Serve::Fresh)), Some(spare)) => {
                if let Some(why) = looks.first {
                    return Some(self.shared_across(parts, lookup, &spare.found.resident, why));
                }
                self.audit(parts, lookup, peer, &spare.found.resident);
                let answer = self.hit(parts, lookup, &spare.found.resident, spare.found.tier, now);
                self.refresh_early((parts, lookup, peer), flight, read, spare, looks.due);
                return Some(answer);
            }
            (Some(Ok(Serve::WhileRevalidate)), Some(spare)) => {
                let outcome = Outcome { reason: Some(Reason::StaleWhileRevalidate), ..Outcome::new(Disposition::Stale) };
                let answer = self.serve_stale(parts, lookup, spare, outcome, now);
                self.counters.while_revalidate.inc();
                let errand = Errand { read, why: Reason::StaleWhileRevalidate, spare: Some(spare.clone()) };
                self.refresh(parts, lookup, peer, flight, errand);
                return Some(answer);
            }
            (Some(Err(why)), _) => why,
            _ => why,
        };
        let errand = Errand { read, why, spare };
        // Boxed, each of them: a hit from Redis should not carry around what asks the app.
        Some(match why {
            Reason::CacheUnavailable | Reason::MutationPending => {
                Box::pin(self.pass_lookup(parts, lookup, peer, Outcome::bypass(why))).await
            }
            _ if wish.only_stored => {
                let outcome = Outcome::miss(why);
                Answer { response: respond::failure(Reason::OnlyIfCached, &outcome), outcome, route: Some(lookup.route.id) }
            }
            _ if parts.method == Method::HEAD => Box::pin(self.pass_head(parts, lookup, peer, key.hash(), errand)).await,
            // What is stored is confirmed, and the part is cut from it; of what is not, the app sends the part itself.
            _ if lookup.range && errand.spare.is_none() => Box::pin(self.pass_range(parts, lookup, peer, flight, errand)).await,
            _ => {
                // Who asks for something new does not wait for what another sidecar fetches.
                let may_look_again = looks.may_look_again() && wish.bears_stale();
                let fetched = Box::pin(self.fetch(parts, lookup, peer, flight, errand, may_look_again)).await;
                if fetched.is_none() {
                    looks.look_again(why);
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
    fn is_admitted(&self, lookup: &Lookup<'_>, now: Wall) -> bool {
        lookup.admission.is_none_or(|id| self.admissions.is_admitted(id, now))
    }

    /// Whether this caller may have this entry, as fresh or stale as it is.
    fn may_serve(&self, lookup: &Lookup<'_>, found: &Found, wish: &Wish, now: Wall) -> Result<Serve, Reason> {
        let entry = &found.resident.entry;
        if !self.is_admitted(lookup, now) {
            return Err(Reason::NotAdmitted);
        }
        if found.fresh {
            return if wish.is_met_by(&entry.times, now) { Ok(Serve::Fresh) } else { Err(Reason::RequestNoCache) };
        }
        let open = wish.bears_stale() && found.is_within(entry.leeway.while_revalidate, now);
        if open { Ok(Serve::WhileRevalidate) } else { Err(Reason::Expired) }
    }

    fn hit(&self, parts: &Parts, lookup: &Lookup<'_>, resident: &Resident, tier: Tier, now: Wall) -> Answer {
        if let Some(times) = self.insight.sample_hit(rand::random) {
            self.insight.note(lookup.tags().iter().map(Tag::as_str), Deed::Hit(times));
        }
        let ttl = Some(resident.entry.times.ttl_ms(now) / 1000);
        let outcome = Outcome { tier: Some(tier), ttl, saved: Some(resident.entry.took), ..Outcome::new(Disposition::Hit) };
        self.respond_from(parts, lookup, resident, outcome, now)
    }

    fn respond_from(&self, parts: &Parts, lookup: &Lookup<'_>, resident: &Resident, outcome: Outcome, now: Wall) -> Answer {
        let head_only = parts.method == Method::HEAD;
        let ranges = lookup.range.then(|| self.live.load().settings.max_ranges);
        let mut response = respond::hit(&resident.entry, &parts.headers, head_only, now, &outcome, ranges);
        self.debug(response.headers_mut(), lookup);
        Answer { response, outcome, route: Some(lookup.route.id) }
    }

    pub(crate) fn debug(&self, headers: &mut HeaderMap, lookup: &Lookup<'_>) {
        if !self.live.load().settings.debug_headers {
            return;
        }
        respond::tell_key(headers, &lookup.key.hash().to_hex());
        let tags: Vec<String> = lookup.tags().iter().map(ToString::to_string).collect();
        let lines = [
            (respond::X_CACHE_KEY, lookup.key.hash().to_hex()),
            (respond::X_CACHE_ROUTE, lookup.route.name().to_owned()),
            (respond::X_CACHE_TAGS, tags.join(" ")),
        ];
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Counts what was done with a request, and the bytes that it is answered with.
fn count(table: &RouteTable, answer: &mut Answer, took: Duration, is_head: bool) {
    let route = answer.route;
    let &Outcome { disposition, reason, saved, .. } = &answer.outcome;
    table.request(route, &Seen { disposition, reason, took, saved });
    let (body, source) = (answer.response.body_mut(), Source::of(disposition));
    match body.at_hand() {
        // The answer to a HEAD has no body (RFC 9110 9.3.2), whatever it is made with.
        _ if is_head => {}
        Some(bytes) => table.bytes(route, source, bytes),
        None => body.count(table.meter(route, source)),
    }
}

/// The head of a request, as far as the rules care.
pub(crate) fn asked<'a>(parts: &'a Parts, body: &Body, peer: Peer) -> Asked<'a> {
    Asked {
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        has_body: !body.is_empty(),
        peer_is_trusted: peer.trusted,
    }
}
