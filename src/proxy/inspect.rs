//! What is stored for a request, and what would be done with it: for `explain --live`, by the same
//! decision as for requests.

use http::HeaderMap;
use serde::Serialize;

use crate::cache::store::memory::{CachedEntry, MemorySlot};
use crate::cache::store::{Candidate, LookupResult};
use crate::clock::Wall;
use crate::outcome::{Disposition, Reason};
use crate::policy::authorized_clients::AuthorizationState;
use crate::policy::plan::Lookup;
use crate::policy::request_directives::RequestDirectives;
use crate::proxy::context::{authorization, is_confirmed, shared_client};
use crate::proxy::resources::Resources;
use crate::proxy::serve::{Serve, StoredState, may_serve};

/// A stored response, as `explain` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    tier: &'static str,
    status: u16,
    bytes: usize,
    age_s: f64,
    ttl_s: f64,
    fresh: bool,
    tags: Vec<InspectedTag>,
    /// Whether this caller is authorized, in scope `shared`.
    authorization: Option<&'static str>,
    verdict: &'static str,
    reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct InspectedTag {
    tag: String,
    current: bool,
}

/// What is stored for a request, and how it would be answered. None where nothing is stored.
pub(super) async fn inspect(
    resources: &Resources,
    lookup: &Lookup<'_>,
    headers: &HeaderMap,
) -> Option<Inspected> {
    let now = resources.clock.wall();
    let LookupResult { key, candidate, miss_reason, .. } =
        resources.store.lookup(lookup, now).await;
    let digest = candidate.as_ref().map(|found| || found.cached.entry.digest());
    let state = authorization(&resources.authorized_clients, lookup, key.hash(), digest, now);
    let (cached, tier, fresh, verdict) = match &candidate {
        Some(found) => {
            let verdict = verdict(lookup, headers, found, state, now);
            (found.cached.clone(), found.tier.as_str(), found.fresh, verdict)
        }
        // What was refused stays in memory for a while.
        None => match resources.store.memory.peek(key.hash())? {
            MemorySlot::Entry(cached) if cached.entry.key[..] == *key.canonical() => {
                (cached, "memory", false, (Disposition::Miss, Some(miss_reason)))
            }
            _ => return None,
        },
    };
    let CachedEntry { entry, proof, .. } = &*cached;
    let tags = resources.coherence.current_tags(proof).await;
    let left = match &candidate {
        // A soft purge may have ended it before.
        Some(found) => found.ttl_ms(now).min(resources.ttl_ms(&cached, now)),
        None => resources.ttl_ms(&cached, now),
    };
    #[allow(clippy::cast_precision_loss, reason = "seconds for people to read")]
    let ttl_s = left as f64 / 1e3;
    Some(Inspected {
        tier,
        status: entry.status.as_u16(),
        bytes: entry.body.len(),
        age_s: entry.times.age(now).as_secs_f64(),
        ttl_s,
        fresh,
        tags: tags
            .into_iter()
            // What the sidecar adds is of interest where it is why the entry is refused.
            .filter(|(tag, current)| !tag.is_auxiliary() || !current)
            .map(|(tag, current)| InspectedTag { tag: tag.shown().to_owned(), current })
            .collect(),
        authorization: candidate.and_then(|_| shared_client(lookup)).map(|_| state.as_str()),
        verdict: verdict.0.as_str(),
        reason: verdict.1.map(Reason::as_str),
    })
}

fn verdict(
    lookup: &Lookup<'_>,
    headers: &HeaderMap,
    candidate: &Candidate,
    state: AuthorizationState,
    now: Wall,
) -> (Disposition, Option<Reason>) {
    let directives = RequestDirectives::new(lookup.route, headers);
    if let Some(reason) = directives.bypass {
        return (Disposition::Bypass, Some(reason));
    }
    if !lookup.unknown.is_empty() {
        return (Disposition::Bypass, Some(Reason::UnkeyedHeader));
    }
    let confirmed = is_confirmed(lookup, &candidate.cached.entry.times, now);
    let stored = StoredState::from_candidate(candidate, confirmed);
    let authorized = state == AuthorizationState::Authorized;
    match may_serve(&stored, &directives, authorized, now) {
        Ok(Serve::Fresh) => (Disposition::Hit, None),
        Ok(Serve::WhileRevalidate) => (Disposition::Stale, Some(Reason::StaleWhileRevalidate)),
        Err(reason) => (Disposition::Miss, Some(reason)),
    }
}
