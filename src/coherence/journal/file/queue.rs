//! The queue between the callers of the journal and its thread.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::coherence::journal::JournalLine;

/// How many lines may wait for the disk; each belongs to a write in progress.
pub const MAX_QUEUED: usize = 16_384;

/// The error of jobs that can no longer be done.
pub const THREAD_ENDED: &str = "the journal's thread has ended";

pub type SyncReply = oneshot::Sender<io::Result<()>>;

pub enum JournalJob {
    Append(JournalLine, SyncReply),
    Rewrite(Vec<JournalLine>, SyncReply),
}

/// Jobs that wait for the thread.
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
    pub fn push(&self, job: JournalJob, max: usize) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(io::Error::other(THREAD_ENDED));
        }
        if waiting.jobs.len() >= max {
            return Err(io::Error::other("too many lines wait for the journal's disk"));
        }
        waiting.jobs.push(job);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    /// Takes all waiting jobs, and waits if there are none. `None` when the queue is closed and
    /// empty.
    pub fn next(&self) -> Option<Vec<JournalJob>> {
        let mut waiting = self.waiting();
        while waiting.jobs.is_empty() && !waiting.closed {
            self.more.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.jobs)).filter(|jobs| !jobs.is_empty())
    }

    /// Closes the queue. Waiting jobs are still handed out.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.more.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, QueuedJobs> {
        self.waiting.lock()
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting().jobs.len()).finish()
    }
}

/// Closes the queue when the thread ends, also by a panic, so that no caller waits for it.
pub struct CloseOnDrop(pub Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.closed = true;
        // Dropping the reply channels gives an error to callers that wait.
        waiting.jobs.clear();
    }
}
