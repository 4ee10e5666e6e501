//! A key whose records Redis does not send within `deadline`: the request goes to the origin, and
//! its response is not stored. So that a Redis which is always that far away still caches, the
//! records are read once more in the background, for as long as Redis may take, and what they leave
//! to fetch is fetched as a refresh is.
//!
//! Invariants:
//! - The records are read before the origin gets the request of the fill, like those of any fill:
//!   the response that the request itself got is older than them, and is never stored.
//! - At most one such read of a key at a time, and `limits.refreshes` in all, together with the
//!   refreshes: while Redis stalls nothing piles up.
//! - What may not be fetched in the background for the sake of a request without a stored response
//!   is not fetched here: HEAD, parts, `only-if-cached`, and what a fill would withhold.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::cache::fills::{FillKey, FillRole};
use crate::cache::store::LookupResult;
use crate::coherence::CoherenceMode;
use crate::outcome::Reason;
use crate::policy::authorized_clients::AuthorizationState;
use crate::policy::route::AdmitRule;
use crate::proxy::context::{LookupContext, client_authorization, confirmed_for};
use crate::proxy::fill::is_already_filled;
use crate::proxy::fill::request::{FillReason, FillRequest, StaleCandidate};
use crate::proxy::refresh::fill_unattended;
use crate::proxy::resources::Resources;
use crate::proxy::serve::allotted;

/// Begins to fill the key of a request whose lookup Redis did not answer in time.
pub(super) fn begin(resources: &Arc<Resources>, context: &LookupContext<'_>) {
    let key = context.refusal_key();
    if resources.coherence.mode() != CoherenceMode::Shared
        || context.parts.method == Method::HEAD
        || context.lookup.range
        || context.directives.only_if_cached
        || resources.fills.is_refused(&key, resources.clock.wall())
    {
        return;
    }
    let Some(taken) = resources.late_keys.take(key) else { return };
    let Ok(permit) = Arc::clone(&resources.refresh_permits).try_acquire_owned() else {
        resources.counters.refreshes_rejected.inc();
        return;
    };
    let reason = FillReason::not_stored(Reason::CacheUnavailable, key.hash);
    let request = FillRequest::from_context(context, reason);
    let confirmed_for = confirmed_for(context.lookup);
    let resources = Arc::clone(resources);
    // Not tracked: no client waits for it, so a drain does not either.
    tokio::spawn(async move {
        read_and_fill(&resources, request, key, confirmed_for).await;
        drop((taken, permit));
    });
}

/// `asked` is the key before `Vary`, and the caller, where callers are told apart.
async fn read_and_fill(
    resources: &Resources,
    request: FillRequest,
    asked: FillKey,
    confirmed_for: Option<Duration>,
) {
    let clock = &resources.clock;
    let LookupResult { key, candidate, miss_reason, snapshot } =
        resources.store.lookup_patiently(&request, clock.wall()).await;
    if matches!(miss_reason, Reason::CacheUnavailable | Reason::MutationPending) {
        return;
    }
    let (key, now) = (key.hash(), clock.wall());
    let digest = candidate.as_ref().map(|found| || found.cached.entry.digest());
    let clients = &resources.authorized_clients;
    let authorization = client_authorization(clients, request.client, key, digest, now);
    let authorized = authorization == AuthorizationState::Authorized;
    let is_served = candidate.as_ref().is_some_and(|found| {
        let received = found.cached.entry.times.received;
        found.fresh && confirmed_for.is_none_or(|after| now.since(received) < after)
    });
    if authorized && is_served {
        // Another sidecar has stored it, and the lookup has brought it into memory.
        return;
    }
    let may_renew = request.route.spec.admit == AdmitRule::Entry;
    let (stale, for_others) = allotted(authorization, may_renew, candidate);
    let stale = stale.map(|candidate| StaleCandidate { candidate, key, may_serve_on_error: false });
    let reason = FillReason { snapshot, reason: miss_reason, key, stale, for_others };
    let caller = asked.caller.filter(|_| !authorized);
    let fill_key = FillKey { hash: key, caller };
    if resources.fills.is_backing_off(&fill_key, now) {
        return;
    }
    let FillRole::Leader(leader) = resources.fills.role(fill_key, &reason.snapshot, now) else {
        return;
    };
    if is_already_filled(resources, &fill_key, &reason) {
        return leader.retry_lookup();
    }
    resources.counters.late_fills.inc();
    // Without a lock that sidecars share: Redis would grant it too late.
    Box::pin(fill_unattended(resources, request.with_reason(reason), leader)).await;
}
