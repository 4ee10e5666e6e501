//! Counts of what the store does.

use std::sync::Arc;

use crate::telemetry::metrics::Counter;

/// Counts of what the store does.
#[derive(Clone, Debug, Default)]
pub struct StoreCounters {
    /// Entries stored.
    pub stored: Arc<Counter>,
    /// Entries found but refused, because one of their tags was purged.
    pub refused_stale: Arc<Counter>,
    /// What went to Redis and came from it.
    pub packing: PackingCounters,
    /// What operators have browsed.
    pub scans: ScanCounters,
}

/// Counts of scans of the memory tier.
#[derive(Clone, Debug, Default)]
pub struct ScanCounters {
    /// Scans begun.
    pub scans: Arc<Counter>,
    /// Entries looked at.
    pub entries: Arc<Counter>,
    /// Scans refused because too many were running.
    pub refused: Arc<Counter>,
    /// Scans that ended early because they took too long.
    pub cut_short: Arc<Counter>,
}

/// In which form the body of an entry went to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// Compressed.
    Compressed,
    /// As it is, because `compress` is off. It would have been compressed.
    Off,
    /// As it is, because it is shorter than `min_size`.
    Small,
    /// As it is, because of its type.
    Type,
    /// As it is, because the app has coded it.
    Coded,
    /// As it is, because it would be hardly smaller.
    Incompressible,
    /// As it is, because too many others are being compressed.
    Busy,
}

impl BodyForm {
    /// All forms, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Compressed,
        Self::Off,
        Self::Small,
        Self::Type,
        Self::Coded,
        Self::Incompressible,
        Self::Busy,
    ];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Off => "off",
            Self::Small => "small",
            Self::Type => "type",
            Self::Coded => "coded",
            Self::Incompressible => "incompressible",
            Self::Busy => "busy",
        }
    }
}

/// Counts of what went to Redis and came from it.
#[derive(Clone, Debug, Default)]
pub struct PackingCounters {
    forms: [Arc<Counter>; BodyForm::ALL.len()],
    /// The bytes of all bodies stored, as the app sent them.
    pub original_bytes: Arc<Counter>,
    /// The bytes of the same bodies, as they were stored.
    pub stored_bytes: Arc<Counter>,
    /// The time that compressing took, in microseconds.
    pub compress_micros: Arc<Counter>,
    /// Compressed bodies read.
    pub decompressed: Arc<Counter>,
    /// The time that decompressing took, in microseconds.
    pub decompress_micros: Arc<Counter>,
    /// Values in Redis that were not valid entries.
    pub decode_errors: Arc<Counter>,
    /// Those among them whose body could not be decompressed.
    pub decompress_errors: Arc<Counter>,
}

impl PackingCounters {
    /// How many bodies were stored in this form.
    #[must_use]
    pub const fn of(&self, form: BodyForm) -> &Arc<Counter> {
        &self.forms[form as usize]
    }
}
