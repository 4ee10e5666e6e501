//! Counts of what the flow does.

use std::sync::Arc;

use crate::coherence::PurgeKind;
use crate::outcome::Reason;
use crate::policy::route::Route;
use crate::shares::ShareCounters;
use crate::telemetry::metrics::Counter;

/// Counts of what the flow does.
#[derive(Clone, Debug, Default)]
pub struct ProxyCounters {
    /// Mutations forwarded.
    pub mutations: Arc<Counter>,
    /// Mutations that purged, because they were, or may have been, committed.
    pub purging: Arc<Counter>,
    /// Fields of purge templates that a mutation lacks, so that families were purged.
    pub missing_fields: Arc<Counter>,
    /// Fields of purge templates of which a mutation had too many values, so that families were
    /// purged.
    pub too_many_values: Arc<Counter>,
    /// Purge requests that were refused.
    pub purge_requests_refused: Arc<Counter>,
    /// Responses whose bodies were too long to read tags from.
    pub tag_bodies_refused: Arc<Counter>,
    /// Purges at the end of a response that had begun before.
    pub purges_at_end: Arc<Counter>,
    /// Processes that wanted to take over, and have not.
    pub handovers_failed: Arc<Counter>,
    /// Mutations below a cached path that no purge rule covers.
    pub uncovered: Arc<Counter>,
    /// Requests refused because they break a rule of HTTP.
    pub refused: Arc<Counter>,
    /// Requests whose clients left before the response began.
    pub abandoned: Arc<Counter>,
    /// Fills that no request waited for any more, given up because others needed their places.
    pub fills_given_up: Arc<Counter>,
    /// Tunnels opened.
    pub tunnels: Arc<Counter>,
    /// How the permits of mutations are shared.
    pub mutation_shares: ShareCounters,
    /// Mutations refused because too many are in flight.
    pub mutations_rejected: Arc<Counter>,
    /// Mutations that were never sent, because their upload broke off before.
    pub uploads_unsent: Arc<Counter>,
    /// Bodies longer than those that are part of a key.
    pub read_bodies_too_large: Arc<Counter>,
    /// Requests on a route with `read_only` that were writes all the same.
    pub reads_as_writes: Arc<Counter>,
    /// Uploads that took longer than they may.
    pub uploads_too_slow: Arc<Counter>,
    /// Stored responses that the origin confirmed with a 304.
    pub revalidated: Arc<Counter>,
    /// Stale responses served while a refresh ran in the background.
    pub while_revalidate: Arc<Counter>,
    /// Stale responses served because the origin failed.
    pub stale_if_error: Arc<Counter>,
    /// Refreshes in the background.
    pub refreshes: Arc<Counter>,
    /// Refreshes not started because too many are in flight.
    pub refreshes_rejected: Arc<Counter>,
    /// Fills in the background of keys whose records Redis sent after `deadline`.
    pub late_fills: Arc<Counter>,
    /// Headers that the origin named in `Vary`, and that are not in the key because the route has
    /// learned too many others.
    pub headers_unlearned: Arc<Counter>,
    /// Misses that were not observed for what differs each time, because their keys have too many
    /// parts.
    pub keys_unobserved: Arc<Counter>,
    /// Callers that are not remembered as accepted, because there are too many.
    pub callers_unremembered: Arc<Counter>,
    /// Purges, by source and kind.
    pub purges: PurgeCounters,
    /// Responses whose head announced that they are stored, and that were not.
    pub store_aborted: StoreAbortCounters,
}

impl ProxyCounters {
    /// Counts a response that is not stored because it is too long to read tags from.
    pub(super) fn note_unread(&self, reason: Reason) {
        if reason == Reason::TagBodyTooLarge {
            self.tag_bodies_refused.inc();
        }
    }
}

/// Purges, by source and kind.
#[derive(Clone, Debug, Default)]
pub struct PurgeCounters {
    /// By mutations; these are hard.
    pub write: Arc<Counter>,
    /// By purge requests; these are hard.
    pub request: Arc<Counter>,
    /// By the admin API, hard.
    pub admin_hard: Arc<Counter>,
    /// By the admin API, soft.
    pub admin_soft: Arc<Counter>,
}

impl PurgeCounters {
    /// Counts a purge by the admin API.
    pub fn admin(&self, kind: PurgeKind) {
        match kind {
            PurgeKind::Hard => self.admin_hard.inc(),
            PurgeKind::Soft => self.admin_soft.inc(),
        }
    }
}

/// Why responses whose heads said `stored` were not stored.
#[derive(Clone, Debug, Default)]
pub struct StoreAbortCounters {
    truncated: Arc<Counter>,
    too_large: Arc<Counter>,
    trailers: Arc<Counter>,
    purged: Arc<Counter>,
    failed: Arc<Counter>,
    client_gone: Arc<Counter>,
    guests_differ: Arc<Counter>,
    guests_uncompared: Arc<Counter>,
    identity_unconfirmed: Arc<Counter>,
    too_many_tags: Arc<Counter>,
    tags_unread: Arc<Counter>,
    graphql_answer: Arc<Counter>,
    tag_body_too_large: Arc<Counter>,
}

impl StoreAbortCounters {
    /// Each reason with its count.
    #[must_use]
    pub fn counts(&self) -> [(Reason, &Arc<Counter>); 13] {
        [
            (Reason::Truncated, &self.truncated),
            (Reason::TooLarge, &self.too_large),
            (Reason::Trailers, &self.trailers),
            (Reason::PurgedDuringFill, &self.purged),
            (Reason::StoreFailed, &self.failed),
            (Reason::ClientGone, &self.client_gone),
            (Reason::GuestsDiffer, &self.guests_differ),
            (Reason::GuestsUncompared, &self.guests_uncompared),
            (Reason::IdentityUnconfirmed, &self.identity_unconfirmed),
            (Reason::TooManyTags, &self.too_many_tags),
            (Reason::TagsUnread, &self.tags_unread),
            (Reason::GraphqlAnswer, &self.graphql_answer),
            (Reason::TagBodyTooLarge, &self.tag_body_too_large),
        ]
    }

    /// Counts and logs one response. A reason without a counter of its own counts as failed.
    pub(super) fn count(&self, reason: Reason, route: &Route) {
        tracing::debug!(
            reason = reason.as_str(),
            route = route.name(),
            "a response was not stored, although its head said so"
        );
        let counted = self.counts().into_iter().find(|(counted, _)| *counted == reason);
        counted.map_or(&self.failed, |(_, counter)| counter).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Step;

    #[test]
    fn what_is_dropped_for_a_reason_is_counted_where_the_pages_say() {
        let counters = StoreAbortCounters::default();
        for reason in Reason::ALL.iter().filter(|reason| reason.steps().contains(&Step::Body)) {
            let told = reason.counters().pop().expect("it has a counter");
            assert_eq!(told.metric, "sidecache_store_aborted_total");
            let counts = counters.counts();
            let own = counts.iter().find(|(counted, _)| counted == reason);
            let counted_as = own.map_or(Reason::StoreFailed, |(counted, _)| *counted);
            assert_eq!(told.label, counted_as.label(), "{reason:?}");
        }
    }
}
