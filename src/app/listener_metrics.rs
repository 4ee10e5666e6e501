//! Registers what the listener for clients and the client of the origin count.

use crate::app::metrics_registrar::MetricsRegistrar;
use crate::{server, upstream};

pub(super) fn register_server(registrar: &MetricsRegistrar<'_>, server: &server::ServerCounters) {
    let count = |name, help, counter| registrar.count(name, help, counter);
    let limit = |name, counter| registrar.limit(name, counter);
    let gauge = |name, help, value| registrar.gauge(name, help, value);
    count("sidecache_connections_accepted", "Client connections accepted", &server.accepted);
    count(
        "sidecache_accept_errors",
        "Client connections that could not be accepted",
        &server.accept_errors,
    );
    count(
        "sidecache_framing_errors",
        "Requests refused because their framing is ambiguous, such as two lengths",
        &server.framing_errors,
    );
    count(
        "sidecache_head_errors",
        "Requests refused because their head cannot be read: malformed HTTP/1, or no HTTP at all",
        &server.head_errors,
    );
    count(
        "sidecache_http2_errors",
        "HTTP/2 connections that ended because of what the client sent",
        &server.http2_errors,
    );
    count(
        "sidecache_panics",
        "Requests in which the sidecar panicked, which is a bug",
        &server.panics,
    );
    gauge("sidecache_connections_open", "Client connections open", &server.open);
    limit("listen.max_connections", &server.refused_full);
    limit("listen.max_header_bytes", &server.large_heads);
    limit("listen.max_headers", &server.crowded_heads);
    limit("listen.header_timeout", &server.header_timeouts);
    limit("listen.idle_timeout", &server.idle_closed);
    limit("listen.body_timeout", &server.body_timeouts);
    limit("listen.write_timeout", &server.write_timeouts);
    limit("listen.half_closed", &server.half_closed);
    count(
        "sidecache_responses_cut",
        "Responses not sent to their end: the client left or stalled, or the origin broke off",
        &server.cut_responses,
    );
    limit("listen.drain", &server.aborted);
    limit("listen.stream_drain", &server.streams_ended);
}

pub(super) fn register_upstream(
    registrar: &MetricsRegistrar<'_>,
    upstream: &upstream::UpstreamCounters,
) {
    let count = |name, help, counter| registrar.count(name, help, counter);
    let limit = |name, counter| registrar.limit(name, counter);
    let gauge = |name, help, value| registrar.gauge(name, help, value);
    count("sidecache_upstream_connects", "Connections opened to the origin", &upstream.connects);
    count(
        "sidecache_upstream_reused",
        "Requests sent to the origin on a connection that had been used before",
        &upstream.reused,
    );
    count(
        "sidecache_upstream_retries",
        "Requests sent to the origin again, because a reused connection had been closed",
        &upstream.retries,
    );
    count(
        "sidecache_upstream_expired",
        "Connections to the origin closed at the age of upstream.max_age",
        &upstream.expired,
    );
    count(
        "sidecache_upstream_unreachable",
        "Connections to the origin that could not be opened",
        &upstream.unreachable,
    );
    count(
        "sidecache_upstream_timeouts",
        "Requests that the origin did not answer in time",
        &upstream.timeouts,
    );
    count(
        "sidecache_upstream_broken",
        "Responses of the origin that broke off or were not HTTP",
        &upstream.broken,
    );
    limit("upstream.max_waiting", &upstream.busy);
    limit("upstream.max_interim_bytes", &upstream.interim);
    limit("upstream.max_tunnels", &upstream.tunnels_rejected);
    gauge(
        "sidecache_upstream_tunnels",
        "Connections to the origin that are WebSockets, other tunnels or event streams",
        &upstream.tunnels,
    );
    limit("limits.pinned", &upstream.pins_rejected);
    gauge(
        "sidecache_upstream_pinned",
        "Connections to the origin that belong to one client, which has logged in the connection",
        &upstream.pinned,
    );
    gauge("sidecache_upstream_open", "Connections to the origin that are open", &upstream.open);
    gauge(
        "sidecache_upstream_idle",
        "Connections to the origin that are open and unused",
        &upstream.idle,
    );
    gauge(
        "sidecache_upstream_waiting",
        "Requests that wait for a connection to the origin",
        &upstream.waiting,
    );
}
