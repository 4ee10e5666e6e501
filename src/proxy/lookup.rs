//! A GET or HEAD on a route: the fast hit from memory, and the lookup with what follows from it.

use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use crate::cache::fills::FillKey;
use crate::cache::store::LookupResult;
use crate::coherence::Proof;
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::policy::authorized_clients::AuthorizationState;
use crate::policy::route::AdmitRule;
use crate::proxy::context::{LookupContext, is_confirmed};
use crate::proxy::fill::request::{FillReason, StaleCandidate};
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::proxy::serve::{ProofState, Serve, StoredState, allotted, may_serve};
use crate::proxy::{audit, head, hit, key_watch, late_fill, miss, pass, refresh};

/// How often a request repeats the lookup after the fill of another sidecar. Once as a rule; once
/// more after a purge, or a fill that failed.
const MAX_RETRIES: u8 = 2;

/// What earlier lookups of one request came to.
#[derive(Debug, Default)]
pub(super) struct LookupAttempts {
    /// Why the first one found nothing, if there were others.
    first: Option<Reason>,
    /// Whether what is found is due for an early refresh: decided once for each request.
    refresh_due: bool,
    retries: u8,
}

impl LookupAttempts {
    /// Before the first one, for what is due for an early refresh.
    pub(super) const fn refresh_due() -> Self {
        Self { first: None, refresh_due: true, retries: 0 }
    }

    /// Whether what is found is due for an early refresh.
    pub(super) const fn is_refresh_due(&self) -> bool {
        self.refresh_due
    }

    const fn may_retry(&self) -> bool {
        self.retries < MAX_RETRIES
    }

    fn retry(&mut self, reason: Reason) {
        self.retries += 1;
        self.first.get_or_insert(reason);
    }
}

/// A hit that needs nothing but this process. `Err`: the request needs a lookup.
pub(super) fn fast_hit(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
) -> Result<ProxyResponse, LookupAttempts> {
    let (lookup, now) = (context.lookup, context.request.now);
    if !lookup.unknown.is_empty() {
        return Err(LookupAttempts::default());
    }
    let Some(cached) = resources.store.lookup_memory(lookup, now) else {
        return Err(LookupAttempts::default());
    };
    let stored = StoredState {
        times: &cached.entry.times,
        leeway: &cached.entry.leeway,
        proof: ProofState::Current,
        is_confirmed: is_confirmed(lookup, &cached.entry.times, now),
    };
    // SECURITY: the entry's key is that of the request, which was compared.
    let authorized = lookup.authorization.is_none() || {
        let (key, digest) = (cached.entry.key_hash(), Some(|| cached.entry.digest()));
        context.authorization(key, digest, now) == AuthorizationState::Authorized
    };
    if may_serve(&stored, &context.directives, authorized, now) != Ok(Serve::Fresh) {
        return Err(LookupAttempts::default());
    }
    if refresh::is_due(resources, context, &cached, now) {
        if matches!(cached.proof, Proof::Shared(_)) {
            // The refresh is judged by the tag records from before it, which the lookup reads.
            return Err(LookupAttempts::refresh_due());
        }
        refresh::refresh_memory_hit(resources, context, cached.entry.key_hash(), &cached);
    }
    audit::audit(resources, context, &cached);
    Ok(hit::hit(resources, context, &cached, Tier::Memory, now))
}

/// Looks the request up, and answers it.
pub(super) async fn serve_lookup(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    mut attempts: LookupAttempts,
) -> ProxyResponse {
    context.lookup.remember_document();
    if let Some(reason) = context.directives.bypass {
        return Box::pin(pass::pass_lookup(resources, context, Outcome::bypass(reason))).await;
    }
    if let Some(name) = context.lookup.unknown.first() {
        let outcome = Outcome::bypass_with(Reason::UnkeyedHeader, name.as_str());
        return Box::pin(pass::pass_lookup(resources, context, outcome)).await;
    }
    loop {
        if let Some(response) = lookup_once(resources, context, &mut attempts).await {
            return response;
        }
    }
}

