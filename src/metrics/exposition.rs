//! A snapshot of families of metrics, written as `OpenMetrics` text by prometheus-client's encoder.
//!
//! Knows names, labels and numbers; not where they come from.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What a scrape is answered with, as media type: the encoder writes `OpenMetrics` 1.0.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A series' labels, in the order in which they are written.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Whether a family's numbers only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// A constant 1 whose labels are the message.
    Info,
}

/// One number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Level(f64),
}

/// One name, and its series by their labels (sorted, each once).
#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) series: BTreeMap<Labels, Value>,
}

/// Families by name, without the suffixes `_total` and `_info`, which the encoder appends.
#[derive(Debug, Default)]
pub(super) struct Snapshot(pub(super) BTreeMap<&'static str, Family>);

impl Snapshot {
    /// The exposition, up to its `# EOF`.
    pub(super) fn encode(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::with_capacity(4096);
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            // Writing to a String cannot fail; if the encoder ever refuses, a scrape without its `# EOF` would be taken for a truncated one.
            Err(fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(name, family.help, None, kind)?;
            for (labels, value) in &family.series {
                series(&mut metric, family.kind, labels, *value)?;
            }
        }
        Ok(())
    }
}

fn series(metric: &mut MetricEncoder<'_>, kind: Kind, labels: &Labels, value: Value) -> fmt::Result {
    if kind == Kind::Info {
        return metric.encode_info(labels);
    }
    if labels.is_empty() {
        return number(metric, kind, value);
    }
    number(&mut metric.encode_family(labels)?, kind, value)
}

fn number(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => metric.encode_counter::<NoLabelSet, _, f64>(&count, None),
        (Kind::Counter, Value::Level(level)) => metric.encode_counter::<NoLabelSet, _, f64>(&level, None),
        (_, Value::Count(count)) => metric.encode_gauge(&count),
        (_, Value::Level(level)) => metric.encode_gauge(&level),
    }
}
