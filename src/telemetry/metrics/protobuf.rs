//! A snapshot of metric families as Prometheus reads them in protobuf: each family as a message
//! `io.prometheus.client.MetricFamily` after its length.
//!
//! Text has no place for native histograms, and this form has. Names, labels, numbers and classic
//! buckets are those of the text. The few messages are written by hand: they are fixed, and so need
//! neither a compiler of schemas nor a library.

use super::exposition::{Labels, MetricKind, Snapshot, Value};
use super::latency::{Latency, NativeBuckets};

/// The numbers of the fields, from `metrics.proto` of `prometheus/client_model`.
mod field {
    pub(super) const FAMILY_NAME: u32 = 1;
    pub(super) const FAMILY_HELP: u32 = 2;
    pub(super) const FAMILY_TYPE: u32 = 3;
    pub(super) const FAMILY_METRIC: u32 = 4;
    pub(super) const METRIC_LABEL: u32 = 1;
    pub(super) const METRIC_GAUGE: u32 = 2;
    pub(super) const METRIC_COUNTER: u32 = 3;
    pub(super) const METRIC_HISTOGRAM: u32 = 7;
    pub(super) const LABEL_NAME: u32 = 1;
    pub(super) const LABEL_VALUE: u32 = 2;
    /// Of a gauge and of a counter.
    pub(super) const VALUE: u32 = 1;
    pub(super) const SAMPLE_COUNT: u32 = 1;
    pub(super) const SAMPLE_SUM: u32 = 2;
    pub(super) const BUCKET: u32 = 3;
    pub(super) const SCHEMA: u32 = 5;
    pub(super) const ZERO_THRESHOLD: u32 = 6;
    pub(super) const ZERO_COUNT: u32 = 7;
    pub(super) const POSITIVE_SPAN: u32 = 12;
    pub(super) const POSITIVE_DELTA: u32 = 13;
    pub(super) const CUMULATIVE_COUNT: u32 = 1;
    pub(super) const UPPER_BOUND: u32 = 2;
    pub(super) const SPAN_OFFSET: u32 = 1;
    pub(super) const SPAN_LENGTH: u32 = 2;
}

/// The values of the enum `MetricType`.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const HISTOGRAM: u64 = 4;

/// The whole exposition. A family without series is left out.
pub(super) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * 1024);
    for (name, family) in snapshot.0.iter().filter(|(_, family)| !family.series.is_empty()) {
        let mut message = ProtoMessage::default();
        message.text(field::FAMILY_NAME, &format!("{name}{}", family.kind.suffix()));
        message.text(field::FAMILY_HELP, family.help);
        let kind = match family.kind {
            MetricKind::Counter => COUNTER,
            MetricKind::Gauge | MetricKind::Info => GAUGE,
            MetricKind::Histogram => HISTOGRAM,
        };
        message.number(field::FAMILY_TYPE, kind);
        for (labels, value) in &family.series {
            message.message(field::FAMILY_METRIC, &metric(family.kind, labels, value));
        }
        write_varint(&mut out, message.0.len() as u64);
        out.extend_from_slice(&message.0);
    }
    out
}

fn metric(kind: MetricKind, labels: &Labels, value: &Value) -> ProtoMessage {
    let mut metric = ProtoMessage::default();
    for (name, value) in labels {
        let mut label = ProtoMessage::default();
        label.text(field::LABEL_NAME, name);
        label.text(field::LABEL_VALUE, value);
        metric.message(field::METRIC_LABEL, &label);
    }
    let place =
        if kind == MetricKind::Counter { field::METRIC_COUNTER } else { field::METRIC_GAUGE };
    let mut number = ProtoMessage::default();
    match value {
        #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        Value::Count(count) => number.double(field::VALUE, *count as f64),
        Value::Level(level) => number.double(field::VALUE, *level),
        Value::Latency(latency) => {
            metric.message(field::METRIC_HISTOGRAM, &histogram(latency));
            return metric;
        }
    }
    metric.message(place, &number);
    metric
}

fn histogram(latency: &Latency) -> ProtoMessage {
    let mut histogram = ProtoMessage::default();
    histogram.number(field::SAMPLE_COUNT, latency.count());
    histogram.double(field::SAMPLE_SUM, latency.sum().as_secs_f64());
    for (bound, count) in latency.cumulative() {
        let mut bucket = ProtoMessage::default();
        bucket.number(field::CUMULATIVE_COUNT, count);
        bucket.double(field::UPPER_BOUND, bound);
        histogram.message(field::BUCKET, &bucket);
    }
    let native = latency.native();
    histogram.signed(field::SCHEMA, NativeBuckets::SCHEMA.into());
    histogram.double(field::ZERO_THRESHOLD, NativeBuckets::ZERO_THRESHOLD);
    histogram.number(field::ZERO_COUNT, native.zero);
    // Runs of neighbours, each with its distance from the end of the one before.
    let mut end = 0;
    for run in native.positive.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
        let mut span = ProtoMessage::default();
        span.signed(field::SPAN_OFFSET, i64::from(run[0].0) - end);
        span.number(field::SPAN_LENGTH, run.len() as u64);
        histogram.message(field::POSITIVE_SPAN, &span);
        end = i64::from(run[0].0) + i64::try_from(run.len()).unwrap_or(i64::MAX);
    }
    let mut before = 0;
    for (_, count) in native.positive {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        histogram.signed(field::POSITIVE_DELTA, count - before);
        before = count;
    }
    histogram
}

/// A message that is being written.
#[derive(Debug, Default)]
struct ProtoMessage(Vec<u8>);

impl ProtoMessage {
    const VARINT: u32 = 0;
    const FIXED64: u32 = 1;
    const LENGTH: u32 = 2;

    fn key(&mut self, field: u32, wire: u32) {
        write_varint(&mut self.0, u64::from(field << 3 | wire));
    }

    fn number(&mut self, field: u32, number: u64) {
        self.key(field, Self::VARINT);
        write_varint(&mut self.0, number);
    }

    /// A number with its sign in the last bit (`sint32`, `sint64`).
    fn signed(&mut self, field: u32, number: i64) {
        self.number(field, (number << 1 ^ number >> 63).cast_unsigned());
    }

    fn double(&mut self, field: u32, number: f64) {
        self.key(field, Self::FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, Self::LENGTH);
        write_varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 128")]
    out.push(number as u8);
}

#[cfg(test)]
mod tests;
