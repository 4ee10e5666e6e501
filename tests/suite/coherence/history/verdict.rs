//! What is demanded of a run that has ended.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::history::{History, Operation, Violation, Window};

/// How many hits and writes there must be before a fault and after it, each time: a tenth of what a
/// quiet machine does, and enough to show that there was a cache and that it was written past.
pub const HITS: usize = 30;
const WRITES: usize = 5;
/// During a fault a write may have to wait for as long as a lease: one for each writer is what
/// there is in any case.
pub const WRITES_IN_FAULT: usize = 2;

/// The times of one fault.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// All was well from here,
    pub begun: Instant,
    /// to here, where it broke.
    pub broken: Instant,
    /// Where it was healed.
    pub healed: Instant,
    /// Where every sidecar had had a hit again.
    pub hit_again: Instant,
    /// The end.
    pub over: Instant,
}

/// A run that has ended.
pub struct Ended {
    /// All its requests.
    pub history: History,
    /// Its faults.
    pub rounds: Vec<Round>,
    /// What was not the newest when everything was over.
    pub late: Vec<String>,
    /// How many writes there must be during a fault.
    pub writes_in_fault: usize,
}

impl Ended {
    /// No read was stale, all was newest at the end, every request was answered, and the run has
    /// shown something.
    #[track_caller]
    pub fn is_coherent(&self) {
        self.is_coherent_but(|_, _| false, |_, _| false);
    }

    /// The same, but these stale reads and these errors of the round to which they belong are as
    /// promised.
    #[track_caller]
    pub fn is_coherent_but(
        &self,
        stale: impl Fn(&Violation, &Round) -> bool,
        failed: impl Fn(&Operation, &Round) -> bool,
    ) {
        self.tell();
        for round in &self.rounds {
            self.history.must_have(
                "before the fault",
                Window { from: round.begun, to: round.broken },
                HITS,
                WRITES,
            );
            self.history.must_have(
                "during the fault",
                Window { from: round.broken, to: round.healed },
                0,
                self.writes_in_fault,
            );
            self.history.must_have(
                "after the fault",
                Window { from: round.healed, to: round.over },
                HITS,
                WRITES,
            );
        }
        let stale_reads = self.history.stale_reads();
        let blamed: Vec<_> = stale_reads
            .iter()
            .filter(|one| !stale(one, self.round_of(&one.read)))
            .map(|one| self.placed(&one.read, one))
            .collect();
        none("reads were stale", &blamed);
        none("keys were not the newest in the end", &self.late);
        let errors = self.history.operations().iter().filter(|operation| !operation.succeeded());
        let errors = errors.filter(|operation| !failed(operation, self.round_of(operation)));
        let told = errors.map(|one| {
            self.placed(
                one,
                &format!(
                    "{:?} of `{}` through {}: {} {}",
                    one.kind, one.key, one.through, one.status, one.said
                ),
            )
        });
        none("requests failed", &told.collect::<Vec<_>>());
    }

    fn tell(&self) {
        println!("all: {:?}", self.history.counts(None));
        for round in &self.rounds {
            let counts = self.history.counts(Some(Window { from: round.broken, to: round.healed }));
            println!(
                "during {:?} of fault: {counts:?}; hits again {:?} after it",
                round.healed - round.broken,
                round.hit_again - round.healed
            );
        }
        let slowest =
            self.history.operations().iter().map(|operation| operation.done - operation.sent).max();
        println!("the slowest request took {:?}", slowest.unwrap_or_default());
        let stale = self.history.stale_reads();
        let oldest = stale.iter().map(Violation::age).max().unwrap_or_default();
        println!("{} stale reads, the oldest outdated for {oldest:?}", stale.len());
    }

    /// The round in which a request was sent: the last that had begun.
    fn round_of(&self, operation: &Operation) -> &Round {
        let begun = self.rounds.iter().rev().find(|round| round.begun <= operation.sent);
        begun.or(self.rounds.first()).expect("a run has a round")
    }

    fn placed(&self, operation: &Operation, what: &impl Display) -> String {
        let round = self.round_of(operation);
        let since = |moment: Instant| {
            let (before, after) =
                (moment.duration_since(operation.sent), operation.sent.duration_since(moment));
            if before > Duration::ZERO {
                format!("{before:?} before")
            } else {
                format!("{after:?} after")
            }
        };
        format!(
            "sent {} the fault and {} the healing, took {:?}: {what}",
            since(round.broken),
            since(round.healed),
            operation.done - operation.sent
        )
    }
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(
        found.is_empty(),
        "{} {what}, the first of them:\n{}",
        found.len(),
        found[..found.len().min(10)].join("\n")
    );
}
