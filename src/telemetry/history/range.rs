//! The ranges that can be asked for.

use std::fmt;

use serde::{Serialize, Serializer};

/// One hour of fine steps.
pub(super) const FINE_SLOTS: usize = 720;
/// Seven days of coarse steps.
pub(super) const COARSE_SLOTS: usize = 7 * 24 * 12;

/// How far back to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRange {
    /// Five minutes, in steps of 5 s.
    FiveMinutes,
    /// One hour, in steps of 5 s.
    Hour,
    /// Six hours, in steps of 5 min.
    SixHours,
    /// One day, in steps of 5 min.
    Day,
    /// Seven days, in steps of 5 min.
    Week,
}

impl HistoryRange {
    /// All ranges, the shortest first.
    pub const ALL: [Self; 5] =
        [Self::FiveMinutes, Self::Hour, Self::SixHours, Self::Day, Self::Week];

    /// The word in queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// The range of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.as_str() == word)
    }

    /// Whether its steps are those of the last hour.
    pub(super) const fn is_fine(self) -> bool {
        matches!(self, Self::FiveMinutes | Self::Hour)
    }

    /// How many steps it has.
    pub(super) const fn slots(self) -> usize {
        match self {
            Self::FiveMinutes => 60,
            Self::Hour => FINE_SLOTS,
            Self::SixHours => 72,
            Self::Day => 288,
            Self::Week => COARSE_SLOTS,
        }
    }
}

impl fmt::Display for HistoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for HistoryRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
