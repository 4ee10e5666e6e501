//! What the answer to a fill says of its caller, on routes of scope `shared`.

use http::HeaderMap;

use crate::cache::entry::Entry;
use crate::cache::store::memory::CachedEntry;
use crate::policy::authorized_clients::SharedClient;
use crate::policy::key::KeyHash;
use crate::proxy::fill::request::FillRequest;
use crate::proxy::resources::Resources;
use crate::proxy::store_decision::StoreDecision;
use crate::semantics::digest::Digest;
use crate::shadow::findings::ScopeEvidence;

/// Notes that a body has come whole, that it is new, and that it is stored under this key: the
/// caller is authorized for it, where clients are authorized by entry.
///
/// SECURITY: never for what a 304 has confirmed: `AuthorizedClients::renew` sees to that.
pub(super) fn record_body(
    resources: &Resources,
    request: &FillRequest,
    key: KeyHash,
    entry: &Entry,
) {
    let Some(client) = request.client else { return };
    let now = resources.clock.wall();
    if client.by_entry() {
        let times = (now, request.route.spec.admit_for);
        resources.authorized_clients.authorize(client, key, entry.digest(), times);
    }
    let Some(others) = request.for_others.as_ref().filter(|_| request.key == key) else { return };
    // Nothing has purged it meanwhile, or the new body would not be stored.
    if others.entry.times.is_fresh(now)
        && others.entry.content_digest() != entry.content_digest()
        && let Some(route) = resources.shadow.route(request.route.name())
    {
        let of = (key, request.target.path());
        resources.shadow.record_scope(&route, ScopeEvidence::Bodies, of, now);
    }
}

/// Notes that the origin has confirmed to this caller what is stored, with this head: an
/// authorization for what was stored goes on for that.
///
/// SECURITY: a 304 may bring a head that is for its caller alone, which ends the authorizations of
/// all others.
pub(super) fn record_confirmation(
    resources: &Resources,
    request: &FillRequest,
    confirmed: &CachedEntry,
    headers: &HeaderMap,
) {
    let Some(client) = request.client.filter(|client| client.by_entry()) else { return };
    let times = (resources.clock.wall(), request.route.spec.admit_for);
    let entry = &confirmed.entry;
    let digests = (entry.digest(), entry.digest_with(headers));
    resources.authorized_clients.renew(client, request.key, digests, times);
}

/// The digest by which followers are told whether they may share a response: that of what is stored
/// and was confirmed, with its new head, where clients are authorized by it.
pub(super) fn digest_for_sharing(
    request: &FillRequest,
    decision: &StoreDecision,
    headers: &HeaderMap,
) -> Option<Digest> {
    let by_entry = request.client.is_some_and(SharedClient::by_entry);
    let confirmed = decision.revalidated.as_ref().filter(|_| by_entry);
    confirmed.map(|cached| cached.entry.digest_with(headers))
}
