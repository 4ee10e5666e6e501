//! Tests of the core: one sidecar, told by hand what Redis and the bus say.

use super::*;
use crate::coherence::message::PeerId;
use crate::policy::tag::Tag;

const ME: Process = Process(1);
const OTHER: Process = Process(2);
const THIRD: Process = Process(3);

fn at(seconds: u64) -> MonotonicTime {
    MonotonicTime::from_secs(seconds)
}

/// A lease of ten seconds, renewed every four; others wait twelve.
fn settings() -> LeaseSettings {
    LeaseSettings {
        lease: at(10),
        longest_lease: at(10),
        margin: at(2),
        heartbeat: at(4),
        retry: at(1),
        grace: at(5),
    }
}

fn name(process: Process) -> RegisteredPeer {
    RegisteredPeer { peer: PeerId { process, incarnation: 0 }, evicted: false }
}

fn beaten(standing: Registration, names: &[RegisteredPeer]) -> HeartbeatReply {
    HeartbeatReply { fence: "a".into(), registration: standing, peers: names.to_vec() }
}

fn audience(names: &[RegisteredPeer], listeners: usize) -> Subscribers {
    Subscribers { peers: names.to_vec(), listeners }
}

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| Tag::new(name)).collect()
}

fn batch(names: &[&str]) -> ReplayBatch {
    ReplayBatch { tags: tags(names).into_iter().collect(), everything: false }
}

fn beat_of(of: Process, number: u64) -> CoreEvent {
    CoreEvent::Message(Message::Heartbeat { of, number, registered: true })
}

fn ack(id: OperationId, of: Process) -> CoreEvent {
    CoreEvent::Message(Message::Ack { to: ME, id, of })
}

fn number_of(commands: &[CoreCommand]) -> u64 {
    let beat = |command: &CoreCommand| {
        if let CoreCommand::Heartbeat { number, .. } = command { Some(*number) } else { None }
    };
    commands.iter().find_map(beat).expect("a beat")
}

/// How a wait was released, if it was.
fn released(commands: &[CoreCommand]) -> Option<Released> {
    commands.iter().find_map(|command| {
        if let CoreCommand::Release(_, how) = command { Some(*how) } else { None }
    })
}

fn fresh() -> Core {
    Core::new(ME, settings(), 3)
}

/// A core that was found and listens, and its first beat.
fn met(now: MonotonicTime) -> (Core, u64) {
    let mut core = fresh();
    core.handle(now, CoreEvent::Listening);
    let number =
        number_of(&core.handle(
            now,
            CoreEvent::PrimaryFound { fence: "a".into(), again: false, promoted: false },
        ));
    (core, number)
}

/// A core with a lease at that time, long after it has met Redis and these others.
fn leased(now: MonotonicTime, others: &[Process]) -> Core {
    let (mut core, mut number) = met(at(0));
    let names: Vec<RegisteredPeer> =
        std::iter::once(ME).chain(others.iter().copied()).map(name).collect();
    let mut standing = Registration::New;
    let mut time = at(0);
    loop {
        core.handle(time, CoreEvent::HeartbeatReply(number, Some(beaten(standing, &names))));
        for other in others {
            core.handle(time, beat_of(*other, number));
        }
        core.handle(time, beat_of(ME, number));
        standing = Registration::Known;
        if time == now {
            return core;
        }
        time = core.next_deadline().expect("a beat").min(now);
        let commands = core.handle(time, CoreEvent::Tick);
        if let Some(CoreCommand::Heartbeat { number: next, .. }) =
            commands.iter().find(|command| matches!(command, CoreCommand::Heartbeat { .. }))
        {
            number = *next;
        }
    }
}

fn tell(
    core: &mut Core,
    now: MonotonicTime,
    id: OperationId,
    who: &Subscribers,
) -> Option<Released> {
    core.expect(id);
    released(&core.handle(now, CoreEvent::Published(id, who.clone())))
}

#[test]
fn a_lease_takes_a_beat_that_redis_took_and_that_came_back() {
    let taken = |core: &mut Core, number| {
        core.handle(
            at(2),
            CoreEvent::HeartbeatReply(number, Some(beaten(Registration::New, &[name(ME)]))),
        )
    };
    let heard = |core: &mut Core, number| core.handle(at(2), beat_of(ME, number));
    let (mut core, number) = met(at(1));
    taken(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(0), "taken, and not heard");
    heard(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(11), "a lease from when it was sent");
    let (mut core, number) = met(at(1));
    heard(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(0), "heard, and not known to be taken");
    taken(&mut core, number);
    assert_eq!(core.lease_state().lease_until, at(11));
    let (mut core, number) = met(at(1));
    heard(&mut core, number);
    core.handle(at(2), CoreEvent::HeartbeatReply(number, None));
    assert_eq!(core.lease_state().lease_until, at(0), "Redis refused it");
}

