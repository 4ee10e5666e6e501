//! The dashboard and the alerts of `deploy/grafana`: Prometheus reads them, the alerts fire when
//! they should, and every metric that they name is one that a sidecar has.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::origin::versioned;
use crate::support::{Client, Origin, RedisServer, Sidecar};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/alerts.yml");
const ALERTS_TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/dashboard.json");

/// Routes of each kind, so that each metric has something to count.
const RULES: &str = r#"
[[routes]]
path  = "/v/{name}"
ttl   = "5m"
scope = "public"
tags  = ["v:{name}"]
audit = 1.0

[[routes]]
path  = "/s/{name}"
ttl   = "5m"
scope = "public"
mode  = "shadow"

[[purges]]
path = "/w/{name}"
tags = ["v:{name}"]
"#;

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output().expect("promtool is installed");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&text));
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words =
        text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("sidecache_")).map(str::to_owned).collect()
}

/// Every expression of the dashboard, its annotations included.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| expressions(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn prometheus_reads_the_alerts_and_they_fire_when_they_should() {
    promtool(&["check", "rules", ALERTS]);
    promtool(&["test", "rules", ALERTS_TEST]);
    // Each of them is tested.
    let [alerts, tested] =
        [ALERTS, ALERTS_TEST].map(|file| std::fs::read_to_string(file).expect("it ships"));
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<_> =
        names.filter(|name| !tested.contains(&format!("alertname=\"{name}\""))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn prometheus_reads_each_expression_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 30, "{} expressions", found.len());
    // As rules, in which what Grafana fills in has a value.
    let rules: Vec<Value> = found
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            let filled = expression
                .replace("$__rate_interval", "5m")
                .replace("$job", ".*")
                .replace("$instance", ".*")
                .replace("$route", ".*");
            assert!(!filled.contains('$'), "{expression}");
            serde_json::json!({ "record": format!("panel:{number}"), "expr": filled })
        })
        .collect();
    let directory = TempDir::new().expect("a temporary directory can be made");
    let file = directory.path().join("rules.yml");
    // JSON is YAML.
    let text =
        serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string();
    std::fs::write(&file, text).expect("the temporary directory can be written to");
    promtool(&["check", "rules", file.to_str().expect("a path of the test is UTF-8")]);
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "two panels have the id {}", panel["id"]);
        let [x, y, w, h] = ["x", "y", "w", "h"]
            .map(|name| panel["gridPos"][name].as_u64().expect("a panel has a place"));
        assert!(x + w <= 24, "{} is too wide", panel["title"]);
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} lies on another panel", panel["title"]);
        }
    }
}

#[test]
fn r1363_each_alert_has_a_section_in_the_runbook() {
    let alerts = std::fs::read_to_string(ALERTS).expect("it ships");
    let page = include_str!("../../../docs/src/operations/runbook.md");
    let names: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(names.len() > 10, "{names:?}");
    assert_eq!(names, sections, "a section for each alert, and none for others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_they_name_is_in_a_scrape() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let source = "[[sources]]\nkind = \"file\"\npath = \"last-run\"\ntags = [\"v:{key}\"]\n\
                  [[notify]]\nkind = \"fastly\"\nservice = \"a\"\nurl = \"http://127.0.0.1:1\"\n\
                  token = \"0123456789abcdef\"\n";
    let rules = format!("{}{RULES}\n{source}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    let mut client = Client::new(sidecar.address);
    // A miss, hits and their audits; writes that purge, that do not, and that a route in shadow
    // mode would have needed a rule for.
    for _ in 0..3 {
        for (method, path) in [
            ("GET", "/v/a"),
            ("GET", "/v/a"),
            ("GET", "/s/b"),
            ("PUT", "/w/a"),
            ("PUT", "/w/b"),
            ("GET", "/elsewhere"),
        ] {
            assert_eq!(client.send(method, path, &[], "").await.status, 200);
        }
    }
    let scrape = Client::of_admin(sidecar.admin).get("/metrics", &[]).await;
    assert_eq!(scrape.status, 200);
    let there = metrics_in(scrape.text());
    let alerts = std::fs::read_to_string(ALERTS).expect("it ships");
    let missing: Vec<_> = metrics_in(&(alerts + DASHBOARD))
        .into_iter()
        .filter(|name| !there.contains(name))
        .collect();
    assert!(missing.is_empty(), "no sidecar has {missing:#?}");
}
