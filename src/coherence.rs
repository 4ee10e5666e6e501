//! Coherence: what proves an entry current, and what makes it no longer so. On one sidecar, or on several that share a Redis.
//!
//! Invariants:
//! 1. *A purge kills every fill it overlaps.* A fill reads the state of its tags before the app is asked ([`Coherence::read_local`],
//!    `Store::consult`); [`Coherence::commit`] refuses what was read before a purge of any of its tags, those named by the response
//!    included.
//! 2. *A proof is bound to the way it was made.* A local proof ends when Redis comes back, and one from Redis ends when it is lost: by
//!    the epoch, which moves at every such change.
//! 3. *A purge is never forgotten.* Either Redis has it when [`Coherence::committed`] returns, or the journal has it and nothing that
//!    Redis vouches for is served by this sidecar until it was replayed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::coherence::record::Reading;
use crate::coherence::shared::Shared;
use crate::coherence::table::{Cell, Guarded, Table};
use crate::entry::Stamp;
use crate::metrics::Counter;
use crate::outcome::Reason;
use crate::store::redis::{CallError, OnLoss, Writes};
use crate::tag::Tag;

mod keeper;
pub mod record;
pub mod shared;
pub mod table;

/// After so many missed deadlines in a row Redis counts as lost; a broken connection counts at once.
const MISSES: u32 = 3;

/// How many tags the journal holds; beyond that the whole cache is emptied at the rejoin.
const JOURNAL: usize = 100_000;

/// What coherence rests on at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No Redis is configured: the local table is the truth.
    Local,
    /// The records in Redis are the truth.
    Shared,
    /// Redis is lost: the local table holds for what this sidecar fills itself, for a short time.
    Degraded,
}

/// What must still be true for an entry to be served.
#[derive(Debug)]
pub enum Proof {
    /// The cells of its tags say what they said.
    Local(LocalProof),
    /// The records of its tags in Redis say what they said.
    Shared(Stamp),
}

/// A proof by the local table.
#[derive(Debug)]
pub struct LocalProof {
    epoch: u64,
    generation: u64,
    /// Inline for the usual few: a hit should not have to look for them.
    cells: SmallVec<[(Arc<Cell>, u64); 3]>,
    /// The end of trust, when Redis is lost.
    until: Option<Instant>,
}

impl Proof {
    /// How much memory it takes beside the entry.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            // A cell with its name in the table, shared by some entries.
            Self::Local(local) => local.cells.len() * 160,
            Self::Shared(stamp) => stamp.tags.iter().map(|(tag, _)| tag.as_str().len() + 48).sum(),
        }
    }
}

/// The state of some tags before the app is asked.
#[derive(Clone, Debug)]
pub enum Read {
    /// By the local table.
    Local(LocalRead),
    /// By Redis, in this epoch.
    Shared(u64, Reading),
    /// Nothing could be read: what is fetched is not stored.
    Unproven,
}

/// A reading of the local table.
#[derive(Clone, Debug)]
pub struct LocalRead {
    epoch: u64,
    generation: u64,
    seq: u64,
    cells: Vec<(Tag, Arc<Cell>, u64)>,
    at: Instant,
}

impl Read {
    /// Whether a request that read this may be answered from a fill that read `fill`. `more_tags` says whether the fill's response
    /// carries tags beside those read: of these it can only be said that no purge at all came between.
    #[must_use]
    pub fn may_join(&self, fill: &Self, more_tags: bool) -> bool {
        match (self, fill) {
            (Self::Local(one), Self::Local(two)) => {
                let same_step = one.seq == two.seq;
                one.epoch == two.epoch
                    && one.generation == two.generation
                    && one.cells.len() == two.cells.len()
                    && one.cells.iter().zip(&two.cells).all(|((a, _, at), (b, _, then))| a == b && at == then)
                    && (same_step || !more_tags)
            }
            (Self::Shared(epoch, one), Self::Shared(then, two)) => {
                epoch == then && one.agrees_with(two) && ((one.seq.is_some() && one.seq == two.seq) || !more_tags)
            }
            _ => false,
        }
    }
}

