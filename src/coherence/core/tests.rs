//! Tests of the core: one sidecar, told by hand what Redis and the bus say.

use super::*;
use crate::policy::tag::Tag;

const ME: Process = Process(1);
const OTHER: Process = Process(2);
const THIRD: Process = Process(3);

fn at(seconds: u64) -> At {
    At::from_secs(seconds)
}

/// A lease of ten seconds, renewed every four; others wait twelve.
fn settings() -> Settings {
    Settings { lease: at(10), longest: at(10), margin: at(2), beat: at(4), retry: at(1), grace: at(5) }
}

fn name(process: Process) -> Name {
    Name { node: Node { process, incarnation: 0 }, struck: false }
}

fn beaten(standing: Standing, names: &[Name]) -> Beaten {
    Beaten { fence: "a".into(), standing, names: names.to_vec() }
}

fn audience(names: &[Name], listeners: usize) -> Audience {
    Audience { names: names.to_vec(), listeners }
}

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| Tag::new(name)).collect()
}

fn batch(names: &[&str]) -> Batch {
    Batch { tags: tags(names).into_iter().collect(), everything: false }
}

fn beat_of(of: Process, number: u64) -> Event {
    Event::Heard(Message::Beat { of, number, registered: true })
}

fn ack(id: Id, of: Process) -> Event {
    Event::Heard(Message::Ack { to: ME, id, of })
}

fn number_of(commands: &[Command]) -> u64 {
    let beat = |command: &Command| if let Command::Beat { number, .. } = command { Some(*number) } else { None };
    commands.iter().find_map(beat).expect("a beat")
}

/// How a wait was released, if it was.
fn released(commands: &[Command]) -> Option<Released> {
    commands.iter().find_map(|command| if let Command::Release(_, how) = command { Some(*how) } else { None })
}

fn fresh() -> Core {
    Core::new(ME, settings(), 3)
}

/// A core that was found and listens, and its first beat.
fn met(now: At) -> (Core, u64) {
    let mut core = fresh();
    core.handle(now, Event::Listening);
    let number = number_of(&core.handle(now, Event::Found { fence: "a".into(), again: false, promoted: false }));
    (core, number)
}

/// A core with a lease at that time, long after it has met Redis and these others.
fn leased(now: At, others: &[Process]) -> Core {
    let (mut core, mut number) = met(at(0));
    let names: Vec<Name> = std::iter::once(ME).chain(others.iter().copied()).map(name).collect();
    let mut standing = Standing::New;
    let mut time = at(0);
    loop {
        core.handle(time, Event::Beaten(number, Some(beaten(standing, &names))));
        for other in others {
            core.handle(time, beat_of(*other, number));
        }
        core.handle(time, beat_of(ME, number));
        standing = Standing::Known;
        if time == now {
            return core;
        }
        time = core.next().expect("a beat").min(now);
        let commands = core.handle(time, Event::Tick);
        if let Some(Command::Beat { number: next, .. }) = commands.iter().find(|command| matches!(command, Command::Beat { .. })) {
            number = *next;
        }
    }
}

fn tell(core: &mut Core, now: At, id: Id, who: &Audience) -> Option<Released> {
    core.expect(id);
    released(&core.handle(now, Event::Told(id, who.clone())))
}

#[test]
fn a_lease_takes_a_beat_that_redis_took_and_that_came_back() {
    let taken = |core: &mut Core, number| core.handle(at(2), Event::Beaten(number, Some(beaten(Standing::New, &[name(ME)]))));
    let heard = |core: &mut Core, number| core.handle(at(2), beat_of(ME, number));
    let (mut core, number) = met(at(1));
    taken(&mut core, number);
    assert_eq!(core.gate().lease_until, at(0), "taken, and not heard");
    heard(&mut core, number);
    assert_eq!(core.gate().lease_until, at(11), "a lease from when it was sent");
    let (mut core, number) = met(at(1));
    heard(&mut core, number);
    assert_eq!(core.gate().lease_until, at(0), "heard, and not known to be taken");
    taken(&mut core, number);
    assert_eq!(core.gate().lease_until, at(11));
    let (mut core, number) = met(at(1));
    heard(&mut core, number);
    core.handle(at(2), Event::Beaten(number, None));
    assert_eq!(core.gate().lease_until, at(0), "Redis refused it");
}

#[test]
fn a_beat_without_a_name_in_redis_gives_no_lease() {
    let (mut core, number) = met(at(1));
    core.handle(at(1), beat_of(ME, number));
    core.handle(at(1), Event::Beaten(number, Some(beaten(Standing::Absent, &[]))));
    assert_eq!((core.gate().lease_until, core.gate().contact_until), (at(0), at(11)));
}

