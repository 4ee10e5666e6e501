//! What may be done with a stored response around the end of its freshness: use it although it is
//! stale, or refresh it although it is still fresh.
//!
//! Pure arithmetic; `now` and the random number are arguments. Whether the origin forbids stale
//! responses was decided when the response was stored
//! ([`Leeway`](crate::semantics::times::Leeway)); whether the client does is decided by the proxy.

use std::time::Duration;

use crate::clock::Wall;
use crate::semantics::times::Times;

/// An early refresh starts at most this many fetch durations before the end of the freshness. Any
/// earlier, its probability would be below one in ten million, so no random number is drawn.
const MAX_EARLY_FACTOR: i64 = 16;

/// Whether a response with `left` milliseconds of freshness left is stale, but for less than
/// `window`.
#[must_use]
pub fn is_open(left: i64, window: Duration) -> bool {
    left <= 0 && u128::from(left.unsigned_abs()) < window.as_millis()
}

/// Whether to refresh a response although it is still fresh (`XFetch`: Vattani, Chierichetti,
/// Lowenstein, 2015).
///
/// Each request draws a random number: the nearer the end of the freshness and the longer the fetch
/// takes, the likelier a refresh becomes. A popular response is therefore refreshed by one request
/// before it expires, and no client waits. `dice` returns a number in `0.0..1.0` and is called only
/// near the end of the freshness.
#[must_use]
pub fn should_refresh_early(
    times: &Times,
    fetch_duration: Duration,
    now: Wall,
    dice: impl FnOnce() -> f64,
) -> bool {
    let left = times.ttl_ms(now);
    let fetch_duration = i64::try_from(fetch_duration.as_millis()).unwrap_or(i64::MAX);
    if left > fetch_duration.saturating_mul(MAX_EARLY_FACTOR) || times.lifetime.is_zero() {
        return false;
    }
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a fetch; the dice are coarser")]
    let (left, fetch_duration) = (left as f64, fetch_duration as f64);
    // ln(0) is -∞, which starts a refresh.
    -fetch_duration * dice().ln() >= left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_within(times: &Times, window: Duration, now: Wall) -> bool {
        is_open(times.ttl_ms(now), window)
    }

    fn times(lifetime: u64) -> Times {
        Times {
            received: Wall(1_000),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_millis(lifetime),
        }
    }

    #[test]
    fn a_window_begins_where_freshness_ends() {
        let (times, window) = (times(500), Duration::from_millis(100));
        for (now, expected) in
            [(1_499, false), (1_500, true), (1_599, true), (1_600, false), (u64::MAX, false)]
        {
            assert_eq!(is_within(&times, window, Wall(now)), expected, "{now}");
        }
        assert!(!is_within(&times, Duration::ZERO, Wall(1_500)), "an empty window is never open");
    }

    #[test]
    fn a_refresh_becomes_likelier_towards_the_end() {
        let (times, fetch_duration) = (times(60_000), Duration::from_millis(100));
        let due = |left: u64, dice: f64| {
            should_refresh_early(&times, fetch_duration, Wall(61_000 - left), || dice)
        };
        assert!(!due(10_000, 0.0), "far from the end no random number is drawn");
        assert!(due(460, 0.01) && !due(461, 0.01), "-100 ms * ln(0.01) = 460.5 ms");
        assert!(due(69, 0.5) && !due(70, 0.5));
        assert!(due(1, 0.98) && due(0, 0.999));
        assert!(
            !should_refresh_early(&times, Duration::ZERO, Wall(60_999), || 0.0001),
            "a fetch that takes no time need not start early"
        );
    }

    #[test]
    fn no_random_number_is_drawn_while_a_response_is_young() {
        assert!(!should_refresh_early(
            &times(60_000),
            Duration::from_millis(100),
            Wall(2_000),
            || panic!("a random number was drawn")
        ));
    }

    proptest! {
        #[test]
        fn the_longer_the_fetch_the_earlier_the_refresh(
            left in 1_u64..5_000,
            fetch_duration in 1_u64..2_000,
            more in 0_u64..2_000,
            dice in 0.0001_f64..1.0,
        ) {
            let (times, now) = (times(60_000), Wall(61_000 - left));
            let due = |fetch_duration| {
                should_refresh_early(&times, Duration::from_millis(fetch_duration), now, || dice)
            };
            prop_assert!(!due(fetch_duration) || due(fetch_duration + more));
        }

        #[test]
        fn no_arithmetic_overflows(
            received: u64,
            age: u64,
            lifetime: u64,
            now: u64,
            fetch_duration: u64,
            window: u64,
            dice in 0.0_f64..1.0,
        ) {
            let [age, lifetime, fetch_duration, window] =
                [age, lifetime, fetch_duration, window].map(Duration::from_millis);
            let times = Times { received: Wall(received), initial_age: age, lifetime };
            let _ = (
                is_within(&times, window, Wall(now)),
                should_refresh_early(&times, fetch_duration, Wall(now), || dice),
            );
        }
    }
}
