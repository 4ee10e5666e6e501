//! The thread's side of the log: groups of lines, one sync each; and a new file when the old one has grown, failed or been replayed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::disk::Disk;
use super::open::{MODE, sync_folder};
use super::{Job, Opened, Reply, text};
use crate::coherence::journal::{Journal, Line};

/// A file shorter than this is not worth shortening.
pub const SHORT: u64 = 1 << 20;

/// The file and what it holds.
pub struct Writer {
    file: File,
    path: PathBuf,
    /// What is on disk.
    holds: Journal,
    /// How far the file is whole.
    len: u64,
    /// From this length on it is rewritten.
    long: u64,
    /// The file is not what it should be: the next line goes into a new one.
    suspect: bool,
    disk: Box<dyn Disk>,
}

impl Writer {
    /// Goes on with a file. One with broken lines is replaced at the first chance: they hide what is written behind them.
    pub fn new(opened: Opened, disk: Box<dyn Disk>) -> Self {
        let Opened { file, path, holds, len, broken } = opened;
        Self { file, path, holds, len, long: SHORT, suspect: broken, disk }
    }

    /// Does it all, in order, and tells those who wait.
    pub fn work(&mut self, jobs: Vec<Job>) {
        let (mut lines, mut replies) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Append(line, reply) => {
                    lines.push(line);
                    replies.push(reply);
                }
                Job::Rewrite(content, reply) => {
                    self.group(&mut lines, &mut replies);
                    let result = self.replace(Journal::of(&content));
                    answer([reply], &result);
                }
            }
        }
        self.group(&mut lines, &mut replies);
        if self.len > self.long {
            self.shorten();
        }
    }

    fn group(&mut self, lines: &mut Vec<Line>, replies: &mut Vec<Reply>) {
        if !lines.is_empty() {
            let result = self.record(&std::mem::take(lines));
            answer(std::mem::take(replies), &result);
        }
    }

    fn record(&mut self, lines: &[Line]) -> io::Result<()> {
        if self.suspect {
            let mut holds = self.holds.clone();
            for line in lines {
                holds.note(line);
            }
            return self.replace(holds);
        }
        let mut bytes = Vec::new();
        for line in lines {
            text::encode(line, &mut bytes);
        }
        let written = self.file.seek(SeekFrom::Start(self.len)).and_then(|_| self.disk.write(&self.file, &bytes));
        if let Err(error) = written {
            self.suspect = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        if let Err(error) = self.disk.sync(&self.file) {
            // The kernel may call pages clean that it failed to write: only a new file says what is on disk.
            self.suspect = true;
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += bytes.len() as u64;
        for line in lines {
            self.holds.note(line);
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
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&successor)?;
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
        (self.file, self.holds, self.len) = (file, holds, bytes.len() as u64);
        self.long = SHORT.max(self.len * 2);
        // Until the name is on disk a crash brings the old file back, without what is written to the new one.
        self.suspect = true;
        sync_folder(&self.path, self.disk.as_ref())?;
        self.suspect = false;
        Ok(())
    }

    fn shorten(&mut self) {
        if let Err(error) = self.replace(self.holds.clone()) {
            tracing::warn!(%error, path = %self.path.display(), "the journal has grown and could not be shortened; it goes on");
            self.long = self.len + SHORT;
        }
    }
}

fn answer(replies: impl IntoIterator<Item = Reply>, result: &io::Result<()>) {
    for reply in replies {
        let copy = result.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string())).copied();
        // Who no longer waits has taken nothing back.
        let _ = reply.send(copy);
    }
}
