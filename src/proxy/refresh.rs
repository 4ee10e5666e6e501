//! Fills in the background, for nobody's request: of what is stale but served, of what is popular and about to expire, and of what
//! was asked for in part. At most one for each key, and `limits.refreshes` in all.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode, response};
use tokio::sync::oneshot;

use crate::cache::fills::{FlightKey, Part};
use crate::cache::store::Found;
use crate::cache::store::memory::Resident;
use crate::clock::Wall;
use crate::coherence::{Proof, Read};
use crate::outcome::{Outcome, Reason, Tier};
use crate::policy::key::KeyHash;
use crate::policy::plan::Lookup;
use crate::proxy::fill::Order;
use crate::proxy::miss::{Errand, Spare};
use crate::proxy::{Answer, Proxy, fill, pass};
use crate::semantics::body::Body;
use crate::semantics::forward::Peer;
use crate::semantics::revalidation;
use crate::semantics::revalidation::HeadVerdict;
use crate::semantics::{early_refresh, range};

impl Proxy {
    /// Fetches what is stored anew, in the background.
    pub(super) fn refresh(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, flight: FlightKey, errand: Errand) {
        let now = self.clock.wall();
        if self.flights.is_resting(&flight, now) {
            return;
        }
        let Ok(place) = Arc::clone(&self.refresh_places).try_acquire_owned() else {
            self.counters.crowded_refreshes.inc();
            return;
        };
        // Somebody fetches it already, or it is known not to be storable.
        let Part::Lead(lead) = self.flights.part(flight, &errand.read, now) else { return };
        if self.has_arrived(&flight, &errand) {
            return lead.look_again();
        }
        self.counters.refreshes.inc();
        let shared = self.shared_fill(lookup.route, &flight, &errand);
        let order = self.order(parts, lookup, peer, errand);
        let proxy = Arc::clone(self);
        // Not tracked: no client waits for it, so a drain does not either.
        tokio::spawn(async move {
            if let Some(shared) = shared {
                proxy.refresh_across(order, lead, shared).await;
            } else {
                // Nobody listens: what the app says goes to the store alone.
                let (tell, _) = oneshot::channel();
                proxy.run_fill(order, Some(lead), tell).await;
            }
            drop(place);
        });
    }

    /// Begins to fetch a popular response anew shortly before it expires, so that nobody has to wait for it.
    pub(super) fn refresh_early(
        self: &Arc<Self>,
        (parts, lookup, peer): (&Parts, &Lookup<'_>, Peer),
        flight: FlightKey,
        read: Read,
        spare: &Spare,
        due: bool,
    ) {
        let (entry, now) = (&spare.found.resident.entry, self.clock.wall());
        if lookup.route.spec.early_refresh && (due || early_refresh::is_due(&entry.times, entry.took, now, rand::random)) {
            let spare = Some(Spare { may_stand_in: false, ..spare.clone() });
            self.refresh(parts, lookup, peer, flight, Errand { read, why: Reason::Expired, spare });
        }
    }

    /// The same for what was found without a look at its tags.
    pub(super) fn refresh_at_hand(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, resident: &Arc<Resident>) {
        let read = self.coherence.read_local(&lookup.tags());
        // Judged after the tags were read: what a purge in between has ended must not be confirmed.
        let Proof::Local(proof) = &resident.proof else { return };
        if self.coherence.judge_local(proof).is_err() {
            return;
        }
        let found = Found { resident: Arc::clone(resident), tier: Tier::Memory, fresh: true, softened: None };
        let flight = self.flight_key(lookup, &lookup.key);
        let errand = Errand { read, why: Reason::Expired, spare: Some(Spare { found, key: lookup.key.hash(), may_stand_in: false }) };
        self.refresh(parts, lookup, peer, flight, errand);
    }

    /// A part of what is not stored: the app answers, and the whole is fetched in the background, if it is not too large.
    pub(super) async fn pass_range(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: Peer,
        flight: FlightKey,
        errand: Errand,
    ) -> Answer {
        let answer = self.pass_lookup(parts, lookup, peer, Outcome::bypass(Reason::Range)).await;
        let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let whole = range::complete_length(answer.response.headers()).filter(|_| partial);
        if whole.is_some_and(|whole| whole <= self.live.load().settings.range_fill) {
            self.refresh(parts, lookup, peer, flight, errand);
        }
        answer
    }

    /// A HEAD that nothing fresh is stored for: the app answers, and what it says updates what is stored, or ends it (RFC 9111 4.3.5).
    pub(super) async fn pass_head(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: Peer,
        key: KeyHash,
        errand: Errand,
    ) -> Answer {
        let outcome = Outcome { forwarded: true, ..Outcome::miss(errand.why) };
        let Some(spare) = errand.spare.clone() else { return self.pass_lookup(parts, lookup, peer, outcome).await };
        let (target, headers) = lookup.fill_request();
        let requested = self.clock.wall();
        let request = self.fill_upstream_request(Method::HEAD, parts.version, target, headers, peer);
        let route = Some(lookup.route.id);
        let response = match self.ask_app(request, route).await {
            Ok(response) => response,
            Err(error) => {
                let stood_in = self.stand_in(parts, lookup, Some(&spare), outcome.clone(), error.reason());
                return stood_in.unwrap_or_else(|| pass::failed(&error, &outcome, route));
            }
        };
        let (head, body) = response.into_parts();
        if fill::is_failure(head.status) && spare.stands_in(Reason::UpstreamError, self.clock.wall()) {
            self.counters.stood_in.inc();
            let outcome = Outcome { fwd_status: Some(head.status.as_u16()), reason: Some(Reason::UpstreamError), ..outcome };
            return self.serve_stale(parts, lookup, &spare, outcome, self.clock.wall());
        }
        self.note_refusal(lookup, head.status);
        let order = self.order(parts, lookup, peer, errand);
        // An app that knows no HEAD says nothing of its GET.
        if order.is_news(head.status) && head.status != StatusCode::METHOD_NOT_ALLOWED {
            self.learn_from_head(order, key, &spare.found.resident, &head, requested).await;
        }
        self.passed(Response::from_parts(head, body), outcome, route, None)
    }

    async fn learn_from_head(&self, order: Order, key: KeyHash, resident: &Arc<Resident>, head: &response::Parts, requested: Wall) {
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
        self.update(order, key, resident, update, requested).await;
    }
}
