//! The idle connections, and the queue of requests that wait for a connection.
//!
//! A request holds a permit from before it has a connection until its response is read to the end.
//! Idle connections hold none, and a new connection is made only when none is idle: there are never
//! more sockets than permits. A connection that belongs to one client (see `pinned`) keeps its
//! permit for as long as it is open.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::checkout::{Checkout, CheckoutState};
use super::connection::Connection;
use super::counters::{CountGuard, UpstreamCounters};
use super::error::UpstreamError;
use super::permits::{LimitPermit, Permits};
use super::settings::{UpstreamLimits, UpstreamSettings};
use crate::clock::Clock;
use crate::shares::{
    Crowded, FairPermit, FairSemaphore, PauseWatch, PermitHolder, Queues, Requester, ShareSettings,
};

pub(super) struct Pool {
    // The most recently used at the back: a burst's extra connections age at the front.
    idle: Mutex<VecDeque<IdleConnection>>,
    permits: FairSemaphore,
    /// The client connections that may have a connection of their own.
    pins: Mutex<Vec<Weak<dyn Sweep>>>,
    pub(super) pin_permits: Arc<Semaphore>,
    tunnel_permits: Arc<Semaphore>,
    keep_alive: Duration,
    clock: Clock,
    pub(super) counters: UpstreamCounters,
    reaping: AtomicBool,
    /// No connection goes back into the pool: another pool has taken over, and counts.
    retired: AtomicBool,
}

/// What keeps a connection that is not among the idle ones.
pub(super) trait Sweep: Send + Sync {
    /// Closes the connection if the origin has closed it, or has sent something unasked.
    fn sweep(&self);
}

