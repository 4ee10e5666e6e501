//! The only module that reads a clock. Everything else takes the time as an argument, or a
//! [`Clock`].
#![allow(clippy::disallowed_methods, reason = "this is the one place")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use running::{RUNNING_STEP, wait_while_running};

mod running;

/// A time in milliseconds since the Unix epoch: by this process's own count ([`Clock::wall`]), by
/// the machine's clock ([`Clock::date`]), or by Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

impl Wall {
    /// This time, later by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This time, earlier by `by`.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The whole seconds since the epoch, as HTTP-dates count them.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the monotonic clock is counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The count of all clocks of this machine in this process.
static MACHINE: Ratchet = Ratchet(AtomicI64::new(i64::MIN));

/// The furthest that the wall clock was ever seen ahead of the monotonic clock, in milliseconds.
///
/// Time that is counted by it never goes back, and never runs behind the wall clock: a step of the
/// wall clock back changes nothing, and one forward (also after the machine was suspended, while
/// the monotonic clock stood still) makes everything older.
#[derive(Debug)]
struct Ratchet(AtomicI64);

impl Ratchet {
    fn raise(&self, ahead: i64) -> i64 {
        let known = self.0.load(Ordering::Relaxed);
        if ahead <= known { known } else { self.0.fetch_max(ahead, Ordering::Relaxed).max(ahead) }
    }
}

/// A source of time. Clones share the source.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

#[derive(Debug)]
struct Manual {
    ahead_ms: AtomicU64,
    /// How far the wall clock was stepped.
    stepped_ms: AtomicI64,
    ratchet: Ratchet,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// The machine's clocks, which a test can move forward.
    #[must_use]
    pub fn manual() -> Self {
        Self(Some(Arc::new(Manual {
            ahead_ms: AtomicU64::new(0),
            stepped_ms: AtomicI64::new(0),
            ratchet: Ratchet(AtomicI64::new(i64::MIN)),
        })))
    }

    /// Moves a manual clock forward. A system clock stays where it is.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.ahead_ms.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual clock forward or, where negative, back, as an administrator
    /// or NTP does. The monotonic clock goes on.
    pub fn step_wall(&self, by_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.stepped_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// The time by this process's own count: the wall clock's, but it never goes back. Whatever is
    /// measured within this process is measured by it, the ages of entries above all.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.both().1
    }

    /// [`Self::now`] and [`Self::wall`] at once, for less than both cost.
    #[must_use]
    pub fn both(&self) -> (Instant, Wall) {
        // In this order: a pause between the two makes the wall clock seem behind, never ahead.
        let date = signed(self.date().0);
        let now = self.now();
        let steady = steady_ms(now);
        let ratchet = self.0.as_ref().map_or(&MACHINE, |manual| &manual.ratchet);
        let ahead = ratchet.raise(date.saturating_sub(steady));
        (now, Wall(u64::try_from(steady.saturating_add(ahead)).unwrap_or_default()))
    }

    /// How far this process's count is ahead of its monotonic clock, in milliseconds. It grows by
    /// as much as the wall clock is set forward, and never shrinks.
    #[must_use]
    pub fn lead_ms(&self) -> i64 {
        // In this order: a pause between the two makes the wall clock seem behind, never ahead.
        let date = signed(self.date().0);
        let ratchet = self.0.as_ref().map_or(&MACHINE, |manual| &manual.ratchet);
        ratchet.raise(date.saturating_sub(steady_ms(self.now())))
    }

    /// The time by the machine's wall clock, which may be set at any time: to compare with the
    /// dates of others, and to write dates for others.
    #[must_use]
    pub fn date(&self) -> Wall {
        Wall(millis(self.since_epoch()))
    }

    /// The same as finely as the machine tells it, since the Unix epoch.
    #[must_use]
    pub fn since_epoch(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stepped = self.0.as_ref().map_or(0, |manual| manual.stepped_ms.load(Ordering::SeqCst));
        let ahead = signed(self.ahead()).saturating_add(stepped);
        let by = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { now.saturating_sub(by) } else { now.saturating_add(by) }
    }

    /// What the wall clock says of a time by this process's own count.
    #[must_use]
    pub fn date_of(&self, wall: Wall) -> Wall {
        wall.before(self.wall().since(self.date()))
    }

    /// A time that another machine's clock showed just now, as it would be if that clock had moved
    /// with this one: a test moves time forward for everybody.
    #[must_use]
    pub fn as_moved(&self, there_ms: u64) -> u64 {
        there_ms.saturating_add(self.ahead())
    }

    /// Time that never goes back, for deadlines.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.ahead())
    }

    fn ahead(&self) -> u64 {
        self.0.as_ref().map_or(0, |manual| manual.ahead_ms.load(Ordering::SeqCst))
    }
}

/// The milliseconds of the monotonic clock, as all clocks count them.
fn steady_ms(now: Instant) -> i64 {
    signed(millis(now.saturating_duration_since(*START)))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn near(time: Wall, expected: Wall) -> bool {
        time.0.abs_diff(expected.0) < 10_000
    }

    #[test]
    fn time_does_not_go_back_with_the_wall_clock() {
        let clock = Clock::manual();
        let before = clock.wall();
        assert!(near(before, clock.date()));
        clock.step_wall(-HOUR);
        assert!(clock.wall() >= before && near(clock.wall(), before));
        assert!(near(clock.date(), before.before(Duration::from_hours(1))));
        assert!(near(clock.date_of(before), clock.date()));
        clock.advance(Duration::from_mins(1));
        assert!(near(clock.wall(), before.after(Duration::from_mins(1))), "it goes on");
    }

    #[test]
    fn time_follows_the_wall_clock_forward_and_stays_there() {
        let clock = Clock::manual();
        let before = clock.wall();
        clock.step_wall(HOUR);
        let later = before.after(Duration::from_hours(1));
        assert!(near(clock.wall(), later) && near(clock.date_of(later), later));
        assert!(clock.lead_ms() >= HOUR, "set forward");
        let lead = clock.lead_ms();
        clock.step_wall(-HOUR);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.lead_ms(), lead);
        assert!(clock.wall() >= later, "never back");
        assert!(near(clock.date_of(clock.wall()), before), "a date is by the wall clock");
    }
}