#[test]
fn a_beat_without_a_name_in_redis_gives_no_lease() {
    let (mut core, number) = met(at(1));
    core.handle(at(1), beat_of(ME, number));
    core.handle(at(1), CoreEvent::HeartbeatReply(number, Some(beaten(Registration::Absent, &[]))));
    assert_eq!((core.lease_state().lease_until, core.lease_state().contact_until), (at(0), at(11)));
}

#[test]
fn a_gap_a_loss_and_being_struck_out_end_the_session() {
    let before = leased(at(40), &[OTHER]);
    let next = {
        let mut core = before.clone();
        let commands = core.handle(at(44), CoreEvent::Tick);
        (core, number_of(&commands))
    };
    let struck = CoreEvent::HeartbeatReply(
        next.1,
        Some(beaten(Registration::Evicted, &[name(ME), name(OTHER)])),
    );
    for (mut core, now, event) in [
        (before.clone(), at(41), CoreEvent::Lagged),
        (before.clone(), at(41), CoreEvent::Lost),
        (next.0, at(44), struck),
    ] {
        core.handle(now, event.clone());
        assert_eq!(core.lease_state().lease_until, at(0), "{event:?}");
        assert_ne!(core.lease_state().session, before.lease_state().session, "{event:?}");
        assert_ne!(core.me(), before.me(), "{event:?}: the old name never returns");
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
            Some(HeartbeatReply { fence: "b".into(), ..beaten(Registration::Known, &[name(ME)]) }),
        ),
    );
    assert_eq!(
        (core.phase(), core.lease_state().contact_until, core.lease_state().lease_until),
        (Phase::Lost, at(0), at(0))
    );
    assert_eq!(core.lease_state().epoch % 2, 1);
}

#[test]
fn a_purge_waits_for_who_is_named_and_for_who_was_heard() {
    let mut core = leased(at(40), &[OTHER, THIRD]);
    let named = audience(&[name(ME), name(OTHER)], 3);
    assert_eq!(tell(&mut core, at(40), OperationId(7), &named), None);
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), OTHER))),
        None,
        "the third was heard lately"
    );
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), THIRD))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn an_acknowledgement_may_come_before_the_answer_of_redis() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    assert_eq!(released(&core.handle(at(40), ack(OperationId(7), OTHER))), None);
    let told = CoreEvent::Published(OperationId(7), audience(&[name(ME), name(OTHER)], 2));
    assert_eq!(released(&core.handle(at(40), told)), Some(Released::Acknowledged));
}

