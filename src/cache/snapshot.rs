//! The snapshot of the memory tier: a process writes it to a file at its end, and the next one
//! reads it at its start.
//!
//! Owns what is written, when it counts, and the file. Knows nothing of routes but their
//! fingerprints, and nothing of requests.
//!
//! Invariants:
//! 1. *Never stale.* With Redis, what is restored keeps the stamp that it was stored with, and no
//!    lease vouches for it: its first use reads the records of its tags, as for an entry in Redis.
//!    Without Redis writes may have gone by while nobody listened, so it is never fresh, has no
//!    window in which it could be served stale, and is of use only once the origin has confirmed it
//!    with a 304. What the origin cannot confirm is left out. A purge in the new process ends it as
//!    it ends every entry.
//! 2. *Never fresh for longer.* With Redis, entries are dated by the clock of Redis at both ends,
//!    at the earliest by the writer and at the latest by the reader. Without Redis nothing is
//!    fresh, so no clock matters.
//! 3. *Never of somebody else.* The canonical key is restored and compared on every hit. The file
//!    counts only for the same origin, Redis, secret and version ([`SnapshotKey`]), and each entry
//!    only while a route with its policy exists. What is stored for one client is left out.
//! 4. *All or nothing.* Nothing of a file is used unless all of it is authentic and whole.
//! 5. *Once.* The name of the file is gone from the disk before the file is read, so that a crash
//!    later cannot bring back what is old by then. Nothing but a snapshot is ever removed or
//!    replaced.
//! 6. *Never in the way.* Size and time are bounded; whatever goes wrong costs one line in the log
//!    and what would have been restored.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::key;
use crate::telemetry::metrics::Counter;

pub use crate::cache::snapshot::format::SnapshotKey;
pub use crate::cache::snapshot::restore::{ReadSnapshot, SnapshotSource, insert, read};
pub use crate::cache::snapshot::save::{SnapshotTarget, save};

mod file;
mod format;
mod restore;
mod save;

/// `snapshot` and its limits, of `[memory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The file.
    pub path: PathBuf,
    /// The largest file, in bytes.
    pub size: u64,
    /// How long writing and reading may take, each.
    pub time: Duration,
}

/// How entries of a snapshot are proven current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProver {
    /// The origin confirms them.
    Origin,
    /// The records in Redis do.
    Records,
}