/// One lookup, and what follows from it. None: another sidecar has filled meanwhile, so repeat it.
async fn lookup_once(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    attempts: &mut LookupAttempts,
) -> Option<ProxyResponse> {
    let now = resources.clock.wall();
    let LookupResult { key, candidate, miss_reason, snapshot } =
        resources.store.lookup(context.lookup, now).await;
    let key = key.hash();
    let digest = candidate.as_ref().map(|found| || found.cached.entry.digest());
    let authorization = context.authorization(key, digest, now);
    let authorized = authorization == AuthorizationState::Authorized;
    let fill_key = context.fill_key(key, authorized);
    let confirmed = candidate
        .as_ref()
        .is_some_and(|found| is_confirmed(context.lookup, &found.cached.entry.times, now));
    let decision = candidate.as_ref().map(|candidate| {
        let stored = StoredState::from_candidate(candidate, confirmed);
        may_serve(&stored, &context.directives, authorized, now)
    });
    // A 304 to a GET authorizes the caller again for the body that it was given.
    let may_renew =
        context.parts.method != Method::HEAD && context.lookup.route.spec.admit == AdmitRule::Entry;
    let (stale, for_others) = allotted(authorization, may_renew, candidate);
    // SECURITY: to a caller whose authorization has run out, or whose credential was not confirmed
    // lately, what is stored is given only once the origin has confirmed it to this very caller.
    let stale = stale.map(|candidate| StaleCandidate {
        candidate,
        key,
        may_serve_on_error: authorized && confirmed && context.directives.allows_stale(),
    });
    let reason = match (decision, &stale) {
        (Some(Ok(Serve::Fresh)), Some(stored)) => {
            let cached = &stored.candidate.cached;
            if let Some(reason) = attempts.first {
                return Some(hit::serve_cluster_fill(resources, context, cached, reason));
            }
            audit::audit(resources, context, cached);
            let response = hit::hit(resources, context, cached, stored.candidate.tier, now);
            if attempts.refresh_due || refresh::is_due(resources, context, cached, now) {
                refresh::refresh_early(resources, context, fill_key, snapshot, stored);
            }
            return Some(response);
        }
        (Some(Ok(Serve::WhileRevalidate)), Some(stored)) => {
            let reason = Reason::StaleWhileRevalidate;
            let outcome = Outcome { reason: Some(reason), ..Outcome::new(Disposition::Stale) };
            let response = hit::serve_stale(context, stored, outcome, now);
            resources.counters.while_revalidate.inc();
            let reason = FillReason { snapshot, reason, key, stale, for_others };
            refresh::refresh(resources, context, fill_key, reason);
            return Some(response);
        }
        (Some(Err(reason)), _) => reason,
        _ => miss_reason,
    };
    let may_retry = attempts.may_retry();
    let fill_reason = FillReason { snapshot, reason, key, stale, for_others };
    let response = ask_origin(resources, context, fill_key, fill_reason, may_retry).await;
    match &response {
        Some(response) => {
            key_watch::observe_miss(resources, context, reason, &response.outcome);
        }
        None => attempts.retry(reason),
    }
    response
}

/// Nothing was served: what to ask the origin for. None: repeat the lookup.
///
/// Boxed, each of the ways: a hit from Redis should not carry their state around.
async fn ask_origin(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    fill_key: FillKey,
    reason: FillReason,
    may_retry: bool,
) -> Option<ProxyResponse> {
    let miss_reason = reason.reason;
    // A fill would bring a response that is not for this request.
    let known = resources.store.known_vary(&context.lookup.key);
    let withheld = known.and_then(|mark| context.lookup.withheld_from(&mark.spec));
    Some(match miss_reason {
        Reason::CacheUnavailable | Reason::MutationPending => {
            if miss_reason == Reason::CacheUnavailable && withheld.is_none() {
                late_fill::begin(resources, context);
            }
            Box::pin(pass::pass_lookup(resources, context, Outcome::bypass(miss_reason))).await
        }
        _ if context.directives.only_if_cached => {
            let outcome = Outcome::miss(miss_reason);
            ProxyResponse {
                response: response::failure(Reason::OnlyIfCached, &outcome),
                outcome,
                route: Some(context.route()),
            }
        }
        _ if resources.fills.is_refused(&context.refusal_key(), resources.clock.wall()) => {
            let outcome = Outcome::bypass(Reason::FillRefused);
            Box::pin(pass::pass_lookup(resources, context, outcome)).await
        }
        _ if withheld.is_some() => {
            let name = withheld.as_ref().map_or("", HeaderName::as_str);
            let outcome = Outcome::bypass_with(Reason::WithheldHeader, name);
            Box::pin(pass::pass_lookup(resources, context, outcome)).await
        }
        _ if context.parts.method == Method::HEAD => {
            Box::pin(head::pass_head(resources, context, reason)).await
        }
        // What is stored is confirmed, and the part is cut from it; where nothing is stored, the
        // origin sends the part itself.
        _ if context.lookup.range && reason.stale.is_none() => {
            Box::pin(miss::pass_range(resources, context, fill_key, reason)).await
        }
        _ => {
            // A client that asks for something new does not wait for what another sidecar fetches.
            let may_retry = may_retry && context.directives.allows_stale();
            return Box::pin(miss::fetch(resources, context, fill_key, reason, may_retry)).await;
        }
    })
}
