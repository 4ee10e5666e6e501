//! Sidecars that speak another protocol in the same namespace.

use super::*;

/// A sidecar of before the protocol had a number.
fn older(number: u64) -> CoreEvent {
    CoreEvent::Message(Message::Heartbeat { of: OTHER, number, registered: true, protocol: 0 })
}

/// Trust ends with the first sign of another protocol, before anything of it is acknowledged,
/// and begins again a lease after the last one, when everything was purged.
#[test]
fn r1346_another_protocol_ends_all_trust_until_everything_is_purged() {
    let mixed = HeartbeatReply {
        is_mixed: true,
        ..reply(Registration::Known, &[registered(ME), registered(OTHER)])
    };
    let purge = Message::Invalidate {
        by: OTHER,
        id: OperationId(7),
        tags: Some(tags(&["a"])),
        inbox: false,
        protocol: 0,
    };
    let subscribers = Subscribers { is_mixed: true, ..subscribers(&[registered(ME)], 1) };
    for sign in [
        older(1),
        CoreEvent::Message(purge),
        CoreEvent::HeartbeatReply(0, Some(mixed)),
        CoreEvent::Published(OperationId(7), subscribers),
    ] {
        let mut core = leased(at(40), &[OTHER]);
        assert_eq!((core.phase(), core.is_mixed()), (Phase::Joined, false));
        let epoch = core.lease_state().epoch;
        let sign = match sign {
            CoreEvent::HeartbeatReply(_, reply) => {
                let number = number_of(&core.handle(at(44), CoreEvent::Tick));
                CoreEvent::HeartbeatReply(number, reply)
            }
            sign => sign,
        };
        core.handle(at(45), sign);
        assert!(core.is_mixed());
        assert_eq!(core.lease_state().truth(), Truth::Nothing);
        assert!(core.lease_state().epoch > epoch);
        // A lease of ten seconds and its margin.
        for time in 46..57 {
            let commands = beat(&mut core, at(time));
            assert!(!commands.iter().any(|it| matches!(it, CoreCommand::Replay(_))), "{time}");
            assert_eq!(core.lease_state().truth(), Truth::Nothing, "{time}");
        }
        let everything = ReplayBatch { everything: true, ..ReplayBatch::default() };
        let commands = beat(&mut core, at(57));
        assert!(commands.contains(&CoreCommand::Replay(everything.clone())), "{commands:?}");
        assert_eq!(core.lease_state().truth(), Truth::Nothing, "before the purge is done");
        core.handle(at(58), CoreEvent::Replayed(everything, true));
        assert_eq!((core.phase(), core.is_mixed()), (Phase::Joined, false));
        assert_eq!(core.lease_state().truth(), Truth::Records);
    }
}

/// Sends the heartbeat that is due, if any, and has Redis take it.
fn beat(core: &mut Core, now: MonotonicTime) -> Vec<CoreCommand> {
    let commands = core.handle(now, CoreEvent::Tick);
    for command in &commands {
        if let CoreCommand::Heartbeat { number, .. } = command {
            let peers = [registered(ME)];
            let reply = reply(Registration::Known, &peers);
            core.handle(now, CoreEvent::HeartbeatReply(*number, Some(reply)));
            core.handle(now, heartbeat_of(ME, *number));
        }
    }
    commands
}

/// A sidecar that is seen again and again keeps trust away.
#[test]
fn another_protocol_is_remembered_for_a_lease_from_its_last_sign() {
    let mut core = leased(at(40), &[OTHER]);
    for time in 41..80 {
        core.handle(at(time), older(time));
        beat(&mut core, at(time));
        assert_eq!(core.lease_state().truth(), Truth::Nothing, "{time}");
    }
    // Also where Redis is lost and found meanwhile.
    core.handle(at(80), CoreEvent::Lost);
    assert_eq!(core.lease_state().truth(), Truth::OwnTable);
    let found = CoreEvent::PrimaryFound { fence: "a".into(), again: true, promoted: false };
    core.handle(at(81), found);
    for time in 82..91 {
        beat(&mut core, at(time));
        assert_eq!(core.lease_state().truth(), Truth::Nothing, "{time}");
    }
    assert!(core.is_mixed());
}
