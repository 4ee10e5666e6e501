//! Routes in shadow: every GET and HEAD goes to the origin as it is, and what the cache would have
//! done is only noted.
//!
//! Invariant: nothing that is known here decides what a client or the origin gets, and nothing goes
//! into the store.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::coherence::local_snapshot::LocalSnapshot;
use crate::coherence::{CoherenceMode, TagSnapshot};
use crate::outcome::{Outcome, Reason};
use crate::policy::authorized_clients::{AuthorizationState, SharedClient};
use crate::policy::key::{self, KeyHash};
use crate::policy::plan::{KeyParts, Plan};
use crate::policy::refusal::Refusal;
use crate::policy::route::{Route, RouteMode};
use crate::policy::scope::Scope;
use crate::proxy::context::{LookupContext, RequestContext, is_confirmed};
use crate::proxy::fill::request::{FillReason, FillRequest};
use crate::proxy::key_watch;
use crate::proxy::pass;
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;
use crate::proxy::serve::{ProofState, Serve, StoredState, may_serve};
use crate::proxy::shadow::digests::{credential_digest, others_digest, withheld_query_digest};
use crate::proxy::store_decision::{StoreDecision, decide_store};
use crate::semantics::body::Body;
use crate::semantics::vary::{VarySpec, names_languages};
use crate::shadow::digest::{self, DigestResult};
use crate::shadow::findings::{RouteShadow, ShadowOutcome};
use crate::shadow::history::{Caller, Digest, Observation, StepNumber, StepSpan};
use crate::shadow::languages::{LanguageSample, head_digest};
use crate::shadow::{
    FoundSample, ObservedResponse, RefusedResponse, SETTLE_DELAY, ShadowEntry, ShadowSample,
    is_telling, unstorable,
};
use crate::upstream::ConnectionChoice;

mod digests;
mod tagging;

/// A request of a route in shadow: what would become of it.
pub(super) struct ShadowRequest {
    route: usize,
    /// Where it is counted; none when too many routes are watched.
    route_shadow: Option<Arc<RouteShadow>>,
    outcome: ShadowOutcome,
    /// How its response is observed; none where the cache would take no part.
    watch: Option<ShadowWatch>,
}

/// What is needed when the response comes.
struct ShadowWatch {
    fill: FillRequest,
    snapshot: Option<LocalSnapshot>,
    key: KeyHash,
    caller: Caller,
    /// What would be served.
    served: Option<Arc<ShadowEntry>>,
    /// Whether the response would be stored, if it may be.
    may_store: bool,
    /// Whether its body is observed.
    whole: bool,
    /// The headers that a fill would withhold.
    withheld: Vec<HeaderName>,
    /// Identifies what a fill would withhold, and the caller.
    others: u64,
    path: Box<str>,
    /// What its key is made of, where it would be a miss.
    parts: Option<KeyParts<'static>>,
}

/// A response whose head has come.
struct ShadowResponse {
    resources: Arc<Resources>,
    route_shadow: Arc<RouteShadow>,
    watch: ShadowWatch,
    decision: Result<StoreDecision, Reason>,
    sent: StepNumber,
    is_telling: bool,
    refusal: Option<Refusal>,
    is_success: bool,
    /// What its head says of the language.
    language_head: Digest,
    /// Whether it says anything of what would be stored.
    supersedes: bool,
}

impl ShadowRequest {
    fn bypass(route: &Arc<Route>, resources: &Resources) -> Self {
        Self {
            route: route.id,
            route_shadow: resources.shadow.route(route.name()),
            outcome: ShadowOutcome::Bypass,
            watch: None,
        }
    }
}

