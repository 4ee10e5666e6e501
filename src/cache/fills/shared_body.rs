//! A body that several readers stream from while it arrives.
//!
//! Invariants:
//! - Every reader gets all bytes, in order. It gets an end only if the writer completed the body:
//!   dropping the writer aborts it.
//! - While the body may still be stored, all of it is kept and no reader slows the writer. Once it
//!   exceeds the limit it becomes a window: chunks that all readers have read are dropped, the
//!   writer waits for the slowest reader, and no new reader may join.
//! - In the window, one slow reader holds the others back for at most [`SLOW_READER_TIMEOUT`]: then
//!   it is cut off.
//! - All bodies together keep no more than their [`Budget`]; a body that would exceed it becomes a
//!   window.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use parking_lot::{Mutex, MutexGuard};

use crate::semantics::body::BodyError;
use crate::telemetry::metrics::Counter;

/// How long readers that keep up wait for those that do not.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes that all shared bodies together may keep. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicU64>,
    /// Bodies that could not be kept, and so were not stored, because the budget was spent.
    pub exceeded: Arc<Counter>,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(bytes)), exceeded: Arc::default() }
    }

    /// The bytes that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let taken =
            self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok();
        if !taken {
            self.exceeded.inc();
        }
        taken
    }
}

/// The body. A clone is the same body.
#[derive(Clone, Debug)]
pub struct SharedBody(Arc<Mutex<SharedBodyState>>);

#[derive(Debug)]
struct SharedBodyState {
    chunks: VecDeque<Bytes>,
    /// How many chunks were dropped from the front.
    dropped: usize,
    /// The bytes of the chunks that are kept.
    held_bytes: u64,
    /// All bytes so far.
    total: u64,
    budget: Budget,
    /// The bytes reserved from the budget.
    reserved: u64,
    limit: u64,
    window: u64,
    /// Whether all of the body is still kept.
    whole: bool,
    end: Option<BodyEnd>,
    readers: HashMap<u64, StreamSlot>,
    next_reader: u64,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    Complete,
    Broken,
}

#[derive(Debug)]
struct StreamSlot {
    next: usize,
    waker: Option<Waker>,
    /// Whether it was too slow: its response breaks off.
    cut_off: bool,
}

/// What happened to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// It is kept, and the body may still be stored.
    Buffered,
    /// It goes to the readers; the body will not be stored.
    Streaming,
    /// There are no readers, and the body will not be stored.
    NoReaders,
}

impl SharedBody {
    /// An empty body. It is kept up to `limit` bytes, if the budget allows, and then goes on in a
    /// window of `window` bytes.
    #[must_use]
    pub fn new(limit: u64, window: u64, budget: &Budget) -> Self {
        Self(Arc::new(Mutex::new(SharedBodyState {
            chunks: VecDeque::new(),
            dropped: 0,
            held_bytes: 0,
            total: 0,
            budget: budget.clone(),
            reserved: 0,
            limit,
            window,
            whole: true,
            end: None,
            readers: HashMap::new(),
            next_reader: 0,
            writer: None,
        })))
    }

    /// A reader from the start; `None` if the start was dropped.
    #[must_use]
    pub fn reader(&self) -> Option<BodyReader> {
        let mut state = self.lock();
        if !state.whole {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, StreamSlot { next: 0, waker: None, cut_off: false });
        Some(BodyReader { body: self.clone(), id })
    }

    /// Adds a chunk; waits while the window is full.
    pub async fn push(&self, chunk: Bytes) -> PushOutcome {
        let (whole, readers) = {
            let mut state = self.lock();
            let length = chunk.len() as u64;
            state.total += length;
            state.held_bytes += length;
            state.chunks.push_back(chunk);
            if state.whole {
                if state.total <= state.limit && state.budget.reserve(length) {
                    state.reserved += length;
                } else {
                    state.whole = false;
                }
            }
            (state.whole, state.waiting_readers())
        };
        wake(readers);
        if whole {
            return PushOutcome::Buffered;
        }
        loop {
            if let Ok(pushed) =
                tokio::time::timeout(SLOW_READER_TIMEOUT, self.wait_for_room()).await
            {
                return pushed;
            }
            let cut = self.lock().cut_off_slow_readers();
            wake(cut);
        }
    }

