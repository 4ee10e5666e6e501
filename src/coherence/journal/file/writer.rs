//! The thread's side of the log: groups of lines, one sync each; and a new file when the old one
//! has grown, failed or been replayed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::disk::Disk;
use super::open::{FILE_MODE, OpenJournal, sync_folder};
use super::queue::{JournalJob, SyncReply};
use crate::coherence::journal::{Journal, JournalLine, text};

/// A file shorter than this is not worth shortening.
pub const MIN_REWRITE_BYTES: u64 = 1 << 20;

/// The file and what it holds.
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    /// What is on disk.
    journal: Journal,
    /// How far the file is whole.
    len: u64,
    /// From this length on it is rewritten.
    rewrite_at: u64,
    /// The file is not what it should be: the next line goes into a new one.
    suspect: bool,
    disk: Box<dyn Disk>,
}

impl JournalWriter {
    /// Goes on with a file. One with broken lines is replaced at the first chance: they hide what
    /// is written behind them.
    pub fn new(opened: OpenJournal, disk: Box<dyn Disk>) -> Self {
        let OpenJournal { file, path, journal: holds, len, broken } = opened;
        Self {
            file,
            path,
            journal: holds,
            len,
            rewrite_at: MIN_REWRITE_BYTES,
            suspect: broken,
            disk,
        }
    }

    /// Does it all, in order, and tells those who wait.
    pub fn work(&mut self, jobs: Vec<JournalJob>) {
        let (mut lines, mut replies) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                JournalJob::Append(line, reply) => {
                    lines.push(line);
                    replies.push(reply);
                }
                JournalJob::Rewrite(content, reply) => {
                    self.append_group(&mut lines, &mut replies);
                    let result = self.replace(Journal::from_lines(&content));
                    reply_all([reply], &result);
                }
            }
        }
        self.append_group(&mut lines, &mut replies);
        if self.len > self.rewrite_at {
            self.shorten();
        }
    }

    fn append_group(&mut self, lines: &mut Vec<JournalLine>, replies: &mut Vec<SyncReply>) {
        if !lines.is_empty() {
            let result = self.record(&std::mem::take(lines));
            reply_all(std::mem::take(replies), &result);
        }
    }

    fn record(&mut self, lines: &[JournalLine]) -> io::Result<()> {
        if self.suspect {
            let mut holds = self.journal.clone();
            for line in lines {
                holds.apply(line);
            }
            return self.replace(holds);
        }
        let mut bytes = Vec::new();
        for line in lines {
            text::encode(line, &mut bytes);
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.disk.write(&self.file, &bytes));
        if let Err(error) = written {
            self.suspect = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        if let Err(error) = self.disk.sync(&self.file) {
            // The kernel may call pages clean that it failed to write: only a new file says what is
            // on disk.
            self.suspect = true;
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += bytes.len() as u64;
        for line in lines {
            self.journal.apply(line);
        }
        Ok(())
    }

    /// Writes a new file and gives it the name of the old one.
    fn replace(&mut self, holds: Journal) -> io::Result<()> {
        let mut bytes = text::HEADER.as_bytes().to_vec();
        for line in holds.lines() {
            text::encode(&line, &mut bytes);
        }
        let mut successor = self.path.clone().into_os_string();
        successor.push(".new");
        // What a crash has left there; never what a link points to.
        let _ = fs::remove_file(&successor);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&successor)?;
        let named = file.try_lock().map_err(io::Error::from).and_then(|()| {
            self.disk.write(&file, &bytes)?;
            self.disk.sync(&file)?;
            fs::rename(&successor, &self.path)
        });
        if let Err(error) = named {
            // A full disk wants the room back.
            let _ = fs::remove_file(&successor);
            return Err(error);
        }
        (self.file, self.journal, self.len) = (file, holds, bytes.len() as u64);
        self.rewrite_at = MIN_REWRITE_BYTES.max(self.len * 2);
        // Until the name is on disk a crash brings the old file back, without what is written to
        // the new one.
        self.suspect = true;
        sync_folder(&self.path, self.disk.as_ref())?;
        self.suspect = false;
        Ok(())
    }

    fn shorten(&mut self) {
        if let Err(error) = self.replace(self.journal.clone()) {
            tracing::warn!(%error, path = %self.path.display(), "the journal has grown and could not be shortened; it goes on");
            self.rewrite_at = self.len + MIN_REWRITE_BYTES;
        }
    }
}

fn reply_all(replies: impl IntoIterator<Item = SyncReply>, result: &io::Result<()>) {
    for reply in replies {
        let copy = result
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))
            .copied();
        // Who no longer waits has taken nothing back.
        let _ = reply.send(copy);
    }
}
