//! A strict reader of what `/metrics` answers: both formats, and no mercy. It refuses what a
//! scraper might still take.

use std::collections::{BTreeMap, BTreeSet};

/// A series: its whole name, and its labels in the order of their names.
pub type Series = (String, BTreeMap<String, String>);

/// One family of metrics.
#[derive(Debug)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// What each of its lines says.
    pub samples: BTreeMap<Series, f64>,
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// A whole exposition, by the names of its families.
#[derive(Debug)]
pub struct Exposition(pub BTreeMap<String, Family>);

impl Exposition {
    /// All series of all families.
    pub fn series(&self) -> BTreeSet<Series> {
        self.0.values().flat_map(|family| family.samples.keys().cloned()).collect()
    }

    /// The sum of the series of this whole name that have these labels, others not minded.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |(full, of): &Series| {
            full == name
                && labels.iter().all(|(label, value)| of.get(*label).is_some_and(|of| of == value))
        };
        self.0
            .values()
            .flat_map(|family| &family.samples)
            .filter(|(series, _)| matches(series))
            .map(|(_, value)| value)
            .sum()
    }
}

/// Reads an exposition, or says in which line it is wrong.
pub fn read(text: &str, format: Format) -> Result<Exposition, String> {
    let body = match format {
        Format::OpenMetrics => text.strip_suffix("# EOF\n").ok_or("it does not end in # EOF")?,
        Format::Text => text,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped: Option<String> = None;
    let mut current: Option<String> = None;
    for line in body.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return wrong("no help") };
            unescape(help, if format == Format::Text { "\\n" } else { "\\n\"" })
                .map_err(|what| format!("{what}: {line}"))?;
            if help.trim() != help
                || help.is_empty()
                || families.contains_key(name)
                || helped.is_some()
            {
                return wrong(
                    "a help that is empty, padded, given twice or followed by none of its own",
                );
            }
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("no type") };
            if helped.take().as_deref() != Some(name) {
                return wrong("a type without its help just before");
            }
            check_family(name, kind, format).map_err(|what| format!("{what}: {line}"))?;
            families.insert(
                name.to_owned(),
                Family { kind: kind.to_owned(), samples: BTreeMap::new() },
            );
            current = Some(name.to_owned());
        } else {
            let (series, value) = sample(line).map_err(|what| format!("{what}: {line}"))?;
            let Some(name) = current.as_ref().filter(|_| helped.is_none()) else {
                return wrong("a sample before its type");
            };
            let family = families.get_mut(name).expect("the current family is one of them");
            check_sample(name, &family.kind, &series, value, format)
                .map_err(|what| format!("{what}: {line}"))?;
            if family.samples.insert(series, value).is_some() {
                return wrong("a series that is there twice");
            }
        }
    }
    if helped.is_some() {
        return Err("a help without a type".to_owned());
    }
    for (name, family) in &families {
        if family.samples.is_empty() {
            return Err(format!("{name} has no sample"));
        }
        if family.kind == "histogram" {
            check_histogram(name, family).map_err(|what| format!("{name}: {what}"))?;
        }
    }
    Ok(Exposition(families))
}

fn check_family(name: &str, kind: &str, format: Format) -> Result<(), &'static str> {
    let words = name.split('_').all(|word| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    // What every program tells of its process has the same names in all of them.
    if !words || !["sidecache_", "process_"].iter().any(|first| name.starts_with(first)) {
        return Err("a name that is not sidecache_ or process_, and words");
    }
    let taken =
        ["_bucket", "_count", "_sum", "_created"].iter().any(|suffix| name.ends_with(suffix));
    let is_total = name.ends_with("_total");
    match (kind, format) {
        ("counter", Format::Text) if is_total => Ok(()),
        ("counter", Format::OpenMetrics) | ("gauge" | "histogram", _) if !is_total && !taken => {
            Ok(())
        }
        ("info", Format::OpenMetrics) if !name.ends_with("_info") => Ok(()),
        _ => Err("a name that does not go with its type"),
    }
}

fn check_sample(
    name: &str,
    kind: &str,
    (full, labels): &Series,
    value: f64,
    format: Format,
) -> Result<(), &'static str> {
    let suffix = full.strip_prefix(name).ok_or("a sample of another family")?;
    let (counts, is_one) = (value.is_finite() && value >= 0.0, (value - 1.0).abs() < f64::EPSILON);
    let fits = match (kind, format, suffix) {
        ("counter", Format::Text, "")
        | ("counter", Format::OpenMetrics, "_total")
        | ("histogram", _, "_sum" | "_count") => counts,
        ("gauge", _, "") => value.is_finite() && (is_one || !name.ends_with("_info")),
        ("info", Format::OpenMetrics, "_info") => is_one,
        ("histogram", _, "_bucket") => {
            return if counts && labels.contains_key("le") { Ok(()) } else { Err("no bucket") };
        }
        _ => false,
    };
    if fits && !labels.contains_key("le") {
        Ok(())
    } else {
        Err("a sample that does not go with its type")
    }
}

/// Each set of labels has its buckets in order, with the bound of infinity, the count and the sum.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut histograms: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for ((full, labels), value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let buckets = histograms.entry(labels).or_default();
        if let Some(bound) = bound.filter(|_| full.ends_with("_bucket")) {
            // OpenMetrics wants bounds with a point; so that a series has one name, both have.
            if bound != "+Inf" && !bound.contains('.') {
                return Err(format!("the bound {bound} is not canonical"));
            }
            buckets.push((bound.parse().map_err(|_| format!("no bound: {bound}"))?, *value));
        }
    }
    for (labels, mut buckets) in histograms {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let of = |suffix: &str| {
            family.samples.get(&(format!("{name}{suffix}"), labels.clone())).copied()
        };
        let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| *count);
        if !rises || last.is_none() || last != of("_count") || of("_sum").is_none() {
            return Err(format!("the buckets of {labels:?} are not whole"));
        }
    }
    Ok(())
}

/// Reads `name{label="value",…} number`.
fn sample(line: &str) -> Result<(Series, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no sample")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"").ok_or("no label")?;
            if label.is_empty()
                || !label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                return Err(format!("the label {label:?}"));
            }
            let close = closing_quote(quoted).ok_or("a label that does not end")?;
            let value = unescape(&quoted[..close], "\\n\"")?;
            if value.is_empty() || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("the label {label} is empty or there twice"));
            }
            rest = &quoted[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or("labels that do not end")?;
    }
    let number = rest.strip_prefix(' ').ok_or("no number")?;
    // Rust reads `infinity` too; the formats do not.
    if number.is_empty()
        || !number.bytes().all(|byte| byte.is_ascii_digit() || b".e-".contains(&byte))
    {
        return Err(format!("the number {number:?}"));
    }
    let value = number.parse().map_err(|_| format!("the number {number:?}"))?;
    Ok(((name.to_owned(), labels), value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, char)| {
        let ends = char == '"' && !escaped;
        escaped = char == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// Undoes escapes, of which only these characters know one.
fn unescape(text: &str, known: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(escaped) if known.contains(escaped) => plain.push(escaped),
                other => return Err(format!("an escape that is none: {other:?}")),
            },
            '"' if known.contains('"') => return Err("a bare quote".to_owned()),
            _ => plain.push(char),
        }
    }
    Ok(plain)
}
