//! Who holds and who waits: the arithmetic of shares, without locks, tasks or clocks.
//!
//! A peer is in the table only while it holds or waits, so that the table is as small as the limits
//! are.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::departure::{Claim, Departure};
use super::{PermitHolder, Queues, ShareOwner};

/// All holders that were looked at. They must be dropped after the table is unlocked, because the
/// last reference to a holder releases its permit.
pub(super) type Examined = Vec<Arc<dyn PermitHolder>>;

/// Who holds and who waits. `W` is how a waiter gets its permit.
#[derive(Debug)]
pub(super) struct ShareTable<W> {
    free: usize,
    waiting: usize,
    max_waiting: usize,
    next_id: u64,
    turn: u64,
    peers: HashMap<ShareOwner, PeerShare<W>>,
    /// Claims of requests whose clients have left, by their numbers: the oldest first.
    offers: BTreeMap<u64, PlaceOffer>,
}

#[derive(Debug)]
struct PlaceOffer {
    /// It is a place in the queue.
    waits: bool,
    departure: Weak<Departure>,
}

#[derive(Debug)]
struct PeerShare<W> {
    held: usize,
    /// The turn of its last permit.
    served: u64,
    waiters: VecDeque<(u64, W)>,
    /// What holds its permits, by the permits' numbers: the oldest first.
    holders: BTreeMap<u64, HolderList>,
}

#[derive(Default)]
struct HolderList(Vec<Weak<dyn PermitHolder>>);

impl std::fmt::Debug for HolderList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} holders", self.0.len())
    }
}

impl<W> Default for PeerShare<W> {
    fn default() -> Self {
        Self { held: 0, served: 0, waiters: VecDeque::new(), holders: BTreeMap::new() }
    }
}

impl<W> PeerShare<W> {
    /// Whether the peer neither holds nor waits.
    fn is_idle(&self) -> bool {
        self.held == 0 && self.waiters.is_empty()
    }
}

/// A place in the queue.
pub(super) struct Joined<W> {
    pub(super) id: u64,
    /// A waiter of the peer with the longest queue, which made room.
    pub(super) displaced: Option<W>,
    /// Requests whose clients have left, and that are given up for the new waiter.
    pub(super) called: Vec<Weak<Departure>>,
}

impl<W> ShareTable<W> {
    pub(super) fn new(permits: usize, max_waiting: usize) -> Self {
        let (peers, offers) = (HashMap::new(), BTreeMap::new());
        Self { free: permits, waiting: 0, max_waiting, next_id: 0, turn: 0, peers, offers }
    }

    /// The number of a permit for this peer, if one is free.
    pub(super) fn take(&mut self, peer: ShareOwner) -> Option<u64> {
        self.free = self.free.checked_sub(1)?;
        Some(self.grant(peer))
    }

    fn grant(&mut self, peer: ShareOwner) -> u64 {
        self.turn += 1;
        let share = self.peers.entry(peer).or_default();
        share.held += 1;
        share.served = self.turn;
        self.next_id += 1;
        self.next_id
    }

    /// Takes a place in the queue. None: there is no room for this peer, or no prospect.
    pub(super) fn join(
        &mut self,
        peer: ShareOwner,
        waiter: W,
        queues: Queues,
    ) -> Option<Joined<W>> {
        if queues == Queues::BehindLargerPeers && !self.has_prospect(peer) {
            return None;
        }
        let mut displaced = None;
        if self.waiting >= self.max_waiting {
            let own = self.peers.get(&peer).map_or(0, |share| share.waiters.len());
            let longest = self.peers.values_mut().max_by_key(|share| share.waiters.len())?;
            if longest.waiters.len() <= own + 1 {
                return None;
            }
            displaced = longest.waiters.pop_back().map(|(_, waiter)| waiter);
            self.waiting -= 1;
        }
        self.next_id += 1;
        let id = self.next_id;
        self.peers.entry(peer).or_default().waiters.push_back((id, waiter));
        self.waiting += 1;
        Some(Joined { id, displaced, called: self.call() })
    }