    /// Waits until the window has room.
    async fn wait_for_room(&self) -> PushOutcome {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            state.drop_consumed();
            if state.readers.values().all(|slot| slot.cut_off) {
                return Poll::Ready(PushOutcome::NoReaders);
            }
            if state.held_bytes <= state.window {
                return Poll::Ready(PushOutcome::Streaming);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether there are readers.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.lock().readers.values().any(|slot| !slot.cut_off)
    }

    /// All chunks, if none was dropped.
    #[must_use]
    pub fn chunks(&self) -> Option<Vec<Bytes>> {
        let state = self.lock();
        state.whole.then(|| state.chunks.iter().cloned().collect())
    }

    /// Marks the body as complete.
    pub fn complete(&self) {
        self.end(BodyEnd::Complete);
    }

    /// Breaks the body off, and every response that is made from it. Does nothing after
    /// [`SharedBody::complete`].
    pub fn abort(&self) {
        self.end(BodyEnd::Broken);
    }

    fn end(&self, end: BodyEnd) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        let readers = state.waiting_readers();
        drop(state);
        wake(readers);
    }

    fn lock(&self) -> MutexGuard<'_, SharedBodyState> {
        // The state is consistent between any two statements that could panic.
        self.0.lock()
    }
}

impl Drop for SharedBodyState {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.reserved, Relaxed);
    }
}

impl SharedBodyState {
    /// The wakers of the readers that wait for more. The caller wakes them after it has released
    /// the lock, which they need first.
    fn waiting_readers(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|slot| slot.waker.take()).collect()
    }

    fn drop_consumed(&mut self) {
        if self.whole {
            return;
        }
        let slowest = self
            .readers
            .values()
            .filter(|slot| !slot.cut_off)
            .map(|slot| slot.next)
            .min()
            .unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.dropped += 1;
            self.held_bytes -= chunk.len() as u64;
        }
    }

    /// Cuts off the readers that are behind, if others wait for more, and returns their wakers. A
    /// single reader may be as slow as it likes.
    fn cut_off_slow_readers(&mut self) -> Vec<Waker> {
        let end = self.dropped + self.chunks.len();
        if !self.readers.values().any(|slot| !slot.cut_off && slot.next == end) {
            return Vec::new();
        }
        let laggards = self.readers.values_mut().filter(|slot| slot.next < end);
        laggards
            .filter_map(|slot| {
                slot.cut_off = true;
                slot.waker.take()
            })
            .collect()
    }
}

fn wake(waiting: impl IntoIterator<Item = Waker>) {
    waiting.into_iter().for_each(Waker::wake);
}

/// Breaks the body off if it is dropped before the end: a writer holds one.
#[derive(Debug)]
pub struct BodyWriter(pub SharedBody);

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the body from its start to its end.
#[derive(Debug)]
pub struct BodyReader {
    body: SharedBody,
    id: u64,
}

