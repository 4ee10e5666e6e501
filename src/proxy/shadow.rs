//! Routes in shadow: every GET and HEAD goes to the app as it is, and what the cache would have
//! done is only noted.
//!
//! Invariant: nothing that is known here decides what a client or the app gets, and nothing goes
//! into the store.

use std::sync::Arc;

use http::header::HeaderMap;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::coherence::CoherenceMode as Coherent;
use crate::coherence::TagSnapshot;
use crate::coherence::local_snapshot::LocalSnapshot;
use crate::outcome::{Outcome, Reason};
use crate::policy::key::KeyHash;
use crate::policy::plan::{Lookup, Plan};
use crate::policy::request_directives::RequestDirectives;
use crate::policy::route::{Route, RouteMode};
use crate::proxy::fill::FillRequest;
use crate::proxy::miss::FillReason;
use crate::proxy::store_decision::StoreDecision;
use crate::proxy::{Proxy, ProxyResponse};
use crate::semantics::body::Body;
use crate::semantics::early_refresh;
use crate::semantics::forward::ClientPeer;
use crate::shadow::digest::{self, DigestResult};
use crate::shadow::findings::{RouteShadow, ShadowOutcome};
use crate::shadow::history::{Caller, Observation, Step, StepSpan};
use crate::shadow::{
    ObservedResponse, SETTLE_DELAY, ShadowEntry, ShadowSample, is_telling, unstorable,
};

/// A request in shadow: what would become of it.
pub(super) struct ShadowRequest {
    route: usize,
    /// Where it is counted; nowhere when too many routes are watched.
    route_shadow: Option<Arc<RouteShadow>>,
    outcome: ShadowOutcome,
    /// How its answer is looked at; not at all where the cache would take no part.
    watch: Option<ShadowWatch>,
}

/// What is to be known when the answer comes.
struct ShadowWatch {
    fill: FillRequest,
    snapshot: Option<LocalSnapshot>,
    key: KeyHash,
    caller: Caller,
    /// What would be served.
    served: Option<Arc<ShadowEntry>>,
    /// Whether the answer would be stored, if it may be.
    may_store: bool,
    /// Whether its body is looked at.
    whole: bool,
    path: Box<str>,
}

/// An answer whose head has come.
struct ShadowResponse {
    proxy: Arc<Proxy>,
    route_shadow: Arc<RouteShadow>,
    watch: ShadowWatch,
    decision: Result<StoreDecision, Reason>,
    sent: Step,
    is_telling: bool,
}

impl ShadowRequest {
    fn bypass(route: &Arc<Route>, proxy: &Proxy) -> Self {
        Self {
            route: route.id,
            route_shadow: proxy.shadow.route(route.name()),
            outcome: ShadowOutcome::Bypass,
            watch: None,
        }
    }
}

impl Proxy {
    /// What would become of a request, if it is of a route in shadow.
    pub(super) fn shadow_request(
        &self,
        parts: &Parts,
        plan: &Plan<'_>,
        peer: ClientPeer,
    ) -> Option<ShadowRequest> {
        let in_shadow = |route: &Route| route.spec.mode == RouteMode::Shadow;
        match plan {
            Plan::Lookup(lookup) if in_shadow(lookup.route) => {
                Some(self.shadow_lookup(parts, lookup, peer))
            }
            Plan::Pass(Some(route), _) | Plan::Refuse(Some(route), _) if in_shadow(route) => {
                Some(ShadowRequest::bypass(route, self))
            }
            _ => None,
        }
    }

