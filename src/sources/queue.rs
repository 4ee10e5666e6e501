//! The purges of one source, from what it was told to their end.
//!
//! Invariant: hearing counts as proven once everything is purged that was due at the proof, by all
//! purges that were begun before it.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::{SourceContext, SourcePurge, UnheardChange};
use super::due::{Burst, BurstRoom, TemplateSet, WaitingPurges};
use super::settings::SourceSettings;
use super::status::{SourceState, SourceStatus};
use crate::coherence::Released;
use crate::policy::tag::Tag;
use crate::policy::template::Template;

/// How many purges of one source run at once. One that waits for a sidecar that has died does not
/// hold up all others.
const MAX_RUNNING: usize = 4;

/// The pause after a purge of the families of all tags: in a storm, what comes meanwhile is purged
/// together.
const FAMILIES_PAUSE: Duration = Duration::from_millis(10);

/// The purges of a source.
pub(super) struct PurgeQueue {
    pub(super) settings: SourceSettings,
    pub(super) status: Arc<SourceStatus>,
    pub(super) context: Arc<SourceContext>,
    /// The families of each template, by the templates of the routes in force.
    families: ArcSwap<Vec<Vec<Tag>>>,
    due: Mutex<WaitingPurges>,
    burst: Mutex<Burst>,
    /// Tells that something is due.
    wake: Notify,
    /// Another source, or none, has its name now.
    is_retired: AtomicBool,
    /// Nobody purges what is due any more. Written under the lock of `due`.
    is_closed: AtomicBool,
}

impl PurgeQueue {
    /// A queue in which everything is due, because nobody knows what has changed before the start.
    pub(super) fn new(
        settings: SourceSettings,
        status: Arc<SourceStatus>,
        context: Arc<SourceContext>,
        routes: &[Template],
    ) -> Self {
        let families = families(&settings.tags, routes);
        let due = WaitingPurges { families: TemplateSet::ALL, ..WaitingPurges::default() };
        let queue = Self {
            settings,
            status,
            context,
            families: ArcSwap::from_pointee(families),
            due: Mutex::new(due),
            burst: Mutex::default(),
            wake: Notify::new(),
            is_retired: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        };
        queue.wake.notify_one();
        queue
    }

    /// The families of each of its templates.
    pub(super) fn families(&self) -> Arc<Vec<Vec<Tag>>> {
        self.families.load_full()
    }

    /// Takes the families from routes with these templates. What a purge of the former families has
    /// left out is purged.
    pub(super) fn use_routes(&self, routes: &[Template]) {
        let families = families(&self.settings.tags, routes);
        if **self.families.load() != families {
            self.families.store(Arc::new(families));
            self.publish_unheard();
            self.add(Vec::new(), TemplateSet::ALL);
        }
    }

    /// Tells what cannot be heard of at present.
    pub(super) fn publish_unheard(&self) {
        self.context.set_unheard(&self.settings.name, || {
            if self.is_retired.load(Ordering::SeqCst) {
                UnheardChange::None
            } else if self.status.is_listening() {
                UnheardChange::Listening
            } else {
                let families = self.families().iter().flatten().cloned().collect();
                UnheardChange::Unheard(self.settings.degraded_ttl, families)
            }
        });
    }

    /// Another source has its name from now on, or none.
    pub(super) fn retire(&self) {
        self.context.set_unheard(&self.settings.name, || {
            self.is_retired.store(true, Ordering::SeqCst);
            UnheardChange::Listening
        });
    }

    /// Whether there is room to read what was told. If not, the families of all tags are purged in
    /// its place.
    pub(super) fn has_room(&self) -> bool {
        let room = self.burst.lock().note(self.context.clock.now());
        if room == BurstRoom::Reached {
            self.note_burst();
        }
        if room != BurstRoom::Free {
            self.add(Vec::new(), TemplateSet::ALL);
        }
        room == BurstRoom::Free
    }

    /// Notes that more is told than is read.
    pub(super) fn note_burst(&self) {
        self.context.bursts.inc();
        tracing::warn!(
            source = &*self.settings.name,
            "the source is told more than is read in that time: the families of all its tags are \
             purged"
        );
    }

    /// Adds what is to be purged.
    pub(super) fn add(&self, tags: Vec<Tag>, families: TemplateSet) {
        let has_too_many = self.due.lock().add(tags, families, self.context.clock.now());
        self.note_added(has_too_many);
    }

