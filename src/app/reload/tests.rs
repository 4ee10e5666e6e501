//! Where the work of a reload is done, and when.

use std::sync::mpsc;

use tokio::task::yield_now;

use super::*;
use crate::app::Sidecar;
use crate::clock::Clock;

const TEXT: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n";

fn text() -> CheckedText {
    CheckedText { text: TEXT.to_owned(), included: None }
}

fn reloader() -> Arc<Reloader> {
    let mut config = Config::parse(TEXT, "proxy.toml", &|_| None).unwrap();
    Sidecar::new(&mut config, Clock::system()).unwrap().reloader
}

#[tokio::test]
async fn a_check_that_blocks_does_not_block_others() {
    let reloader = reloader();
    let (locked, is_locked) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    let locking = Arc::clone(&reloader);
    let holder = std::thread::spawn(move || {
        let current = locking.current.lock();
        locked.send(()).unwrap();
        // Ends by itself, so that a check on this very thread fails the test and does not hang it.
        let released = is_released.recv_timeout(Duration::from_secs(5)).is_ok();
        drop(current);
        released
    });
    is_locked.recv().unwrap();
    let checking = tokio::spawn(AdminReload(Arc::clone(&reloader)).check(text()));
    // The only worker is free for this task while the check is at work.
    while reloader.turn.try_lock().is_ok() {
        yield_now().await;
    }
    assert!(!checking.is_finished());
    release.send(()).unwrap();
    assert!(checking.await.unwrap().ok);
    assert!(holder.join().unwrap(), "the check held the worker");
}

#[tokio::test]
async fn checks_and_reloads_take_turns() {
    let reloader = reloader();
    let turn = Arc::clone(&reloader.turn).lock_owned().await;
    let checking = tokio::spawn(AdminReload(Arc::clone(&reloader)).check(text()));
    let reloading = tokio::spawn(AdminReload(Arc::clone(&reloader)).reload());
    let early = tokio::time::sleep(Duration::from_millis(100));
    early.await;
    assert!(!checking.is_finished() && !reloading.is_finished());
    drop(turn);
    assert!(checking.await.unwrap().ok);
    assert!(!reloading.await.unwrap().ok, "it was started without a file");
}
