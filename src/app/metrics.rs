//! Registers the counters and gauges of all parts under their public names.

use std::sync::Arc;
use std::time::Duration;

use crate::app::metrics_registrar::{MetricsRegistrar, as_f64};
#[cfg(target_os = "linux")]
use crate::app::process_metrics;
use crate::app::{
    compress_metrics, history, listener_metrics, packing_metrics, session_metrics, share_metrics,
    switch_metrics, upload_metrics,
};
use crate::cache::fills::cluster::ClusterFills;
use crate::coherence::CoherenceMode;
use crate::policy::route;
use crate::policy::route::RouteSpec;
use crate::proxy::{Proxy, ProxyCounters};
use crate::telemetry::log;
use crate::uncached::UncachedCounters;
use crate::{server, upstream};

mod coherence;

/// Registers the counters of all parts.
pub(super) fn register(
    proxy: &Arc<Proxy>,
    server: &server::ServerCounters,
    upstream: &upstream::UpstreamCounters,
) {
    let registrar = MetricsRegistrar(&proxy.metrics);
    listener_metrics::register_server(&registrar, server);
    listener_metrics::register_upstream(&registrar, upstream);
    register_flow(&registrar, &proxy.counters);
    register_purges(&registrar, &proxy.counters);
    let started = Duration::from_millis(proxy.clock.wall().0).as_secs_f64();
    proxy.metrics.register_gauge(
        "sidecache_start_time_seconds",
        "When the sidecar started, in seconds since 1970",
        &[],
        move || started,
    );
    #[cfg(target_os = "linux")]
    process_metrics::register(&proxy.metrics, started);
    for (limit, shares) in [
        ("listen.max_connections", &server.shares),
        ("upstream.max_connections", &upstream.shares),
        ("limits.mutations", &proxy.counters.mutation_shares),
    ] {
        share_metrics::register(&proxy.metrics, limit, shares);
    }
    registrar.count(
        "sidecache_log_lines_suppressed",
        "WARN and ERROR lines that were not logged, because there were too many of their kind",
        &log::SUPPRESSED_LINES,
    );
    register_tail(proxy);
    register_cache(proxy);
    coherence::register(proxy);
    if let Some(shared) = proxy.coherence.records() {
        registrar.limit("redis.deadline", &shared.client().counters.timeouts);
    }
    register_state(proxy);
    register_shadow(proxy);
    switch_metrics::register(proxy);
    session_metrics::register(&proxy.metrics);
    register_cluster_fills(proxy);
    history::register(proxy);
    upload_metrics::register(proxy);
    compress_metrics::register(proxy);
    register_uncached(&registrar, &proxy.uncached.counters);
}

fn register_uncached(registrar: &MetricsRegistrar<'_>, uncached: &UncachedCounters) {
    registrar.gauge(
        "sidecache_uncached_templates",
        "Templates of paths without a route that are counted, for `/uncached`",
        &uncached.templates,
    );
    registrar.limit("uncached.templates", &uncached.evicted);
    registrar.limit("uncached.queue", &uncached.queue_full);
    registrar.limit("uncached.trail", &uncached.trail);
    // No limit that an operator should hear of: the numbers stay true.
    registrar.count(
        "sidecache_uncached_unsampled",
        "Requests without a route that were not looked at for `/uncached`, because others of a \
         sample stand for them",
        &uncached.unsampled,
    );
}

/// Registers what is counted of purges by others than writes, and of tags in responses.
fn register_tags(registrar: &MetricsRegistrar<'_>, flow: &ProxyCounters) {
    registrar.count(
        "sidecache_purge_requests_refused",
        "`PURGE` and `BAN` that were refused",
        &flow.purge_requests_refused,
    );
    registrar.limit("limits.tag_body", &flow.tag_bodies_refused);
}

