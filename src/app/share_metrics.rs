//! Registers how the permits of a limit are shared.

use std::sync::Arc;

use crate::shares::ShareCounters;
use crate::telemetry::metrics::Metrics;

/// Registers the counters of the permits of a limit.
pub(super) fn register(metrics: &Metrics, limit: &str, shares: &ShareCounters) {
    for (name, help, counter) in [
        (
            "sidecache_share_waits",
            "Requests that waited for a connection or a place among writes",
            &shares.waits,
        ),
        (
            "sidecache_share_cuts",
            "Uploads, responses and idle connections of one address that were cut for another",
            &shares.cuts,
        ),
        (
            "sidecache_share_refused",
            "Requests that got no connection or no place among writes",
            &shares.refused,
        ),
        (
            "sidecache_share_departed",
            "Requests given up because their clients had left and others waited for their places",
            &shares.departed,
        ),
    ] {
        let labels = [("limit", limit.to_owned())];
        metrics.register_counter(name, help, &labels, Arc::clone(counter));
    }
}
