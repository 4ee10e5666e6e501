//! What is proposed, what is not, and what strangers cannot make of it.

use super::*;
use crate::uncached::trail::{TrailEvent, TrailKind, TrailRead};

/// A read every ten seconds, of these digests, with a header of these values.
fn events(reads: impl IntoIterator<Item = (u64, u64)>) -> Vec<TrailEvent> {
    let event = |(number, (digest, value)): (u64, (u64, u64))| {
        let read = TrailRead { headers: [(0, value)].into(), ..TrailRead::example(digest) };
        let (began, at) = (10 * number + 1, 10_000 * number);
        TrailEvent { at, ..TrailEvent::example(began, TrailKind::Read(read)) }
    };
    (0..).zip(reads).map(event).collect()
}

fn visit(event: &TrailEvent) -> Visit<'_> {
    let TrailKind::Read(read) = &event.kind else { panic!("a read") };
    Visit { event, read }
}

fn learned(events: &[TrailEvent], writes: &[TracedWrite<'_>]) -> Result<LearnedRule, String> {
    let reads = events.iter().map(visit).collect();
    let subject = LearningSubject {
        reads,
        related: BTreeSet::new(),
        says_no_cache: false,
        sharing: LearnedSharing::IfSame,
    };
    learn(&subject, writes, &|_| HeaderUse::Unknown)
}

#[test]
fn a_header_that_tells_nothing_apart_is_withheld() {
    let rule = learned(&events((0..60).map(|value| (7, value))), &[]).expect("a rule");
    assert_eq!((rule.dropped, rule.keyed), (vec![0], vec![]));
    assert_eq!((rule.ttl, rule.played.hits, rule.played.stale), (300, 58, 0));
    let few = learned(&events((0..60).map(|number| (7, number % 3))), &[]).expect("a rule");
    assert_eq!((few.dropped, few.keyed), (vec![], vec![0]), "in the key it costs nothing");
}

#[test]
fn a_header_on_which_one_response_depended_stays_in_the_key() {
    let reads = (0..60).map(|value| (if value == 50 { 8 } else { 7 }, value));
    learned(&events(reads), &[]).expect_err("no value comes again");
}

#[test]
fn a_change_needs_a_write_that_explains_it() {
    let reads =
        || events((0..40).map(|number| (u64::from(number > 20), 0)).map(|(d, v)| (d + 1, v)));
    let why = learned(&reads(), &[]).expect_err("nobody explains it");
    assert!(why.contains("without a write") && why.contains("10 s"), "{why}");
    let write = TracedWrite { began: 205, ended: 206, template: 3, groups: &[] };
    let rule = learned(&reads(), &[write]).expect("a rule");
    assert_eq!((rule.causes, rule.changes, rule.played.hits), ([3].into(), 1, 36));
}

#[test]
fn no_response_is_fresh_for_longer_than_one_was_seen_to_stay_the_same() {
    let rule = learned(&events((0..12).map(|_| (7, 0))), &[]).expect("a rule");
    assert_eq!((rule.played.oldest, rule.ttl), (110_000, 60));
}

/// A read every ten seconds of one response by this caller, changed by `change`.
fn reads_with(count: u64, change: impl Fn(u64, &mut TrailRead)) -> Vec<TrailEvent> {
    (0..count)
        .map(|number| {
            let mut read = TrailRead::example(7);
            change(number, &mut read);
            let event = TrailEvent::example(10 * number + 1, TrailKind::Read(read));
            TrailEvent { at: 10_000 * number, ..event }
        })
        .collect()
}

#[test]
fn marks_are_withheld_where_they_told_nothing_apart() {
    let rule = learned(&reads_with(60, |number, read| read.marks = number), &[]).expect("a rule");
    assert!(rule.drops_marks && rule.played.hits > 50, "{rule:?}");
    let few = learned(&reads_with(60, |number, read| read.marks = number % 3), &[]);
    assert!(!few.expect("a rule").drops_marks, "three values are too few");
    let once = reads_with(60, |number, read| {
        read.marks = number;
        read.digest = if number == 50 { 8 } else { 7 };
    });
    learned(&once, &[]).expect_err("one response depended on them, and no value comes again");
}

#[test]
fn r1320_a_header_that_a_few_send_is_not_withheld() {
    // A stranger sends values that the app does not know, and gets the same each time.
    let events = reads_with(200, |number, read| {
        if number % 4 == 0 {
            read.headers = [(0, number)].into();
        }
    });
    let rule = learned(&events, &[]).expect("a rule");
    assert_eq!((rule.dropped, rule.keyed), (vec![], vec![0]));
}

#[test]
fn no_cache_is_overruled_only_by_much_of_several_callers() {
    let play = |count, callers: u64| {
        let events = reads_with(count, |number, read| {
            read.caller = 1 + number % callers;
            read.is_storable = false;
            read.lifetime = Some(0);
        });
        let reads = events.iter().map(visit).collect();
        let subject = LearningSubject {
            reads,
            related: BTreeSet::new(),
            says_no_cache: true,
            sharing: LearnedSharing::IfSame,
        };
        learn(&subject, &[], &|_| HeaderUse::Unknown).map(|rule| rule.overrules)
    };
    assert_eq!(play(60, 3), Ok(true));
    for (count, callers) in [(60, 1), (18, 3)] {
        let why = play(count, callers).expect_err("too little");
        assert!(why.contains("too little was seen to overrule it"), "{why}");
    }
    // What says `no-store` is not storable by any rule.
    let events = reads_with(60, |number, read| {
        read.caller = 1 + number % 3;
        (read.is_storable, read.may_overrule) = (false, false);
    });
    let reads = events.iter().map(visit).collect();
    let subject = LearningSubject {
        reads,
        related: BTreeSet::new(),
        says_no_cache: true,
        sharing: LearnedSharing::IfSame,
    };
    learn(&subject, &[], &|_| HeaderUse::Unknown).expect_err("nothing may be stored");
}

#[test]
fn a_write_that_names_the_group_is_the_cause_and_no_other_is_a_suspect() {
    let events: Vec<TrailEvent> = reads_with(40, |number, read| {
        read.digest = if number > 20 { 8 } else { 7 };
    })
    .into_iter()
    .map(|event| TrailEvent { groups: [5].into(), ..event })
    .collect();
    // One that is no write by its deeds comes between all reads.
    let query = |number: u64| TracedWrite {
        began: 10 * number + 4,
        ended: 10 * number + 5,
        template: 9,
        groups: &[],
    };
    let mut writes: Vec<TracedWrite<'_>> = (0..40).map(query).collect();
    writes.push(TracedWrite { began: 206, ended: 207, template: 3, groups: &[4, 5] });
    writes.sort_unstable();
    let rule = learned(&events, &writes).expect("a rule");
    assert_eq!((rule.causes.len(), rule.by_group, rule.played.stale), (0, 1, 0));
    assert_eq!((rule.ttl, rule.played.hits), (120, 36), "{rule:?}");
    // A group of somebody else explains nothing: the suspects are both.
    for write in &mut writes {
        write.groups = if write.groups.is_empty() { &[] } else { &[4] };
    }
    let rule = learned(&events, &writes).expect("a rule");
    assert!(rule.causes.contains(&3) && rule.by_group == 0, "{rule:?}");
}

#[test]
fn headers_of_a_trusted_proxy_are_in_the_key() {
    let events = reads_with(60, |number, read| read.headers = [(0, number % 2)].into());
    let reads: Vec<_> = events.iter().map(visit).collect();
    let subject = LearningSubject {
        reads,
        related: BTreeSet::new(),
        says_no_cache: false,
        sharing: LearnedSharing::IfSame,
    };
    let rule = learn(&subject, &[], &|_| HeaderUse::Forwarded).expect("a rule");
    assert_eq!((rule.played.hits, rule.keyed.len()), (56, 0), "{rule:?}");
    learn(&subject, &[], &|_| HeaderUse::Left).expect_err("all requests with it pass");
}
