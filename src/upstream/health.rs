//! Whether the origin answers, as its last requests have found: told in the log once for each
//! change, and shown by `/ready` and the statistics.
//!
//! Invariants:
//! - A change is one line. An origin that fails some requests and answers others does not change
//!   with each of them: after one recovery in [`FLAP_INTERVAL`], the next one counts only when no
//!   request has failed for [`QUIET_TIME`].
//! - What is shown is how it fails now: the worst kind of failure, until no request has failed in
//!   this way for [`QUIET_TIME`].
//! - An origin that answers costs one relaxed load for each request.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::{OriginFailure, UpstreamError};
use crate::clock::{Clock, Wall};

/// Within this time one recovery is believed at once.
const FLAP_INTERVAL: Duration = Duration::from_mins(1);
/// How long no request may have failed before a further one is.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// No request has been answered or has failed yet.
const UNKNOWN: u8 = 0;
const ANSWERS: u8 = 1;
const FAILS: u8 = 2;

/// Whether the origin answers.
#[derive(Debug)]
pub struct OriginHealth {
    address: Box<str>,
    clock: Clock,
    state: AtomicU8,
    history: Mutex<HealthHistory>,
}

#[derive(Debug, Default)]
struct HealthHistory {
    outage: Option<OngoingOutage>,
    /// When the last outage ended.
    recovered: Option<Instant>,
}

#[derive(Debug)]
struct OngoingOutage {
    shown: OriginOutage,
    since: Instant,
    last_failure: Instant,
    /// When a request has last failed as shown.
    last_shown: Instant,
    /// Whether the origin has answered since the last failure.
    has_answered: bool,
}

/// An origin that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginOutage {
    /// When it began to.
    pub since: Wall,
    /// How many requests have failed.
    pub failures: u64,
    /// How it fails.
    pub kind: OriginFailure,
    /// Why, in words.
    pub cause: String,
    /// What an operator can do.
    pub advice: &'static str,
}

impl OriginOutage {
    fn new(since: Wall, kind: OriginFailure, error: &UpstreamError) -> Self {
        Self { since, failures: 0, kind, cause: error.cause(), advice: error.advice() }
    }
}

/// What is known of the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginStatus {
    /// Where it listens.
    pub address: Box<str>,
    /// Whether it has answered lately; `None` before the first request.
    pub answers: Option<bool>,
    /// How it fails, if it does.
    pub outage: Option<OriginOutage>,
}

impl OriginStatus {
    /// Why the sidecar is degraded, if the origin fails.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let OriginOutage { kind, cause, .. } = self.outage.as_ref()?;
        Some(format!("the app at {} {}: {cause}", self.address, kind.as_str()))
    }
}

