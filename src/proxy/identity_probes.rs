//! The questions to the origin who a caller is that are in flight: one for each caller, some at
//! once, and those who wait for their answers. Must not know how a question is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::clock::Wall;
use crate::policy::identity::{
    IdentityAnswer, IdentityFault, IdentityKey, IdentityTable, ProbeStart, RequestIdentity,
};
use crate::policy::plan::IdentityProbe;

/// The most requests that wait for answers at once, all together: `identity.waiters`.
const MAX_WAITERS: usize = 1024;

/// What came of a question.
pub(super) type ProbeResult = Result<Arc<IdentityAnswer>, IdentityFault>;

/// The questions of one configuration that are in flight.
#[derive(Debug)]
pub(crate) struct IdentityProbes {
    /// The answers.
    pub(super) table: Arc<IdentityTable>,
    pending: Arc<Mutex<HashMap<IdentityKey, PendingProbe>>>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    next: AtomicU64,
}

/// A question in flight.
#[derive(Debug)]
struct PendingProbe {
    id: u64,
    start: ProbeStart,
    answer: watch::Receiver<Option<ProbeResult>>,
}

/// Takes a question out of those in flight, however it ends.
pub(super) struct PendingGuard {
    pending: Arc<Mutex<HashMap<IdentityKey, PendingProbe>>>,
    key: IdentityKey,
    id: u64,
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        if pending.get(&self.key).is_some_and(|found| found.id == self.id) {
            pending.remove(&self.key);
        }
    }
}

/// A question that is begun, and not yet sent.
pub(super) struct BegunProbe {
    /// Tells all who wait.
    pub(super) sender: watch::Sender<Option<ProbeResult>>,
    /// When it was begun.
    pub(super) start: ProbeStart,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) guard: PendingGuard,
}

/// How a request gets its answer.
pub(super) enum ProbeRole {
    /// It is there.
    Settled(ProbeResult),
    /// Another request has asked.
    Wait(watch::Receiver<Option<ProbeResult>>),
    /// This one asks.
    Ask(watch::Receiver<Option<ProbeResult>>, Box<BegunProbe>),
}

/// A place among those who wait.
pub(super) struct AnswerWait<'a>(&'a AtomicUsize);

impl Drop for AnswerWait<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IdentityProbes {
    /// No question is in flight.
    pub(crate) fn new(table: &Arc<IdentityTable>) -> Self {
        Self {
            table: Arc::clone(table),
            pending: Arc::default(),
            permits: Arc::new(Semaphore::new(table.settings.probes)),
            waiting: AtomicUsize::new(0),
            next: AtomicU64::new(0),
        }
    }

    /// Whether this request asks, or waits for another one's answer. `is_anew`: an answer to an
    /// earlier question is none.
    pub(super) fn role(&self, probe: &IdentityProbe, is_anew: bool, now: Wall) -> ProbeRole {
        let table = &self.table;
        if let Some(fault) = table.barred(probe.key.app, now) {
            return ProbeRole::Settled(Err(fault));
        }
        let mut pending = self.pending.lock();
        if !is_anew {
            let found = pending.get(&probe.key);
            if let Some(found) = found.filter(|found| table.is_current(&found.start)) {
                table.counters.joined.inc();
                return ProbeRole::Wait(found.answer.clone());
            }
            // It may have come since the request was planned.
            match table.get(&probe.key, now) {
                Some(RequestIdentity::Known(answer)) => return ProbeRole::Settled(Ok(answer)),
                Some(RequestIdentity::Fault(fault)) => return ProbeRole::Settled(Err(fault)),
                _ => {}
            }
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            table.counters.crowded.inc();
            return ProbeRole::Settled(Err(IdentityFault::Busy));
        };
        let (sender, receiver) = watch::channel(None);
        let (start, id) = (table.begin(probe.slots.clone(), now), self.next());
        let found = PendingProbe { id, start: start.clone(), answer: receiver.clone() };
        pending.insert(probe.key, found);
        let guard = PendingGuard { pending: Arc::clone(&self.pending), key: probe.key, id };
        ProbeRole::Ask(receiver, Box::new(BegunProbe { sender, start, permit, guard }))
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A place among those who wait, if there is one.
    pub(super) fn wait(&self) -> Option<AnswerWait<'_>> {
        let place = AnswerWait(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITERS).then_some(place)
    }
}
