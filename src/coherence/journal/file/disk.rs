//! The disk operations that can fail, as a trait, so that tests can make them fail.

use std::fs::File;
use std::io::{self, Write as _};

/// Writes and syncs files.
pub trait Disk: Send {
    /// Writes all bytes at the current position of the file.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Returns when the contents of the file, or the names in the folder, are on disk.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real disk.
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        // This syncs the length too; timestamps do not matter.
        file.sync_data()
    }
}