/// What would become of a request, if it is of a route in shadow.
pub(super) fn shadow_request(
    resources: &Resources,
    context: RequestContext<'_>,
    parts: &Parts,
    plan: &Plan<'_>,
) -> Option<Box<ShadowRequest>> {
    let in_shadow = |route: &Route| route.mode() == RouteMode::Shadow;
    match plan {
        Plan::Lookup(lookup) if in_shadow(lookup.route) => {
            let clients = &resources.shadow.authorized_clients;
            let context = LookupContext::new(context, parts, lookup, clients);
            Some(Box::new(shadow_lookup(resources, &context)))
        }
        Plan::Pass(Some(route), _) | Plan::Refuse(Some(route), _) if in_shadow(route) => {
            Some(Box::new(ShadowRequest::bypass(route, resources)))
        }
        _ => None,
    }
}

fn shadow_lookup(resources: &Resources, context: &LookupContext<'_>) -> ShadowRequest {
    let (shadow, lookup, parts) = (&resources.shadow, context.lookup, context.parts);
    if context.directives.bypass.is_some() {
        return ShadowRequest::bypass(lookup.route, resources);
    }
    let primary = lookup.key.hash();
    let snapshot = resources.coherence.local_snapshot(&lookup.tags());
    let (key, found) = shadow.find(primary, |vary| lookup.variant_hash(vary));
    let (outcome, served) = predict(resources, context, key, found);
    let is_get = parts.method != Method::HEAD;
    let is_unkeyed = !lookup.unknown.is_empty();
    let may_store = is_get && outcome != ShadowOutcome::Bypass && served.is_none() && !is_unkeyed;
    let outcome = if is_unkeyed { ShadowOutcome::Bypass } else { outcome };
    let tags = snapshot.as_ref().map_or(TagSnapshot::Unverifiable, LocalSnapshot::to_snapshot);
    let reason = FillReason { snapshot: tags, ..FillReason::not_stored(Reason::Shadow, key) };
    let fill = FillRequest::from_context(context, reason);
    let caller = Caller {
        credential: credential_digest(&fill, &parts.headers),
        withheld_query: withheld_query_digest(lookup, parts),
    };
    let served = served.filter(|_| outcome == ShadowOutcome::Hit);
    let withheld = lookup.withheld_names();
    let watch = ShadowWatch {
        fill,
        snapshot,
        key,
        caller,
        served,
        may_store,
        whole: is_get && !lookup.range && !is_unkeyed,
        others: others_digest(caller, &withheld, &parts.headers),
        withheld,
        path: lookup.path().into(),
        parts: key_watch::shadowed_parts(resources, context, may_store),
    };
    ShadowRequest {
        route: lookup.route.id,
        route_shadow: shadow.route(lookup.route.name()),
        outcome,
        watch: Some(watch),
    }
}

/// What would become of a request for which this would be stored, and what would be served.
fn predict(
    resources: &Resources,
    context: &LookupContext<'_>,
    key: KeyHash,
    found: Option<FoundSample>,
) -> (ShadowOutcome, Option<Arc<ShadowEntry>>) {
    let missed = if context.lookup.range { ShadowOutcome::Bypass } else { ShadowOutcome::Miss };
    let Some(FoundSample { entry, digest }) = found else { return (missed, None) };
    let now = context.request.now;
    let authorized = context.authorization(key, Some(|| digest.unwrap_or_default()), now);
    let authorized = authorized == AuthorizationState::Authorized;
    let proof = match resources.coherence.check_snapshot(&entry.proof) {
        Ok(()) => ProofState::Current,
        Err(reason) => ProofState::Refused(reason),
    };
    let is_confirmed = is_confirmed(context.lookup, &entry.times, now);
    let stored = StoredState { times: &entry.times, leeway: &entry.leeway, proof, is_confirmed };
    match may_serve(&stored, &context.directives, authorized, now) {
        Ok(Serve::Fresh) => (ShadowOutcome::Hit, Some(entry)),
        // It would be served, and fetched anew. It is known to be stale, so that a change is no
        // finding.
        Ok(Serve::WhileRevalidate) => (ShadowOutcome::Hit, None),
        Err(Reason::MutationPending) => (ShadowOutcome::Bypass, None),
        Err(_) => (missed, None),
    }
}

