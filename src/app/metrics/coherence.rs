//! The counters of coherence: Redis, its peers, leases, purges and the journal.

use std::sync::Arc;

use crate::proxy::Proxy;
use crate::telemetry::metrics::{Counter, Metrics};

/// Registers the counters of coherence and of the client of Redis.
pub(super) fn register(proxy: &Arc<Proxy>) {
    let count = |name, help, counter| count(&proxy.metrics, name, help, counter);
    let coherence = &proxy.coherence.counters;
    count("sidecache_purged_tags", "Tags purged", &coherence.purged_tags);
    count(
        "sidecache_fills_purged",
        "Fills whose responses were not stored because a tag was purged meanwhile",
        &coherence.fills_purged,
    );
    count(
        "sidecache_mutations_orphaned",
        "Writes treated as committed because their sidecar died",
        &coherence.orphans,
    );
    count("sidecache_redis_losses", "How often Redis was lost", &coherence.losses);
    count(
        "sidecache_redis_rejoins",
        "How often Redis was joined, including the first time",
        &coherence.rejoins,
    );
    count(
        "sidecache_redis_fence_changes",
        "How often another Redis primary was found than before",
        &coherence.fences,
    );
    count(
        "sidecache_redis_heartbeats",
        "Heartbeats sent to the other sidecars",
        &coherence.heartbeats,
    );
    count(
        "sidecache_leases_lost",
        "Leases that expired before they were renewed",
        &coherence.leases_lost,
    );
    count(
        "sidecache_stalls",
        "Times that this process was stopped, or got no processor, for more than 50 ms",
        &coherence.stalls,
    );
    proxy.metrics.register_micros(
        "sidecache_stall_seconds",
        "Time that this process was stopped or got no processor",
        &[],
        Arc::clone(&coherence.stalled_us),
    );
    count(
        "sidecache_heartbeat_timeouts",
        "Requests that found the last heartbeat too old to trust the local state",
        &coherence.heartbeat_timeouts,
    );
    count(
        "sidecache_purges_acknowledged",
        "Purges that all other sidecars acknowledged",
        &coherence.acknowledged,
    );
    count(
        "sidecache_purges_released_by_lease_expiry",
        "Purges that were held until the leases of other sidecars had expired",
        &coherence.purges_released_by_lease_expiry,
    );
    let waited = Arc::clone(&coherence.waited_us);
    proxy.metrics.register_micros(
        "sidecache_purge_wait_seconds",
        "Time that purges waited for other sidecars",
        &[],
        waited,
    );
    register_peers(proxy);
    register_journal(proxy);
    register_summaries(proxy);
    register_redis_client(proxy);
}

fn register_peers(proxy: &Arc<Proxy>) {
    let count = |name, help, counter| count(&proxy.metrics, name, help, counter);
    let coherence = &proxy.coherence.counters;
    count(
        "sidecache_peers_evicted",
        "Other sidecars removed because they were silent for longer than their leases",
        &coherence.peers_evicted,
    );
    count(
        "sidecache_other_protocols",
        "How often a sidecar of another protocol was met, so that nothing was cached",
        &coherence.other_protocols,
    );
}

fn register_summaries(proxy: &Arc<Proxy>) {
    let count = |name, help, counter| count(&proxy.metrics, name, help, counter);
    let coherence = &proxy.coherence.counters;
    count(
        "sidecache_summaries_published",
        "Summaries of this sidecar published in Redis for the lists of all sidecars",
        &coherence.summaries_published,
    );
    count(
        "sidecache_summaries_failed",
        "Summaries of this sidecar that could not be published",
        &coherence.summaries_failed,
    );
    count(
        "sidecache_peer_reads",
        "How often the summaries of all sidecars were read from Redis",
        &coherence.summary_reads,
    );
    count(
        "sidecache_peer_read_failures",
        "How often they could not be read",
        &coherence.summary_read_failures,
    );
    count(
        "sidecache_summaries_unreadable",
        "Values found in the place of summaries that no sidecar has written",
        &coherence.summaries_unreadable,
    );
}

fn register_journal(proxy: &Arc<Proxy>) {
    let count = |name, help, counter| count(&proxy.metrics, name, help, counter);
    let coherence = &proxy.coherence.counters;
    count(
        "sidecache_journal_writes",
        "Purges written to the journal, until Redis is joined again",
        &coherence.journal_writes,
    );
    count(
        "sidecache_journal_failures",
        "Lines of the journal that could not be written to its file",
        proxy.coherence.journal_failures(),
    );
    count(
        "sidecache_replayed_tags",
        "Tags purged from the journal when Redis was joined again",
        &coherence.replayed,
    );
}

fn register_redis_client(proxy: &Arc<Proxy>) {
    let count = |name, help, counter| count(&proxy.metrics, name, help, counter);
    if let Some(shared) = proxy.coherence.records() {
        let link = &shared.client().counters;
        count("sidecache_redis_calls", "Calls to Redis", &link.calls);
        count("sidecache_redis_errors", "Calls to Redis that failed", &link.errors);
        count(
            "sidecache_redis_renewals",
            "How often the client of Redis was replaced",
            &link.renewals,
        );
        count(
            "sidecache_records_refused",
            "Sealed tag records not used: forged, put back, or of before a purge of everything",
            &shared.refused,
        );
    }
}

fn count(metrics: &Metrics, name: &'static str, help: &'static str, counter: &Arc<Counter>) {
    metrics.register_counter(name, help, &[], Arc::clone(counter));
}
