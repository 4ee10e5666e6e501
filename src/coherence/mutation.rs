//! Mutations and purges: marked before the app sees them, made known to every other sidecar before their answers go out.
//!
//! Invariants:
//! - [`Coherence::mark`] returns a mutation only if nobody can have taken its mark for orphaned at that moment; what it returns is to be
//!   forwarded at once.
//! - [`Coherence::committed`] returns when no sidecar serves from before it any more, or when Redis cannot be told: then after all trust that
//!   others had in Redis at the loss has ended, and with the purge in the journal. So do [`Coherence::purge_with`] and
//!   [`Coherence::purge_everything`]; after a soft one no sidecar serves from before it as fresh.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::coherence::core::{At, Audience, Batch, Core, Event, Phase, Released};
use crate::coherence::message::{Id, Message, Node};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::redis_records::{BATCH, Shared};
use crate::coherence::tag_table::Guarded as TableGuard;
use crate::coherence::{Coherence, Mode};
use crate::policy::tag::Tag;
use crate::redis::{CallError, Writes};

/// How often a purge that Redis answers with an error is tried before it is kept for the rejoin.
const TRIES: usize = 3;

/// The core, and who waits for what it releases.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) core: Core,
    tells: HashMap<Id, oneshot::Sender<Released>>,
}

impl Guarded {
    pub(super) fn new(core: Core) -> Self {
        Self { core, tells: HashMap::new() }
    }

    pub(super) fn release(&mut self, id: Id, how: Released) {
        if let Some(tell) = self.tells.remove(&id) {
            // Who has given up does not hear it.
            let _ = tell.send(how);
        }
    }
}

/// A place among those who wait for the others. Dropped, it is gone.
struct Waiting<'a> {
    coherence: &'a Coherence,
    id: Id,
    told: oneshot::Receiver<Released>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut guarded = self.coherence.core();
        guarded.core.forget_wait(self.id);
        guarded.tells.remove(&self.id);
    }
}

impl Waiting<'_> {
    async fn released(mut self) -> Released {
        let began = self.coherence.clock.now();
        // The core releases whatever it expects.
        let how = (&mut self.told).await.unwrap_or(Released::Outlived);
        let counters = &self.coherence.counters;
        let waited = self.coherence.clock.now().saturating_duration_since(began).as_micros();
        counters.waited_us.add(u64::try_from(waited).unwrap_or(u64::MAX));
        match how {
            Released::Acknowledged => counters.acknowledged.inc(),
            Released::Outlived | Released::Untold => counters.purges_released_by_lease_expiry.inc(),
        }
        how
    }
}

/// A write was refused because its purge could not be made known to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRefused;

/// A mutation under way.
#[derive(Debug)]
pub struct Pending {
    id: Id,
    tags: Vec<Tag>,
    guarded: bool,
    /// The name under which it is marked in Redis, and until when.
    marked: Option<(Node, At)>,
    /// Whether it is written down, because it could not be marked.
    intended: bool,
    _guards: Vec<TableGuard>,
}

impl Pending {
    /// The tags that it will purge.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    fn mark(&self) -> Option<(Id, Node)> {
        Some((self.id, self.marked?.0))
    }
}

impl Coherence {
    fn phase(&self) -> Phase {
        self.core().core.phase()
    }

    fn refuses_writes(&self) -> bool {
        self.shared().is_some_and(|shared| shared.link().settings().writes == Writes::Refuse)
    }

    /// Begins a mutation: its tags are marked before the app sees it.
    pub async fn mark(&self, tags: Vec<Tag>, guarded: bool, within: Duration) -> Result<Pending, WriteRefused> {
        let guards = if guarded { self.table.guard(&tags) } else { Vec::new() };
        let mut pending = Pending { id: Id(rand::random()), tags, guarded, marked: None, intended: false, _guards: guards };
        let Some(shared) = &self.shared else { return Ok(pending) };
        let refuse = self.refuses_writes();
        // Who would rather refuse a write than serve a stale read keeps hits away until the purge is proven:
        // Redis may be lost between the mark and the purge.
        pending.guarded |= refuse;
        for _ in 0..TRIES {
            if self.phase() == Phase::Lost {
                break;
            }
            let (node, at, epoch) = self.now_as();
            match self.mark_as(shared, &pending, node, within, pending.guarded).await {
                Ok(()) => {
                    pending.marked = Some((node, at + within));
                    if self.still(node, at, epoch) {
                        return Ok(pending);
                    }
                    // Stopped for longer than a lease, or Redis was lost: whoever took us for dead has purged for a mutation that the app
                    // has not seen yet.
                }
                Err(CallError::OutOfMemory | CallError::Moving | CallError::Apart(_) | CallError::Answer(_)) => break,
                // What cannot be marked can hardly be purged: do not spend a second deadline on finding that out.
                Err(_) => self.lose("a mutation could not be marked"),
            }
        }
        if refuse {
            return Err(WriteRefused);
        }
        // Written ahead: a crash between the app's commit and the purge forgets nothing.
        pending.intended = self.kept.intend(pending.id, &pending.tags).await;
        Ok(pending)
    }

