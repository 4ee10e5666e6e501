//! Fills that all sidecars share: one of them asks the origin, the others wait and then look into
//! the store.
//!
//! What this adds to `proxy/miss.rs` and `proxy/fill.rs`, for routes with `collapse = "cluster"`
//! while coherence is shared through Redis:
//! - The leader of a fill takes the fill's lock before it asks the origin, in a task that no
//!   client's departure ends. It holds the lock until the response is stored.
//! - Where another sidecar holds the lock, the leader stays the leader, so that the requests of
//!   this sidecar gather behind it. When the other sidecar is done, the leader brings what was
//!   stored into memory, and then lets all requests repeat the lookup, each for itself: each is
//!   judged as always, so that a purge in between takes effect.
//! - With the lock in hand the leader looks into the store once more: another sidecar may have
//!   filled after the lookup that found nothing.
//! - How often a request repeats the lookup is bounded: see `proxy/lookup.rs`. After that it leads
//!   for its own sidecar alone.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::cache::fills::cluster::{
    ClusterFills, FillName, LockAttempt, LockOutcome, RemoteOutcome,
};
use crate::cache::fills::{FillKey, Leader};
use crate::outcome::{Outcome, Reason};
use crate::policy::route::{Collapse, Route};
use crate::proxy::context::LookupContext;
use crate::proxy::fill::request::{FillReason, FillRequest, FillResult};
use crate::proxy::fill::{respond_to_leader, run_fill};
use crate::proxy::resources::Resources;
use crate::proxy::response::ProxyResponse;

/// A fill that all sidecars share.
#[derive(Clone, Debug)]
pub(super) struct ClusterFill {
    fills: Arc<ClusterFills>,
    name: FillName,
}

impl ClusterFill {
    /// The shared fill of this key; none where the fill is for this sidecar alone.
    pub(super) fn find(
        resources: &Resources,
        route: &Route,
        fill_key: &FillKey,
        reason: &FillReason,
    ) -> Option<Self> {
        let fills =
            resources.cluster_fills.get().filter(|_| route.spec.collapse == Collapse::Cluster)?;
        // SECURITY: a caller who is not authorized may not be served what another caller's fill has
        // stored, so there is nothing to wait for.
        if fill_key.caller.is_some() {
            return None;
        }
        // A client that asks for something fresher than what is stored would not take what another
        // sidecar stores either.
        if reason.reason == Reason::RequestNoCache {
            return None;
        }
        let name = FillName::from_snapshot(fill_key.hash, &reason.snapshot)?;
        Some(Self { fills: Arc::clone(fills), name })
    }
}

/// Fetches a response for all sidecars, or waits for the one that does. None: repeat the lookup.
pub(super) async fn fill_in_cluster(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    reason: FillReason,
    leader: Leader,
    shared: ClusterFill,
) -> Option<ProxyResponse> {
    let outcome = Outcome { forwarded: true, ..Outcome::miss(reason.reason) };
    let stale = reason.stale.clone();
    let request = FillRequest::awaited(context, reason);
    let (sender, receiver) = oneshot::channel();
    resources.tasks.spawn(lead(Arc::clone(resources), request, leader, shared, sender));
    match receiver.await {
        Ok(FillResult::RetryLookup) => None,
        result => Some(respond_to_leader(resources, context, outcome, stale, result.ok()).await),
    }
}

/// Leads the requests of this sidecar, and those of the others if it gets the lock.
async fn lead(
    resources: Arc<Resources>,
    request: FillRequest,
    leader: Leader,
    shared: ClusterFill,
    mut sender: oneshot::Sender<FillResult>,
) {
    let resources = &*resources;
    let nobody_waits = async {
        sender.closed().await;
        leader.until_no_followers().await;
    };
    let outcome = tokio::select! {
        outcome = shared.fills.lock_or_wait(shared.name) => outcome,
        // The origin was not asked yet, so nothing is lost.
        () = nobody_waits => return,
    };
    match outcome {
        LockOutcome::Locked(lock) => {
            let leader = leader.with_lock(lock);
            if is_stored(resources, &request).await {
                leader.retry_lookup();
                let _ = sender.send(FillResult::RetryLookup);
            } else {
                run_fill(resources, request, Some(leader), sender).await;
            }
        }
        // Fail open: at most one request of each sidecar, as without collapsing across them.
        LockOutcome::FillLocally => run_fill(resources, request, Some(leader), sender).await,
        LockOutcome::Filled(RemoteOutcome::Uncacheable) => {
            leader.finish_uncacheable(resources.clock.wall());
            if !sender.is_closed() {
                run_fill(resources, request, None, sender).await;
            }
        }
        LockOutcome::Filled(outcome) => {
            if outcome == RemoteOutcome::Stored {
                // Into memory, so that the requests that waited do not all fetch the body from
                // Redis.
                is_stored(resources, &request).await;
            }
            leader.retry_lookup();
            let _ = sender.send(FillResult::RetryLookup);
        }
    }
}

/// Refreshes what is stored, for all sidecars; does nothing where another sidecar does it.
pub(super) async fn refresh_in_cluster(
    resources: &Resources,
    request: FillRequest,
    leader: Leader,
    shared: ClusterFill,
) {
    let leader = match shared.fills.try_lock(shared.name).await {
        LockAttempt::Locked(lock) => leader.with_lock(lock),
        LockAttempt::Unavailable => leader,
        // Requests that follow already, because what is stored is too stale for them, repeat the
        // lookup and wait for themselves.
        LockAttempt::HeldElsewhere(_) => return leader.retry_lookup(),
    };
    // No request waits for it: the response goes to the store alone.
    let (sender, _) = oneshot::channel();
    run_fill(resources, request, Some(leader), sender).await;
}

/// Whether something fresh is stored by now.
async fn is_stored(resources: &Resources, request: &FillRequest) -> bool {
    let found = resources.store.lookup(request, resources.clock.wall()).await.candidate;
    found.is_some_and(|candidate| candidate.fresh)
}
