//! What the journal file guarantees: on real files, and on a disk that fails on demand.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::tests::{Left, intend, left_by, names, purge, withdraw};
use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn opened(path: &Path) -> (JournalFile, Vec<JournalLine>) {
    JournalFile::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// A sync that has not come after this time will not come.
const LONG_ENOUGH: std::time::Duration = std::time::Duration::from_secs(10);

/// What a sidecar that starts now replays.
fn left_in(path: &Path) -> Left {
    left_by(&opened(path).1)
}

/// Sends when a sync arrives, and receives when the sync may go on.
type HeldTags = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// A disk that counts its syncs, and can be full, fail to sync, or be held at a sync.
#[derive(Clone, Default)]
struct Staged {
    full: Arc<AtomicBool>,
    unsynced: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
    hold: Arc<Mutex<Option<HeldTags>>>,
}

impl Disk for Staged {
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(SeqCst) {
            // As on a disk that fills up, a part is written.
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return RealDisk.write(&OpenOptions::new().write(true).open("/dev/full")?, bytes);
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        if let Some((arrived, go_on)) = self.hold.lock().take() {
            arrived.send(()).unwrap();
            go_on.recv().unwrap();
        }
        if self.unsynced.load(SeqCst) {
            Err(io::Error::other("the disk is broken"))
        } else {
            RealDisk.sync(file)
        }
    }
}

impl Staged {
    fn hold_the_next_sync(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (arrived, at_sync) = mpsc::channel();
        let (go_on, held) = mpsc::channel();
        *self.hold.lock() = Some((arrived, held));
        (at_sync, go_on)
    }

    fn open(&self, path: &Path) -> JournalFile {
        JournalFile::open_on(path, Box::new(self.clone()))
            .unwrap_or_else(|error| panic!("{error}"))
            .0
    }
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_new_start() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, lines) = opened(&path);
    assert_eq!(lines, []);
    for line in
        [intend("1", &["a \n%"]), intend("2", &["b"]), withdraw("2"), purge(&["", "\u{e4}"])]
    {
        log.append(line).await.unwrap();
    }
    // A copy of the file is what a SIGKILL would leave: no code runs at the end.
    std::fs::copy(&path, folder.path().join("copy")).unwrap();
    assert_eq!(left_in(&folder.path().join("copy")), names(&["", "a \n%", "\u{e4}"]));
    log.rewrite(vec![purge(&["c"])]).await.unwrap();
    log.append(purge(&["d"])).await.unwrap();
    drop(log);
    assert_eq!(left_in(&path), names(&["c", "d"]));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no other file is left");
}

#[tokio::test]
async fn order_is_that_of_the_calls_and_a_dropped_future_takes_nothing_back() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, _) = opened(&path);
    let first = log.append(purge(&["before"]));
    let second = log.rewrite(vec![purge(&["kept"])]);
    drop(log.append(purge(&["after"])));
    second.await.unwrap();
    first.await.unwrap();
    drop(log);
    assert_eq!(left_in(&path), names(&["after", "kept"]));
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_loses_nothing_recorded_before_it() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, _) = opened(&path);
    let mut ends = vec![std::fs::metadata(&path).unwrap().len()];
    for name in ["a", "b", "c"] {
        log.append(purge(&[name])).await.unwrap();
        ends.push(std::fs::metadata(&path).unwrap().len());
    }
    drop(log);
    let bytes = std::fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
        let (log, lines) = opened(&path);
        assert_eq!(left_by(&lines), names(&["a", "b", "c"][..whole]), "cut at {cut}");
        log.append(purge(&["z"])).await.unwrap();
        drop(log);
        assert_eq!(
            left_in(&path),
            names(&[&["a", "b", "c"][..whole], &["z"]].concat()),
            "appended after a cut at {cut}"
        );
    }
}

