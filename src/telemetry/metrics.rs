//! Counters, gauges and histograms, and the page that a Prometheus server scrapes.
//!
//! Owns the values and the names of metrics. Label values are closed enums and the names of routes;
//! never a path, a key, or anything else that clients could make grow. Must not know how requests
//! are handled: code that counts holds a [`Counter`], and registers it here.

mod buckets;
mod counter;
mod description;
mod exposition;
mod format;
mod histogram;
mod latency;
mod portion;
mod protobuf;
mod row;
mod table;
mod totals;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::counter::Counter;
pub use self::description::Description;
use self::exposition::{Family, Labels, MetricKind, Snapshot, Value};
pub use self::format::{MetricsFormat, ScrapeFormat};
pub use self::latency::Latency;
pub use self::row::{BodySource, RequestRecord, RowView};
use self::row::{CLASSES, Row};
use self::table::Rows;
pub use self::table::{MAX_ROWS, Meter, NONE, RouteTable};
pub use self::totals::TrafficTotals;
use crate::outcome::{Disposition, Reason};
use crate::telemetry::version::BUILD;

/// All metrics of one sidecar.
pub struct Metrics {
    rows: Mutex<Rows>,
    registered: Mutex<BTreeMap<&'static str, Registered>>,
}

struct Registered {
    kind: MetricKind,
    help: &'static str,
    series: BTreeMap<Labels, MetricSource>,
}