macro_rules! labels {
    (
        $(#[$comment:meta])*
        $name:ident { $($(#[$about:meta])* $variant:ident = $label:literal,)+ }
    ) => {
        $(#[$comment])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in logs and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// Why an entry is not written, or not restored.
    LeftOut {
        /// It is not fresh.
        Stale = "stale",
        /// It was purged, or its tags are in doubt.
        Purged = "purged",
        /// It is stored for one client.
        Client = "client",
        /// The origin could not confirm it: no validator, or no 200.
        Validator = "no_validator",
        /// No route has the policy by which it was stored.
        Route = "route",
        /// It exceeds `memory.snapshot_size`, the memory tier, or what one entry may take.
        Size = "size",
        /// `memory.snapshot_time` was over.
        Time = "time",
    }
}

labels! {
    /// Why a whole file is not used, or not written.
    SnapshotRefusal {
        /// It cannot be read or written.
        Disk = "disk",
        /// It is a link, no regular file, or others than this user may read or change it.
        Unsafe = "unsafe",
        /// It is something else than a snapshot.
        Foreign = "foreign",
        /// Another version wrote it.
        Version = "version",
        /// It is of another origin, Redis, secret, or scheme of keys.
        Configuration = "configuration",
        /// It is larger than `memory.snapshot_size`.
        TooLarge = "too_large",
        /// It is damaged, not whole, or was not written by this sidecar.
        Broken = "broken",
        /// `memory.snapshot_time` was over.
        Time = "time",
        /// Redis is not in use, so that nothing can be dated and proven.
        Redis = "redis",
    }
}

/// Why there is no snapshot, for the log.
#[derive(Debug)]
pub struct SnapshotError {
    /// The kind.
    pub refusal: SnapshotRefusal,
    /// What is wrong, and how to mend it.
    pub why: String,
}

impl SnapshotError {
    fn new(refusal: SnapshotRefusal, why: impl Into<String>) -> Self {
        Self { refusal, why: why.into() }
    }

    /// It took too long.
    #[must_use]
    pub fn too_slow(within: Duration) -> Self {
        let limit = crate::units::show_duration(within);
        let why = format!("it took longer than [memory] snapshot_time ({limit})");
        Self::new(SnapshotRefusal::Time, why)
    }

    /// Redis is not in use.
    #[must_use]
    pub fn without_redis() -> Self {
        Self::new(SnapshotRefusal::Redis, "Redis is not in use, and its records have to be read")
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        let hint = "[memory] snapshot must name a file in a folder that this user can write to";
        Self::new(SnapshotRefusal::Disk, format!("{error}; {hint}"))
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Counts of what became of snapshots.
#[derive(Debug)]
pub struct SnapshotCounters {
    /// Entries restored.
    pub restored: Arc<Counter>,
    /// Entries written.
    pub written: Arc<Counter>,
    /// Files refused or not written, by [`SnapshotRefusal`].
    pub refused: Vec<Arc<Counter>>,
    /// Entries left out, by [`LeftOut`].
    pub left_out: Vec<Arc<Counter>>,
    /// How often a snapshot reached its largest size.
    pub size_reached: Arc<Counter>,
    /// How often writing or reading one took too long.
    pub time_reached: Arc<Counter>,
}

impl Default for SnapshotCounters {
    fn default() -> Self {
        Self {
            restored: Arc::default(),
            written: Arc::default(),
            refused: SnapshotRefusal::ALL.iter().map(|_| Arc::default()).collect(),
            left_out: LeftOut::ALL.iter().map(|_| Arc::default()).collect(),
            size_reached: Arc::default(),
            time_reached: Arc::default(),
        }
    }
}

impl SnapshotCounters {
    /// Counts a file that is not used or not written.
    pub fn refuse(&self, refusal: SnapshotRefusal) {
        self.refused[refusal as usize].inc();
        match refusal {
            SnapshotRefusal::TooLarge => self.size_reached.inc(),
            SnapshotRefusal::Time => self.time_reached.inc(),
            _ => {}
        }
    }

    /// Counts the entries that were left out.
    pub fn add(&self, omissions: &Omissions) {
        for (counter, count) in self.left_out.iter().zip(omissions.0) {
            counter.add(count);
        }
    }
}

/// How many entries were left out, by [`LeftOut`]. Shows as "stale 3, client 2".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omissions([u64; LeftOut::ALL.len()]);

impl Omissions {
    fn note(&mut self, why: LeftOut, entries: u64) {
        self.0[why as usize] += entries;
    }

    /// How many were left out for this reason.
    #[must_use]
    pub const fn count(&self, why: LeftOut) -> u64 {
        self.0[why as usize]
    }
}

impl fmt::Display for Omissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = LeftOut::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0);
        let words: Vec<String> =
            some.map(|(why, count)| format!("{} {count}", why.as_str())).collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// The policies of the routes, by which entries are judged.
#[derive(Debug)]
pub struct SnapshotRoutes(HashMap<[u8; 8], bool>);

impl SnapshotRoutes {
    /// Each route's fingerprint, and whether a field of its key identifies a client.
    pub fn new(routes: impl Iterator<Item = ([u8; 8], bool)>) -> Self {
        Self(routes.collect())
    }

    /// Whether what is stored under this key may be in a snapshot.
    ///
    /// SECURITY: what is stored for one client stays in memory.
    fn judge(&self, canonical: &[u8]) -> Result<(), LeftOut> {
        let route = key::route_of(canonical).and_then(|route| self.0.get(&route));
        match route {
            None => Err(LeftOut::Route),
            Some(identifies) if *identifies || key::names_client(canonical) => Err(LeftOut::Client),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
