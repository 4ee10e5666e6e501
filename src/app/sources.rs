//! Runs the sources of the file in force, and shows operators what they do.

use std::sync::{Arc, Weak};

use super::metrics_registrar::MetricsRegistrar;
use crate::policy::template::Template;
use crate::proxy::Proxy;
use crate::sources::{DeliveryOutcome, SourceCounters, SourceSettings};
use crate::telemetry::events::{EventKind, PurgeEvent};
use crate::telemetry::hot_tags::TagEvent;

/// Tells of purges by sources as of all others.
pub(super) fn register(proxy: &Arc<Proxy>, wanted: &[SourceSettings]) {
    count(proxy, wanted);
    let weak = Arc::downgrade(proxy);
    proxy.sources.set_listener(move |purge| {
        let Some(proxy) = weak.upgrade() else { return };
        let names = || purge.tags.iter().map(crate::policy::tag::Tag::as_str);
        tracing::debug!(source = purge.source, tags = purge.tags.len(), "purged by a source");
        proxy.hot_tags.record(names(), TagEvent::Purged);
        proxy.shadow.note_source(purge.source, purge.tags, proxy.clock.wall());
        let event = PurgeEvent {
            by: "source",
            source: Some(purge.source.to_owned()),
            ..PurgeEvent::default()
        };
        proxy.events.publish(proxy.clock.wall(), EventKind::Purge(event.with_tags(names())));
    });
    let labels = [("by", "source".to_owned()), ("kind", "hard".to_owned())];
    let purges = Arc::clone(proxy.sources.purges());
    proxy.metrics.register_counter("sidecache_purges", "Purges", &labels, purges);
    MetricsRegistrar(&proxy.metrics).limit("sources.tags", proxy.sources.overflows());
    MetricsRegistrar(&proxy.metrics).limit("sources.rate", proxy.sources.bursts());
    MetricsRegistrar(&proxy.metrics).limit("sources.missing_ids", proxy.sources.forgotten());
    MetricsRegistrar(&proxy.metrics).limit("sources.repeats", proxy.sources.repeats());
}

/// Runs these sources from now on, for the routes in force.
pub(super) fn apply(proxy: &Arc<Proxy>, wanted: &[SourceSettings]) {
    let active = proxy.active_config();
    let routes = active.rules.routes.iter();
    let tags: Vec<Template> = routes.flat_map(|route| route.spec.tags.iter().cloned()).collect();
    count(proxy, wanted);
    proxy.sources.apply(wanted, &tags);
}

/// Registers the metrics of those that have none yet.
fn count(proxy: &Arc<Proxy>, wanted: &[SourceSettings]) {
    for (name, counters) in proxy.sources.count(wanted) {
        register_counters(proxy, &name, &counters);
        register_gauges(proxy, &name);
        if wanted.iter().any(|one| one.name == name && one.webhook_path().is_some()) {
            register_deliveries(proxy, &name, &counters);
        }
    }
}

fn register_deliveries(proxy: &Arc<Proxy>, name: &Arc<str>, counters: &SourceCounters) {
    for outcome in DeliveryOutcome::ALL {
        let labels = [("source", name.to_string()), ("outcome", outcome.as_str().to_owned())];
        proxy.metrics.register_counter(
            "sidecache_source_deliveries",
            "Webhooks that sources were sent, by what has become of them",
            &labels,
            Arc::clone(counters.deliveries.of(outcome)),
        );
    }
}

fn register_counters(proxy: &Arc<Proxy>, name: &Arc<str>, counters: &SourceCounters) {
    let labels = [("source", name.to_string())];
    let counted = [
        (
            "sidecache_source_events",
            "What sources were told: notifications, messages, rows",
            &counters.events,
        ),
        (
            "sidecache_source_tags",
            "Tags that sources have purged, with the families after gaps",
            &counters.tags,
        ),
        (
            "sidecache_source_gaps",
            "Times that sources may have missed changes, and purged all that they can name",
            &counters.gaps,
        ),
        (
            "sidecache_source_bad_payloads",
            "What sources were told that names none of their tags, and purged nothing",
            &counters.bad_payloads,
        ),
    ];
    for (metric, help, counter) in counted {
        proxy.metrics.register_counter(metric, help, &labels, Arc::clone(counter));
    }
    proxy.metrics.register_micros(
        "sidecache_source_purge_seconds",
        "Time from what sources were told to the end of the purge, all together",
        &labels,
        Arc::clone(&counters.purge_us),
    );
}

fn register_gauges(proxy: &Arc<Proxy>, name: &Arc<str>) {
    let labels = [("source", name.to_string())];
    let find = |weak: &Weak<Proxy>, name: &Arc<str>| {
        let proxy = weak.upgrade()?;
        let status = proxy.sources.list().into_iter().find(|status| status.name == *name)?;
        Some((proxy.clock.wall(), status))
    };
    let (weak, own) = (Arc::downgrade(proxy), Arc::clone(name));
    proxy.metrics.register_gauge(
        "sidecache_source_listening",
        "Whether a source hears every change: 0 while it is deaf, 1 also if a reload removed it",
        &labels,
        move || find(&weak, &own).map_or(1.0, |(_, status)| f64::from(status.is_listening())),
    );
    let (weak, own) = (Arc::downgrade(proxy), Arc::clone(name));
    proxy.metrics.register_gauge(
        "sidecache_source_heard_age_seconds",
        "How long ago the hearing of a source was proven; 0 where it never was",
        &labels,
        move || {
            let heard = find(&weak, &own)
                .and_then(|(now, status)| Some(now.since(status.view().heard?).as_secs_f64()));
            heard.unwrap_or(0.0)
        },
    );
}