#[tokio::test]
async fn a_broken_line_in_the_middle_means_everything_until_it_is_replayed() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, _) = opened(&path);
    for name in ["aaaa", "bbbb", "cccc"] {
        log.append(purge(&[name])).await.unwrap();
    }
    drop(log);
    let text = std::fs::read_to_string(&path).unwrap().replace("bbbb", "bbxb");
    std::fs::write(&path, text).unwrap();
    assert_eq!(left_in(&path), Left::Everything);
    let (log, lines) = opened(&path);
    assert_eq!(left_by(&lines), Left::Everything, "opening the file repairs nothing");
    log.append(purge(&["d"])).await.unwrap();
    drop(log);
    assert!(
        !std::fs::read_to_string(&path).unwrap().contains("bbxb"),
        "the first line goes into a clean file"
    );
    let (log, lines) = opened(&path);
    assert_eq!(left_by(&lines), Left::Everything);
    log.rewrite(Vec::new()).await.unwrap();
    drop(log);
    assert_eq!(left_in(&path), names(&[]));
}

#[tokio::test]
async fn a_second_opener_is_refused_before_and_after_the_file_is_replaced() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, _) = opened(&path);
    let refused =
        || JournalFile::open(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused().contains("another sidecar uses it"), "{}", refused());
    log.rewrite(vec![purge(&["a"])]).await.unwrap();
    assert!(refused().contains("another sidecar uses it"), "{}", refused());
    drop(log);
    assert_eq!(left_in(&path), names(&["a"]));
}

