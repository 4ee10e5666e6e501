//! The exposition in protobuf, decoded by another encoder's code and compared with the text.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;
use prost::Message as _;

use crate::outcome::{Disposition, Reason};
use crate::telemetry::metrics::latency::NativeBuckets;
use crate::telemetry::metrics::{Metrics, MetricsFormat, RequestRecord, ScrapeFormat};

/// `metrics.proto` of `prometheus/client_model`, as far as it is used.
mod client_model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) help: Option<String>,
        #[prost(int32, optional, tag = "3")]
        pub(super) r#type: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub(super) gauge: Option<Number>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Number>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LabelPair {
        #[prost(string, optional, tag = "1")]
        pub(super) name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub(super) value: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Number {
        #[prost(double, optional, tag = "1")]
        pub(super) value: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub(super) sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub(super) positive_delta: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub(super) cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) upper_bound: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BucketSpan {
        #[prost(sint32, optional, tag = "1")]
        pub(super) offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub(super) length: Option<u32>,
    }
}

use client_model::{Histogram, Metric, MetricFamily};

fn families(metrics: &Metrics) -> Vec<MetricFamily> {
    let bytes = metrics.encode(ScrapeFormat::Protobuf);
    let (mut rest, mut families) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).expect("a family"));
    }
    families
}

/// The series of the text, as `name{label="value"}`, with their numbers.
fn text(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.encode_as(MetricsFormat::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (series, number) = line.rsplit_once(' ').expect("a number");
        (series.to_owned(), number.parse().expect("a number"))
    });
    series.collect()
}

fn labels(metric: &Metric, bound: Option<f64>) -> String {
    let pairs = metric.label.iter().map(|label| {
        let value = label.value.as_deref().expect("a value");
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{}=\"{value}\"", label.name.as_deref().expect("a name"))
    });
    let bound = bound.map(|bound| match bound {
        f64::INFINITY => "le=\"+Inf\"".to_owned(),
        bound => format!("le=\"{bound:?}\""),
    });
    let all: Vec<String> = pairs.chain(bound).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

/// The same series as [`text`], from the protobuf.
#[allow(clippy::cast_precision_loss, reason = "small counts")]
fn decoded(metrics: &Metrics) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for family in families(metrics) {
        let name = family.name.as_deref().expect("a name");
        for metric in &family.metric {
            let plain = labels(metric, None);
            let number = match family.r#type {
                Some(0) => metric.counter.as_ref(),
                Some(1) => metric.gauge.as_ref(),
                Some(4) => None,
                other => panic!("{name}: type {other:?}"),
            };
            if let Some(number) = number {
                assert!(metric.histogram.is_none());
                series.insert(format!("{name}{plain}"), number.value.expect("a number"));
                continue;
            }
            let histogram = metric.histogram.as_ref().expect("a histogram");
            for bucket in &histogram.bucket {
                let count = bucket.cumulative_count.expect("a count") as f64;
                series
                    .insert(format!("{name}_bucket{}", labels(metric, bucket.upper_bound)), count);
            }
            series.insert(format!("{name}_sum{plain}"), histogram.sample_sum.expect("a sum"));
            let count = histogram.sample_count.expect("a count") as f64;
            series.insert(format!("{name}_count{plain}"), count);
        }
    }
    series
}

/// The buckets of a native histogram by their index; checks the form on the way, as Prometheus
/// does.
fn native(histogram: &Histogram) -> BTreeMap<i32, u64> {
    assert_eq!(histogram.schema, Some(NativeBuckets::SCHEMA));
    let threshold = histogram.zero_threshold.expect("a threshold");
    assert!(threshold > 0.0 && threshold.log2().fract() == 0.0, "{threshold}");
    let lengths: usize =
        histogram.positive_span.iter().map(|span| span.length.expect("a length") as usize).sum();
    assert_eq!(lengths, histogram.positive_delta.len(), "a delta for each bucket");
    let (mut deltas, mut buckets) = (histogram.positive_delta.iter(), BTreeMap::new());
    let (mut index, mut count) = (0_i32, 0_i64);
    for (at, span) in histogram.positive_span.iter().enumerate() {
        let offset = span.offset.expect("an offset");
        assert!(at == 0 || offset > 0, "spans neither touch nor overlap");
        index += offset;
        for delta in deltas.by_ref().take(span.length.expect("a length") as usize) {
            count += delta;
            buckets.insert(index, u64::try_from(count).expect("no count is below zero"));
            index += 1;
        }
    }
    let all: u64 = buckets.values().sum::<u64>() + histogram.zero_count.expect("a count");
    assert_eq!(Some(all), histogram.sample_count, "the buckets add up to the count");
    buckets
}

