//! Audits: a share of a route's hits is asked for again in the background, to see whether what was served was out of date.
//!
//! The app is asked as by a fill, with the credentials of the hit's request, and what it answers is not stored. A hit never waits for it.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use crate::cache::store::memory::Resident;
use crate::coherence::{Mode, Read};
use crate::outcome::Reason;
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::proxy::Proxy;
use crate::proxy::fill::Order;
use crate::proxy::miss::Errand;
use crate::semantics::forward::Peer;
use crate::shadow::digest::Digester;
use crate::shadow::findings::RouteShadow;
use crate::shadow::history::Digest;
use crate::shadow::{Audit, SETTLE, is_telling};

impl Proxy {
    /// Decides by chance whether this hit is asked for again.
    #[inline]
    pub(super) fn audit(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, resident: &Arc<Resident>) {
        let share = lookup.route.spec.audit;
        if share > 0.0 && rand::random::<f64>() < share {
            self.begin_audit(parts, lookup, peer, resident);
        }
    }

    #[cold]
    fn begin_audit(self: &Arc<Self>, parts: &Parts, lookup: &Lookup<'_>, peer: Peer, resident: &Arc<Resident>) {
        let Some(seen) = self.shadow.route(lookup.route.name()) else { return };
        let Ok(place) = Arc::clone(&self.refresh_places).try_acquire_owned() else {
            self.counters.crowded_refreshes.inc();
            return;
        };
        let order = self.order(parts, lookup, peer, Errand { read: Read::Unproven, why: Reason::Shadow, spare: None });
        let (proxy, resident, path) = (Arc::clone(self), Arc::clone(resident), lookup.path.to_string());
        // Not tracked: no client waits for it, so a drain does not either.
        tokio::spawn(async move {
            proxy.run_audit(&order, &resident, &path, &seen).await;
            drop(place);
        });
    }

    async fn run_audit(&self, order: &Order, resident: &Arc<Resident>, path: &str, seen: &RouteShadow) {
        let entry = &resident.entry;
        let mut served = Digester::new(entry.status);
        served.update(&entry.body);
        let served = served.finish();
        let tags: Vec<Tag> = order.tags.iter().chain(&entry.named).cloned().collect();
        // Before what was served was fetched, as far back as the fetch may have begun.
        let fetched = crate::clock::Wall(entry.times.received.0.saturating_sub(crate::clock::millis(entry.took)));
        let audit = match self.fetch_digest(order).await {
            Some(first) if first == served => Audit::Same,
            // Twice the same: the body does not differ by itself.
            Some(first) if self.fetch_digest(order).await == Some(first) && self.is_still_served(order, resident, &tags).await => {
                Audit::Stale { path, tags: &tags, fetched }
            }
            _ => Audit::Unclear,
        };
        self.shadow.audited(seen, audit, self.clock.wall());
    }

    /// What the app answers now; none when that says nothing.
    async fn fetch_digest(&self, order: &Order) -> Option<Digest> {
        let (target, headers) = order.to_app();
        let request = self.fill_upstream_request(Method::GET, order.version(), target, headers, order.peer);
        let mut response = self.ask_app(request, Some(order.route.id)).await.ok()?;
        let status = response.status();
        if !is_telling(status) && status != StatusCode::NOT_MODIFIED {
            return None;
        }
        let mut digester = Digester::new(status);
        let mut left = self.store.largest();
        while let Some(frame) = response.body_mut().frame().await {
            if let Ok(chunk) = frame.ok()?.into_data() {
                left = left.checked_sub(chunk.len() as u64)?;
                digester.update(&chunk);
            }
        }
        Some(digester.finish())
    }

    /// Whether what was served would be served still: nothing has purged it, nor is about to.
    async fn is_still_served(&self, order: &Order, resident: &Arc<Resident>, tags: &[Tag]) -> bool {
        if self.shadow.mutations.will_purge(tags) {
            return false;
        }
        if self.coherence.mode() == Mode::Shared && self.coherence.standings().peers > 0 {
            // Another sidecar's write may be committed and its purge on the way.
            tokio::time::sleep(SETTLE).await;
        }
        let found = self.store.consult(order, self.clock.wall()).await.found;
        found.is_some_and(|found| found.resident.entry.times.received == resident.entry.times.received)
    }
}