/// Forwards a request of a route in shadow, and notes what would have become of it.
pub(super) async fn pass_in_shadow(
    resources: &Arc<Resources>,
    context: RequestContext<'_>,
    parts: Parts,
    body: Body,
    shadowed: Box<ShadowRequest>,
) -> ProxyResponse {
    let ShadowRequest { route, route_shadow, outcome: shadow_outcome, watch } = *shadowed;
    if let Some(route_shadow) = &route_shadow {
        route_shadow.record_outcome(shadow_outcome);
    }
    let outcome = Outcome::bypass(Reason::Shadow);
    let (Some(route_shadow), Some(mut watch)) = (route_shadow, watch) else {
        return pass::pass(resources, context, Box::new((parts, body)), outcome, Some(route)).await;
    };
    let (origin, table) = (context.origin(), &context.config.table);
    let from = context.requester(&parts);
    let cookies = key_watch::cookies_of(&parts.headers);
    let request = origin.request(parts, body, context.peer, None);
    let (requested, sent) = (resources.clock.wall(), resources.shadow.steps.next());
    let (mut response, call) =
        match origin.send_on(&ConnectionChoice::Pooled, &from, request, table, Some(route)).await {
            Ok(answered) => answered,
            Err(error) => return ProxyResponse::upstream_failure(&error, &outcome, Some(route)),
        };
    let outcome = Outcome { origin: Some(call), ..outcome };
    let received = resources.clock.wall();
    let status = response.status();
    record_shadow_authorization(resources, &watch, status, response.headers());
    let refusal = watch.fill.refusal(status, response.headers());
    let supersedes = watch.fill.supersedes(status, response.headers());
    // Where a 304 confirms the client's copy, a fill would have fetched the whole, and stored it.
    let unchanged = status == StatusCode::NOT_MODIFIED;
    if unchanged {
        *response.status_mut() = StatusCode::OK;
    }
    let times = (requested, received);
    let mut decision = decide_store(&resources.store, &watch.fill, &response, times, None);
    *response.status_mut() = status;
    watch.observe_key(resources, &cookies, response.headers(), decision.as_ref().ok());
    if names_languages(response.headers()) {
        route_shadow.findings().languages.is_said = true;
    }
    if watch.learn(resources, response.headers()) {
        // This response is for the client's own request, which a fill would not repeat.
        decision = Err(Reason::WithheldHeader);
        watch.whole = false;
    }
    let whole = watch.whole;
    let mut observed = ShadowResponse {
        resources: Arc::clone(resources),
        route_shadow,
        watch,
        decision,
        sent,
        is_telling: is_telling(status),
        refusal,
        is_success: status.is_success(),
        language_head: head_digest(status, response.headers()),
        supersedes,
    };
    let mut passed = pass::passed(resources, context, response, outcome, Some(route), None);
    if whole && unchanged {
        tagging::add_body_tags(&mut observed.decision, &observed.watch.fill, None);
        observed.finish(None);
    } else if whole {
        let (head, body) = passed.response.into_parts();
        let (fill, decision) = (&observed.watch.fill, &observed.decision);
        let digester = tagging::digester((status, &head.headers), decision, fill);
        let body = digest::digesting(body, digester, resources.store.largest(), move |ended| {
            let (decision, fill) = (&mut observed.decision, &observed.watch.fill);
            let ended = ended.map(|read| tagging::digest_of(read, decision, fill));
            observed.finish(Some(ended));
        });
        passed.response = Response::from_parts(head, body);
    }
    passed
}

/// What the head of a response says of its caller. Where clients are authorized by entry, the body
/// does: see `ShadowResponse::store`.
fn record_shadow_authorization(
    resources: &Resources,
    watch: &ShadowWatch,
    status: StatusCode,
    headers: &HeaderMap,
) {
    let clients = &resources.shadow.authorized_clients;
    watch.fill.record_refusal(clients, status, headers);
    let Some(client) = watch.fill.client.filter(|client| !client.by_entry()) else { return };
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        let times = (resources.clock.wall(), watch.fill.route.spec.admit_for);
        clients.authorize(client, watch.key, Digest::default(), times);
    }
}