struct IdleConnection {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(
        settings: &UpstreamSettings,
        limits: UpstreamLimits,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Self {
        let shares = ShareSettings {
            permits: settings.max_connections,
            max_waiting: settings.max_waiting,
            wait: settings.wait_timeout,
            stall: limits.stall,
            queues: Queues::Always,
        };
        Self {
            idle: Mutex::default(),
            permits: FairSemaphore::new(shares, clock.clone(), counters.shares.clone()),
            pins: Mutex::default(),
            // At least half of the connections stay for everybody.
            pin_permits: Arc::new(Semaphore::new(limits.pinned.min(settings.max_connections / 2))),
            tunnel_permits: Arc::new(Semaphore::new(settings.most_tunnels())),
            keep_alive: settings.keep_alive,
            clock,
            counters,
            reaping: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// Closes the idle connections, and keeps no other.
    pub(super) fn retire(&self) {
        let closing = {
            let mut idle = self.idle.lock();
            let closing = std::mem::take(&mut *idle);
            self.count(&idle);
            self.retired.store(true, Ordering::Relaxed);
            closing
        };
        drop(closing);
    }

    /// A permit for one connection. Waits for a bounded time in a bounded queue.
    pub(super) async fn permit(&self, requester: &Requester) -> Result<FairPermit, UpstreamError> {
        let mut permit = match self.permits.try_acquire(requester.peer) {
            Some(permit) => permit,
            None => Box::pin(self.wait(requester)).await?,
        };
        if let Some(departure) = &requester.departure {
            permit.attach(departure);
        }
        if let Some(upload) = &requester.upload {
            let holder: Weak<dyn PermitHolder> = Arc::<PauseWatch>::downgrade(upload);
            permit.watch(holder);
        }
        Ok(permit)
    }

    /// A connection that goes back into the pool.
    pub(super) async fn pooled(
        self: &Arc<Self>,
        requester: &Requester,
    ) -> Result<PooledConnection, UpstreamError> {
        let permits = Permits::new(self.permit(requester).await?, None);
        Ok(PooledConnection { state: CheckoutState::new(permits), pool: Arc::clone(self) })
    }

    /// The permit for one more tunnel or event stream.
    pub(super) fn tunnel_permit(&self) -> Result<LimitPermit, UpstreamError> {
        let permit = Arc::clone(&self.tunnel_permits).try_acquire_owned();
        let permit = permit.map_err(|_| UpstreamError::TooManyTunnels)?;
        Ok(LimitPermit::new(permit, CountGuard::up(&self.counters.tunnels)))
    }

    async fn wait(&self, requester: &Requester) -> Result<FairPermit, UpstreamError> {
        let _waiting = CountGuard::up(&self.counters.waiting);
        let waiting = self.permits.wait(requester.peer, requester.departure.as_ref());
        waiting.await.map_err(|Crowded| UpstreamError::Busy)
    }

    /// The connection used last, if one has been idle for less than `max_age`.
    fn checkout(&self, now: Instant, max_age: Duration) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle.lock();
            let last = idle.back()?;
            let age = now.saturating_duration_since(last.since);
            if age >= self.keep_alive {
                // All others have been idle for longer.
                let expired = std::mem::take(&mut *idle);
                self.count(&idle);
                drop(idle);
                drop(expired);
                return None;
            }
            // If it is too old for this request, the oldest makes room for the new connection, so
            // that the limit holds.
            let taken = if age >= max_age { idle.pop_front() } else { idle.pop_back() };
            self.count(&idle);
            drop(idle);
            let mut connection = taken?.connection;
            if age >= max_age {
                return None;
            }
            if connection.has_expired(now) {
                self.counters.expired.inc();
            } else if connection.is_free_now() {
                return Some(connection);
            }
        }
    }

    fn checkin(self: &Arc<Self>, connection: Box<Connection>) {
        let since = self.clock.now();
        if connection.has_expired(since) {
            self.counters.expired.inc();
            return;
        }
        let mut idle = self.idle.lock();
        if self.retired.load(Ordering::Relaxed) {
            drop(idle);
            drop(connection);
            return;
        }
        idle.push_back(IdleConnection { connection, since });
        self.count(&idle);
        drop(idle);
        self.keep_reaping();
    }

    /// Sees to it that a client's own connection is closed when the origin closes it.
    pub(super) fn watch(self: &Arc<Self>, slot: Weak<dyn Sweep>) {
        self.pins.lock().push(slot);
        self.keep_reaping();
    }

    fn keep_reaping(self: &Arc<Self>) {
        if !self.reaping.swap(true, Ordering::Relaxed) {
            tokio::spawn(reap(
                Arc::downgrade(self),
                (self.keep_alive / 2).clamp(Duration::from_millis(50), Duration::from_secs(1)),
            ));
        }
    }

    /// Closes connections that were idle for too long, and those that the origin has closed.
    fn sweep(&self) {
        let now = self.clock.now();
        let mut closing = Vec::new();
        let mut idle = self.idle.lock();
        for mut waiting in std::mem::take(&mut *idle) {
            if waiting.connection.has_expired(now) {
                self.counters.expired.inc();
                closing.push(waiting);
            } else if now.saturating_duration_since(waiting.since) < self.keep_alive
                && waiting.connection.is_free()
            {
                idle.push_back(waiting);
            } else {
                closing.push(waiting);
            }
        }
        self.count(&idle);
        drop(idle);
        let mut watched: Vec<Arc<dyn Sweep>> = Vec::new();
        self.pins.lock().retain(|slot| {
            let slot = slot.upgrade();
            let lives = slot.is_some();
            watched.extend(slot);
            lives
        });
        for slot in watched {
            slot.sweep();
        }
    }

    fn count(&self, idle: &VecDeque<IdleConnection>) {
        if !self.retired.load(Ordering::Relaxed) {
            self.counters.idle.store(idle.len(), Ordering::Relaxed);
        }
    }
}

/// Sweeps periodically, until the pool is dropped.
async fn reap(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(),
            None => return,
        }
    }
}

/// A connection that goes back into the pool. Dropping it closes the connection and then passes the
/// permit to the next request.
pub(super) struct PooledConnection {
    state: CheckoutState,
    pool: Arc<Pool>,
}

impl Checkout for PooledConnection {
    const IS_SHARED: bool = true;

    fn state(&mut self) -> &mut CheckoutState {
        &mut self.state
    }

    fn reuse(&mut self, now: Instant, max_age: Duration) -> Option<&mut Connection> {
        self.state.connection = self.pool.checkout(now, max_age);
        self.state.connection.as_deref_mut()
    }

    fn release(mut self) {
        if let Some(mut connection) = self.state.connection.take()
            && connection.is_free()
        {
            connection.deadline.clear();
            self.pool.checkin(connection);
        }
        // The permit is released last, so that its next holder finds the idle connection.
    }
}

/// A connection that is closed after this exchange, although it may come from the pool.
pub(super) struct LastUse(PooledConnection);

impl LastUse {
    pub(super) const fn new(pooled: PooledConnection) -> Self {
        Self(pooled)
    }
}

impl Checkout for LastUse {
    const IS_SHARED: bool = true;

    fn state(&mut self) -> &mut CheckoutState {
        &mut self.0.state
    }

    fn reuse(&mut self, now: Instant, max_age: Duration) -> Option<&mut Connection> {
        self.0.reuse(now, max_age)
    }

    fn release(self) {
        drop(self);
    }
}