impl HttpBody for BodyReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.body.lock();
        let SharedBodyState { chunks, dropped, end, readers, .. } = &mut *state;
        let Some(slot) = readers.get_mut(&self.id) else { return Poll::Ready(None) };
        if slot.cut_off {
            return Poll::Ready(Some(Err("the reader fell too far behind the others".into())));
        }
        if let Some(chunk) = slot.next.checked_sub(*dropped).and_then(|at| chunks.get(at)).cloned()
        {
            // Only a reader of the oldest chunk can make room.
            let was_oldest = slot.next == *dropped;
            slot.next += 1;
            let writer = if was_oldest { state.writer.take() } else { None };
            drop(state);
            wake(writer);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match end {
            Some(BodyEnd::Complete) => Poll::Ready(None),
            Some(BodyEnd::Broken) => {
                Poll::Ready(Some(Err("the origin's response broke off".into())))
            }
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.body.lock();
        state.readers.remove(&self.id);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::time::Duration;

    async fn collect(reader: BodyReader) -> Result<Bytes, BodyError> {
        reader.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn early_and_late_readers_get_the_whole_body() {
        let body = SharedBody::new(100, 10, &Budget::new(u64::MAX));
        let early = tokio::spawn(collect(body.reader().expect("a reader")));
        assert_eq!(body.push(Bytes::from_static(b"one ")).await, PushOutcome::Buffered);
        let late = tokio::spawn(collect(body.reader().expect("a reader")));
        body.push(Bytes::from_static(b"two")).await;
        body.complete();
        for reader in [early, late] {
            assert_eq!(reader.await.expect("no panic").expect("whole"), "one two");
        }
        assert_eq!(collect(body.reader().expect("a reader")).await.expect("whole"), "one two");
    }

    #[tokio::test]
    async fn a_broken_body_breaks_every_response() {
        let body = SharedBody::new(100, 10, &Budget::new(u64::MAX));
        let reader = body.reader().expect("a reader");
        body.push(Bytes::from_static(b"half")).await;
        drop(BodyWriter(body.clone()));
        assert!(collect(reader).await.is_err());
        body.complete();
        assert!(
            collect(body.reader().expect("a reader")).await.is_err(),
            "an aborted body stays aborted"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_does_not_slow_a_body_that_may_be_stored() {
        let body = SharedBody::new(1_000_000, 10, &Budget::new(u64::MAX));
        let _slow = body.reader();
        for _ in 0..1000 {
            assert_eq!(body.push(Bytes::from_static(&[0; 100])).await, PushOutcome::Buffered);
        }
        assert_eq!(body.chunks().map(|chunks| chunks.len()), Some(1000));
    }

    #[tokio::test]
    async fn a_body_that_exceeds_the_limit_becomes_a_window() {
        let body = SharedBody::new(1000, 500, &Budget::new(u64::MAX));
        let reader = tokio::spawn(collect(body.reader().expect("a reader")));
        let mut most = 0;
        for n in 0..100_u8 {
            let pushed = body.push(Bytes::from(vec![n; 100])).await;
            assert_ne!(pushed, PushOutcome::NoReaders);
            most = most.max(body.lock().held_bytes);
        }
        assert!(body.reader().is_none() && body.chunks().is_none());
        body.complete();
        assert_eq!(reader.await.expect("no panic").expect("whole").len(), 10_000);
        assert!(most <= 1100, "{most} bytes were held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_does_not_hold_the_others_for_long() {
        let body = SharedBody::new(10, 100, &Budget::new(u64::MAX));
        let stopped = body.reader().expect("a reader");
        let reader = tokio::spawn(collect(body.reader().expect("a reader")));
        for _ in 0..100 {
            assert_ne!(body.push(Bytes::from_static(&[0; 50])).await, PushOutcome::NoReaders);
        }
        body.complete();
        assert_eq!(reader.await.expect("no panic").expect("whole").len(), 5_000);
        assert!(collect(stopped).await.is_err(), "the response of the stopped reader breaks off");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_frees_the_writer() {
        let body = SharedBody::new(10, 10, &Budget::new(u64::MAX));
        let reader = body.reader().expect("a reader");
        let writer = tokio::spawn({
            let body = body.clone();
            async move { body.push(Bytes::from_static(&[0; 100])).await }
        });
        tokio::task::yield_now().await;
        drop(reader);
        let pushed = tokio::time::timeout(Duration::from_secs(5), writer)
            .await
            .expect("the writer is not stuck")
            .expect("no panic");
        assert_eq!(pushed, PushOutcome::NoReaders);
    }

    #[tokio::test]
    async fn all_bodies_together_stay_within_the_budget() {
        let budget = Budget::new(150);
        let (one, two) = (SharedBody::new(100, 100, &budget), SharedBody::new(100, 100, &budget));
        let readers = (one.reader(), two.reader());
        assert_eq!(one.push(Bytes::from_static(&[0; 100])).await, PushOutcome::Buffered);
        assert_eq!(two.push(Bytes::from_static(&[0; 100])).await, PushOutcome::Streaming);
        assert_eq!((budget.left(), budget.exceeded.get()), (50, 1));
        drop((one, two, readers));
        assert_eq!(budget.left(), 150, "dropped bodies return their bytes");
    }
}
