//! Fills in the background, for nobody's request: of what is stale but served, of what is popular
//! and about to expire, and of what was asked for in part. At most one for each key, and
//! `limits.refreshes` in all.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode, response};
use tokio::sync::oneshot;

use crate::cache::fills::{FillKey, FillRole};
use crate::cache::store::Candidate;
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::coherence::{Proof, TagSnapshot};
use crate::outcome::{Outcome, Reason, Tier};
use crate::policy::key::KeyHash;
use crate::policy::plan::Lookup;
use crate::proxy::fill::FillRequest;
use crate::proxy::miss::{FillReason, StaleCandidate};
use crate::proxy::{Proxy, ProxyResponse, fill, pass};
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;
use crate::semantics::revalidation;
use crate::semantics::revalidation::HeadVerdict;
use crate::semantics::{early_refresh, range};

impl Proxy {
    /// Fetches what is stored anew, in the background.
    pub(super) fn refresh(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        flight: FillKey,
        errand: FillReason,
    ) {
        let now = self.clock.wall();
        if self.fills.is_backing_off(&flight, now) {
            return;
        }
        let Ok(place) = Arc::clone(&self.refresh_permits).try_acquire_owned() else {
            self.counters.refreshes_rejected.inc();
            return;
        };
        // Somebody fetches it already, or it is known not to be storable.
        let FillRole::Leader(lead) = self.fills.role(flight, &errand.snapshot, now) else { return };
        if self.is_already_filled(&flight, &errand) {
            return lead.retry_lookup();
        }
        self.counters.refreshes.inc();
        let shared = self.cluster_fill(lookup.route, &flight, &errand);
        let order = self.fill_request(parts, lookup, peer, errand);
        let proxy = Arc::clone(self);
        // Not tracked: no client waits for it, so a drain does not either.
        tokio::spawn(async move {
            if let Some(shared) = shared {
                proxy.refresh_in_cluster(order, lead, shared).await;
            } else {
                // Nobody listens: what the app says goes to the store alone.
                let (tell, _) = oneshot::channel();
                proxy.run_fill(order, Some(lead), tell).await;
            }
            drop(place);
        });
    }

    /// Begins to fetch a popular response anew shortly before it expires, so that nobody has to
    /// wait for it.
    pub(super) fn refresh_early(
        self: &Arc<Self>,
        (parts, lookup, peer): (&Parts, &Lookup<'_>, ClientPeer),
        flight: FillKey,
        read: TagSnapshot,
        spare: &StaleCandidate,
        due: bool,
    ) {
        let (entry, now) = (&spare.candidate.cached.entry, self.clock.wall());
        if lookup.route.spec.early_refresh
            && (due
                || early_refresh::should_refresh_early(
                    &entry.times,
                    entry.fetch_duration,
                    now,
                    rand::random,
                ))
        {
            let spare = Some(StaleCandidate { may_serve_on_error: false, ..spare.clone() });
            self.refresh(
                parts,
                lookup,
                peer,
                flight,
                FillReason { snapshot: read, reason: Reason::Expired, stale: spare },
            );
        }
    }

    /// The same for what was found without a look at its tags.
    pub(super) fn refresh_memory_hit(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        resident: &Arc<CachedEntry>,
    ) {
        let read = self.coherence.read_local(&lookup.tags());
        // Judged after the tags were read: what a purge in between has ended must not be confirmed.
        let Proof::Local(proof) = &resident.proof else { return };
        if self.coherence.validate_local(proof).is_err() {
            return;
        }
        let found = Candidate {
            cached: Arc::clone(resident),
            tier: Tier::Memory,
            fresh: true,
            soft_purged_at: None,
        };
        let flight = self.fill_key(lookup, &lookup.key);
        let errand = FillReason {
            snapshot: read,
            reason: Reason::Expired,
            stale: Some(StaleCandidate {
                candidate: found,
                key: lookup.key.hash(),
                may_serve_on_error: false,
            }),
        };
        self.refresh(parts, lookup, peer, flight, errand);
    }

    /// A part of what is not stored: the app answers, and the whole is fetched in the background,
    /// if it is not too large.
    pub(super) async fn pass_range(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        flight: FillKey,
        errand: FillReason,
    ) -> ProxyResponse {
        let answer = self.pass_lookup(parts, lookup, peer, Outcome::bypass(Reason::Range)).await;
        let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let whole = range::complete_length(answer.response.headers()).filter(|_| partial);
        if whole.is_some_and(|whole| whole <= self.config.load().settings.range_fill) {
            self.refresh(parts, lookup, peer, flight, errand);
        }
        answer
    }

    /// A HEAD that nothing fresh is stored for: the app answers, and what it says updates what is
    /// stored, or ends it (RFC 9111 4.3.5).
    pub(super) async fn pass_head(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        key: KeyHash,
        errand: FillReason,
    ) -> ProxyResponse {
        let outcome = Outcome { forwarded: true, ..Outcome::miss(errand.reason) };
        let Some(spare) = errand.stale.clone() else {
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        };
        let (target, headers) = lookup.fill_request();
        let requested = self.clock.wall();
        let request =
            self.fill_upstream_request(Method::HEAD, parts.version, target, headers, peer);
        let route = Some(lookup.route.id);
        let response = match self.send_to_origin(request, route).await {
            Ok(response) => response,
            Err(error) => {
                let stood_in = self.serve_stale_on_error(
                    parts,
                    lookup,
                    Some(&spare),
                    outcome.clone(),
                    error.reason(),
                );
                return stood_in.unwrap_or_else(|| pass::failure_response(&error, &outcome, route));
            }
        };
        let (head, body) = response.into_parts();
        if fill::is_failure(head.status)
            && spare.may_serve_for(Reason::UpstreamError, self.clock.wall())
        {
            self.counters.stale_if_error.inc();
            let outcome = Outcome {
                fwd_status: Some(head.status.as_u16()),
                reason: Some(Reason::UpstreamError),
                ..outcome
            };
            return self.serve_stale(parts, lookup, &spare, outcome, self.clock.wall());
        }
        self.record_refusal(lookup, head.status);
        let order = self.fill_request(parts, lookup, peer, errand);
        // An app that knows no HEAD says nothing of its GET.
        if order.supersedes(head.status) && head.status != StatusCode::METHOD_NOT_ALLOWED {
            self.apply_head(order, key, &spare.candidate.cached, &head, requested).await;
        }
        self.passed(Response::from_parts(head, body), outcome, route, None)
    }

    async fn apply_head(
        &self,
        order: FillRequest,
        key: KeyHash,
        resident: &Arc<CachedEntry>,
        head: &response::Parts,
        requested: Wall,
    ) {
        let entry = &resident.entry;
        let verdict = revalidation::head_agrees(&entry.headers, &head.headers);
        if head.status != entry.status || verdict == HeadVerdict::Other {
            self.store.forget(key).await;
        }
        if head.status != entry.status || verdict != HeadVerdict::Same {
            return;
        }
        let mut update = Response::new(Body::empty());
        *update.version_mut() = head.version;
        *update.headers_mut() = head.headers.clone();
        self.update_head(order, key, resident, update, requested).await;
    }
}
