//! The times of a stored response: its age, the rest of its freshness, and the windows in which it
//! may be used stale (RFC 9111 4.2).
//!
//! Pure arithmetic in whole milliseconds: `now` is an argument, and nothing overflows.

use std::time::Duration;

use crate::clock::Wall;

/// The times of a stored response, from which its age and freshness are computed (RFC 9111 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the response was received.
    pub received: Wall,
    /// The corrected initial age at that moment (RFC 9111 4.2.3).
    pub initial_age: Duration,
    /// How long the response is fresh, counted from when the origin generated it: the age is
    /// subtracted.
    pub lifetime: Duration,
}

/// How long a stored response may be used after its freshness has ended, and for which purpose. All
/// windows begin where the freshness ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leeway {
    /// The response is delivered at once while a new one is fetched (RFC 5861 3).
    pub while_revalidate: Duration,
    /// The response is delivered when the origin fails with an error (RFC 5861 4).
    pub if_error: Duration,
    /// The response is delivered when the origin cannot be reached (RFC 9111 4.2.4).
    pub unreachable: Duration,
    /// The response is kept so that the origin can revalidate it. No other window is longer.
    pub keep: Duration,
}

impl Times {
    /// The current age (RFC 9111 4.2.3): the initial age plus the time in the store.
    #[must_use]
    pub fn age(&self, now: Wall) -> Duration {
        self.initial_age.saturating_add(now.since(self.received))
    }

    /// Milliseconds of freshness left; zero or negative when stale.
    #[must_use]
    pub fn ttl_ms(&self, now: Wall) -> i64 {
        signed_millis(self.lifetime).saturating_sub(signed_millis(self.age(now)))
    }

    /// Whether the response is fresh (RFC 9111 4.2): its lifetime is greater than its age.
    #[must_use]
    pub fn is_fresh(&self, now: Wall) -> bool {
        self.ttl_ms(now) > 0
    }
}

fn signed_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn times_age_and_expire() {
        let times = Times { received: Wall(100_000), initial_age: secs(4), lifetime: secs(10) };
        assert_eq!(times.age(Wall(103_500)), Duration::from_millis(7_500));
        assert_eq!((times.ttl_ms(Wall(103_500)), times.is_fresh(Wall(103_500))), (2_500, true));
        assert!(times.is_fresh(Wall(105_999)));
        assert_eq!((times.ttl_ms(Wall(106_000)), times.is_fresh(Wall(106_000))), (0, false));
        assert_eq!(times.ttl_ms(Wall(107_000)), -1_000);
        assert_eq!(
            times.age(Wall(0)),
            secs(4),
            "a clock that went back makes nothing younger than it came"
        );
    }

    fn any_times() -> impl Strategy<Value = Times> {
        (any::<u64>(), any::<Duration>(), any::<Duration>()).prop_map(
            |(received, initial_age, lifetime)| Times {
                received: Wall(received),
                initial_age,
                lifetime,
            },
        )
    }

    proptest! {
        #[test]
        fn arithmetic_never_overflows_and_age_only_grows(times in any_times(), now in any::<u64>(), step in any::<u64>()) {
            let later = Wall(now.saturating_add(step));
            prop_assert!(times.age(later) >= times.age(Wall(now)));
            prop_assert!(times.ttl_ms(later) <= times.ttl_ms(Wall(now)));
            prop_assert!(times.is_fresh(Wall(now)) || !times.is_fresh(later), "what is stale stays stale");
        }
    }
}
