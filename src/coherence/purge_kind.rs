//! What a purge leaves behind: nothing, or what is stale.
//!
//! A hard purge voids what it names. A soft purge makes it stale at once, as if its freshness had
//! ended at that moment: it is never a hit again, but the app may confirm it, and it may be served
//! within its stale windows (RFC 5861), counted from the purge.
//!
//! Invariants:
//! 1. *A soft purge is a purge.* Whatever asks whether something is what it was, finds that it is
//!    not: hits, fills under way, and those who would join them. Only who asks for what is stale is
//!    told how it came about.
//! 2. *Hard wins.* What a hard purge has voided is void, whatever soft purges came before or after
//!    it; a mutation that may have been committed always purges hard, its sidecar's death included.
//! 3. *Where it cannot be told apart, it was hard.* A soft purge becomes a hard one in the journal,
//!    where a record is missing, and where Redis takes no writes but deletions.

/// What a purge does to what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PurgeKind {
    /// It is void, its stale windows included.
    #[default]
    Hard,
    /// It is stale from now on.
    Soft,
}

impl PurgeKind {
    /// One word for logs, metrics, and the scripts in Redis.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}