    /// Marks the tags of a mutation, and tells the others where they are to keep hits away from now on.
    async fn mark_as(&self, shared: &Shared, pending: &Pending, node: Node, within: Duration, tell: bool) -> Result<(), CallError> {
        let (mark, guarded) = ((pending.id, node), pending.guarded);
        for batch in pending.tags.chunks(BATCH) {
            if tell {
                let told = self.tell(Some(batch), async |message| shared.mark(mark, batch, within, guarded, Some(&message)).await).await?;
                told.released().await;
            } else {
                self.watch(shared.mark(mark, batch, within, guarded, None).await)?;
            }
        }
        Ok(())
    }

    fn now_as(&self) -> (Node, At, u64) {
        let guarded = self.core();
        (guarded.core.me(), self.gate.now(), guarded.core.gate().epoch)
    }

    /// Whether a mark that was made then under this name stands for sure.
    fn still(&self, node: Node, at: At, epoch: u64) -> bool {
        let guarded = self.core();
        guarded.core.me() == node && guarded.core.still_marked(at, epoch, self.gate.now())
    }

    /// Moves the deadline of a mutation that takes long, and marks it under the present name.
    pub async fn renew(&self, pending: &mut Pending, within: Duration) {
        if let (Some(shared), true) = (&self.shared, pending.marked.is_some())
            && self.phase() != Phase::Lost
        {
            let (node, at, _) = self.now_as();
            // Nobody is told again, so that the app's answer does not wait for it. Fail open: an unrenewed mark is taken as committed by the
            // others, which costs hits, not correctness.
            if self.mark_as(shared, pending, node, within, false).await.is_ok() {
                pending.marked = Some((node, at + within));
            }
        }
    }

    /// How often a mutation under way is to be renewed.
    #[must_use]
    pub fn renew_every(&self, within: Duration) -> Duration {
        let lease = self.shared().map_or(within, |shared| shared.link().settings().lease);
        (lease / 2).min(within / 3).max(Duration::from_millis(10))
    }

    /// The mutation was committed, or may have been: its tags are purged before this returns.
    pub async fn committed(&self, pending: Pending) {
        let how = self.purge_as(pending.mark(), &pending.tags, PurgeKind::Hard).await;
        self.withdraw(&pending);
        let guarded_until = pending.marked.map(|(_, until)| until);
        if how == Released::Untold && self.refuses_writes() && guarded_until.is_some_and(|until| self.gate.now() >= until) {
            // The mark that kept hits away has run out, and the purge is not known to anybody.
            self.joined().await;
        }
    }

    /// The app refused the mutation: nothing is purged.
    pub async fn refused(&self, pending: Pending) {
        self.withdraw(&pending);
        if let (Some(shared), Some(mark)) = (&self.shared, pending.mark())
            && self.phase() != Phase::Lost
        {
            for batch in pending.tags.chunks(BATCH) {
                // Fail open: the mark ends by its deadline.
                let _ = self.watch(shared.unmark(mark, batch).await);
            }
        }
    }

    fn withdraw(&self, pending: &Pending) {
        if pending.intended {
            self.kept.withdraw(pending.id);
        }
    }

    /// Purges tags: what carries one of them is void.
    pub async fn purge(&self, tags: &[Tag]) {
        self.purge_with(tags, PurgeKind::Hard).await;
    }

    /// Purges tags: what carries one of them is void, or stale.
    ///
    /// While Redis is lost, a soft purge is soft in this sidecar, and goes into the journal as a hard one.
    pub async fn purge_with(&self, tags: &[Tag], kind: PurgeKind) {
        self.purge_as(None, tags, kind).await;
    }

    /// Purges all that is stored. While Redis is lost, as [`Coherence::purge_with`].
    pub async fn purge_everything(&self, kind: PurgeKind) {
        self.purge_table(None, kind);
        if let Some(shared) = &self.shared {
            self.purge_batch(shared, None, None, kind).await;
        }
    }

