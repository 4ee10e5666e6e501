//! `metrics.md`: every family of metrics, from the registry of a sidecar that is built but never
//! started.

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;

use super::markdown::{Page, code, codes};
use crate::app::Sidecar;
use crate::clock::Clock;
use crate::config::Config;
use crate::outcome::{Disposition, Reason};
use crate::telemetry::metrics::{BodySource, Description, Metrics, RequestRecord};

/// Settings that add metrics: a title, and lines of `proxy.toml`. Each includes the metrics of the
/// one before it.
const SETTINGS: [(&str, &str, &str); 6] = [
    ("Every sidecar", "Always present.", ""),
    (
        "Shadow mode and audits",
        "For each route with `mode = \"shadow\"` or `audit`.",
        "[[routes]]\npath = \"/shadow\"\nmode = \"shadow\"\n\
         [[routes]]\npath = \"/audited\"\naudit = 0.1\n",
    ),
    (
        "Sources",
        "With `[[sources]]`.",
        "[[sources]]\nkind = \"postgres\"\nurl = \"postgres://app@127.0.0.1/app\"\n\
         tags = [\"a\"]\n\
         [[sources]]\nkind = \"webhook\"\npath = \"/hooks/a\"\nsecret = \"0123456789abcdef\"\n\
         signature = \"github\"\ntags = [\"a\"]\n",
    ),
    (
        "Notifications",
        "With `[[notify]]`.",
        "[[notify]]\nkind = \"fastly\"\nservice = \"a\"\ntoken = \"0123456789abcdef\"\n",
    ),
    ("Redis", "With `[redis]`.", "[redis]\nurl = \"redis://127.0.0.1:6379/0\"\n"),
    ("Fills across sidecars", "With `collapse = \"cluster\"`.", "collapse = \"cluster\"\n"),
];

/// Labels whose values are not listed beside each family.
const OPEN_LABELS: [(&str, &str); 8] = [
    (
        "route",
        "The `path` of a route; `none` for requests without a route; `other` for all routes beyond \
         the first 4096 that the process has had. A route keeps its counts over reloads.",
    ),
    (
        "source",
        "The `name` of a source, or the one that it has by its kind. Those beyond the first 64 \
         that the process has had are not counted apart.",
    ),
    ("notify", "The `name` of a notification, or the one that it has by its kind."),
    ("reason", "A metric label of the page on reasons, or `none`."),
    ("version", "The version of Sidecache."),
    (
        "commit",
        "The commit that it was built from; `unknown` for a build without a repository. See \
         `sidecache version`.",
    ),
    ("os", "The operating system, `linux` for example."),
    ("arch", "The processor, `x86_64` for example."),
];

pub(super) fn page() -> Result<String, String> {
    let mut page = Page::new("Metrics");
    page.paragraph(
        "`/metrics` on the admin listener is Prometheus text 0.0.4, or OpenMetrics or protobuf \
         where `Accept` asks for it. In protobuf histograms have native buckets as well. Labels \
         have closed sets of values, never a path, a key or anything else that clients choose. \
         Families of routes show what has happened at least once; all others begin at zero. \
         `deploy/grafana` has a dashboard and alert rules.",
    );
    page.section("Labels");
    page.paragraph(
        "Values are snake_case, except names of other things: routes, keys of `proxy.toml`, and \
         the version.",
    );
    let rows = OPEN_LABELS.map(|(name, meaning)| [code(name), meaning.to_owned()]);
    page.table(["Label", "Values"], &rows);
    let text = |settings: usize| {
        SETTINGS.iter().take(settings).map(|(.., lines)| *lines).collect::<String>()
    };
    let all = families(&text(SETTINGS.len()))?;
    let mut shown = BTreeSet::new();
    for (at, (title, about, _)) in SETTINGS.into_iter().enumerate() {
        page.section(title);
        page.paragraph(about);
        let mut rows = Vec::new();
        for family in families(&text(at + 1))? {
            if shown.insert(family.name.clone()) {
                // With all values of its labels, including those of later settings.
                let whole = all.iter().find(|one| one.name == family.name).unwrap_or(&family);
                rows.push(row(whole));
            }
        }
        page.table(["Name", "Type", "Unit", "Labels", "Meaning"], &rows);
    }
    Ok(page.finish())
}

fn row(family: &Description) -> [String; 5] {
    let labels: Vec<String> =
        family.labels.iter().map(|(name, values)| label(name, values)).collect();
    let unit = family.unit().to_owned();
    [
        code(&family.name),
        family.kind.to_owned(),
        unit,
        labels.join("; "),
        format!("{}.", family.help),
    ]
}

fn label(name: &str, values: &BTreeSet<String>) -> String {
    // List a few reasons; refer to the page for all of them.
    let is_open = OPEN_LABELS.iter().any(|(open, _)| *open == name);
    let ending = Reason::ALL.iter().filter(|reason| reason.ends_requests()).count();
    if is_open && (name != "reason" || values.len() == ending + 1) {
        return code(name);
    }
    format!("{}: {}", code(name), codes(values.iter().map(String::as_str)))
}

/// The families of a sidecar with these lines in its file, including those of routes.
fn families(lines: &str) -> Result<Vec<Description>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let _entered = runtime.enter();
    let text = format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n{lines}");
    let mut config =
        Config::parse(&text, "proxy.toml", &|_| None).map_err(|problems| problems.to_string())?;
    let sidecar = Sidecar::new(&mut config, Clock::system()).map_err(|error| error.to_string())?;
    let metrics = &sidecar.proxy.metrics;
    count_everything(metrics);
    Ok(metrics.describe())
}

/// Counts one request of each kind, so that the families of routes have all values of their labels.
fn count_everything(metrics: &Metrics) {
    let table = metrics.table(["/example".to_owned()]);
    let took = Duration::from_millis(1);
    for disposition in Disposition::ALL {
        for reason in Reason::ALL.iter().copied().map(Some).chain([None]) {
            table.request(
                Some(0),
                &RequestRecord {
                    disposition,
                    reason,
                    status: StatusCode::OK,
                    duration: took,
                    saved: Some(took),
                },
            );
        }
    }
    table.origin(Some(0), took);
    for source in BodySource::ALL {
        table.bytes(Some(0), source, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_on_the_page_with_its_help() {
        let page = page().expect("a page");
        let lines: String = SETTINGS.iter().map(|(.., lines)| *lines).collect();
        let families = families(&lines).expect("families");
        assert!(families.len() > 80, "{} families", families.len());
        for family in families {
            let rows: Vec<&str> = page
                .lines()
                .filter(|line| line.starts_with(&format!("| `{}` |", family.name)))
                .collect();
            assert_eq!(rows.len(), 1, "{}", family.name);
            assert!(rows[0].contains(family.help), "{}", rows[0]);
        }
    }

    #[test]
    fn closed_labels_are_listed_and_open_ones_explained() {
        let page = page().expect("a page");
        for text in [
            "`by`: `admin`, `request`, `source`, `write`",
            "`kind`: `hard`, `soft`",
            "`disposition`: `bypass`, `hit`, `miss`, `revalidated`, `stale`; `reason`; `route`",
            "`redis.deadline`",
            "| `route` | The `path` of a route",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
    }
}
