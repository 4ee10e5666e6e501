//! What happened: a few kinds of events, drawn on the axis of the numbers.

use std::collections::VecDeque;

use serde::Serialize;

use crate::clock::Wall;
use crate::telemetry::log::printable;

/// How many marks are kept. The oldest goes first.
pub const MAX_MARKS: usize = 512;
/// The longest text of a mark before it is escaped, in bytes.
pub const MAX_MARK_TEXT: usize = 160;
/// The longest text that is kept: what is escaped grows, up to ten bytes for two.
const MAX_KEPT_TEXT: usize = 5 * MAX_MARK_TEXT;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// The process started, by itself or to take over from another one.
    Restart,
    /// The file was loaded again.
    Reload,
    /// The changed file was refused.
    ReloadFailed,
    /// Everything was purged.
    PurgeEverything,
    /// Routes were switched off or to shadow mode for a time, or are no longer.
    Switch,
    /// Redis is not used any more.
    RedisLost,
    /// Redis is used again.
    RedisBack,
    /// The app does not answer, or fails some requests.
    AppDown,
    /// The app answers again.
    AppBack,
    /// There are no numbers for the time before.
    Gap,
}

/// Something that happened, perhaps several times in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryMark {
    /// When first, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When last.
    pub until_ms: u64,
    /// What.
    pub kind: MarkKind,
    /// How often in a row, with nothing else in between.
    pub times: u32,
    /// Why, or what exactly; may be empty.
    pub text: Box<str>,
}

/// The latest marks.
#[derive(Debug)]
pub(super) struct MarkRing {
    marks: VecDeque<HistoryMark>,
    dropped: u64,
}

impl Default for MarkRing {
    fn default() -> Self {
        Self { marks: VecDeque::with_capacity(MAX_MARKS), dropped: 0 }
    }
}

impl MarkRing {
    pub(super) fn push(&mut self, at: Wall, kind: MarkKind, text: &str) {
        let text = printable(text, MAX_MARK_TEXT);
        let text = &text[..text.floor_char_boundary(MAX_KEPT_TEXT)];
        // What repeats itself is one mark: a file that is refused at each poll, a caller that
        // purges in a loop.
        if let Some(last) = self.marks.back_mut()
            && last.kind == kind
            && *last.text == *text
        {
            last.times = last.times.saturating_add(1);
            last.until_ms = at.0;
            return;
        }
        if self.marks.len() == MAX_MARKS {
            self.marks.pop_front();
            self.dropped += 1;
        }
        let (at_ms, until_ms, times) = (at.0, at.0, 1);
        self.marks.push_back(HistoryMark { at_ms, until_ms, kind, times, text: text.into() });
    }

    /// The marks since this time, oldest first.
    pub(super) fn since(&self, from: Wall) -> Vec<HistoryMark> {
        self.marks.iter().filter(|mark| mark.until_ms >= from.0).cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// How many marks had to go for newer ones.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts: usize = self.marks.iter().map(|mark| mark.text.len()).sum();
        self.marks.capacity() * size_of::<HistoryMark>() + texts
    }
}
