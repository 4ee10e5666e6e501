//! Hard and soft purges.
//!
//! A hard purge makes the entries it names invalid. A soft purge makes them stale at once, as if
//! their freshness had ended at that moment: they are never hits again, but they may be
//! revalidated, and served within their stale windows (RFC 5861), counted from the purge.
//!
//! Invariants:
//! 1. *A soft purge is a purge.* Every check for a change sees it: hits, fills in progress, and
//!    requests that would join a fill. Only code that asks for stale entries learns that the purge
//!    was soft.
//! 2. *Hard wins.* An entry that was purged hard stays invalid, whatever soft purges come before or
//!    after. A mutation that may have been committed always purges hard, also when its sidecar has
//!    died.
//! 3. *In doubt, hard.* A soft purge becomes a hard one in the journal, where a record is missing,
//!    and where Redis accepts deletions only.

/// What a purge does to the entries it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PurgeKind {
    /// Makes them invalid, stale windows included.
    #[default]
    Hard,
    /// Makes them stale.
    Soft,
}

impl PurgeKind {
    /// The word for logs, metrics, and the scripts in Redis.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}
