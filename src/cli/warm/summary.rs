//! Tallies the responses of a warm-up: dispositions with their reasons, statuses, bytes, errors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::super::format::{clean, counted, seconds, size, table};
use super::list::WarmList;
use crate::proxy::response::{CACHE_STATUS, X_CACHE};

/// How many different reasons and errors are counted separately; the rest is counted as `others`.
const MAX_KINDS: usize = 50;

/// One response.
#[derive(Debug)]
pub(super) struct WarmResponse {
    status: u16,
    bytes: u64,
    disposition: String,
    reason: String,
}

/// All responses so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: BTreeMap<(String, String), u64>,
    statuses: BTreeMap<u16, u64>,
    /// How often each error occurred, and the first target it occurred for.
    errors: BTreeMap<String, (u64, String)>,
    responses: u64,
    failures: u64,
    bytes: u64,
    /// Whether the run was stopped early.
    pub(super) stopped: bool,
    pub(super) elapsed: Duration,
}

/// How many requests were not sent, by reason.
pub(super) type NotSent = BTreeMap<String, u64>;

impl WarmResponse {
    /// Reads the sidecar's headers of a response.
    pub(super) fn new(status: u16, headers: &HeaderMap, bytes: u64) -> Self {
        let text = |name| {
            headers
                .get_all(name)
                .iter()
                .next_back()
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        let disposition = text(X_CACHE).unwrap_or("(none)").to_owned();
        // The last member is that of the nearest cache (RFC 9211 2).
        let own = text(CACHE_STATUS).and_then(|line| line.rsplit(", ").next()).unwrap_or_default();
        let stored = own.split("; ").any(|parameter| parameter == "stored");
        let detail = own.split_once("detail=").map_or("", |(_, detail)| {
            detail.split(';').next().unwrap_or_default().trim_matches('"')
        });
        let why = if disposition == "MISS" && stored { "stored" } else { detail };
        Self { status, bytes, disposition, reason: why.to_owned() }
    }
}

impl Tally {
    pub(super) fn add(&mut self, target: &str, sent: Result<WarmResponse, String>) {
        match sent {
            Ok(WarmResponse { status, bytes, disposition, reason: why }) => {
                let full = self.outcomes.len() >= MAX_KINDS
                    && !self.outcomes.contains_key(&(disposition.clone(), why.clone()));
                *self
                    .outcomes
                    .entry((disposition, if full { "others".to_owned() } else { why }))
                    .or_default() += 1;
                *self.statuses.entry(status).or_default() += 1;
                self.bytes = self.bytes.saturating_add(bytes);
                self.responses += 1;
                self.failures += u64::from(status >= 500);
            }
            Err(why) => {
                let full = self.errors.len() >= MAX_KINDS && !self.errors.contains_key(&why);
                let path = target.split('?').next().unwrap_or_default();
                self.errors
                    .entry(if full { "others".to_owned() } else { why })
                    .or_insert_with(|| (0, path.to_owned()))
                    .0 += 1;
            }
        }
    }

    /// Whether requests were sent, and all of them failed or had a status of 500 or above.
    pub(super) fn all_failed(&self) -> bool {
        let errors: u64 = self.errors.values().map(|(count, _)| count).sum();
        self.responses == self.failures && self.failures + errors > 0
    }

    /// A short text for the progress bar.
    pub(super) fn brief(&self) -> String {
        let errors: u64 = self.errors.values().map(|(count, _)| count).sum();
        if errors + self.failures > 0 {
            format!("{} failed", errors + self.failures)
        } else {
            String::new()
        }
    }

    /// The report as text.
    pub(super) fn text(&self, jobs: usize) -> String {
        let rows = self.outcomes.iter().map(|((disposition, why), count)| {
            [disposition.clone(), count.to_string(), why.clone()]
        });
        let mut text = table(["X-CACHE", "REQUESTS", "WHY"], &[1], rows);
        if self.outcomes.is_empty() {
            text.clear();
        } else {
            let statuses: Vec<_> =
                self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
            let _ = write!(text, "\n\nstatuses  {}\n", statuses.join(", "));
        }
        for (why, (count, path)) in &self.errors {
            let _ = writeln!(text, "errors    {count}: {} (first for {})", clean(why), clean(path));
        }
        let stopped = if self.stopped {
            format!("; stopped after {} of {jobs}", self.responses)
        } else {
            String::new()
        };
        let (answers, took) =
            (counted(self.responses, "response"), seconds(self.elapsed.as_secs_f64()));
        let _ = write!(text, "{answers}, {} in {took}{stopped}", size(self.bytes));
        text
    }

