//! Tells of purges of this sidecar once they are done, for caches that are in front of it.
//!
//! Invariants:
//! 1. *No purge is left out.* All ways to purge end in the functions of `mutation.rs` that call
//!    [`PurgeObserver::told`]: those of writes, of sources, by hand, of what a dead sidecar has
//!    left, and of the journal. What the bus brings is of another sidecar, which tells of it
//!    itself.
//! 2. *A purge is told once no sidecar serves what it names* under its lease, or all that could be
//!    told have been: a cache in front that asks again must not get the old response.

use std::fmt;
use std::sync::OnceLock;

use crate::policy::tag::Tag;

/// What is called with the tags of a purge; `None` for everything.
type ToldPurges = Box<dyn Fn(Option<&[Tag]>) + Send + Sync>;

/// Who is told of purges.
#[derive(Default)]
pub(super) struct PurgeObserver(OnceLock<ToldPurges>);

impl fmt::Debug for PurgeObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PurgeObserver").field(&self.0.get().is_some()).finish()
    }
}

impl PurgeObserver {
    /// Only the first one counts.
    pub(super) fn set(&self, listener: ToldPurges) {
        // Ignore the error: there is one already.
        let _ = self.0.set(listener);
    }

    /// Tells of a purge that is done.
    pub(super) fn told(&self, tags: Option<&[Tag]>) {
        if let Some(listener) = self.0.get() {
            listener(tags);
        }
    }
}
