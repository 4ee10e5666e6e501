//! Audits: a share of a route's hits is asked for again in the background, to see whether what was
//! served was out of date.
//!
//! The app is asked as by a fill, with the credentials of the hit's request, and what it answers is
//! not stored. A hit never waits for it.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use crate::cache::store::memory::CachedEntry;
use crate::coherence::{CoherenceMode, TagSnapshot};
use crate::outcome::Reason;
use crate::policy::plan::Lookup;
use crate::policy::tag::Tag;
use crate::proxy::Proxy;
use crate::proxy::fill::FillRequest;
use crate::proxy::miss::FillReason;
use crate::semantics::forward::ClientPeer;
use crate::shadow::digest::Digester;
use crate::shadow::findings::RouteShadow;
use crate::shadow::history::Digest;
use crate::shadow::{AuditOutcome, SETTLE_DELAY, is_telling};

impl Proxy {
    /// Decides by chance whether this hit is asked for again.
    #[inline]
    pub(super) fn audit(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        resident: &Arc<CachedEntry>,
    ) {
        let share = lookup.route.spec.audit;
        if share > 0.0 && rand::random::<f64>() < share {
            self.begin_audit(parts, lookup, peer, resident);
        }
    }

    #[cold]
    fn begin_audit(
        self: &Arc<Self>,
        parts: &Parts,
        lookup: &Lookup<'_>,
        peer: ClientPeer,
        resident: &Arc<CachedEntry>,
    ) {
        let Some(seen) = self.shadow.route(lookup.route.name()) else { return };
        let Ok(place) = Arc::clone(&self.refresh_permits).try_acquire_owned() else {
            self.counters.refreshes_rejected.inc();
            return;
        };
        let order = self.fill_request(
            parts,
            lookup,
            peer,
            FillReason { snapshot: TagSnapshot::Unverifiable, reason: Reason::Shadow, stale: None },
        );
        let (proxy, resident, path) =
            (Arc::clone(self), Arc::clone(resident), lookup.path.to_string());
        // Not tracked: no client waits for it, so a drain does not either.
        tokio::spawn(async move {
            proxy.run_audit(&order, &resident, &path, &seen).await;
            drop(place);
        });
    }

    async fn run_audit(
        &self,
        order: &FillRequest,
        resident: &Arc<CachedEntry>,
        path: &str,
        seen: &RouteShadow,
    ) {
        let entry = &resident.entry;
        let mut served = Digester::new(entry.status);
        served.update(&entry.body);
        let served = served.finish();
        let tags: Vec<Tag> = order.tags.iter().chain(&entry.response_tags).cloned().collect();
        // Before what was served was fetched, as far back as the fetch may have begun.
        let fetched = crate::clock::Wall(
            entry.times.received.0.saturating_sub(crate::clock::millis(entry.fetch_duration)),
        );
        let audit = match self.fetch_digest(order).await {
            Some(first) if first == served => AuditOutcome::Same,
            // Twice the same: the body does not differ by itself.
            Some(first)
                if self.fetch_digest(order).await == Some(first)
                    && self.is_still_served(order, resident, &tags).await =>
            {
                AuditOutcome::Stale { path, tags: &tags, fetched }
            }
            _ => AuditOutcome::Unclear,
        };
        self.shadow.record_audit(seen, audit, self.clock.wall());
    }

    /// What the app answers now; none when that says nothing.
    async fn fetch_digest(&self, order: &FillRequest) -> Option<Digest> {
        let (target, headers) = order.origin_request();
        let request =
            self.fill_upstream_request(Method::GET, order.version(), target, headers, order.peer);
        let mut response = self.send_to_origin(request, Some(order.route.id)).await.ok()?;
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
    async fn is_still_served(
        &self,
        order: &FillRequest,
        resident: &Arc<CachedEntry>,
        tags: &[Tag],
    ) -> bool {
        if self.shadow.mutations.will_purge(tags) {
            return false;
        }
        if self.coherence.mode() == CoherenceMode::Shared && self.coherence.status().peers > 0 {
            // Another sidecar's write may be committed and its purge on the way.
            tokio::time::sleep(SETTLE_DELAY).await;
        }
        let found = self.store.lookup(order, self.clock.wall()).await.candidate;
        found
            .is_some_and(|found| found.cached.entry.times.received == resident.entry.times.received)
    }
}
