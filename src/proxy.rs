//! The flow: what happens to a request, from its head to its response. It reads from the top down.
//!
//! `proxy/fill.rs` fetches what is to be stored, `proxy/pass.rs` forwards what is not, `purge.rs` forwards what changes data.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::cache_control::CacheControl;
use crate::clock::{Clock, Wall};
use crate::coalesce::{FlightKey, Flights, Joined, Part, Reader, SharedHead};
use crate::coherence::Coherence;
use crate::conditional;
use crate::forward::{self, Peer};
use crate::metrics::{Counter, Metrics};
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::plan::{Asked, Lookup, Plan, Rules};
use crate::respond;
use crate::route::{ClientCacheControl, Route};
use crate::scope::Admissions;
use crate::store::memory::Resident;
use crate::store::{Consulted, Store};
use crate::tag::ResponseTags;
use crate::telemetry::{self, AccessLine};
use crate::upstream::Upstream;

mod fill;
mod pass;

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
    /// The response headers whose word on freshness comes before `Cache-Control` (RFC 9213), the first one first.
    pub targeted: Box<[HeaderName]>,
    /// The longest request body that purge rules read, in bytes.
    pub purge_body: u64,
    /// Mutations under way at once.
    pub mutations: usize,
    /// How long a mutation may take until others take it as committed; renewed while it goes on.
    pub mark_for: Duration,
    /// How long a tunnel may be silent.
    pub tunnel_timeout: Duration,
    /// Where the app names tags.
    pub response_tags: ResponseTags,
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
    /// Responses that turned out not to be storable when their heads had gone out already.
    pub late: Late,
}

/// Why responses whose heads said `stored` were not.
#[derive(Clone, Debug, Default)]
pub struct Late {
    truncated: Arc<Counter>,
    too_large: Arc<Counter>,
    trailers: Arc<Counter>,
    purged: Arc<Counter>,
    failed: Arc<Counter>,
    abandoned: Arc<Counter>,
}