impl Read {
    /// Whether exactly so many purges came since `earlier` was read.
    #[must_use]
    pub fn is_later_by(&self, earlier: &Self, purges: u64) -> bool {
        match (self, earlier) {
            (Self::Local(now), Self::Local(then)) => {
                now.epoch == then.epoch && now.generation == then.generation && now.seq == then.seq + purges
            }
            (Self::Shared(epoch, now), Self::Shared(then_epoch, then)) => {
                let steps = now.seq.zip(then.seq).is_some_and(|(now, then)| now.checked_sub(then) == Some(purges));
                epoch == then_epoch && now.generation == then.generation && steps
            }
            _ => false,
        }
    }
}

/// A write was refused because its purge could not be made known to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRefused;

/// A mutation under way.
#[derive(Debug)]
pub struct Pending {
    id: String,
    tags: Vec<Tag>,
    guarded: bool,
    marked: bool,
    _guards: Vec<Guarded>,
}

impl Pending {
    /// The tags that it will purge.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

/// Counts of what coherence does.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Tags purged.
    pub purged_tags: Arc<Counter>,
    /// Times Redis was lost.
    pub losses: Arc<Counter>,
    /// Times it was rejoined.
    pub rejoins: Arc<Counter>,
    /// Purges that went into the journal.
    pub journaled: Arc<Counter>,
    /// Tags replayed from the journal.
    pub replayed: Arc<Counter>,
    /// Fills that a purge killed.
    pub killed_fills: Arc<Counter>,
    /// Mutations taken as committed because their sidecar died.
    pub orphans: Arc<Counter>,
}

#[derive(Debug, Default)]
struct Journal {
    tags: HashSet<Tag>,
    everything: bool,
}

/// Coherence of one sidecar.
#[derive(Debug)]
pub struct Coherence {
    table: Table,
    shared: Option<Shared>,
    /// Even: Redis is the truth (or, without Redis, always 0). Odd: Redis is lost.
    epoch: AtomicU64,
    misses: AtomicU32,
    journal: Mutex<Journal>,
    lost: Notify,
    joined: Notify,
    clock: Clock,
    /// What it has done.
    pub counters: Counters,
}

impl Coherence {
    /// Coherence of a sidecar by itself, or of several that share these records.
    #[must_use]
    pub fn new(shared: Option<Shared>, clock: Clock) -> Self {
        let epoch = u64::from(shared.is_some());
        Self {
            table: Table::default(),
            shared,
            epoch: AtomicU64::new(epoch),
            misses: AtomicU32::new(0),
            journal: Mutex::default(),
            lost: Notify::new(),
            joined: Notify::new(),
            clock,
            counters: Counters::default(),
        }
    }

