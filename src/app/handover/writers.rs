//! Which processes of this sidecar may still answer writes: each holds the lock of a file of its
//! own in the folder.
//!
//! Invariants:
//! - A file has its name only while it is locked, or once its process is done or dead: it is locked
//!   before it gets the name.
//! - Whoever can lock the file of another process removes it.
//! - Processes that share the same Redis do not wait for each other: the kind is a part of the
//!   name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::folder::HandoverFolder;
use crate::redis::RedisSettings;

const PREFIX: &str = "writes-";
/// The kind of a process whose truth is its own table.
const LOCAL: &str = "local";

/// The lock of this process. Dropping it says that its last write was answered.
#[derive(Debug)]
pub(crate) struct WriterLock {
    folder: HandoverFolder,
    path: PathBuf,
    kind: String,
    _file: File,
}

impl WriterLock {
    /// Locks a file for this process.
    pub(crate) fn new(folder: &HandoverFolder, redis: Option<&RedisSettings>) -> io::Result<Self> {
        let kind = kind(redis);
        let name = format!("{PREFIX}{kind}-{:016x}", rand::random::<u64>());
        let path = folder.path().join(&name);
        let new = folder.path().join(format!("new-{name}"));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let file = match create() {
            // The process before has removed the folder as it ended. With a file in it, it stays.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.renew()?;
                create()?
            }
            created => created?,
        };
        file.try_lock().map_err(io::Error::from)?;
        fs::rename(&new, &path)?;
        Ok(Self { folder: folder.clone(), path, kind, _file: file })
    }

    /// What tells of the others, once this lock is gone.
    pub(crate) fn others(&self) -> OtherWriters {
        let Self { folder, path, kind, .. } = self;
        OtherWriters { folder: folder.clone(), own: path.clone(), kind: kind.clone() }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The other processes.
#[derive(Debug)]
pub(crate) struct OtherWriters {
    folder: HandoverFolder,
    own: PathBuf,
    kind: String,
}

impl OtherWriters {
    /// How many others may still answer writes that this process does not learn of.
    pub(crate) fn unseen(&self) -> io::Result<usize> {
        self.count(|kind| kind == LOCAL || kind != self.kind)
    }

    /// How many others may still answer writes.
    pub(crate) fn all(&self) -> io::Result<usize> {
        self.count(|_| true)
    }

    fn count(&self, counts: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let kind = rest.rsplit_once('-').map_or(LOCAL, |(kind, _)| kind);
            if path == self.own || !counts(kind) {
                continue;
            }
            match OpenOptions::new().write(true).open(&path) {
                // It is gone by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(file) => match file.try_lock() {
                    Ok(()) => drop(fs::remove_file(&path)),
                    Err(TryLockError::WouldBlock) => count += 1,
                    Err(TryLockError::Error(error)) => return Err(error),
                },
            }
        }
        Ok(count)
    }
}

fn kind(redis: Option<&RedisSettings>) -> String {
    let Some(redis) = redis else { return LOCAL.to_owned() };
    let place = format!("{:?} {:?} {}", redis.address, redis.database, redis.namespace);
    let digest = Sha256::digest(place.as_bytes());
    let short = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("redis.{}", short.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_others_until_they_are_done_or_dead() {
        let folder =
            HandoverFolder::open(&format!("of process {}", std::process::id())).expect("a folder");
        let one = WriterLock::new(&folder, None).expect("a lock");
        assert_eq!(one.others().unseen().ok(), Some(0));
        let two = WriterLock::new(&folder, None).expect("a lock");
        let three = WriterLock::new(&folder, None).expect("a lock");
        assert_eq!(two.others().unseen().ok(), Some(2));
        drop(one);
        assert_eq!(two.others().unseen().ok(), Some(1));
        // A process that dies leaves its file behind, unlocked.
        let left = folder.path().join("writes-local-dead");
        fs::write(&left, "").expect("a file");
        assert_eq!(two.others().unseen().ok(), Some(1));
        assert!(!left.exists());
        drop((two, three));
        folder.remove_if_empty();
        assert!(!folder.path().exists());
    }

    #[test]
    fn r843_a_process_that_ends_meanwhile_may_remove_the_folder() {
        let folder =
            HandoverFolder::open(&format!("gone of {}", std::process::id())).expect("a folder");
        folder.remove_if_empty();
        assert!(!folder.path().exists());
        let lock = WriterLock::new(&folder, None).expect("a lock");
        assert_eq!(lock.others().all().ok(), Some(0));
        drop(lock);
        folder.remove_if_empty();
    }
}
