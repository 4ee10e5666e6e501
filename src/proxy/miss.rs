//! Nothing that may be served is stored: the app is asked, once for all who ask at the same time.
//!
//! Invariants:
//! - A stale response stands in for the app only if it is not void, its window is open, and neither the app nor the client forbids it.
//! - Of those who wait for a fill that fails, each tries for itself at most once.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};

use crate::cache::fills::{FlightKey, Joined, Part, Reader, SharedHead};
use crate::cache::store::Found;
use crate::clock::Wall;
use crate::coherence::Read;
use crate::outcome::{Disposition, Outcome, Reason};
use crate::policy::key::{Key, KeyHash};
use crate::policy::plan::Lookup;
use crate::proxy::response;
use crate::proxy::{Answer, Proxy};
use crate::semantics::body::Body;
use crate::semantics::forward::Peer;

/// A stored response that is current but not to be served as it is: the app may confirm it, or fail so that it stands in.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    pub(super) found: Found,
    /// What it is stored under.
    pub(super) key: KeyHash,
    /// Whether this caller may be served it when the app fails.
    pub(super) may_stand_in: bool,
}

impl Spare {
    /// Whether it stands in for the app, which failed for this reason.
    pub(super) fn stands_in(&self, reason: Reason, now: Wall) -> bool {
        let entry = &self.found.resident.entry;
        let window = match reason {
            Reason::UpstreamError => entry.leeway.if_error,
            Reason::UpstreamUnreachable | Reason::UpstreamTimeout | Reason::UpstreamProtocolError | Reason::UpstreamBusy => {
                entry.leeway.unreachable
            }
            _ => return false,
        };
        // A response that is fresh, but not fresh enough for this client, does not stand in either.
        self.may_stand_in && self.found.is_within(window, now)
    }
}

/// Why the app is asked, and what is known before it is.
#[derive(Debug)]
pub(super) struct Errand {
    /// The state of the tags, read before.
    pub(super) read: Read,
    /// Why nothing was served.
    pub(super) why: Reason,
    /// What is stored all the same.
    pub(super) spare: Option<Spare>,
}