fn register_flow(registrar: &MetricsRegistrar<'_>, flow: &ProxyCounters) {
    let count = |name, help, counter| registrar.count(name, help, counter);
    let limit = |name, counter| registrar.limit(name, counter);
    register_tags(registrar, flow);
    count("sidecache_mutations", "Writes: requests with an unsafe method", &flow.mutations);
    count("sidecache_mutations_purging", "Writes that purged something", &flow.purging);
    count(
        "sidecache_purge_missing_fields",
        "Fields of purge rules that a write lacked, so that the families of their tags were purged",
        &flow.missing_fields,
    );
    count(
        "sidecache_purge_too_many_values",
        "Fields of purge rules that had too many values, so that the families of their tags were \
         purged",
        &flow.too_many_values,
    );
    count(
        "sidecache_purges_at_end",
        "Purges repeated at the end of a reply to a write that was still being sent at the purge",
        &flow.purges_at_end,
    );
    count(
        "sidecache_handovers_failed",
        "Processes that wanted to take over, and have failed",
        &flow.handovers_failed,
    );
    count(
        "sidecache_mutations_uncovered",
        "Writes below a cached path that no purge rule matches",
        &flow.uncovered,
    );
    count(
        "sidecache_requests_refused",
        "Requests refused because they break a rule of HTTP",
        &flow.refused,
    );
    count(
        "sidecache_requests_abandoned",
        "Requests whose clients left before the response began",
        &flow.abandoned,
    );
    count(
        "sidecache_fills_given_up",
        "Fills that no request waited for any more, given up because others needed their places",
        &flow.fills_given_up,
    );
    count("sidecache_tunnels", "WebSockets and other upgraded connections opened", &flow.tunnels);
    limit("limits.mutations", &flow.mutations_rejected);
    count(
        "sidecache_revalidated",
        "Stored responses that the origin revalidated with a 304",
        &flow.revalidated,
    );
    count(
        "sidecache_refreshes",
        "Responses fetched in the background, to refresh what is stored",
        &flow.refreshes,
    );
    count(
        "sidecache_late_fills",
        "Responses fetched in the background because Redis replied after `redis.deadline`",
        &flow.late_fills,
    );
    limit("limits.refreshes", &flow.refreshes_rejected);
    limit("route.learned", &flow.headers_unlearned);
    limit("route.key_parts", &flow.keys_unobserved);
    limit("credential.known", &flow.callers_unremembered);
    for (why, counter) in
        [("while_revalidate", &flow.while_revalidate), ("app_failed", &flow.stale_if_error)]
    {
        let labels = [("why", why.to_owned())];
        registrar.0.register_counter(
            "sidecache_served_stale",
            "Responses served stale",
            &labels,
            Arc::clone(counter),
        );
    }
}

/// Registers the counters of the live tail.
fn register_tail(proxy: &Arc<Proxy>) {
    let registrar = MetricsRegistrar(&proxy.metrics);
    let (counters, tail) = (&proxy.tail.counters, Arc::clone(&proxy.tail));
    registrar.count("sidecache_tail_lines", "Requests told to clients of `/tail`", &counters.lines);
    registrar.limit("tail.rate", &counters.beyond_rate);
    registrar.limit("tail.backlog", &counters.lost);
    registrar.limit("tail.subscribers", &counters.refused);
    proxy.metrics.register_gauge(
        "sidecache_tail_subscribers",
        "Clients of `/tail`",
        &[],
        move || as_f64(tail.listeners()),
    );
}

/// Registers the counters of purges, and of fills that did not end in a stored response.
fn register_purges(registrar: &MetricsRegistrar<'_>, flow: &ProxyCounters) {
    let metrics = registrar.0;
    let purges = &flow.purges;
    for (by, kind, counter) in [
        ("write", "hard", &purges.write),
        ("request", "hard", &purges.request),
        ("admin", "hard", &purges.admin_hard),
        ("admin", "soft", &purges.admin_soft),
    ] {
        let labels = [("by", by.to_owned()), ("kind", kind.to_owned())];
        metrics.register_counter("sidecache_purges", "Purges", &labels, Arc::clone(counter));
    }
    for (reason, counter) in flow.store_aborted.counts() {
        let labels = [("reason", reason.label().into_owned())];
        let help = "Responses that were dropped while their bodies arrived, although their heads \
                    said `stored`";
        metrics.register_counter("sidecache_store_aborted", help, &labels, Arc::clone(counter));
    }
}

