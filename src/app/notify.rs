//! Runs the receivers of purges of the file in force, and shows operators what they were told.

use std::sync::{Arc, Weak};

use super::metrics_registrar::{MetricsRegistrar, as_f64};
use crate::notify::{NotifyCounters, NotifySettings, NotifyView};
use crate::proxy::Proxy;

/// Registers the metrics of receivers.
pub(super) fn register(proxy: &Arc<Proxy>, wanted: &[NotifySettings]) {
    count(proxy, wanted);
    MetricsRegistrar(&proxy.metrics).limit("notify.tags", proxy.notifiers.overflows());
}

/// Tells these receivers from now on.
pub(super) fn apply(proxy: &Arc<Proxy>, wanted: &[NotifySettings]) {
    count(proxy, wanted);
    proxy.notifiers.apply(wanted);
}

/// Registers the metrics of those that have none yet.
fn count(proxy: &Arc<Proxy>, wanted: &[NotifySettings]) {
    for (name, counters) in proxy.notifiers.count(wanted) {
        register_counters(proxy, &name, &counters);
        register_gauges(proxy, &name);
    }
}

fn register_counters(proxy: &Arc<Proxy>, name: &Arc<str>, counters: &NotifyCounters) {
    let outcomes = [
        ("sent", &counters.sent),
        ("failed", &counters.failures),
        ("rejected", &counters.rejected),
    ];
    for (outcome, counter) in outcomes {
        let labels = [("notify", name.to_string()), ("outcome", outcome.to_owned())];
        proxy.metrics.register_counter(
            "sidecache_notify_requests",
            "Requests that told of purges, by what became of them",
            &labels,
            Arc::clone(counter),
        );
    }
    let labels = [("notify", name.to_string())];
    for (metric, help, counter) in [
        ("sidecache_notify_tags", "Tags whose purge was told", &counters.tags),
        (
            "sidecache_notify_everything",
            "Times that everything was purged at a receiver",
            &counters.everything,
        ),
    ] {
        proxy.metrics.register_counter(metric, help, &labels, Arc::clone(counter));
    }
}

fn register_gauges(proxy: &Arc<Proxy>, name: &Arc<str>) {
    let labels = [("notify", name.to_string())];
    let find = |weak: &Weak<Proxy>, name: &Arc<str>| -> Option<NotifyView> {
        let list = weak.upgrade()?.notifiers.list();
        list.into_iter().map(|(view, _)| view).find(|view| view.name == *name)
    };
    let (weak, own) = (Arc::downgrade(proxy), Arc::clone(name));
    proxy.metrics.register_gauge(
        "sidecache_notify_waiting",
        "Tags whose purge was not told yet; 1 for everything",
        &labels,
        move || find(&weak, &own).map_or(0.0, |view| as_f64(view.waiting)),
    );
    let (weak, own) = (Arc::downgrade(proxy), Arc::clone(name));
    proxy.metrics.register_gauge(
        "sidecache_notify_failures",
        "Requests that have failed one after the other, the last of them just now",
        &labels,
        move || find(&weak, &own).map_or(0.0, |view| f64::from(view.failures)),
    );
}
