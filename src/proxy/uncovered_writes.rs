//! Mutations of cached paths that no purge rule covers: told once for each pattern of a path and
//! hour, so that an operator learns which rule is missing.
//!
//! SECURITY: strangers choose paths. How many are told in an hour is bounded, and so is what is
//! remembered of each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::policy::fold::fold;
use crate::telemetry::log::LogText;

/// For how long a pattern is not told again.
const INTERVAL: Duration = Duration::from_hours(1);
/// The most patterns that are told in that time.
const MAX_PATTERNS: usize = 64;
/// The longest pattern, in segments and in bytes of each.
const MAX_SEGMENTS: usize = 8;
const MAX_SEGMENT: usize = 32;

/// The patterns that were told, and when.
#[derive(Debug, Default)]
pub(crate) struct UncoveredWrites {
    told: Mutex<HashMap<String, Instant>>,
}

/// What to tell of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UncoveredNotice {
    Pattern(String),
    /// There were too many patterns already.
    More,
}

impl UncoveredWrites {
    /// Tells of a mutation, unless one like it was told of within the hour.
    pub(super) fn record(&self, method: &Method, path: &str, clock: &Clock) {
        match self.notice(method, path, clock.now()) {
            Some(UncoveredNotice::Pattern(pattern)) => tracing::warn!(
                pattern,
                path = %LogText(path),
                "no purge rule speaks of this write to a cached path: only its own URI is purged, \
                 and lists that show the same data stay; add a [[purges]] rule for the pattern"
            ),
            Some(UncoveredNotice::More) => tracing::warn!(
                patterns = MAX_PATTERNS,
                "more writes to cached paths than are told in an hour have no purge rule; \
                 sidecache_mutations_uncovered_total counts all"
            ),
            None => {}
        }
    }

    fn notice(&self, method: &Method, path: &str, now: Instant) -> Option<UncoveredNotice> {
        let pattern = pattern(method, path);
        let mut told = self.told.lock();
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= INTERVAL;
        if let Some(at) = told.get_mut(&pattern) {
            let is_due = is_old(at);
            if is_due {
                *at = now;
            }
            return is_due.then_some(UncoveredNotice::Pattern(pattern));
        }
        if told.len() >= MAX_PATTERNS {
            told.retain(|_, at| !is_old(at));
        }
        match told.len() {
            // The last place is for the line that there are more.
            ..MAX_PATTERNS => {
                told.insert(pattern.clone(), now);
                Some(UncoveredNotice::Pattern(pattern))
            }
            MAX_PATTERNS => {
                told.insert(String::new(), now);
                Some(UncoveredNotice::More)
            }
            _ => None,
        }
    }
}

/// The method and the path as a rule would name them: letters folded, ids as `{id}`.
fn pattern(method: &Method, path: &str) -> String {
    let mut text = LogText(method.as_str()).to_string();
    text.push(' ');
    let path = fold(path);
    let mut segments = path.trim_start_matches('/').split('/');
    for segment in segments.by_ref().take(MAX_SEGMENTS) {
        text.push('/');
        text.push_str(if is_id(segment) {
            "{id}"
        } else {
            &segment[..segment.floor_char_boundary(MAX_SEGMENT)]
        });
    }
    if segments.next().is_some() {
        text.push_str("/…");
    }
    text
}

/// Whether a segment is an id and no name: a number, a UUID, a hash, a token.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    digits > 0
        && (digits == segment.len()
            || segment.len() >= 16 && digits >= 3 && segment.bytes().all(is_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_folded_and_names_are_not() {
        for (path, expected) in [
            ("/Items/17", "POST /items/{id}"),
            ("/items/0b1f9a34-4c1f-4a86-9c6a-1f6f3c1d2e3f/lines", "POST /items/{id}/lines"),
            ("/items/5f2b8c1e9a7d4e6f", "POST /items/{id}"),
            ("/api/v1/oauth2", "POST /api/v1/oauth2"),
            ("/a/b/c/d/e/f/g/h/i", "POST /a/b/c/d/e/f/g/h/…"),
            ("/", "POST /"),
        ] {
            assert_eq!(pattern(&Method::POST, path), expected);
        }
        let long = pattern(&Method::POST, &format!("/{}", "ä".repeat(1000)));
        assert!(long.len() < 64, "{long}");
    }

    #[test]
    fn a_pattern_is_told_once_an_hour() {
        let (writes, clock) = (UncoveredWrites::default(), Clock::manual());
        let told = |path: &str| writes.notice(&Method::POST, path, clock.now()).is_some();
        assert!(told("/items/1") && !told("/items/2") && told("/lists/1"));
        clock.advance(INTERVAL);
        assert!(told("/items/3") && !told("/items/4"));
    }

    #[test]
    fn many_patterns_are_bounded_and_that_is_told() {
        let (writes, clock) = (UncoveredWrites::default(), Clock::manual());
        let notice = |at: usize| {
            writes.notice(&Method::POST, &format!("/items/name{}", "x".repeat(at)), clock.now())
        };
        let told: Vec<_> = (0..MAX_PATTERNS).map(notice).collect();
        assert!(told.iter().flatten().count() < MAX_PATTERNS, "names are cut");
        let notice =
            |at: usize| writes.notice(&Method::POST, &format!("/items/n{at}/a"), clock.now());
        let told: Vec<_> = (0..1000).filter_map(notice).collect();
        assert!(told.len() <= MAX_PATTERNS + 1);
        assert_eq!(told.last(), Some(&UncoveredNotice::More));
        assert!(writes.told.lock().len() <= MAX_PATTERNS + 1);
        clock.advance(INTERVAL);
        assert!(notice(2000).is_some(), "an hour later there is room");
    }
}
