//! The metrics of uploads: what is read before it is forwarded, and what broke off.

use std::sync::Arc;

use super::metrics_registrar::as_f64;
use crate::proxy::Proxy;

/// Registers the metrics of uploads.
pub(super) fn register(proxy: &Arc<Proxy>) {
    let metrics = &proxy.metrics;
    let (budget, unknown) = (&proxy.upload_budget, &proxy.unknown_outcomes);
    let documents = Arc::clone(&proxy.active_config().rules.documents);
    for (name, help, counter) in [
        (
            "sidecache_uploads_unsent",
            "Writes that the origin never got, because their upload broke off before",
            &proxy.counters.uploads_unsent,
        ),
        (
            "sidecache_reads_as_writes",
            "Requests on routes with read_only that were writes all the same: their body names \
             another method, or nobody can tell whether it does",
            &proxy.counters.reads_as_writes,
        ),
        (
            "sidecache_graphql_in_doubt",
            "POSTs to GraphQL endpoints that were writes because nobody could tell what they are",
            &documents.in_doubt,
        ),
        (
            "sidecache_graphql_unknown",
            "Requests to GraphQL endpoints that name a document by its hash alone, which this \
             sidecar has not seen",
            &documents.unknown,
        ),
        (
            "sidecache_outcomes_gathered",
            "Writes without an answer that the purge for another one covered",
            &unknown.gathered,
        ),
    ] {
        metrics.register_counter(name, help, &[], Arc::clone(counter));
    }
    for (limit, counter) in [
        ("limits.read_body", &proxy.counters.read_bodies_too_large),
        ("limits.uploads", &budget.exceeded),
        ("limits.upload_time", &proxy.counters.uploads_too_slow),
        ("outcomes.gathered", &unknown.overflowed),
    ] {
        let labels = [("limit", limit.to_owned())];
        let help = "How often a limit was reached";
        metrics.register_counter("sidecache_limit_reached", help, &labels, Arc::clone(counter));
    }
    let help = "Documents of GraphQL queries that are remembered, at most 4096";
    let known = Arc::clone(&documents);
    metrics.register_gauge("sidecache_graphql_documents", help, &[], move || as_f64(known.len()));
    let reader = Arc::downgrade(proxy);
    let help = "Bytes of uploads that are read before they are forwarded";
    metrics.register_gauge("sidecache_upload_bytes", help, &[], move || {
        let taken = reader.upgrade().map_or(0, |proxy| proxy.upload_budget.taken());
        as_f64(usize::try_from(taken).unwrap_or(usize::MAX))
    });
}