impl Late {
    /// Each reason with its count.
    #[must_use]
    pub fn counts(&self) -> [(Reason, &Arc<Counter>); 6] {
        [
            (Reason::Truncated, &self.truncated),
            (Reason::TooLarge, &self.too_large),
            (Reason::Trailers, &self.trailers),
            (Reason::PurgedMeanwhile, &self.purged),
            (Reason::StoreFailed, &self.failed),
            (Reason::Abandoned, &self.abandoned),
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
    /// The rules of `proxy.toml`.
    pub rules: Arc<Rules>,
    /// The tiers.
    pub store: Arc<Store>,
    /// What proves entries current.
    pub coherence: Arc<Coherence>,
    /// Fills under way.
    pub flights: Arc<Flights>,
    /// Credentials that the app has admitted.
    pub admissions: Arc<Admissions>,
    /// The app.
    pub upstream: Upstream,
    /// Counts by route and outcome.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Fills, mutations and tunnels: the drain waits for them.
    pub tasks: TaskTracker,
    /// Ends tunnels.
    pub stop: CancellationToken,
    /// Bounds and habits.
    pub settings: Settings,
    /// Places for mutations.
    pub mutation_places: Arc<Semaphore>,
    /// What it has done.
    pub counters: Counters,
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
        let line = telemetry::enabled().then(|| Line::of(&request, peer, &self.clock));
        let answer = self.answer(request, peer).await;
        self.metrics.request(answer.route, answer.outcome.disposition, answer.outcome.reason);
        if let Some(line) = line {
            line.write(&answer, &self.rules, &self.clock);
        }
        answer.response
    }

    async fn answer(self: &Arc<Self>, request: Request<Body>, peer: Peer) -> Answer {
        if let Err(bad) = forward::check_request(request.method(), request.uri(), request.version(), request.headers()) {
            self.counters.refused.inc();
            let outcome = Outcome::bypass_of(Reason::BadRequest, bad.as_str());
            return Answer { response: respond::refusal(bad.status(), bad.as_str(), &outcome), outcome, route: None };
        }
        let (parts, body) = request.into_parts();
        let rules = Arc::clone(&self.rules);
        let asked = asked(&parts, &body, peer);
        // What asks the app is boxed: its state is large, and hits should not carry it around.
        match rules.plan(&asked) {
            Plan::Lookup(lookup) => match self.hit_at_once(&parts, &lookup) {
                Some(answer) => answer,
                None => Box::pin(self.look_up(&parts, &lookup, peer)).await,
            },
            Plan::Mutate(method) => Box::pin(self.mutate(parts, body, peer, method)).await,
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
    fn hit_at_once(&self, parts: &Parts, lookup: &Lookup<'_>) -> Option<Answer> {
        let now = self.clock.wall();
        if !lookup.unknown.is_empty() {
            return None;
        }
        let resident = self.store.at_hand(lookup, now)?;
        let wish = Wish::of(lookup.route, &parts.headers);
        if wish.bypass.is_some() || self.may_serve(lookup, &resident, &wish, now).is_err() {
            return None;
        }
        Some(self.serve(parts, lookup, &resident, Tier::Memory, now))
    }

    /// A GET or HEAD on a route.
    async fn look_up(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer) -> Answer {
        let route = Some(lookup.route.id);
        let wish = Wish::of(lookup.route, &parts.headers);
        if let Some(reason) = wish.bypass {
            return self.pass_lookup(parts, lookup, peer, Outcome::bypass(reason)).await;
        }
        if let Some(name) = self.uncovered_header(lookup) {
            let outcome = Outcome::bypass_of(Reason::UnkeyedHeader, name.as_str());
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        }
        let now = self.clock.wall();
        let consulted = self.store.consult(lookup, now).await;
        let why = match &consulted.found {
            Some((resident, tier)) => match self.may_serve(lookup, resident, &wish, now) {
                Ok(()) => return self.serve(parts, lookup, resident, *tier, now),
                Err(why) => why,
            },
            None => consulted.why,
        };
        match why {
            Reason::CacheUnavailable | Reason::MutationPending => self.pass_lookup(parts, lookup, peer, Outcome::bypass(why)).await,
            _ if wish.only_stored => {
                let outcome = Outcome::miss(why);
                Answer { response: respond::failure(Reason::UpstreamTimeout, &outcome), outcome, route }
            }
            _ if parts.method == Method::HEAD => self.pass_lookup(parts, lookup, peer, Outcome::miss(why)).await,
            _ => self.fetch(parts, lookup, peer, consulted, why).await,
        }
    }

    /// A header that no key has seen, and that the response is not known to vary by.
    fn uncovered_header<'a>(&self, lookup: &'a Lookup<'_>) -> Option<&'a HeaderName> {
        if lookup.unknown.is_empty() {
            return None;
        }
        let mark = self.store.known_vary(&lookup.key);
        lookup.unknown.iter().find(|name| !mark.as_ref().is_some_and(|mark| mark.spec.covers(name)))
    }

    /// Whether this caller may have this entry, as fresh as it is.
    fn may_serve(&self, lookup: &Lookup<'_>, resident: &Resident, wish: &Wish, now: Wall) -> Result<(), Reason> {
        // SECURITY: a shared entry is for those alone whom the app itself has lately answered.
        if lookup.admission.is_some_and(|id| !self.admissions.is_admitted(id, now)) {
            return Err(Reason::NotAdmitted);
        }
        let times = &resident.entry.times;
        let old = wish.max_age.is_some_and(|most| times.age(now) > most);
        let soon_stale = wish.min_fresh.is_some_and(|least| times.ttl_ms(now) < i64::try_from(least.as_millis()).unwrap_or(i64::MAX));
        if old || soon_stale { Err(Reason::RequestNoCache) } else { Ok(()) }
    }

    fn serve(&self, parts: &Parts, lookup: &Lookup<'_>, resident: &Resident, tier: Tier, now: Wall) -> Answer {
        let outcome = Outcome { tier: Some(tier), ttl: Some(resident.entry.times.ttl_ms(now) / 1000), ..Outcome::new(Disposition::Hit) };
        let head_only = parts.method == Method::HEAD;
        let mut response = respond::hit(&resident.entry, &parts.headers, head_only, now, &outcome);
        self.debug(response.headers_mut(), lookup);
        Answer { response, outcome, route: Some(lookup.route.id) }
    }

    /// The entry is not there: fetch it, for all who ask for it now.
    async fn fetch(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, consulted: Consulted, why: Reason) -> Answer {
        let Consulted { key, read, .. } = consulted;
        let mut flight = FlightKey { hash: key.hash(), caller: self.not_admitted(lookup) };
        // Once by the key that is known; once more when a fill has told what the response varies by.
        for _ in 0..2 {
            let follow = match self.flights.part(flight, &read, self.clock.wall()) {
                Part::Lead(lead) => return self.fill(parts, lookup, peer, read, why, Some(lead)).await,
                Part::Alone => break,
                Part::Follow(follow) => follow,
            };
            match follow.join(&read, |vary| lookup.variant_hash(vary)).await {
                Joined::Shared(head, reader) => return self.shared(parts, lookup, &head, reader, why),
                Joined::OtherVariant(head) => flight.hash = lookup.variant_hash(&head.vary),
                Joined::Alone => break,
                Joined::Failed(reason) => {
                    let outcome = Outcome { collapsed: true, ..Outcome::miss(reason) };
                    return Answer { response: respond::failure(reason, &outcome), outcome, route: Some(lookup.route.id) };
                }
            }
        }
        self.fill(parts, lookup, peer, read, why, None).await
    }

    fn shared(&self, parts: &Parts, lookup: &Lookup<'_>, head: &SharedHead, reader: Reader, why: Reason) -> Answer {
        let outcome = Outcome { collapsed: true, fwd_status: Some(head.status.as_u16()), ttl: Some(head.ttl), ..Outcome::miss(why) };
        let mut headers = head.headers.clone();
        respond::mark(&mut headers, &outcome);
        self.debug(&mut headers, lookup);
        let response = conditional_response(&parts.headers, head.status, headers, Body::stream(reader));
        Answer { response, outcome, route: Some(lookup.route.id) }
    }

    /// Who may not share a fill with others: a credential that the app has not admitted.
    fn not_admitted(&self, lookup: &Lookup<'_>) -> Option<[u8; 32]> {
        let id = lookup.admission?;
        if self.admissions.is_admitted(id, self.clock.wall()) {
            return None;
        }
        let mut caller = [0; 32];
        caller[..16].copy_from_slice(&id.0.to_be_bytes());
        Some(caller)
    }

    pub(crate) fn debug(&self, headers: &mut HeaderMap, lookup: &Lookup<'_>) {
        if !self.settings.debug_headers {
            return;
        }
        let tags: Vec<String> = lookup.tags().iter().map(ToString::to_string).collect();
        let lines = [
            ("x-cache-key", lookup.key.hash().to_hex()),
            ("x-cache-route", lookup.route.name().to_owned()),
            ("x-cache-tags", tags.join(" ")),
        ];
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
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

/// Answers with 304 where the request's own conditions, which the app did not get to see, ask for no more.
pub(crate) fn conditional_response(request: &HeaderMap, status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let field = |name: HeaderName| headers.get(name);
    let unchanged = status == StatusCode::OK
        && conditional::has_conditions(request)
        && conditional::evaluate(request, field(http::header::ETAG), field(http::header::LAST_MODIFIED), field(http::header::DATE))
            == conditional::Verdict::NotModified;
    if !unchanged {
        return respond::assemble(status, headers, body);
    }
    let mut slim = conditional::not_modified_headers(&headers);
    for name in [respond::X_CACHE, respond::CACHE_STATUS] {
        if let Some(value) = headers.get(&name) {
            slim.insert(name, value.clone());
        }
    }
    respond::assemble(StatusCode::NOT_MODIFIED, slim, Body::empty())
}

/// What the client's own `Cache-Control` asks for. It can only narrow what is served (RFC 9111 5.2.1); `max-stale` is ignored.
#[derive(Debug, Default)]
struct Wish {
    bypass: Option<Reason>,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
    only_stored: bool,
}

impl Wish {
    fn of(route: &Route, headers: &HeaderMap) -> Self {
        if route.spec.client_cache_control == ClientCacheControl::Ignore {
            return Self::default();
        }
        if !headers.contains_key(http::header::CACHE_CONTROL) {
            // `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 5.4).
            let pragma = headers.get(http::header::PRAGMA).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no-cache"));
            return if pragma { Self { min_fresh: Some(Duration::MAX), ..Self::default() } } else { Self::default() };
        }
        let wish = CacheControl::of(headers);
        Self {
            bypass: wish.no_store.then_some(Reason::RequestNoStore),
            max_age: wish.max_age,
            min_fresh: if wish.no_cache { Some(Duration::MAX) } else { wish.min_fresh },
            only_stored: wish.only_if_cached,
        }
    }
}

/// What the access log wants to know, kept from before the request was consumed.
struct Line {
    method: Method,
    path: String,
    host: Option<String>,
    request_id: Option<String>,
    peer: Peer,
    since: std::time::Instant,
}

impl Line {
    fn of(request: &Request<Body>, peer: Peer, clock: &Clock) -> Self {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            host: request.uri().authority().map(ToString::to_string).or_else(|| text("host")),
            request_id: text("x-request-id"),
            peer,
            since: clock.now(),
        }
    }

    fn write(self, answer: &Answer, rules: &Rules, clock: &Clock) {
        let length = answer.response.headers().get(http::header::CONTENT_LENGTH);
        telemetry::access(&AccessLine {
            method: &self.method,
            path: &self.path,
            host: self.host.as_deref(),
            peer: self.peer.addr,
            route: answer.route.and_then(|id| rules.routes.iter().nth(id)).map(|route| route.name()),
            status: answer.response.status().as_u16(),
            outcome: &answer.outcome,
            bytes: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            duration: clock.now().duration_since(self.since),
            request_id: self.request_id.as_deref(),
        });
    }
}
