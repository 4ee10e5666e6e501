//! What fetching whole responses for the sake of parts may cost the origin, for each peer: a factor
//! of the parts that the peer has received.
//!
//! SECURITY: without it one byte of each of many objects would make the origin send all of them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::proxy::settings::ProxySettings;
use crate::shares::ShareOwner;
use crate::telemetry::metrics::Counter;

/// How many of the largest responses may be fetched before anything was received.
const FIRST_FILLS: u64 = 4;

/// The most peers that are remembered. Beyond it, the one that has spent least is forgotten.
const MAX_PEERS: usize = 4096;

/// What each peer may still have fetched. A peer that may have everything is not in it.
#[derive(Debug, Default)]
pub struct RangeBudget {
    peers: Mutex<HashMap<ShareOwner, u64>>,
    /// Responses that were not fetched whole, because the peer had received too little.
    pub exceeded: Arc<Counter>,
}

/// How much a peer may have fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct RangeLimit {
    /// Before it has received anything, and at most at once.
    most: u64,
    /// For each byte that it receives.
    factor: u64,
}

impl RangeLimit {
    pub(super) const fn from_settings(settings: &ProxySettings) -> Self {
        Self {
            most: settings.range_fill.saturating_mul(FIRST_FILLS),
            factor: settings.range_factor,
        }
    }
}

impl RangeBudget {
    /// Takes so many bytes from what the peer may have fetched. False: it may not.
    pub(super) fn take(&self, peer: ShareOwner, bytes: u64, limit: RangeLimit) -> bool {
        let mut peers = self.peers.lock();
        let left = peers.get(&peer).copied().unwrap_or(limit.most).min(limit.most);
        let Some(left) = left.checked_sub(bytes) else {
            self.exceeded.inc();
            return false;
        };
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            let richest = peers.iter().max_by_key(|(_, left)| **left).map(|(peer, _)| *peer);
            richest.map(|richest| peers.remove(&richest));
        }
        peers.insert(peer, left);
        true
    }

    /// The peer has received so many bytes of parts.
    pub(super) fn credit(&self, peer: ShareOwner, bytes: u64, limit: RangeLimit) {
        self.add(peer, bytes.saturating_mul(limit.factor), limit);
    }

    /// Nothing was fetched after all.
    pub(super) fn give_back(&self, peer: ShareOwner, bytes: u64, limit: RangeLimit) {
        self.add(peer, bytes, limit);
    }

    fn add(&self, peer: ShareOwner, bytes: u64, limit: RangeLimit) {
        let mut peers = self.peers.lock();
        let Some(left) = peers.get_mut(&peer) else { return };
        *left = left.saturating_add(bytes);
        if *left >= limit.most {
            peers.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RangeLimit = RangeLimit { most: 400, factor: 16 };
    const PEER: ShareOwner = ShareOwner::V4(1);

    #[test]
    fn what_is_fetched_is_a_factor_of_what_was_received() {
        let budget = RangeBudget::default();
        for _ in 0..4 {
            assert!(budget.take(PEER, 100, LIMIT));
        }
        assert!(!budget.take(PEER, 100, LIMIT));
        assert!(budget.take(ShareOwner::V4(2), 100, LIMIT), "another peer has a budget of its own");
        budget.credit(PEER, 6, LIMIT);
        assert!(!budget.take(PEER, 100, LIMIT));
        budget.credit(PEER, 1, LIMIT);
        assert!(budget.take(PEER, 100, LIMIT));
        assert_eq!(budget.exceeded.get(), 2);
        budget.credit(PEER, 1 << 40, LIMIT);
        assert!(!budget.peers.lock().contains_key(&PEER), "a full budget takes no room");
    }

    #[test]
    fn the_table_of_peers_is_bounded() {
        let budget = RangeBudget::default();
        budget.take(PEER, 400, LIMIT);
        for peer in 2..10_000 {
            budget.take(ShareOwner::V4(peer), 1, LIMIT);
        }
        assert_eq!(budget.peers.lock().len(), MAX_PEERS);
        assert!(!budget.take(PEER, 1, LIMIT), "the one that has spent all is remembered");
    }
}
