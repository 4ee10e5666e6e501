//! A part of counts, taken as if all had come evenly.

/// `part` of `whole`; `part` is at most `whole`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    pub(super) part: u64,
    pub(super) whole: u64,
}

impl Portion {
    /// This part of a count, rounded. Never more than the count, and never less for a greater one.
    pub(super) fn of(self, count: u64) -> u64 {
        let whole = u128::from(self.whole.max(1));
        let part = u128::from(self.part.min(self.whole));
        u64::try_from((u128::from(count) * part + whole / 2) / whole).unwrap_or(count)
    }
}
