//! Registers single counters and gauges under their public names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::metrics::{Counter, Metrics};

/// Registers counters without labels, and counters of reached limits.
pub(super) struct MetricsRegistrar<'a>(pub(super) &'a Metrics);

impl MetricsRegistrar<'_> {
    pub(super) fn count(&self, name: &'static str, help: &'static str, counter: &Arc<Counter>) {
        self.0.register_counter(name, help, &[], Arc::clone(counter));
    }

    pub(super) fn gauge(&self, name: &'static str, help: &'static str, value: &Arc<AtomicUsize>) {
        let value = Arc::clone(value);
        self.0.register_gauge(name, help, &[], move || as_f64(value.load(Ordering::Relaxed)));
    }

    pub(super) fn limit(&self, name: &str, counter: &Arc<Counter>) {
        let labels = [("limit", name.to_owned())];
        self.0.register_counter(
            "sidecache_limit_reached",
            "How often a limit was reached",
            &labels,
            Arc::clone(counter),
        );
    }
}

/// Gauges are floats; counts below 2^53 lose nothing.
#[allow(clippy::cast_precision_loss, reason = "no count of things in memory comes near 2^53")]
pub(super) const fn as_f64(count: usize) -> f64 {
    count as f64
}