    async fn purge_as(&self, mark: Option<(Id, Node)>, tags: &[Tag], kind: PurgeKind) -> Released {
        self.counters.purged_tags.add(tags.len() as u64);
        self.purge_table(Some(tags), kind);
        let mut how = Released::Acknowledged;
        if let Some(shared) = &self.shared {
            for batch in tags.chunks(BATCH) {
                how = how.max(self.purge_batch(shared, mark, Some(batch), kind).await);
            }
        }
        how
    }

    /// Purges tags, or everything, in this process.
    fn purge_table(&self, tags: Option<&[Tag]>, kind: PurgeKind) {
        match (tags, kind) {
            (Some(tags), PurgeKind::Hard) => self.table.purge(tags),
            (Some(tags), PurgeKind::Soft) => self.table.soften(tags, self.clock.wall()),
            (None, PurgeKind::Hard) => self.table.purge_everything(),
            (None, PurgeKind::Soft) => self.table.soften_everything(self.clock.wall()),
        }
    }

    /// Purges tags, or everything, for all sidecars.
    async fn purge_batch(&self, shared: &Shared, mark: Option<(Id, Node)>, tags: Option<&[Tag]>, kind: PurgeKind) -> Released {
        for _ in 0..TRIES {
            if self.phase() == Phase::Lost {
                break;
            }
            let send = async |message: Message| match tags {
                Some(tags) => shared.purge(mark, tags, kind, &message).await,
                None => shared.purge_everything(kind, &message).await,
            };
            match self.tell(tags, send).await {
                Ok(waiting) => {
                    // Once more: what Redis vouched for before it had the purge may have come in between.
                    self.purge_table(tags, kind);
                    return waiting.released().await;
                }
                Err(error) => {
                    tracing::debug!(%error, tags = tags.map(<[Tag]>::len), "a purge did not reach Redis");
                    self.lose("a purge did not reach it");
                }
            }
        }
        self.counters.journal_writes.inc();
        let batch = if let Some(tags) = tags {
            self.kept.purge(tags).await;
            Batch { tags: tags.iter().cloned().collect(), everything: false }
        } else {
            self.kept.everything().await;
            Batch { everything: true, ..Batch::default() }
        };
        let waiting = self.expect();
        self.handle(Event::Untold(waiting.id, batch));
        waiting.released().await
    }

    fn expect(&self) -> Waiting<'_> {
        let id = Id(rand::random());
        let (tell, told) = oneshot::channel();
        let mut guarded = self.core();
        guarded.core.expect(id);
        guarded.tells.insert(id, tell);
        drop(guarded);
        Waiting { coherence: self, id, told }
    }

    /// Tells the others to distrust tags, in one step with what `send` does in Redis.
    async fn tell(
        &self,
        tags: Option<&[Tag]>,
        send: impl AsyncFnOnce(Message) -> Result<Audience, CallError>,
    ) -> Result<Waiting<'_>, CallError> {
        let waiting = self.expect();
        let by = self.core().core.me().process;
        let message = Message::Distrust { by, id: waiting.id, tags: tags.map(<[Tag]>::to_vec) };
        let audience = self.watch(send(message).await)?;
        self.handle(Event::Told(waiting.id, audience));
        Ok(waiting)
    }

    /// Purges tags for somebody else: nobody's answer waits for it.
    pub(super) async fn purge_for(&self, shared: &Shared, mark: Option<(Id, Node)>, tags: &[Tag]) -> Result<(), CallError> {
        self.table.purge(tags);
        for batch in tags.chunks(BATCH) {
            drop(self.tell(Some(batch), async |message| shared.purge(mark, batch, PurgeKind::Hard, &message).await).await?);
            self.table.purge(batch);
        }
        Ok(())
    }

    /// Purges everything for somebody else.
    pub(super) async fn purge_everything_for(&self, shared: &Shared) -> Result<(), CallError> {
        drop(self.tell(None, async |message| shared.purge_everything(PurgeKind::Hard, &message).await).await?);
        self.table.purge_everything();
        Ok(())
    }

    /// Takes mutations past their deadline as committed.
    pub async fn settle(&self, tags: &[Tag]) {
        if let (Some(shared), Mode::Shared) = (&self.shared, self.mode()) {
            self.counters.orphans.inc();
            // Fail open: the reader treats the entry as a miss whatever comes of this.
            let _ = self.purge_for(shared, None, tags).await;
        }
    }
}
