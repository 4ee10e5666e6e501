//! Tests of the core: one sidecar, with hand-written replies of Redis and messages on the bus.

mod mixed;
mod purge_waits;
mod stalls;

use super::*;
use crate::{coherence::message::PeerId, policy::tag::Tag};

const ME: Process = Process(1);
const OTHER: Process = Process(2);
const THIRD: Process = Process(3);

fn at(seconds: u64) -> MonotonicTime {
    MonotonicTime::from_secs(seconds)
}

/// A lease of ten seconds, renewed every four; peers wait twelve.
fn settings() -> LeaseSettings {
    LeaseSettings {
        lease: at(10),
        longest_lease: at(10),
        margin: at(2),
        heartbeat: at(4),
        retry: at(1),
        grace: at(5),
        // Events come when the tests want them; see `stalls` for late ones.
        stall: MonotonicTime::MAX,
        exposure: at(0),
        absence: at(0),
    }
}

fn registered(process: Process) -> RegisteredPeer {
    RegisteredPeer { peer: PeerId { process, incarnation: 0 }, evicted: false }
}

fn reply(registration: Registration, names: &[RegisteredPeer]) -> HeartbeatReply {
    HeartbeatReply { fence: "a".into(), registration, peers: names.to_vec(), is_mixed: false }
}

fn subscribers(names: &[RegisteredPeer], listeners: usize) -> Subscribers {
    Subscribers { peers: names.to_vec(), listeners, is_mixed: false }
}

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| Tag::new(name)).collect()
}

fn batch(names: &[&str]) -> ReplayBatch {
    ReplayBatch { tags: tags(names).into_iter().collect(), everything: false }
}

fn heartbeat_of(of: Process, number: u64) -> CoreEvent {
    CoreEvent::Message(Message::heartbeat(of, number, true))
}

fn ack(id: OperationId, of: Process) -> CoreEvent {
    CoreEvent::Message(Message::Ack { to: ME, id, of })
}

fn number_of(commands: &[CoreCommand]) -> u64 {
    let heartbeat = |command: &CoreCommand| {
        if let CoreCommand::Heartbeat { number, .. } = command { Some(*number) } else { None }
    };
    commands.iter().find_map(heartbeat).expect("a heartbeat")
}

fn released(commands: &[CoreCommand]) -> Option<Released> {
    commands.iter().find_map(|command| {
        if let CoreCommand::Release(_, how) = command { Some(*how) } else { None }
    })
}

fn fresh() -> Core {
    Core::new(ME, settings(), 3)
}

/// A core that has found Redis and is subscribed, and the number of its first heartbeat.
fn connected(now: MonotonicTime) -> (Core, u64) {
    let mut core = fresh();
    core.handle(now, CoreEvent::Listening);
    let number =
        number_of(&core.handle(
            now,
            CoreEvent::PrimaryFound { fence: "a".into(), again: false, promoted: false },
        ));
    (core, number)
}

/// A core that holds a lease at that time, long after it has found Redis and these peers.
fn leased(now: MonotonicTime, others: &[Process]) -> Core {
    let (mut core, mut number) = connected(at(0));
    let names: Vec<RegisteredPeer> =
        std::iter::once(ME).chain(others.iter().copied()).map(registered).collect();
    let mut registration = Registration::New;
    let mut time = at(0);
    loop {
        core.handle(time, CoreEvent::HeartbeatReply(number, Some(reply(registration, &names))));
        for other in others {
            core.handle(time, heartbeat_of(*other, number));
        }
        core.handle(time, heartbeat_of(ME, number));
        registration = Registration::Known;
        if time == now {
            return core;
        }
        time = core.next_deadline().expect("a heartbeat").min(now);
        let commands = core.handle(time, CoreEvent::Tick);
        if let Some(CoreCommand::Heartbeat { number: next, .. }) =
            commands.iter().find(|command| matches!(command, CoreCommand::Heartbeat { .. }))
        {
            number = *next;
        }
    }
}

#[test]
fn a_lease_needs_a_heartbeat_that_redis_accepted_and_that_came_back() {
    let accepted = |core: &mut Core, number| {
        core.handle(
            at(2),
            CoreEvent::HeartbeatReply(number, Some(reply(Registration::New, &[registered(ME)]))),
        )
    };
    let came_back = |core: &mut Core, number| core.handle(at(2), heartbeat_of(ME, number));
    let (mut core, number) = connected(at(1));
    accepted(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(0), "accepted, but not back");
    came_back(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(11), "one lease after it was sent");
    let (mut core, number) = connected(at(1));
    came_back(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(0), "back, but not known to be accepted");
    accepted(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(11));
    let (mut core, number) = connected(at(1));
    came_back(&mut core, number);
    core.handle(at(2), CoreEvent::HeartbeatReply(number, None));
    assert_eq!(core.lease_state().lease_until, at(0), "Redis refused it");
}

#[test]
fn a_heartbeat_without_a_registration_gives_no_lease() {
    let (mut core, number) = connected(at(1));
    core.handle(at(1), heartbeat_of(ME, number));
    core.handle(at(1), CoreEvent::HeartbeatReply(number, Some(reply(Registration::Absent, &[]))));
    assert_eq!((core.lease_state().lease_until, core.lease_state().contact_until), (at(0), at(11)));
}