    fn shadow_lookup(&self, parts: &Parts, lookup: &Lookup<'_>, peer: ClientPeer) -> ShadowRequest {
        let wish = RequestDirectives::new(lookup.route, &parts.headers);
        if wish.bypass.is_some() {
            return ShadowRequest::bypass(lookup.route, self);
        }
        let primary = lookup.key.hash();
        let glance = self.coherence.local_snapshot(&lookup.tags());
        let (key, found) = self.shadow.find(primary, |vary| lookup.variant_hash(vary));
        let (would, served) = self.predict(lookup, &wish, found);
        let get = parts.method == Method::GET;
        let unkeyed = lookup.unknown.iter().any(|name| !self.shadow.varies_by(primary, name));
        // Of a request with a header that no key has seen, the answer is stored if it turns out to
        // vary by it.
        let may_store = get
            && would != ShadowOutcome::Bypass
            && served.is_none()
            && (!unkeyed || lookup.is_sent_unchanged());
        let would = if unkeyed { ShadowOutcome::Bypass } else { would };
        let read = glance.as_ref().map_or(TagSnapshot::Unverifiable, LocalSnapshot::to_snapshot);
        let order = self.fill_request(
            parts,
            lookup,
            peer,
            FillReason { snapshot: read, reason: Reason::Shadow, stale: None },
        );
        let caller = Caller {
            credential: credential_digest(&order, &parts.headers),
            withheld_query: withheld_query_digest(lookup, parts),
        };
        let served = served.filter(|_| would == ShadowOutcome::Hit);
        let path = lookup.path.as_ref().into();
        let watch = ShadowWatch {
            fill: order,
            snapshot: glance,
            key,
            caller,
            served,
            may_store,
            whole: get && !lookup.range && !unkeyed,
            path,
        };
        ShadowRequest {
            route: lookup.route.id,
            route_shadow: self.shadow.route(lookup.route.name()),
            outcome: would,
            watch: Some(watch),
        }
    }

    /// What would become of a request for which this would be stored, and what would be served.
    fn predict(
        &self,
        lookup: &Lookup<'_>,
        wish: &RequestDirectives,
        found: Option<Arc<ShadowEntry>>,
    ) -> (ShadowOutcome, Option<Arc<ShadowEntry>>) {
        let now = self.clock.wall();
        let missed = if lookup.range { ShadowOutcome::Bypass } else { ShadowOutcome::Miss };
        let Some(entry) = found else { return (missed, None) };
        match self.coherence.check_snapshot(&entry.proof) {
            Ok(()) => {}
            Err(Reason::MutationPending) => return (ShadowOutcome::Bypass, None),
            Err(_) => return (missed, None),
        }
        if lookup
            .authorization
            .is_some_and(|id| !self.shadow.authorized_clients.is_authorized(id, now))
        {
            return (missed, None);
        }
        if entry.times.is_fresh(now) {
            return if wish.accepts(&entry.times, now) {
                (ShadowOutcome::Hit, Some(entry))
            } else {
                (missed, None)
            };
        }
        // It would be served, and fetched anew: it is known to be stale, so that a change is no
        // finding.
        let open = wish.allows_stale()
            && early_refresh::is_within(&entry.times, entry.leeway.while_revalidate, now);
        (if open { ShadowOutcome::Hit } else { missed }, None)
    }

    /// Forwards a request of a route in shadow, and notes what would have become of it.
    pub(super) async fn pass_in_shadow(
        self: &Arc<Self>,
        parts: Parts,
        body: Body,
        peer: ClientPeer,
        shadowed: ShadowRequest,
    ) -> ProxyResponse {
        let ShadowRequest { route, route_shadow: seen, outcome: would, watch } = shadowed;
        if let Some(seen) = &seen {
            seen.record_outcome(would);
        }
        let outcome = Outcome::bypass(Reason::Shadow);
        let (Some(seen), Some(watch)) = (seen, watch) else {
            return self.pass(parts, body, peer, outcome, Some(route)).await;
        };
        let request = self.upstream_request(parts, body, peer, None);
        let (requested, sent) = (self.clock.wall(), self.shadow.steps.next());
        let mut response = match self.send_to_origin(request, Some(route)).await {
            Ok(response) => response,
            Err(error) => return super::pass::failure_response(&error, &outcome, Some(route)),
        };
        let received = self.clock.wall();
        let status = response.status();
        self.record_shadow_authorization(&watch, status);
        // What a 304 confirms to the client would have been fetched whole, and stored.
        let unchanged = status == StatusCode::NOT_MODIFIED;
        if unchanged {
            *response.status_mut() = StatusCode::OK;
        }
        let judged = self.decide_store(&watch.fill, &response, requested, received, None);
        *response.status_mut() = status;
        let telling = is_telling(status);
        let whole = watch.whole;
        let begun = ShadowResponse {
            proxy: Arc::clone(self),
            route_shadow: seen,
            watch,
            decision: judged,
            sent,
            is_telling: telling,
        };
        let mut answer = self.passed(response, outcome, Some(route), None);
        if whole && unchanged {
            begun.finish(None);
        } else if whole {
            let (head, body) = answer.response.into_parts();
            let body = digest::digesting(body, status, self.store.largest(), move |ended| {
                begun.finish(Some(ended))
            });
            answer.response = Response::from_parts(head, body);
        }
        answer
    }

