//! The connections that wait for a request, and the queue of requests that wait for a connection.
//!
//! A request holds a permit from before it has a connection until its response is read to the end.
//! Connections wait without one, and a new one is made only when none waits: so there are never
//! more sockets than permits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Connection;
use super::counters::{CountGuard, UpstreamCounters};
use super::error::UpstreamError;
use super::settings::UpstreamSettings;
use crate::clock::Clock;

pub(super) struct Pool {
    // The most recently used at the back: a burst's extra connections age at the front.
    idle: Mutex<VecDeque<IdleConnection>>,
    permits: Arc<Semaphore>,
    max_waiting: usize,
    wait_timeout: Duration,
    keep_alive: Duration,
    clock: Clock,
    counters: UpstreamCounters,
    reaping: AtomicBool,
}

struct IdleConnection {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(
        settings: &UpstreamSettings,
        clock: Clock,
        counters: UpstreamCounters,
    ) -> Self {
        Self {
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(settings.max_connections)),
            max_waiting: settings.max_waiting,
            wait_timeout: settings.wait_timeout,
            keep_alive: settings.keep_alive,
            clock,
            counters,
            reaping: AtomicBool::new(false),
        }
    }

    /// The right to one connection. Waits in line, for a bounded time, in a bounded line.
    pub(super) async fn permit(self: &Arc<Self>) -> Result<PooledConnection, UpstreamError> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => Box::pin(self.wait()).await?,
        };
        Ok(PooledConnection { connection: None, permit: Some(permit), pool: Arc::clone(self) })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        let place = CountGuard::up(&self.counters.waiting);
        // Counted after joining: of several that come at once none slips past the limit.
        if self.counters.waiting.load(Ordering::Relaxed) > self.max_waiting {
            return Err(UpstreamError::Busy);
        }
        self.counters.waits.inc();
        let turn =
            tokio::time::timeout(self.wait_timeout, Arc::clone(&self.permits).acquire_owned())
                .await;
        drop(place);
        // The semaphore is never closed; a queue that did not move is the one way to fail.
        turn.ok().and_then(Result::ok).ok_or(UpstreamError::Busy)
    }

    /// The connection used last, if one waits and has done so for less than `max_age`.
    fn checkout(&self, now: Instant, max_age: Duration) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle.lock();
            let last = idle.back()?;
            let age = now.saturating_duration_since(last.since);
            if age >= self.keep_alive {
                // All others have waited longer still.
                let expired = std::mem::take(&mut *idle);
                self.count(&idle);
                drop(idle);
                drop(expired);
                return None;
            }
            // One that is too old for this request makes room for the new connection, so that the
            // bound holds.
            let taken = if age >= max_age { idle.pop_front() } else { idle.pop_back() };
            self.count(&idle);
            drop(idle);
            let mut link = taken?.connection;
            if age >= max_age {
                return None;
            }
            if link.is_free() {
                return Some(link);
            }
        }
    }

    fn checkin(self: &Arc<Self>, link: Box<Connection>) {
        let since = self.clock.now();
        let mut idle = self.idle.lock();
        idle.push_back(IdleConnection { connection: link, since });
        self.count(&idle);
        drop(idle);
        if !self.reaping.swap(true, Ordering::Relaxed) {
            tokio::spawn(reap(
                Arc::downgrade(self),
                (self.keep_alive / 2).clamp(Duration::from_millis(50), Duration::from_secs(1)),
            ));
        }
    }

    /// Closes connections that waited too long, and those that the app has closed.
    fn sweep(&self) {
        let now = self.clock.now();
        let mut closing = Vec::new();
        let mut idle = self.idle.lock();
        for mut waiting in std::mem::take(&mut *idle) {
            if now.saturating_duration_since(waiting.since) < self.keep_alive
                && waiting.connection.is_free()
            {
                idle.push_back(waiting);
            } else {
                closing.push(waiting);
            }
        }
        self.count(&idle);
        drop(idle);
    }

    fn count(&self, idle: &VecDeque<IdleConnection>) {
        self.counters.idle.store(idle.len(), Ordering::Relaxed);
    }
}

/// Sweeps now and then, until the pool is gone.
async fn reap(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(),
            None => return,
        }
    }
}

/// The right to one connection, and the connection. Dropping it closes the connection and then lets
/// the next request have the right.
pub(super) struct PooledConnection {
    connection: Option<Box<Connection>>,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
}

impl PooledConnection {
    /// Takes a waiting connection, if there is one that has waited for less than `max_age`.
    pub(super) fn reuse(&mut self, now: Instant, max_age: Duration) -> Option<&mut Connection> {
        self.connection = self.pool.checkout(now, max_age);
        self.connection.as_deref_mut()
    }

    /// Puts a new connection in place of the one there is.
    pub(super) fn install(&mut self, link: Connection) -> &mut Connection {
        self.connection.insert(Box::new(link))
    }

    /// Closes the connection and keeps the right to one.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_deref_mut()
    }

    /// The exchange is over: the connection waits for the next, or is closed if it cannot serve
    /// one.
    pub(super) fn release(mut self) {
        if let Some(mut link) = self.connection.take()
            && link.is_free()
        {
            link.deadline.clear();
            self.pool.checkin(link);
        }
        // The permit goes last: whoever gets it next finds the connection waiting.
    }

    /// Gives the connection a task of its own.
    pub(super) fn detach(&mut self) {
        let permit = self.permit.take();
        if let Some(link) = &mut self.connection {
            link.detach(permit);
        }
    }

    /// Lets an upgraded connection go.
    pub(super) fn into_tunnel(mut self) {
        if let Some(link) = self.connection.take() {
            link.into_tunnel(self.permit.take());
        }
    }
}