#[test]
fn what_is_no_journal_is_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("journal");
    for (content, why) in [
        ("upstream = 1\n", "is not a journal"),
        ("sidecache-journal 10\n", "another version"),
        ("sidecache-journal 2\nx", "another version"),
        ("\n", "is not a journal"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = JournalFile::open(&path).expect_err(content).to_string();
        assert!(error.contains(why) && error.contains("away"), "{content:?}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    assert!(JournalFile::open(folder.path()).is_err(), "a folder");
    assert!(
        JournalFile::open(Path::new("/dev/null"))
            .expect_err("a device")
            .to_string()
            .contains("regular file")
    );
    let lost = folder.path().join("none/journal");
    assert!(
        JournalFile::open(&lost)
            .expect_err("no folder")
            .to_string()
            .contains("in a folder that exists")
    );
}

#[test]
fn a_link_is_refused_and_what_it_names_stays_as_it_is() {
    let folder = folder();
    let (path, link) = (folder.path().join("journal"), folder.path().join("link"));
    for content in ["", "something else\n"] {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = JournalFile::open(&link).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("it is a link"), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    // Nor is a file changed by a link that leads nowhere yet.
    std::fs::remove_file(&path).unwrap();
    assert!(JournalFile::open(&link).is_err());
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_journal_stays_as_it_is() {
    let folder = folder();
    let path = folder.path().join("journal");
    std::fs::write(&path, "something else\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(JournalFile::open(&path).is_err());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[tokio::test]
async fn others_may_not_read_a_journal() {
    let folder = folder();
    let path = folder.path().join("journal");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (log, _) = opened(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    log.rewrite(vec![purge(&["a"])]).await.unwrap();
    drop(log);
    assert_eq!(left_in(&path), names(&["a"]));
}

#[tokio::test]
async fn a_hundred_lines_that_wait_share_one_sync() {
    let folder = folder();
    let disk = Staged::default();
    let log = disk.open(&folder.path().join("journal"));
    let (at_sync, go_on) = disk.hold_the_next_sync();
    let before = disk.syncs.load(SeqCst);
    let first = log.append(purge(&["first"]));
    at_sync.recv_timeout(LONG_ENOUGH).unwrap();
    let others: Vec<_> = (0..100).map(|number| log.append(purge(&[&number.to_string()]))).collect();
    go_on.send(()).unwrap();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(disk.syncs.load(SeqCst) - before, 2, "one for the first, one for all others");
}

#[tokio::test]
async fn an_append_does_not_end_before_its_sync() {
    let folder = folder();
    let disk = Staged::default();
    let log = disk.open(&folder.path().join("journal"));
    let (at_sync, go_on) = disk.hold_the_next_sync();
    let append = tokio::spawn(log.append(purge(&["a"])));
    tokio::task::spawn_blocking(move || at_sync.recv_timeout(LONG_ENOUGH).unwrap()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!append.is_finished());
    go_on.send(()).unwrap();
    append.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_log_goes_on_when_there_is_room_again() {
    let folder = folder();
    let path = folder.path().join("journal");
    let disk = Staged::default();
    let log = disk.open(&path);
    log.append(purge(&["a"])).await.unwrap();
    disk.full.store(true, SeqCst);
    for _ in 0..3 {
        assert_eq!(
            log.append(purge(&["lost"])).await.unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
    }
    assert_eq!(
        log.rewrite(vec![purge(&["new"])]).await.unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "a failed successor takes no space"
    );
    disk.full.store(false, SeqCst);
    log.append(purge(&["b"])).await.unwrap();
    drop(log);
    assert_eq!(left_in(&path), names(&["a", "b"]));
}

#[tokio::test]
async fn after_a_failed_sync_the_next_line_goes_into_a_new_file() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = folder();
    let path = folder.path().join("journal");
    let disk = Staged::default();
    let log = disk.open(&path);
    log.append(purge(&["a"])).await.unwrap();
    // Kept open, so that its inode number is not given to the next file.
    let old = File::open(&path).unwrap().metadata().unwrap().ino();
    let kept_open = File::open(&path).unwrap();
    disk.unsynced.store(true, SeqCst);
    log.append(purge(&["lost"])).await.unwrap_err();
    log.append(purge(&["lost"])).await.unwrap_err();
    disk.unsynced.store(false, SeqCst);
    log.append(purge(&["b"])).await.unwrap();
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), old);
    drop((log, kept_open));
    assert_eq!(left_in(&path), names(&["a", "b"]));
}

#[tokio::test]
async fn the_file_does_not_outgrow_what_it_holds() {
    let folder = folder();
    let path = folder.path().join("journal");
    let disk = Staged::default();
    let log = disk.open(&path);
    let filler = "x".repeat(200);
    log.append(intend("open", &["still under way"])).await.unwrap();
    let mut written = 0;
    while written < 4 * writer::MIN_REWRITE_BYTES {
        let waiting: Vec<_> = (0..1000)
            .map(|number| log.append(purge(&[&format!("{filler}{}", number % 10)])))
            .collect();
        for append in waiting {
            append.await.unwrap();
            written += filler.len() as u64;
        }
    }
    drop(log);
    let length = std::fs::metadata(&path).unwrap().len();
    // One group may be written before the length is checked.
    assert!(length < writer::MIN_REWRITE_BYTES + 1000 * 300, "{length} bytes after {written}");
    assert!(
        matches!(left_in(&path), Left::Tags(names) if names.len() == 11),
        "ten tags, and the mutation in progress"
    );
}

#[tokio::test]
async fn a_line_that_no_file_can_hold_is_everything() {
    let folder = folder();
    let path = folder.path().join("journal");
    let (log, _) = opened(&path);
    let tags = (0..60_000)
        .map(|number| crate::policy::tag::Tag::new(&format!("{number:0>100}")))
        .collect();
    log.append(JournalLine::Purge { tags }).await.unwrap();
    drop(log);
    assert!(std::fs::metadata(&path).unwrap().len() < 1000);
    assert_eq!(left_in(&path), Left::Everything);
}

#[test]
fn garbage_behind_the_first_line_is_read_in_bounds_and_means_everything() {
    let folder = folder();
    let path = folder.path().join("journal");
    let mut file = File::create(&path).unwrap();
    file.write_all(text::HEADER.as_bytes()).unwrap();
    file.write_all(&vec![0; text::MAX_LINE_BYTES + 10]).unwrap();
    drop(file);
    assert_eq!(left_in(&path), Left::Everything);
}

#[tokio::test]
async fn too_many_lines_that_wait_are_refused() {
    let folder = folder();
    let disk = Staged::default();
    let log = disk.open(&folder.path().join("journal"));
    let (at_sync, go_on) = disk.hold_the_next_sync();
    let first = log.append(purge(&["first"]));
    at_sync.recv_timeout(LONG_ENOUGH).unwrap();
    let waiting: Vec<_> = (0..MAX_QUEUED).map(|_| log.append(purge(&["a"]))).collect();
    let refused = log.append(purge(&["b"])).now_or_never().expect("no wait for the disk");
    assert!(refused.unwrap_err().to_string().contains("too many"));
    go_on.send(()).unwrap();
    first.await.unwrap();
    for append in waiting {
        append.await.unwrap();
    }
    log.append(purge(&["c"])).await.unwrap();
}
