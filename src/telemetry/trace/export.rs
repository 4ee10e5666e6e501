//! Sends finished spans to the collector, in batches (OTLP over HTTP, protobuf).
//!
//! The SDK's own batch processor is not used: it does not count what it drops, and its retries
//! block a thread. A batch that the collector does not take is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::collector::{BATCH_TIMEOUT, CollectorClient};
use super::span_data::span_data;
use super::{FinishedSpan, TraceCounters, TraceSettings};

/// The most spans that are sent at once.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Sends spans until it is stopped.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<FinishedSpan>,
    /// Those that are gathered.
    batch: Vec<FinishedSpan>,
    /// How many are on their way.
    in_flight: usize,
    sender: SpanExporter,
    client: Arc<CollectorClient>,
    scope: InstrumentationScope,
    counters: TraceCounters,
    url: String,
    failing: bool,
}

impl Exporter {
    /// An exporter of these spans.
    pub fn new(
        settings: &TraceSettings,
        spans: mpsc::Receiver<FinishedSpan>,
        counters: TraceCounters,
    ) -> Result<Self, ExporterBuildError> {
        let client = Arc::new(CollectorClient::new(settings));
        let shared: Arc<dyn HttpClient> = Arc::<CollectorClient>::clone(&client);
        let mut sender = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(shared)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.url())
            .with_timeout(BATCH_TIMEOUT)
            // The pauses between its retries would block a thread of the runtime.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
            resource = resource.with_service_name("sidecache");
        }
        sender.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("sidecache")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self {
            spans,
            batch: Vec::new(),
            in_flight: 0,
            sender,
            client,
            scope,
            counters,
            url: settings.url(),
            failing: false,
        })
    }

    /// Sends spans until `stop`, and then those that are left. Whoever stops it bounds that.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.gather()).await == Some(true) {
            // A batch on its way is not given up at the stop.
            self.send().await;
        }
        self.spans.close();
        loop {
            let room = BATCH.saturating_sub(self.batch.len());
            if room > 0 {
                self.spans.recv_many(&mut self.batch, room).await;
            }
            if self.batch.is_empty() {
                return;
            }
            self.send().await;
        }
    }

    /// Gathers a batch; false when there will be no further one. It may be dropped: what it has
    /// gathered stays.
    async fn gather(&mut self) -> bool {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, BATCH).await == 0 {
            return false;
        }
        let more = async {
            while self.batch.len() < BATCH {
                let room = BATCH - self.batch.len();
                if self.spans.recv_many(&mut self.batch, room).await == 0 {
                    break;
                }
            }
        };
        // Whatever has come within the time is a batch.
        let _ = tokio::time::timeout(GATHER_TIME, more).await;
        true
    }

    async fn send(&mut self) {
        let spans = std::mem::take(&mut self.batch);
        self.in_flight = spans.len();
        let spans = spans.iter().map(|span| span_data(span, &self.scope)).collect();
        let result = self.sender.export(spans).await;
        let count = std::mem::take(&mut self.in_flight);
        if let Err(error) = result {
            self.counters.dropped.add(count as u64);
            let cause = self.client.take_failure().unwrap_or_else(|| error.to_string());
            self.note_failure(&cause);
        } else {
            self.counters.exported.add(count as u64);
            if std::mem::take(&mut self.failing) {
                tracing::info!(collector = %self.url, "the collector takes spans again");
            }
        }
    }

    /// Tells of the first failure, and not of those that follow.
    fn note_failure(&mut self, cause: &str) {
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(collector = %self.url, cause, "the collector does not take spans");
        } else {
            tracing::warn!(
                collector = %self.url,
                cause,
                "the collector does not take spans, so they are dropped; requests are served as \
                 ever. Start it, or mend endpoint in [trace]"
            );
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let left = self.in_flight + self.batch.len() + self.spans.len();
        self.counters.dropped.add(left as u64);
    }
}
