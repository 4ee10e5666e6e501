//! A semaphore whose permits are shared fairly among peers.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::departure::{Claim, ClaimOwner, Departure};
use super::table::{Joined, ShareTable};
use super::{PauseWatch, PermitHolder, ShareCounters, ShareOwner, ShareSettings};
use crate::clock::Clock;

/// How often what holds permits is looked at while another peer waits: an eighth of the pause that
/// is allowed, but within these.
const RECLAIM_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(250));

/// Whose request it is, and what its body waits for.
#[derive(Clone, Debug, Default)]
pub struct Requester {
    /// Whose share it counts for.
    pub peer: ShareOwner,
    /// Its body, if it has one that is streamed.
    pub upload: Option<Arc<PauseWatch>>,
    /// Whether its clients have left, if it may be given up then.
    pub departure: Option<Arc<Departure>>,
}

/// No permit became free in time, or too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

/// A semaphore whose permits are shared fairly among peers. Clones share the permits.
#[derive(Clone)]
pub struct FairSemaphore(Arc<Shared>);

struct Shared {
    table: Mutex<ReclaimTable>,
    settings: ShareSettings,
    clock: Clock,
    counters: ShareCounters,
}

struct ReclaimTable {
    table: ShareTable<oneshot::Sender<FairPermit>>,
    next_reclaim: Option<Instant>,
}

/// A permit. Dropping it hands it to the next waiter.
pub struct FairPermit {
    shared: Arc<Shared>,
    peer: ShareOwner,
    id: u64,
    /// That of the request which holds it, until its response begins.
    departure: Option<Arc<Departure>>,
}

impl FairSemaphore {
    /// A semaphore with all permits free.
    #[must_use]
    pub fn new(settings: ShareSettings, clock: Clock, counters: ShareCounters) -> Self {
        let table = ShareTable::new(settings.permits, settings.max_waiting);
        let table = Mutex::new(ReclaimTable { table, next_reclaim: None });
        Self(Arc::new(Shared { table, settings, clock, counters }))
    }

    /// A permit, if one is free.
    #[must_use]
    pub fn try_acquire(&self, peer: ShareOwner) -> Option<FairPermit> {
        let id = self.0.table.lock().table.take(peer)?;
        Some(FairPermit { shared: Arc::clone(&self.0), peer, id, departure: None })
    }

    /// A permit. Waits for a bounded time in a bounded queue.
    ///
    /// # Errors
    /// When there is no room in the queue, or no permit in time.
    pub async fn acquire(&self, peer: ShareOwner) -> Result<FairPermit, Crowded> {
        match self.try_acquire(peer) {
            Some(permit) => Ok(permit),
            None => Box::pin(self.wait(peer, None)).await,
        }
    }

    /// Waits for a permit, or until the request is given up for others.
    pub async fn wait(
        &self,
        peer: ShareOwner,
        departure: Option<&Arc<Departure>>,
    ) -> Result<FairPermit, Crowded> {
        let shared = &self.0;
        let (sender, mut receiver) = oneshot::channel();
        let Some(mut place) = WaitPlace::join(shared, peer, sender) else {
            shared.counters.refused.inc();
            return Err(Crowded);
        };
        place.attach(departure);
        shared.counters.waits.inc();
        let every = shared.reclaim_interval();
        let deadline = tokio::time::sleep(shared.settings.wait);
        tokio::pin!(deadline);
        let granted = loop {
            shared.reclaim();
            tokio::select! {
                biased;
                granted = &mut receiver => break granted.ok(),
                // A permit that is on its way is released with the receiver.
                () = &mut deadline => break None,
                () = tokio::time::sleep(every) => {}
            }
        };
        if granted.is_none() {
            shared.counters.refused.inc();
        }
        granted.ok_or(Crowded)
    }

    /// How many peers hold or wait.
    #[cfg(test)]
    pub fn peers(&self) -> usize {
        self.0.table.lock().table.peers()
    }
}

impl Shared {
    fn reclaim_interval(&self) -> Duration {
        let (shortest, longest) = RECLAIM_INTERVAL;
        (self.settings.stall / 8).clamp(shortest, longest)
    }

    /// Cuts holders whose clients pause, where another peer waits for their permits.
    fn reclaim(&self) {
        let now = self.clock.now();
        let mut table = self.table.lock();
        if table.next_reclaim.is_some_and(|next| now < next) {
            return;
        }
        table.next_reclaim = now.checked_add(self.reclaim_interval());
        let (cut, examined) = table.table.reclaim(now, self.settings.stall);
        // Unlocked before any holder is cut or dropped: that releases permits.
        drop(table);
        self.counters.cuts.add(cut.len() as u64);
        for holder in &cut {
            holder.cut();
        }
        drop((cut, examined));
    }
}

impl ClaimOwner for Shared {
    fn offer(&self, claim: Claim, departure: Weak<Departure>) -> bool {
        let called = self.table.lock().table.offer(claim, departure);
        if called {
            self.counters.departed.inc();
        }
        called
    }
}

impl FairPermit {
    /// Names the request that holds it, which gives it up for others when its clients have left.
    pub fn attach(&mut self, departure: &Arc<Departure>) {
        departure.hold(owner(&self.shared), Claim { id: self.id, waits: false });
        self.departure = Some(Arc::clone(departure));
    }