fn register_shadow(proxy: &Arc<Proxy>) {
    let registrar = MetricsRegistrar(&proxy.metrics);
    registrar.limit("limits.shadow_keys", &proxy.shadow.counters.evicted);
    registrar.limit("shadow.callers", &proxy.shadow.counters.callers_forgotten);
    registrar.limit("shadow.routes", &proxy.shadow.counters.routes);
    registrar.limit("shadow.languages", &proxy.shadow.counters.languages);
    watch_routes(proxy);
}

/// Registers the counters of routes in shadow mode or with audits, from zero on, so that the first
/// finding shows as an increase.
pub(super) fn watch_routes(proxy: &Proxy) {
    let watched = |spec: &RouteSpec| spec.mode == route::RouteMode::Shadow || spec.audit > 0.0;
    for route in proxy.active_config().rules.routes.iter().filter(|route| watched(&route.spec)) {
        let _ = proxy.shadow.route(route.name());
    }
}

fn register_cache(proxy: &Arc<Proxy>) {
    let registrar = MetricsRegistrar(&proxy.metrics);
    let count = |name, help, counter| registrar.count(name, help, counter);
    let limit = |name, counter| registrar.limit(name, counter);
    let coalesce = &proxy.fills.counters;
    count("sidecache_fills", "Fills that other requests could join", &coalesce.fills);
    count(
        "sidecache_collapsed",
        "Requests that joined the fill of another request",
        &coalesce.collapsed,
    );
    limit("limits.waiters", &coalesce.waiters_rejected);
    limit("limits.wait", &coalesce.wait_timeouts);
    limit("limits.object", &proxy.store.memory.refused);
    limit("limits.fills", &proxy.fills.budget.exceeded);
    limit("limits.range_factor", &proxy.range_budget.exceeded);
    limit("limits.variants", &proxy.store.variants.dropped);
    limit("limits.admissions", &proxy.authorized_clients.evicted);
    let proofs = &proxy.guest_proofs.counters;
    limit("guests.proofs", &proofs.rejected);
    for (result, counter) in proofs.counts() {
        proxy.metrics.register_counter(
            "sidecache_guest_proofs",
            "Second requests that prove whether an answer that sets cookies is the same for all \
             guests, by their result",
            &[("result", result.to_owned())],
            Arc::clone(counter),
        );
    }

    count(
        "sidecache_memory_evictions",
        "Entries removed from memory to make room for others",
        &proxy.store.memory.evicted,
    );
    count("sidecache_stored", "Responses stored", &proxy.store.counters.stored);
    count(
        "sidecache_stale_refused",
        "Stored responses not served because they had been purged",
        &proxy.store.counters.refused_stale,
    );
    packing_metrics::register(proxy);
    let scans = &proxy.store.counters.scans;
    count("sidecache_memory_scans", "Times that an operator has browsed the memory", &scans.scans);
    count(
        "sidecache_memory_scan_entries",
        "Entries and vary marks looked at while an operator browsed the memory",
        &scans.entries,
    );
    count(
        "sidecache_memory_scans_refused",
        "Times that the memory could not be browsed, because others were doing so",
        &scans.refused,
    );
    count(
        "sidecache_memory_scans_cut_short",
        "Times that browsing the memory took too long, so that a part was shown",
        &scans.cut_short,
    );
}

