//! The journal's thread: writes lines in groups, with one sync each, and starts a new file when the
//! old one has grown too long, has failed, or was replayed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::disk::Disk;
use super::open::{FILE_MODE, OpenJournal, sync_folder};
use super::queue::{JournalJob, SyncReply};
use crate::coherence::journal::{Journal, JournalLine, text};

/// Files shorter than this are not worth rewriting.
pub const MIN_REWRITE_BYTES: u64 = 1 << 20;

/// The file, and the journal that it journal.
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    /// What is on disk.
    journal: Journal,
    /// How many bytes of the file are valid.
    len: u64,
    /// The length at which the file is rewritten.
    rewrite_at: u64,
    /// The file may be damaged: the next line goes into a new one.
    suspect: bool,
    disk: Box<dyn Disk>,
}

impl JournalWriter {
    /// Takes over an open file. One with damaged lines is replaced at the first write, because they
    /// hide everything that follows.
    pub fn new(opened: OpenJournal, disk: Box<dyn Disk>) -> Self {
        let OpenJournal { file, path, journal, len, broken } = opened;
        Self { file, path, journal, len, rewrite_at: MIN_REWRITE_BYTES, suspect: broken, disk }
    }

    /// Does these jobs in order, and replies to each.
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
            let mut journal = self.journal.clone();
            for line in lines {
                journal.apply(line);
            }
            return self.replace(journal);
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
            // The kernel may mark pages as clean that it failed to write: only a new file tells
            // what is on disk.
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

    /// Writes a new file and renames it to the old name.
    fn replace(&mut self, journal: Journal) -> io::Result<()> {
        let mut bytes = text::HEADER.as_bytes().to_vec();
        for line in journal.lines() {
            text::encode(&line, &mut bytes);
        }
        let mut successor = self.path.clone().into_os_string();
        successor.push(".new");
        // Removes what a crash has left there, or a link, without following it.
        let _ = fs::remove_file(&successor);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&successor)?;
        let named = file.try_lock().map_err(io::Error::from).and_then(|()| {
            self.disk.write(&file, &bytes)?;
            self.disk.sync(&file)?;
            fs::rename(&successor, &self.path)
        });
        if let Err(error) = named {
            // Frees the space, in case the disk is full.
            let _ = fs::remove_file(&successor);
            return Err(error);
        }
        (self.file, self.journal, self.len) = (file, journal, bytes.len() as u64);
        self.rewrite_at = MIN_REWRITE_BYTES.max(self.len * 2);
        // Until the new name is on disk, a crash brings the old file back, and lines written to the
        // new one would be lost.
        self.suspect = true;
        sync_folder(&self.path, self.disk.as_ref())?;
        self.suspect = false;
        Ok(())
    }

    fn shorten(&mut self) {
        if let Err(error) = self.replace(self.journal.clone()) {
            tracing::warn!(
                %error,
                path = %self.path.display(),
                "the journal has grown and could not be rewritten; it keeps growing"
            );
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
        // Ignore the error: a caller that no longer waits has not taken its line back.
        let _ = reply.send(copy);
    }
}