    /// The requests to give up for a new waiter: the oldest of those that hold a permit, and all
    /// that wait themselves.
    fn call(&mut self) -> Vec<Weak<Departure>> {
        let (mut called, mut has_permit) = (Vec::new(), false);
        self.offers.retain(|_, offer| {
            let stays = !offer.waits && std::mem::replace(&mut has_permit, true);
            if !stays {
                called.push(Weak::clone(&offer.departure));
            }
            stays
        });
        called
    }

    /// Offers the claim of a request whose clients have left to the next waiter. Returns whether
    /// another request waits now.
    pub(super) fn offer(&mut self, claim: Claim, departure: Weak<Departure>) -> bool {
        let Claim { id, waits } = claim;
        if self.waiting > usize::from(waits) {
            return true;
        }
        self.offers.insert(id, PlaceOffer { waits, departure });
        false
    }

    /// The claim is no longer offered.
    pub(super) fn withdraw(&mut self, id: u64) {
        self.offers.remove(&id);
    }

    /// Whether some peer holds so much more than this one that it may have to give a permit up.
    fn has_prospect(&self, peer: ShareOwner) -> bool {
        let own = peer.rank(self.peers.get(&peer).map_or(0, |share| share.held));
        self.peers.iter().any(|(other, share)| other.rank(share.held) > own + 1)
    }

    /// Leaves the queue, unless the waiter has left it already.
    pub(super) fn leave(&mut self, peer: ShareOwner, id: u64) -> Option<W> {
        self.withdraw(id);
        let share = self.peers.get_mut(&peer)?;
        let place = share.waiters.iter().position(|(waiter, _)| *waiter == id)?;
        let (_, waiter) = share.waiters.remove(place)?;
        self.waiting -= 1;
        self.forget_if_idle(peer);
        Some(waiter)
    }

    /// Releases a permit. It goes to the waiting peer that holds least; of several to the one that
    /// was served the longest time ago.
    pub(super) fn release(&mut self, peer: ShareOwner, id: u64) -> Option<(ShareOwner, u64, W)> {
        // Found once for all that is done with it.
        if let Entry::Occupied(mut share) = self.peers.entry(peer) {
            share.get_mut().held -= 1;
            share.get_mut().holders.remove(&id);
            self.offers.remove(&id);
            if share.get().is_idle() {
                share.remove();
            }
        }
        if self.waiting == 0 {
            self.free += 1;
            return None;
        }
        let waiting = self.peers.iter().filter(|(_, share)| !share.waiters.is_empty());
        let next = waiting.min_by_key(|(peer, share)| (peer.rank(share.held), share.served));
        let next = *next?.0;
        let (_, waiter) = self.peers.get_mut(&next)?.waiters.pop_front()?;
        self.waiting -= 1;
        let id = self.grant(next);
        Some((next, id, waiter))
    }

    /// Notes what holds a permit.
    pub(super) fn watch(&mut self, peer: ShareOwner, id: u64, holder: Weak<dyn PermitHolder>) {
        if let Some(share) = self.peers.get_mut(&peer) {
            share.holders.entry(id).or_default().0.push(holder);
        }
    }

    fn forget_if_idle(&mut self, peer: ShareOwner) {
        if self.peers.get(&peer).is_some_and(PeerShare::is_idle) {
            self.peers.remove(&peer);
        }
    }

    /// The holders to cut: those that have waited longest for their clients, of the peers that hold
    /// most, until each waiting peer would hold as much as they.
    pub(super) fn reclaim(&mut self, now: Instant, stall: Duration) -> (Examined, Examined) {
        let (mut cut, mut examined) = (Vec::new(), Vec::new());
        if self.waiting == 0 {
            return (cut, examined);
        }
        let mut waiting: Vec<(ShareOwner, usize, usize)> = Vec::new();
        let mut holding: Vec<(ShareOwner, usize)> = Vec::new();
        for (&peer, share) in &self.peers {
            if !share.waiters.is_empty() {
                waiting.push((peer, peer.rank(share.held), share.waiters.len()));
            }
            if peer.rank(share.held) > 1 {
                holding.push((peer, share.held));
            }
        }
        while let Some(&(largest, held)) = holding.iter().max_by_key(|(_, held)| *held) {
            let able = |&(peer, has, left): &(ShareOwner, usize, usize)| {
                peer != largest && left > 0 && held > has + 1
            };
            if !waiting.iter().any(able) {
                break;
            }
            let mut paused = self.paused(largest, now, stall, &mut examined);
            let mut held = held;
            while let Some(holder) = paused.pop() {
                let least = waiting
                    .iter_mut()
                    .filter(|(peer, has, left)| *peer != largest && *left > 0 && held > *has + 1);
                let Some(least) = least.min_by_key(|(_, has, _)| *has) else { break };
                (least.1, least.2, held) = (least.1 + 1, least.2 - 1, held - 1);
                cut.push(holder);
            }
            // What is left of it makes progress, or it is no longer the largest.
            holding.retain(|(peer, _)| *peer != largest);
        }
        (cut, examined)
    }