    /// The response has begun: from here on the request is not given up for others, unless its
    /// departure says so.
    pub fn settle(&mut self) {
        if self.departure.as_ref().is_some_and(|departure| !departure.is_of_response()) {
            self.withdraw();
        }
    }

    /// Nobody is offered it any more.
    fn withdraw(&mut self) {
        let Some(departure) = self.departure.take() else { return };
        if departure.release(Claim { id: self.id, waits: false }) {
            self.shared.table.lock().table.withdraw(self.id);
        }
    }

    /// Names what holds the permit, so that it can be cut.
    pub fn watch(&self, holder: Weak<dyn PermitHolder>) {
        self.shared.table.lock().table.watch(self.peer, self.id, holder);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.withdraw();
        let next = self.shared.table.lock().table.release(self.peer, self.id);
        if let Some((peer, id, sender)) = next {
            let permit = Self { shared: Arc::clone(&self.shared), peer, id, departure: None };
            // If the waiter has gone, the permit is dropped here and goes to the next one.
            drop(sender.send(permit));
        }
    }
}

impl std::fmt::Debug for FairSemaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FairSemaphore").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FairPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FairPermit").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A place in the queue, which is given up when the waiter stops waiting.
struct WaitPlace<'a> {
    shared: &'a Arc<Shared>,
    peer: ShareOwner,
    id: u64,
    departure: Option<Arc<Departure>>,
}

/// What the claims on permits of this semaphore belong to.
fn owner(shared: &Arc<Shared>) -> Weak<dyn ClaimOwner> {
    let owner: Weak<Shared> = Arc::downgrade(shared);
    owner
}

impl<'a> WaitPlace<'a> {
    fn join(
        shared: &'a Arc<Shared>,
        peer: ShareOwner,
        sender: oneshot::Sender<FairPermit>,
    ) -> Option<Self> {
        let joined = shared.table.lock().table.join(peer, sender, shared.settings.queues);
        let Joined { id, displaced, called } = joined?;
        // This tells the waiter.
        drop(displaced);
        for departure in called.iter().filter_map(Weak::upgrade) {
            shared.counters.departed.inc();
            departure.cut();
        }
        Some(Self { shared, peer, id, departure: None })
    }

    /// Names the request that waits, which gives its place up for others when its clients have
    /// left.
    fn attach(&mut self, departure: Option<&Arc<Departure>>) {
        let Some(departure) = departure else { return };
        departure.hold(owner(self.shared), Claim { id: self.id, waits: true });
        self.departure = Some(Arc::clone(departure));
    }
}

impl Drop for WaitPlace<'_> {
    fn drop(&mut self) {
        if let Some(departure) = self.departure.take() {
            departure.release(Claim { id: self.id, waits: true });
        }
        let left = self.shared.table.lock().table.leave(self.peer, self.id);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::shares::Queues;

    const GREEDY: ShareOwner = ShareOwner::V4(1);
    const HONEST: ShareOwner = ShareOwner::V4(2);
    const SETTINGS: ShareSettings = ShareSettings {
        permits: 2,
        max_waiting: 4,
        wait: Duration::from_secs(5),
        stall: Duration::from_millis(100),
        queues: Queues::Always,
    };

    fn semaphore(settings: ShareSettings) -> (FairSemaphore, ShareCounters) {
        let counters = ShareCounters::default();
        (FairSemaphore::new(settings, Clock::system(), counters.clone()), counters)
    }

    #[tokio::test]
    async fn a_paused_upload_makes_room_for_another_peer() {
        let (semaphore, counters) = semaphore(SETTINGS);
        let held: Vec<_> = (0..2)
            .map(|_| {
                let permit = semaphore.try_acquire(GREEDY).expect("free");
                let watch = Arc::<PauseWatch>::default();
                permit.watch(Arc::downgrade(&watch) as Weak<dyn PermitHolder>);
                watch.pause(Clock::system().now(), None);
                (permit, watch)
            })
            .collect();
        let waiting = tokio::spawn({
            let semaphore = semaphore.clone();
            async move { semaphore.acquire(HONEST).await }
        });
        while counters.cuts.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let cut: Vec<bool> = held.iter().map(|(_, watch)| watch.is_cut()).collect();
        assert_eq!(cut, [true, false], "the oldest, and no more than needed");
        drop(held);
        assert!(waiting.await.expect("no panic").is_ok());
        assert_eq!(semaphore.peers(), 0, "only peers that hold or wait are remembered");
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_no_trace() {
        let wait = Duration::from_millis(20);
        let (semaphore, counters) = semaphore(ShareSettings { permits: 1, wait, ..SETTINGS });
        let permit = semaphore.try_acquire(GREEDY).expect("free");
        assert_eq!(semaphore.acquire(HONEST).await.map(drop), Err(Crowded));
        let cancelled = semaphore.acquire(HONEST).now_or_never();
        assert!(cancelled.is_none());
        assert_eq!((semaphore.peers(), counters.refused.get(), counters.waits.get()), (1, 1, 2));
        drop(permit);
        assert!(semaphore.try_acquire(HONEST).is_some());
    }
}
