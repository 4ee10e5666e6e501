//! `GET /peers`: all sidecars of the namespace, as far as they are known, with what differs.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::store::{HeardSummary, MAX_SIDECARS, SILENT_AFTER};
use super::summary::PeerSummary;
use crate::coherence::message::Process;
use crate::outcome::Disposition;

/// For how long rules must differ to be a note: a rollout takes a while.
const NOTE_AFTER: Duration = Duration::from_mins(1);
/// How many sidecars a note names.
const MAX_NAMED: usize = 3;

/// What is known of the other sidecars.
#[derive(Clone, Debug, Default)]
pub(super) struct OtherSidecars {
    /// Whether they could be asked for, through Redis.
    pub(super) shared: bool,
    /// Why not all of them are known.
    pub(super) why: Option<String>,
    /// Their summaries, our own perhaps among them.
    pub(super) heard: Vec<HeardSummary>,
    /// How many values are in their place that are none.
    pub(super) unreadable: u64,
}

/// The response: our own summary first, then the others by name.
pub(super) fn peers(process: Process, own: &PeerSummary, mut others: OtherSidecars) -> Value {
    let mut seen = HashSet::from([process]);
    others.heard.retain(|heard| seen.insert(heard.process));
    others.heard.sort_by(|a, b| (&a.summary.name, a.process).cmp(&(&b.summary.name, b.process)));
    let mut sidecars = vec![sidecar(process, own, own, None)];
    let listed = others.heard.iter();
    sidecars
        .extend(listed.map(|heard| sidecar(heard.process, &heard.summary, own, Some(heard.age))));
    let silent = others.heard.iter().filter(|heard| is_silent(heard)).count();
    let notes: Vec<String> = rules_note(own, &others.heard).into_iter().collect();
    json!({
        "shared": others.shared,
        "why": others.why,
        "sidecars": sidecars,
        "silent": silent,
        "unreadable": others.unreadable,
        "notes": notes,
        "silent_after_s": SILENT_AFTER.as_secs_f64(),
        "limit": MAX_SIDECARS,
    })
}

fn is_silent(heard: &HeardSummary) -> bool {
    heard.age > SILENT_AFTER
}

/// One sidecar. Without an age it is this one.
fn sidecar(
    process: Process,
    summary: &PeerSummary,
    own: &PeerSummary,
    age: Option<Duration>,
) -> Value {
    let is_own = age.is_none();
    let age = age.unwrap_or_default();
    let mut differs = Vec::new();
    if summary.rules != own.rules {
        differs.push("rules");
    }
    if summary.version != own.version {
        differs.push("version");
    }
    let requests: Map<String, Value> = Disposition::ALL
        .iter()
        .map(|kind| (kind.as_str().to_owned(), json!(summary.count(*kind))))
        .collect();
    let latency =
        |ms: Option<[f64; 2]>| ms.map(|[p50, p95]| json!({ "p50_ms": p50, "p95_ms": p95 }));
    let [bytes, limit] = summary.memory;
    json!({
        "id": process.to_string(),
        "name": summary.name,
        "this": is_own,
        "age_s": age.as_secs_f64(),
        "silent": age > SILENT_AFTER,
        "differs": differs,
        "version": summary.version,
        "uptime_s": summary.uptime_s + age.as_secs_f64(),
        "mode": summary.mode,
        "status": summary.status,
        "reasons": summary.reasons,
        "number": summary.number,
        "requests": requests,
        "per_second": summary.per_second,
        "hit_ratio": hit_ratio(summary),
        "latency": { "hit": latency(summary.hit_ms), "app": latency(summary.origin_ms) },
        "bytes_from_cache": summary.bytes_saved,
        "memory": {
            "entries": summary.entries,
            "bytes": bytes,
            "limit_bytes": limit,
            "evictions": summary.evictions,
        },
        "redis": { "lease": summary.lease, "peers": summary.peers },
        "app": { "answers": summary.origin_answers },
        "rules": { "digest": summary.rules, "age_s": summary.rules_age_s + age.as_secs_f64() },
    })
}

/// The share of the requests that the cache could have answered and did.
fn hit_ratio(summary: &PeerSummary) -> Option<f64> {
    let count = |kind| summary.count(kind);
    let served = [Disposition::Hit, Disposition::Stale, Disposition::Revalidated].map(count);
    let useful = served.into_iter().fold(0, u64::saturating_add);
    let asked = useful.saturating_add(count(Disposition::Miss));
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    let ratio = (asked > 0).then(|| useful as f64 / asked as f64);
    ratio
}

