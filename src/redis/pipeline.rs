//! Readings that wait for Redis at the same time travel as one MGET.
//!
//! Invariants: a reading that finds nothing under way goes at once, so that batching adds no wait
//! to a quiet sidecar; while a batch is under way the next one gathers, and goes when it is half
//! full, so that a distant Redis does not slow a busy one; at most [`MAX_IN_FLIGHT`] go at a time;
//! a batch never asks for more bytes than about [`BATCH_BYTES`], judged by what the last ones
//! brought.

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

use crate::redis::CallError;
use crate::redis::session::RedisSession;

/// How many readings travel together at the most.
const MAX_BATCH: usize = 64;

/// How many batches may be under way.
const MAX_IN_FLIGHT: usize = 16;

/// How many bytes a batch should bring at the most: enough to save calls, little enough to arrive
/// within the deadline.
const BATCH_BYTES: usize = 1024 * 1024;

/// The values of one reading.
type BatchValues = Result<Vec<Option<Bytes>>, CallError>;

#[derive(Debug)]
struct QueuedRead {
    keys: Vec<Bytes>,
    reply: oneshot::Sender<BatchValues>,
}

/// Readings that wait for the line.
#[derive(Debug, Default)]
pub(super) struct BatchQueue {
    waiting: Mutex<VecDeque<QueuedRead>>,
    some: Notify,
}

impl BatchQueue {
    /// Asks for the values of some keys. The caller minds the deadline.
    pub(super) fn enqueue(&self, keys: Vec<Bytes>) -> oneshot::Receiver<BatchValues> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().push_back(QueuedRead { keys, reply: tell });
        self.some.notify_one();
        told
    }

    /// Takes readings off the line; leaves those that nobody waits for any more.
    fn take(&self, most: usize) -> Vec<QueuedRead> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::with_capacity(most.min(waiting.len()));
        while batch.len() < most {
            match waiting.pop_front() {
                Some(reading) if reading.reply.is_closed() => {}
                Some(reading) => batch.push(reading),
                None => break,
            }
        }
        batch
    }

    fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

/// Sends batch after batch, for ever.
pub(super) async fn drive(
    line: Arc<BatchQueue>,
    connected: Arc<ArcSwap<RedisSession>>,
    turn: usize,
    deadline: Duration,
) {
    let mut bytes_each = 0;
    let mut under_way = FuturesUnordered::new();
    loop {
        let most = (BATCH_BYTES / (bytes_each + 1)).clamp(1, MAX_BATCH);
        let enough = if under_way.is_empty() { 1 } else { most.div_ceil(2) };
        if under_way.len() < MAX_IN_FLIGHT && line.len() >= enough {
            let batch = line.take(most);
            if !batch.is_empty() {
                under_way.push(send(batch, &connected, turn, deadline));
            }
            continue;
        }
        tokio::select! {
            Some((readings, brought)) = under_way.next() => {
                // A moving average that a single large entry does not upset, and that soon follows
                // many.
                bytes_each = (bytes_each * 3 + brought / readings) / 4;
            }
            () = line.some.notified() => {}
        }
    }
}

/// Sends one batch, hands the values out, and tells how many readings it was and how many bytes
/// came.
async fn send(
    batch: Vec<QueuedRead>,
    connected: &ArcSwap<RedisSession>,
    turn: usize,
    deadline: Duration,
) -> (usize, usize) {
    let readings = batch.len();
    let keys: Vec<Key> =
        batch.iter().flat_map(|reading| reading.keys.iter().cloned().map(Key::from)).collect();
    let expected = keys.len();
    // In a cluster, too: what is read together is metadata, which the primary keeps.
    let connected = connected.load_full();
    let result = async {
        match connected.client(turn)?.mget::<Vec<Value>, _>(keys).await {
            Ok(values) if values.len() == expected => Ok(values),
            Ok(values) => {
                Err(CallError::Reply(format!("{} values for {expected} keys", values.len())))
            }
            Err(error) => Err(CallError::from_fred(&error)),
        }
    };
    let result =
        tokio::time::timeout(deadline, Box::pin(result)).await.unwrap_or(Err(CallError::Timeout));
    match result {
        Ok(values) => {
            let mut brought = 0;
            let mut values = values.into_iter().map(Value::into_bytes);
            for reading in batch {
                let own: Vec<Option<Bytes>> = values.by_ref().take(reading.keys.len()).collect();
                brought += own.iter().flatten().map(Bytes::len).sum::<usize>();
                // Who has given up does not hear it.
                let _ = reading.reply.send(Ok(own));
            }
            (readings, brought)
        }
        Err(error) => {
            connected.record_error(&error);
            for reading in batch {
                let _ = reading.reply.send(Err(error.clone()));
            }
            (readings, 0)
        }
    }
}
