//! How long Redis takes to reply: where every reply takes longer than `deadline`, nothing that
//! needs one is a hit, and somebody has to be told why.
//!
//! Invariant: the least of several counts, so that a reply that this process itself read late does
//! not, nor a single late one.

use std::time::Duration;

use parking_lot::Mutex;

/// Of how many heartbeats the least round trip counts.
const ROUND_TRIPS: usize = 8;

/// How many there have to be before Redis is called slow: the first take two round trips each,
/// while the server does not know the scripts yet.
const CONVINCING: usize = 2 * ROUND_TRIPS;

/// Proposed deadlines are multiples of this.
const DEADLINE_STEP: Duration = Duration::from_millis(50);

/// The round trips of the last heartbeats.
#[derive(Debug, Default)]
pub(super) struct RoundTrips(Mutex<LatestRoundTrips>);

#[derive(Debug, Default)]
struct LatestRoundTrips {
    latest: [Duration; ROUND_TRIPS],
    /// How many there have been.
    count: usize,
    /// The least of the latest, while all of them took longer than the deadline.
    slow: Option<Duration>,
}

/// What one more round trip has changed.
#[derive(Debug, PartialEq, Eq)]
enum SlownessChange {
    Began(Duration),
    Ended(Duration),
}

impl LatestRoundTrips {
    fn least(&self) -> Option<Duration> {
        self.latest.iter().take(self.count).min().copied()
    }

    fn mean(&self) -> Option<Duration> {
        let count = self.count.min(ROUND_TRIPS);
        let sum: Duration = self.latest.iter().take(count).sum();
        sum.checked_div(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

impl RoundTrips {
    /// The least of the latest; `None` before the first.
    pub(super) fn least(&self) -> Option<Duration> {
        self.0.lock().least()
    }

    /// The mean of the latest; `None` before the first.
    pub(super) fn mean(&self) -> Option<Duration> {
        self.0.lock().mean()
    }

    /// Why nothing that needs Redis is a hit, if every reply takes longer than this.
    pub(super) fn slowness(&self, deadline: Duration) -> Option<String> {
        let slow = self.0.lock().slow;
        slow.map(|least| too_slow(least, deadline))
    }

    /// Notes how long Redis took to reply to a heartbeat, and tells when that begins, or ceases, to
    /// be longer than a request waits.
    pub(super) fn note(&self, took: Duration, deadline: Duration) {
        match self.record(took, deadline) {
            None => {}
            Some(SlownessChange::Began(least)) => tracing::warn!("{}", too_slow(least, deadline)),
            Some(SlownessChange::Ended(least)) => tracing::info!(
                "Redis replies within `deadline` ({deadline:?}) again, in {least:.1?}"
            ),
        }
    }

    fn record(&self, took: Duration, deadline: Duration) -> Option<SlownessChange> {
        let mut all = self.0.lock();
        let at = all.count % ROUND_TRIPS;
        all.latest[at] = took;
        all.count += 1;
        let least = all.least()?;
        let was_slow = all.slow.is_some();
        all.slow = (all.count >= CONVINCING && least > deadline).then_some(least);
        match (was_slow, all.slow.is_some()) {
            (false, true) => Some(SlownessChange::Began(least)),
            (true, false) => Some(SlownessChange::Ended(least)),
            _ => None,
        }
    }
}

fn too_slow(least: Duration, deadline: Duration) -> String {
    format!(
        "Redis takes {least:.1?} to reply, longer than `deadline` ({deadline:?}): what needs it \
         goes to the origin; write deadline = \"{}ms\" in [redis]",
        enough_for(least).as_millis()
    )
}

/// A deadline with which requests would get their replies.
fn enough_for(least: Duration) -> Duration {
    let steps = (least * 2).as_millis().div_ceil(DEADLINE_STEP.as_millis());
    DEADLINE_STEP * u32::try_from(steps).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(100);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn redis_is_slow_when_the_least_of_eight_is_and_no_longer_with_one_that_is_not() {
        let trips = RoundTrips::default();
        assert_eq!(trips.least(), None);
        // Seven late replies may be this process's own fault, and the first ones prove nothing yet.
        for _ in 0..5 {
            for _ in 0..7 {
                assert_eq!(trips.record(ms(900), DEADLINE), None);
            }
            assert_eq!(trips.record(ms(20), DEADLINE), None);
            assert_eq!((trips.least(), trips.slowness(DEADLINE)), (Some(ms(20)), None));
        }
        for _ in 0..7 {
            assert_eq!(trips.record(ms(130), DEADLINE), None);
        }
        assert_eq!(trips.record(ms(120), DEADLINE), Some(SlownessChange::Began(ms(120))));
        for _ in 0..20 {
            assert_eq!(trips.record(ms(120), DEADLINE), None, "told once");
        }
        let why = trips.slowness(DEADLINE).unwrap();
        assert!(why.starts_with("Redis takes 120.0ms to reply, "), "{why}");
        assert!(why.contains("`deadline` (100ms)") && why.contains("deadline = \"250ms\" in"));
        assert_eq!(trips.record(ms(100), DEADLINE), Some(SlownessChange::Ended(ms(100))));
        assert_eq!(trips.slowness(DEADLINE), None);
    }

    #[test]
    fn the_first_round_trips_which_load_scripts_do_not_say_how_slow_redis_is() {
        let trips = RoundTrips::default();
        for _ in 0..8 {
            assert_eq!(trips.record(ms(800), DEADLINE), None);
        }
        for _ in 0..7 {
            assert_eq!(trips.record(ms(400), DEADLINE), None);
        }
        assert_eq!(trips.record(ms(400), DEADLINE), Some(SlownessChange::Began(ms(400))));
    }

    #[test]
    fn the_mean_is_that_of_the_last_eight() {
        let trips = RoundTrips::default();
        assert_eq!(trips.mean(), None);
        assert_eq!(trips.record(ms(900), DEADLINE), None);
        assert_eq!(trips.mean(), Some(ms(900)));
        for _ in 0..7 {
            assert_eq!(trips.record(ms(20), DEADLINE), None);
        }
        assert_eq!((trips.mean(), trips.least()), (Some(ms(130)), Some(ms(20))));
        assert_eq!(trips.record(ms(20), DEADLINE), None);
        assert_eq!(trips.mean(), Some(ms(20)));
    }

    #[test]
    fn a_proposed_deadline_is_twice_what_redis_takes_and_round() {
        assert_eq!(enough_for(ms(101)), ms(250));
        assert_eq!(enough_for(ms(125)), ms(250));
        assert_eq!(enough_for(ms(700)), ms(1_400));
    }
}