#[test]
fn a_gap_a_loss_and_being_struck_out_end_the_session() {
    let before = leased(at(40), &[OTHER]);
    let next = {
        let mut core = before.clone();
        let commands = core.handle(at(44), Event::Tick);
        (core, number_of(&commands))
    };
    let struck = Event::Beaten(next.1, Some(beaten(Standing::StruckOut, &[name(ME), name(OTHER)])));
    for (mut core, now, event) in [(before.clone(), at(41), Event::Gap), (before.clone(), at(41), Event::Lost), (next.0, at(44), struck)] {
        core.handle(now, event.clone());
        assert_eq!(core.gate().lease_until, at(0), "{event:?}");
        assert_ne!(core.gate().session, before.gate().session, "{event:?}");
        assert_ne!(core.me(), before.me(), "{event:?}: the old name never returns");
    }
}

#[test]
fn another_fence_ends_contact() {
    let mut core = leased(at(40), &[]);
    let number = number_of(&core.handle(at(44), Event::Tick));
    core.handle(at(44), Event::Beaten(number, Some(Beaten { fence: "b".into(), ..beaten(Standing::Known, &[name(ME)]) })));
    assert_eq!((core.phase(), core.gate().contact_until, core.gate().lease_until), (Phase::Lost, at(0), at(0)));
    assert_eq!(core.gate().epoch % 2, 1);
}

#[test]
fn a_purge_waits_for_who_is_named_and_for_who_was_heard() {
    let mut core = leased(at(40), &[OTHER, THIRD]);
    let named = audience(&[name(ME), name(OTHER)], 3);
    assert_eq!(tell(&mut core, at(40), Id(7), &named), None);
    assert_eq!(released(&core.handle(at(40), ack(Id(7), OTHER))), None, "the third was heard lately");
    assert_eq!(released(&core.handle(at(40), ack(Id(7), THIRD))), Some(Released::Acknowledged));
}

#[test]
fn an_acknowledgement_may_come_before_the_answer_of_redis() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(Id(7));
    assert_eq!(released(&core.handle(at(40), ack(Id(7), OTHER))), None);
    let told = Event::Told(Id(7), audience(&[name(ME), name(OTHER)], 2));
    assert_eq!(released(&core.handle(at(40), told)), Some(Released::Acknowledged));
}

#[test]
fn who_quits_is_not_waited_for() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(tell(&mut core, at(40), Id(7), &audience(&[name(ME), name(OTHER)], 2)), None);
    assert_eq!(released(&core.handle(at(40), Event::Heard(Message::Quit { of: OTHER }))), Some(Released::Acknowledged));
}

#[test]
fn a_purge_is_released_when_all_leases_are_over() {
    let mut core = leased(at(40), &[OTHER]);
    assert_eq!(tell(&mut core, at(40), Id(7), &audience(&[name(ME), name(OTHER)], 2)), None);
    assert_eq!(released(&core.handle(at(51), Event::Tick)), None);
    assert_eq!(released(&core.handle(at(52), Event::Tick)), Some(Released::Outlived));
}

#[test]
fn who_was_silent_for_a_lease_before_the_purge_came_back_is_not_waited_for() {
    let mut core = leased(at(40), &[]);
    let named = audience(&[name(ME), name(OTHER)], 1);
    core.expect(Id(7));
    assert_eq!(released(&core.handle(at(40), Event::Told(Id(7), named.clone()))), None);
    core.forget_wait(Id(7));
    core.handle(at(52), Event::Tick);
    let named = audience(&[name(ME), Name { struck: true, ..name(OTHER) }], 1);
    assert_eq!(tell(&mut core, at(52), Id(8), &named), None, "what was said before is not known to have arrived");
    let came_back = Event::Heard(Message::Distrust { by: ME, id: Id(8), tags: None });
    assert_eq!(released(&core.handle(at(52), came_back)), Some(Released::Outlived));
}

#[test]
fn who_listens_may_hold_a_lease_when_the_names_were_lost() {
    let mut core = leased(at(40), &[]);
    assert_eq!(tell(&mut core, at(40), Id(7), &audience(&[], 2)), None, "not even we are named");
    assert_eq!(released(&core.handle(at(41), ack(Id(7), OTHER))), Some(Released::Acknowledged));
}

#[test]
fn who_is_new_to_a_promoted_primary_waits_a_lease_for_strangers() {
    for (promoted, at_once) in [(true, None), (false, Some(Released::Acknowledged))] {
        let mut core = fresh();
        core.handle(at(0), Event::Listening);
        let number = number_of(&core.handle(at(0), Event::Found { fence: "a".into(), again: false, promoted }));
        core.handle(at(0), Event::Beaten(number, Some(beaten(Standing::New, &[name(ME)]))));
        assert_eq!(tell(&mut core, at(1), Id(7), &audience(&[name(ME)], 1)), at_once, "one may yet trust the primary before this one");
        assert_eq!(released(&core.handle(at(11), Event::Tick)), None);
        assert!(core.next().is_some_and(|next| next <= at(12)));
        assert_eq!(released(&core.handle(at(12), Event::Tick)).is_some(), promoted);
        assert_eq!(tell(&mut core, at(12), Id(8), &audience(&[name(ME)], 1)), Some(Released::Acknowledged));
    }
}

