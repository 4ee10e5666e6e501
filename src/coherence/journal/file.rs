//! The journal in a file: a log that is on disk when it says so, and survives SIGKILL.
//!
//! Invariants:
//! 1. *What was answered is on disk:* the future of [`JournalFile::append`] ends after the sync of
//!    its line. Lines that wait share one sync.
//! 2. *The order is that of the calls,* of [`JournalFile::append`] and [`JournalFile::rewrite`]
//!    themselves, not of their futures: a caller that holds a lock around the call and its own
//!    journal keeps both alike, and may wait after it. A future that is dropped takes nothing back.
//! 3. *Never less than was recorded.* A last line without its end was never answered, and is
//!    dropped. Anything else that cannot be read means everything.
//! 4. *One sidecar has the file.* The lock is on the file itself, and on its successor before that
//!    takes its name.
//! 5. *After a failed sync nothing is believed of the file* but what was on disk before: the next
//!    line goes into a new one.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{JournalLine, text};
use crate::error::SetupError;

mod disk;
mod open;
#[cfg(test)]
mod tests;
mod writer;

use disk::{Disk, RealDisk};
use writer::JournalWriter;

/// How many lines may wait for the disk; each belongs to a write under way.
const MAX_QUEUED: usize = 16_384;

/// The durable log. Dropping it waits until what was appended is written, and gives the file up.
#[derive(Debug)]
pub struct JournalFile {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Why nothing is written any more.
const THREAD_ENDED: &str = "the journal's thread has ended";

type SyncReply = oneshot::Sender<io::Result<()>>;

enum JournalJob {
    Append(JournalLine, SyncReply),
    Rewrite(Vec<JournalLine>, SyncReply),
}

/// What the thread has to do.
#[derive(Default)]
struct Queue {
    waiting: Mutex<QueuedJobs>,
    more: Condvar,
}

#[derive(Default)]
struct QueuedJobs {
    jobs: Vec<JournalJob>,
    closed: bool,
}

impl JournalFile {
    /// Opens the file, or creates it, and returns what it holds. The lines of a sidecar that died
    /// are for `Journal::recovered`.
    ///
    /// # Errors
    /// When it is no journal, is of another version, belongs to another sidecar, or cannot be read
    /// and written. It is left as it is.
    pub fn open(path: &Path) -> Result<(Self, Vec<JournalLine>), SetupError> {
        Self::open_on(path, Box::new(RealDisk))
    }

    fn open_on(path: &Path, disk: Box<dyn Disk>) -> Result<(Self, Vec<JournalLine>), SetupError> {
        let opened = open::open(path, disk.as_ref())?;
        let lines = opened.journal.lines();
        let mut writer = JournalWriter::new(opened, disk);
        let queue = Arc::new(Queue::default());
        let closing = CloseOnDrop(Arc::clone(&queue));
        let work = move || {
            while let Some(jobs) = closing.0.next() {
                writer.work(jobs);
            }
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(work);
        let thread = thread.map_err(|error| {
            open::unusable(path, format!("no thread can be started for it: {error}"))
        })?;
        Ok((Self { queue, thread: Some(thread) }, lines))
    }

    /// Writes a line down. It takes its place when this is called; the future ends when it is on
    /// disk.
    ///
    /// # Errors
    /// The disk's: the line may or may not be there after a crash. The next one is tried anew.
    pub fn append(&self, line: JournalLine) -> impl Future<Output = io::Result<()>> + Send + use<> {
        // What no line can hold is still not less than was recorded.
        let line = if text::fits(&line) { line } else { JournalLine::Everything };
        let (reply, answer) = oneshot::channel();
        completion(self.queue.push(JournalJob::Append(line, reply), MAX_QUEUED), answer)
    }

    /// Replaces what the file holds, after a replay. It takes its place when this is called; the
    /// future ends when it is on disk.
    ///
    /// # Errors
    /// The disk's: the file then holds what it held, or already this.
    pub fn rewrite(
        &self,
        lines: Vec<JournalLine>,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        completion(self.queue.push(JournalJob::Rewrite(lines, reply), usize::MAX), answer)
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        self.queue.waiting.lock().closed = true;
        self.queue.more.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told those who waited.
            let _ = thread.join();
        }
    }
}

/// What became of a job, if it could be put into the queue.
async fn completion(
    put: io::Result<()>,
    answer: oneshot::Receiver<io::Result<()>>,
) -> io::Result<()> {
    put?;
    answer.await.unwrap_or_else(|_| Err(io::Error::other(THREAD_ENDED)))
}

impl Queue {
    fn push(&self, job: JournalJob, most: usize) -> io::Result<()> {
        let mut waiting = self.waiting.lock();
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
    fn next(&self) -> Option<Vec<JournalJob>> {
        let mut waiting = self.waiting.lock();
        while waiting.jobs.is_empty() && !waiting.closed {
            self.more.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.jobs)).filter(|jobs| !jobs.is_empty())
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.lock().jobs.len()).finish()
    }
}

/// Closes the queue when the thread ends, by a panic too, so that nobody waits for it.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        // Their senders go, which is an answer.
        waiting.jobs.clear();
    }
}

/// A file that is open, locked, and whole up to `len`.
struct OpenJournal {
    file: File,
    path: std::path::PathBuf,
    journal: super::Journal,
    len: u64,
    broken: bool,
}
