//! A body that grows while several read it.
//!
//! Invariants:
//! - Every reader gets all bytes, in order, and an end only if the writer said so: a writer that is
//!   dropped breaks the body.
//! - While the body may still be stored, all of it is kept and no reader slows the writer. Once it
//!   has outgrown the limit it is a window: what all readers have read is dropped, the writer waits
//!   for the slowest, and nobody new may read.
//! - In the window one slow reader holds the others back for [`SLOW_READER_TIMEOUT`] at most: then
//!   it is cut off.
//! - All bodies together keep no more than their [`Budget`]; one that would exceed it goes on as a
//!   window.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;

use crate::semantics::body::BodyError;
use crate::telemetry::metrics::Counter;

/// How long readers that keep up wait for those that do not.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes that all growing bodies together may keep. Cloning it gives the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicU64>,
    /// Bodies that could not be kept whole, and so not stored, because the budget was spent.
    pub exceeded: Arc<Counter>,
}

impl Budget {
    /// So many bytes.
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

/// The body. Cloning it gives the same body.
#[derive(Clone, Debug)]
pub struct SharedBody(Arc<Mutex<SharedBodyState>>);

#[derive(Debug)]
struct SharedBodyState {
    chunks: VecDeque<Bytes>,
    /// How many chunks were dropped from the front.
    dropped: usize,
    /// The bytes of the chunks that are here.
    held_bytes: u64,
    /// All bytes so far.
    total: u64,
    budget: Budget,
    /// What was taken from the budget.
    reserved: u64,
    limit: u64,
    window: u64,
    /// Whether all of it is still here.
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
    /// It was too slow: its response breaks off.
    cut_off: bool,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// It is kept, and may be stored.
    Buffered,
    /// It goes to those who read; the body will not be stored.
    Streaming,
    /// Nobody reads, and the body will not be stored.
    NoReaders,
}

impl SharedBody {
    /// An empty body that is kept up to `limit` bytes, if the budget has them, and then goes on in
    /// a window of `window` bytes.
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

    /// A reader from the start; none when the start is gone.
    #[must_use]
    pub fn reader(&self) -> Option<BodyReader> {
        let mut state = self.0.lock();
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
            let mut state = self.0.lock();
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
            let cut = self.0.lock().cut_off_slow_readers();
            wake(cut);
        }
    }

    /// Waits until the window has room.
    async fn wait_for_room(&self) -> PushOutcome {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            state.drop_consumed();
            if state.readers.values().all(|place| place.cut_off) {
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

    /// Whether anybody reads.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.0.lock().readers.values().any(|place| !place.cut_off)
    }

    /// All chunks, if none was dropped.
    #[must_use]
    pub fn chunks(&self) -> Option<Vec<Bytes>> {
        let state = self.0.lock();
        state.whole.then(|| state.chunks.iter().cloned().collect())
    }

    /// The body is complete.
    pub fn complete(&self) {
        self.end(BodyEnd::Complete);
    }

    /// The body broke off: so does every response that is made of it. Does nothing after
    /// [`SharedBody::complete`].
    pub fn abort(&self) {
        self.end(BodyEnd::Broken);
    }

    fn end(&self, end: BodyEnd) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        let readers = state.waiting_readers();
        drop(state);
        wake(readers);
    }
}

impl Drop for SharedBodyState {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.reserved, Relaxed);
    }
}

impl SharedBodyState {
    /// Who waits for more. They are woken when the lock is free again: it is what they need first.
    fn waiting_readers(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|place| place.waker.take()).collect()
    }

    fn drop_consumed(&mut self) {
        if self.whole {
            return;
        }
        let slowest = self
            .readers
            .values()
            .filter(|place| !place.cut_off)
            .map(|place| place.next)
            .min()
            .unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.dropped += 1;
            self.held_bytes -= chunk.len() as u64;
        }
    }

    /// Cuts off the readers that are behind, if others wait for more, and returns whom to tell. A
    /// reader that is alone is as slow as it likes.
    fn cut_off_slow_readers(&mut self) -> Vec<Waker> {
        let end = self.dropped + self.chunks.len();
        if !self.readers.values().any(|place| !place.cut_off && place.next == end) {
            return Vec::new();
        }
        let laggards = self.readers.values_mut().filter(|place| place.next < end);
        laggards
            .filter_map(|place| {
                place.cut_off = true;
                place.waker.take()
            })
            .collect()
    }
}

fn wake(waiting: impl IntoIterator<Item = Waker>) {
    waiting.into_iter().for_each(Waker::wake);
}

/// Breaks the body when it is dropped before the end: a writer holds one.
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
        let mut state = self.body.0.lock();
        let SharedBodyState { chunks, dropped, end, readers, .. } = &mut *state;
        let Some(place) = readers.get_mut(&self.id) else { return Poll::Ready(None) };
        if place.cut_off {
            return Poll::Ready(Some(Err("the reader fell too far behind the others".into())));
        }
        if let Some(chunk) = place.next.checked_sub(*dropped).and_then(|at| chunks.get(at)).cloned()
        {
            // Only who reads the oldest chunk can make room.
            let was_oldest = place.next == *dropped;
            place.next += 1;
            let writer = if was_oldest { state.writer.take() } else { None };
            drop(state);
            wake(writer);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match end {
            Some(BodyEnd::Complete) => Poll::Ready(None),
            Some(BodyEnd::Broken) => Poll::Ready(Some(Err("the app's response broke off".into()))),
            None => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.body.0.lock();
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
    async fn early_and_late_readers_get_all_of_it() {
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
            "what is broken stays broken"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_does_not_slow_what_is_to_be_stored() {
        let body = SharedBody::new(1_000_000, 10, &Budget::new(u64::MAX));
        let _slow = body.reader();
        for _ in 0..1000 {
            assert_eq!(body.push(Bytes::from_static(&[0; 100])).await, PushOutcome::Buffered);
        }
        assert_eq!(body.chunks().map(|chunks| chunks.len()), Some(1000));
    }

    #[tokio::test]
    async fn what_outgrows_the_limit_goes_on_in_a_window() {
        let body = SharedBody::new(1000, 500, &Budget::new(u64::MAX));
        let reader = tokio::spawn(collect(body.reader().expect("a reader")));
        let mut most = 0;
        for n in 0..100_u8 {
            let pushed = body.push(Bytes::from(vec![n; 100])).await;
            assert_ne!(pushed, PushOutcome::NoReaders);
            most = most.max(body.0.lock().held_bytes);
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
        assert!(
            collect(stopped).await.is_err(),
            "the one that stopped sees its response break off"
        );
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
            .expect("it is not stuck")
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
        assert_eq!(budget.left(), 150, "what is gone is given back");
    }
}