    /// The holders of a peer that wait for their clients, the longest last. Of equals the oldest is
    /// last.
    fn paused(
        &self,
        peer: ShareOwner,
        now: Instant,
        stall: Duration,
        examined: &mut Examined,
    ) -> Examined {
        let Some(share) = self.peers.get(&peer) else { return Vec::new() };
        let mut paused = Vec::new();
        for (&id, holders) in &share.holders {
            let mut longest: Option<(Duration, Arc<dyn PermitHolder>)> = None;
            for holder in holders.0.iter().filter_map(Weak::upgrade) {
                let waited = holder.paused_for(now).filter(|waited| *waited >= stall);
                if let Some(waited) = waited
                    && longest.as_ref().is_none_or(|(most, _)| waited > *most)
                {
                    longest = Some((waited, Arc::clone(&holder)));
                }
                examined.push(holder);
            }
            paused.extend(longest.map(|(waited, holder)| (waited, u64::MAX - id, holder)));
        }
        paused.sort_by_key(|(waited, age, _)| (*waited, *age));
        paused.into_iter().map(|(_, _, holder)| holder).collect()
    }

    /// How many peers are in the table.
    #[cfg(test)]
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const GREEDY: ShareOwner = ShareOwner::V4(1);
    const HONEST: ShareOwner = ShareOwner::V4(2);
    const THIRD: ShareOwner = ShareOwner::V4(3);
    const STALL: Duration = Duration::from_secs(2);

    struct Paused(Option<Duration>);

    impl PermitHolder for Paused {
        fn paused_for(&self, _: Instant) -> Option<Duration> {
            self.0
        }

        fn cut(&self) {}
    }

    fn full(of: usize) -> (ShareTable<&'static str>, Vec<u64>) {
        let mut table = ShareTable::new(of, 4);
        let ids = (0..of).map(|_| table.take(GREEDY).expect("free")).collect();
        (table, ids)
    }

    #[test]
    fn a_peer_alone_may_hold_everything_and_is_forgotten_afterwards() {
        let (mut table, ids) = full(3);
        assert!(table.take(HONEST).is_none());
        for id in ids {
            assert!(table.release(GREEDY, id).is_none());
        }
        assert_eq!((table.peers(), table.free), (0, 3));
    }

    #[test]
    fn a_permit_goes_to_the_waiting_peer_that_holds_least_and_then_by_turns() {
        let (mut table, ids) = full(4);
        for (peer, name) in [(GREEDY, "greedy"), (HONEST, "one"), (HONEST, "two"), (THIRD, "three")]
        {
            assert!(table.join(peer, name, Queues::Always).is_some());
        }
        let order: Vec<_> = ids
            .iter()
            .map(|id| table.release(GREEDY, *id).map(|(_, _, name)| name).expect("a waiter"))
            .collect();
        assert_eq!(order.len(), 4);
        assert!(order[..2].contains(&"one") && order[..2].contains(&"three"), "{order:?}");
    }

