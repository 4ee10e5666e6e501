//! For how long a body waits for its client.

use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::PermitHolder;

/// The slowest client that counts as making progress, in bytes a second. SECURITY: otherwise one
/// byte every now and then would hold a permit for ever.
const MIN_RATE: u64 = 8 * 1024;

/// For how long a body waits for its client, and whether it was cut for that.
#[derive(Debug, Default)]
pub struct PauseWatch(Mutex<PauseState>);

#[derive(Debug, Default)]
struct PauseState {
    /// When the present wait began.
    since: Option<Instant>,
    /// What earlier waits have left over.
    debt: Duration,
    cut: bool,
    waker: Option<Waker>,
}

impl PauseWatch {
    /// The body waits for its client from now on, if it did not before. `waker` is woken by a cut.
    pub fn pause(&self, now: Instant, waker: Option<&Waker>) {
        let mut state = self.0.lock();
        state.since.get_or_insert(now);
        if let Some(waker) = waker
            && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
    }

    /// The client has moved so many bytes. What it waited is forgiven at [`MIN_RATE`].
    pub fn resume(&self, now: Instant, bytes: usize) {
        let mut state = self.0.lock();
        let Some(since) = state.since.take() else { return };
        let earned = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / MIN_RATE);
        state.debt = (state.debt + now.saturating_duration_since(since)).saturating_sub(earned);
    }

    /// Whether the body waits for its client.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.lock().since.is_some()
    }

    /// Whether the body was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.lock().cut
    }
}

impl PermitHolder for PauseWatch {
    fn paused_for(&self, now: Instant) -> Option<Duration> {
        let state = self.0.lock();
        let since = state.since.filter(|_| !state.cut)?;
        Some(state.debt + now.saturating_duration_since(since))
    }

    fn cut(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.cut = state.since.is_some();
            if state.cut { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_drip_is_no_progress_and_a_slow_line_is() {
        let clock = Clock::manual();
        let start = clock.now();
        let (drip, slow) = (PauseWatch::default(), PauseWatch::default());
        for second in 0..10 {
            let (begin, end) = (start + SECOND * second, start + SECOND * (second + 1));
            drip.pause(begin, None);
            slow.pause(begin, None);
            drip.resume(end, 1);
            slow.resume(end, 16 * 1024);
        }
        let end = start + SECOND * 10;
        assert_eq!((drip.paused_for(end), slow.paused_for(end)), (None, None), "neither waits");
        drip.pause(end, None);
        slow.pause(end, None);
        assert!(drip.paused_for(end).is_some_and(|paused| paused > SECOND * 9));
        assert_eq!(slow.paused_for(end), Some(Duration::ZERO));
    }
}
