//! Fills that all sidecars share: one of them asks the app, the others wait and then look into the
//! store.
//!
//! What this adds to `proxy/fetch.rs` and `proxy/fill.rs`, for routes with `collapse = "cluster"`
//! while Redis is the truth:
//! - The leader of a fill takes the fill's lease before it asks the app, in a task that no client's
//!   departure ends. It holds the lease until the response is stored.
//! - Where another sidecar holds it, the leader keeps its place, so that the requests of this
//!   sidecar gather behind it. When that sidecar is done, the leader brings what was stored into
//!   memory, and then lets everybody look again, each by a look-up of its own: what they find is
//!   judged as always, so that no purge in between can be missed.
//! - With the lease in hand the leader looks into the store once more: another may have filled
//!   after the look-up that found nothing.
//! - A request looks again at most [`MAX_RETRIES`] times; after that it leads for its own sidecar
//!   alone.

use std::sync::Arc;

use http::request::Parts;
use tokio::sync::oneshot;

use crate::cache::fills::cluster::{
    ClusterFills, FillName, LockAttempt, LockOutcome, RemoteOutcome,
};
use crate::cache::fills::{FillKey, Leader};
use crate::cache::store::LookupKey;
use crate::cache::store::memory::CachedEntry;
use crate::outcome::{Outcome, Reason};
use crate::policy::key::Key;
use crate::policy::plan::Lookup;
use crate::policy::route::{Collapse, Route};
use crate::policy::tag::Tag;
use crate::proxy::fill::{FillRequest, FillResult};
use crate::proxy::miss::FillReason;
use crate::proxy::{Proxy, ProxyResponse};
use crate::semantics::forward::ClientPeer;
use crate::semantics::vary::VarySpec;

/// How often a request looks again after the fill of another sidecar. Once as a rule; once more
/// after a purge, or a fill that failed.
const MAX_RETRIES: u8 = 2;

/// What earlier looks of one request came to.
#[derive(Debug, Default)]
pub(super) struct LookupAttempts {
    /// Why the first one found nothing, if there were others.
    pub(super) first: Option<Reason>,
    /// Whether what will be found is due for an early refresh: decided once for each request.
    pub(super) refresh_due: bool,
    retries: u8,
}

impl LookupAttempts {
    /// The looks for a request on which what is stored is to be fetched anew.
    pub(super) fn with_refresh_due() -> Self {
        Self { refresh_due: true, ..Self::default() }
    }

    /// Whether there may be another.
    pub(super) const fn may_retry(&self) -> bool {
        self.retries < MAX_RETRIES
    }

    /// There will be another, because this one found nothing for this reason.
    pub(super) fn retry(&mut self, why: Reason) {
        self.retries += 1;
        self.first.get_or_insert(why);
    }
}

impl LookupKey for FillRequest {
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
pub(super) struct ClusterFill {
    fills: Arc<ClusterFills>,
    name: FillName,
}

impl Proxy {
    /// The fill that this one is among all sidecars, if it is any.
    pub(super) fn cluster_fill(
        &self,
        route: &Route,
        flight: &FillKey,
        errand: &FillReason,
    ) -> Option<ClusterFill> {
        let across =
            self.cluster_fills.get().filter(|_| route.spec.collapse == Collapse::Cluster)?;
        // SECURITY: who is not admitted may not be served what another caller's fill has stored, so
        // there is nothing to wait for.
        if flight.caller.is_some() {
            return None;
        }
        // Who asks for something fresher than what is stored would not take what another sidecar
        // stores either.
        if errand.reason == Reason::RequestNoCache {
            return None;
        }
        Some(ClusterFill {
            fills: Arc::clone(across),
            name: FillName::from_snapshot(flight.hash, &errand.snapshot)?,
        })
    }

