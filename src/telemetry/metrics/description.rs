//! The description of a family of metrics for the reference page: name, type, help and labels.
//!
//! Made from the same snapshot as a scrape, so that the two cannot disagree.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Family, MetricKind};

/// One family of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The name, as Prometheus shows it.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it counts or measures.
    pub help: &'static str,
    /// Its labels, each with its values so far.
    pub labels: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Description {
    pub(super) fn from_family(name: &str, family: &Family) -> Self {
        let mut labels = BTreeMap::<&'static str, BTreeSet<String>>::new();
        for (label, value) in family.series.keys().flatten() {
            labels.entry(label).or_default().insert(value.clone());
        }
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge | MetricKind::Info => "gauge",
            MetricKind::Histogram => "histogram",
        };
        Self { name: format!("{name}{}", family.kind.suffix()), kind, help: family.help, labels }
    }

    /// The unit, which the name contains by Prometheus' conventions.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let name = self.name.trim_end_matches("_total");
        match name {
            _ if name.ends_with("_seconds") || name.ends_with("_seconds_saved") => "seconds",
            _ if name.ends_with("_bytes") => "bytes",
            _ => "",
        }
    }
}
