//! Audits: a share of a route's hits is fetched again in the background, to find out whether what
//! was served was out of date.
//!
//! The origin is asked as by a fill, with the credentials of the hit's request, and its response is
//! not stored. A hit never waits for an audit. An audit goes by the configuration of its hit.
//!
//! Where what was served holds, the same page is fetched in another language that the route has
//! seen, to find out whether bodies depend on it.

use std::sync::Arc;

use http::StatusCode;
use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;

use crate::cache::entry::Entry;
use crate::cache::store::memory::CachedEntry;
use crate::clock::{Wall, millis};
use crate::coherence::CoherenceMode;
use crate::outcome::Reason;
use crate::policy::key;
use crate::policy::refusal::Refusal;
use crate::policy::scope::Scope;
use crate::policy::tag::{self, Tag};
use crate::proxy::context::LookupContext;
use crate::proxy::fill::request::{FillReason, FillRequest};
use crate::proxy::resources::Resources;
use crate::semantics::digest::{Digest, Digester};
use crate::semantics::negotiation;
use crate::semantics::vary::names_languages;
use crate::shadow::findings::RouteShadow;
use crate::shadow::history::StepSpan;
use crate::shadow::languages::{LanguageSample, head_digest, primary_language};
use crate::shadow::{AuditOutcome, SETTLE_DELAY, is_telling};

/// Decides by chance whether this hit is audited.
#[inline]
pub(super) fn audit(
    resources: &Arc<Resources>,
    context: &LookupContext<'_>,
    cached: &Arc<CachedEntry>,
) {
    let share = context.lookup.route.spec.audit;
    if share > 0.0 && rand::random::<f64>() < share {
        begin(resources, context, cached);
    }
}

#[cold]
fn begin(resources: &Arc<Resources>, context: &LookupContext<'_>, cached: &Arc<CachedEntry>) {
    let (lookup, key) = (context.lookup, cached.entry.key_hash());
    let Some(route_shadow) = resources.shadow.route(lookup.route.name()) else { return };
    let Ok(permit) = Arc::clone(&resources.refresh_permits).try_acquire_owned() else {
        resources.counters.refreshes_rejected.inc();
        return;
    };
    let request = FillRequest::from_context(context, FillReason::not_stored(Reason::Shadow, key));
    let (resources, cached) = (Arc::clone(resources), Arc::clone(cached));
    let path = lookup.path().to_owned();
    // Not tracked: no client waits for it, so a drain does not either.
    tokio::spawn(async move {
        run(&resources, &request, &cached, &path, &route_shadow).await;
        drop(permit);
    });
}

async fn run(
    resources: &Resources,
    request: &FillRequest,
    cached: &Arc<CachedEntry>,
    path: &str,
    route_shadow: &Arc<RouteShadow>,
) {
    let entry = &cached.entry;
    let served = entry.content_digest();
    let tags = tag::of_entry(&request.tags, &entry.response_tags);
    // The earliest time at which the fetch of what was served may have begun.
    let fetched = Wall(entry.times.received.0.saturating_sub(millis(entry.fetch_duration())));
    let sent = next_span(resources);
    let audit = match fetch(resources, request, &request.sent).await {
        AuditResponse::Whole(first, _) if first == served => {
            let span = StepSpan { done: resources.shadow.steps.next(), ..sent };
            compare_languages(resources, request, entry, route_shadow, span).await;
            AuditOutcome::Same
        }
        // Twice the same: the body does not differ by itself.
        whole @ AuditResponse::Whole(..)
            if fetch(resources, request, &request.sent).await == whole
                && is_still_served(resources, request, cached, &tags).await =>
        {
            AuditOutcome::Stale { path, tags: &tags, fetched }
        }
        AuditResponse::Refused if is_still_served(resources, request, cached, &tags).await => {
            AuditOutcome::Refused { path, key: request.key }
        }
        _ => AuditOutcome::Unclear,
    };
    resources.shadow.record_audit(route_shadow, audit, resources.clock.wall());
}

/// A span that begins now.
fn next_span(resources: &Resources) -> StepSpan {
    let purges = resources.coherence.purges();
    StepSpan { sent: resources.shadow.steps.next(), done: 0, purges }
}

