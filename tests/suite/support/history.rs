//! The history of a run, and its judge: every read and write with the times between which it
//! happened, and which reads were stale.
//!
//! Stale is a read whose value is older than one whose write had been answered, wholly, before the
//! read was sent. What overlaps may come in any order, so a read that was under way while the write
//! was answered is never blamed. All times come from one monotonic clock.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It asks for the value of a key.
    Read,
    /// It changes it.
    Write,
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// The key.
    pub key: Arc<str>,
    /// The version that was read, or that the write made; `None` when the answer does not say.
    pub version: Option<u64>,
    /// Before its first byte was sent.
    pub sent: Instant,
    /// After the last byte of the answer was received.
    pub done: Instant,
    /// The number of the sidecar it went through.
    pub through: usize,
    /// The answer's status; 0 when there was no answer.
    pub status: u16,
    /// Whether the answer came from the cache.
    pub hit: bool,
    /// What the answer, or the failure, said of itself.
    pub said: Arc<str>,
}

impl Operation {
    /// Whether it was answered as asked.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status) && self.version.is_some()
    }
}

/// Where operations are noted as they end.
#[derive(Default)]
pub struct Log {
    operations: Mutex<Vec<Operation>>,
    /// The same few sentences come again and again: each is kept once.
    sayings: Mutex<HashSet<Arc<str>>>,
}

impl Log {
    /// Notes an operation.
    pub fn push(&self, mut operation: Operation) {
        {
            let mut sayings = lock(&self.sayings);
            match sayings.get(&operation.said) {
                Some(kept) => operation.said = Arc::clone(kept),
                None => drop(sayings.insert(Arc::clone(&operation.said))),
            }
        }
        lock(&self.operations).push(operation);
    }

    /// Whether a read through this sidecar, sent since then, was a hit.
    pub fn hit_since(&self, since: Instant, through: usize) -> bool {
        let operations = lock(&self.operations);
        // They are in the order of their ends, or nearly so.
        let latest = operations.iter().rev().take_while(|operation| operation.done >= since);
        latest
            .filter(|operation| operation.through == through && operation.sent >= since)
            .any(|operation| operation.hit)
    }

    /// How many writes that were sent since then were answered.
    pub fn writes_since(&self, since: Instant) -> usize {
        let operations = lock(&self.operations);
        operations
            .iter()
            .filter(|operation| {
                operation.kind == Kind::Write && operation.sent >= since && operation.succeeded()
            })
            .count()
    }

    /// How many reads that were sent since then were hits.
    pub fn hits_since(&self, since: Instant) -> usize {
        let operations = lock(&self.operations);
        operations.iter().filter(|operation| operation.hit && operation.sent >= since).count()
    }

    /// Whether a write of this key that was sent since then was answered.
    pub fn written_since(&self, since: Instant, key: &str) -> bool {
        let operations = lock(&self.operations);
        let latest = operations.iter().rev().take_while(|operation| operation.done >= since);
        let mut writes = latest.filter(|one| one.kind == Kind::Write && &*one.key == key);
        writes.any(|one| one.sent >= since && one.succeeded())
    }

    /// All that has been noted so far.
    pub fn history(&self) -> History {
        History { operations: lock(&self.operations).clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with the lock held")
}

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its beginning.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
}

/// How many operations there were of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that were answered with a version.
    pub reads: usize,
    /// Those of them that were hits.
    pub hits: usize,
    /// Writes that were answered with the version they made.
    pub writes: usize,
    /// Answers of 500 and above.
    pub server_errors: usize,
    /// Requests without any answer, and answers that make no sense.
    pub failures: usize,
}

/// A read that was older than it may be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The read.
    pub read: Operation,
    /// The writes it should have seen, the one that was answered first in front.
    pub missed: Vec<Operation>,
}

impl Violation {
    /// For how long the value had been outdated when the read was sent.
    pub fn age(&self) -> Duration {
        self.missed
            .first()
            .map_or(Duration::ZERO, |write| self.read.sent.duration_since(write.done))
    }

    /// Whether all the writes that it missed had gone through this sidecar.
    pub fn missed_only_writes_through(&self, sidecar: usize) -> bool {
        self.missed.iter().all(|write| write.through == sidecar)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = &self.read;
        let writes: Vec<_> = self
            .missed
            .iter()
            .map(|write| format!("{:?} by {}", write.version.unwrap_or(0), write.through))
            .collect();
        let (age, version) = (self.age(), read.version.unwrap_or(0));
        write!(
            f,
            "`{}` read as {version} through {}, outdated for {age:?} ({}); missed {}",
            read.key,
            read.through,
            read.said,
            writes.join(", ")
        )
    }
}

/// What happened in a run.
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// A history made up of these operations.
    pub fn of(operations: Vec<Operation>) -> Self {
        Self { operations }
    }

    /// All operations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations of each sort were sent within this time; all of them without one.
    pub fn counts(&self, window: Option<Window>) -> Counts {
        let mut counts = Counts::default();
        for operation in &self.operations {
            if window
                .is_some_and(|window| operation.sent < window.from || operation.sent >= window.to)
            {
                continue;
            }
            match operation.kind {
                _ if operation.status >= 500 => counts.server_errors += 1,
                _ if !operation.succeeded() => counts.failures += 1,
                Kind::Read => {
                    counts.reads += 1;
                    counts.hits += usize::from(operation.hit);
                }
                Kind::Write => counts.writes += 1,
            }
        }
        counts
    }

    /// Every stale read, in the order in which they were sent.
    pub fn stale_reads(&self) -> Vec<Violation> {
        let mut writes: HashMap<&str, Vec<&Operation>> = HashMap::new();
        for write in self
            .operations
            .iter()
            .filter(|operation| operation.kind == Kind::Write && operation.succeeded())
        {
            writes.entry(&write.key).or_default().push(write);
        }
        // Beside each write the newest version among those up to it: a search per read, not a walk,
        // so that an hour's run is judged too.
        let mut newest: HashMap<&str, Vec<Option<u64>>> = HashMap::new();
        for (key, written) in &mut writes {
            written.sort_by_key(|write| write.done);
            let so_far = written.iter().scan(None, |so_far, write| {
                *so_far = write.version.max(*so_far);
                Some(*so_far)
            });
            newest.insert(key, so_far.collect());
        }
        let reads = self
            .operations
            .iter()
            .filter(|operation| operation.kind == Kind::Read && operation.succeeded());
        let mut violations: Vec<Violation> = reads
            .filter_map(|read| {
                let written = writes.get(&*read.key)?;
                let before = written.partition_point(|write| write.done < read.sent);
                let stale = before > 0 && newest[&*read.key][before - 1] > read.version;
                let missed = || {
                    written[..before]
                        .iter()
                        .filter(|write| write.version > read.version)
                        .map(|write| (*write).clone())
                };
                stale.then(|| Violation { read: read.clone(), missed: missed().collect() })
            })
            .collect();
        violations.sort_by_key(|violation| violation.read.sent);
        violations
    }

    /// Fails when so few hits or writes were sent within this time that the run has shown nothing.
    #[track_caller]
    pub fn must_have(&self, what: &str, window: Window, hits: usize, writes: usize) {
        let counts = self.counts(Some(window));
        let enough = counts.hits >= hits && counts.writes >= writes;
        assert!(
            enough,
            "{what}, the run shows nothing without {hits} hits and {writes} writes: {counts:?}"
        );
    }
}
