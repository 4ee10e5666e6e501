//! Which part the cache takes while two processes of one sidecar serve: the predecessor, which
//! drains, and its successor.
//!
//! Invariants, where the truth is the local table of each process, which the other one does not
//! purge:
//! 1. *At most one of them caches.* The predecessor passes and stores nothing from before the
//!    successor may accept its first connection ([`Overlap::hand_over`]). What it has stored is
//!    never served again, unless the successor dies before it serves; then everything is purged
//!    first.
//! 2. *The successor caches only what was fetched after the last write through its predecessor was
//!    answered.* Until then it passes and stores nothing ([`Overlap::awaits_predecessor`]); so that
//!    no fill can have begun before.
//! 3. *A write counts until the origin can no longer commit it:* it holds a token of
//!    [`Overlap::writes`] from before its body is read to after its response has ended
//!    (`proxy/mutation.rs`).
//! 4. *Writes purge as always*, in both.
//!
//! With Redis the first rule alone is kept, since it costs nothing: both processes are two sidecars
//! of the protocol, each with a lease of its own. A write through the predecessor marks the records
//! of its tags, purges them there, and waits until the successor has acknowledged that or holds no
//! lease. So the successor may store from its first request on.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A predecessor may still answer writes.
const AWAITS_PREDECESSOR: u8 = 1;
/// A successor has taken over, or is about to.
const HANDED_OVER: u8 = 2;
/// This process drains: another one may have been started.
const DRAINING: u8 = 4;

/// Which part the cache takes, and the writes in progress.
#[derive(Debug, Default)]
pub struct Overlap {
    state: AtomicU8,
    writes: TaskTracker,
}

impl Overlap {
    /// Whether requests pass, and nothing is stored.
    pub(super) fn passes(&self) -> bool {
        self.state.load(SeqCst) != 0
    }

    /// Whether this process waits for the last write of its predecessor.
    #[must_use]
    pub fn awaits_predecessor(&self) -> bool {
        self.state.load(SeqCst) & AWAITS_PREDECESSOR != 0
    }

    /// A predecessor may still answer writes.
    pub fn await_predecessor(&self) {
        self.state.fetch_or(AWAITS_PREDECESSOR, SeqCst);
    }

    /// The predecessor has answered its last write.
    pub fn predecessor_is_done(&self) {
        self.state.fetch_and(!AWAITS_PREDECESSOR, SeqCst);
    }

    /// Another process may serve from now on.
    pub fn hand_over(&self) {
        self.state.fetch_or(HANDED_OVER, SeqCst);
    }

    /// No other process serves. The caller has purged what the other one may have changed.
    pub fn take_back(&self) {
        self.state.fetch_and(!HANDED_OVER, SeqCst);
    }

    /// This process drains.
    pub fn drain(&self) {
        self.state.fetch_or(DRAINING, SeqCst);
    }

    /// A write begins, and lasts as long as the token.
    pub fn write(&self) -> TaskTrackerToken {
        self.writes.token()
    }

    /// Returns when no write is in progress.
    pub async fn no_writes(&self) {
        self.writes.close();
        self.writes.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_may_itself_be_succeeded_while_it_waits() {
        let overlap = Overlap::default();
        assert!(!overlap.passes());
        overlap.await_predecessor();
        overlap.hand_over();
        overlap.predecessor_is_done();
        assert!(overlap.passes() && !overlap.awaits_predecessor());
        overlap.take_back();
        assert!(!overlap.passes());
        overlap.hand_over();
        overlap.drain();
        overlap.take_back();
        assert!(overlap.passes(), "it was told to stop meanwhile");
    }

    #[tokio::test]
    async fn writes_are_waited_for() {
        let overlap = Overlap::default();
        let write = overlap.write();
        assert!(futures_util::FutureExt::now_or_never(overlap.no_writes()).is_none());
        drop(write);
        overlap.no_writes().await;
    }
}
