//! A file that is looked at now and then: when its time or its size changes, or another file has
//! its name, everything that the source can name may have changed. That there is none is a state,
//! too.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::listener::SourceListener;
use super::settings::FileSettings;

/// What is looked at: device and number, time, and size.
type FileMark = (u64, u64, i64, i64, u64);

/// Looks until that fails, and says why it did.
pub(super) async fn listen(settings: &FileSettings, listener: &SourceListener) -> String {
    let mut known = None;
    loop {
        let mark = match mark(&settings.path).await {
            Ok(mark) => mark,
            Err(error) => return format!("it cannot be looked at: {error}"),
        };
        // What has changed before the first look is a gap, and purged as such.
        if known.is_some_and(|known| known != mark) {
            listener.told_of_all();
        }
        known = Some(mark);
        listener.heard();
        tokio::time::sleep(settings.every).await;
    }
}

async fn mark(path: &Path) -> io::Result<Option<FileMark>> {
    match tokio::fs::metadata(path).await {
        Ok(file) => {
            Ok(Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
