//! The part of the journal that survives the process: purges of the core that Redis does not have
//! yet, and mutations in progress without Redis, written to a file where one is configured.
//!
//! Invariant: a purge is written before the core gets it, and removed after the core has seen it
//! replayed; so the file never holds less than the core.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::coherence::core;
use crate::coherence::journal::file::JournalFile;
use crate::coherence::journal::{Journal, JournalBatch, JournalLine};
use crate::coherence::journal_set;
use crate::coherence::message::OperationId;
use crate::error::SetupError;
use crate::policy::tag::Tag;
use crate::telemetry::metrics::Counter;

/// The journal file, if there is one.
#[derive(Debug, Default)]
pub(super) struct DurableJournal {
    file: Option<(Mutex<Journal>, JournalFile)>,
    paths: Option<(PathBuf, PathBuf)>,
    failing: AtomicBool,
    /// Counts lines that could not be written.
    pub(super) failures: Arc<Counter>,
}

impl DurableJournal {
    /// Opens the file, and returns the purges that dead processes have left in it and in those
    /// beside it. With `beside`, a predecessor may have the file still: then another one is opened.
    pub(super) fn open(
        first: &Path,
        beside: bool,
    ) -> Result<(Self, core::ReplayBatch), SetupError> {
        let own = if beside { journal_set::first_free(first) } else { first.to_owned() };
        let (log, lines) = JournalFile::open(&own)?;
        let journal = Journal::recovered(&lines);
        let left = journal.batch();
        let mut left = core::ReplayBatch {
            tags: left.tags.into_iter().collect(),
            everything: left.everything,
        };
        for other in journal_set::others(first, &own) {
            if let Some((_opened, more)) = journal_set::left_in(&other) {
                left.tags.extend(more.tags);
                left.everything |= more.everything;
            }
        }
        let file = Some((Mutex::new(journal), log));
        let paths = Some((first.to_owned(), own));
        Ok((Self { file, paths, ..Self::default() }, left))
    }

    /// The file that the settings name, and that of this process.
    pub(super) fn paths(&self) -> Option<(PathBuf, PathBuf)> {
        self.paths.clone()
    }

    /// Records a mutation before it reaches the origin. Returns whether there is a file to record
    /// it in.
    pub(super) async fn intend(&self, id: OperationId, tags: &[Tag]) -> bool {
        self.write(JournalLine::Intend { id: id.to_string().into(), tags: tags.to_vec() }).await
    }

    /// Records that the mutation needs no purge any more. No need to wait for the disk: losing this
    /// line costs hits only.
    pub(super) fn withdraw(&self, id: OperationId) {
        drop(self.append(JournalLine::Withdraw { id: id.to_string().into() }));
    }

    /// Records a purge of tags.
    pub(super) async fn purge(&self, tags: &[Tag]) {
        self.write(JournalLine::Purge { tags: tags.to_vec() }).await;
    }

    /// Records a purge of everything.
    pub(super) async fn purge_everything(&self) {
        self.write(JournalLine::Everything).await;
    }

    /// What is to be replayed.
    pub(super) fn batch(&self) -> JournalBatch {
        self.file.as_ref().map(|(journal, _)| lock(journal).batch()).unwrap_or_default()
    }

    /// Removes what was replayed.
    pub(super) async fn replayed(&self, batch: &JournalBatch) {
        let Some((journal, log)) = &self.file else { return };
        let written = {
            let mut journal = lock(journal);
            journal.replayed(batch);
            // Queued under the lock, so that no line can come in between and be overwritten.
            log.rewrite(journal.lines())
        };
        self.on_written(written.await);
    }

    fn append(
        &self,
        line: JournalLine,
    ) -> Option<impl Future<Output = std::io::Result<()>> + use<>> {
        let (journal, log) = self.file.as_ref()?;
        let mut journal = lock(journal);
        journal.apply(&line);
        Some(log.append(line))
    }

    async fn write(&self, line: JournalLine) -> bool {
        let Some(written) = self.append(line) else { return false };
        self.on_written(written.await);
        true
    }

    /// Fail open, as without a file: a line that could not be written stays in memory, and is
    /// replayed as long as the process lives.
    fn on_written(&self, written: std::io::Result<()>) {
        match written {
            Ok(()) => self.failing.store(false, Relaxed),
            Err(error) => {
                self.failures.inc();
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(
                        %error,
                        "the journal cannot be written; purges that Redis does not have are kept \
                        in memory only"
                    );
                }
            }
        }
    }
}

fn lock(journal: &Mutex<Journal>) -> parking_lot::MutexGuard<'_, Journal> {
    journal.lock()
}
