//! The state shared by the parts of one connection: its socket, its requests and its timer.
//!
//! Every field is an atomic that one side writes and the timer reads after the connection was
//! polled, on the same task. Only the count of open messages is changed by other tasks too; the
//! timer checks again soon enough to notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::framing::{FlawedHead, HeadFlaw, Scanner, StreamPosition};

/// The shared state of one connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// Requests handed to the service.
    served: AtomicU32,
    /// Request and response messages in progress.
    open: AtomicU32,
    /// A [`StreamPosition`].
    position: AtomicU8,
    /// How many heads the scanner has seen the end of; all, where it sees none.
    heads: AtomicU32,
    /// The [`FlawedHead`], packed; 0 when there is none.
    flawed: AtomicU64,
    /// Whether the client's socket takes no bytes at the moment, and how often it has begun to take
    /// them again.
    blocked: AtomicBool,
    unblocked: AtomicU32,
    /// The server's side is closed; the client's last bytes are discarded.
    lingering: AtomicBool,
    /// The socket has to check whether the client has gone.
    probe: AtomicBool,
}

/// What a connection is doing; each has its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionStage {
    /// No byte of the next request has arrived.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// A request is in progress.
    Busy,
    /// HTTP/2 without a request.
    Quiet,
    /// The client reads none of the bytes that wait for it.
    Blocked,
    /// The server has closed its side.
    Lingering,
}

/// A stage, and its number among those of its kind: when the mark changes, the stage's time
/// restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StageMark {
    pub stage: ConnectionStage,
    count: u32,
}

/// A request that has just been handed over.
#[derive(Debug)]
pub(super) struct Arrival {
    pub busy: BusyGuard,
    /// What is wrong with its head.
    pub flaw: Option<HeadFlaw>,
}

/// Keeps the connection busy until it is dropped.
#[derive(Debug)]
pub(super) struct BusyGuard(Arc<ConnectionState>);

impl ConnectionState {
    /// Records a request. Called on the connection's own task only, so that plain stores are enough
    /// for what no other task writes.
    pub(super) fn begin(self: &Arc<Self>) -> Arrival {
        let number = self.served.load(Relaxed);
        self.served.store(number.wrapping_add(1), Relaxed);
        Arrival { busy: self.busy(), flaw: self.flaw(number) }
    }

    fn flaw(&self, number: u32) -> Option<HeadFlaw> {
        if number >= self.heads.load(Relaxed) {
            return Some(HeadFlaw::Unseen);
        }
        match self.flawed.load(Relaxed) {
            0 => None,
            packed if packed >> 2 != u64::from(number) => None,
            packed if packed & 3 == 1 + HeadFlaw::TwoLengths as u64 => Some(HeadFlaw::TwoLengths),
            _ => Some(HeadFlaw::Fragment),
        }
    }

    /// Records one more message in progress.
    pub(super) fn busy(self: &Arc<Self>) -> BusyGuard {
        self.open.fetch_add(1, Relaxed);
        BusyGuard(Arc::clone(self))
    }

    pub(super) fn mark(&self) -> StageMark {
        let busy = self.open.load(Relaxed) > 0;
        let stage = if self.lingering.load(Relaxed) {
            ConnectionStage::Lingering
        } else if self.blocked.load(Relaxed) {
            return StageMark {
                stage: ConnectionStage::Blocked,
                count: self.unblocked.load(Relaxed),
            };
        } else if busy {
            ConnectionStage::Busy
        } else {
            match self.position.load(Relaxed) {
                place if place == StreamPosition::Head as u8 => ConnectionStage::Head,
                place if place == StreamPosition::Opaque as u8 => ConnectionStage::Quiet,
                _ => ConnectionStage::Idle,
            }
        };
        StageMark { stage, count: self.served.load(Relaxed) }
    }

    pub(super) fn set_position(&self, place: StreamPosition) {
        self.position.store(place as u8, Relaxed);
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.position.load(Relaxed) == StreamPosition::Opaque as u8
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.position.load(Relaxed) == StreamPosition::Head as u8
    }

    /// Whether the last byte read was inside a message, so that more of it may be on its way.
    pub(super) fn is_inside_message(&self) -> bool {
        let place = self.position.load(Relaxed);
        place == StreamPosition::Head as u8 || place == StreamPosition::Body as u8
    }

    /// Records what the scanner has seen, before hyper parses the same bytes.
    pub(super) fn set_scanned(&self, scanner: &Scanner, flawed: Option<FlawedHead>) {
        let sees_heads = scanner.position() != StreamPosition::Opaque;
        self.heads.store(if sees_heads { scanner.heads() } else { u32::MAX }, Relaxed);
        if let Some(FlawedHead { number, flaw }) = flawed {
            self.flawed.store(u64::from(number) << 2 | (1 + flaw as u64), Relaxed);
        }
    }

    pub(super) fn set_blocked(&self) {
        self.blocked.store(true, Relaxed);
    }

    pub(super) fn set_unblocked(&self) {
        self.blocked.store(false, Relaxed);
        self.unblocked.store(self.unblocked.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn set_lingering(&self) {
        self.lingering.store(true, Relaxed);
    }

    pub(super) fn ask_probe(&self) {
        self.probe.store(true, Relaxed);
    }

    pub(super) fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }
}

impl BusyGuard {
    /// Another one on the same connection.
    pub(super) fn another(&self) -> Self {
        self.0.busy()
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