#[derive(Clone)]
enum MetricSource {
    Counter(Arc<Counter>),
    Micros(Arc<Counter>),
    Gauge(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty set of metrics.
    #[must_use]
    pub fn new() -> Self {
        Self { rows: Mutex::new(Rows::new(MAX_ROWS)), registered: Mutex::default() }
    }

    /// A table that counts for the routes of these names, each by its index. A name that an earlier
    /// table had continues its counts. Two routes of one name count together.
    #[must_use]
    pub fn table(&self, names: impl IntoIterator<Item = String>) -> Arc<RouteTable> {
        Arc::new(self.rows.lock().table(names))
    }

    /// The counts by route: `none` first, then by name. Includes routes that a reload has removed.
    #[must_use]
    pub fn rows(&self) -> Vec<RowView> {
        self.all_rows().iter().map(|row| row.view()).collect()
    }

    /// The counts of all routes together. Reads one route after the other, so that many routes take
    /// no more memory than one.
    #[must_use]
    pub fn totals(&self) -> TrafficTotals {
        let mut totals = TrafficTotals::default();
        for row in self.all_rows() {
            totals.add_row(&row.view());
        }
        totals
    }

    /// How many requests ended in this disposition, with or without a route.
    #[must_use]
    pub fn requests_total(&self, disposition: Disposition) -> u64 {
        self.all_rows().iter().map(|row| row.count(disposition)).sum()
    }

    /// Registers a counter. Series of one name differ in their labels; the same labels again
    /// replace the series. The suffix `_total` is always written, with or without it in `name`.
    pub fn register_counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        counter: Arc<Counter>,
    ) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.register(name, help, labels, MetricKind::Counter, MetricSource::Counter(counter));
    }

    /// Registers a counter of microseconds, which is written in seconds, as Prometheus expects.
    pub fn register_micros(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        micros: Arc<Counter>,
    ) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.register(name, help, labels, MetricKind::Counter, MetricSource::Micros(micros));
    }

    /// Registers a counter that is kept elsewhere and read at each scrape, in whole or in parts of
    /// its unit. `read` must be fast and must not block.
    pub fn register_read_counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.register(name, help, &[], MetricKind::Counter, MetricSource::Gauge(Arc::new(read)));
    }

    /// Registers a gauge, which is read at each scrape. `read` must be fast and must not block.
    pub fn register_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.register(name, help, labels, MetricKind::Gauge, MetricSource::Gauge(Arc::new(read)));
    }

    /// All metrics as text, sorted by name and labels. Series of routes are left out while they are
    /// 0.
    #[must_use]
    pub fn encode_as(&self, format: MetricsFormat) -> String {
        self.snapshot().encode(format)
    }

    /// The same in any format.
    #[must_use]
    pub fn encode(&self, format: ScrapeFormat) -> Vec<u8> {
        match format {
            ScrapeFormat::Text(format) => self.encode_as(format).into_bytes(),
            ScrapeFormat::Protobuf => protobuf::encode(&self.snapshot()),
        }
    }

    /// The families of a scrape, with their labels and the label values so far.
    #[must_use]
    pub fn describe(&self) -> Vec<Description> {
        self.snapshot()
            .0
            .iter()
            .map(|(name, family)| Description::from_family(name, family))
            .collect()
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot_registered();
        snapshot.0.extend(route_families(&self.rows()));
        let build = [
            ("version", BUILD.version),
            ("commit", BUILD.commit.unwrap_or("unknown")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        let build = build.map(|(name, value)| (name, value.to_owned())).to_vec();
        let series = BTreeMap::from([(build, Value::Count(1))]);
        snapshot.0.insert(
            "sidecache_build",
            Family { kind: MetricKind::Info, help: "What is running", series },
        );
        snapshot
    }

    fn register(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        kind: MetricKind,
        source: MetricSource,
    ) {
        let mut registered = self.registered.lock();
        let family = registered.entry(name).or_insert_with(|| Registered {
            kind,
            help,
            series: BTreeMap::new(),
        });
        // A name has one kind in an exposition, so the first registration decides.
        debug_assert_eq!(family.kind, kind, "{name} is registered as two kinds of metric");
        family.series.insert(labels.to_vec(), source);
    }

    /// Reads everything that is registered. The values are read outside of the lock, because gauges
    /// call code of other modules.
    fn snapshot_registered(&self) -> Snapshot {
        let sources: Vec<_> = self
            .registered
            .lock()
            .iter()
            .map(|(name, family)| (*name, family.kind, family.help, family.series.clone()))
            .collect();
        let families = sources.into_iter().map(|(name, kind, help, series)| {
            let series =
                series.into_iter().map(|(labels, source)| (labels, source.read())).collect();
            (name, Family { kind, help, series })
        });
        Snapshot(families.collect())
    }

    fn all_rows(&self) -> Vec<Arc<Row>> {
        self.rows.lock().all()
    }
}

impl MetricSource {
    fn read(&self) -> Value {
        match self {
            Self::Counter(counter) => Value::Count(counter.get()),
            Self::Micros(counter) => {
                Value::Level(Duration::from_micros(counter.get()).as_secs_f64())
            }
            Self::Gauge(read) => Value::Level(read()),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("rows", &self.rows.lock()).finish_non_exhaustive()
    }
}

/// The families that are counted by route.
fn route_families(rows: &[RowView]) -> [(&'static str, Family); 6] {
    let mut requests = BTreeMap::new();
    let mut responses = BTreeMap::new();
    let mut durations = BTreeMap::new();
    let mut origin = BTreeMap::new();
    let mut bytes = BTreeMap::new();
    let mut saved = BTreeMap::new();
    for row in rows {
        let labels = |more: &[(&'static str, &str)]| -> Labels {
            let route = [("route", &*row.name)];
            route.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        for (disposition, reason, count) in &row.requests {
            let reason = reason.map_or(Cow::Borrowed(NONE), Reason::label);
            requests.insert(
                labels(&[("disposition", disposition.label()), ("reason", &reason)]),
                Value::Count(*count),
            );
        }
        for (class, count) in CLASSES.into_iter().zip(row.classes).filter(|(_, count)| *count > 0) {
            responses.insert(labels(&[("class", class)]), Value::Count(count));
        }
        for (result, latency) in [("hit", &row.hit), ("miss", &row.miss), ("bypass", &row.bypass)] {
            if latency.count() > 0 {
                durations.insert(
                    labels(&[("result", result)]),
                    Value::Latency(Box::new(latency.clone())),
                );
            }
        }
        if row.origin.count() > 0 {
            origin.insert(labels(&[]), Value::Latency(Box::new(row.origin.clone())));
        }
        for (source, count) in [
            (BodySource::Cache, row.bytes_from_cache),
            (BodySource::Origin, row.bytes_from_origin),
            (BodySource::Sidecar, row.bytes_from_sidecar),
        ] {
            if count > 0 {
                bytes.insert(labels(&[("source", source.as_str())]), Value::Count(count));
            }
        }
        if row.count(Disposition::Hit) + row.count(Disposition::Stale) > 0 {
            saved.insert(labels(&[]), Value::Level(row.saved.as_secs_f64()));
        }
    }
    describe_families([requests, responses, durations, origin, bytes, saved])
}

/// The names, kinds and help texts of the families that are counted by route.
fn describe_families(
    [requests, responses, durations, origin, bytes, saved]: [BTreeMap<Labels, Value>; 6],
) -> [(&'static str, Family); 6] {
    let family = |kind, help, series| Family { kind, help, series };
    [
        (
            "sidecache_requests",
            family(
                MetricKind::Counter,
                "Requests by route, by what happened to them, and why",
                requests,
            ),
        ),
        (
            "sidecache_responses",
            family(
                MetricKind::Counter,
                "Responses to clients by route and by the class of their status",
                responses,
            ),
        ),
        (
            "sidecache_request_duration_seconds",
            family(
                MetricKind::Histogram,
                "Time from the head of a request to the head of its response. `hit` is HIT and \
                STALE, `miss` is MISS and REVALIDATED",
                durations,
            ),
        ),
        (
            "sidecache_upstream_duration_seconds",
            family(
                MetricKind::Histogram,
                "Time from sending a request to the origin to the head of its response",
                origin,
            ),
        ),
        (
            "sidecache_response_bytes",
            family(
                MetricKind::Counter,
                "Bytes of response bodies, from the cache, from the origin, or written by the \
                sidecar itself",
                bytes,
            ),
        ),
        (
            "sidecache_upstream_seconds_saved",
            family(
                MetricKind::Counter,
                "Time that the origin would have taken for what was served from the cache",
                saved,
            ),
        ),
    ]
}

#[cfg(test)]
mod tests;
