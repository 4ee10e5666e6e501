//! The judge is judged: with histories that are made up, where it is known what is stale.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::history::{Counts, History, Kind, Log, Operation, Window};

/// Operations on one clock, in milliseconds from its start.
struct Made {
    start: Instant,
    operations: Vec<Operation>,
}

impl Made {
    fn new() -> Self {
        Self { start: Instant::now(), operations: Vec::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(mut self, kind: Kind, key: &str, version: u64, sent: u64, done: u64) -> Self {
        let (sent, done) = (self.at(sent), self.at(done));
        let (key, said) = (Arc::from(key), Arc::from("made up"));
        self.operations.push(Operation {
            kind,
            key,
            version: Some(version),
            sent,
            done,
            through: 0,
            status: 200,
            hit: false,
            said,
        });
        self
    }

    fn write(self, key: &str, version: u64, sent: u64, done: u64) -> Self {
        self.push(Kind::Write, key, version, sent, done)
    }

    fn read(self, key: &str, version: u64, sent: u64, done: u64) -> Self {
        self.push(Kind::Read, key, version, sent, done)
    }

    /// The same with something else about the last operation.
    fn but(mut self, change: impl FnOnce(&mut Operation)) -> Self {
        change(self.operations.last_mut().expect("there is an operation to change"));
        self
    }

    fn history(&self) -> History {
        History::of(self.operations.clone())
    }

    /// Of each stale read: its key, what it read, for how many milliseconds that was outdated, and
    /// which versions it missed.
    fn stale(&self) -> Vec<(String, u64, u128, Vec<u64>)> {
        let violations = self.history().stale_reads();
        let missed =
            |writes: &[Operation]| writes.iter().filter_map(|write| write.version).collect();
        let told = violations.iter().map(|one| {
            (
                one.read.key.to_string(),
                one.read.version.unwrap_or(0),
                one.age().as_millis(),
                missed(&one.missed),
            )
        });
        told.collect()
    }
}

#[test]
fn a_read_sent_after_a_write_was_answered_must_see_it() {
    let made = Made::new()
        .write("a", 1, 0, 10)
        .write("a", 2, 20, 30)
        .read("a", 1, 35, 40)
        .read("a", 2, 35, 40)
        .read("a", 3, 35, 40);
    assert_eq!(made.stale(), [("a".to_owned(), 1, 5, vec![2])]);
}

#[test]
fn a_read_that_overlaps_a_write_may_see_either() {
    let made = Made::new()
        .write("a", 1, 0, 10)
        .write("a", 2, 20, 30)
        .read("a", 1, 29, 90)
        .read("a", 1, 30, 90)
        .read("a", 2, 21, 25);
    assert_eq!(made.stale(), []);
}

#[test]
fn a_stale_read_is_as_old_as_the_first_write_that_it_missed() {
    let made = Made::new()
        .write("a", 3, 10, 50)
        .write("a", 2, 5, 20)
        .write("a", 4, 55, 60)
        .write("a", 1, 0, 3)
        .read("a", 1, 100, 101);
    assert_eq!(made.stale(), [("a".to_owned(), 1, 80, vec![2, 3, 4])]);
}

#[test]
fn an_older_write_that_is_answered_last_hides_no_newer_one() {
    let made = Made::new().write("a", 2, 0, 10).write("a", 1, 0, 20).read("a", 1, 30, 31);
    assert_eq!(made.stale(), [("a".to_owned(), 1, 20, vec![2])]);
}

#[test]
fn keys_have_nothing_to_do_with_each_other() {
    let made = Made::new()
        .write("a", 9, 0, 10)
        .read("b", 0, 20, 30)
        .write("b", 1, 25, 35)
        .read("b", 0, 36, 40);
    assert_eq!(made.stale(), [("b".to_owned(), 0, 1, vec![1])]);
}

#[test]
fn a_write_that_was_not_answered_binds_nobody() {
    let refused =
        Made::new().write("a", 1, 0, 10).but(|write| write.status = 503).read("a", 0, 20, 30);
    assert_eq!(refused.stale(), []);
    let lost = Made::new()
        .write("a", 1, 0, 10)
        .but(|write| (write.status, write.version) = (0, None))
        .read("a", 0, 20, 30);
    assert_eq!(lost.stale(), []);
}

#[test]
fn a_read_that_failed_is_no_stale_read_but_an_error() {
    let made = Made::new().write("a", 1, 0, 10).read("a", 0, 20, 30).but(|read| read.status = 502);
    assert_eq!(made.stale(), []);
    let mute = made.read("a", 0, 20, 30).but(|read| (read.status, read.version) = (0, None));
    assert_eq!(mute.stale(), []);
    let counts = mute.history().counts(None);
    assert_eq!(counts, Counts { reads: 0, hits: 0, writes: 1, server_errors: 1, failures: 1 });
}

#[test]
fn a_violation_knows_whose_writes_it_missed() {
    let made = Made::new().write("a", 1, 0, 10).but(|write| write.through = 2).read("a", 0, 20, 30);
    let foreign = made.history().stale_reads().remove(0);
    assert!(
        foreign.missed_only_writes_through(2) && !foreign.missed_only_writes_through(0),
        "{foreign}"
    );
    let both = made.write("a", 2, 11, 12).history().stale_reads().remove(0);
    assert!(!both.missed_only_writes_through(2), "{both}");
}

#[test]
fn counts_are_of_what_was_sent_within_the_time() {
    let made = Made::new()
        .read("a", 0, 0, 50)
        .but(|read| read.hit = true)
        .write("a", 1, 10, 12)
        .read("a", 1, 20, 21)
        .read("a", 1, 30, 31);
    let window = Window { from: made.at(10), to: made.at(30) };
    assert_eq!(
        made.history().counts(Some(window)),
        Counts { reads: 1, writes: 1, ..Counts::default() }
    );
    assert_eq!(
        made.history().counts(None),
        Counts { reads: 3, hits: 1, writes: 1, ..Counts::default() }
    );
}

#[test]
fn a_run_without_hits_is_void() {
    let made = Made::new().write("a", 1, 0, 1).read("a", 1, 2, 3);
    made.history().must_have("made up", Window { from: made.at(0), to: made.at(9) }, 0, 1);
    let void = std::panic::catch_unwind(|| {
        made.history().must_have("made up", Window { from: made.at(0), to: made.at(9) }, 1, 0);
    });
    assert!(void.is_err(), "no read was a hit");
}

#[test]
fn a_run_without_writes_is_void() {
    let made = Made::new().read("a", 1, 2, 3).but(|read| read.hit = true);
    made.history().must_have("made up", Window { from: made.at(0), to: made.at(9) }, 1, 0);
    let void = std::panic::catch_unwind(|| {
        made.history().must_have("made up", Window { from: made.at(0), to: made.at(9) }, 0, 1);
    });
    assert!(void.is_err(), "nothing was written");
}

#[test]
fn the_log_knows_who_had_a_hit_since_when() {
    let made = Made::new()
        .read("a", 1, 0, 5)
        .but(|read| read.hit = true)
        .read("a", 1, 10, 15)
        .but(|read| read.through = 1);
    let log = Log::default();
    made.operations.iter().cloned().for_each(|operation| log.push(operation));
    assert!(log.hit_since(made.at(0), 0) && !log.hit_since(made.at(1), 0), "sent at 0");
    assert!(!log.hit_since(made.at(0), 1), "a miss");
    assert_eq!(log.history().operations().len(), 2);
}