    /// Fetches a response, for all sidecars, or waits for the one that does. None: look into the
    /// store again.
    pub(super) async fn fill_in_cluster(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        errand: FillReason,
        lead: Leader,
        shared: ClusterFill,
    ) -> Option<ProxyResponse> {
        let outcome = Outcome { forwarded: true, ..Outcome::miss(errand.reason) };
        let spare = errand.stale.clone();
        let order = self.fill_request(parts, lookup, peer, errand);
        let (tell, told) = oneshot::channel();
        self.tasks.spawn(Arc::clone(self).lead_in_cluster(order, lead, shared, tell));
        match told.await {
            Ok(FillResult::RetryLookup) => None,
            told => Some(self.respond_to_leader(parts, lookup, outcome, spare, told.ok())),
        }
    }

    /// Leads the requests of this sidecar, and those of the others if it gets the lease.
    async fn lead_in_cluster(
        self: Arc<Self>,
        order: FillRequest,
        lead: Leader,
        shared: ClusterFill,
        mut tell: oneshot::Sender<FillResult>,
    ) {
        let nobody_waits = async {
            tell.closed().await;
            lead.until_no_followers().await;
        };
        let turn = tokio::select! {
            turn = shared.fills.lock_or_wait(shared.name) => turn,
            // Nothing was begun here, so nothing is lost.
            () = nobody_waits => return,
        };
        match turn {
            LockOutcome::Locked(lease) => {
                let lead = lead.with_lock(lease);
                if self.is_stored(&order).await {
                    lead.retry_lookup();
                    let _ = tell.send(FillResult::RetryLookup);
                } else {
                    self.run_fill(order, Some(lead), tell).await;
                }
            }
            // Fail open: at most one request of each sidecar, as without collapsing across them.
            LockOutcome::FillLocally => self.run_fill(order, Some(lead), tell).await,
            LockOutcome::Filled(RemoteOutcome::Uncacheable) => {
                lead.finish_uncacheable(self.clock.wall());
                if !tell.is_closed() {
                    self.run_fill(order, None, tell).await;
                }
            }
            LockOutcome::Filled(fate) => {
                if fate == RemoteOutcome::Stored {
                    // Into memory, so that not everybody who waited fetches the body from Redis.
                    self.is_stored(&order).await;
                }
                lead.retry_lookup();
                let _ = tell.send(FillResult::RetryLookup);
            }
        }
    }

    /// Refreshes what is stored, for all sidecars; does nothing where another does it.
    pub(super) async fn refresh_in_cluster(
        self: Arc<Self>,
        order: FillRequest,
        lead: Leader,
        shared: ClusterFill,
    ) {
        let lead = match shared.fills.try_lock(shared.name).await {
            LockAttempt::Locked(lease) => lead.with_lock(lease),
            LockAttempt::Unavailable => lead,
            // Requests that follow already, because for them it is too stale, look again and wait
            // in their own right.
            LockAttempt::HeldElsewhere(_) => return lead.retry_lookup(),
        };
        // Nobody listens: what the app says goes to the store alone.
        let (tell, _) = oneshot::channel();
        self.run_fill(order, Some(lead), tell).await;
    }

    /// Whether something fresh is stored by now.
    async fn is_stored(&self, order: &FillRequest) -> bool {
        self.store.lookup(order, self.clock.wall()).await.candidate.is_some_and(|found| found.fresh)
    }

    /// Answers from what another sidecar's fill has stored: to the client the same as having
    /// followed a fill of this one.
    pub(super) fn respond_from_cluster(
        &self,
        parts: &Parts,
        lookup: &Lookup<'_>,
        resident: &CachedEntry,
        why: Reason,
    ) -> ProxyResponse {
        let (entry, now) = (&resident.entry, self.clock.wall());
        self.fills.counters.collapsed.inc();
        let outcome = Outcome {
            collapsed: true,
            ttl: Some(entry.times.ttl_ms(now).div_euclid(1000)),
            fwd_status: Some(entry.status.as_u16()),
            ..Outcome::miss(why)
        };
        self.respond_from(parts, lookup, resident, outcome, now)
    }
}
