//! Starts the tracer and its exporter, and ends them.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::metrics_registrar::MetricsRegistrar;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{TraceCounters, TraceSettings, Tracer};

/// How long sending what is left may take, after the drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What sends the spans, if anything does.
#[derive(Debug, Default)]
pub(super) struct TraceExport {
    stop: CancellationToken,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl TraceExport {
    /// The tracer, if there is a collector, and what sends its spans. A tracer that cannot be built
    /// fails nothing: fail open.
    pub(super) fn start(
        settings: Option<&TraceSettings>,
        metrics: &Metrics,
    ) -> (Option<Tracer>, Self) {
        let export = Self::default();
        let tracer = settings.and_then(|settings| export.tracer(settings));
        // A metric is there whether or not what it counts is switched on.
        let counters = tracer.as_ref().map(|tracer| tracer.counters.clone()).unwrap_or_default();
        register(metrics, &counters);
        (tracer, export)
    }

    #[cfg(feature = "otel")]
    fn tracer(&self, settings: &TraceSettings) -> Option<Tracer> {
        use crate::telemetry::trace::export::Exporter;

        let (tracer, spans) = Tracer::new(settings);
        match Exporter::new(settings, spans, tracer.counters.clone()) {
            Ok(exporter) => {
                let task = tokio::spawn(exporter.run(self.stop.clone()));
                *self.task.lock() = Some(task);
                Some(tracer)
            }
            Err(error) => {
                tracing::warn!(%error, "there will be no spans: the exporter cannot be set up");
                None
            }
        }
    }

    /// A file with `[trace]` is refused where this is compiled.
    #[cfg(not(feature = "otel"))]
    fn tracer(&self, _: &TraceSettings) -> Option<Tracer> {
        let _ = &self.task;
        None
    }

    /// Sends what is left, within a time.
    pub(super) async fn finish(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(mut task) = task
            && tokio::time::timeout(FLUSH_TIMEOUT, &mut task).await.is_err()
        {
            task.abort();
            tracing::warn!("the collector is too slow for the last spans; they are dropped");
        }
    }
}

fn register(metrics: &Metrics, counters: &TraceCounters) {
    let registrar = MetricsRegistrar(metrics);
    registrar.count(
        "sidecache_spans_exported",
        "Spans that the collector took",
        &counters.exported,
    );
    registrar.count(
        "sidecache_spans_dropped",
        "Spans that the collector did not take, or that found no room in the queue",
        &counters.dropped,
    );
    registrar.limit("trace.queue", &counters.queue_full);
    registrar.limit("trace.strangers", &counters.strangers_refused);
}
