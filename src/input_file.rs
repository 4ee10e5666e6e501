//! Reads the files that an operator names. Only regular files, and only up to a limit: a FIFO would
//! block for ever, and a device has no end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::units::show_size;

/// The largest `proxy.toml`, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 256 * 1024;
/// The largest file with a token, in bytes.
pub const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// The largest file with certificates, in bytes.
pub const MAX_CA_BYTES: u64 = 1024 * 1024;

/// Reads a regular file of at most `max` bytes. Links are followed.
///
/// # Errors
/// When it cannot be read, is no regular file, or is larger.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    // Files such as those of /proc give their length as 0, so the length is not believed.
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let why = format!("it is larger than {}", show_size(max));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The same for a text.
///
/// # Errors
/// Those of [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read(path, max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Opens a regular file for reading. What was opened is looked at, not the name, which may lead
/// elsewhere a moment later.
fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO without a writer would block. A regular file does not heed the flag.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_has_no_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let link = folder.path().join("link");
        symlink("/dev/zero", &link).unwrap();
        for path in [&fifo, &link, Path::new("/dev/zero"), folder.path()] {
            let error = read(path, 10).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink("file", &link).unwrap();
        std::fs::write(&path, [b'a'; 10]).unwrap();
        assert_eq!(read(&link, 10).unwrap(), [b'a'; 10]);
        assert_eq!(read(&link, 9).unwrap_err().to_string(), "it is larger than 9B");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().to_string(), "it is not UTF-8");
    }
}
