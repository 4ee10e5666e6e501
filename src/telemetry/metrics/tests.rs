//! The exposition of counts, in both formats.

use super::*;
use http::StatusCode;

fn record(disposition: Disposition, reason: Option<Reason>) -> RequestRecord {
    RequestRecord {
        disposition,
        reason,
        status: StatusCode::OK,
        duration: Duration::from_millis(2),
        saved: None,
    }
}

fn routes(names: &[&str]) -> (Metrics, Arc<RouteTable>) {
    let metrics = Metrics::new();
    let table = metrics.table(names.iter().map(ToString::to_string));
    (metrics, table)
}

/// The lines of the families whose names begin with `prefix`.
fn lines(text: &str, prefix: &str) -> Vec<String> {
    let about = |line: &&str| {
        line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with(prefix)
    };
    text.lines().filter(about).map(str::to_owned).collect()
}

#[test]
fn requests_are_sorted_and_series_of_zero_are_left_out() {
    let (metrics, table) = routes(&["/b", "/a/{id}"]);
    table.request(Some(0), &record(Disposition::Hit, None));
    table.request(Some(0), &record(Disposition::Hit, None));
    table.request(Some(1), &record(Disposition::Miss, Some(Reason::NotStored)));
    table.request(None, &record(Disposition::Bypass, Some(Reason::NoRoute)));
    let series = [
        r#"sidecache_requests_total{route="/a/{id}",disposition="miss",reason="not_stored"} 1"#,
        r#"sidecache_requests_total{route="/b",disposition="hit",reason="none"} 2"#,
        r#"sidecache_requests_total{route="none",disposition="bypass",reason="no_route"} 1"#,
    ];
    for (format, typed) in [
        (MetricsFormat::Text, "sidecache_requests_total"),
        (MetricsFormat::OpenMetrics, "sidecache_requests"),
    ] {
        let text = metrics.encode_as(format);
        let head = [
            format!("# HELP {typed} Requests by route, by what happened to them, and why"),
            format!("# TYPE {typed} counter"),
        ];
        let expected: Vec<String> = head.into_iter().chain(series.map(str::to_owned)).collect();
        assert_eq!(lines(&text, "sidecache_requests"), expected);
        assert_eq!(text.ends_with("# EOF\n"), format == MetricsFormat::OpenMetrics);
    }
}

