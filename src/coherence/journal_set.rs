//! The journals of the processes of one sidecar: a process that takes over needs a file while its
//! predecessor still has the one that the settings name.
//!
//! Invariants:
//! - The files are the one that the settings name, and those with `.2` to `.8` behind its name. A
//!   process has the first one that nobody has locked, for as long as it lives. Only one that
//!   starts beside its predecessor takes another than the first.
//! - No line of a process that has ended is lost: what it has left is replayed before Redis is
//!   trusted, and purged again by whoever removes its file (`adoption.rs`). The purge
//!   is in Redis, or in the own journal, before the file goes.

use std::fs::{self, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::coherence::journal::file::JournalFile;
use crate::coherence::journal::{Journal, JournalBatch};

/// How many processes can have a journal at once.
const MAX_FILES: u32 = 8;

/// The files, the one that the settings name first.
fn files(first: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let first = first.to_owned();
    (1..=MAX_FILES).map(move |number| {
        let mut name = first.clone().into_os_string();
        if number > 1 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    })
}

/// The first file that nobody has. The last one, if there is none: opening it tells why.
pub(super) fn first_free(first: &Path) -> PathBuf {
    files(first).find(|file| !is_in_use(file)).unwrap_or_else(|| first.to_owned())
}

/// The files of other processes.
pub(super) fn others(first: &Path, own: &Path) -> Vec<PathBuf> {
    files(first).filter(|file| file != own && fs::symlink_metadata(file).is_ok()).collect()
}

/// What a process that has ended has left in its file; the file stays, and is locked as long as it
/// is open. None where the process lives, or the file cannot be used.
pub(super) fn left_in(file: &Path) -> Option<(JournalFile, JournalBatch)> {
    if is_in_use(file) {
        return None;
    }
    match JournalFile::open(file) {
        Ok((opened, lines)) => Some((opened, Journal::recovered(&lines).batch())),
        Err(error) => {
            tracing::warn!(%error, "a journal of an earlier process cannot be read");
            None
        }
    }
}

fn is_in_use(file: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(file).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::coherence::journal::JournalLine;
    use crate::policy::tag::Tag;

    #[tokio::test]
    async fn each_process_has_a_file_and_what_a_dead_one_left_is_found() {
        let folder = TempDir::new().expect("a folder");
        let first = folder.path().join("journal");
        assert_eq!(first_free(&first), first);
        let (one, _) = JournalFile::open(&first).expect("a journal");
        let second = first_free(&first);
        assert_eq!(second, folder.path().join("journal.2"));
        let (_two, _) = JournalFile::open(&second).expect("a journal");
        assert_eq!(first_free(&first), folder.path().join("journal.3"));
        assert_eq!(others(&first, &second), std::slice::from_ref(&first));
        assert!(left_in(&first).is_none(), "its process lives");
        let tags = vec![Tag::new("a")];
        one.append(JournalLine::Purge { tags: tags.clone() }).await.expect("it is written");
        drop(one);
        let (opened, left) = left_in(&first).expect("its process has ended");
        assert_eq!(left.tags, tags);
        assert!(left_in(&first).is_none(), "it is being adopted");
        drop(opened);
    }
}
