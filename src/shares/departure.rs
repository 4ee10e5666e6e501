//! Whether the client of a request has left before its response began, and whether the request is
//! given up for that.
//!
//! Nothing is given up that may change data: what sends a request says whether it is expendable. A
//! place of an expendable request whose client has left is offered to the next request that waits
//! for one.
//!
//! Locks: that of a departure is taken before that of a semaphore, never the other way round.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Whether the clients of a request, or of a fill, have left, and whether it is given up for that.
#[derive(Debug, Default)]
pub struct Departure {
    /// Nothing but a response is lost if the present request is given up.
    expendable: AtomicBool,
    /// It is about the response as well, once that has begun.
    of_response: bool,
    /// Another request gets its place.
    cut: AtomicBool,
    state: Mutex<DepartureState>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct DepartureState {
    left: bool,
    claim: Option<(Weak<dyn ClaimOwner>, Claim)>,
    /// Whether the claim was offered to others.
    offered: bool,
    /// Why the sidecar ended the connection, if it did.
    why_ended: Option<&'static str>,
}

impl std::fmt::Debug for DepartureState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DepartureState").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What a request has: a permit, or a place in the queue for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: u64,
    pub(super) waits: bool,
}

/// What claims belong to.
pub(super) trait ClaimOwner: Send + Sync {
    /// Offers a claim to the next request that waits. Returns whether one waits now.
    fn offer(&self, claim: Claim, departure: Weak<Departure>) -> bool;
}

impl Departure {
    /// Of a request that is not given up before its response has begun, but then may be.
    #[must_use]
    pub fn from_response() -> Self {
        Self { of_response: true, ..Self::default() }
    }

    /// Whether it is about the response as well, once that has begun.
    pub(super) const fn is_of_response(&self) -> bool {
        self.of_response
    }

    /// A new request begins on the same connection.
    pub fn begin(&self) {
        self.expendable.store(false, Relaxed);
        self.cut.store(false, Relaxed);
    }

    /// Nothing but a response is lost if the present request is given up.
    pub fn set_expendable(&self) {
        self.expendable.store(true, Relaxed);
    }

    /// Whether the present request may be given up.
    #[must_use]
    pub fn is_expendable(&self) -> bool {
        self.expendable.load(Relaxed)
    }

    /// Whether another request gets the place of the present one.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// The sidecar ends the connection, for this reason.
    pub fn end(&self, why: &'static str) {
        self.state.lock().why_ended = Some(why);
    }

    /// Why the sidecar has ended the connection, if it has.
    #[must_use]
    pub fn why_ended(&self) -> Option<&'static str> {
        self.state.lock().why_ended
    }

    /// Names whom to wake when another request gets the place.
    pub fn wake_when_cut(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Returns when another request gets the place.
    pub async fn until_cut(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The clients have left.
    pub fn leave(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.left = true;
        let called = self.offer(&mut state);
        drop(state);
        if called {
            self.cut();
        }
    }

    /// There is a client again.
    pub fn stay(&self) {
        self.state.lock().left = false;
        self.cut.store(false, Relaxed);
    }

    /// Another request gets the place.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.waker.wake();
    }

    /// The request has got this claim.
    pub(super) fn hold(self: &Arc<Self>, owner: Weak<dyn ClaimOwner>, claim: Claim) {
        let mut state = self.state.lock();
        state.claim = Some((owner, claim));
        state.offered = false;
        let called = state.left && self.offer(&mut state);
        drop(state);
        if called {
            self.cut();
        }
    }

    /// The request has this claim no longer, or its response has begun. Returns whether the claim
    /// was offered.
    pub(super) fn release(&self, claim: Claim) -> bool {
        let mut state = self.state.lock();
        if state.claim.as_ref().is_some_and(|(_, held)| *held == claim) {
            state.claim = None;
            return std::mem::take(&mut state.offered);
        }
        false
    }

    /// Offers the claim, if there is one. Returns whether the request is to give it up at once.
    fn offer(self: &Arc<Self>, state: &mut DepartureState) -> bool {
        let Some((owner, claim)) = &state.claim else { return false };
        let Some(owner) = owner.upgrade() else { return false };
        let called = owner.offer(*claim, Arc::downgrade(self));
        state.offered = true;
        called
    }
}
