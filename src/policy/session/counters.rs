//! Counts what came of the session cookies of lookups, by format and result.
//!
//! One count for the process: rules are replaced by reloads, counts must not be.

use std::sync::{Arc, LazyLock};

use crate::policy::session::fault::SessionFault;
use crate::policy::session::format::SessionFormat;
use crate::telemetry::metrics::Counter;

/// What came of a session cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionResult {
    /// Its signature was verified.
    Verified,
    /// It had been verified before.
    Remembered,
    /// It gives no value.
    Fault(SessionFault),
}

/// How many results there are.
const RESULTS: usize = SessionFault::ALL.len() + 2;

type FormatCounts = [Arc<Counter>; RESULTS];

static COUNTS: LazyLock<[FormatCounts; SessionFormat::ALL.len()]> =
    LazyLock::new(|| std::array::from_fn(|_| std::array::from_fn(|_| Arc::default())));

impl SessionResult {
    const fn index(self) -> usize {
        match self {
            Self::Verified => 0,
            Self::Remembered => 1,
            Self::Fault(fault) => 2 + fault as usize,
        }
    }

    /// The value of the metric label `result`.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Verified => "verified".to_owned(),
            Self::Remembered => "remembered".to_owned(),
            Self::Fault(fault) => fault.as_str().to_ascii_lowercase().replace(' ', "_"),
        }
    }
}

/// Counts a session cookie of a lookup.
pub(super) fn count(format: SessionFormat, result: SessionResult) {
    COUNTS[format as usize][result.index()].inc();
}

/// All counts, with their format and result.
pub fn session_verifications()
-> impl Iterator<Item = (SessionFormat, SessionResult, &'static Arc<Counter>)> {
    let faults = SessionFault::ALL.map(SessionResult::Fault);
    let results: Vec<SessionResult> =
        [SessionResult::Verified, SessionResult::Remembered].into_iter().chain(faults).collect();
    SessionFormat::ALL.into_iter().flat_map(move |format| {
        let results = results.clone().into_iter();
        results.map(move |result| (format, result, &COUNTS[format as usize][result.index()]))
    })
}
