//! The core, and the callers that wait for what it releases.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::coherence::core::{Core, Released};
use crate::coherence::message::{Message, OperationId};

/// Who waits for an operation.
#[derive(Debug)]
pub(super) struct Waiter {
    sender: oneshot::Sender<Released>,
    /// What is published, for peers that subscribe too late to get it.
    pub(super) message: Option<Message>,
}

impl Waiter {
    pub(super) const fn new(sender: oneshot::Sender<Released>) -> Self {
        Self { sender, message: None }
    }
}

/// The core, and who waits for what it releases.
#[derive(Debug)]
pub(super) struct CoreWithWaiters {
    pub(super) core: Core,
    pub(super) waiters: HashMap<OperationId, Waiter>,
}

impl CoreWithWaiters {
    pub(super) fn new(core: Core) -> Self {
        Self { core, waiters: HashMap::new() }
    }

    /// Keeps what is published for an operation that somebody waits for.
    pub(super) fn keep_message(&mut self, id: OperationId, message: &Message) {
        if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.message = Some(message.clone());
        }
    }

    pub(super) fn release(&mut self, id: OperationId, how: Released) {
        if let Some(waiter) = self.waiters.remove(&id) {
            // Ignore the error: the receiver is dropped when the caller has timed out.
            let _ = waiter.sender.send(how);
        }
    }
}
