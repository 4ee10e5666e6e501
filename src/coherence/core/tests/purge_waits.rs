//! For whom a purge waits, and how its wait is released.

use super::*;

fn publish(
    core: &mut Core,
    now: MonotonicTime,
    id: OperationId,
    who: &Subscribers,
) -> Option<Released> {
    core.expect(id);
    released(&core.handle(now, CoreEvent::Published(id, who.clone())))
}

/// The message of this sidecar, back over the bus.
fn own(id: OperationId) -> CoreEvent {
    CoreEvent::Message(Message::invalidate(ME, id, Some(tags(&["a"]))))
}

#[test]
fn a_purge_waits_for_registered_peers_and_for_peers_heard_recently() {
    let mut core = leased(at(40), &[OTHER, THIRD]);
    let named = subscribers(&[registered(ME), registered(OTHER)], 3);
    assert_eq!(publish(&mut core, at(40), OperationId(7), &named), None);
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), OTHER))),
        None,
        "the third sent a heartbeat recently"
    );
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), THIRD))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn an_acknowledgement_may_come_before_the_reply_of_redis() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    assert_eq!(released(&core.handle(at(40), ack(OperationId(7), OTHER))), None);
    let published =
        CoreEvent::Published(OperationId(7), subscribers(&[registered(ME), registered(OTHER)], 2));
    assert_eq!(released(&core.handle(at(40), published)), Some(Released::Acknowledged));
}

#[test]
fn a_peer_that_leaves_is_not_waited_for() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(
        publish(
            &mut core,
            at(40),
            OperationId(7),
            &subscribers(&[registered(ME), registered(OTHER)], 2)
        ),
        None
    );
    assert_eq!(
        released(
            &core.handle(at(40), CoreEvent::Message(Message::Leave { of: OTHER, gone: false }))
        ),
        Some(Released::Acknowledged)
    );
}

#[test]
fn a_purge_is_released_when_all_leases_have_expired() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(
        publish(
            &mut core,
            at(40),
            OperationId(7),
            &subscribers(&[registered(ME), registered(OTHER)], 2)
        ),
        None
    );
    assert_eq!(released(&core.handle(at(51), CoreEvent::Tick)), None);
    assert_eq!(released(&core.handle(at(52), CoreEvent::Tick)), Some(Released::LeaseExpired));
}

#[test]
fn a_peer_that_was_silent_for_a_lease_before_the_purge_came_back_is_not_waited_for() {
    let mut core = leased(at(40), &[]);
    let named = subscribers(&[registered(ME), registered(OTHER)], 1);
    core.expect(OperationId(7));
    assert_eq!(
        released(&core.handle(at(40), CoreEvent::Published(OperationId(7), named.clone()))),
        None
    );
    core.forget_wait(OperationId(7));
    core.handle(at(52), CoreEvent::Tick);
    let named =
        subscribers(&[registered(ME), RegisteredPeer { evicted: true, ..registered(OTHER) }], 1);
    assert_eq!(
        publish(&mut core, at(52), OperationId(8), &named),
        None,
        "earlier messages are not known to have arrived"
    );
    let came_back = CoreEvent::Message(Message::invalidate(ME, OperationId(8), None));
    assert_eq!(released(&core.handle(at(52), came_back)), Some(Released::LeaseExpired));
}

