//! The slots of one step width: the newest takes the place of the oldest.

use std::time::Duration;

use super::interval::Interval;
use super::slot::{HistorySlot, MIN_COVERED_MS};
use crate::clock::{Wall, millis};

/// As many slots as were asked for, by the time that they cover.
#[derive(Debug)]
pub(super) struct HistoryRing {
    step: Duration,
    slots: Box<[HistorySlot]>,
    /// The newest slot, which may still grow, and what was counted in it.
    open: Option<(u64, Interval)>,
}

impl HistoryRing {
    pub(super) fn new(step: Duration, slots: usize) -> Self {
        Self { step, slots: vec![HistorySlot::default(); slots].into(), open: None }
    }

    pub(super) const fn step(&self) -> Duration {
        self.step
    }

    /// The step that a time lies in.
    pub(super) fn index(&self, at: Wall) -> u64 {
        at.0 / millis(self.step)
    }

    /// The newest step with numbers.
    pub(super) fn newest(&self) -> Option<u64> {
        self.open.as_ref().map(|(index, _)| *index)
    }

    /// Adds what was counted between two readings.
    ///
    /// It is spread over the steps that lie in that time for at least [`MIN_COVERED_MS`], by how
    /// long each does. So a reading that comes a little after the end of its step counts for that
    /// step alone, and one that comes late leaves no step between without numbers. What is shorter
    /// belongs to the step of its middle.
    pub(super) fn record(&mut self, then: Wall, now: Wall, interval: Interval) {
        let step = millis(self.step);
        // Few: readings that are further apart than `LONGEST_INTERVAL` are a gap.
        let parts = (self.index(then)..=self.index(now)).filter_map(|index| {
            let (begin, end) = (then.0.max(index * step), now.0.min((index + 1) * step));
            let covered = end.saturating_sub(begin);
            (covered >= u64::from(MIN_COVERED_MS)).then_some((index, covered))
        });
        let mut parts: Vec<(u64, u64)> = parts.collect();
        let last = parts.pop();
        let (mut rest, mut whole) = (interval, parts.iter().chain(&last).map(|(_, ms)| ms).sum());
        for (index, covered) in parts {
            self.add(index, &rest.take(covered, whole));
            whole -= covered;
        }
        let middle = then.after(now.since(then) / 2);
        self.add(last.map_or_else(|| self.index(middle), |(index, _)| index), &rest);
    }

    fn add(&mut self, index: u64, interval: &Interval) {
        let open = match &mut self.open {
            Some((current, open)) if *current == index => {
                open.add(interval);
                open
            }
            open => &mut open.insert((index, interval.clone())).1,
        };
        let slot = HistorySlot::new(index, open);
        let place = self.place(index);
        self.slots[place] = slot;
    }

    /// The numbers of a step; `None` for a gap.
    pub(super) fn get(&self, index: u64) -> Option<&HistorySlot> {
        let slot = &self.slots[self.place(index)];
        (slot.index == index && slot.is_shown()).then_some(slot)
    }

    /// Forgets what lies after this time, because the clock was set back to it.
    pub(super) fn forget_after(&mut self, now: Wall) {
        let index = self.index(now);
        for slot in self.slots.iter_mut().filter(|slot| slot.index >= index) {
            *slot = HistorySlot::default();
        }
        self.open = None;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Where a step has its slot.
    fn place(&self, index: u64) -> usize {
        let place = index % self.slots.len() as u64;
        usize::try_from(place).unwrap_or_default()
    }
}
