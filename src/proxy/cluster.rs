//! Fills that all sidecars share: one of them asks the app, the others wait and then look into the store.
//!
//! What this adds to `proxy/fetch.rs` and `proxy/fill.rs`, for routes with `collapse = "cluster"` while Redis is the truth:
//! - The leader of a fill takes the fill's lease before it asks the app, in a task that no client's departure ends. It holds the lease
//!   until the response is stored.
//! - Where another sidecar holds it, the leader keeps its place, so that the requests of this sidecar gather behind it. When that sidecar
//!   is done, the leader brings what was stored into memory, and then lets everybody look again, each by a look-up of its own: what they
//!   find is judged as always, so that no purge in between can be missed.
//! - With the lease in hand the leader looks into the store once more: another may have filled after the look-up that found nothing.
//! - A request looks again at most [`LOOKS`] times; after that it leads for its own sidecar alone.

use std::sync::Arc;

use http::request::Parts;
use tokio::sync::oneshot;

use crate::cache::fills::cluster::{Across, Fate, FillName, Taken, Turn};
use crate::cache::fills::{FlightKey, Lead};
use crate::cache::store::Sought;
use crate::cache::store::memory::Resident;
use crate::outcome::{Outcome, Reason};
use crate::policy::key::Key;
use crate::policy::plan::Lookup;
use crate::policy::route::{Collapse, Route};
use crate::policy::tag::Tag;
use crate::proxy::fill::{Order, Told};
use crate::proxy::miss::Errand;
use crate::proxy::{Answer, Proxy};
use crate::semantics::forward::Peer;
use crate::semantics::vary::VarySpec;

/// How often a request looks again after the fill of another sidecar. Once as a rule; once more after a purge, or a fill that failed.
const LOOKS: u8 = 2;

/// What earlier looks of one request came to.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Why the first one found nothing, if there were others.
    pub(super) first: Option<Reason>,
    /// Whether what will be found is due for an early refresh: decided once for each request.
    pub(super) due: bool,
    again: u8,
}

impl Looks {
    /// The looks for a request on which what is stored is to be fetched anew.
    pub(super) fn due() -> Self {
        Self { due: true, ..Self::default() }
    }

    /// Whether there may be another.
    pub(super) const fn may_look_again(&self) -> bool {
        self.again < LOOKS
    }

    /// There will be another, because this one found nothing for this reason.
    pub(super) fn look_again(&mut self, why: Reason) {
        self.again += 1;
        self.first.get_or_insert(why);
    }
}

impl Sought for Order {
    fn key(&self) -> &Key {
        &self.primary
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.clone()
    }

    fn variant(&self, spec: &VarySpec) -> Key {
        self.rules.variant_of(&self.route, self.peer.trusted, &self.primary, spec, &self.sent)
    }
}

/// A fill that all sidecars share.
#[derive(Clone, Debug)]
pub(super) struct SharedFill {
    across: Arc<Across>,
    name: FillName,
}

impl Proxy {
    /// The fill that this one is among all sidecars, if it is any.
    pub(super) fn shared_fill(&self, route: &Route, flight: &FlightKey, errand: &Errand) -> Option<SharedFill> {
        let across = self.across.get().filter(|_| route.spec.collapse == Collapse::Cluster)?;
        // SECURITY: who is not admitted may not be served what another caller's fill has stored, so there is nothing to wait for.
        if flight.caller.is_some() {
            return None;
        }
        // Who asks for something fresher than what is stored would not take what another sidecar stores either.
        if errand.why == Reason::RequestNoCache {
            return None;
        }
        Some(SharedFill { across: Arc::clone(across), name: FillName::of(flight.hash, &errand.read)? })
    }

    /// Fetches a response, for all sidecars, or waits for the one that does. None: look into the store again.
    pub(super) async fn fill_across(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: Peer,
        errand: Errand,
        lead: Lead,
        shared: SharedFill,
    ) -> Option<Answer> {
        let outcome = Outcome { forwarded: true, ..Outcome::miss(errand.why) };
        let spare = errand.spare.clone();
        let order = self.order(parts, lookup, peer, errand);
        let (tell, told) = oneshot::channel();
        self.tasks.spawn(Arc::clone(self).lead_across(order, lead, shared, tell));
        match told.await {
            Ok(Told::LookAgain) => None,
            told => Some(self.tell_client(parts, lookup, outcome, spare, told.ok())),
        }
    }

    /// Leads the requests of this sidecar, and those of the others if it gets the lease.
    async fn lead_across(self: Arc<Self>, order: Order, lead: Lead, shared: SharedFill, mut tell: oneshot::Sender<Told>) {
        let nobody_waits = async {
            tell.closed().await;
            lead.deserted().await;
        };
        let turn = tokio::select! {
            turn = shared.across.turn(shared.name) => turn,
            // Nothing was begun here, so nothing is lost.
            () = nobody_waits => return,
        };
        match turn {
            Turn::Leased(lease) => {
                let lead = lead.leased(lease);
                if self.is_stored(&order).await {
                    lead.look_again();
                    let _ = tell.send(Told::LookAgain);
                } else {
                    self.run_fill(order, Some(lead), tell).await;
                }
            }
            // Fail open: at most one request of each sidecar, as without collapsing across them.
            Turn::Free => self.run_fill(order, Some(lead), tell).await,
            Turn::Filled(Fate::Uncacheable) => {
                lead.uncacheable(self.clock.wall());
                if !tell.is_closed() {
                    self.run_fill(order, None, tell).await;
                }
            }
            Turn::Filled(fate) => {
                if fate == Fate::Stored {
                    // Into memory, so that not everybody who waited fetches the body from Redis.
                    self.is_stored(&order).await;
                }
                lead.look_again();
                let _ = tell.send(Told::LookAgain);
            }
        }
    }

    /// Refreshes what is stored, for all sidecars; does nothing where another does it.
    pub(super) async fn refresh_across(self: Arc<Self>, order: Order, lead: Lead, shared: SharedFill) {
        let lead = match shared.across.take(shared.name).await {
            Taken::Leased(lease) => lead.leased(lease),
            Taken::Free => lead,
            // Requests that follow already, because for them it is too stale, look again and wait in their own right.
            Taken::Elsewhere(_) => return lead.look_again(),
        };
        // Nobody listens: what the app says goes to the store alone.
        let (tell, _) = oneshot::channel();
        self.run_fill(order, Some(lead), tell).await;
    }

    /// Whether something fresh is stored by now.
    async fn is_stored(&self, order: &Order) -> bool {
        self.store.consult(order, self.clock.wall()).await.found.is_some_and(|found| found.fresh)
    }

    /// Answers from what another sidecar's fill has stored: to the client the same as having followed a fill of this one.
    pub(super) fn shared_across(&self, parts: &Parts, lookup: &Lookup<'_>, resident: &Resident, why: Reason) -> Answer {
        let (entry, now) = (&resident.entry, self.clock.wall());
        self.flights.counters.collapsed.inc();
        let outcome = Outcome {
            collapsed: true,
            ttl: Some(entry.times.ttl_ms(now).div_euclid(1000)),
            fwd_status: Some(entry.status.as_u16()),
            ..Outcome::miss(why)
        };
        self.respond_from(parts, lookup, resident, outcome, now)
    }
}