/// Whose rules have differed from ours for so long that somebody forgot one of us. Both sides have
/// had theirs for at least the lesser of the two ages, so nothing needs to be remembered.
fn rules_note(own: &PeerSummary, heard: &[HeardSummary]) -> Option<String> {
    let for_s = |heard: &HeardSummary| {
        let theirs = heard.summary.rules_age_s + heard.age.as_secs_f64();
        theirs.min(own.rules_age_s)
    };
    let differing: Vec<&HeardSummary> = heard
        .iter()
        .filter(|one| !is_silent(one) && one.summary.rules != own.rules)
        .filter(|one| for_s(one) >= NOTE_AFTER.as_secs_f64())
        .collect();
    if differing.is_empty() {
        return None;
    }
    let longest = differing.iter().map(|one| for_s(one)).fold(0.0, f64::max);
    let mut names: Vec<&str> =
        differing.iter().take(MAX_NAMED).map(|one| one.summary.name.as_str()).collect();
    let more = format!("{} more", differing.len().saturating_sub(MAX_NAMED));
    if differing.len() > MAX_NAMED {
        names.push(&more);
    }
    Some(format!(
        "for {} min, other rules than here are in force in {}: reload or correct the file that is \
         behind",
        Duration::try_from_secs_f64(longest).map_or(0, |span| span.as_secs() / 60),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample;
    use super::*;

    fn heard(process: u64, age_s: u64, summary: PeerSummary) -> HeardSummary {
        HeardSummary { process: Process(process), summary, age: Duration::from_secs(age_s) }
    }

    fn list(heard: Vec<HeardSummary>) -> Value {
        let own = PeerSummary { rules_age_s: 100.0, ..sample("m") };
        peers(Process(1), &own, OtherSidecars { shared: true, heard, ..OtherSidecars::default() })
    }

    fn all<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
        list["sidecars"].as_array().expect("a list").iter().map(|one| &one[key]).collect()
    }

    #[test]
    fn our_own_is_first_and_once_and_the_others_are_in_order() {
        let listed = list(vec![
            heard(3, 1, sample("z")),
            heard(1, 1, sample("a liar")),
            heard(2, 16, sample("a")),
            heard(2, 1, sample("b")),
        ]);
        assert_eq!(all(&listed, "name"), ["m", "a", "z"]);
        assert_eq!(all(&listed, "this"), [true, false, false]);
        assert_eq!(all(&listed, "silent"), [false, true, false]);
        assert_eq!(listed["silent"], 1);
    }

    #[test]
    fn what_differs_is_named_and_rules_that_differ_for_long_are_a_note() {
        let other = |age_s| PeerSummary {
            rules: "f".repeat(16),
            rules_age_s: age_s,
            version: "2".to_owned(),
            ..sample("o\u{202e}")
        };
        let listed = list(vec![heard(2, 1, other(58.0)), heard(3, 20, other(900.0))]);
        assert_eq!(listed["notes"], json!([]), "fresh, or silent");
        assert_eq!(listed["sidecars"][1]["differs"], json!(["rules", "version"]));
        let listed = list(vec![heard(2, 1, other(59.0))]);
        assert_eq!(listed["notes"].as_array().map(Vec::len), Some(1));
        let many = (2..9).map(|id| heard(id, 1, other(9_000.0))).collect();
        let note = list(many)["notes"][0].to_string();
        assert!(note.contains("for 1 min") && note.contains("4 more"), "{note}");
    }

    #[test]
    fn numbers_are_those_of_the_statistics() {
        let summary = PeerSummary {
            requests: [6, 1, 1, 2, 90],
            hit_ms: Some([0.5, 1.0]),
            memory: [3, 4],
            ..sample("b")
        };
        let one = &list(vec![heard(2, 2, summary)])["sidecars"][1];
        assert_eq!((&one["hit_ratio"], &one["requests"]["BYPASS"]), (&json!(0.8), &json!(90)));
        assert_eq!(one["latency"], json!({ "hit": { "p50_ms": 0.5, "p95_ms": 1.0 }, "app": null }));
        assert_eq!((&one["uptime_s"], &one["memory"]["limit_bytes"]), (&json!(2.0), &json!(4)));
    }
}
