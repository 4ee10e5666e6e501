//! Whether Redis has room for what is to be stored: it takes nothing new while it is out of memory,
//! and nothing else would show that.
//!
//! Invariant: a change is one line. It does not end within [`QUIET_TIME`] of a refusal, so that a
//! Redis at its limit changes once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::redis::FaultKind;

/// How long nothing may have been refused before there is room again.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// Whether Redis has room.
#[derive(Debug, Default)]
pub(super) struct RedisRoom {
    is_full: AtomicBool,
    refused: Mutex<Option<Instant>>,
}

impl RedisRoom {
    /// Why nothing new is stored.
    pub(super) fn shortage(&self) -> Option<String> {
        let kind = FaultKind::OutOfMemory;
        let is_full = self.is_full.load(Relaxed);
        is_full.then(|| format!("Redis stores nothing new: {}; {}", kind.cause(), kind.remedy()))
    }

    /// Redis has refused to store something.
    pub(super) fn note_refusal(&self, now: Instant) {
        *self.refused.lock() = Some(now);
        if !self.is_full.swap(true, Relaxed) {
            let (cause, remedy) = (FaultKind::OutOfMemory.cause(), FaultKind::OutOfMemory.remedy());
            tracing::warn!(cause, remedy, "Redis stores nothing new");
        }
    }

    /// Redis has stored something.
    pub(super) fn note_stored(&self, now: Instant) {
        if !self.is_full.load(Relaxed) {
            return;
        }
        let refused = *self.refused.lock();
        let is_quiet = refused.is_none_or(|at| now.saturating_duration_since(at) >= QUIET_TIME);
        if is_quiet && self.is_full.swap(false, Relaxed) {
            tracing::info!("Redis stores again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn r865_a_redis_without_room_is_told_once() {
        let (room, start) = (RedisRoom::default(), Clock::manual().now());
        room.note_stored(start);
        assert_eq!(room.shortage(), None);
        room.note_refusal(start);
        assert!(room.shortage().is_some_and(|why| why.contains("maxmemory-policy")));
        room.note_stored(start + QUIET_TIME / 2);
        assert!(room.shortage().is_some(), "at its limit it stores now and then");
        room.note_stored(start + QUIET_TIME);
        assert_eq!(room.shortage(), None);
    }
}
