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
        if let Some(tell) = self.waiters.remove(&id) {
            // Who has given up does not hear it.
            let _ = tell.send(how);
        }
    }
}
