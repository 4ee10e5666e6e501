//! The state shared by the parts of one connection: its socket, its requests and its timer.
//!
//! Every field is an atomic that one side writes and the timer reads after the connection was
//! polled, on the same task. Only the count of open messages is changed by other tasks too; the
//! timer checks again soon enough to notice.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::framing::{FlawedHead, HeadFlaw, Scanner, StreamPosition};
use crate::shares::{Departure, PauseWatch, PermitHolder};

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
    /// Whether an HTTP/2 client has sent anything since it was told that the connection ends.
    heard: AtomicBool,
    /// The socket has to check whether the client has gone.
    probe: AtomicBool,
    /// Since when the client reads none of what waits for it.
    blocked_since: Mutex<Option<Instant>>,
    /// The request bodies in progress.
    uploads: Mutex<Vec<Weak<PauseWatch>>>,
    /// A response that opens a tunnel is on its way.
    upgrading: AtomicBool,
    /// The connection has become a tunnel, which has no timer.
    tunnel: AtomicBool,
    /// The client has closed its side, and how often it has taken bytes since.
    half_closed: AtomicBool,
    taken: AtomicU32,
    /// Whether the client has left, for what is given up then.
    departure: Arc<Departure>,
    /// Another peer needs the place of this connection.
    unwanted: AtomicBool,
    waker: AtomicWaker,
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
    /// A request is in progress that may be given up, and the client has closed its side.
    HalfClosed,
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

impl BusyGuard {
    /// Whether the client does not read, and something waits to be written to it.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Relaxed)
    }
}

impl ConnectionState {
    /// Records a request. Called on the connection's own task only, so that plain stores are enough
    /// for what no other task writes.
    pub(super) fn begin(self: &Arc<Self>) -> Arrival {
        let number = self.served.load(Relaxed);
        self.served.store(number.wrapping_add(1), Relaxed);
        self.departure.begin();
        Arrival { busy: self.busy(), flaw: self.flaw(number) }
    }

    /// How many requests were handed to the service.
    pub(super) fn served(&self) -> u32 {
        self.served.load(Relaxed)
    }

    /// How many requests were handed over, if no message is in progress.
    pub(super) fn answered(&self) -> Option<u32> {
        (self.open.load(Relaxed) == 0).then(|| self.served())
    }

    /// Whether nothing has been handed over since there were so many requests, nothing is in
    /// progress, and no tunnel begins.
    pub(super) fn is_answered(&self, answered: u32) -> bool {
        self.answered() == Some(answered) && !self.upgrading.load(Relaxed)
    }

    /// Notes, before hyper sees it, that a response opens a tunnel.
    pub(super) fn set_upgrading(&self) {
        self.upgrading.store(true, Relaxed);
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
            if self.half_closed.load(Relaxed) && self.departure.is_expendable() {
                let count = self.taken.load(Relaxed);
                return StageMark { stage: ConnectionStage::HalfClosed, count };
            }
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

    /// Whether the request in progress is the last one of a connection that hyper has been told to
    /// end. Over HTTP/2 further ones may be on their way.
    pub(super) fn is_last_request(&self) -> bool {
        use ConnectionStage::{Blocked, Busy, Lingering};
        !self.is_opaque() && matches!(self.mark().stage, Busy | Blocked | Lingering)
    }

    /// Records what the scanner has seen, before hyper parses the same bytes.
    pub(super) fn set_scanned(&self, scanner: &Scanner, flawed: Option<FlawedHead>) {
        let sees_heads = scanner.position() != StreamPosition::Opaque;
        self.heads.store(if sees_heads { scanner.heads() } else { u32::MAX }, Relaxed);
        if let Some(FlawedHead { number, flaw }) = flawed {
            self.flawed.store(u64::from(number) << 2 | (1 + flaw as u64), Relaxed);
        }
    }

    pub(super) fn set_blocked(&self, now: Instant) {
        *self.blocked_since.lock() = Some(now);
        self.blocked.store(true, Relaxed);
    }

    pub(super) fn set_unblocked(&self) {
        self.blocked.store(false, Relaxed);
        self.unblocked.store(self.unblocked.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Whether a request or a response is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    /// The client has closed its side while a request is in progress.
    pub(super) fn set_half_closed(&self) {
        self.half_closed.store(true, Relaxed);
        self.departure.leave();
    }

    /// A client that has closed its side has taken bytes.
    pub(super) fn set_taken(&self) {
        self.taken.store(self.taken.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) const fn departure(&self) -> &Arc<Departure> {
        &self.departure
    }

    pub(super) fn set_lingering(&self) {
        self.lingering.store(true, Relaxed);
    }

    /// The client is told that the connection ends, and asked whether it is there.
    pub(super) fn await_word(&self) {
        self.heard.store(false, Relaxed);
    }

    /// Bytes have come that are not scanned.
    pub(super) fn note_word(&self) {
        self.heard.store(true, Relaxed);
    }

    pub(super) fn has_word(&self) -> bool {
        self.heard.load(Relaxed)
    }

    pub(super) fn ask_probe(&self) {
        self.probe.store(true, Relaxed);
    }

    /// Notes the body of a request that has just begun.
    pub(super) fn add_upload(&self, upload: &Arc<PauseWatch>) {
        let mut uploads = self.uploads.lock();
        uploads.retain(|upload| upload.strong_count() > 0);
        uploads.push(Arc::downgrade(upload));
    }

    pub(super) fn set_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
        self.set_position(StreamPosition::Opaque);
    }

    /// Names whom to wake when another peer needs the place of this connection.
    pub(super) fn wake_when_unwanted(&self, waker: &Waker) {
        self.waker.register(waker);
        self.departure.wake_when_cut(waker);
    }

    /// Whether another peer needs the place of this connection.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Relaxed)
    }

    /// Whether nothing is lost if the connection is closed at once.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        match self.mark().stage {
            ConnectionStage::Head
            | ConnectionStage::Quiet
            | ConnectionStage::Blocked
            | ConnectionStage::HalfClosed => true,
            ConnectionStage::Busy => self.uploads_paused_for(now).is_some(),
            ConnectionStage::Idle | ConnectionStage::Lingering => false,
        }
    }

    /// For how long all requests in progress have been waiting for their bodies.
    fn uploads_paused_for(&self, now: Instant) -> Option<Duration> {
        let uploads = self.uploads.lock();
        let mut shortest = None;
        let mut count = 0;
        for upload in uploads.iter().filter_map(Weak::upgrade) {
            let paused = upload.paused_for(now)?;
            shortest = Some(shortest.map_or(paused, |least: Duration| least.min(paused)));
            count += 1;
        }
        // Each of them is a request and its body; what else is open makes progress.
        shortest.filter(|_| self.open.load(Relaxed) == 2 * count)
    }

    pub(super) fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }
}

impl PermitHolder for ConnectionState {
    fn paused_for(&self, now: Instant) -> Option<Duration> {
        if self.tunnel.load(Relaxed) || self.is_unwanted() {
            return None;
        }
        match self.mark().stage {
            ConnectionStage::Idle
            | ConnectionStage::Quiet
            | ConnectionStage::Head
            | ConnectionStage::HalfClosed => Some(Duration::MAX),
            ConnectionStage::Blocked => {
                self.blocked_since.lock().map(|since| now.saturating_duration_since(since))
            }
            ConnectionStage::Busy => self.uploads_paused_for(now),
            ConnectionStage::Lingering => None,
        }
    }

    fn cut(&self) {
        self.unwanted.store(true, Relaxed);
        self.waker.wake();
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
