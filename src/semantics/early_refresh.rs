//! What may be done with a stored response around the end of its freshness: use it although it is
//! stale, or renew it although it is fresh.
//!
//! Pure arithmetic; `now` and the dice are arguments. Whether the app forbids stale responses was
//! settled when it was stored ([`Leeway`](crate::semantics::times::Leeway)); whether a client does is
//! for the flow.

use std::time::Duration;

use crate::clock::Wall;
use crate::semantics::times::Times;

/// How many times its own duration before the end a response may be renewed. Beyond it the dice
/// would have to show less than one in ten million, and are not thrown.
const MAX_EARLY_FACTOR: i64 = 16;

/// Whether a response is no longer fresh, but not for longer than `window`.
#[must_use]
pub fn is_within(times: &Times, window: Duration, now: Wall) -> bool {
    is_open(times.ttl_ms(now), window)
}

/// The same of a response with so many milliseconds of freshness left.
#[must_use]
pub fn is_open(left: i64, window: Duration) -> bool {
    left <= 0 && u128::from(left.unsigned_abs()) < window.as_millis()
}

/// Whether a response is to be fetched anew although it is fresh (`XFetch`: Vattani, Chierichetti,
/// Lowenstein, 2015).
///
/// Each request throws dice: the nearer the end, and the longer the fetching takes, the likelier it
/// begins. So a popular response is renewed before it expires, by one request, and nobody waits.
/// `dice` gives a number in `0.0..1.0`, and is asked near the end alone.
#[must_use]
pub fn should_refresh_early(
    times: &Times,
    took: Duration,
    now: Wall,
    dice: impl FnOnce() -> f64,
) -> bool {
    let left = times.ttl_ms(now);
    let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    if left > took.saturating_mul(MAX_EARLY_FACTOR) || times.lifetime.is_zero() {
        return false;
    }
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a fetch; the dice are coarser")]
    let (left, took) = (left as f64, took as f64);
    // ln(0) is -∞: it begins now.
    -took * dice().ln() >= left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        assert!(!is_within(&times, Duration::ZERO, Wall(1_500)), "a window of nothing is none");
    }

    #[test]
    fn a_renewal_becomes_likelier_towards_the_end() {
        let (times, took) = (times(60_000), Duration::from_millis(100));
        let due =
            |left: u64, dice: f64| should_refresh_early(&times, took, Wall(61_000 - left), || dice);
        assert!(!due(10_000, 0.0), "far from the end no dice are thrown");
        assert!(due(460, 0.01) && !due(461, 0.01), "-100 ms * ln(0.01) = 460.5 ms");
        assert!(due(69, 0.5) && !due(70, 0.5));
        assert!(due(1, 0.98) && due(0, 0.999));
        assert!(
            !should_refresh_early(&times, Duration::ZERO, Wall(60_999), || 0.0001),
            "what takes no time can wait for its end"
        );
    }

    #[test]
    fn the_dice_are_left_alone_while_a_response_is_young() {
        assert!(!should_refresh_early(
            &times(60_000),
            Duration::from_millis(100),
            Wall(2_000),
            || panic!("asked for dice")
        ));
    }

    proptest! {
        #[test]
        fn the_longer_the_fetch_the_earlier_the_renewal(left in 1_u64..5_000, took in 1_u64..2_000, more in 0_u64..2_000, dice in 0.0001_f64..1.0) {
            let (times, now) = (times(60_000), Wall(61_000 - left));
            let due = |took| should_refresh_early(&times, Duration::from_millis(took), now, || dice);
            prop_assert!(!due(took) || due(took + more));
        }

        #[test]
        fn no_arithmetic_overflows(received: u64, age: u64, lifetime: u64, now: u64, took: u64, window: u64, dice in 0.0_f64..1.0) {
            let [age, lifetime, took, window] = [age, lifetime, took, window].map(Duration::from_millis);
            let times = Times { received: Wall(received), initial_age: age, lifetime };
            let _ = (is_within(&times, window, Wall(now)), should_refresh_early(&times, took, Wall(now), || dice));
        }
    }
}