#[test]
fn who_quits_is_not_waited_for() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(
        tell(&mut core, at(40), OperationId(7), &audience(&[name(ME), name(OTHER)], 2)),
        None
    );
    assert_eq!(
        released(&core.handle(at(40), CoreEvent::Message(Message::Leave { of: OTHER }))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn a_purge_is_released_when_all_leases_are_over() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(
        tell(&mut core, at(40), OperationId(7), &audience(&[name(ME), name(OTHER)], 2)),
        None
    );
    assert_eq!(released(&core.handle(at(51), CoreEvent::Tick)), None);
    assert_eq!(released(&core.handle(at(52), CoreEvent::Tick)), Some(Released::LeaseExpired));
}

#[test]
fn who_was_silent_for_a_lease_before_the_purge_came_back_is_not_waited_for() {
    let mut core = leased(at(40), &[]);
    let named = audience(&[name(ME), name(OTHER)], 1);
    core.expect(OperationId(7));
    assert_eq!(
        released(&core.handle(at(40), CoreEvent::Published(OperationId(7), named.clone()))),
        None
    );
    core.forget_wait(OperationId(7));
    core.handle(at(52), CoreEvent::Tick);
    let named = audience(&[name(ME), RegisteredPeer { evicted: true, ..name(OTHER) }], 1);
    assert_eq!(
        tell(&mut core, at(52), OperationId(8), &named),
        None,
        "what was said before is not known to have arrived"
    );
    let came_back =
        CoreEvent::Message(Message::Invalidate { by: ME, id: OperationId(8), tags: None });
    assert_eq!(released(&core.handle(at(52), came_back)), Some(Released::LeaseExpired));
}

#[test]
fn who_listens_may_hold_a_lease_when_the_names_were_lost() {
    let mut core = leased(at(40), &[]);
    assert_eq!(
        tell(&mut core, at(40), OperationId(7), &audience(&[], 2)),
        None,
        "not even we are named"
    );
    assert_eq!(
        released(&core.handle(at(41), ack(OperationId(7), OTHER))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn who_is_new_to_a_promoted_primary_waits_a_lease_for_strangers() {
    for (promoted, at_once) in [(true, None), (false, Some(Released::Acknowledged))] {
        let mut core = fresh();
        core.handle(at(0), CoreEvent::Listening);
        let number =
            number_of(&core.handle(
                at(0),
                CoreEvent::PrimaryFound { fence: "a".into(), again: false, promoted },
            ));
        core.handle(
            at(0),
            CoreEvent::HeartbeatReply(number, Some(beaten(Registration::New, &[name(ME)]))),
        );
        assert_eq!(
            tell(&mut core, at(1), OperationId(7), &audience(&[name(ME)], 1)),
            at_once,
            "one may yet trust the primary before this one"
        );
        assert_eq!(released(&core.handle(at(11), CoreEvent::Tick)), None);
        assert!(core.next_deadline().is_some_and(|next| next <= at(12)));
        assert_eq!(released(&core.handle(at(12), CoreEvent::Tick)).is_some(), promoted);
        assert_eq!(
            tell(&mut core, at(12), OperationId(8), &audience(&[name(ME)], 1)),
            Some(Released::Acknowledged)
        );
    }
}

#[test]
fn who_cannot_tell_waits_until_the_others_trust_nothing() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    assert_eq!(
        released(&core.handle(at(41), CoreEvent::PublishFailed(OperationId(7), batch(&["t"])))),
        None
    );
    assert_eq!(core.phase(), Phase::Lost);
    assert_eq!(released(&core.handle(at(52), CoreEvent::Tick)), None);
    assert_eq!(released(&core.handle(at(53), CoreEvent::Tick)), Some(Released::PublishFailed));
}

#[test]
fn everything_that_could_not_be_told_is_kept_and_replayed() {
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
fn who_is_alone_waits_for_nobody() {
    let mut core = leased(at(40), &[]);
    core.expect(OperationId(7));
    assert_eq!(
        released(&core.handle(at(41), CoreEvent::PublishFailed(OperationId(7), batch(&["t"])))),
        Some(Released::PublishFailed)
    );
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
                            Some(beaten(Registration::Known, &[name(ME)])),
                        ),
                    );
                }
            }
        }
        core.handle(at(until), CoreEvent::Tick);
        core.phase() == Phase::Joined
    };
    assert!(!joins(Some(2), 5), "the grace has not passed");
    assert!(!joins(None, 20), "the journal was not replayed");
    assert!(joins(Some(2), 6));
    assert!(joins(Some(9), 9));
}

#[test]
fn a_replay_that_failed_is_kept() {
    let mut core = fresh();
    core.add_to_journal(batch(&["t"]));
    let commands = core
        .handle(at(1), CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false });
    let Some(CoreCommand::Replay(batch)) = commands.first() else { panic!("{commands:?}") };
    core.handle(at(2), CoreEvent::Replayed(batch.clone(), false));
    assert_eq!((core.phase(), core.status().journal), (Phase::Lost, 1));
}

#[test]
fn the_silent_are_struck_out_once_and_forgotten_a_lease_later() {
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
                            Some(beaten(Registration::Known, &[name(ME), name(OTHER)])),
                        ),
                    );
                }
                CoreCommand::Evict(peer) | CoreCommand::Forget(peer) => {
                    seen.push((second, peer.process))
                }
                _ => {}
            }
        }
    }
    assert_eq!(seen.first(), Some(&(52, OTHER)), "{seen:?}");
}

#[test]
fn a_tick_always_leaves_the_next_one_in_the_future() {
    let mut cores = vec![fresh(), met(at(0)).0, leased(at(40), &[OTHER]), leased(at(40), &[])];
    for core in &mut cores {
        core.expect(OperationId(7));
        core.handle(at(41), CoreEvent::Published(OperationId(7), audience(&[name(OTHER)], 2)));
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

#[test]
fn a_purge_waits_for_the_longest_lease_of_all() {
    let mut core = leased(at(40), &[OTHER]);
    assert!(
        core.raise_longest_lease(at(30)) && !core.raise_longest_lease(at(20)),
        "the longest, told once"
    );
    assert_eq!(
        tell(&mut core, at(40), OperationId(7), &audience(&[name(ME), name(OTHER)], 2)),
        None
    );
    assert_eq!(released(&core.handle(at(71), CoreEvent::Tick)), None);
    assert_eq!(released(&core.handle(at(72), CoreEvent::Tick)), Some(Released::LeaseExpired));
}
