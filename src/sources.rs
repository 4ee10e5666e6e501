//! Sources: what tells of changes that no request tells, such as a database, and purges what they
//! change.
//!
//! Each source of `proxy.toml` is a task of its own that connects, listens, and connects again.
//! Its purges go the way of those of writes, through [`Coherence::purge`]: acknowledged by all
//! sidecars, and kept in the journal while Redis is lost. Several sidecars may have the same
//! source: a purge that comes twice does no harm.
//!
//! Invariants:
//! 1. *A source listens only with proof.* It has received what it sent itself, on the connection
//!    by which it hears, and has then purged the families of its tags: what it may have missed
//!    before is gone.
//! 2. *A deaf source bounds what it could not purge.* From its start, and from the end of each
//!    connection until it listens again, what carries a tag of its families is stored for
//!    `degraded_ttl` at most; what was stored before is purged at once.
//! 3. *A payload purges all that it names, or nothing.* What no template of the source can render
//!    is not purged.
//! 4. *What waits and what is read is bounded*: so many tags, and so many tellings in a time;
//!    beyond, the families of all are purged.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::store::Store;
use crate::coherence::Coherence;
use crate::policy::tag::Tag;
use crate::policy::template::Template;
use crate::telemetry::metrics::Counter;

use self::context::SourceContext;
use self::queue::PurgeQueue;

pub use self::context::SourcePurge;
pub use self::settings::{
    FileSettings, MAX_CHANNEL, MAX_SOURCES, MAX_TEMPLATES, MysqlSettings, PollSettings,
    PostgresSettings, SourceKind, SourceSettings, StreamSettings,
};
pub use self::status::{DeliveryOutcome, SourceCounters, SourceStatus};
pub use self::webhook::WebhookReceiver;
pub use self::webhook::settings::WebhookSettings;

mod context;
mod due;
mod file;
mod listener;
#[cfg(feature = "mysql")]
pub mod mysql;
mod payload;
mod poll;
#[cfg(feature = "postgres")]
pub mod postgres;
mod queue;
mod settings;
mod source;
mod status;
mod stream;
mod webhook;

/// How many names of sources have counts of their own, over all reloads.
const MAX_COUNTED: usize = 64;

/// A running source. Dropping it ends it.
struct RunningSource {
    queue: Arc<PurgeQueue>,
    webhook: Option<Arc<WebhookReceiver>>,
    _end: DropGuard,
}

/// All sources.
pub struct Sources {
    context: Arc<SourceContext>,
    stop: CancellationToken,
    running: Mutex<Vec<RunningSource>>,
    counters: Mutex<BTreeMap<Arc<str>, SourceCounters>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let running = self.running.lock().len();
        f.debug_struct("Sources").field("running", &running).finish_non_exhaustive()
    }
}

impl Sources {
    /// None yet. Cancelling `stop` ends those that will be.
    #[must_use]
    pub fn new(store: &Arc<Store>, coherence: &Arc<Coherence>, stop: &CancellationToken) -> Self {
        Self {
            context: Arc::new(SourceContext::new(store, coherence)),
            stop: stop.clone(),
            running: Mutex::default(),
            counters: Mutex::default(),
        }
    }

    /// Calls this with each purge from now on; it must not block. Only the first one counts.
    pub fn set_listener(&self, listener: impl Fn(&SourcePurge<'_>) + Send + Sync + 'static) {
        self.context.set_listener(Box::new(listener));
    }

    /// Purges, of all sources.
    #[must_use]
    pub fn purges(&self) -> &Arc<Counter> {
        &self.context.purges
    }

    /// How often more tags waited than may.
    #[must_use]
    pub fn overflows(&self) -> &Arc<Counter> {
        &self.context.overflows
    }

    /// How often one signature of a webhook came more often than it may.
    #[must_use]
    pub fn repeats(&self) -> &Arc<Counter> {
        &self.context.repeats
    }

    /// How often a source was told more than is read.
    #[must_use]
    pub fn bursts(&self) -> &Arc<Counter> {
        &self.context.bursts
    }

    /// How often more ids of a table were missing than are remembered.
    #[must_use]
    pub fn forgotten(&self) -> &Arc<Counter> {
        &self.context.forgotten
    }

    /// Runs these sources from now on, for routes with these templates. Those that run already, and
    /// are the same, go on. Needs a tokio runtime.
    pub fn apply(&self, wanted: &[SourceSettings], routes: &[Template]) {
        let mut running = self.running.lock();
        let mut former = std::mem::take(&mut *running);
        let mut added = Vec::new();
        for settings in wanted {
            let same = former.iter().position(|one| one.queue.settings.is_same(settings));
            if let Some(same) = same.map(|at| former.swap_remove(at)) {
                same.queue.use_routes(routes);
                running.push(same);
                continue;
            }
            let counters = self.counters_of(&settings.name);
            let status = SourceStatus::new(settings, counters, self.context.clock.wall());
            let context = Arc::clone(&self.context);
            let queue = Arc::new(PurgeQueue::new(settings.clone(), status, context, routes));
            let end = self.stop.child_token();
            added.push((Arc::clone(&queue), end.clone()));
            let webhook = WebhookReceiver::of(&queue);
            running.push(RunningSource { queue, webhook, _end: end.drop_guard() });
        }
        for one in former {
            one.queue.retire();
        }
        for (queue, end) in added {
            queue.publish_unheard();
            tokio::spawn(source::run(queue, end));
        }
    }

    fn counters_of(&self, name: &Arc<str>) -> SourceCounters {
        self.counters.lock().get(name).cloned().unwrap_or_default()
    }

    /// Gives sources of these names counts of their own, and returns those that are new.
    pub fn count(&self, wanted: &[SourceSettings]) -> Vec<(Arc<str>, SourceCounters)> {
        let mut known = self.counters.lock();
        let mut added = Vec::new();
        for SourceSettings { name, .. } in wanted {
            if known.len() < MAX_COUNTED && !known.contains_key(name) {
                let counters = known.entry(Arc::clone(name)).or_default().clone();
                added.push((Arc::clone(name), counters));
            }
        }
        added
    }

    /// Purges what the sources can name, because it is unknown what has changed before now.
    pub async fn purge_families(&self) {
        let mut families: Vec<Tag> = Vec::new();
        for one in self.running.lock().iter() {
            families.extend(one.queue.families().iter().flatten().cloned());
        }
        families.sort();
        families.dedup();
        if !families.is_empty() {
            self.context.coherence.purge(&families).await;
        }
    }

    /// The sources in the order of the file.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<SourceStatus>> {
        self.running.lock().iter().map(|one| Arc::clone(&one.queue.status)).collect()
    }

    /// What receives the webhooks of the source of this name, if it runs.
    #[must_use]
    pub fn webhook(&self, name: &str) -> Option<Arc<WebhookReceiver>> {
        let running = self.running.lock();
        let found = running.iter().find(|one| *one.queue.settings.name == *name)?;
        found.webhook.clone()
    }

    /// Those that can name an entry with these tags, families included.
    #[must_use]
    pub fn telling_of(&self, tags: &[Tag]) -> Vec<Arc<SourceStatus>> {
        let running = self.running.lock();
        let tells = |one: &&RunningSource| {
            one.queue.families().iter().flatten().any(|family| tags.contains(family))
        };
        running.iter().filter(tells).map(|one| Arc::clone(&one.queue.status)).collect()
    }

    /// Why entries are served for a shorter time than they could be: the sources that are deaf.
    #[must_use]
    pub fn degraded_reasons(&self) -> Vec<String> {
        self.list().iter().filter_map(|status| status.degraded_reason()).collect()
    }
}
