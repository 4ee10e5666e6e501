//! The metrics of reloads.

use std::sync::Arc;

use super::metrics_registrar::{MetricsRegistrar, as_f64};
use super::reload::Reloader;
use crate::admin::ReloadStatus;
use crate::telemetry::metrics::Metrics;

/// Registers the metrics of reloads.
pub(super) fn register(reloader: &Arc<Reloader>, metrics: &Metrics) {
    for (result, counter) in [("ok", &reloader.counters.ok), ("failed", &reloader.counters.failed)]
    {
        let labels = [("result", result.to_owned())];
        metrics.register_counter(
            "sidecache_config_reloads",
            "Reloads of the config file",
            &labels,
            Arc::clone(counter),
        );
    }
    MetricsRegistrar(metrics).limit("admin.trials", &reloader.counters.trials_pending);
    let gauge = |name: &'static str, help: &'static str, read: fn(&ReloadStatus) -> f64| {
        let reloader = Arc::downgrade(reloader);
        metrics.register_gauge(name, help, &[], move || {
            reloader.upgrade().map_or(0.0, |reloader| read(&reloader.status()))
        });
    };
    gauge(
        "sidecache_config_last_reload_successful",
        "1 while the rules in force are those of the file",
        |status| f64::from(u8::from(status.refused.is_none())),
    );
    gauge(
        "sidecache_config_last_reload_success_timestamp_seconds",
        "When the rules in force were loaded, in seconds since 1970",
        |status| as_f64(usize::try_from(status.loaded.seconds()).unwrap_or(usize::MAX)),
    );
}
