//! What of a disk can fail, so that tests can make it fail.

use std::fs::File;
use std::io::{self, Write as _};

/// Writing and syncing.
pub trait Disk: Send {
    /// Writes all of it where the file stands.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Returns when the file's content is on disk; a folder's, when it is a folder.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The machine's.
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        // The length goes with it; the times need not.
        file.sync_data()
    }
}
