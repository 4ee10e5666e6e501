//! The file of a snapshot: taken away when it is read, and put in place whole when it is written.
//!
//! Invariants:
//! - A snapshot is read at most once: its name is gone from the disk before this returns it.
//! - A reader sees a whole file or none: it is written under another name, synced, and renamed.
//!   That name is locked by the one process that writes; no other one renames it.
//! - What is no snapshot is left as it is, and never replaced.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::cache::snapshot::format::MAGIC;
use crate::cache::snapshot::{SnapshotError, SnapshotRefusal};
use crate::units::show_size;

/// SECURITY: bodies and keys are private, so only the sidecar's user may read the file.
const FILE_MODE: u32 = 0o600;

/// What is appended to the name of a file that is being written.
const UNFINISHED: &str = ".unfinished";

/// How often other processes may be in the way.
const MAX_ATTEMPTS: usize = 8;

/// A snapshot that nobody else can read any more.
#[derive(Debug)]
pub(super) struct TakenFile {
    pub(super) file: File,
    pub(super) length: u64,
}

/// Takes a snapshot of at most `max` bytes off the disk; none if there is none. Whatever is wrong
/// with it, a snapshot is gone afterwards.
pub(super) fn take(path: &Path, max: u64) -> Result<Option<TakenFile>, SnapshotError> {
    // This also removes what a writer has left that was killed, and shows whose files are ours.
    let probe = UnfinishedFile::create(path)?;
    let owner = probe.file.metadata()?.uid();
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(SnapshotError::new(SnapshotRefusal::Unsafe, IS_A_LINK));
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if let Some(why) = unsafe_because(&metadata, owner) {
        return Err(SnapshotError::new(SnapshotRefusal::Unsafe, why));
    }
    if !is_snapshot(&mut file)? {
        return Err(SnapshotError::new(SnapshotRefusal::Foreign, NO_SNAPSHOT));
    }
    fs::remove_file(path)?;
    sync_folder(path)?;
    let length = metadata.len();
    if length > max {
        let why = format!("it has {}; raise [memory] snapshot_size", show_size(length));
        return Err(SnapshotError::new(SnapshotRefusal::TooLarge, why));
    }
    file.rewind()?;
    Ok(Some(TakenFile { file, length }))
}

const IS_A_LINK: &str = "it is a link, and links are not followed; name the file itself";
const NO_SNAPSHOT: &str = "it is no snapshot, and is left as it is; name another file";