    fn note_added(&self, has_too_many: bool) {
        if has_too_many {
            self.context.overflows.inc();
            tracing::warn!(
                source = &*self.settings.name,
                "the source names more tags than may wait: the families of all are purged"
            );
        }
        self.wake.notify_one();
    }

    /// Purges this with all that is due, and says how it ended; `None` if the source has ended.
    pub(super) async fn purge_and_wait(
        &self,
        tags: Vec<Tag>,
        families: TemplateSet,
    ) -> Option<Released> {
        let (sender, purged) = oneshot::channel();
        {
            let mut due = self.due.lock();
            if self.is_closed.load(Ordering::SeqCst) {
                return None;
            }
            due.waiters.push(sender);
            let has_too_many = due.add(tags, families, self.context.clock.now());
            drop(due);
            self.note_added(has_too_many);
        }
        purged.await.ok()
    }

    /// What was told names no tags.
    pub(super) fn refuse(&self, why: &dyn Display) {
        self.status.counters.bad_payloads.inc();
        tracing::warn!(
            source = &*self.settings.name,
            %why,
            "a source was told something that names none of its tags: nothing is purged"
        );
    }

    /// Purges all that is due, and the families of all tags if changes may have been missed; then
    /// this session listens.
    pub(super) fn prove(&self, session: u64, has_gap: bool) {
        let families = if has_gap { TemplateSet::ALL } else { TemplateSet::default() };
        {
            let mut due = self.due.lock();
            due.add(Vec::new(), families, self.context.clock.now());
            due.proves = Some(session);
        }
        self.wake.notify_one();
    }

    /// Purges what is due, until the end, and what was due then.
    pub(super) async fn purge_until(self: Arc<Self>, end: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                Some(_) = running.join_next(), if !running.is_empty() => {}
                () = end.cancelled() => break,
            }
            while running.len() < MAX_RUNNING {
                let Some(due) = self.take() else { break };
                let Some(session) = due.proves else {
                    let is_coarse = due.families == TemplateSet::ALL;
                    running.spawn(Arc::clone(&self).purge(due));
                    if is_coarse {
                        tokio::time::sleep(FAMILIES_PAUSE).await;
                    }
                    continue;
                };
                Arc::clone(&self).purge(due).await;
                while running.join_next().await.is_some() {}
                self.begin_to_listen(session);
            }
        }
        let last = {
            let mut due = self.due.lock();
            self.is_closed.store(true, Ordering::SeqCst);
            due.take()
        };
        if let Some(due) = last {
            Arc::clone(&self).purge(due).await;
        }
        while running.join_next().await.is_some() {}
    }

    fn take(&self) -> Option<WaitingPurges> {
        self.due.lock().take()
    }

    /// What may have been missed is purged: from now on it counts as listening, if that session
    /// still does.
    fn begin_to_listen(&self, session: u64) {
        let before = self.status.begin_to_listen(session, self.context.clock.wall());
        if before.is_some_and(|before| {
            !matches!(before, SourceState::Listening | SourceState::Receiving)
        }) {
            self.publish_unheard();
            let (source, kind) = (&*self.settings.name, self.settings.kind.as_str());
            tracing::info!(source, kind, "a source listens");
        }
    }

    async fn purge(self: Arc<Self>, due: WaitingPurges) {
        let families = self.families();
        let mut tags: Vec<Tag> = due.tags.into_iter().collect();
        for (at, own) in families.iter().enumerate() {
            if due.families.contains(at) {
                tags.extend(own.iter().cloned());
            }
        }
        tags.sort();
        tags.dedup();
        let released = if tags.is_empty() {
            Released::Acknowledged
        } else {
            self.context.purge(SourcePurge { source: &self.settings.name, tags: &tags }).await
        };
        for waiter in due.waiters {
            // Ignore the error: the receiver is dropped when its request has timed out.
            let _ = waiter.send(released);
        }
        if tags.is_empty() {
            return;
        }
        let counters = &self.status.counters;
        counters.tags.add(tags.len() as u64);
        if let Some(since) = due.since {
            let took = self.context.clock.now().saturating_duration_since(since).as_micros();
            counters.purge_us.add(u64::try_from(took).unwrap_or(u64::MAX));
        }
    }
}

fn families(tags: &[Template], routes: &[Template]) -> Vec<Vec<Tag>> {
    tags.iter().map(|tag| tag.all_families(routes.iter())).collect()
}
