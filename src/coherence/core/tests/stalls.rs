//! A process that is stopped or starved, and peers that fall silent.

use super::*;

/// A core that notices when it wakes more than a second late, and remembers silent peers.
fn watchful(now: MonotonicTime, absence: MonotonicTime) -> Core {
    let mut core = leased(now, &[OTHER]);
    core.settings.stall = at(1);
    core.settings.absence = absence;
    core.handle(now, CoreEvent::Tick);
    core
}

fn evicts(commands: &[CoreCommand]) -> bool {
    commands.iter().any(|command| matches!(command, CoreCommand::Evict(..)))
}

fn published(core: &mut Core, now: MonotonicTime, id: OperationId) -> Option<Released> {
    core.expect(id);
    released(&core.handle(now, CoreEvent::Published(id, subscribers(&[registered(ME)], 1))))
}

#[test]
fn a_process_that_wakes_late_does_not_evict_peers_that_it_has_yet_to_hear() {
    let mut core = watchful(at(40), at(0));
    let planned = core.next_deadline().expect("a heartbeat is due");
    // A peer's lease is over by the clock, but this process did not run.
    let woken = planned + at(30);
    assert!(!evicts(&core.handle(woken, CoreEvent::Tick)), "its messages may lie unread");
    let mut punctual = core.clone();
    let evicted = loop {
        let now = punctual.next_deadline().expect("a heartbeat is due");
        if evicts(&punctual.handle(now, CoreEvent::Tick)) {
            break now;
        }
        assert!(now < woken + at(60), "a peer that stays silent is evicted");
    };
    assert!(evicted > woken, "{evicted:?}: silence counts from when this process runs");
}

#[test]
fn a_purge_waits_longer_and_never_less_after_a_stop() {
    let mut core = watchful(at(40), at(0));
    let woken = core.next_deadline().expect("a heartbeat is due") + at(30);
    core.handle(woken, CoreEvent::Tick);
    // The peer was heard before the stop: it may hold a lease for all that this process knows.
    assert_eq!(published(&mut core, woken, OperationId(7)), None);
}

#[test]
fn heartbeats_without_replies_do_not_push_out_the_first() {
    let mut core = leased(at(40), &[]);
    let commands = core.handle(at(44), CoreEvent::Tick);
    let first = number_of(&commands);
    core.handle(at(44), heartbeat_of(ME, first));
    for tenths in 1..90 {
        core.handle(at(44) + MonotonicTime::from_millis(100 * tenths), CoreEvent::Tick);
    }
    let late = reply(Registration::Known, &[registered(ME)]);
    core.handle(at(53), CoreEvent::HeartbeatReply(first, Some(late)));
    assert_eq!(core.lease_state().lease_until, at(54), "a late reply proves contact");
    assert!(core.in_flight.len() <= 8, "and what waits for one is bounded");
}

#[test]
fn the_own_table_counts_only_while_redis_is_known_to_be_lost() {
    let (mut core, number) = (fresh(), 1);
    assert_eq!(core.lease_state().truth(), Truth::Nothing, "that is yet to be found out");
    core.handle(at(1), CoreEvent::Lost);
    assert_eq!(core.lease_state().truth(), Truth::OwnTable);
    let found = |again| CoreEvent::PrimaryFound { fence: "a".into(), again, promoted: false };
    core.handle(at(2), CoreEvent::Listening);
    core.handle(at(2), found(true));
    assert_eq!(core.lease_state().truth(), Truth::Nothing, "it is back, and not trusted");
    let epoch = core.lease_state().epoch;
    core.handle(at(3), CoreEvent::Lost);
    assert_eq!(core.lease_state().truth(), Truth::OwnTable, "lost before it was trusted");
    assert!(core.lease_state().epoch > epoch, "what was filled before counts no more");
    core.handle(at(4), found(true));
    let names = [registered(ME)];
    let accepted = reply(Registration::New, &names);
    core.handle(at(4), CoreEvent::HeartbeatReply(number + 1, Some(accepted)));
    for second in 5..12 {
        let commands = core.handle(at(second), CoreEvent::Tick);
        for command in commands {
            if let CoreCommand::Heartbeat { number, .. } = command {
                let known = reply(Registration::Known, &names);
                core.handle(at(second), CoreEvent::HeartbeatReply(number, Some(known)));
            }
        }
    }
    assert_eq!((core.phase(), core.lease_state().truth()), (Phase::Joined, Truth::Records));
}

/// A core whose peer fell silent and was evicted, at the time that is returned.
fn deserted(absence: MonotonicTime) -> (Core, MonotonicTime) {
    let mut core = watchful(at(40), absence);
    let mut now = at(40);
    while core.peers.contains_key(&OTHER) {
        now = core.next_deadline().expect("a heartbeat is due");
        core.handle(now, CoreEvent::Tick);
    }
    (core, now)
}

#[test]
fn a_purge_waits_for_a_peer_that_may_serve_by_itself() {
    let (mut core, now) = deserted(at(60));
    assert_eq!(published(&mut core, now, OperationId(7)), None, "it fell silent without a word");
    assert_eq!(released(&core.handle(now + at(11), CoreEvent::Tick)), None);
    assert_eq!(
        released(&core.handle(now + at(12), CoreEvent::Tick)),
        Some(Released::LeaseExpired),
        "the longer of lease and degraded_ttl, and the margin"
    );
    let (mut core, now) = deserted(at(0));
    let how = published(&mut core, now, OperationId(7));
    assert_eq!(how, Some(Released::Acknowledged), "elsewhere nobody waits for it");
}