impl ShadowWatch {
    /// Observes what keeps such requests from the cache, as for those of a route that caches.
    fn observe_key(
        &self,
        resources: &Resources,
        cookies: &HeaderMap,
        response: &HeaderMap,
        decision: Option<&StoreDecision>,
    ) {
        let (config, route) = (&self.fill.config, &self.fill.route);
        config.rolling_cookies.observe(cookies, response);
        if self.fill.sets_cookie(response) {
            key_watch::record_set_cookies(resources, route, response);
        }
        if let (Some(parts), Some(decision)) = (&self.parts, decision) {
            let fresh_for = decision.policy.times.lifetime;
            key_watch::observe_parts(resources, config, route, parts, fresh_for);
        }
    }

    /// Learns what the response varies on. Returns whether that is something that a fill would
    /// withhold.
    fn learn(&self, resources: &Resources, response: &HeaderMap) -> bool {
        let FillRequest { route, roles, sent, .. } = &self.fill;
        let vary = VarySpec::from_response(sent, response).ok();
        let Some(Ok(vary)) = vary.map(|vary| route.variants_by(&vary, roles)) else { return false };
        let unlearned = route.learn(&vary, &self.withheld, roles);
        resources.counters.headers_unlearned.add(unlearned);
        vary.names().any(|name| self.withheld.contains(name))
    }
}

