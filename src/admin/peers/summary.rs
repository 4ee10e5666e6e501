//! What a sidecar tells of itself to those that share its Redis: numbers, and words that are cut
//! to a length. No secret, no request, no path.
//!
//! Spans are given as seconds until the time of publishing, not as times, so that a reader need not
//! compare its clock with that of another machine.
//!
//! SECURITY: a summary from Redis is text of a stranger. [`PeerSummary::parse`] takes only what
//! [`PeerSummary::to_json`] could have written, and all of it is escaped where it is shown.

use serde::{Deserialize, Serialize};

use crate::outcome::Disposition;
use crate::policy::route::RouteMode;
use crate::telemetry::log::printable;

use super::super::readiness::ReadyState;

/// The largest summary, in bytes of JSON with the id in front.
pub const MAX_SUMMARY_BYTES: usize = 2048;
/// The longest name of a sidecar, in bytes. What is longer is cut.
pub const MAX_NAME_BYTES: usize = 100;
/// How many reasons of its state a sidecar tells, and how long each may be, in bytes.
const MAX_REASONS: usize = 3;
const MAX_REASON_BYTES: usize = 160;
/// The longest version, in bytes.
const MAX_VERSION_BYTES: usize = 40;
/// What cutting and escaping adds to a text, at most.
const CUT_MARK_BYTES: usize = 3;
/// The number of this form. Another number may mean other things, so it is not shown.
const FORM: u8 = 1;
/// How many bytes the id in front takes, with a space.
const ID_BYTES: usize = 17;
/// No number of a sidecar is larger: a double counts exactly up to here.
const MAX_NUMBER: u64 = 1 << 53;

/// The summary of one sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerSummary {
    /// The number of the form.
    pub form: u8,
    /// The number of the summary: one more each time.
    pub number: u64,
    /// The sidecar's name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// For how long it has run.
    pub uptime_s: f64,
    /// The switch for all routes.
    pub mode: String,
    /// `ready`, `degraded` or `unready`.
    pub status: String,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// Requests since its start, in the order of [`Disposition::ALL`].
    pub requests: [u64; Disposition::ALL.len()],
    /// Requests per second, between its last two summaries.
    pub per_second: f64,
    /// p50 and p95 of what came from the cache, in milliseconds.
    pub hit_ms: Option<[f64; 2]>,
    /// p50 and p95 at the origin, in milliseconds.
    pub origin_ms: Option<[f64; 2]>,
    /// Bytes of bodies that the origin need not send.
    pub bytes_saved: u64,
    /// Entries in memory.
    pub entries: u64,
    /// Bytes that they take, and may take.
    pub memory: [u64; 2],
    /// Entries that were evicted for want of room.
    pub evictions: u64,
    /// Whether it holds a lease.
    pub lease: bool,
    /// How many other sidecars it takes for alive.
    pub peers: u64,
    /// Whether the origin answers; none if it was not asked yet.
    pub origin_answers: Option<bool>,
    /// The digest of its rules.
    pub rules: String,
    /// For how long they have been in force.
    pub rules_age_s: f64,
}

impl PeerSummary {
    /// The same in the present form, with texts that are not too long for it.
    #[must_use]
    pub fn fitted(mut self) -> Self {
        // Escapes make a text longer, so it is cut once more.
        let fit = |text: &str, most| printable(&printable(text, most), most).into_owned();
        self.form = FORM;
        self.name = fit(&self.name, MAX_NAME_BYTES);
        self.version = fit(&self.version, MAX_VERSION_BYTES);
        self.reasons.truncate(MAX_REASONS);
        for reason in &mut self.reasons {
            *reason = fit(reason, MAX_REASON_BYTES);
        }
        while self.to_json().len() > MAX_SUMMARY_BYTES - ID_BYTES && self.reasons.pop().is_some() {}
        self
    }

