//! The metrics of switches.

use std::sync::Arc;

use super::metrics_registrar::{MetricsRegistrar, as_f64};
use crate::policy::mode_switch::SwitchedBy;
use crate::proxy::Proxy;

/// Registers the metrics of switches.
pub(super) fn register(proxy: &Arc<Proxy>) {
    let (metrics, counters) = (&proxy.metrics, &proxy.switches.counters);
    let weak = Arc::downgrade(proxy);
    metrics.register_gauge(
        "sidecache_mode_switches",
        "Switches in force: routes, or all of them, that cache less than the file says for a time",
        &[],
        move || weak.upgrade().map_or(0.0, |proxy| as_f64(proxy.switches.count())),
    );
    for (by, counter) in [SwitchedBy::Admin, SwitchedBy::Peer].iter().zip(&counters.set) {
        metrics.register_counter(
            "sidecache_mode_switches_set",
            "Switches set, by the admin API of this sidecar or by another sidecar",
            &[("by", by.as_str().to_owned())],
            Arc::clone(counter),
        );
    }
    for (by, counter) in SwitchedBy::ALL.iter().zip(&counters.ended) {
        metrics.register_counter(
            "sidecache_mode_switches_ended",
            "Switches ended, by the admin API of this sidecar, by another sidecar, by time, or \
             because a reload has removed the route",
            &[("by", by.as_str().to_owned())],
            Arc::clone(counter),
        );
    }
    MetricsRegistrar(metrics).limit("mode.switches", &counters.refused);
}
