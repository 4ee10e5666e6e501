//! How many bytes of uploads may be in memory before they are forwarded: all together, and of one
//! client. Knows nothing of requests.
//!
//! Invariants:
//! - Bytes are taken as they arrive, never as they are announced, so that who fills the budget has
//!   sent it.
//! - A client holds at most as much as is left after it: one client leaves half of the budget to
//!   the others, two leave a third.
//! - Dropping a [`ReservedBytes`] gives its bytes back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::metrics::Counter;

/// The bytes of all uploads that are read before they are forwarded. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct UploadBudget {
    limit: u64,
    taken: Arc<Mutex<TakenBytes>>,
    /// Uploads that found no room, and were streamed.
    pub exceeded: Arc<Counter>,
}

#[derive(Debug, Default)]
struct TakenBytes {
    all: u64,
    /// Only clients that hold some are in it.
    by_client: HashMap<IpAddr, u64>,
}

/// What one upload has taken. Dropping it gives it back.
#[derive(Debug)]
pub struct ReservedBytes {
    budget: UploadBudget,
    client: IpAddr,
    bytes: u64,
}

impl UploadBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, taken: Arc::default(), exceeded: Arc::default() }
    }

    /// How many bytes are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.lock().all
    }

    /// Nothing yet, for an upload of this client.
    #[must_use]
    pub fn reserve(&self, client: IpAddr) -> ReservedBytes {
        ReservedBytes { budget: self.clone(), client, bytes: 0 }
    }
}

impl ReservedBytes {
    /// Takes more bytes, if there is room for them.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let mut taken = self.budget.taken.lock();
        let all = taken.all.saturating_add(bytes);
        let own = taken.by_client.get(&self.client).map_or(bytes, |own| own.saturating_add(bytes));
        if self.budget.limit.checked_sub(all).is_none_or(|left| own > left) {
            drop(taken);
            self.budget.exceeded.inc();
            return false;
        }
        taken.all = all;
        if own > 0 {
            taken.by_client.insert(self.client, own);
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.budget.taken.lock();
        taken.all -= self.bytes;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= self.bytes;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_client_leaves_as_much_as_it_takes() {
        let budget = UploadBudget::new(600);
        let (mut one, mut again) = (budget.reserve(address(1)), budget.reserve(address(1)));
        assert!(one.grow(200) && again.grow(100) && !again.grow(1));
        assert_eq!((budget.taken(), budget.exceeded.get()), (300, 1));
        let mut other = budget.reserve(address(2));
        assert!(other.grow(150) && !other.grow(1));
        // However many clients there are, the next one finds some room.
        let mut third = budget.reserve(address(3));
        assert!(third.grow(75));
        drop((one, again, other, third));
        assert_eq!(budget.taken(), 0);
        assert!(budget.taken.lock().by_client.is_empty());
    }

    #[test]
    fn what_is_dropped_is_given_back_whole() {
        let budget = UploadBudget::new(10);
        for _ in 0..100 {
            let mut bytes = budget.reserve(address(1));
            assert!(bytes.grow(0) && bytes.grow(2) && bytes.grow(3) && !bytes.grow(u64::MAX));
        }
        assert_eq!(budget.taken(), 0);
    }
}