    /// The summary as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses a summary; `None` if a sidecar would not have written it so.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        if json.len() > MAX_SUMMARY_BYTES {
            return None;
        }
        serde_json::from_slice(json).ok().filter(Self::is_plausible)
    }

    fn is_plausible(&self) -> bool {
        let is_text = |text: &str, most: usize| {
            text.len() <= most + CUT_MARK_BYTES && !text.chars().any(char::is_control)
        };
        let is_digest = |text: &str| {
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let spans = [self.uptime_s, self.rules_age_s, self.per_second];
        let latencies = [self.hit_ms, self.origin_ms].into_iter().flatten().flatten();
        #[allow(clippy::cast_precision_loss, reason = "it is a power of two")]
        let most = MAX_NUMBER as f64;
        let counts = [self.number, self.bytes_saved, self.entries, self.evictions, self.peers];
        let mut counts = counts.into_iter().chain(self.requests).chain(self.memory);
        let modes = [RouteMode::On, RouteMode::Off, RouteMode::Shadow];
        self.form == FORM
            && !self.name.is_empty()
            && is_text(&self.name, MAX_NAME_BYTES)
            && is_text(&self.version, MAX_VERSION_BYTES)
            && self.reasons.len() <= MAX_REASONS
            && self.reasons.iter().all(|reason| is_text(reason, MAX_REASON_BYTES))
            && modes.iter().any(|mode| mode.as_str() == self.mode)
            && ReadyState::ALL.iter().any(|state| state.as_str() == self.status)
            && is_digest(&self.rules)
            && spans.into_iter().chain(latencies).all(|number| (0.0..=most).contains(&number))
            && counts.all(|count| count <= MAX_NUMBER)
    }

    /// How many requests ended in this disposition.
    #[must_use]
    pub fn count(&self, disposition: Disposition) -> u64 {
        self.requests[disposition as usize]
    }

    /// How many requests there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A summary of a sidecar of this name that has just started.
    pub fn sample(name: &str) -> PeerSummary {
        PeerSummary {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            mode: "on".to_owned(),
            status: "ready".to_owned(),
            rules: "0123456789abcdef".to_owned(),
            ..PeerSummary::default()
        }
        .fitted()
    }

    #[test]
    fn what_is_written_is_read() {
        let summary = PeerSummary {
            reasons: vec!["redis is slow".to_owned()],
            requests: [1, 2, 3, 4, MAX_NUMBER],
            per_second: 0.25,
            hit_ms: Some([0.05, 0.1]),
            origin_answers: Some(false),
            ..sample("web-1 127.0.0.1:8080")
        };
        assert_eq!(PeerSummary::parse(summary.to_json().as_bytes()), Some(summary.clone()));
        assert_eq!((summary.count(Disposition::Stale), summary.count(Disposition::Hit)), (2, 1));
    }

    /// The worst that a sidecar can have to tell, in words that JSON and the log escape.
    #[test]
    fn a_summary_fits_into_its_size_and_is_read() {
        for text in ["\"".repeat(900), "\u{1}".repeat(900), "\u{e9}".repeat(900), "a".repeat(900)] {
            let summary = PeerSummary {
                number: MAX_NUMBER,
                name: text.clone(),
                version: text.clone(),
                uptime_s: 1_234_567_890.123_456_7,
                reasons: vec![text.clone(); 9],
                requests: [MAX_NUMBER; 5],
                per_second: 123_456_789.123_456_78,
                hit_ms: Some([123_456.123_456_78; 2]),
                origin_ms: Some([123_456.123_456_78; 2]),
                bytes_saved: MAX_NUMBER,
                entries: MAX_NUMBER,
                memory: [MAX_NUMBER; 2],
                evictions: MAX_NUMBER,
                peers: MAX_NUMBER,
                rules_age_s: 1_234_567_890.123_456_7,
                ..sample("a")
            }
            .fitted();
            let json = summary.to_json();
            assert!(json.len() <= MAX_SUMMARY_BYTES - ID_BYTES, "{}: {json}", json.len());
            assert!(!summary.reasons.is_empty() && summary.reasons.len() <= MAX_REASONS);
            assert_eq!(PeerSummary::parse(json.as_bytes()), Some(summary), "{json}");
        }
    }

    #[test]
    fn what_no_sidecar_writes_is_not_read() {
        let good = sample("a").to_json();
        assert!(PeerSummary::parse(good.as_bytes()).is_some());
        let long = format!("\"name\":\"{}\"", "a".repeat(MAX_NAME_BYTES + 4));
        let fields: Vec<String> = (0..10_000).map(|n| format!("\"f{n}\":{n},")).collect();
        let fields = fields.concat();
        let bad = [
            good.replace("\"name\":\"a\"", "\"name\":\"\""),
            good.replace("\"name\":\"a\"", "\"name\":\"\\u001b[2J\""),
            good.replace("\"name\":\"a\"", "\"name\":7"),
            good.replace("\"name\":\"a\"", &long),
            good.replace("\"name\":\"a\"", "\"name\":\"a\",\"name\":\"b\""),
            good.replace("\"form\":1", "\"form\":2"),
            good.replace("\"mode\":\"on\"", "\"mode\":\"<b>\""),
            good.replace("\"status\":\"ready\"", "\"status\":\"fine\""),
            good.replace("0123456789abcdef", "0123456789abcde<"),
            good.replace("\"uptime_s\":0.0", "\"uptime_s\":-1.0"),
            good.replace("\"uptime_s\":0.0", "\"uptime_s\":1e999"),
            good.replace("\"uptime_s\":0.0", "\"uptime_s\":1e30"),
            good.replace("[0,0,0,0,0]", "[0,0,0,0]"),
            good.replace("[0,0,0,0,0]", "[0,0,0,0,18446744073709551615]"),
            good.replace("\"reasons\":[]", "\"reasons\":[\"\",\"\",\"\",\"\"]"),
            good.replacen('{', &format!("{{{fields}"), 1),
            format!("{good}x"),
            "[".repeat(2000),
            "null".to_owned(),
            String::new(),
        ];
        for text in bad {
            assert_ne!(text, good, "the sample has changed");
            assert!(PeerSummary::parse(text.as_bytes()).is_none(), "{text}");
        }
        // A later version may say more.
        let more = good.replacen('{', "{\"more\":1,", 1);
        assert!(PeerSummary::parse(more.as_bytes()).is_some());
    }
}
