//! Counters and gauges, and the page that a Prometheus server scrapes.
//!
//! Owns the numbers and the names of metrics. Labels are closed enums and the names of routes; never a path, a key, or anything else
//! that a stranger could make grow. Must not know how requests are handled: whoever counts holds a [`Counter`], and registers it here.

mod counter;
mod exposition;
mod requests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::counter::Counter;
use self::exposition::{CONTENT_TYPE, Family, Kind, Labels, Snapshot, Value};
use self::requests::Requests;
use crate::outcome::{Disposition, Reason};

/// The label value that stands for "no route" and "no reason". Route names are patterns and begin with `/`, so none collides with it.
const NONE: &str = "none";

/// All metrics of one sidecar.
pub struct Metrics {
    routes: Box<[String]>,
    requests: Requests,
    registered: Mutex<BTreeMap<&'static str, Registered>>,
}

struct Registered {
    kind: Kind,
    help: &'static str,
    series: BTreeMap<Labels, Source>,
}

#[derive(Clone)]
enum Source {
    Counter(Arc<Counter>),
    Gauge(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl Metrics {
    /// The media type of what [`Metrics::encode`] writes.
    pub const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    /// Metrics for these routes. A route's name is its pattern, and its index the number that [`Metrics::request`] is told.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = String>) -> Self {
        let routes: Box<[String]> = routes.into_iter().collect();
        let requests = Requests::new(routes.len());
        Self { routes, requests, registered: Mutex::default() }
    }

    /// Counts a request that has been answered. One striped increment: no lock, no look-up, no allocation.
    #[inline]
    pub fn request(&self, route: Option<usize>, disposition: Disposition, reason: Option<Reason>) {
        self.requests.inc(route, disposition, reason);
    }

    /// How many requests ended in this disposition, on all routes and none.
    #[must_use]
    pub fn requests_total(&self, disposition: Disposition) -> u64 {
        self.requests.cells().filter(|cell| cell.disposition == disposition).map(|cell| cell.count).sum()
    }

    /// Shows a counter. Several series of one name differ in their labels; the same labels again replace the series.
    /// The suffix `_total` is written with the name whether or not it is given.
    pub fn register_counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, String)], counter: Arc<Counter>) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.register(name, help, labels, Kind::Counter, Source::Counter(counter));
    }

    /// Shows a number that goes up and down, read whenever it is asked for. `read` must be quick, and must not wait.
    pub fn register_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, String)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.register(name, help, labels, Kind::Gauge, Source::Gauge(Arc::new(read)));
    }

    /// All metrics as `OpenMetrics` text, sorted by name and labels; of the requests only what has happened at least once.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut snapshot = self.snapshot_registered();
        snapshot.0.insert("sidecache_requests", self.request_family());
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        let series = BTreeMap::from([(version, Value::Count(1))]);
        snapshot.0.insert("sidecache_build", Family { kind: Kind::Info, help: "What is running.", series });
        snapshot.encode()
    }

    fn register(&self, name: &'static str, help: &'static str, labels: &[(&'static str, String)], kind: Kind, source: Source) {
        let mut registered = self.lock();
        let family = registered.entry(name).or_insert_with(|| Registered { kind, help, series: BTreeMap::new() });
        // A name has one kind in an exposition, so the first one stays.
        debug_assert_eq!(family.kind, kind, "{name} is registered as two kinds of metric");
        family.series.insert(labels.to_vec(), source);
    }

    /// Reads all that is registered. The sources are called outside of the lock: they are other modules' code.
    fn snapshot_registered(&self) -> Snapshot {
        let sources: Vec<_> = self.lock().iter().map(|(name, family)| (*name, family.kind, family.help, family.series.clone())).collect();
        let families = sources.into_iter().map(|(name, kind, help, series)| {
            let series = series.into_iter().map(|(labels, source)| (labels, source.read())).collect();
            (name, Family { kind, help, series })
        });
        Snapshot(families.collect())
    }

    fn request_family(&self) -> Family {
        let mut counts: BTreeMap<Labels, u64> = BTreeMap::new();
        for cell in self.requests.cells() {
            let route = cell.route.map_or(NONE, |route| &self.routes[route]);
            let reason = cell.reason.map_or(NONE, Reason::as_str);
            let labels =
                vec![("route", route.to_owned()), ("disposition", cell.disposition.as_str().to_owned()), ("reason", reason.to_owned())];
            // Two routes of one name (they may differ in their host) are one series.
            *counts.entry(labels).or_default() += cell.count;
        }
        let series = counts.into_iter().map(|(labels, count)| (labels, Value::Count(count))).collect();
        Family { kind: Kind::Counter, help: "Requests by route, by what happened to them, and why.", series }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Registered>> {
        // A panic elsewhere leaves the map whole: each change to it is one insert.
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn read(&self) -> Value {
        match self {
            Self::Counter(counter) => Value::Count(counter.get()),
            Self::Gauge(read) => Value::Level(read()),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("routes", &self.routes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(["/a/{id}".to_owned(), "/b".to_owned()])
    }

    #[test]
    fn what_happened_is_written_sorted_and_the_rest_is_not() {
        let metrics = metrics();
        metrics.request(Some(1), Disposition::Hit, None);
        metrics.request(Some(1), Disposition::Hit, None);
        metrics.request(Some(0), Disposition::Miss, Some(Reason::NotStored));
        metrics.request(None, Disposition::Bypass, Some(Reason::NoRoute));
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            r#"# HELP sidecache_build What is running.
# TYPE sidecache_build info
sidecache_build_info{{version="{version}"}} 1
# HELP sidecache_requests Requests by route, by what happened to them, and why.
# TYPE sidecache_requests counter
sidecache_requests_total{{route="/a/{{id}}",disposition="MISS",reason="not stored"}} 1
sidecache_requests_total{{route="/b",disposition="HIT",reason="none"}} 2
sidecache_requests_total{{route="none",disposition="BYPASS",reason="no route"}} 1
# EOF
"#
        );
        assert_eq!(metrics.encode(), expected);
    }

    #[test]
    fn totals_are_over_all_routes() {
        let metrics = metrics();
        metrics.request(Some(0), Disposition::Hit, None);
        metrics.request(Some(1), Disposition::Hit, None);
        metrics.request(None, Disposition::Bypass, Some(Reason::NoRoute));
        assert_eq!(metrics.requests_total(Disposition::Hit), 2);
        assert_eq!(metrics.requests_total(Disposition::Bypass), 1);
        assert_eq!(metrics.requests_total(Disposition::Miss), 0);
    }

    #[test]
    fn registered_counters_and_gauges_are_read_at_each_scrape() {
        let metrics = metrics();
        let counter = Arc::new(Counter::default());
        metrics.register_counter("sidecache_purges_total", "Purges.", &[("kind", "hard".to_owned())], Arc::clone(&counter));
        metrics.register_counter("sidecache_purges", "Purges.", &[("kind", "soft".to_owned())], Arc::default());
        metrics.register_gauge("sidecache_open", "Open connections.", &[], || 2.5);
        counter.add(3);
        let text = metrics.encode();
        assert!(text.contains("# TYPE sidecache_purges counter\nsidecache_purges_total{kind=\"hard\"} 3\n"), "{text}");
        assert!(text.contains("sidecache_purges_total{kind=\"soft\"} 0\n"), "{text}");
        assert!(text.contains("# TYPE sidecache_open gauge\nsidecache_open 2.5\n"), "{text}");
        assert_eq!(text.matches("# TYPE sidecache_purges").count(), 1, "{text}");
        counter.inc();
        assert!(metrics.encode().contains("sidecache_purges_total{kind=\"hard\"} 4\n"));
    }

    #[test]
    fn the_same_series_registered_again_replaces_the_first() {
        let metrics = metrics();
        metrics.register_gauge("sidecache_level", "A level.", &[], || 1.0);
        metrics.register_gauge("sidecache_level", "A level.", &[], || 7.0);
        let text = metrics.encode();
        assert!(text.contains("sidecache_level 7.0\n") && !text.contains("sidecache_level 1.0\n"), "{text}");
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let metrics = Metrics::new(["/\"} 1\nevil 1\\".to_owned()]);
        metrics.request(Some(0), Disposition::Hit, None);
        let text = metrics.encode();
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
        assert!(text.contains(r#"route="/\"} 1\nevil 1\\""#), "{text}");
    }

    #[test]
    fn two_routes_of_one_name_are_one_series() {
        let metrics = Metrics::new(["/a".to_owned(), "/a".to_owned()]);
        metrics.request(Some(0), Disposition::Hit, None);
        metrics.request(Some(1), Disposition::Hit, None);
        assert!(metrics.encode().contains("{route=\"/a\",disposition=\"HIT\",reason=\"none\"} 2\n"));
    }
}
