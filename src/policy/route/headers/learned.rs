//! The headers of a route that its origin has named in `Vary`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderName;
use parking_lot::Mutex;

/// How many headers a route learns from `Vary`.
pub(crate) const MAX_LEARNED: usize = 8;

/// Whether a header that the origin names in `Vary` is in the key from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnOutcome {
    /// It is.
    Known,
    /// The route has learned [`MAX_LEARNED`] others: requests with it pass.
    Full,
    /// Nobody vouches for what a client says in it: requests with it pass.
    Unvouched,
}

/// Headers that the origin has named in `Vary` although the cache had withheld them.
///
/// Bounded: a response decides their names, but every name makes the key longer and sharing rarer.
#[derive(Debug, Default)]
pub(super) struct LearnedHeaders {
    any: AtomicBool,
    names: Mutex<Arc<[HeaderName]>>,
}

impl LearnedHeaders {
    /// Without a lock while nothing has been learned.
    pub(super) fn snapshot(&self) -> Option<Arc<[HeaderName]>> {
        self.any.load(Ordering::Acquire).then(|| Arc::clone(&self.names.lock()))
    }

    pub(super) fn learn(&self, name: &HeaderName) -> LearnOutcome {
        let mut names = self.names.lock();
        if names.contains(name) {
            return LearnOutcome::Known;
        }
        if names.len() == MAX_LEARNED {
            return LearnOutcome::Full;
        }
        *names = names.iter().chain([name]).cloned().collect();
        self.any.store(true, Ordering::Release);
        LearnOutcome::Known
    }
}
