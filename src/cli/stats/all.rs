//! `stats --all`: all sidecars that share the Redis of the one that is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::api_types::{ApiPeer, ApiPeers, ApiTimes};
use super::super::format::{clean, counted, millis, percent, seconds, size, sum, table};

const HEAD: [&str; 11] = [
    "SIDECAR",
    "STATUS",
    "VERSION",
    "UP",
    "REQUESTS",
    "PER SECOND",
    "HIT RATIO",
    "HIT P50",
    "ORIGIN P50",
    "MEMORY",
    "RULES",
];
const NUMBERS: [usize; 6] = [4, 5, 6, 7, 8, 9];

/// The table, with totals, and what there is to say about it.
pub(super) fn text(peers: &ApiPeers) -> String {
    let mut rows: Vec<[String; 11]> = peers.sidecars.iter().map(row).collect();
    if peers.sidecars.len() > 1 {
        rows.push(totals(peers));
    }
    let mut text = table(HEAD, &NUMBERS, rows);
    text.push('\n');
    let reasons = peers.sidecars.iter().filter(|one| !one.silent && !one.reasons.is_empty());
    for (at, one) in reasons.enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let told = one.reasons.join("; ");
        let _ = writeln!(text, "{gap}{}: {}", clean(&one.name), clean(&told));
    }
    for note in notes(peers) {
        let _ = write!(text, "\nnote: {}\n", clean(&note));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The line of `stats` that tells of the others; none if there are none.
pub(super) fn summary(peers: &ApiPeers) -> Option<String> {
    let others = peers.sidecars.len().saturating_sub(1) as u64;
    if others == 0 && peers.notes.is_empty() {
        return None;
    }
    let silent =
        if peers.silent > 0 { format!(", {} silent", peers.silent) } else { String::new() };
    let notes: Vec<String> = peers.notes.iter().map(|note| format!("; NOTE: {note}")).collect();
    let others = counted(others, "other sidecar");
    Some(format!("{others}{silent}: see `sidecache stats --all`{}", notes.concat()))
}

fn notes(peers: &ApiPeers) -> Vec<String> {
    let mut notes = peers.notes.clone();
    notes.extend(peers.why.clone());
    if peers.unreadable > 0 {
        let values = counted(peers.unreadable, "value");
        notes.push(format!("{values} in Redis, in the place of summaries, that no sidecar wrote"));
    }
    notes
}

fn row(one: &ApiPeer) -> [String; 11] {
    let differs = |what: &str| one.differs.iter().any(|differs| differs == what);
    let status = match (one.silent, one.mode.as_str()) {
        (true, _) => format!("silent for {}", seconds(one.age_s)),
        (false, "on" | "") => one.status.clone(),
        (false, mode) => format!("{}, {mode}", one.status),
    };
    [
        format!("{}{}", one.name, if one.this { " (this)" } else { "" }),
        status,
        format!("{}{}", one.version, if differs("version") { " (different)" } else { "" }),
        if one.silent { "-".to_owned() } else { seconds(one.uptime_s) },
        sum(&one.requests).to_string(),
        if one.silent { "-".to_owned() } else { per_second(one.per_second) },
        percent(one.hit_ratio),
        p50(one.latency.hit.as_ref()),
        p50(one.latency.app.as_ref()),
        size(one.memory.bytes),
        if differs("rules") { "different" } else { "same" }.to_owned(),
    ]
}

fn totals(peers: &ApiPeers) -> [String; 11] {
    let live = || peers.sidecars.iter().filter(|one| !one.silent);
    let mut requests: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in live().flat_map(|one| &one.requests) {
        let sum = requests.entry(kind.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    let bytes = live().fold(0_u64, |sum, one| sum.saturating_add(one.memory.bytes));
    [
        format!("all {}", live().count()),
        String::new(),
        String::new(),
        String::new(),
        sum(&requests).to_string(),
        per_second(live().map(|one| one.per_second).sum()),
        percent(ratio(&requests)),
        String::new(),
        String::new(),
        size(bytes),
        String::new(),
    ]
}

fn ratio(requests: &BTreeMap<String, u64>) -> Option<f64> {
    let count = |kind| requests.get(kind).copied().unwrap_or_default();
    let served =
        ["HIT", "STALE", "REVALIDATED"].map(count).into_iter().fold(0, u64::saturating_add);
    let asked = served.saturating_add(count("MISS"));
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    let ratio = (asked > 0).then(|| served as f64 / asked as f64);
    ratio
}

fn p50(times: Option<&ApiTimes>) -> String {
    times.map_or_else(|| "-".to_owned(), |times| millis(times.p50_ms))
}

fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}
