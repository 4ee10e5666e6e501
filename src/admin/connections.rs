//! The places for connections of the admin listener. Probes must get one whatever strangers do, so
//! a connection without a request makes room.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a connection that makes room may take to end, before another one makes room as well.
const CLOSE_WAIT: Duration = Duration::from_millis(20);

/// All places.
pub(super) struct AdminConnections {
    places: Arc<Semaphore>,
    silent: Arc<Mutex<SilentConnections>>,
}

/// The connections without a request, by age.
#[derive(Default)]
struct SilentConnections {
    next: u64,
    by_age: BTreeMap<u64, Arc<ConnectionVerdict>>,
}

/// What becomes of a connection.
#[derive(Default)]
struct ConnectionVerdict {
    unwanted: Notify,
    requested: AtomicBool,
}

/// The place of one connection.
pub(super) struct AdminConnection {
    age: u64,
    verdict: Arc<ConnectionVerdict>,
    silent: Arc<Mutex<SilentConnections>>,
    _permit: OwnedSemaphorePermit,
}

impl AdminConnections {
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), silent: Arc::default() }
    }

    /// A place. If there is none, the oldest connection without a request makes room; if all have
    /// one, this waits.
    pub(super) async fn place(&self) -> AdminConnection {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                break permit;
            }
            let oldest = self.silent.lock().by_age.pop_first();
            if let Some((_, verdict)) = oldest {
                verdict.unwanted.notify_one();
            }
            // A connection that got its request just now may keep its place for long.
            if let Ok(Ok(permit)) =
                timeout(CLOSE_WAIT, Arc::clone(&self.places).acquire_owned()).await
            {
                break permit;
            }
        };
        let verdict = Arc::<ConnectionVerdict>::default();
        let mut silent = self.silent.lock();
        let age = silent.next;
        silent.next += 1;
        silent.by_age.insert(age, Arc::clone(&verdict));
        drop(silent);
        AdminConnection { age, verdict, silent: Arc::clone(&self.silent), _permit: permit }
    }
}

impl AdminConnection {
    /// A request has come: the connection keeps its place.
    pub(super) fn requested(&self) {
        self.verdict.requested.store(true, Ordering::Relaxed);
        self.silent.lock().by_age.remove(&self.age);
    }

    /// Returns when the connection is to make room, which is never if it has a request.
    pub(super) async fn unwanted(&self) {
        self.verdict.unwanted.notified().await;
        if self.verdict.requested.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }
}

impl Drop for AdminConnection {
    fn drop(&mut self) {
        self.silent.lock().by_age.remove(&self.age);
    }
}
