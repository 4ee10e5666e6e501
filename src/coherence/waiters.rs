//! The core, and the callers that wait for what it releases.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::coherence::core::{Core, Released};
use crate::coherence::message::OperationId;

/// The core, and who waits for what it releases.
#[derive(Debug)]
pub(super) struct CoreWithWaiters {
    pub(super) core: Core,
    pub(super) waiters: HashMap<OperationId, oneshot::Sender<Released>>,
}

impl CoreWithWaiters {
    pub(super) fn new(core: Core) -> Self {
        Self { core, waiters: HashMap::new() }
    }

    pub(super) fn release(&mut self, id: OperationId, how: Released) {
        if let Some(waiter) = self.waiters.remove(&id) {
            // Ignore the error: the receiver is dropped when the caller has timed out.
            let _ = waiter.send(how);
        }
    }
}