impl OriginHealth {
    pub(super) fn new(address: &str, clock: Clock) -> Self {
        Self {
            address: address.into(),
            clock,
            state: AtomicU8::new(UNKNOWN),
            history: Mutex::default(),
        }
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> OriginStatus {
        let mut history = self.history.lock();
        self.settle(&mut history);
        let outage = history.outage.as_ref().map(|outage| outage.shown.clone());
        let answers = match self.state.load(Relaxed) {
            UNKNOWN => None,
            state => Some(state == ANSWERS),
        };
        OriginStatus { address: self.address.clone(), answers, outage }
    }

    /// Notes a response, whatever its status.
    #[inline]
    pub(super) fn record_answer(&self) {
        if self.state.load(Relaxed) != ANSWERS {
            self.record_change();
        }
    }

    #[cold]
    fn record_change(&self) {
        let mut history = self.history.lock();
        match &mut history.outage {
            Some(outage) => {
                outage.has_answered = true;
                self.settle(&mut history);
            }
            None => self.state.store(ANSWERS, Relaxed),
        }
    }

    /// Notes a request without a response, if that is the origin's fault.
    pub(super) fn record_failure(&self, error: &UpstreamError) {
        let Some(kind) = error.origin_failure() else { return };
        let now = self.clock.now();
        let mut history = self.history.lock();
        // What was quiet for long enough before this failure is over.
        self.settle(&mut history);
        // An origin that is gone is another change than one that fails some requests, and one that
        // fails in another way than before is, too.
        let is_news = history.outage.as_ref().is_none_or(|outage| {
            kind.is_worse_than(outage.shown.kind)
                || (kind != outage.shown.kind
                    && now.saturating_duration_since(outage.last_shown) >= QUIET_TIME)
        });
        if is_news {
            let (address, cause, advice) = (&*self.address, error.cause(), error.advice());
            tracing::warn!(address, cause, advice, "the app {}", kind.as_str());
        }
        self.state.store(FAILS, Relaxed);
        let outage = history.outage.get_or_insert_with(|| OngoingOutage {
            shown: OriginOutage::new(self.clock.wall(), kind, error),
            since: now,
            last_failure: now,
            last_shown: now,
            has_answered: false,
        });
        if is_news {
            let OriginOutage { since, failures, .. } = outage.shown;
            outage.shown = OriginOutage { failures, ..OriginOutage::new(since, kind, error) };
        }
        if kind == outage.shown.kind {
            outage.last_shown = now;
        }
        outage.shown.failures += 1;
        (outage.last_failure, outage.has_answered) = (now, false);
    }

    /// Ends an outage that is over.
    fn settle(&self, history: &mut HealthHistory) {
        let Some(outage) = &history.outage else { return };
        let now = self.clock.now();
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_over = outage.has_answered
            && (history.recovered.is_none_or(|at| passed(at) >= FLAP_INTERVAL)
                || passed(outage.last_failure) >= QUIET_TIME);
        if !is_over {
            return;
        }
        tracing::info!(
            address = &*self.address,
            failures = outage.shown.failures,
            after = ?passed(outage.since),
            "the app answers again"
        );
        *history = HealthHistory { outage: None, recovered: Some(now) };
        self.state.store(ANSWERS, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused() -> UpstreamError {
        UpstreamError::Connect(io::ErrorKind::ConnectionRefused.into())
    }

    fn health() -> (OriginHealth, Clock) {
        let clock = Clock::manual();
        (OriginHealth::new("app.test:3000", clock.clone()), clock)
    }

    fn fails(health: &OriginHealth) -> bool {
        health.status().outage.is_some()
    }

    #[test]
    fn the_first_failure_and_the_first_answer_are_changes() {
        let (health, _) = health();
        assert_eq!(health.status().answers, None);
        for _ in 0..50 {
            health.record_failure(&refused());
        }
        let status = health.status();
        assert_eq!(
            (status.answers, status.outage.map(|outage| outage.failures)),
            (Some(false), Some(50))
        );
        health.record_answer();
        assert_eq!((health.status().answers, fails(&health)), (Some(true), false));
    }

    #[test]
    fn an_origin_that_flaps_changes_once() {
        let (health, clock) = health();
        health.record_failure(&refused());
        health.record_answer();
        assert!(!fails(&health));
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            health.record_failure(&refused());
            health.record_answer();
            assert!(fails(&health), "a second recovery within the interval is not believed");
        }
        clock.advance(QUIET_TIME);
        assert!(!fails(&health), "until it was quiet");
        clock.advance(FLAP_INTERVAL);
        health.record_failure(&refused());
        health.record_answer();
        assert!(!fails(&health), "later one is believed at once");
    }

    #[test]
    fn silence_after_a_failure_is_no_recovery() {
        let (health, clock) = health();
        health.record_failure(&refused());
        clock.advance(Duration::from_hours(1));
        assert!(fails(&health));
    }

    #[test]
    fn what_a_client_or_a_full_queue_does_is_not_the_origins_fault() {
        let (health, _) = health();
        health.record_failure(&UpstreamError::Busy);
        health.record_failure(&UpstreamError::RequestBody("it broke off".into()));
        assert_eq!(health.status().answers, None);
    }

    #[test]
    fn the_worst_failure_is_shown() {
        let (health, _) = health();
        health.record_failure(&UpstreamError::FirstByteTimeout);
        health.record_failure(&refused());
        health.record_failure(&UpstreamError::FirstByteTimeout);
        let reason = health.status().degraded_reason().expect("it fails");
        assert_eq!(
            reason,
            "the app at app.test:3000 does not accept connections: the connection was refused"
        );
    }
    #[test]
    fn r864_an_outage_shows_how_the_origin_fails_now() {
        let (health, clock) = health();
        let shown = || health.status().degraded_reason().unwrap_or_default();
        health.record_failure(&refused());
        for _ in 0..5 {
            clock.advance(QUIET_TIME / 3);
            health.record_failure(&UpstreamError::FirstByteTimeout);
        }
        assert!(shown().contains("does not answer in time"), "{}", shown());
        assert_eq!(health.status().outage.map(|outage| outage.failures), Some(6));
        health.record_failure(&refused());
        assert!(shown().contains("does not accept connections"), "{}", shown());
    }
}