    /// What coherence rests on.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (&self.shared, self.epoch.load(SeqCst) % 2) {
            (None, _) => Mode::Local,
            (Some(_), 0) => Mode::Shared,
            (Some(_), _) => Mode::Degraded,
        }
    }

    /// The number of the present mode's stretch of time.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// The records in Redis.
    #[must_use]
    pub const fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// What reads do while Redis is lost.
    #[must_use]
    pub fn on_loss(&self) -> OnLoss {
        self.shared.as_ref().map_or(OnLoss::Memory, |shared| shared.link().settings().on_redis_loss)
    }

    /// How many purges wait to be replayed.
    #[must_use]
    pub fn journal_depth(&self) -> usize {
        let journal = self.journal();
        journal.tags.len() + usize::from(journal.everything)
    }

    /// How many tags the local table knows.
    #[must_use]
    pub fn local_tags(&self) -> usize {
        self.table.len()
    }

    /// Reads the state of some tags from the local table.
    #[must_use]
    pub fn read_local(&self, tags: &[Tag]) -> Read {
        let at = self.clock.now();
        // The epoch first, the cells after the step: a change in between makes the reading stale, never fresh.
        let (epoch, generation, seq) = (self.epoch(), self.table.generation(), self.table.seq());
        let cells = tags
            .iter()
            .map(|tag| {
                let (cell, _) = self.table.cell(tag);
                let purged = cell.purged();
                (tag.clone(), cell, purged)
            })
            .collect();
        Read::Local(LocalRead { epoch, generation, seq, cells, at })
    }

    /// Whether an entry is current by the local table.
    pub fn judge_local(&self, proof: &LocalProof) -> Result<(), Reason> {
        if proof.epoch != self.epoch() {
            return Err(Reason::Unproven);
        }
        if proof.generation != self.table.generation() {
            return Err(Reason::Purged);
        }
        if proof.until.is_some_and(|until| self.clock.now() >= until) {
            // Not merely stale: nobody can say any more whether it was purged.
            return Err(Reason::Unproven);
        }
        for (cell, purged) in &proof.cells {
            if cell.purged() != *purged {
                return Err(Reason::Purged);
            }
            if cell.is_guarded() {
                return Err(Reason::MutationPending);
            }
        }
        Ok(())
    }

    /// The proof for a response with these tags, if none of them was purged since they were read.
    pub async fn commit(&self, read: &Read, tags: &[Tag], lifetime: Duration) -> Result<Proof, Reason> {
        let proof = match read {
            Read::Local(local) => self.commit_local(local, tags).map(Proof::Local).ok_or(Reason::PurgedMeanwhile),
            Read::Shared(epoch, reading) => self.commit_shared(*epoch, reading, tags, lifetime).await.map(Proof::Shared),
            Read::Unproven => Err(Reason::Unproven),
        };
        if matches!(proof, Err(Reason::PurgedMeanwhile)) {
            self.counters.killed_fills.inc();
        }
        proof
    }

    fn commit_local(&self, read: &LocalRead, tags: &[Tag]) -> Option<LocalProof> {
        let mut cells = SmallVec::with_capacity(tags.len());
        let mut unread = false;
        for tag in tags {
            if let Some((_, cell, purged)) = read.cells.iter().find(|(name, _, _)| name == tag) {
                cells.push((Arc::clone(cell), *purged));
            } else {
                unread = true;
                let (cell, _) = self.table.cell(tag);
                let purged = cell.purged();
                if purged > read.seq {
                    return None;
                }
                cells.push((cell, purged));
            }
        }
        // Of a tag that nobody held, a purge leaves no trace but the step. Read after the cells were made: see the table's invariants.
        if unread && self.table.seq() != read.seq {
            return None;
        }
        // From before the app was asked: another sidecar's write may have come right after.
        let until = (self.mode() == Mode::Degraded).then(|| read.at + self.degraded_ttl());
        let proof = LocalProof { epoch: read.epoch, generation: read.generation, cells, until };
        match self.judge_local(&proof) {
            Ok(()) | Err(Reason::MutationPending) => Some(proof),
            Err(_) => None,
        }
    }

    fn degraded_ttl(&self) -> Duration {
        self.shared.as_ref().map_or(Duration::ZERO, |shared| shared.link().settings().degraded_ttl)
    }

    async fn commit_shared(&self, epoch: u64, reading: &Reading, tags: &[Tag], lifetime: Duration) -> Result<Stamp, Reason> {
        let Some(shared) = &self.shared else { return Err(Reason::Unproven) };
        if epoch != self.epoch() {
            return Err(Reason::Unproven);
        }
        match self.watch(shared.commit(reading, tags, lifetime).await) {
            Ok(Some(stamp)) => Ok(stamp),
            Ok(None) => Err(Reason::PurgedMeanwhile),
            // Fail open: the response goes to its client all the same, it is only not stored.
            Err(_) => Err(Reason::StoreFailed),
        }
    }

    /// Notes how a call to Redis went.
    pub fn watch<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        match &result {
            Ok(_) => self.misses.store(0, SeqCst),
            Err(CallError::Connection(_)) => self.lose("the connection broke"),
            Err(CallError::Timeout) => {
                if self.misses.fetch_add(1, SeqCst) + 1 >= MISSES {
                    self.lose("it misses its deadline");
                }
            }
            Err(CallError::OutOfMemory | CallError::Answer(_)) => {}
        }
        result
    }

    /// Trusts Redis no more. What it vouched for is no longer served.
    fn lose(&self, why: &'static str) {
        let epoch = self.epoch();
        if epoch.is_multiple_of(2) && self.epoch.compare_exchange(epoch, epoch + 1, SeqCst, SeqCst).is_ok() {
            self.counters.losses.inc();
            tracing::warn!(why, "Redis is lost; serving from memory and the app until it is back");
            self.lost.notify_one();
        }
    }

    /// Begins a mutation: its tags are marked before the app sees it.
    pub async fn mark(&self, tags: Vec<Tag>, guarded: bool, within: Duration) -> Result<Pending, WriteRefused> {
        let guards = if guarded { self.table.guard(&tags) } else { Vec::new() };
        let mut pending = Pending { id: crate::scope::hex(&rand::random::<[u8; 8]>()), tags, guarded, marked: false, _guards: guards };
        if let Some(shared) = &self.shared {
            let refuse = shared.link().settings().writes == Writes::Refuse;
            // Who would rather refuse a write than serve a stale read keeps hits away until the purge is proven:
            // Redis may be lost between the mark and the purge.
            pending.guarded |= refuse;
            if self.mode() == Mode::Shared {
                pending.marked = true;
                let marked = self.watch(shared.mark(&pending.id, &pending.tags, within, pending.guarded).await);
                if let Err(error) = marked {
                    // What cannot be marked can hardly be purged: do not spend a second deadline on finding that out.
                    if matches!(error, CallError::Timeout) {
                        self.lose("a mutation could not be marked in time");
                    }
                    if refuse {
                        return Err(WriteRefused);
                    }
                }
            } else if refuse {
                return Err(WriteRefused);
            }
        }
        Ok(pending)
    }

    /// Moves the deadline of a mutation that takes long.
    pub async fn renew(&self, pending: &Pending, within: Duration) {
        if let (Some(shared), Mode::Shared, true) = (&self.shared, self.mode(), pending.marked) {
            // Fail open: an unrenewed mark is taken as committed by the others, which costs hits, not correctness.
            let _ = self.watch(shared.mark(&pending.id, &pending.tags, within, pending.guarded).await);
        }
    }

    /// The mutation was committed, or may have been: its tags are purged before this returns.
    pub async fn committed(&self, pending: Pending) {
        self.purge_as(&pending.id, &pending.tags).await;
    }

    /// The app refused the mutation: nothing is purged.
    pub async fn refused(&self, pending: Pending) {
        if let (Some(shared), Mode::Shared, true) = (&self.shared, self.mode(), pending.marked) {
            // Fail open: the mark ends by its deadline.
            let _ = self.watch(shared.unmark(&pending.id, &pending.tags).await);
        }
    }

    /// Purges tags.
    pub async fn purge(&self, tags: &[Tag]) {
        self.purge_as("", tags).await;
    }

    async fn purge_as(&self, id: &str, tags: &[Tag]) {
        self.counters.purged_tags.add(tags.len() as u64);
        self.table.purge(tags);
        let Some(shared) = &self.shared else { return };
        while !self.journal_if_degraded(tags) {
            match self.watch(shared.purge(id, tags).await) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, tags = tags.len(), "a purge did not reach Redis; it will be replayed");
                    self.lose("a purge did not reach it");
                }
            }
        }
    }

    /// Keeps a purge for the rejoin, if Redis is lost. Under the journal's lock, which the rejoin holds when it ends the loss.
    fn journal_if_degraded(&self, tags: &[Tag]) -> bool {
        let mut journal = self.journal();
        if self.mode() != Mode::Degraded {
            return false;
        }
        self.counters.journaled.inc();
        if journal.tags.len() + tags.len() > JOURNAL {
            journal.everything = true;
            journal.tags.clear();
        } else if !journal.everything {
            journal.tags.extend(tags.iter().cloned());
        }
        true
    }

    /// Asks for mutations past their deadline to be taken as committed.
    pub async fn settle(&self, tags: &[Tag]) {
        if let Some(shared) = &self.shared {
            self.counters.orphans.inc();
            // Fail open: the reader treats the entry as a miss whatever comes of this.
            let _ = self.watch(shared.settle(tags).await);
        }
    }

    /// Ends when Redis is the truth for the first time, or again. At once without Redis.
    pub async fn joined(&self) {
        loop {
            let notified = self.joined.notified();
            if self.mode() != Mode::Degraded {
                return;
            }
            notified.await;
        }
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        // The journal is whole between any two statements that could panic.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
