//! What is kept of `[identity]` over reloads: the writes of callers, and the counts. The answers
//! are not: each reload begins without any.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::metrics_registrar::{MetricsRegistrar, as_f64};
use crate::config::Config;
use crate::policy::identity::{IdentityCounters, IdentityFault, IdentityTable, IdentityWrites};
use crate::telemetry::metrics::Metrics;

/// Makes the table of each configuration. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityKeeper {
    writes: Arc<Mutex<Weak<IdentityWrites>>>,
    counters: IdentityCounters,
    current: Arc<Mutex<Weak<IdentityTable>>>,
}

impl IdentityKeeper {
    /// An empty table by this file, if it has an `[identity]`.
    pub(super) fn table(&self, config: &Config) -> Option<Arc<IdentityTable>> {
        let settings = config.identity.clone()?;
        let writes = {
            let mut kept = self.writes.lock();
            let writes = kept.upgrade().unwrap_or_default();
            *kept = Arc::downgrade(&writes);
            writes
        };
        let (pointers, counters) = (config.identity_pointers(), self.counters.clone());
        let table = Arc::new(IdentityTable::new(settings, pointers, writes, counters));
        *self.current.lock() = Arc::downgrade(&table);
        Some(table)
    }

    /// Registers the metrics.
    pub(crate) fn register(&self, metrics: &Metrics) {
        let counters = &self.counters;
        let faults = IdentityFault::ALL.iter().map(|fault| fault.label()).zip(&counters.faults);
        for (result, counter) in faults.chain([("known", &counters.known)]) {
            metrics.register_counter(
                "sidecache_identity_probes",
                "Questions to the origin who a caller is (`[identity]`), by what came of them; \
                 not those whose answer is remembered",
                &[("result", result.to_owned())],
                Arc::clone(counter),
            );
        }
        metrics.register_counter(
            "sidecache_identity_joined",
            "Requests that waited for the answer to another one's question who their caller is",
            &[],
            Arc::clone(&counters.joined),
        );
        let registrar = MetricsRegistrar(metrics);
        registrar.limit("identity.callers", &counters.evicted);
        registrar.limit("identity.probes", &counters.crowded);
        registrar.limit("identity.waiters", &counters.waiters);
        self.gauge(
            metrics,
            "sidecache_identity_callers",
            "Answers of the origin about callers that are remembered",
            |table| as_f64(table.remembered()),
        );
        self.gauge(
            metrics,
            "sidecache_identity_off",
            "1 if an answer about a caller has set a cookie, so that none is asked for until the \
             next reload",
            |table| if table.is_off() { 1.0 } else { 0.0 },
        );
    }

    fn gauge(
        &self,
        metrics: &Metrics,
        name: &'static str,
        help: &'static str,
        read: impl Fn(&IdentityTable) -> f64 + Send + Sync + 'static,
    ) {
        let current = Arc::clone(&self.current);
        metrics.register_gauge(name, help, &[], move || {
            current.lock().upgrade().map_or(0.0, |table| read(&table))
        });
    }
}