#[test]
fn who_cannot_tell_waits_until_the_others_trust_nothing() {
    let mut core = leased(at(40), &[OTHER]);
    core.expect(Id(7));
    assert_eq!(released(&core.handle(at(41), Event::Untold(Id(7), batch(&["t"])))), None);
    assert_eq!(core.phase(), Phase::Lost);
    assert_eq!(released(&core.handle(at(52), Event::Tick)), None);
    assert_eq!(released(&core.handle(at(53), Event::Tick)), Some(Released::Untold));
}

#[test]
fn everything_that_could_not_be_told_is_kept_and_replayed() {
    let everything = Batch { everything: true, ..Batch::default() };
    let mut core = leased(at(40), &[OTHER]);
    core.expect(Id(7));
    assert_eq!(released(&core.handle(at(41), Event::Untold(Id(7), everything.clone()))), None);
    assert_eq!(released(&core.handle(at(53), Event::Tick)), Some(Released::Untold));
    core.keep(batch(&["t"]));
    let commands = core.handle(at(54), Event::Found { fence: "a".into(), again: true, promoted: false });
    assert!(commands.contains(&Command::Replay(everything)), "{commands:?}");
}

#[test]
fn who_is_alone_waits_for_nobody() {
    let mut core = leased(at(40), &[]);
    core.expect(Id(7));
    assert_eq!(released(&core.handle(at(41), Event::Untold(Id(7), batch(&["t"])))), Some(Released::Untold));
}

#[test]
fn the_journal_is_bounded() {
    let mut core = fresh();
    core.keep(batch(&["a", "b", "c"]));
    assert_eq!(core.standings().journal, 3);
    core.keep(batch(&["d"]));
    let commands = core.handle(at(1), Event::Found { fence: "a".into(), again: true, promoted: false });
    assert!(commands.contains(&Command::Replay(Batch { tags: BTreeSet::new(), everything: true })), "{commands:?}");
}

#[test]
fn nothing_is_trusted_before_the_journal_was_replayed_and_the_grace_has_passed() {
    let batch = batch(&["t"]);
    let joins = |replayed: Option<u64>, until: u64| {
        let mut core = fresh();
        core.keep(batch.clone());
        core.handle(at(1), Event::Listening);
        core.handle(at(1), Event::Found { fence: "a".into(), again: true, promoted: false });
        for second in 1..=until {
            if replayed == Some(second) {
                core.handle(at(second), Event::Replayed(batch.clone(), true));
            }
            for command in core.handle(at(second), Event::Tick) {
                if let Command::Beat { number, .. } = command {
                    core.handle(at(second), Event::Beaten(number, Some(beaten(Standing::Known, &[name(ME)]))));
                }
            }
        }
        core.handle(at(until), Event::Tick);
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
    core.keep(batch(&["t"]));
    let commands = core.handle(at(1), Event::Found { fence: "a".into(), again: true, promoted: false });
    let Some(Command::Replay(batch)) = commands.first() else { panic!("{commands:?}") };
    core.handle(at(2), Event::Replayed(batch.clone(), false));
    assert_eq!((core.phase(), core.standings().journal), (Phase::Lost, 1));
}

#[test]
fn the_silent_are_struck_out_once_and_forgotten_a_lease_later() {
    let mut core = leased(at(40), &[OTHER]);
    let mut seen = Vec::new();
    for second in 41..=64 {
        for command in core.handle(at(second), Event::Tick) {
            match command {
                Command::Beat { number, .. } => {
                    core.handle(at(second), Event::Beaten(number, Some(beaten(Standing::Known, &[name(ME), name(OTHER)]))));
                }
                Command::StrikeOut(node) | Command::Forget(node) => seen.push((second, node.process)),
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
        core.expect(Id(7));
        core.handle(at(41), Event::Told(Id(7), audience(&[name(OTHER)], 2)));
        let mut lost = core.clone();
        lost.handle(at(41), Event::Untold(Id(7), batch(&["t"])));
        for mut core in [core.clone(), lost] {
            for second in 41..120 {
                core.handle(at(second), Event::Tick);
                assert!(core.next().is_none_or(|next| next > at(second)), "at {second}: {:?} of {core:?}", core.next());
            }
        }
    }
}

#[test]
fn a_purge_waits_for_the_longest_lease_of_all() {
    let mut core = leased(at(40), &[OTHER]);
    assert!(core.waits_for(at(30)) && !core.waits_for(at(20)), "the longest, told once");
    assert_eq!(tell(&mut core, at(40), Id(7), &audience(&[name(ME), name(OTHER)], 2)), None);
    assert_eq!(released(&core.handle(at(71), Event::Tick)), None);
    assert_eq!(released(&core.handle(at(72), Event::Tick)), Some(Released::Outlived));
}