/// Why nobody should rely on this file, if so.
fn unsafe_because(metadata: &Metadata, owner: u32) -> Option<&'static str> {
    if !metadata.is_file() {
        Some("it is not a regular file; name another one")
    } else if metadata.uid() != owner {
        Some("it belongs to another user; remove it")
    } else if metadata.mode() & 0o077 != 0 {
        Some("other users may read or change it (its mode must be 0600); remove it")
    } else if metadata.nlink() != 1 {
        Some("it has more than one name; remove it")
    } else {
        None
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO without a writer would block. A regular file does not heed that flag.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn is_snapshot(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::with_capacity(MAGIC.len());
    file.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    Ok(magic == MAGIC)
}

/// Returns when the names in the file's folder are on disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// A file that is being written, under a name of its own. Dropping it removes it.
#[derive(Debug)]
pub(super) struct UnfinishedFile {
    pub(super) file: File,
    name: Option<PathBuf>,
    target: PathBuf,
}

impl UnfinishedFile {
    /// An empty file beside `path`, which this process alone writes.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(UNFINISHED);
        let name = PathBuf::from(name);
        for _ in 0..MAX_ATTEMPTS {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(FILE_MODE);
            match options.custom_flags(libc::O_NOFOLLOW).open(&name) {
                Ok(file) => {
                    lock(&file)?;
                    return Ok(Self { file, name: Some(name), target: path.to_owned() });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_leftover(&name)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(busy())
    }

    /// Gives the file its name, once all of it is on disk.
    pub(super) fn finish(mut self) -> Result<(), SnapshotError> {
        self.file.sync_all()?;
        if let Err(error) = replaceable(&self.target) {
            return Err(SnapshotError::new(SnapshotRefusal::Foreign, error));
        }
        if let Some(name) = self.name.take() {
            fs::rename(&name, &self.target).inspect_err(|_| drop(fs::remove_file(&name)))?;
        }
        Ok(sync_folder(&self.target)?)
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = fs::remove_file(name);
        }
    }
}

/// Removes what a process has left under this name that was killed. The lock is held until the name
/// is gone, so that nobody removes what another process has made since.
fn remove_leftover(name: &Path) -> io::Result<()> {
    let file = match open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    lock(&file)?;
    let own = file.metadata()?;
    match fs::symlink_metadata(name) {
        Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => fs::remove_file(name),
        _ => Ok(()),
    }
}

fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn busy() -> io::Error {
    let why = "another sidecar is using it; give each sidecar a snapshot of its own";
    io::Error::new(io::ErrorKind::ResourceBusy, why)
}

/// Why a snapshot may not take this name, if so.
fn replaceable(target: &Path) -> Result<(), String> {
    match open(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err(IS_A_LINK.to_owned()),
        Err(error) => Err(error.to_string()),
        Ok(mut file) => match is_snapshot(&mut file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(NO_SNAPSHOT.to_owned()),
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    const CONTENT: &[u8] = b"SCMEM and more";

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        (folder, path)
    }

    fn put(path: &Path, content: &[u8]) {
        let mut unfinished = UnfinishedFile::create(path).unwrap();
        unfinished.file.write_all(content).unwrap();
        unfinished.finish().unwrap();
    }

    fn taken(path: &Path) -> Result<Option<Vec<u8>>, SnapshotRefusal> {
        let taken = take(path, 100).map_err(|error| error.refusal)?;
        Ok(taken.map(|mut taken| {
            let mut content = Vec::new();
            taken.file.read_to_end(&mut content).unwrap();
            assert_eq!(content.len() as u64, taken.length);
            content
        }))
    }

    fn names(folder: &TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn a_snapshot_is_private_and_is_read_once() {
        let (folder, path) = folder();
        assert_eq!(taken(&path), Ok(None));
        put(&path, CONTENT);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        put(&path, CONTENT);
        assert_eq!(names(&folder), 1, "the newer one has replaced the other");
        assert_eq!(taken(&path), Ok(Some(CONTENT.to_vec())));
        assert_eq!((taken(&path), names(&folder)), (Ok(None), 0));
    }

    #[test]
    fn what_is_too_large_is_gone_too() {
        let (folder, path) = folder();
        put(&path, &[CONTENT, &[0; 100]].concat());
        assert_eq!(taken(&path), Err(SnapshotRefusal::TooLarge));
        assert_eq!(names(&folder), 0);
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let (folder, path) = folder();
        let other = folder.path().join("other");
        let make = |how: &str| {
            let _ = (fs::remove_file(&path), fs::remove_dir(&path), fs::remove_file(&other));
            match how {
                "link" => {
                    put(&other, CONTENT);
                    symlink(&other, &path).unwrap();
                }
                "dangling link" => symlink(&other, &path).unwrap(),
                "two names" => {
                    put(&other, CONTENT);
                    fs::hard_link(&other, &path).unwrap();
                }
                "folder" => fs::create_dir(&path).unwrap(),
                "fifo" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
                }
                _ => {
                    put(&path, CONTENT);
                    let mode = u32::from_str_radix(how, 8).unwrap();
                    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                }
            }
        };
        for how in ["link", "dangling link", "two names", "folder", "fifo", "640", "602", "666"] {
            make(how);
            assert_eq!(taken(&path), Err(SnapshotRefusal::Unsafe), "{how}");
            assert!(path.symlink_metadata().is_ok(), "{how}: it is left as it is");
        }
        for how in ["link", "dangling link", "folder"] {
            make(how);
            let error = UnfinishedFile::create(&path).unwrap().finish().unwrap_err();
            assert_eq!(error.refusal, SnapshotRefusal::Foreign, "{how}");
            assert!(!path.with_extension("unfinished").exists());
        }
        make("link");
        assert_eq!(fs::read(&other).unwrap(), CONTENT);
    }

    #[test]
    fn a_file_of_another_kind_is_neither_read_nor_replaced() {
        let (folder, path) = folder();
        for content in [&b"precious"[..], b"SCME", b""] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(taken(&path), Err(SnapshotRefusal::Foreign));
            let unfinished = UnfinishedFile::create(&path).unwrap();
            assert_eq!(unfinished.finish().unwrap_err().refusal, SnapshotRefusal::Foreign);
            assert_eq!((fs::read(&path).unwrap(), names(&folder)), (content.to_vec(), 1));
        }
    }

    #[test]
    fn one_process_writes_at_a_time_and_what_a_killed_one_left_is_removed() {
        let (folder, path) = folder();
        put(&path, CONTENT);
        let writing = UnfinishedFile::create(&path).unwrap();
        assert_eq!(UnfinishedFile::create(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(taken(&path), Err(SnapshotRefusal::Disk), "it may be about to be replaced");
        drop(writing);
        assert_eq!(names(&folder), 1, "nothing is left of what was given up");
        let mut left = path.as_os_str().to_owned();
        left.push(UNFINISHED);
        fs::write(&left, "half of a private page").unwrap();
        assert_eq!(taken(&path), Ok(Some(CONTENT.to_vec())));
        assert_eq!(names(&folder), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error() {
        let (folder, _) = folder();
        for path in [folder.path().join("missing/snapshot"), PathBuf::from("/proc/snapshot")] {
            assert_eq!(take(&path, 100).unwrap_err().refusal, SnapshotRefusal::Disk);
        }
    }
}
