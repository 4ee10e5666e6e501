//! What the journal guarantees, without a file.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

pub(super) fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| Tag::new(name)).collect()
}

pub(super) fn intend(id: &str, names: &[&str]) -> JournalLine {
    JournalLine::Intend { id: id.into(), tags: tags(names) }
}

pub(super) fn withdraw(id: &str) -> JournalLine {
    JournalLine::Withdraw { id: id.into() }
}

pub(super) fn purge(names: &[&str]) -> JournalLine {
    JournalLine::Purge { tags: tags(names) }
}

/// What is to be replayed, sorted by name.
#[derive(Debug, PartialEq)]
pub(super) enum Left {
    Tags(Vec<String>),
    Everything,
}

/// What is to be replayed after a crash.
pub(super) fn left_by(lines: &[JournalLine]) -> Left {
    left(&Journal::recovered(lines))
}

fn left(journal: &Journal) -> Left {
    let batch = journal.batch();
    let mut names: Vec<String> = batch.tags.iter().map(ToString::to_string).collect();
    names.sort();
    if batch.everything { Left::Everything } else { Left::Tags(names) }
}

pub(super) fn names(names: &[&str]) -> Left {
    Left::Tags(names.iter().map(ToString::to_string).collect())
}

#[test]
fn a_mutation_under_way_is_not_replayed_and_counts_after_a_crash() {
    let lines = [
        intend("1", &["a", "b"]),
        intend("2", &["c"]),
        withdraw("2"),
        purge(&["d"]),
        withdraw("none"),
    ];
    let journal = Journal::from_lines(&lines);
    assert_eq!((left(&journal), journal.depth()), (names(&["d"]), 1));
    assert_eq!(left_by(&lines), names(&["a", "b", "d"]));
    assert!(Journal::from_lines(&lines[..1]).depth() == 0, "a rejoin does not wait for it");
}

#[test]
fn an_intention_of_a_dead_sidecar_is_not_withdrawn_by_a_mutation_of_the_same_id() {
    assert_eq!(
        left_by(&[intend("1", &["old"]), intend("1", &["new"]), withdraw("1")]),
        names(&["old"])
    );
}

#[test]
fn what_comes_while_a_batch_is_on_its_way_outlives_it() {
    let mut journal = Journal::from_lines(&[purge(&["a", "b"]), intend("1", &["c"])]);
    let batch = journal.batch();
    journal.apply(&purge(&["b"]));
    journal.replayed(&batch);
    assert_eq!(left(&journal), names(&["b"]));
    assert_eq!(left_by(&journal.lines()), names(&["b", "c"]), "mutations in progress stay");

    let mut journal = Journal::from_lines(&[purge(&["a"]), JournalLine::Everything]);
    let batch = journal.batch();
    assert_eq!((batch.everything, batch.tags.len()), (true, 0));
    journal.apply(&purge(&["b"]));
    assert_eq!(left(&journal), Left::Everything);
    journal.replayed(&batch);
    assert_eq!(left(&journal), names(&["b"]));
    journal.apply(&JournalLine::Everything);
    let batch = journal.batch();
    journal.apply(&JournalLine::Everything);
    journal.replayed(&batch);
    assert_eq!(left(&journal), Left::Everything, "the second purge is not in the batch");
}

#[test]
fn beyond_the_bound_it_is_everything_and_takes_no_room() {
    let many: Vec<Tag> = (0..MAX_TAGS).map(|number| Tag::new(&number.to_string())).collect();
    let mut journal = Journal::default();
    journal.apply(&JournalLine::Purge { tags: many.clone() });
    journal.apply(&JournalLine::Purge { tags: many.clone() });
    assert_eq!(
        (journal.depth(), journal.batch().everything),
        (MAX_TAGS, false),
        "the same tags again take no more space"
    );
    journal.apply(&purge(&["one more"]));
    assert_eq!((journal.depth(), journal.batch().everything), (1, true));

    let mut journal = Journal::default();
    journal.apply(&JournalLine::Intend { id: "1".into(), tags: many });
    journal.apply(&intend("2", &["one more"]));
    assert_eq!(journal.open_tags, MAX_TAGS);
    assert!(journal.depth() == 0);
    let after_crash = Journal::recovered(&journal.lines());
    assert!(
        after_crash.batch().everything,
        "one intended mutation too many counts as everything, in a file too"
    );
    journal.apply(&withdraw("2"));
    journal.apply(&withdraw("1"));
    assert_eq!((journal.open_tags, journal.depth() == 0, journal.lines().len()), (0, true, 0));
}

#[test]
fn a_line_with_any_flaw_is_not_read() {
    let mut bytes = Vec::new();
    text::encode(&intend("1-a", &["a b", "", "100%"]), &mut bytes);
    assert_eq!(
        String::from_utf8_lossy(&bytes).split_once(' ').map(|parts| parts.1),
        Some("intend 1-a a%20b  100%25\n")
    );
    let line = bytes.strip_suffix(b"\n").expect("its end");
    assert!(text::decode(line).is_some());
    for at in 0..line.len() {
        assert_eq!(text::decode(&line[..at]), None, "cut at {at}");
        for bit in 0..8 {
            let mut flawed = line.to_vec();
            flawed[at] ^= 1 << bit;
            assert_eq!(text::decode(&flawed), None, "bit {bit} of byte {at}");
        }
    }
}

fn any_name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![any::<char>(), Just(' '), Just('%'), Just('\n')], 0..20)
        .prop_map(String::from_iter)
}

fn any_line() -> impl Strategy<Value = JournalLine> {
    let tags = || prop::collection::vec(any_name().prop_map(|name| Tag::new(&name)), 0..4);
    // Few ids, so that they collide.
    let id = || prop_oneof!["[ab]", any_name()].prop_map(String::into_boxed_str);
    prop_oneof![
        4 => (id(), tags()).prop_map(|(id, tags)| JournalLine::Intend { id, tags }),
        4 => id().prop_map(|id| JournalLine::Withdraw { id }),
        4 => tags().prop_map(|tags| JournalLine::Purge { tags }),
        1 => Just(JournalLine::Everything),
    ]
}

proptest! {
    #[test]
    fn a_line_is_read_as_it_was_written(line in any_line()) {
        let mut bytes = Vec::new();
        text::encode(&line, &mut bytes);
        let end = bytes.iter().position(|byte| *byte == b'\n');
        prop_assert_eq!(end, Some(bytes.len() - 1), "one line break, at the end");
        prop_assert_eq!(text::decode(&bytes[..bytes.len() - 1]), Some(line));
    }

    #[test]
    fn its_own_lines_make_the_same_journal(lines in prop::collection::vec(any_line(), 0..12)) {
        let journal = Journal::from_lines(&lines);
        let again = Journal::from_lines(&journal.lines());
        prop_assert_eq!(left(&again), left(&journal));
        prop_assert_eq!(left_by(&journal.lines()), left_by(&lines));
        let ids = |journal: &Journal| journal.open.keys().cloned().collect::<HashSet<_>>();
        prop_assert_eq!(ids(&again), ids(&journal));
    }
}