#[test]
fn a_gap_a_loss_and_an_eviction_end_the_session() {
    let before = leased(at(40), &[OTHER]);
    let next = {
        let mut core = before.clone();
        let commands = core.handle(at(44), CoreEvent::Tick);
        (core, number_of(&commands))
    };
    let evicted = CoreEvent::HeartbeatReply(
        next.1,
        Some(reply(Registration::Evicted, &[registered(ME), registered(OTHER)])),
    );
    for (mut core, now, event) in [
        (before.clone(), at(41), CoreEvent::Lagged),
        (before.clone(), at(41), CoreEvent::Lost),
        (next.0, at(44), evicted),
    ] {
        core.handle(now, event.clone());
        assert_eq!(core.lease_state().lease_until, at(0), "{event:?}");
        assert_ne!(core.lease_state().session, before.lease_state().session, "{event:?}");
        assert_ne!(core.me(), before.me(), "{event:?}: the old id never returns");
    }
}

#[test]
fn another_fence_ends_contact() {
    let mut core = leased(at(40), &[]);
    let number = number_of(&core.handle(at(44), CoreEvent::Tick));
    core.handle(
        at(44),
        CoreEvent::HeartbeatReply(
            number,
            Some(HeartbeatReply {
                fence: "b".into(),
                ..reply(Registration::Known, &[registered(ME)])
            }),
        ),
    );
    assert_eq!(
        (core.phase(), core.lease_state().contact_until, core.lease_state().lease_until),
        (Phase::Lost, at(0), at(0))
    );
    assert_eq!(core.lease_state().truth(), Truth::OwnTable);
}

#[test]
fn a_purge_of_everything_that_could_not_be_published_is_replayed() {
    let everything = ReplayBatch { everything: true, ..ReplayBatch::default() };
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    assert_eq!(
        released(
            &core.handle(at(41), CoreEvent::PublishFailed(OperationId(7), everything.clone()))
        ),
        None
    );
    assert_eq!(released(&core.handle(at(53), CoreEvent::Tick)), Some(Released::PublishFailed));
    core.add_to_journal(batch(&["t"]));
    let commands = core.handle(
        at(54),
        CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false },
    );
    assert!(commands.contains(&CoreCommand::Replay(everything)), "{commands:?}");
}

#[test]
fn the_journal_is_bounded() {
    let mut core = fresh();
    core.add_to_journal(batch(&["a", "b", "c"]));
    assert_eq!(core.status().journal, 3);
    core.add_to_journal(batch(&["d"]));
    let commands = core
        .handle(at(1), CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false });
    assert!(
        commands.contains(&CoreCommand::Replay(ReplayBatch {
            tags: BTreeSet::new(),
            everything: true
        })),
        "{commands:?}"
    );
}

#[test]
fn nothing_is_trusted_before_the_journal_was_replayed_and_the_grace_has_passed() {
    let batch = batch(&["t"]);
    let joins = |replayed: Option<u64>, until: u64| {
        let mut core = fresh();
        core.add_to_journal(batch.clone());
        core.handle(at(1), CoreEvent::Listening);
        core.handle(
            at(1),
            CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false },
        );
        for second in 1..=until {
            if replayed == Some(second) {
                core.handle(at(second), CoreEvent::Replayed(batch.clone(), true));
            }
            for command in core.handle(at(second), CoreEvent::Tick) {
                if let CoreCommand::Heartbeat { number, .. } = command {
                    core.handle(
                        at(second),
                        CoreEvent::HeartbeatReply(
                            number,
                            Some(reply(Registration::Known, &[registered(ME)])),
                        ),
                    );
                }
            }
        }
        core.handle(at(until), CoreEvent::Tick);
        core.phase() == Phase::Joined
    };
    assert!(!joins(Some(2), 5), "the grace period has not passed");
    assert!(!joins(None, 20), "the journal was not replayed");
    assert!(joins(Some(2), 6));
    assert!(joins(Some(9), 9));
}

#[test]
fn a_replay_that_failed_stays_in_the_journal() {
    let mut core = fresh();
    core.add_to_journal(batch(&["t"]));
    let commands = core
        .handle(at(1), CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false });
    let Some(CoreCommand::Replay(batch)) = commands.first() else { panic!("{commands:?}") };
    core.handle(at(2), CoreEvent::Replayed(batch.clone(), false));
    assert_eq!((core.phase(), core.status().journal), (Phase::Lost, 1));
}

#[test]
fn a_silent_peer_is_evicted_once_and_forgotten_a_lease_later() {
    let mut core = leased(at(40), &[OTHER]);
    let mut seen = Vec::new();
    for second in 41..=64 {
        for command in core.handle(at(second), CoreEvent::Tick) {
            match command {
                CoreCommand::Heartbeat { number, .. } => {
                    core.handle(
                        at(second),
                        CoreEvent::HeartbeatReply(
                            number,
                            Some(reply(Registration::Known, &[registered(ME), registered(OTHER)])),
                        ),
                    );
                }
                CoreCommand::Evict(peer, _) | CoreCommand::Forget(peer) => {
                    seen.push((second, peer.process));
                }
                _ => {}
            }
        }
    }
    assert_eq!(seen.first(), Some(&(52, OTHER)), "{seen:?}");
}

#[test]
fn a_tick_always_leaves_the_next_one_in_the_future() {
    let mut cores =
        vec![fresh(), connected(at(0)).0, leased(at(40), &[OTHER]), leased(at(40), &[])];
    for core in &mut cores {
        core.expect(OperationId(7));
        core.handle(
            at(41),
            CoreEvent::Published(OperationId(7), subscribers(&[registered(OTHER)], 2)),
        );
        let mut lost = core.clone();
        lost.handle(at(41), CoreEvent::PublishFailed(OperationId(7), batch(&["t"])));
        for mut core in [core.clone(), lost] {
            for second in 41..120 {
                core.handle(at(second), CoreEvent::Tick);
                assert!(
                    core.next_deadline().is_none_or(|next| next > at(second)),
                    "at {second}: {:?} of {core:?}",
                    core.next_deadline()
                );
            }
        }
    }
}
