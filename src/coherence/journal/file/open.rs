//! Opens a journal file: locks it, and reads it whatever state a crash has left it in.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use crate::coherence::journal::{Journal, JournalLine, text};
use crate::error::SetupError;

/// Tags are private: only the sidecar's user may read the file.
pub const FILE_MODE: u32 = 0o600;

/// How often the owner may replace the file while it is being opened.
const MAX_OPEN_ATTEMPTS: usize = 8;

/// SECURITY: a link could lead to a file of somebody else, which would be changed.
const IS_A_LINK: &str = "it is a link, and links are not followed; name the file itself";

/// An open and locked file whose first `len` bytes are valid.
pub struct OpenJournal {
    pub file: File,
    pub path: PathBuf,
    pub journal: Journal,
    pub len: u64,
    pub broken: bool,
}

/// The error that the journal cannot be used.
pub fn unusable(path: &Path, why: String) -> SetupError {
    SetupError { what: format!("the journal {}", path.display()), why }
}

/// Opens or creates the file, locks it, and reads it.
pub fn open(path: &Path, disk: &dyn Disk) -> Result<OpenJournal, SetupError> {
    let failed = |error: io::Error| {
        unusable(
            path,
            format!(
                "{error}; [redis] journal must name a file that this user can read and write, in \
                a folder that exists"
            ),
        )
    };
    let file = open_locked(path, failed)?;
    // Links to the folder may be turned elsewhere later.
    let path = fs::canonicalize(path).map_err(failed)?;
    // Nothing of the file is changed before it is known to be a journal.
    let mut opened = read(file, &path, failed)?;
    let permissions = opened.file.metadata().map_err(failed)?.permissions();
    if permissions.mode() & 0o077 != 0
        && let Err(error) = opened.file.set_permissions(Permissions::from_mode(FILE_MODE))
    {
        tracing::warn!(
            %error,
            path = %path.display(),
            "other users can read the journal, and its permissions cannot be changed"
        );
    }
    if opened.len == 0 {
        opened.file.set_len(0).map_err(failed)?;
        opened.file.rewind().map_err(failed)?;
        disk.write(&opened.file, text::HEADER.as_bytes()).map_err(failed)?;
        opened.len = text::HEADER.len() as u64;
    } else {
        opened.file.set_len(opened.len).map_err(failed)?;
    }
    disk.sync(&opened.file).and_then(|()| sync_folder(&path, disk)).map_err(failed)?;
    Ok(opened)
}

/// Returns when the names in the file's folder are on disk.
pub fn sync_folder(path: &Path, disk: &dyn Disk) -> io::Result<()> {
    disk.sync(&File::open(path.parent().unwrap_or(Path::new(".")))?)
}

fn open_locked(path: &Path, failed: impl Fn(io::Error) -> SetupError) -> Result<File, SetupError> {
    for _ in 0..MAX_OPEN_ATTEMPTS {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP) => unusable(path, IS_A_LINK.to_owned()),
                _ => failed(error),
            })?;
        let own = file.metadata().map_err(&failed)?;
        if !own.is_file() {
            return Err(unusable(
                path,
                "it is not a regular file; name one that does not exist yet".to_owned(),
            ));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(unusable(
                    path,
                    "another sidecar uses it; give each sidecar a journal of its own".to_owned(),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The owner may have replaced the file between opening and locking.
        if fs::symlink_metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()))
        {
            return Ok(file);
        }
    }
    Err(unusable(
        path,
        "it is being replaced repeatedly; give each sidecar a journal of its own".to_owned(),
    ))
}

/// Reads the lines of a file, without changing it.
fn read(
    file: File,
    path: &Path,
    failed: impl Fn(io::Error) -> SetupError,
) -> Result<OpenJournal, SetupError> {
    let mut journal = Journal::default();
    let mut reader = BufReader::new(&file);
    let mut buffer = Vec::new();
    reader.by_ref().take(text::HEADER.len() as u64).read_to_end(&mut buffer).map_err(&failed)?;
    if buffer != text::HEADER.as_bytes() {
        // An unfinished first line: nothing can have been recorded after it.
        if text::HEADER.as_bytes().starts_with(&buffer) {
            return Ok(OpenJournal { path: path.to_owned(), journal, len: 0, broken: false, file });
        }
        let why = if buffer.starts_with(text::HEADER_PREFIX.as_bytes()) {
            "another version wrote it; run that version once more with Redis, so that it is \
             replayed, or move the file away"
        } else {
            "it is not a journal; name another file, or move this one away"
        };
        return Err(unusable(path, why.to_owned()));
    }
    let (mut len, mut broken) = (buffer.len() as u64, 0_usize);
    loop {
        buffer.clear();
        let read = reader
            .by_ref()
            .take(text::MAX_LINE_BYTES as u64)
            .read_until(b'\n', &mut buffer)
            .map_err(&failed)?;
        if read == 0 {
            break;
        }
        let whole = buffer.last() == Some(&b'\n');
        if !whole && read < text::MAX_LINE_BYTES {
            tracing::warn!(
                path = %path.display(),
                bytes = read,
                "the last line of the journal was not finished, and is dropped"
            );
            break;
        }
        len += read as u64;
        match text::decode(buffer.strip_suffix(b"\n").unwrap_or(&buffer)) {
            Some(line) => journal.apply(&line),
            None => broken += 1,
        }
    }
    if broken > 0 {
        tracing::warn!(
            path = %path.display(),
            lines = broken,
            "lines of the journal cannot be read; the whole cache will be purged"
        );
        journal.apply(&JournalLine::Everything);
    }
    drop(reader);
    Ok(OpenJournal { path: path.to_owned(), journal, len, broken: broken > 0, file })
}