impl Proxy {
    /// Fetches a response, for all who ask for it now. None: another fill has just stored it, so look into the store again.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: Peer,
        mut flight: FlightKey,
        errand: Errand,
        may_look_again: bool,
    ) -> Option<Answer> {
        let Errand { why, spare, .. } = &errand;
        if let Some(reason) = self.flights.failed_slowly(&flight, self.clock.wall())
            && let Some(answer) = self.stand_in(parts, lookup, spare.as_ref(), Outcome::new(Disposition::Stale), reason)
        {
            // Nobody waits a second time for an app that hangs; it is asked behind their backs.
            self.refresh(parts, lookup, peer, flight, errand);
            return Some(answer);
        }
        let mut may_try_again = true;
        // Once by the key that is known; once more when a fill has told what the response varies by, and once when it has failed.
        for _ in 0..3 {
            let follow = match self.flights.part(flight, &errand.read, self.clock.wall()) {
                Part::Lead(lead) => {
                    if may_look_again && *why != Reason::RequestNoCache && self.has_arrived(&flight, &errand) {
                        lead.look_again();
                        return None;
                    }
                    return match self.shared_fill(lookup.route, &flight, &errand).filter(|_| may_look_again) {
                        Some(shared) => self.fill_across(parts, lookup, peer, errand, lead, shared).await,
                        None => Some(self.fill(parts, lookup, peer, errand, Some(lead)).await),
                    };
                }
                Part::Alone => break,
                Part::Follow(follow) => follow,
            };
            match follow.join(&errand.read, |vary| lookup.variant_hash(vary)).await {
                Joined::Shared(head, reader) => return Some(self.shared(parts, lookup, &head, reader, *why)),
                Joined::OtherVariant(head) => flight.hash = lookup.variant_hash(&head.vary),
                Joined::LookAgain if may_look_again => return None,
                Joined::Alone | Joined::LookAgain => break,
                Joined::Failed(reason) => {
                    let outcome = Outcome { collapsed: true, forwarded: true, ..Outcome::miss(*why) };
                    if let Some(answer) = self.stand_in(parts, lookup, spare.as_ref(), outcome.clone(), reason) {
                        return Some(answer);
                    }
                    let quick = matches!(reason, Reason::UpstreamUnreachable | Reason::UpstreamProtocolError);
                    if reason == Reason::UpstreamError {
                        // The app did answer, and this request may get its answer.
                        break;
                    }
                    if !(quick && std::mem::take(&mut may_try_again)) {
                        let outcome = Outcome { reason: Some(reason), ..outcome };
                        return Some(Answer { response: response::failure(reason, &outcome), outcome, route: Some(lookup.route.id) });
                    }
                }
            }
        }
        Some(self.fill(parts, lookup, peer, errand, None).await)
    }

    /// Whether a fill that ended after this request looked into the store has brought what it is after.
    pub(super) fn has_arrived(&self, flight: &FlightKey, errand: &Errand) -> bool {
        let known = errand.spare.as_ref().map(|spare| spare.found.resident.entry.times.received);
        // SECURITY: who is not admitted is not served what another caller's fill has brought.
        flight.caller.is_none() && self.store.has_newer(flight.hash, known, &errand.read, self.clock.wall())
    }

    /// A request with a header that no key has seen. The app may answer that its response varies by this very header: then the key of the
    /// variant has seen it, and the response is stored. Otherwise the cache takes no part, as `outcome` says.
    pub(super) async fn pass_unkeyed(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, outcome: Outcome) -> Answer {
        // Where a fill would send the app anything else than the client did, the request passes untouched.
        if parts.method != Method::GET || !lookup.is_filled_as_asked() {
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        }
        let read = self.store.read(&lookup.tags()).await;
        // SECURITY: what is stored, and did not vary by it, is not pushed out by a stranger's header.
        if self.store.has_newer(lookup.key.hash(), None, &read, self.clock.wall()) {
            return self.pass_lookup(parts, lookup, peer, outcome).await;
        }
        let why = if self.store.known_vary(&lookup.key).is_some() { Reason::VaryMiss } else { Reason::NotStored };
        let answer = self.fill(parts, lookup, peer, Errand { read, why, spare: None }, None).await;
        if answer.outcome.stored {
            return answer;
        }
        let outcome = match answer.outcome.fwd_status {
            Some(status) => Outcome { fwd_status: Some(status), ..outcome },
            // The app did not answer.
            None => Outcome { reason: answer.outcome.reason, ..Outcome::new(Disposition::Bypass) },
        };
        let mut response = answer.response;
        response::remark(response.headers_mut(), &outcome);
        Answer { response, outcome, ..answer }
    }

    /// The stored response in place of the app's, which failed for this reason, if it may stand in.
    pub(super) fn stand_in(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        spare: Option<&Spare>,
        outcome: Outcome,
        reason: Reason,
    ) -> Option<Answer> {
        let now = self.clock.wall();
        let spare = spare.filter(|spare| spare.stands_in(reason, now))?;
        self.counters.stood_in.inc();
        Some(self.serve_stale(parts, lookup, spare, Outcome { reason: Some(reason), ..outcome }, now))
    }

    /// Serves a stored response although it is stale.
    pub(super) fn serve_stale(&self, parts: &Parts, lookup: &Lookup<'_>, spare: &Spare, outcome: Outcome, now: Wall) -> Answer {
        let ttl = Some(spare.found.ttl_ms(now).div_euclid(1000));
        let saved = (!outcome.forwarded).then_some(spare.found.resident.entry.took);
        let outcome = Outcome { disposition: Disposition::Stale, tier: Some(spare.found.tier), ttl, saved, ..outcome };
        self.respond_from(parts, lookup, &spare.found.resident, outcome, now)
    }

    fn shared(&self, parts: &Parts, lookup: &Lookup<'_>, head: &SharedHead, reader: Reader, why: Reason) -> Answer {
        let outcome = Outcome { collapsed: true, ttl: Some(head.ttl), ..Outcome::miss(why) };
        let outcome = if head.revalidated {
            Outcome { disposition: Disposition::Revalidated, fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()), ..outcome }
        } else {
            Outcome { fwd_status: Some(head.status.as_u16()), ..outcome }
        };
        let mut headers = head.headers.clone();
        response::mark(&mut headers, &outcome);
        self.debug(&mut headers, lookup);
        let response = response::conditional(&parts.headers, head.status, headers, Body::stream(reader));
        Answer { response, outcome, route: Some(lookup.route.id) }
    }

    /// What a fill for this request is of.
    pub(super) fn flight_key(&self, lookup: &Lookup<'_>, key: &Key) -> FlightKey {
        FlightKey { hash: key.hash(), caller: self.not_admitted(lookup) }
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
}