fn durations(metrics: &Metrics) -> Histogram {
    let families = families(metrics);
    let named = |family: &&MetricFamily| {
        family.name.as_deref() == Some("sidecache_upstream_duration_seconds")
    };
    let family = families.iter().find(named).expect("the family");
    family.metric[0].histogram.clone().expect("a histogram")
}

fn measured(nanos: impl IntoIterator<Item = u64>) -> Metrics {
    let metrics = Metrics::new();
    let table = metrics.table(["/a".to_owned()]);
    for nanos in nanos {
        table.origin(Some(0), Duration::from_nanos(nanos));
    }
    metrics
}

#[test]
fn protobuf_says_what_text_says() {
    let metrics = Metrics::new();
    let names = ["/a/{id}", "/\"quoted\"\\\n", "/ünïcode/✓"];
    let table = metrics.table(names.map(str::to_owned));
    let reasons = [None, Some(Reason::NotStored), Some(Reason::NoRoute)];
    let dispositions = [Disposition::Hit, Disposition::Miss, Disposition::Bypass];
    for (route, (disposition, reason)) in dispositions.into_iter().zip(reasons).enumerate() {
        for ms in 1..40 {
            let duration = Duration::from_micros(ms * ms * 977);
            let (status, saved) = (StatusCode::OK, Some(duration));
            let record = RequestRecord { disposition, reason, status, duration, saved };
            table.request(Some(route), &record);
            table.origin(Some(route), duration);
        }
    }
    metrics.register_gauge("sidecache_level", "Says \"why\"", &[], || -1.5e300);
    metrics.register_gauge("sidecache_nothing", "Infinite", &[], || f64::INFINITY);
    let counter = std::sync::Arc::<crate::telemetry::metrics::Counter>::default();
    counter.add(7);
    metrics.register_counter("sidecache_things_total", "Things", &[("by", "me".into())], counter);
    let (text, decoded) = (text(&metrics), decoded(&metrics));
    assert!(text.len() > 100, "{}", text.len());
    assert_eq!(decoded, text);
    for family in families(&metrics) {
        assert!(family.help.is_some_and(|help| !help.is_empty()));
        for metric in family.metric.iter().filter_map(|metric| metric.histogram.as_ref()) {
            assert!(!native(metric).is_empty());
        }
    }
}

#[test]
fn native_buckets_are_those_that_prometheus_would_choose() {
    // A nanosecond is far from the bounds of both kinds of buckets.
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds).as_nanos();
    for (index, middle) in [(-79, 2_f64.powf(-79.5 / 8.0)), (0, 0.958), (1, 1.044), (24, 7.67)] {
        let nanos = u64::try_from(seconds(middle)).expect("short");
        assert_eq!(
            native(&durations(&measured([nanos]))),
            BTreeMap::from([(index, 1)]),
            "{middle}"
        );
    }
}

#[test]
fn the_shortest_are_in_the_zero_bucket_and_the_longest_where_they_begin() {
    let histogram = durations(&measured([0, 31, 512, 900]));
    assert_eq!((histogram.zero_count, native(&histogram)), (Some(4), BTreeMap::new()));
    let histogram = durations(&measured([1_000, u64::MAX]));
    // 1 us is 2^(-159.5/8) s; 73 minutes are 2^(96.8/8) s.
    assert_eq!(native(&histogram), BTreeMap::from([(-159, 1), (97, 1)]));
}

proptest! {
    #[test]
    fn native_buckets_hold_what_they_say(
        nanos in prop::collection::vec((10_u32..42, any::<u64>()).prop_map(|(power, low)| {
            1 << power | (low & ((1 << power) - 1))
        }), 1..40),
    ) {
        let buckets = native(&durations(&measured(nanos.iter().copied())));
        let mut sorted: Vec<f64> =
            nanos.iter().map(|nanos| Duration::from_nanos(*nanos).as_secs_f64()).collect();
        sorted.sort_by(f64::total_cmp);
        let indices = buckets.iter().flat_map(|(index, count)| {
            std::iter::repeat_n(*index, usize::try_from(*count).expect("few"))
        });
        // In order each duration lies in its bucket, or beyond a bound of it by at most a 60th.
        for (seconds, index) in sorted.iter().zip(indices) {
            let bound = |index: i32| (f64::from(index) / 8.0).exp2();
            let (below, upper) = (bound(index - 1) * 59.0 / 60.0, bound(index) * 61.0 / 60.0);
            prop_assert!((below..=upper).contains(seconds), "{seconds} in {below}..{upper}");
        }
    }

    #[test]
    fn no_accept_breaks_a_scrape(accept in "\\PC{0,300}") {
        let metrics = measured([1_000_000]);
        prop_assert!(!metrics.encode(ScrapeFormat::negotiate(Some(&accept))).is_empty());
    }
}