/// Fetches the page of a hit that holds in another language, and compares. `span` is when it was
/// fetched in its own.
async fn compare_languages(
    resources: &Resources,
    request: &FillRequest,
    entry: &Entry,
    route_shadow: &Arc<RouteShadow>,
    span: StepSpan,
) {
    if !request.keys_languages() {
        return;
    }
    let (page, own) = key::without_languages(&entry.key);
    let other = {
        let mut findings = route_shadow.findings();
        findings.languages.is_said |= names_languages(&entry.headers());
        findings.languages.see(own);
        let mut others = findings.languages.seen.clone();
        others.retain(|seen| primary_language(seen) != primary_language(own));
        let chosen = rand::random::<u8>() as usize % others.len().max(1);
        let is_said = findings.languages.is_said;
        others.into_iter().nth(chosen).filter(|_| !is_said)
    };
    let Some(other) = other else { return };
    let (is_success, times) = (entry.status.is_success(), entry.times);
    let served = (entry.content_digest(), head_digest(entry.status, &entry.headers()));
    let record = |languages: &str, (digest, head), span| {
        let sample = LanguageSample { languages, digest, head, is_success, others: 0, span, times };
        let (purges, now) = (resources.coherence.purges(), resources.clock.wall());
        resources.shadow.record_languages(route_shadow, page, &sample, purges, now);
    };
    record(own, served, span);
    let mut headers = request.sent.clone();
    let text = negotiation::on_the_wire(&ACCEPT_LANGUAGE, &other);
    let Ok(value) = HeaderValue::from_str(&text) else { return };
    headers.insert(ACCEPT_LANGUAGE, value);
    let span = next_span(resources);
    let AuditResponse::Whole(body, head) = fetch(resources, request, &headers).await else {
        return;
    };
    record(&other, (body, head), StepSpan { done: resources.shadow.steps.next(), ..span });
    if (body, head) == served {
        return;
    }
    // The same again: then it is the language.
    let span = next_span(resources);
    if let AuditResponse::Whole(body, head) = fetch(resources, request, &request.sent).await {
        record(own, (body, head), StepSpan { done: resources.shadow.steps.next(), ..span });
    }
}

/// What the origin answers now.
#[derive(PartialEq, Eq)]
enum AuditResponse {
    /// A response that tells something, with the digests of its body and of what its head says of
    /// the language.
    Whole(Digest, Digest),
    /// It turns this caller away from what others share.
    Refused,
    /// It proves nothing.
    Unclear,
}

/// Fetches what was hit, with these headers.
async fn fetch(resources: &Resources, request: &FillRequest, headers: &HeaderMap) -> AuditResponse {
    fetch_whole(resources, request, headers).await.unwrap_or(AuditResponse::Unclear)
}

async fn fetch_whole(
    resources: &Resources,
    request: &FillRequest,
    headers: &HeaderMap,
) -> Option<AuditResponse> {
    let origin = request.origin();
    let sent = request.to_request(headers.clone());
    let table = &request.config.table;
    let mut response =
        origin.send((request.peer, None), sent, table, Some(request.route.id)).await.ok()?;
    let status = response.status();
    let head = head_digest(status, response.headers());
    let refusal = request.refusal(status, response.headers());
    request.record_refusal(&resources.authorized_clients, status, response.headers());
    match (request.route.spec.scope, refusal) {
        // A private entry is its caller's own: its session has ended. What is public is asked for
        // without a credential: there is nobody to hide it from.
        (Scope::Private, _) | (_, None) | (Scope::Public, Some(Refusal::NotFound)) => {}
        (Scope::Public | Scope::Shared, Some(_)) => return Some(AuditResponse::Refused),
    }
    if !is_telling(status) && status != StatusCode::NOT_MODIFIED {
        return None;
    }
    let mut digester = Digester::for_response(status, response.headers());
    let mut left = resources.store.largest();
    while let Some(frame) = response.body_mut().frame().await {
        if let Ok(chunk) = frame.ok()?.into_data() {
            left = left.checked_sub(chunk.len() as u64)?;
            digester.update(&chunk);
        }
    }
    Some(AuditResponse::Whole(digester.finish(), head))
}

/// Whether what was served would still be served: nothing has purged it, or is about to.
async fn is_still_served(
    resources: &Resources,
    request: &FillRequest,
    cached: &Arc<CachedEntry>,
    tags: &[Tag],
) -> bool {
    let coherence = &resources.coherence;
    if resources.shadow.mutations.will_purge(tags) {
        return false;
    }
    if coherence.mode() == CoherenceMode::Shared && coherence.status().peers > 0 {
        // Another sidecar's mutation may be committed and its purge on the way.
        tokio::time::sleep(SETTLE_DELAY).await;
    }
    let found = resources.store.lookup(request, resources.clock.wall()).await.candidate;
    found.is_some_and(|found| found.cached.entry.times.received == cached.entry.times.received)
}
