//! A snapshot of metric families, encoded as text for Prometheus.
//!
//! Knows names, labels and numbers, not where they come from. The same code writes both formats, so
//! that they cannot disagree. `OpenMetrics` differs in that it declares a counter under its name
//! without `_total`, has infos, and ends in `# EOF`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::format::MetricsFormat;
use super::latency::Latency;

/// A series' labels, in the order in which they are written.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Durations in seconds, counted in buckets.
    Histogram,
    /// A constant 1 whose labels carry the information.
    Info,
}

impl MetricKind {
    /// The suffix of a family's name.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// The value of one series.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Count(u64),
    Level(f64),
    Latency(Box<Latency>),
}

/// A metric name with its series, sorted by their labels.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: MetricKind,
    pub(super) help: &'static str,
    pub(super) series: BTreeMap<Labels, Value>,
}

/// Families by name, without the suffixes `_total` and `_info`, which are appended.
#[derive(Debug, Default)]
pub(super) struct Snapshot(pub(super) BTreeMap<&'static str, Family>);

impl Snapshot {
    /// The whole exposition. A family without series is left out.
    pub(super) fn encode(&self, format: MetricsFormat) -> String {
        let mut out = String::with_capacity(16 * 1024);
        for (name, family) in self.0.iter().filter(|(_, family)| !family.series.is_empty()) {
            write(&mut out, name, family, format).expect("writing to a String cannot fail");
        }
        if format == MetricsFormat::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

fn write(out: &mut String, name: &str, family: &Family, format: MetricsFormat) -> fmt::Result {
    let suffix = family.kind.suffix();
    let typed = if format == MetricsFormat::OpenMetrics { "" } else { suffix };
    let kind = match (family.kind, format) {
        (MetricKind::Counter, _) => "counter",
        (MetricKind::Gauge, _) | (MetricKind::Info, MetricsFormat::Text) => "gauge",
        (MetricKind::Histogram, _) => "histogram",
        (MetricKind::Info, MetricsFormat::OpenMetrics) => "info",
    };
    // The text format does not escape quotes outside of labels, OpenMetrics always does.
    let escapes = if format == MetricsFormat::OpenMetrics { IN_QUOTES } else { IN_LINE };
    writeln!(out, "# HELP {name}{typed} {}", Escaped(family.help, escapes))?;
    writeln!(out, "# TYPE {name}{typed} {kind}")?;
    for (labels, value) in &family.series {
        match value {
            Value::Count(count) => writeln!(out, "{name}{suffix}{} {count}", Braces(labels, None))?,
            Value::Level(level) => {
                writeln!(out, "{name}{suffix}{} {}", Braces(labels, None), Float(*level))?;
            }
            Value::Latency(latency) => {
                for (bound, count) in latency.cumulative() {
                    writeln!(out, "{name}_bucket{} {count}", Braces(labels, Some(bound)))?;
                }
                writeln!(
                    out,
                    "{name}_sum{} {}",
                    Braces(labels, None),
                    Float(latency.sum().as_secs_f64())
                )?;
                writeln!(out, "{name}_count{} {}", Braces(labels, None), latency.count())?;
            }
        }
    }
    Ok(())
}

/// Labels, and the upper bound of a bucket.
struct Braces<'a>(&'a Labels, Option<f64>);

impl fmt::Display for Braces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels, bound) = self;
        let mut open = '{';
        for (name, value) in *labels {
            write!(f, "{open}{name}=\"{}\"", Escaped(value, IN_QUOTES))?;
            open = ',';
        }
        if let Some(bound) = bound {
            write!(f, "{open}le=\"{}\"", Float(*bound))?;
            open = ',';
        }
        if open == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A number, written the same in both formats: with a decimal point (`1.0`), which `OpenMetrics`
/// requires of bounds, so that both formats name the same series.
struct Float(f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number:?}"),
        }
    }
}

/// The characters to escape within quotes.
const IN_QUOTES: &[char] = &['\\', '\n', '"'];
/// The characters to escape outside of quotes.
const IN_LINE: &[char] = &['\\', '\n'];

/// SECURITY: text that cannot end its line, nor the quotes around it.
struct Escaped<'a>(&'a str, &'static [char]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, ending) = self;
        let mut plain = 0;
        for (at, special) in text.match_indices(*ending) {
            let escaped = if special == "\n" { "n" } else { special };
            write!(f, "{}\\{escaped}", &text[plain..at])?;
            plain = at + special.len();
        }
        f.write_str(&text[plain..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_line_or_its_quotes() {
        let quoted = |text: &str| Escaped(text, IN_QUOTES).to_string();
        assert_eq!(quoted("plain /a/{b}"), "plain /a/{b}");
        assert_eq!(quoted("\"} 1\nevil 1\\"), r#"\"} 1\nevil 1\\"#);
        assert_eq!(quoted("\n\n\\\\"), r"\n\n\\\\");
        assert_eq!(quoted(""), "");
        assert_eq!(Escaped("a \"b\" \\ \n", IN_LINE).to_string(), r#"a "b" \\ \n"#);
    }

    #[test]
    fn numbers_are_written_for_prometheus() {
        let written = [0.0001, 1.0, 0.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]
            .map(|number| Float(number).to_string());
        assert_eq!(written, ["0.0001", "1.0", "0.0", "1e300", "+Inf", "-Inf", "NaN"]);
    }
}
