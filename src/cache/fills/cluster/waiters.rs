//! The requests of this sidecar that wait for fills of other sidecars.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::cache::fills::cluster::message::{FillName, RemoteOutcome, parse};
use crate::redis::subscriber::BusEvent;

/// The waiters by fill, each with a unique id.
pub(super) type WaitersByFill = HashMap<FillName, Vec<(u64, oneshot::Sender<RemoteOutcome>)>>;

/// The waiters for fills of other sidecars.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<WaitersByFill>,
    next: AtomicU64,
}

impl Waiters {
    pub(super) fn register(self: &Arc<Self>, name: FillName) -> WaiterSlot {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, outcome) = oneshot::channel();
        self.lock().entry(name).or_default().push((id, sender));
        WaiterSlot { waiters: Arc::clone(self), name, id, outcome }
    }

    pub(super) fn on_event(&self, event: &BusEvent) {
        match event {
            BusEvent::Message(bytes) => {
                let Some((name, outcome)) = parse(bytes) else { return };
                let waiting = self.lock().remove(&name).unwrap_or_default();
                for (_, sender) in waiting {
                    // Ignore the error: the receiver is dropped when the waiter has timed out.
                    let _ = sender.send(outcome);
                }
            }
            BusEvent::Listening => {}
            // Dropping the senders wakes all waiters.
            BusEvent::Lagged => drop(std::mem::take(&mut *self.lock())),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, WaitersByFill> {
        // The map is consistent between any two statements that could panic.
        self.waiting.lock()
    }
}

/// A registered waiter. Dropping it unregisters it.
#[derive(Debug)]
pub(super) struct WaiterSlot {
    waiters: Arc<Waiters>,
    name: FillName,
    id: u64,
    pub(super) outcome: oneshot::Receiver<RemoteOutcome>,
}

impl Drop for WaiterSlot {
    fn drop(&mut self) {
        let mut map = self.waiters.lock();
        if let Some(waiting) = map.get_mut(&self.name) {
            waiting.retain(|(id, _)| *id != self.id);
            if waiting.is_empty() {
                map.remove(&self.name);
            }
        }
    }
}