    /// The report as JSON.
    pub(super) fn json(&self, jobs: usize, list: &WarmList, not_sent: &NotSent) -> Value {
        let outcomes: Vec<_> = self
            .outcomes
            .iter()
            .map(|((disposition, why), count)| {
                json!({ "disposition": disposition, "why": why, "count": count })
            })
            .collect();
        let statuses: BTreeMap<String, u64> =
            self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        let errors: Vec<_> = self
            .errors
            .iter()
            .map(|(why, (count, first))| json!({ "error": why, "count": count, "first": first }))
            .collect();
        let skipped: BTreeMap<_, _> =
            list.skipped.iter().map(|(why, count)| (why.as_str(), *count)).collect();
        let examples: Vec<_> = list
            .examples
            .iter()
            .map(|(line, text)| json!({ "line": line, "text": text }))
            .collect();
        json!({
            "requests": jobs,
            "answers": self.responses,
            "outcomes": outcomes,
            "statuses": statuses,
            "errors": errors,
            "bytes": self.bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "stopped": self.stopped,
            "not_sent": not_sent,
            "list": {
                "lines": list.lines, "distinct": list.requests.len(), "skipped": skipped,
                "unreadable": list.unreadable, "examples": examples, "over": list.over_limit,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(x_cache: &'static str, status: &'static str) -> (String, String) {
        let mut headers = HeaderMap::new();
        headers.insert(X_CACHE, http::HeaderValue::from_static(x_cache));
        headers.append(CACHE_STATUS, http::HeaderValue::from_static("origin; hit; detail=far"));
        headers.append(CACHE_STATUS, http::HeaderValue::from_static(status));
        let sent = WarmResponse::new(200, &headers, 0);
        (sent.disposition, sent.reason)
    }

    #[test]
    fn the_nearest_cache_tells_why() {
        for (x_cache, status, why) in [
            (
                "MISS",
                "sidecache; fwd=uri-miss; fwd-status=200; ttl=300; stored; detail=\"not stored\"",
                "stored",
            ),
            (
                "MISS",
                "sidecache; fwd=uri-miss; fwd-status=200; detail=\"set-cookie\"",
                "set-cookie",
            ),
            ("HIT", "origin; hit; detail=far, sidecache; hit; ttl=48; detail=memory", "memory"),
            (
                "BYPASS",
                "sidecache; fwd=bypass; detail=\"unkeyed header x-a\"; key=\"ab\"",
                "unkeyed header x-a",
            ),
        ] {
            assert_eq!(sent(x_cache, status), (x_cache.to_owned(), why.to_owned()));
        }
        assert_eq!(WarmResponse::new(200, &HeaderMap::new(), 0).disposition, "(none)");
    }

    #[test]
    fn all_failed_only_when_nothing_succeeded() {
        let answer = |status| {
            Ok(WarmResponse { status, bytes: 1, disposition: "MISS".into(), reason: String::new() })
        };
        let mut tally = Tally::default();
        assert!(!tally.all_failed());
        tally.add("/a", Err("cannot connect".into()));
        tally.add("/a", answer(502));
        assert!(tally.all_failed());
        tally.add("/a", answer(404));
        assert!(!tally.all_failed());
    }

    #[test]
    fn a_thousand_kinds_are_not_kept() {
        let mut tally = Tally::default();
        for number in 0..1000 {
            tally.add("/a?token", Err(format!("error {number}")));
            tally.add(
                "/a",
                Ok(WarmResponse {
                    status: 200,
                    bytes: 0,
                    disposition: "BYPASS".into(),
                    reason: number.to_string(),
                }),
            );
        }
        assert!(tally.errors.len() <= MAX_KINDS + 1 && tally.outcomes.len() <= MAX_KINDS + 1);
        assert!(tally.text(9).contains("others") && !tally.text(9).contains("token"));
    }
}