    #[test]
    fn the_place_of_who_has_left_goes_to_who_waits_and_no_more_than_one() {
        let (mut table, ids) = full(2);
        let left: Vec<Arc<Departure>> = (0..3).map(|_| Arc::default()).collect();
        let offered = |at: usize| Arc::downgrade(&left[at]);
        for (at, &id) in ids.iter().enumerate() {
            assert!(!table.offer(Claim { id, waits: false }, offered(at)), "nobody waits");
        }
        let first = table.join(HONEST, "first", Queues::Always).expect("there is room");
        assert!(first.called.len() == 1 && first.called[0].ptr_eq(&offered(0)), "the oldest");
        // Alone in the queue, who has left stays there.
        assert!(!table.offer(Claim { id: first.id, waits: true }, offered(2)));
        let second = table.join(THIRD, "second", Queues::Always).expect("there is room");
        assert_eq!(second.called.len(), 2, "who waits and has left, and one place");
        assert!(table.offer(Claim { id: ids[0], waits: false }, offered(0)), "one waits now");
        table.leave(HONEST, first.id);
        table.leave(THIRD, second.id);
        assert!(!table.offer(Claim { id: ids[1], waits: false }, offered(1)));
        table.release(GREEDY, ids[1]);
        let third = table.join(HONEST, "third", Queues::Always).expect("there is room");
        assert!(third.called.is_empty(), "what is released is no longer offered");
    }

    #[test]
    fn the_queue_has_room_for_others_however_many_one_peer_sends() {
        let (mut table, _) = full(1);
        for _ in 0..4 {
            assert!(table.join(GREEDY, "greedy", Queues::Always).is_some());
        }
        assert!(table.join(GREEDY, "greedy", Queues::Always).is_none(), "the queue is full");
        let joined = table.join(HONEST, "honest", Queues::Always).expect("room is made");
        assert_eq!(joined.displaced, Some("greedy"));
        assert_eq!(table.waiting, 4);
        assert_eq!(table.leave(HONEST, joined.id), Some("honest"));
        assert_eq!(table.leave(HONEST, joined.id), None);
    }

    #[test]
    fn the_longest_pause_of_the_largest_peer_is_cut_and_no_more_than_needed() {
        let clock = Clock::manual();
        let (mut table, ids) = full(4);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let holders: Vec<Arc<dyn PermitHolder>> =
            [seconds(3), None, seconds(9), seconds(1)].map(|at| Arc::new(Paused(at)) as _).into();
        for (id, holder) in ids.iter().zip(&holders) {
            table.watch(GREEDY, *id, Arc::downgrade(holder));
        }
        assert!(table.reclaim(clock.now(), STALL).0.is_empty(), "nobody waits");
        table.join(GREEDY, "greedy", Queues::Always);
        assert!(table.reclaim(clock.now(), STALL).0.is_empty(), "only the same peer waits");
        table.join(HONEST, "honest", Queues::Always);
        let (cut, _) = table.reclaim(clock.now(), STALL);
        assert_eq!(cut.len(), 1);
        assert!(Arc::ptr_eq(&cut[0], &holders[2]));
        for _ in 0..2 {
            table.join(HONEST, "honest", Queues::Always);
        }
        let (cut, _) = table.reclaim(clock.now(), STALL);
        assert_eq!(cut.len(), 2, "a third one makes progress, and two each are equal");
    }

    #[test]
    fn a_trusted_proxy_holds_nothing_and_gives_nothing_up() {
        let clock = Clock::manual();
        let mut table: ShareTable<&str> = ShareTable::new(2, 4);
        let holder: Arc<dyn PermitHolder> = Arc::new(Paused(Some(Duration::MAX)));
        for _ in 0..2 {
            let id = table.take(ShareOwner::TrustedProxy).expect("free");
            table.watch(ShareOwner::TrustedProxy, id, Arc::downgrade(&holder));
        }
        assert!(table.join(HONEST, "no", Queues::BehindLargerPeers).is_none(), "no prospect");
        assert!(table.join(HONEST, "yes", Queues::Always).is_some());
        assert!(table.reclaim(clock.now(), STALL).0.is_empty());
        let (mut table, ids) = full(2);
        table.watch(GREEDY, ids[0], Arc::downgrade(&holder));
        assert!(table.join(ShareOwner::TrustedProxy, "yes", Queues::BehindLargerPeers).is_some());
        assert_eq!(table.reclaim(clock.now(), STALL).0.len(), 1);
    }
}
