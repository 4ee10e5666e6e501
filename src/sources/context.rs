//! What all sources use: the way to purge, and what they cannot hear of together.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::store::Store;
use crate::clock::Clock;
use crate::coherence::{Coherence, Released};
use crate::policy::tag::Tag;
use crate::telemetry::metrics::Counter;

/// A purge that a source has caused, once it is done.
#[derive(Clone, Copy, Debug)]
pub struct SourcePurge<'a> {
    /// The name of the source.
    pub source: &'a str,
    /// What was purged.
    pub tags: &'a [Tag],
}

/// How long entries with these families may be served.
type UnheardTags = (Duration, Vec<Tag>);

/// What is called with each purge.
type PurgeListener = Box<dyn Fn(&SourcePurge<'_>) + Send + Sync>;

/// What all sources use.
pub(super) struct SourceContext {
    pub(super) coherence: Arc<Coherence>,
    store: Arc<Store>,
    pub(super) clock: Clock,
    listener: OnceLock<PurgeListener>,
    /// Purges, of all sources.
    pub(super) purges: Arc<Counter>,
    /// How often more tags waited than may.
    pub(super) overflows: Arc<Counter>,
    /// How often more was told than is read.
    pub(super) bursts: Arc<Counter>,
    /// How often more ids of a table were missing than are remembered.
    pub(super) forgotten: Arc<Counter>,
    /// How often one signature of a webhook came more often than it may.
    pub(super) repeats: Arc<Counter>,
    /// By the name of the source: what it cannot hear of, and how long entries with that may be
    /// served.
    unheard: Mutex<BTreeMap<Arc<str>, UnheardTags>>,
}

impl SourceContext {
    pub(super) fn new(store: &Arc<Store>, coherence: &Arc<Coherence>) -> Self {
        Self {
            clock: coherence.clock().clone(),
            coherence: Arc::clone(coherence),
            store: Arc::clone(store),
            listener: OnceLock::new(),
            purges: Arc::default(),
            overflows: Arc::default(),
            bursts: Arc::default(),
            forgotten: Arc::default(),
            repeats: Arc::default(),
            unheard: Mutex::default(),
        }
    }

    pub(super) fn set_listener(&self, listener: PurgeListener) {
        // Ignore the error: there is one already.
        let _ = self.listener.set(listener);
    }

    /// Purges tags, as a write does.
    pub(super) async fn purge(&self, purge: SourcePurge<'_>) -> Released {
        let released = self.coherence.purge(purge.tags).await;
        self.purges.inc();
        if let Some(listener) = self.listener.get() {
            listener(&purge);
        }
        released
    }

    /// Notes what a source cannot hear of at present, as `unheard` says under the lock, so that an
    /// older state never replaces a newer one.
    pub(super) fn set_unheard(&self, source: &Arc<str>, unheard: impl FnOnce() -> UnheardChange) {
        let mut all = self.unheard.lock();
        match unheard() {
            UnheardChange::Unheard(most, families) => {
                all.insert(Arc::clone(source), (most, families));
            }
            UnheardChange::Listening => {
                all.remove(source);
            }
            UnheardChange::None => return,
        }
        let mut limits: HashMap<Tag, Duration> = HashMap::new();
        for (most, families) in all.values() {
            for family in families {
                let known = limits.entry(family.clone()).or_insert(*most);
                *known = (*most).min(*known);
            }
        }
        self.store.unheard.replace(limits);
    }
}

/// What becomes of what a source cannot hear of.
pub(super) enum UnheardChange {
    /// It cannot hear of these families, of which entries may be served for that long.
    Unheard(Duration, Vec<Tag>),
    /// It hears everything, or nobody expects it to.
    Listening,
    /// Nothing: another source has its name.
    None,
}