impl ShadowResponse {
    /// The response is whole, or has broken off. Nothing is known of a body that did not come.
    fn finish(self, ended: Option<DigestResult>) {
        let (coherence, shadow) = (&self.resources.coherence, &self.resources.shadow);
        let done = shadow.steps.next();
        let suspicious = match (ended, &self.watch.served) {
            (Some(Ok(digest)), Some(served)) => {
                self.is_telling && shadow.differs(self.watch.key, served, digest)
            }
            (_, Some(_)) => self.refusal == Some(Refusal::NotFound),
            _ => false,
        };
        // Another sidecar's mutation may be committed and its purge on the way.
        let has_peers =
            suspicious && coherence.mode() == CoherenceMode::Shared && coherence.status().peers > 0;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !has_peers {
            return self.conclude(ended, done);
        }
        // No more of them than there may be refreshes: beyond that a suspicion is dropped.
        let permits = Arc::clone(&self.resources.refresh_permits);
        let Ok(permit) = permits.try_acquire_owned() else {
            self.resources.counters.refreshes_rejected.inc();
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(SETTLE_DELAY).await;
            self.conclude(ended, done);
            drop(permit);
        });
    }

    fn conclude(self, ended: Option<DigestResult>, done: StepNumber) {
        let watch = &self.watch;
        let span = StepSpan {
            sent: self.sent,
            done,
            purges: watch.snapshot.as_ref().map_or(0, LocalSnapshot::purges),
        };
        let key = match (&watch.served, &self.decision) {
            (None, Ok(decision)) => decision.key.hash(),
            _ => watch.key,
        };
        let is_finding = self.record_refusal(key);
        // What others share would not be served to a caller who is not authorized for it, so a
        // refusal is as it should be.
        let by_entry = watch.fill.client.is_some_and(SharedClient::by_entry);
        let is_expected = self.refusal.is_some() && by_entry && watch.served.is_none();
        let is_telling = self.is_telling && !is_finding && !is_expected;
        if let (Some(Ok(digest)), true) = (ended, is_telling) {
            self.record(key, span, digest);
            self.record_languages(span, digest);
        }
        if !watch.may_store || watch.served.is_some() {
            return;
        }
        let digest = match ended {
            None => Ok(None),
            Some(Ok(digest)) => Ok(Some(digest)),
            Some(Err(reason)) => match unstorable(reason) {
                Some(reason) => Err(reason),
                None => return,
            },
        };
        self.store(key, span, digest);
    }

    /// Whether the origin has turned away a caller who would have been served another's response.
    fn record_refusal(&self, key: KeyHash) -> bool {
        let (watch, shadow) = (&self.watch, &self.resources.shadow);
        let (Some(refusal), Some(served)) = (self.refusal, &watch.served) else { return false };
        // What a purge has ended meanwhile, or is about to end, would no longer be served.
        watch.fill.route.spec.scope != Scope::Private
            && !shadow.mutations.will_purge(&served.tags)
            && self.resources.coherence.check_snapshot(&served.proof).is_ok()
            && shadow.record_refusal(&RefusedResponse {
                route: &self.route_shadow,
                path: &watch.path,
                key,
                caller: watch.caller,
                is_certain: refusal == Refusal::Credential,
                served,
                now: self.resources.clock.wall(),
            })
    }

    /// Compares the response with what would have been served.
    fn record(&self, key: KeyHash, span: StepSpan, digest: Digest) {
        let (watch, shadow) = (&self.watch, &self.resources.shadow);
        let coherence = &self.resources.coherence;
        let tags = watch.served.as_ref().map_or(&watch.fill.tags[..], |served| &served.tags);
        // What a purge has ended meanwhile, or is about to end, would no longer be served. In this
        // order: a mutation that is no longer in flight has purged.
        let spared = !shadow.mutations.will_purge(tags);
        let hit = spared
            && watch
                .served
                .as_ref()
                .is_some_and(|served| coherence.check_snapshot(&served.proof).is_ok());
        shadow.record_response(&ObservedResponse {
            route: &self.route_shadow,
            path: &watch.path,
            key,
            observation: Observation { caller: watch.caller, digest, span, hit },
            served: watch.served.as_ref(),
            purges: coherence.purges(),
            now: self.resources.clock.wall(),
        });
    }

    /// Compares the response with those to the same request in other languages, as far as these
    /// would have entries of their own.
    fn record_languages(&self, span: StepSpan, digest: Digest) {
        let (watch, resources) = (&self.watch, &self.resources);
        let Ok(StoreDecision { key, policy, .. }) = &self.decision else { return };
        if !watch.fill.keys_languages() {
            return;
        }
        let (page, languages) = key::without_languages(key.canonical());
        let sample = LanguageSample {
            languages,
            digest,
            head: self.language_head,
            is_success: self.is_success,
            others: watch.others,
            span,
            times: policy.times,
        };
        let (purges, now) = (resources.coherence.purges(), resources.clock.wall());
        resources.shadow.record_languages(&self.route_shadow, page, &sample, purges, now);
    }

    /// Keeps the digest of a response that would have been stored.
    fn store(self, key: KeyHash, span: StepSpan, digest: Result<Option<Digest>, Reason>) {
        let Self { resources, route_shadow, watch, decision, is_telling, supersedes, .. } = self;
        match decision.and_then(|decision| Ok((decision, digest?))) {
            Ok((decision, digest)) => {
                let StoreDecision { key, policy, tags, .. } = decision;
                let proof = watch
                    .snapshot
                    .as_ref()
                    .and_then(|snapshot| resources.coherence.prove_snapshot(snapshot, &tags));
                let Some(proof) = proof else {
                    return route_shadow.record_not_stored(Reason::PurgedDuringFill);
                };
                if let Some(client) = watch.fill.client.filter(|client| client.by_entry()) {
                    let times = (resources.clock.wall(), watch.fill.route.spec.admit_for);
                    let clients = &resources.shadow.authorized_clients;
                    clients.authorize(client, key.hash(), digest.unwrap_or_default(), times);
                }
                let (times, leeway) = (policy.times, policy.leeway);
                let entry = ShadowEntry { times, leeway, proof, tags: tags.into() };
                resources.shadow.store_sample(ShadowSample {
                    primary: watch.fill.primary.hash(),
                    vary: policy.vary,
                    key: key.hash(),
                    caller: watch.caller,
                    digest,
                    span,
                    entry,
                });
            }
            Err(reason) => {
                route_shadow.record_not_stored(reason);
                if is_telling && supersedes {
                    resources.shadow.forget(key);
                }
            }
        }
    }
}
