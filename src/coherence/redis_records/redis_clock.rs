//! The clock of Redis, seen from here.
//!
//! Entries are dated by it, because it is the one clock that all sidecars share: none depends on
//! the wall clock of another. It is read with each heartbeat, and with each commit of a fill.
//!
//! Invariants:
//! - No age is understated: a writer dates an entry by the earliest time that Redis's clock can
//!   have had, and a reader counts from there to the latest.
//! - A clock of Redis that was set back makes no entry younger. The scripts of heartbeats notice it
//!   before any sidecar reads the new time, and make a new generation. Steps back of less than
//!   [`CLOCK_TOLERANCE`] are not noticed, but counted as age.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::clock::{Clock, Wall, millis};

/// How far Redis's clock may go back without a new generation: less than that is no rare accident
/// on some virtual machines.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);

/// How far Redis's clock is ahead of this process's count, in milliseconds: at least and at most.
#[derive(Debug, Default)]
pub(super) struct RedisClock {
    at_least: AtomicI64,
    at_most: AtomicI64,
    /// The same for the dates of entries.
    dates_at_least: AtomicI64,
    /// How far this process's count was ahead of its monotonic clock before that.
    lead: AtomicI64,
    dates_at_most: AtomicI64,
}

impl RedisClock {
    /// Notes that Redis's clock had this time at some moment between `before` and now.
    pub(super) fn set(&self, redis_ms: u64, before: Wall, clock: &Clock) {
        let lead = clock.lead_ms();
        let after = clock.wall();
        self.at_least.store(ahead_at_least(redis_ms, after), Relaxed);
        // Redis cuts a millisecond off.
        let at_most = |redis_ms: u64| distance(redis_ms.saturating_add(1), before);
        self.at_most.store(at_most(redis_ms), Relaxed);
        self.dates_at_least.store(ahead_at_least(clock.as_moved(redis_ms), after), Relaxed);
        self.dates_at_most.store(at_most(clock.as_moved(redis_ms)), Relaxed);
        // After the dates: who reads this one has dates that are at least as new.
        self.lead.store(lead, Release);
    }

    /// The time there, at the earliest: deadlines seem later, never earlier.
    pub(super) fn at_earliest(&self, now: Wall) -> u64 {
        now.0.saturating_add_signed(self.at_least.load(Relaxed))
    }

    /// The time there, at the latest: what is past seems longer ago.
    pub(super) fn at_latest(&self, now: Wall) -> u64 {
        now.0.saturating_add_signed(self.at_most.load(Relaxed))
    }

    /// The date there of something that was received at this time by this process's count, at the
    /// earliest: it seems older, never younger. The wall clock may have been set forward since the
    /// clock there was read, and before or after it was received.
    pub(super) fn there(&self, here: Wall, clock: &Clock) -> Wall {
        let lead = self.lead.load(Acquire);
        let stepped = clock.lead_ms().saturating_sub(lead).max(0);
        let ahead = self.dates_at_least.load(Relaxed).saturating_sub(stepped);
        Wall(here.0.saturating_add_signed(ahead))
    }

    /// A time there by this process's count, at the earliest that it can have been; `None` if it is
    /// still to come, so that it says nothing.
    pub(super) fn local(&self, there: Wall, now: Wall) -> Option<Wall> {
        let latest = now.0.saturating_add_signed(self.dates_at_most.load(Relaxed));
        let passed = latest.saturating_add(millis(CLOCK_TOLERANCE));
        passed.checked_sub(there.0).map(|ago| now.before(Duration::from_millis(ago)))
    }
}

/// How far Redis's clock is ahead at least, if it had this time before `after`.
pub(super) fn ahead_at_least(redis_ms: u64, after: Wall) -> i64 {
    distance(redis_ms, after)
}

fn distance(redis_ms: u64, here: Wall) -> i64 {
    i64::try_from(i128::from(redis_ms) - i128::from(here.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the clocks say, and however long replies take. True time is counted from the
        /// moment at which the response was received.
        #[test]
        fn no_age_is_understated(
            writer in 1_u64 << 40..1 << 42,
            redis in 1_u64 << 40..1 << 42,
            (commit, commit_reply) in (0_u64..1_000, 0_u64..1_000),
            (sent, beat, reply) in (0_u64..100_000, 0_u64..1_000, 0_u64..1_000),
            later in 0_u64..100_000,
        ) {
            let ahead = ahead_at_least(redis + commit, Wall(writer + commit + commit_reply));
            let dated = Wall(writer.saturating_add_signed(ahead));
            let (clock, here) = (RedisClock::default(), Clock::system());
            // The reader's clock says `base` at the moment at which the response was received.
            let replied = sent + beat + reply;
            let base = here.wall().0 - replied;
            clock.set(redis + sent + beat, Wall(base + sent), &here);
            let age = replied.max(commit) + later;
            let now = Wall(base + age);
            let seen = millis(now.since(clock.local(dated, now).expect("it is past")));
            let most = age + commit_reply + beat + 1 + millis(CLOCK_TOLERANCE);
            prop_assert!((age..=most).contains(&seen), "{seen} of {age}");
        }
    }

    proptest! {
        /// Read back by another process, at whatever time its clock shows.
        #[test]
        fn a_date_that_is_written_and_read_back_understates_no_age(
            reader in 1_u64 << 40..1 << 42,
            redis in 1_u64 << 40..1 << 42,
            (held, reply, passed) in (0_u64..100_000, 0_u64..1_000, 0_u64..100_000),
        ) {
            let here = Clock::system();
            let base = here.wall().0;
            // Redis replies at `redis`; this process counts `base - held` when it receives.
            let (clock, received) = (RedisClock::default(), Wall(base - held));
            clock.set(redis, Wall(base.saturating_sub(reply)), &here);
            let dated = clock.there(received, &here);
            prop_assert!(dated.0 <= redis - held, "{dated:?}");
            // The other process reads it `passed` later, by a clock of its own.
            let other = RedisClock::default();
            let ahead = i64::try_from(i128::from(redis + passed) - i128::from(reader));
            other.dates_at_most.store(ahead.expect("it fits") + 1, Relaxed);
            let seen = other.local(dated, Wall(reader)).expect("it is past");
            prop_assert!(millis(Wall(reader).since(seen)) >= held + passed);
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_makes_nothing_younger() {
        let (clock, here) = (RedisClock::default(), Clock::manual());
        let before = here.wall();
        clock.set(5_000, before, &here);
        here.step_wall(60_000);
        // Received now, when it is 5,000 there.
        let dated = clock.there(here.wall(), &here).0;
        assert!((4_000..=5_100).contains(&dated), "{dated}");
        assert!(clock.there(before, &here).0 <= 5_000);
    }

    #[test]
    fn a_time_to_come_says_nothing() {
        let (clock, here) = (RedisClock::default(), Clock::manual());
        let before = here.wall();
        clock.set(5_000, before, &here);
        let tolerance = millis(CLOCK_TOLERANCE);
        assert_eq!(clock.local(Wall(5_002 + tolerance), before), None);
        assert_eq!(clock.local(Wall(5_001 + tolerance), before), Some(before));
    }
}
