//! The queue between the callers of the journal and its thread.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::coherence::journal::JournalLine;

/// How many lines may wait for the disk; each belongs to a write under way.
pub const MAX_QUEUED: usize = 16_384;

/// Why nothing is written any more.
pub const THREAD_ENDED: &str = "the journal's thread has ended";

pub type SyncReply = oneshot::Sender<io::Result<()>>;

pub enum JournalJob {
    Append(JournalLine, SyncReply),
    Rewrite(Vec<JournalLine>, SyncReply),
}

/// What the thread has to do.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<QueuedJobs>,
    more: Condvar,
}

#[derive(Default)]
struct QueuedJobs {
    jobs: Vec<JournalJob>,
    closed: bool,
}

impl Queue {
    pub fn push(&self, job: JournalJob, most: usize) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(io::Error::other(THREAD_ENDED));
        }
        if waiting.jobs.len() >= most {
            return Err(io::Error::other("too many lines wait for the journal's disk"));
        }
        waiting.jobs.push(job);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    /// All that waits; None when nothing does and nothing will.
    pub fn next(&self) -> Option<Vec<JournalJob>> {
        let mut waiting = self.waiting();
        while waiting.jobs.is_empty() && !waiting.closed {
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut waiting.jobs)).filter(|jobs| !jobs.is_empty())
    }

    /// Takes no more jobs. What waits is still handed out.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.more.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, QueuedJobs> {
        // It is whole between any two statements that could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting().jobs.len()).finish()
    }
}

/// Closes the queue when the thread ends, by a panic too, so that nobody waits for it.
pub struct CloseOnDrop(pub Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.closed = true;
        // Their senders go, which is an answer.
        waiting.jobs.clear();
    }
}