#[test]
fn any_subscriber_may_hold_a_lease_when_the_registrations_were_lost() {
    let mut core = leased(at(40), &[]);
    assert_eq!(
        publish(&mut core, at(40), OperationId(7), &subscribers(&[], 2)),
        None,
        "not even this sidecar is registered"
    );
    assert_eq!(released(&core.handle(at(40), own(OperationId(7)))), None);
    assert_eq!(
        released(&core.handle(at(41), ack(OperationId(7), OTHER))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn a_promoted_primary_makes_purges_wait_a_lease_for_unregistered_peers() {
    for (promoted, immediately) in [(true, None), (false, Some(Released::Acknowledged))] {
        let mut core = fresh();
        core.handle(at(0), CoreEvent::Listening);
        let number =
            number_of(&core.handle(
                at(0),
                CoreEvent::PrimaryFound { fence: "a".into(), again: false, promoted },
            ));
        core.handle(
            at(0),
            CoreEvent::HeartbeatReply(number, Some(reply(Registration::New, &[registered(ME)]))),
        );
        core.expect(OperationId(7));
        core.handle(at(1), own(OperationId(7)));
        let named = subscribers(&[registered(ME)], 1);
        assert_eq!(
            released(&core.handle(at(1), CoreEvent::Published(OperationId(7), named))),
            immediately,
            "a peer may still trust the primary before this one"
        );
        assert_eq!(released(&core.handle(at(11), CoreEvent::Tick)), None);
        assert!(core.next_deadline().is_some_and(|next| next <= at(12)));
        assert_eq!(released(&core.handle(at(12), CoreEvent::Tick)).is_some(), promoted);
        assert_eq!(
            publish(&mut core, at(12), OperationId(8), &subscribers(&[registered(ME)], 1)),
            Some(Released::Acknowledged)
        );
    }
}

#[test]
fn a_purge_that_cannot_be_published_waits_until_the_leases_of_peers_expire() {
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
fn a_sidecar_without_peers_does_not_wait() {
    let mut core = leased(at(40), &[]);
    core.expect(OperationId(7));
    assert_eq!(
        released(&core.handle(at(41), CoreEvent::PublishFailed(OperationId(7), batch(&["t"])))),
        Some(Released::PublishFailed)
    );
}

#[test]
fn a_purge_waits_for_the_longest_lease_of_all() {
    let mut core = leased(at(40), &[OTHER]);
    assert!(
        core.raise_longest_lease(at(30)) && !core.raise_longest_lease(at(20)),
        "the longest, reported once"
    );
    assert_eq!(
        publish(
            &mut core,
            at(40),
            OperationId(7),
            &subscribers(&[registered(ME), registered(OTHER)], 2)
        ),
        None
    );
    assert_eq!(released(&core.handle(at(71), CoreEvent::Tick)), None);
    assert_eq!(released(&core.handle(at(72), CoreEvent::Tick)), Some(Released::LeaseExpired));
}

/// It took a lease to be found out: the newcomer had subscribed after the purge, and never got it.
#[test]
fn r882_a_peer_that_is_first_heard_after_the_purge_came_back_is_not_waited_for() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    core.handle(at(40), own(OperationId(7)));
    core.handle(at(40), heartbeat_of(THIRD, 1));
    let named = subscribers(&[registered(ME), registered(OTHER)], 2);
    core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), OTHER))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn a_peer_that_was_heard_before_the_purge_came_back_is_waited_for() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    core.handle(at(40), heartbeat_of(THIRD, 1));
    core.handle(at(40), own(OperationId(7)));
    let named = subscribers(&[registered(ME), registered(OTHER)], 3);
    core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    assert_eq!(released(&core.handle(at(40), ack(OperationId(7), OTHER))), None);
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), THIRD))),
        Some(Released::Acknowledged)
    );
}

/// Redis has lost its list of peers: every subscriber counts, and this sidecar is one of them when
/// its own message has come back, not when it says so.
#[test]
fn r883_this_sidecar_counts_as_a_subscriber_when_its_message_came_back() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(OperationId(7));
    let named = subscribers(&[registered(OTHER)], 3);
    core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    assert_eq!(released(&core.handle(at(40), ack(OperationId(7), OTHER))), None);
    assert_eq!(released(&core.handle(at(40), own(OperationId(7)))), None, "two of three");
    assert_eq!(
        released(&core.handle(at(40), ack(OperationId(7), THIRD))),
        Some(Released::Acknowledged)
    );
}

#[test]
fn r883_a_subscriber_is_not_taken_for_this_sidecar_that_was_not_subscribed() {
    let mut core = leased(at(40), &[OTHER]);
    core.handle(at(40), CoreEvent::Lagged);
    core.expect(OperationId(7));
    core.handle(at(40), CoreEvent::Listening);
    core.unknown_peers_until = at(50);
    // Published while this sidecar was not subscribed: both listeners are others.
    let named = subscribers(&[registered(OTHER)], 2);
    core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    assert_eq!(released(&core.handle(at(40), ack(OperationId(7), OTHER))), None);
}

#[test]
fn r884_acknowledgements_missed_before_the_reply_of_redis_are_asked_for_again() {
    let mut core = leased(at(40), &[OTHER]);
    core.handle(at(40), CoreEvent::Lagged);
    core.expect(OperationId(7));
    // The peer acknowledged meanwhile, and this sidecar did not hear it.
    assert!(
        !core
            .handle(at(40), CoreEvent::Listening)
            .contains(&CoreCommand::RequestAck(OperationId(7)))
    );
    let named = subscribers(&[registered(OTHER)], 1);
    let commands = core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    assert!(commands.contains(&CoreCommand::RequestAck(OperationId(7))), "{commands:?}");
}

/// A peer that is heard before it has subscribed may be waited for, and does not get the purge.
#[test]
fn r885_a_peer_that_subscribes_while_it_is_waited_for_is_sent_the_purge() {
    let mut core = leased(at(40), &[OTHER]);
    core.settings.absence = at(60);
    let unregistered = Message::heartbeat(THIRD, 1, false);
    core.handle(at(40), CoreEvent::Message(unregistered));
    core.expect(OperationId(7));
    let named = subscribers(&[registered(ME), registered(OTHER)], 2);
    core.handle(at(40), CoreEvent::Published(OperationId(7), named));
    core.handle(at(40), ack(OperationId(7), OTHER));
    let again = CoreCommand::RequestAck(OperationId(7));
    assert!(core.handle(at(41), heartbeat_of(THIRD, 2)).contains(&again));
    assert!(!core.handle(at(42), heartbeat_of(THIRD, 3)).contains(&again), "once is enough");
    assert_eq!(
        released(&core.handle(at(42), ack(OperationId(7), THIRD))),
        Some(Released::Acknowledged)
    );
}
