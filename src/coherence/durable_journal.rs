//! What of the journal survives the process: the core's purges that Redis has yet to be told, and
//! mutations under way without Redis, written down in a file where one is configured.
//!
//! Invariant: a purge is written down before the core hears of it, and crossed out after the core
//! has seen it replayed; so what the file holds is never less than what the core knows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::coherence::core;
use crate::coherence::journal::file::JournalFile;
use crate::coherence::journal::{Journal, JournalBatch, JournalLine};
use crate::coherence::message::OperationId;
use crate::error::SetupError;
use crate::policy::tag::Tag;
use crate::telemetry::metrics::Counter;

/// The file, if there is one.
#[derive(Debug, Default)]
pub(super) struct DurableJournal {
    file: Option<(Mutex<Journal>, JournalFile)>,
    failing: AtomicBool,
    /// Lines that could not be written.
    pub(super) failures: Arc<Counter>,
}

impl DurableJournal {
    /// Opens the file, and tells what a sidecar that died has left in it.
    pub(super) fn open(path: &Path) -> Result<(Self, core::ReplayBatch), SetupError> {
        let (log, lines) = JournalFile::open(path)?;
        let journal = Journal::recovered(&lines);
        let left = journal.batch();
        let left = core::ReplayBatch {
            tags: left.tags.into_iter().collect(),
            everything: left.everything,
        };
        Ok((Self { file: Some((Mutex::new(journal), log)), ..Self::default() }, left))
    }

    /// Writes down that a mutation is about to reach the app. Says whether there is a file to write
    /// it to.
    pub(super) async fn intend(&self, id: OperationId, tags: &[Tag]) -> bool {
        self.write(JournalLine::Intend { id: id.to_string().into(), tags: tags.to_vec() }).await
    }

    /// Writes down that the mutation purges nothing any more. Need not be waited for: forgotten, it
    /// costs hits.
    pub(super) fn withdraw(&self, id: OperationId) {
        drop(self.append(JournalLine::Withdraw { id: id.to_string().into() }));
    }

    /// Writes down that tags are purged.
    pub(super) async fn purge(&self, tags: &[Tag]) {
        self.write(JournalLine::Purge { tags: tags.to_vec() }).await;
    }

    /// Writes down that everything is purged.
    pub(super) async fn purge_everything(&self) {
        self.write(JournalLine::Everything).await;
    }

    /// What is to be replayed.
    pub(super) fn batch(&self) -> JournalBatch {
        self.file.as_ref().map(|(journal, _)| journal.lock().batch()).unwrap_or_default()
    }

    /// Crosses out what was replayed.
    pub(super) async fn replayed(&self, batch: &JournalBatch) {
        let Some((journal, log)) = &self.file else { return };
        let written = {
            let mut journal = journal.lock();
            journal.replayed(batch);
            // Takes its place now, under the lock, so that it swallows no line.
            log.rewrite(journal.lines())
        };
        self.on_written(written.await);
    }

    fn append(
        &self,
        line: JournalLine,
    ) -> Option<impl Future<Output = std::io::Result<()>> + use<>> {
        let (journal, log) = self.file.as_ref()?;
        let mut journal = journal.lock();
        journal.apply(&line);
        Some(log.append(line))
    }

    async fn write(&self, line: JournalLine) -> bool {
        let Some(written) = self.append(line) else { return false };
        self.on_written(written.await);
        true
    }

    /// Fail open, as without a file: what could not be written is in memory, and is replayed as
    /// long as the process lives.
    fn on_written(&self, written: std::io::Result<()>) {
        match written {
            Ok(()) => self.failing.store(false, Relaxed),
            Err(error) => {
                self.failures.inc();
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(%error, "the journal cannot be written; purges that Redis is not told are kept in memory alone");
                }
            }
        }
    }
}
