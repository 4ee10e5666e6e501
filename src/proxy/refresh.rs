//! Fills in the background, which no request waits for: of what is stale but served, of what is
//! popular and about to expire, and of what a client asked for in part. At most one for each key,
//! and `limits.refreshes` in all.
//!
//! A refresh goes by the configuration of the request that began it: it is what the request's key
//! and route belong to.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::cache::fills::{FillKey, FillRole, Leader};
use crate::cache::store::Candidate;
use crate::cache::store::memory::CachedEntry;
use crate::clock::Wall;
use crate::coherence::{Proof, TagSnapshot};
use crate::outcome::{Reason, Tier};
use crate::policy::key::KeyHash;
use crate::proxy::cluster::{ClusterFill, refresh_in_cluster};
use crate::proxy::context::LookupContext;
use crate::proxy::fill::request::{FillReason, FillRequest, StaleCandidate};
use crate::proxy::fill::{is_already_filled, run_fill};
use crate::proxy::resources::Resources;
use crate::semantics::early_refresh;

/// Fetches what is stored anew, in the background. Returns whether it does: another fill may have
/// begun, or the response may be known to be uncacheable.
pub(super) fn refresh(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    fill_key: FillKey,
    reason: FillReason,
) -> bool {
    let now = resources.clock.wall();
    let fills = &resources.fills;
    if fills.is_backing_off(&fill_key, now)
        || fills.is_refused(&context.refusal_key(), now)
        || context.guests_differ(resources)
    {
        return false;
    }
    let Ok(permit) = Arc::clone(&resources.refresh_permits).try_acquire_owned() else {
        resources.counters.refreshes_rejected.inc();
        return false;
    };
    let FillRole::Leader(leader) = resources.fills.role(fill_key, &reason.snapshot, now) else {
        return false;
    };
    if is_already_filled(resources, &fill_key, &reason) {
        leader.retry_lookup();
        return false;
    }
    resources.counters.refreshes.inc();
    let cluster_fill = ClusterFill::find(resources, context.lookup.route, &fill_key, &reason);
    let request = FillRequest::from_context(context, reason);
    let resources = Arc::clone(resources);
    // Not tracked: no client waits for it, so a drain does not either.
    tokio::spawn(async move {
        if let Some(cluster_fill) = cluster_fill {
            Box::pin(refresh_in_cluster(&resources, request, leader, cluster_fill)).await;
        } else {
            Box::pin(fill_unattended(&resources, request, leader)).await;
        }
        drop(permit);
    });
    true
}

/// No request waits for it: the response goes to the store alone.
pub(super) async fn fill_unattended(resources: &Resources, request: FillRequest, leader: Leader) {
    let (sender, _) = oneshot::channel();
    run_fill(resources, request, Some(leader), sender).await;
}

/// Whether a popular response should be fetched anew shortly before it expires, so that no request
/// has to wait for it.
pub(super) fn is_due(
    resources: &Resources,
    context: &LookupContext<'_>,
    cached: &CachedEntry,
    now: Wall,
) -> bool {
    let entry = &cached.entry;
    context.lookup.route.spec.early_refresh
        && early_refresh::should_refresh_early(
            &entry.times,
            entry.fetch_duration(),
            now,
            rand::random,
        )
        // What is fetched shortly before that time ends there as well.
        && !context.lookup.route.spec.expires_at.is_some_and(|end| {
            end.ends_with(entry.times.ttl_ms(now), resources.clock.date())
        })
}

/// Refreshes a response that is still fresh.
pub(super) fn refresh_early(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    fill_key: FillKey,
    snapshot: TagSnapshot,
    stored: &StaleCandidate,
) {
    let stale = Some(StaleCandidate { may_serve_on_error: false, ..stored.clone() });
    let (reason, key) = (Reason::Expired, stored.key);
    let reason = FillReason { snapshot, reason, key, stale, for_others: None };
    refresh(resources, context, fill_key, reason);
}

/// The same for a fast hit, which was found without reading its tags.
pub(super) fn refresh_memory_hit(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    key: KeyHash,
    cached: &Arc<CachedEntry>,
) {
    let snapshot = resources.coherence.read_local(&context.lookup.tags());
    // Validated after the tags were read: what a purge in between has ended must not be confirmed.
    let Proof::Local(proof) = &cached.proof else { return };
    if resources.coherence.validate_local(proof).is_err() {
        return;
    }
    let candidate = Candidate {
        cached: Arc::clone(cached),
        tier: Tier::Memory,
        fresh: true,
        soft_purged_at: None,
    };
    let stored = StaleCandidate { candidate, key, may_serve_on_error: false };
    refresh_early(resources, context, context.fill_key(key, true), snapshot, &stored);
}