    fn record_shadow_authorization(&self, watch: &ShadowWatch, status: StatusCode) {
        let Some(id) = watch.fill.authorization() else { return };
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.shadow.authorized_clients.authorize(
                id,
                self.clock.wall(),
                watch.fill.route.spec.admit_for,
            );
        } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.shadow.authorized_clients.revoke(id);
        }
    }
}

impl ShadowResponse {
    /// The answer is whole, or has broken off; nothing is known of a body that did not come.
    fn finish(self, ended: Option<DigestResult>) {
        let done = self.proxy.shadow.steps.next();
        let suspicious = match (ended, &self.watch.served) {
            (Some(Ok(digest)), Some(served)) => {
                self.is_telling && self.proxy.shadow.differs(self.watch.key, served, digest)
            }
            _ => false,
        };
        // Another sidecar's write may be committed and its purge on the way.
        let others = suspicious
            && self.proxy.coherence.mode() == Coherent::Shared
            && self.proxy.coherence.status().peers > 0;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !others {
            return self.conclude(ended, done);
        }
        // No more of them than there may be refreshes: beyond that a suspicion is dropped.
        let Ok(place) = Arc::clone(&self.proxy.refresh_permits).try_acquire_owned() else {
            self.proxy.counters.refreshes_rejected.inc();
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(SETTLE_DELAY).await;
            self.conclude(ended, done);
            drop(place);
        });
    }

    fn conclude(self, ended: Option<DigestResult>, done: Step) {
        let Self { proxy, route_shadow: seen, watch, decision: judged, sent, is_telling: telling } =
            self;
        let shadow = &proxy.shadow;
        let span = StepSpan {
            sent,
            done,
            purges: watch.snapshot.as_ref().map_or(0, LocalSnapshot::purges),
        };
        let key = match (&watch.served, &judged) {
            (None, Ok(judged)) => judged.key.hash(),
            _ => watch.key,
        };
        if let (Some(Ok(digest)), true) = (ended, telling) {
            let tags = watch.served.as_ref().map_or(&watch.fill.tags[..], |served| &served.tags);
            // What a purge has ended meanwhile, or is about to end, would not be served any more.
            // In this order: a write that is no longer under way has purged.
            let spared = !shadow.mutations.will_purge(tags);
            let hit = spared
                && watch
                    .served
                    .as_ref()
                    .is_some_and(|served| proxy.coherence.check_snapshot(&served.proof).is_ok());
            let look = Observation { caller: watch.caller, digest, span, hit };
            let (served, purges) = (watch.served.as_ref(), proxy.coherence.purges());
            shadow.record_response(&ObservedResponse {
                route: &seen,
                path: &watch.path,
                key,
                observation: look,
                served,
                purges,
                now: proxy.clock.wall(),
            });
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
        match judged.and_then(|judged| Ok((judged, digest?))) {
            Ok((judged, digest)) => {
                let StoreDecision { key, policy: admission, tags, .. } = judged;
                let held = watch
                    .snapshot
                    .as_ref()
                    .and_then(|glance| proxy.coherence.prove_snapshot(glance, &tags));
                let Some(held) = held else {
                    return seen.record_not_stored(Reason::PurgedDuringFill);
                };
                let entry = ShadowEntry {
                    times: admission.times,
                    leeway: admission.leeway,
                    proof: held,
                    tags: tags.into(),
                };
                let (primary, vary, caller) =
                    (watch.fill.primary.hash(), admission.vary, watch.caller);
                shadow.store_sample(ShadowSample {
                    primary,
                    vary,
                    key: key.hash(),
                    caller,
                    digest,
                    span,
                    entry,
                });
            }
            Err(reason) => {
                seen.record_not_stored(reason);
                if telling {
                    shadow.forget(key);
                }
            }
        }
    }
}

/// Names the caller's credential, in scope `public` too.
fn credential_digest(order: &FillRequest, headers: &HeaderMap) -> u64 {
    let credential = order.rules.credential.credential(headers, &order.rules.hasher);
    credential
        .and_then(|credential| credential.0.first_chunk().copied())
        .map_or(0, u64::from_be_bytes)
}

/// Names the query, where a fill would send the app another one.
fn withheld_query_digest(lookup: &Lookup<'_>, parts: &Parts) -> u64 {
    let query = parts.uri.query().unwrap_or_default();
    if lookup.query.as_deref().unwrap_or_default() == query {
        return 0;
    }
    let digest: [u8; 32] = Sha256::digest(query).into();
    digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
}
