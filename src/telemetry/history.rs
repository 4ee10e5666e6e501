//! The history of the numbers: one hour in steps of 5 seconds, seven days in steps of 5 minutes,
//! and what happened meanwhile, so that whoever looks after an incident sees it.
//!
//! Owns the rings and the marks, which have fixed limits ([`MAX_HISTORY_BYTES`] in all). The time
//! is an argument. Must not know where the numbers come from: it is given readings of counters, and
//! keeps the differences. What lies between two readings is spread over the slots that it covers.
//! If they are too far apart it is a gap: nobody knows when in that time something was counted.

mod interval;
mod marks;
mod range;
mod reading;
mod ring;
mod slot;
mod view;

use std::time::Duration;

use self::interval::Interval;
use self::marks::MarkRing;
pub use self::marks::{MAX_MARKS, MarkKind};
pub use self::range::HistoryRange;
use self::range::{COARSE_SLOTS, FINE_SLOTS};
pub use self::reading::{HistoryReading, SlotStatus};
use self::ring::HistoryRing;
pub use self::view::HistoryView;
use crate::clock::{Wall, millis};

/// How often a reading is due, and what a slot of the last hour covers.
pub const FINE_STEP: Duration = Duration::from_secs(5);
/// What a slot of the last seven days covers.
pub const COARSE_STEP: Duration = Duration::from_mins(5);
/// Two readings that are further apart have a gap between them: the process was stopped, the
/// machine was suspended, or its clock was set forward.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// What the history of one process may take in memory, in bytes. A test holds it to that.
pub const MAX_HISTORY_BYTES: usize = 2 << 20;

/// The history of one process.
#[derive(Debug)]
pub struct TrafficHistory {
    fine: HistoryRing,
    coarse: HistoryRing,
    marks: MarkRing,
    last: Option<(Wall, HistoryReading)>,
}

impl Default for TrafficHistory {
    fn default() -> Self {
        Self::new()
    }
}

impl TrafficHistory {
    /// An empty history. Takes its memory at once, but for the texts of marks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            fine: HistoryRing::new(FINE_STEP, FINE_SLOTS),
            coarse: HistoryRing::new(COARSE_STEP, COARSE_SLOTS),
            marks: MarkRing::default(),
            last: None,
        }
    }

    /// Notes what the counters say at this time. The first reading is only the base of the next
    /// one.
    pub fn record(&mut self, now: Wall, reading: HistoryReading) {
        if let Some((then, earlier)) = &self.last {
            let (then, elapsed) = (*then, now.since(*then));
            if now < then {
                self.fine.forget_after(now);
                self.coarse.forget_after(now);
                self.mark(now, MarkKind::Gap, "the clock was set back");
            } else if elapsed > LONGEST_INTERVAL {
                let text = format!(
                    "no numbers for {} s: the process was stopped or got no processor, the machine \
                     was suspended, or its clock was set forward",
                    elapsed.as_secs()
                );
                self.mark(now, MarkKind::Gap, &text);
            } else if now > then {
                let interval = Interval::between(elapsed, earlier, &reading);
                self.fine.record(then, now, interval.clone());
                self.coarse.record(then, now, interval);
            }
        }
        self.last = Some((now, reading));
    }

    /// Notes something that happened. The text is escaped and truncated.
    pub fn mark(&mut self, at: Wall, kind: MarkKind, text: &str) {
        self.marks.push(at, kind, text);
    }

    /// The numbers of this range up to now.
    #[must_use]
    pub fn view(&self, range: HistoryRange, now: Wall) -> HistoryView {
        let ring = if range.is_fine() { &self.fine } else { &self.coarse };
        let is_current =
            self.last.as_ref().is_some_and(|(at, _)| now.since(*at) <= LONGEST_INTERVAL);
        // The slot that has just begun has no numbers yet, which is no gap.
        let newest = match ring.newest() {
            Some(newest) if is_current => newest,
            _ => ring.index(now),
        };
        let step_ms = millis(ring.step());
        let slots = range.slots();
        let first = (newest + 1).saturating_sub(slots as u64);
        let from = Wall(first * step_ms);
        HistoryView {
            range,
            from_ms: from.0,
            step_ms,
            slots,
            now_ms: now.0,
            series: view::series(ring, first, slots),
            events: self.marks.since(from),
            events_dropped: self.marks.dropped(),
        }
    }

    /// How many marks are kept.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// What it takes in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.fine.heap_bytes()
            + self.coarse.heap_bytes()
            + self.marks.heap_bytes()
    }
}

#[cfg(test)]
mod tests;