/// Registers gauges of the current state of the tiers and of coherence.
fn register_state(proxy: &Arc<Proxy>) {
    let gauge = |name: &'static str, help: &'static str, read: fn(&Proxy) -> f64| {
        let (metrics, proxy) = (&proxy.metrics, Arc::downgrade(proxy));
        metrics.register_gauge(name, help, &[], move || {
            proxy.upgrade().map_or(0.0, |proxy| read(&proxy))
        });
    };
    gauge(
        "sidecache_draining",
        "1 while the sidecar drains: it was told to stop, or has handed over",
        |proxy| f64::from(u8::from(proxy.leaving.is_cancelled())),
    );
    gauge(
        "sidecache_awaits_predecessor",
        "1 while an earlier process still answers writes, so that nothing is cached",
        |proxy| f64::from(u8::from(proxy.overlap.awaits_predecessor())),
    );
    gauge("sidecache_memory_entries", "Entries in memory", |proxy| {
        as_f64(proxy.store.memory.len())
    });
    gauge("sidecache_memory_bytes", "Bytes of the entries in memory", |proxy| {
        bytes(proxy.store.memory.weight())
    });
    gauge("sidecache_memory_limit_bytes", "Bytes that entries may take in memory", |proxy| {
        bytes(proxy.store.memory.limit())
    });
    gauge("sidecache_local_tags", "Tags in the local table", |proxy| {
        as_f64(proxy.coherence.local_tags())
    });
    gauge("sidecache_fills_in_flight", "Fills in progress", |proxy| as_f64(proxy.fills.len()));
    gauge("sidecache_fill_waiters", "Requests that wait for the head of a fill", |proxy| {
        as_f64(proxy.fills.waiting())
    });
    gauge(
        "sidecache_admissions",
        "Authorizations remembered, for routes of scope `shared`: one for each client and entry",
        |proxy| as_f64(proxy.authorized_clients.len()),
    );
    gauge("sidecache_events_subscribers", "Clients of `/events`", |proxy| {
        as_f64(proxy.events.listeners())
    });
    gauge(
        "sidecache_journal_depth",
        "Purges in the journal, which Redis has not been told yet",
        |proxy| as_f64(proxy.coherence.status().journal),
    );
    gauge(
        "sidecache_lease_held",
        "1 while the sidecar holds a lease, so that hits from memory do not ask Redis",
        |proxy| f64::from(u8::from(proxy.coherence.has_lease())),
    );
    gauge("sidecache_peers", "Other sidecars that are alive", |proxy| {
        as_f64(proxy.coherence.status().peers)
    });
    gauge("sidecache_purges_waiting", "Purges that wait for other sidecars", |proxy| {
        as_f64(proxy.coherence.status().waits)
    });
    gauge(
        "sidecache_redis_round_trip_seconds",
        "The least time that Redis took to reply to one of the last 8 heartbeats",
        |proxy| proxy.coherence.redis_round_trip().unwrap_or_default().as_secs_f64(),
    );
    gauge(
        "sidecache_upstream_up",
        "0 while the origin of an app does not answer; 1 while they do, and before the first \
         request",
        |proxy| {
            let config = proxy.active_config();
            let is_up = config.origins.iter().all(|app| app.health().status().outage.is_none());
            f64::from(u8::from(is_up))
        },
    );
    gauge("sidecache_redis_up", "1 while Redis is in use", |proxy| {
        f64::from(u8::from(proxy.coherence.mode() == CoherenceMode::Shared))
    });
}

pub(super) fn register_cluster_fills(proxy: &Arc<Proxy>) {
    let Some(across) = proxy.cluster_fills.get() else { return };
    let registrar = MetricsRegistrar(&proxy.metrics);
    registrar.count(
        "sidecache_cluster_leases",
        "Fills on behalf of all sidecars",
        &across.counters.locks,
    );
    registrar.count(
        "sidecache_cluster_waits",
        "Waits for fills of other sidecars",
        &across.counters.waits,
    );
    registrar.count(
        "sidecache_cluster_wait_timeouts",
        "Waits for fills of other sidecars that took too long",
        &across.counters.wait_timeouts,
    );
    registrar.count(
        "sidecache_cluster_waiters_rejected",
        "Fills not waited for because too many requests waited already",
        &across.counters.waiters_rejected,
    );
    registrar.count(
        "sidecache_cluster_gaps",
        "How often messages about fills of other sidecars may have been missed",
        &across.counters.lags,
    );
    for (name, help, read) in [
        (
            "sidecache_cluster_listening",
            "1 while messages about fills of other sidecars arrive",
            (|across| usize::from(across.is_listening())) as fn(&ClusterFills) -> usize,
        ),
        ("sidecache_cluster_waiting", "Fills that wait for another sidecar", ClusterFills::waiting),
    ] {
        let across = Arc::downgrade(across);
        proxy.metrics.register_gauge(name, help, &[], move || {
            across.upgrade().map_or(0.0, |across| as_f64(read(&across)))
        });
    }
}

fn bytes(count: u64) -> f64 {
    as_f64(usize::try_from(count).unwrap_or(usize::MAX))
}
