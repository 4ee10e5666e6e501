//! Feeds the history: a reading of the counters every 5 seconds, and marks for what happens.
//!
//! Nothing is added to the way of a request: the counters are there already, and are read on a
//! thread that may block, because there may be thousands of routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::{Readiness, ReadyState};
use crate::app::metrics_registrar::as_f64;
use crate::clock::{Wall, millis};
use crate::coherence::CoherenceMode;
use crate::proxy::Proxy;
use crate::telemetry::events::{EventKind, ModeEvent};
use crate::telemetry::history::{
    FINE_STEP, HistoryReading, MAX_HISTORY_BYTES, MarkKind, SlotStatus,
};
use crate::upstream::UpstreamCounters;

/// How often to look whether a reading is due, and whether Redis or the app has come or gone.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long Redis may take to be joined for the first time, beside its `rejoin_grace`, before it
/// counts as lost.
const FIRST_JOIN_GRACE: Duration = Duration::from_secs(3);

/// Registers the metrics of the history, and has events marked on it.
pub(super) fn register(proxy: &Arc<Proxy>) {
    let history = Arc::clone(&proxy.history);
    proxy.metrics.register_gauge(
        "sidecache_history_bytes",
        "Bytes of memory that the history of the dashboard takes",
        &[],
        move || as_f64(history.lock().bytes()),
    );
    proxy.metrics.register_gauge(
        "sidecache_history_limit_bytes",
        "Bytes of memory that the history of the dashboard may take",
        &[],
        || as_f64(MAX_HISTORY_BYTES),
    );
    let history = Arc::clone(&proxy.history);
    proxy.events.observe(move |event| {
        if let Some((kind, text)) = mark_of(&event.what) {
            history.lock().mark(Wall(event.at_ms), kind, &text);
        }
    });
}

/// Marks that this process begins to serve.
pub(super) fn mark_start(proxy: &Proxy, takes_over: bool) {
    let how = if takes_over { "took over from an earlier process" } else { "started" };
    let text = format!("version {} {how}", env!("CARGO_PKG_VERSION"));
    proxy.history.lock().mark(proxy.clock.wall(), MarkKind::Restart, &text);
}

/// What an event is on the axis of the history, if anything.
fn mark_of(event: &EventKind) -> Option<(MarkKind, String)> {
    match event {
        EventKind::Purge(purge) if purge.everything => {
            let soft = if purge.soft { ", soft" } else { "" };
            Some((MarkKind::PurgeEverything, format!("by {}{soft}", purge.by)))
        }
        EventKind::Reload { ok: true, changes, .. } => Some((
            MarkKind::Reload,
            match changes {
                0 => "nothing changed".to_owned(),
                1 => "1 change".to_owned(),
                _ => format!("{changes} changes"),
            },
        )),
        EventKind::Reload { ok: false, error, .. } => {
            let first = error.as_deref().and_then(|error| error.lines().next());
            Some((MarkKind::ReloadFailed, first.unwrap_or_default().to_owned()))
        }
        EventKind::Mode(ModeEvent { change, mode, route, by, .. }) => {
            let which = route.as_deref().unwrap_or("all routes");
            Some((MarkKind::Switch, format!("{which}: {mode} {change} by {by}")))
        }
        EventKind::Purge(_) | EventKind::State { .. } | EventKind::Finding { .. } => None,
    }
}

/// Takes the readings, and marks changes of Redis and the app.
pub(super) struct HistoryRecorder {
    proxy: Arc<Proxy>,
    readiness: Arc<dyn Readiness>,
    upstream: UpstreamCounters,
    is_app_down: bool,
    is_redis_lost: bool,
    /// Redis was in use at some time.
    has_joined: bool,
    started: Instant,
    /// The slot of the last reading.
    last: u64,
}

/// The number of the slot that this time is in.
fn slot_at(now: Wall) -> u64 {
    now.0 / millis(FINE_STEP)
}

impl HistoryRecorder {
    /// Takes the first reading: what is served from here on is counted.
    pub(super) fn new(
        proxy: Arc<Proxy>,
        readiness: Arc<dyn Readiness>,
        upstream: UpstreamCounters,
    ) -> Self {
        let (is_app_down, is_redis_lost, has_joined) = (false, false, false);
        let (started, last) = (proxy.clock.now(), slot_at(proxy.clock.wall()));
        let recorder = Self {
            proxy,
            readiness,
            upstream,
            is_app_down,
            is_redis_lost,
            has_joined,
            started,
            last,
        };
        recorder.reading()();
        recorder
    }

    /// Runs until the sidecar stops.
    pub(super) async fn run(mut self) {
        let stop = self.proxy.stop.clone();
        while stop.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_some() {
            self.mark_app();
            let elapsed = self.proxy.clock.now().saturating_duration_since(self.started);
            self.mark_redis(elapsed);
            // At the ends of slots, so that each slot has one reading whatever a timer adds.
            let now = slot_at(self.proxy.clock.wall());
            if now != self.last {
                self.last = now;
                // A reading that panics is logged, and is a gap.
                let _ = tokio::task::spawn_blocking(self.reading()).await;
            }
        }
    }

    /// Takes a reading when it is called.
    fn reading(&self) -> impl FnOnce() + Send + use<> {
        let proxy = Arc::clone(&self.proxy);
        let status = match self.readiness.state().state() {
            ReadyState::Ready => SlotStatus::Ready,
            ReadyState::Degraded => SlotStatus::Degraded,
            ReadyState::Unready => SlotStatus::Unready,
        };
        let failures = [&self.upstream.unreachable, &self.upstream.timeouts, &self.upstream.broken];
        let app_failures = failures.iter().map(|counter| counter.get()).sum();
        move || {
            let memory = &proxy.store.memory;
            let reading = HistoryReading {
                traffic: proxy.metrics.totals(),
                evictions: memory.evicted.get(),
                app_failures,
                memory_bytes: memory.weight(),
                memory_entries: memory.len() as u64,
                redis_round_trip: proxy.coherence.mean_redis_round_trip(),
                status,
            };
            proxy.history.lock().record(proxy.clock.wall(), reading);
        }
    }

    fn mark_app(&mut self) {
        let config = self.proxy.active_config();
        let why =
            config.origins.iter().find_map(|origin| origin.health().status().degraded_reason());
        let is_down = why.is_some();
        if is_down != self.is_app_down {
            self.is_app_down = is_down;
            let kind = if is_down { MarkKind::AppDown } else { MarkKind::AppBack };
            self.mark(kind, &why.unwrap_or_default());
        }
    }

    /// `elapsed`: for how long Redis could have been joined for the first time.
    fn mark_redis(&mut self, elapsed: Duration) {
        let coherence = &self.proxy.coherence;
        let Some(records) = coherence.records() else { return };
        let may_be_lost = elapsed >= records.client().settings().rejoin_grace + FIRST_JOIN_GRACE;
        let is_lost = coherence.mode() != CoherenceMode::Shared;
        self.has_joined |= !is_lost;
        if is_lost != self.is_redis_lost && (self.has_joined || may_be_lost) {
            self.is_redis_lost = is_lost;
            let kind = if is_lost { MarkKind::RedisLost } else { MarkKind::RedisBack };
            let why = if is_lost { coherence.degraded_reason() } else { None };
            self.mark(kind, &why.unwrap_or_default());
        }
    }

    fn mark(&self, kind: MarkKind, text: &str) {
        self.proxy.history.lock().mark(self.proxy.clock.wall(), kind, text);
    }
}
