//! The summary that this sidecar tells of itself.

use std::time::Duration;

use super::super::state::AdminState;
use super::summary::PeerSummary;
use crate::outcome::Disposition;
use crate::telemetry::metrics::{Latency, RowView};

/// What stands in place of the words of a file that was rejected: those quote it.
const REJECTED: &str = "the changed file is rejected, the old rules stay in force";

/// The summary of this moment. The caller adds its number and the rate.
pub(super) fn summary(state: &AdminState, name: &str) -> PeerSummary {
    let proxy = &state.proxy;
    let (now, status, rows) = (proxy.clock.wall(), state.reloader.status(), proxy.metrics.rows());
    let ready = state.ready();
    let refused = status.refused.as_ref().map(|(_, why)| why.lines().next().unwrap_or_default());
    // SECURITY: what is in Redis may be read by more people than the admin API.
    let told = |reason: &String| match refused {
        Some(first) if !first.is_empty() && reason.contains(first) => REJECTED.to_owned(),
        _ => reason.clone(),
    };
    let count = |disposition| rows.iter().map(|row| row.count(disposition)).sum();
    let memory = &proxy.store.memory;
    PeerSummary {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.since(state.started).as_secs_f64(),
        mode: status.mode.as_str().to_owned(),
        status: ready.status().to_owned(),
        reasons: ready.degraded.iter().map(told).collect(),
        requests: Disposition::ALL.map(count),
        hit_ms: percentiles(&rows, |row| &row.hit),
        origin_ms: percentiles(&rows, |row| &row.origin),
        bytes_saved: rows.iter().map(|row| row.bytes_from_cache).sum(),
        entries: number(memory.len()),
        memory: [memory.weight(), memory.limit()],
        evictions: memory.evicted.get(),
        lease: proxy.coherence.records().is_some() && proxy.coherence.has_lease(),
        peers: number(proxy.coherence.status().peers),
        origin_answers: proxy.active_config().origins.answer(),
        rules: status.rules_digest,
        rules_age_s: now.since(status.loaded).as_secs_f64(),
        ..PeerSummary::default()
    }
    .fitted()
}

/// p50 and p95 in milliseconds; none if nothing was measured.
fn percentiles(rows: &[RowView], read: impl Fn(&RowView) -> &Latency) -> Option<[f64; 2]> {
    let mut all = Latency::default();
    for row in rows {
        all.add(read(row));
    }
    let ms = |quantile| Some(Duration::as_secs_f64(&all.quantile(quantile)?) * 1e3);
    Some([ms(0.5)?, ms(0.95)?])
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
