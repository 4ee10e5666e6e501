//! A sidecar fails: it is stopped for longer than its lease, or dies between the app's commit and
//! the purge.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::{KEYS, SIDECARS, Stage};
use super::{LONG, STRICT};
use crate::support::Point;
use crate::support::history::Kind;

/// The sidecar that fails.
const VICTIM: usize = 2;

/// What a dead sidecar had begun is taken as committed within its lease and a second.
const ORPHANED: Duration = Duration::from_secs(3);

/// Stops a sidecar for longer than its lease, while the others are written to, and asks it as soon
/// as it goes on.
async fn stop_and_go_on(stage: &mut Stage, victim: usize) {
    // It knows all keys, on connections that are open: whatever it answers first, it could answer
    // from before.
    let mut askers: Vec<_> = (0..KEYS).map(|_| stage.client(victim)).collect();
    for (key, asker) in askers.iter_mut().enumerate() {
        asker.read(key).await;
    }
    stage.leave(victim);
    stage.sidecars[victim].signal("STOP");
    // Some ask while it is stopped: they wait for it to go on.
    let (late, early) = askers.split_at_mut(KEYS / 2);
    let waiting: Vec<_> = (0..KEYS).map(|key| (key, stage.client(victim))).collect();
    let waiting: Vec<_> = waiting
        .into_iter()
        .map(|(key, mut asker)| {
            tokio::spawn(async move {
                sleep(LONG / 3 * 2).await;
                asker.read(key).await;
            })
        })
        .collect();
    let early = early.iter_mut().enumerate().map(|(at, asker)| async move {
        sleep(LONG / 2).await;
        asker.read(KEYS / 2 + at).await;
    });
    let going_on = async {
        sleep(LONG).await;
        stage.sidecars[victim].signal("CONT");
        let late = late.iter_mut().enumerate().map(|(key, asker)| async move {
            for _ in 0..5 {
                asker.read(key).await;
            }
        });
        futures_util::future::join_all(late).await;
    };
    tokio::join!(futures_util::future::join_all(early), going_on);
    for waiting in waiting {
        waiting.await.expect("no reader panics");
    }
    stage.use_again(victim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_through_a_sidecar_that_was_stopped_for_longer_than_its_lease() {
    let fault = async |stage: &mut Stage| {
        for victim in 0..SIDECARS {
            stop_and_go_on(stage, victim).await;
        }
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_sidecar_left_unpurged_when_it_was_killed_is_fresh_a_lease_and_a_second_later() {
    let (rounds, hits_of_the_new, too_late) =
        (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let fault = async |stage: &mut Stage| {
        let key = format!("doomed-{}", rounds.fetch_add(1, Ordering::SeqCst));
        let others: Vec<_> = (0..SIDECARS).filter(|sidecar| *sidecar != VICTIM).collect();
        let mut askers: Vec<_> = others.iter().map(|sidecar| stage.client(*sidecar)).collect();
        // Both others have it: what they answer after the kill, they could answer from before.
        let mut warm = 0;
        for _ in 0..100 {
            warm = 0;
            for asker in &mut askers {
                warm += usize::from(asker.ask(Kind::Read, &key).await.hit);
            }
            if warm == askers.len() {
                break;
            }
        }
        assert_eq!(warm, askers.len(), "the key is cached by the others");

        let hold = stage.app.hold("PUT", &format!("/v/{key}"), Point::After);
        let mut writer = stage.client(VICTIM);
        let written = key.clone();
        let writing = tokio::spawn(async move { writer.ask(Kind::Write, &written).await });
        hold.arrived().await;
        // The app has committed; its answer has not left it.
        stage.leave(VICTIM);
        stage.sidecars[VICTIM].kill();
        let killed = Instant::now();
        hold.release();
        let write = writing.await.expect("the writer does not panic");
        assert_eq!(write.status, 0, "nobody was there to answer");

        let (mut stale, mut hits) = (Vec::new(), 0);
        while killed.elapsed() < ORPHANED + Duration::from_secs(2) {
            for asker in &mut askers {
                let read = asker.ask(Kind::Read, &key).await;
                hits += u64::from(read.hit && read.version == Some(1));
                if read.version != Some(1) {
                    stale.push((read.sent - killed, read));
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        let latest = stale.iter().map(|(after, _)| *after).max();
        println!(
            "{} reads after the kill saw the version before it, the last of them {latest:?} after \
            it",
            stale.len()
        );
        too_late.lock().unwrap().extend(stale.into_iter().filter(|(after, _)| *after > ORPHANED));
        // Otherwise it would be fresh because it was never cached again.
        hits_of_the_new.fetch_add(hits, Ordering::SeqCst);
        stage.sidecars[VICTIM].restart().await;
        stage.use_again(VICTIM);
    };
    let run = Stage::set(STRICT).await.run(fault).await;
    // What was under way through it when it died has no answer.
    run.is_coherent_but(
        |_, _| false,
        |one, round| {
            one.status == 0
                && one.through == VICTIM
                && round.broken <= one.done
                && one.sent < round.healed
        },
    );
    let too_late = too_late.into_inner().unwrap();
    let first: Vec<_> = too_late
        .iter()
        .take(5)
        .map(|(after, read)| format!("{after:?} after it through {} ({})", read.through, read.said))
        .collect();
    assert!(
        too_late.is_empty(),
        "{} reads were stale later than {ORPHANED:?} after the kill: {first:?}",
        too_late.len()
    );
    assert!(hits_of_the_new.into_inner() > 0, "the new version was never a hit");
}
