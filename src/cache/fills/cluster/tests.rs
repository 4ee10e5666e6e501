//! Tests of coalescing across sidecars that need no Redis.

use std::path::PathBuf;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::cache::fills::cluster::message::parse;
use crate::clock::Clock;
use crate::coherence::TagSnapshot;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::tag_record::{RecordSnapshot, TagRecord};
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::redis::{OnLoss, RedisAddress, RedisSettings, WritePolicy};

const A: FillName = FillName([0xab; 32]);
const B: FillName = FillName([0x01; 32]);

fn record(nonce: u8) -> TagRecord {
    TagRecord {
        nonce: Nonce([nonce; 16]),
        seal: None,
        seq: 1,
        fence: "f".into(),
        pending_until: None,
        guarded: false,
    }
}

fn reading(records: &[(&str, Option<TagRecord>)], seq: Option<u64>) -> RecordSnapshot {
    let records = records.iter().map(|(tag, record)| (Tag::new(tag), record.clone())).collect();
    RecordSnapshot {
        generation: Nonce([9; 16]),
        seq,
        records,
        refused: Vec::new(),
        fence: "f".into(),
        redis_ms: 0,
        latest_ms: 0,
    }
}

fn name(hash: u8, reading: RecordSnapshot) -> Option<FillName> {
    FillName::from_snapshot(KeyHash::of_byte(hash), &TagSnapshot::Shared(0, reading))
}

#[test]
fn a_fill_is_named_by_its_key_and_by_the_snapshot_of_its_tags() {
    let known =
        |nonce, seq| reading(&[("a", Some(record(nonce))), ("b", Some(record(2)))], Some(seq));
    let one = name(1, known(1, 5));
    assert!(one.is_some());
    assert_eq!(one, name(1, known(1, 6)), "a purge of something else");
    assert_ne!(one, name(1, known(3, 5)), "a purge of one of its tags");
    assert_ne!(one, name(2, known(1, 5)), "another key");
    let mut other = known(1, 5);
    other.generation = Nonce([8; 16]);
    assert_ne!(one, name(1, other), "everything was purged");
    let other = RecordSnapshot { fence: "g".into(), ..known(1, 5) };
    assert_ne!(one, name(1, other), "another primary, whose records are not these");
}

#[test]
fn a_fill_of_a_tag_without_a_record_is_named_by_the_purge_sequence() {
    let unknown = |seq| name(1, reading(&[("a", None)], seq));
    assert_eq!(unknown(Some(5)), unknown(Some(5)));
    assert_ne!(unknown(Some(5)), unknown(Some(6)), "the purge may have been of this tag");
    assert_eq!(unknown(None), None);
    assert_eq!(FillName::from_snapshot(KeyHash::of_byte(1), &TagSnapshot::Unverifiable), None);
}

#[test]
fn published_messages_are_parsed_and_no_others() {
    for outcome in RemoteOutcome::ALL {
        assert_eq!(parse(&message(A, outcome)), Some((A, outcome)));
    }
    let good = String::from_utf8(message(A, RemoteOutcome::Stored).to_vec()).expect("text");
    let bad = [
        String::new(),
        "x".into(),
        good.to_uppercase(),
        good.replace(' ', ""),
        format!("{good} "),
        good.replace("ab", "+f"),
        good.replace("stored", "best"),
    ];
    for bad in bad {
        assert_eq!(parse(bad.as_bytes()), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_message_causes_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn every_name_can_be_published(bytes: [u8; 32]) {
        prop_assert_eq!(
            parse(&message(FillName(bytes), RemoteOutcome::NotStored)),
            Some((FillName(bytes), RemoteOutcome::NotStored))
        );
    }
}

#[tokio::test]
async fn only_the_waiters_of_a_fill_are_woken_by_its_message() {
    let waiters = Arc::<Waiters>::default();
    let [mut one, mut two, mut other] = [A, A, B].map(|name| waiters.register(name));
    waiters.on_event(&BusEvent::Message(message(A, RemoteOutcome::Uncacheable)));
    assert_eq!((&mut one.outcome).await, Ok(RemoteOutcome::Uncacheable));
    assert_eq!((&mut two.outcome).await, Ok(RemoteOutcome::Uncacheable));
    assert!(
        other.outcome.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty)
    );
    drop((one, two, other));
    assert!(waiters.lock().is_empty(), "no waiter is left");
}

#[tokio::test]
async fn a_lag_wakes_all_waiters() {
    let waiters = Arc::<Waiters>::default();
    let [mut one, mut other] = [A, B].map(|name| waiters.register(name));
    waiters.on_event(&BusEvent::Lagged);
    assert!((&mut one.outcome).await.is_err());
    assert!((&mut other.outcome).await.is_err());
    assert!(waiters.lock().is_empty());
}

#[test]
fn a_dropped_waiter_is_unregistered_alone() {
    let waiters = Arc::<Waiters>::default();
    let [one, mut two] = [A, A].map(|name| waiters.register(name));
    drop(one);
    assert_eq!(waiters.lock()[&A].len(), 1);
    waiters.on_event(&BusEvent::Message(message(A, RemoteOutcome::Stored)));
    assert_eq!(two.outcome.try_recv(), Ok(RemoteOutcome::Stored));
    // Dropping a waiter does not unregister a newer one under the same name.
    let newer = waiters.register(A);
    drop(two);
    assert_eq!(waiters.lock()[&A].len(), 1);
    drop(newer);
    assert!(waiters.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_lock_would_expire() {
    let waiters = Arc::<Waiters>::default();
    let permits = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&permits).try_acquire_owned().expect("one");
    let waiting = FillWait {
        slot: waiters.register(A),
        remaining: Duration::from_millis(4_999),
        _permit: permit,
    };
    assert_eq!(waiting.finished().await, WaitOutcome::LockExpired);
    assert!(waiters.lock().is_empty());
    assert_eq!(permits.available_permits(), 1);
}

fn nowhere() -> RedisSettings {
    RedisSettings {
        address: RedisAddress::Unix(PathBuf::from("/nonexistent/redis.sock")),
        database: 0,
        username: None,
        password: None,
        ca_file: None,
        namespace: "test".to_owned(),
        deadline: Duration::from_millis(20),
        loss_after: Duration::from_millis(50),
        write_wait: Duration::from_millis(20),
        connections: 1,
        lease: Duration::from_secs(2),
        rejoin_grace: Duration::ZERO,
        on_redis_loss: OnLoss::Memory,
        degraded_ttl: Duration::ZERO,
        journal: None,
        writes: WritePolicy::Forward,
        wait_replicas: 0,
        secret: None,
        compress: None,
    }
}

#[tokio::test]
async fn without_redis_fills_take_no_lock() {
    let client = Arc::new(RedisClient::new(nowhere()).expect("a client needs no server"));
    let coherence =
        Arc::new(Coherence::new(Some(RecordStore::new(client, Clock::system())), Clock::system()));
    let fills = ClusterFills::new(coherence, 10, Duration::from_secs(5), TaskTracker::new())
        .expect("there is a client");
    assert!(!fills.is_listening());
    assert!(matches!(fills.lock_or_wait(A).await, LockOutcome::FillLocally));
    assert_eq!(fills.waiting(), 0);
    let alone = Arc::new(Coherence::new(None, Clock::system()));
    assert!(ClusterFills::new(alone, 10, Duration::from_secs(5), TaskTracker::new()).is_none());
}
