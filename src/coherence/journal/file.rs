//! The journal file: a log whose lines are on disk when it says so, and survive SIGKILL.
//!
//! Invariants:
//! 1. *A line is on disk when its future ends:* [`JournalFile::append`] completes after the sync of
//!    its line. Lines that wait share one sync.
//! 2. *Lines are written in the order of the calls* of [`JournalFile::append`] and
//!    [`JournalFile::rewrite`], not of their futures: a caller that makes the call under the lock
//!    of its own journal keeps both the same, and may await the future after it unlocks. Dropping a
//!    future does not take its line back.
//! 3. *The file never holds less than was recorded.* An unfinished last line was never confirmed
//!    and is dropped. Any other damage counts as a purge of everything.
//! 4. *A file belongs to one sidecar.* The lock is on the file itself, and on its successor before
//!    that takes its name.
//! 5. *After a failed sync only what was on disk before counts:* the next line goes into a new
//!    file.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::coherence::journal::{JournalLine, text};
use crate::error::SetupError;

mod disk;
mod open;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use disk::{Disk, RealDisk};
use queue::{CloseOnDrop, JournalJob, MAX_QUEUED, Queue, THREAD_ENDED};
use writer::JournalWriter;

/// The journal file. Dropping it waits until all lines are written, and unlocks the file.
#[derive(Debug)]
pub struct JournalFile {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl JournalFile {
    /// Opens the file, or creates it, and returns the lines it journal. Pass the lines of a dead
    /// sidecar to `Journal::recovered`.
    ///
    /// # Errors
    /// If the file is not a journal, has another version, belongs to another sidecar, or cannot be
    /// read and written. The file then stays as it is.
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

    /// Appends a line. The call determines its place; the future completes when the line is on
    /// disk.
    ///
    /// # Errors
    /// Those of the disk: the line may or may not survive a crash. The next line is attempted
    /// anyway.
    pub fn append(&self, line: JournalLine) -> impl Future<Output = io::Result<()>> + Send + use<> {
        // A line that is too long is replaced by one that purges more.
        let line = if text::fits(&line) { line } else { JournalLine::Everything };
        let (reply, result) = oneshot::channel();
        completion(self.queue.push(JournalJob::Append(line, reply), MAX_QUEUED), result)
    }

    /// Replaces the contents of the file, after a replay. The call determines its place; the future
    /// completes when the new contents are on disk.
    ///
    /// # Errors
    /// Those of the disk: the file then holds the old contents or the new ones.
    pub fn rewrite(
        &self,
        lines: Vec<JournalLine>,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (reply, result) = oneshot::channel();
        completion(self.queue.push(JournalJob::Rewrite(lines, reply), usize::MAX), result)
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, the callers that waited have got an error.
            let _ = thread.join();
        }
    }
}

/// The result of a job, once it is in the queue.
async fn completion(
    queued: io::Result<()>,
    result: oneshot::Receiver<io::Result<()>>,
) -> io::Result<()> {
    queued?;
    result.await.unwrap_or_else(|_| Err(io::Error::other(THREAD_ENDED)))
}