#[test]
fn the_build_is_a_gauge_in_text_and_an_info_in_open_metrics() {
    let metrics = Metrics::new();
    let labels = format!(
        r#"version="{}",commit="{}",os="{}",arch="{}""#,
        env!("CARGO_PKG_VERSION"),
        BUILD.commit.unwrap_or("unknown"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let text = "# HELP sidecache_build_info What is running\n# TYPE sidecache_build_info gauge\n";
    assert_eq!(
        metrics.encode_as(MetricsFormat::Text),
        format!("{text}sidecache_build_info{{{labels}}} 1\n")
    );
    let open = "# HELP sidecache_build What is running\n# TYPE sidecache_build info\n";
    assert_eq!(
        metrics.encode_as(MetricsFormat::OpenMetrics),
        format!("{open}sidecache_build_info{{{labels}}} 1\n# EOF\n")
    );
}

#[test]
fn a_histogram_is_cumulative_and_in_seconds() {
    let (metrics, table) = routes(&["/a"]);
    table.request(Some(0), &record(Disposition::Stale, None));
    table.request(
        Some(0),
        &RequestRecord { duration: Duration::from_mins(1), ..record(Disposition::Hit, None) },
    );
    table.origin(None, Duration::from_millis(250));
    let text = metrics.encode_as(MetricsFormat::Text);
    let buckets = lines(&text, "sidecache_request_duration_seconds_bucket");
    assert_eq!(buckets.len(), 17);
    assert_eq!(
        buckets[3],
        r#"sidecache_request_duration_seconds_bucket{route="/a",result="hit",le="0.001"} 0"#
    );
    assert_eq!(
        buckets[4],
        r#"sidecache_request_duration_seconds_bucket{route="/a",result="hit",le="0.0025"} 1"#
    );
    assert_eq!(
        buckets[15],
        r#"sidecache_request_duration_seconds_bucket{route="/a",result="hit",le="10.0"} 1"#
    );
    assert_eq!(
        buckets[16],
        r#"sidecache_request_duration_seconds_bucket{route="/a",result="hit",le="+Inf"} 2"#
    );
    for line in [
        r#"sidecache_request_duration_seconds_sum{route="/a",result="hit"} 60.002"#,
        r#"sidecache_request_duration_seconds_count{route="/a",result="hit"} 2"#,
        r#"sidecache_upstream_duration_seconds_bucket{route="none",le="0.25"} 1"#,
        r#"sidecache_upstream_duration_seconds_sum{route="none"} 0.25"#,
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
}

#[test]
fn bytes_and_savings_show_by_route() {
    let (metrics, table) = routes(&["/a"]);
    table.request(
        Some(0),
        &RequestRecord {
            saved: Some(Duration::from_millis(1500)),
            ..record(Disposition::Hit, None)
        },
    );
    table.bytes(Some(0), BodySource::Cache, 100);
    table.meter(None, BodySource::Origin).add(7);
    let text = metrics.encode_as(MetricsFormat::Text);
    let expected = [
        r#"sidecache_response_bytes_total{route="/a",source="cache"} 100"#,
        r#"sidecache_response_bytes_total{route="none",source="app"} 7"#,
    ];
    assert_eq!(lines(&text, "sidecache_response_bytes_total{"), expected);
    assert_eq!(
        lines(&text, "sidecache_upstream_seconds_saved_total{"),
        [r#"sidecache_upstream_seconds_saved_total{route="/a"} 1.5"#]
    );
}

#[test]
fn totals_are_over_all_routes() {
    let (metrics, table) = routes(&["/a", "/b"]);
    table.request(Some(0), &record(Disposition::Hit, None));
    table.request(Some(1), &record(Disposition::Hit, None));
    table.request(None, &record(Disposition::Bypass, Some(Reason::NoRoute)));
    let total = |disposition| metrics.requests_total(disposition);
    assert_eq!(
        (total(Disposition::Hit), total(Disposition::Bypass), total(Disposition::Miss)),
        (2, 1, 0)
    );
    let names: Vec<_> = metrics.rows().iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["none", "/a", "/b"]);
}

#[test]
fn registered_counters_and_gauges_are_read_at_each_scrape() {
    let metrics = Metrics::new();
    let counter = Arc::new(Counter::default());
    metrics.register_counter(
        "sidecache_purges_total",
        "Purges",
        &[("kind", "hard".to_owned())],
        Arc::clone(&counter),
    );
    metrics.register_counter(
        "sidecache_purges",
        "Purges",
        &[("kind", "soft".to_owned())],
        Arc::default(),
    );
    metrics.register_gauge("sidecache_open", "Open connections", &[], || 2.5);
    counter.add(3);
    let text = metrics.encode_as(MetricsFormat::OpenMetrics);
    assert!(
        text.contains("# TYPE sidecache_purges counter\nsidecache_purges_total{kind=\"hard\"} 3\n"),
        "{text}"
    );
    assert!(text.contains("sidecache_purges_total{kind=\"soft\"} 0\n"), "{text}");
    assert!(text.contains("# TYPE sidecache_open gauge\nsidecache_open 2.5\n"), "{text}");
    assert_eq!(text.matches("# TYPE sidecache_purges").count(), 1, "{text}");
    counter.inc();
    assert!(
        metrics
            .encode_as(MetricsFormat::Text)
            .contains("sidecache_purges_total{kind=\"hard\"} 4\n")
    );
}

#[test]
fn microseconds_are_shown_as_seconds() {
    let metrics = Metrics::new();
    let micros = Arc::new(Counter::default());
    micros.add(1_250_000);
    metrics.register_micros("sidecache_wait_seconds", "Waited", &[], micros);
    let text = metrics.encode_as(MetricsFormat::Text);
    assert!(
        text.contains(
            "# TYPE sidecache_wait_seconds_total counter\nsidecache_wait_seconds_total 1.25\n"
        ),
        "{text}"
    );
}

#[test]
fn the_same_series_registered_again_replaces_the_first() {
    let metrics = Metrics::new();
    metrics.register_gauge("sidecache_level", "A level", &[], || 1.0);
    metrics.register_gauge("sidecache_level", "A level", &[], || 7.0);
    assert_eq!(
        lines(&metrics.encode_as(MetricsFormat::Text), "sidecache_level ").last().unwrap(),
        "sidecache_level 7.0"
    );
}

#[test]
fn a_label_cannot_break_out_of_its_quotes() {
    let (metrics, table) = routes(&["/\"} 1\nevil 1\\"]);
    table.request(Some(0), &record(Disposition::Hit, None));
    for format in [MetricsFormat::Text, MetricsFormat::OpenMetrics] {
        let text = metrics.encode_as(format);
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
        assert!(text.contains(r#"route="/\"} 1\nevil 1\\""#), "{text}");
    }
}

#[test]
fn two_routes_of_one_name_are_one_series() {
    let (metrics, table) = routes(&["/a", "/a"]);
    table.request(Some(0), &record(Disposition::Hit, None));
    table.request(Some(1), &record(Disposition::Hit, None));
    assert!(
        metrics
            .encode_as(MetricsFormat::Text)
            .contains("{route=\"/a\",disposition=\"hit\",reason=\"none\"} 2\n")
    );
}
