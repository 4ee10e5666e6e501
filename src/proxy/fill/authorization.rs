//! What the body of a fill says of its caller, on routes of scope `shared`.

use std::sync::Arc;

use crate::cache::entry::Entry;
use crate::cache::store::memory::CachedEntry;
use crate::policy::authorized_clients::SharedClient;
use crate::policy::key::KeyHash;
use crate::policy::route::Route;
use crate::proxy::fill::request::FillRequest;
use crate::proxy::resources::Resources;
use crate::proxy::store_decision::StoreDecision;
use crate::semantics::digest::Digest;

/// The caller of a fill whose body is new. Once the body has come whole and is stored, the caller is
/// authorized for it, where clients are authorized by entry.
pub(super) struct BodyAuthorization {
    client: SharedClient,
    key: KeyHash,
    route: Arc<Route>,
    path: String,
    /// What was stored under this key for others.
    others: Option<Arc<CachedEntry>>,
}

impl BodyAuthorization {
    pub(super) fn new(request: &FillRequest, decision: &StoreDecision) -> Option<Self> {
        let client = request.client?;
        // SECURITY: what is confirmed is not new; `AuthorizedClients::renew` has seen to it.
        if decision.revalidated.is_some() {
            return None;
        }
        let key = decision.key.hash();
        let others = request.unauthorized.as_ref().filter(|_| request.key == key);
        Some(Self {
            client,
            key,
            route: Arc::clone(&request.route),
            path: request.target.path().to_owned(),
            others: others.filter(|others| others.fresh).map(|others| Arc::clone(&others.cached)),
        })
    }

    /// The body is stored.
    pub(super) fn record(self, resources: &Resources, entry: &Entry) {
        let now = resources.clock.wall();
        if self.client.by_entry() {
            let times = (now, self.route.spec.admit_for);
            resources.authorized_clients.authorize(self.client, self.key, entry.digest(), times);
        }
        // Nothing has purged it meanwhile, or the new body would not be stored.
        let differs = self.others.is_some_and(|others| {
            others.entry.times.is_fresh(now) && others.entry.digest() != entry.digest()
        });
        if differs && let Some(route) = resources.shadow.route(self.route.name()) {
            resources.shadow.record_bodies(&route, self.key, &self.path, now);
        }
    }
}

/// The digest by which followers are told whether they may share a response: that of what is stored
/// and was confirmed, where clients are authorized by it.
pub(super) fn digest_for_sharing(
    request: &FillRequest,
    decision: &StoreDecision,
) -> Option<Digest> {
    let by_entry = request.client.is_some_and(SharedClient::by_entry);
    decision.revalidated.as_ref().filter(|_| by_entry).map(|cached| cached.entry.digest())
}
