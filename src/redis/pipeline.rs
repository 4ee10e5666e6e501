//! Reads that wait for Redis at the same time are sent as one `MGET`.
//!
//! Invariants:
//! - A read that finds no batch in flight is sent at once, so that batching adds no delay to a
//!   quiet sidecar.
//! - While a batch is in flight the next one gathers, and is sent when it is half full, or when its
//!   first read has waited for [`GATHER`]: a distant Redis slows neither a busy sidecar nor a read
//!   that comes while another one is on its way, which has one deadline for both.
//! - At most [`MAX_IN_FLIGHT`] batches are in flight.
//! - A batch asks for about [`BATCH_BYTES`] at most, estimated from the size of the last replies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::interfaces::KeysInterface as _;
use fred::types::{Key, Value};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::clock::wait_while_running;
use crate::redis::error::CallError;
use crate::redis::session::RedisSession;

/// The most reads in one batch.
const MAX_BATCH: usize = 64;

/// How many batches may be in flight.
const MAX_IN_FLIGHT: usize = 16;

/// How long a read waits for others while a batch is in flight: longer than a Redis nearby takes to
/// reply, so that what waits for that one is sent together, and nothing beside `deadline`.
const GATHER: Duration = Duration::from_millis(2);

/// How many bytes a batch should bring at most: enough to save calls, few enough to arrive within
/// the deadline.
const BATCH_BYTES: usize = 1024 * 1024;

/// The values for one read.
type BatchValues = Result<Vec<Option<Bytes>>, CallError>;

#[derive(Debug)]
struct QueuedRead {
    keys: Vec<Bytes>,
    reply: oneshot::Sender<BatchValues>,
}

/// Reads that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct BatchQueue {
    waiting: Mutex<VecDeque<QueuedRead>>,
    some: Notify,
}

impl BatchQueue {
    /// Queues a read of some keys. The caller enforces the deadline.
    pub(super) fn enqueue(&self, keys: Vec<Bytes>) -> oneshot::Receiver<BatchValues> {
        let (sender, receiver) = oneshot::channel();
        self.lock().push_back(QueuedRead { keys, reply: sender });
        self.some.notify_one();
        receiver
    }

    /// Takes reads off the queue, and skips those whose callers no longer wait.
    fn take(&self, max: usize) -> Vec<QueuedRead> {
        let mut waiting = self.lock();
        let mut batch = Vec::with_capacity(max.min(waiting.len()));
        while batch.len() < max {
            match waiting.pop_front() {
                Some(read) if read.reply.is_closed() => {}
                Some(read) => batch.push(read),
                None => break,
            }
        }
        batch
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, VecDeque<QueuedRead>> {
        self.waiting.lock()
    }
}

/// Sends batches for ever.
pub(super) async fn drive(
    queue: Arc<BatchQueue>,
    session: Arc<ArcSwap<RedisSession>>,
    turn: usize,
    deadline: Duration,
) {
    let mut bytes_each = 0;
    let mut in_flight = FuturesUnordered::new();
    // Set anew for each batch that gathers, and not whenever something happens.
    let mut gather = std::pin::pin!(sleep(GATHER));
    let (mut gathers, mut has_gathered) = (false, false);
    loop {
        let max = (BATCH_BYTES / (bytes_each + 1)).clamp(1, MAX_BATCH);
        let enough = if in_flight.is_empty() { 1 } else { max.div_ceil(2) };
        let waiting = queue.len();
        let is_due = waiting >= enough || (has_gathered && waiting > 0);
        if in_flight.len() < MAX_IN_FLIGHT && is_due {
            (gathers, has_gathered) = (false, false);
            let batch = queue.take(max);
            if !batch.is_empty() {
                in_flight.push(send(batch, &session, turn, deadline));
            }
            continue;
        }
        if waiting > 0 && !gathers {
            gather.set(sleep(GATHER));
            gathers = true;
        }
        tokio::select! {
            Some((reads, received)) = in_flight.next() => {
                // A moving average that one large entry barely changes, and that follows many soon.
                bytes_each = (bytes_each * 3 + received / reads) / 4;
            }
            () = queue.some.notified() => {}
            () = &mut gather, if gathers && !has_gathered => has_gathered = true,
        }
    }
}

/// Sends one batch and hands out the values. Returns the number of reads, and of bytes received.
async fn send(
    batch: Vec<QueuedRead>,
    session: &ArcSwap<RedisSession>,
    turn: usize,
    deadline: Duration,
) -> (usize, usize) {
    let reads = batch.len();
    let keys: Vec<Key> =
        batch.iter().flat_map(|read| read.keys.iter().cloned().map(Key::from)).collect();
    let expected = keys.len();
    // In a cluster too: only metadata is read in batches, and the primary has all of it.
    let session = session.load_full();
    let result = async {
        match session.client(turn)?.mget::<Vec<Value>, _>(keys).await {
            Ok(values) if values.len() == expected => Ok(values),
            Ok(values) => {
                Err(CallError::Reply(format!("{} values for {expected} keys", values.len())))
            }
            Err(error) => Err(CallError::from_fred(&error)),
        }
    };
    let result =
        wait_while_running(deadline, Box::pin(result)).await.unwrap_or(Err(CallError::Timeout));
    match result {
        Ok(values) => {
            let mut received = 0;
            let mut values = values.into_iter().map(Value::into_bytes);
            for read in batch {
                let own: Vec<Option<Bytes>> = values.by_ref().take(read.keys.len()).collect();
                received += own.iter().flatten().map(Bytes::len).sum::<usize>();
                // Ignore the error: the receiver is dropped when the caller has timed out.
                let _ = read.reply.send(Ok(own));
            }
            (reads, received)
        }
        Err(error) => {
            session.record_error(&error);
            for read in batch {
                let _ = read.reply.send(Err(error.clone()));
            }
            (reads, 0)
        }
    }
}