#[test]
fn only_an_acknowledgement_or_the_end_of_its_process_ends_the_wait_for_a_peer() {
    let late = [
        // They may have been on their way since before it was cut off.
        Message::heartbeat(OTHER, 9, true),
        Message::heartbeat(OTHER, 10, false),
        Message::Leave { of: OTHER, gone: false },
    ];
    let (mut core, now) = deserted(at(60));
    assert_eq!(published(&mut core, now, OperationId(7)), None);
    for message in late {
        let commands = core.handle(now, CoreEvent::Message(message.clone()));
        assert_eq!(released(&commands), None, "{message:?}");
    }
    assert_eq!(published(&mut core, now, OperationId(8)), None, "nor for the next one");
    let acknowledged = core.handle(now, ack(OperationId(8), OTHER));
    assert_eq!(released(&acknowledged), Some(Released::Acknowledged));
    let gone = CoreEvent::Message(Message::Leave { of: OTHER, gone: true });
    assert_eq!(released(&core.handle(now, gone)), Some(Released::Acknowledged), "of the first");
    let how = published(&mut core, now, OperationId(9));
    assert_eq!(how, Some(Released::Acknowledged), "its process has ended");
}

#[test]
fn a_peer_that_gave_up_its_lease_may_serve_by_itself_by_now() {
    let mut core = watchful(at(40), at(60));
    core.handle(at(40), CoreEvent::Message(Message::Leave { of: OTHER, gone: false }));
    assert_eq!(published(&mut core, at(40), OperationId(7)), None);
    let mut elsewhere = watchful(at(40), at(0));
    elsewhere.handle(at(40), CoreEvent::Message(Message::Leave { of: OTHER, gone: false }));
    let how = published(&mut elsewhere, at(40), OperationId(7));
    assert_eq!(how, Some(Released::Acknowledged), "where only leases count");
}

#[test]
fn a_sidecar_that_starts_learns_of_silent_peers_from_their_evicted_names() {
    let (mut core, number) = connected(at(1));
    core.settings.absence = at(60);
    let evicted = RegisteredPeer { evicted: true, ..registered(OTHER) };
    let names = reply(Registration::New, &[registered(ME), evicted]);
    core.handle(at(1), CoreEvent::HeartbeatReply(number, Some(names)));
    assert_eq!(published(&mut core, at(20), OperationId(7)), None);
}

#[test]
fn a_purge_waits_for_as_long_as_a_peer_serves_by_itself() {
    let (mut core, now) = deserted(at(60));
    core.settings.exposure = at(30);
    assert_eq!(published(&mut core, now, OperationId(7)), None);
    assert_eq!(released(&core.handle(now + at(31), CoreEvent::Tick)), None);
    let how = released(&core.handle(now + at(32), CoreEvent::Tick));
    assert_eq!(how, Some(Released::LeaseExpired), "degraded_ttl, and the margin");
}

#[test]
fn a_mark_stands_while_peers_hear_of_this_sidecar() {
    let mut core = leased(at(40), &[OTHER]);
    let epoch = core.lease_state().epoch;
    let commands = core.handle(at(44), CoreEvent::Tick);
    let known = reply(Registration::Known, &[registered(ME), registered(OTHER)]);
    core.handle(at(44), CoreEvent::HeartbeatReply(number_of(&commands), Some(known)));
    assert!(core.is_mark_valid(at(40), epoch, at(53)), "they evict it a lease later");
    assert!(!core.is_mark_valid(at(40), epoch, at(54)));
    assert!(!core.is_mark_valid(at(40), epoch + 1, at(41)), "Redis was lost in between");
}

#[test]
fn a_silent_peer_is_remembered_for_longer_than_it_serves_by_itself() {
    let (mut core, now) = deserted(at(60));
    let mut forgotten = now;
    while published(&mut core, forgotten, OperationId(7)).is_none() {
        core.forget_wait(OperationId(7));
        forgotten += at(1);
        assert!(forgotten <= now + at(61), "it is forgotten in the end");
    }
    let mut peer = watchful(at(40), at(60));
    peer.handle(at(41), CoreEvent::Lost);
    let serves_until = peer.own_table_until();
    assert!(serves_until > at(41) && serves_until < forgotten, "{serves_until:?} {forgotten:?}");
    assert_eq!(fresh().own_table_until(), MonotonicTime::MAX, "elsewhere for as long as it takes");
    let mut unknown = fresh();
    unknown.settings.absence = at(60);
    assert_eq!(unknown.own_table_until(), at(0), "nobody knows of it, so nobody waits");
}

#[test]
fn a_mark_does_not_wait_for_what_a_peer_serves_by_itself() {
    let (mut core, now) = deserted(at(60));
    core.expect_leases(OperationId(7));
    let commands =
        core.handle(now, CoreEvent::Published(OperationId(7), subscribers(&[registered(ME)], 1)));
    assert_eq!(released(&commands), Some(Released::Acknowledged));
}

#[test]
fn as_many_silent_peers_as_fit_are_remembered() {
    let mut core = fresh();
    core.settings.absence = at(60);
    for process in 0..5_000 {
        core.remember_absent(at(1), Process(process));
    }
    assert_eq!(core.absent.len(), MAX_PEERS);
    core.remember_absent(at(9), Process(9_999));
    assert!(core.absent.values().any(|until| *until == at(69)), "the latest prolongs the wait");
}

#[test]
fn r845_a_peer_that_has_said_goodbye_is_not_reported_as_silent() {
    let mut core = watchful(at(40), at(0));
    let gone = CoreEvent::Message(Message::Leave { of: OTHER, gone: true });
    let commands = core.handle(at(40), gone);
    let ends: Vec<PeerEnd> = commands
        .iter()
        .filter_map(|command| match command {
            CoreCommand::Evict(_, end) => Some(*end),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [PeerEnd::Left], "{commands:?}");
}
