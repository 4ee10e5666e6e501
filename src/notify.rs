//! Notifications: purges are told to what is in front of the sidecar, such as a CDN, so that one
//! purge empties the whole chain.
//!
//! Each receiver of `proxy.toml` is a task of its own with a bounded queue.
//!
//! Invariants:
//! 1. *A purge is told after it is done here*, so that a CDN that asks again gets the new response:
//!    `Coherence` tells of it at its end. The sidecar that purges tells of it, and no other.
//! 2. *A purge is told at least once*, as long as the sidecar lives: what fails is sent again, and
//!    what there is no room for is told as everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::coherence::Coherence;
use crate::policy::tag::Tag;
use crate::telemetry::metrics::Counter;

use self::sender::Notifier;

pub use self::settings::{MAX_NOTIFY, NotifyKind, NotifySettings};
pub use self::status::{NotifyCounters, NotifyView};

mod message;
mod queue;
mod sender;
mod settings;
mod status;

/// How many names of receivers have counts of their own, over all reloads.
const MAX_COUNTED: usize = 64;

/// How long receivers are told at the end of the sidecar.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// A receiver. Dropping it ends its task.
#[derive(Debug)]
struct RunningNotifier {
    notifier: Arc<Notifier>,
    _end: DropGuard,
}

/// All receivers.
#[derive(Debug)]
pub struct Notifiers {
    running: Mutex<Vec<RunningNotifier>>,
    counters: Mutex<BTreeMap<Arc<str>, NotifyCounters>>,
    overflows: Arc<Counter>,
    clock: Clock,
}

impl Notifiers {
    /// None yet. They will be told of the purges of this sidecar.
    #[must_use]
    pub fn new(coherence: &Coherence) -> Arc<Self> {
        let made = Arc::new(Self {
            running: Mutex::default(),
            counters: Mutex::default(),
            overflows: Arc::default(),
            clock: coherence.clock().clone(),
        });
        let own = Arc::downgrade(&made);
        coherence.set_purge_observer(move |tags| {
            if let Some(own) = own.upgrade() {
                own.tell(tags);
            }
        });
        made
    }

    /// How often more purges waited than may.
    #[must_use]
    pub const fn overflows(&self) -> &Arc<Counter> {
        &self.overflows
    }

    fn tell(&self, tags: Option<&[Tag]>) {
        for one in self.running.lock().iter() {
            one.notifier.add(tags);
        }
    }

    /// Tells these receivers from now on. What those of the same name were not told yet, these are.
    /// Needs a tokio runtime.
    pub fn apply(&self, wanted: &[NotifySettings]) {
        let mut running = self.running.lock();
        let mut former = std::mem::take(&mut *running);
        for settings in wanted {
            let found = former.iter().position(|one| one.notifier.settings.name == settings.name);
            let former = found.map(|at| former.swap_remove(at));
            match former {
                Some(same) if same.notifier.settings == *settings => running.push(same),
                former => {
                    let counters = self.counters.lock().get(&settings.name).cloned();
                    let notifier = Arc::new(Notifier::new(
                        settings.clone(),
                        counters.unwrap_or_default(),
                        &self.overflows,
                        &self.clock,
                    ));
                    if let Some(former) = &former {
                        notifier.inherit(&former.notifier);
                    } else if settings.at_start {
                        notifier.add(None);
                    }
                    let end = CancellationToken::new();
                    tokio::spawn(Arc::clone(&notifier).run(end.clone()));
                    running.push(RunningNotifier { notifier, _end: end.drop_guard() });
                }
            }
        }
        for one in former {
            let view = one.notifier.view();
            if view.waiting > 0 {
                let (notify, waiting) = (&*view.name, view.waiting);
                tracing::warn!(notify, waiting, "a receiver was removed that was not told of all");
            }
        }
    }

    /// Gives receivers of these names counts of their own, and returns those that are new.
    pub fn count(&self, wanted: &[NotifySettings]) -> Vec<(Arc<str>, NotifyCounters)> {
        let mut known = self.counters.lock();
        let mut added = Vec::new();
        for NotifySettings { name, .. } in wanted {
            if known.len() < MAX_COUNTED && !known.contains_key(name) {
                let counters = known.entry(Arc::clone(name)).or_default().clone();
                added.push((Arc::clone(name), counters));
            }
        }
        added
    }

    /// The receivers in the order of the file, with what they have not been told.
    #[must_use]
    pub fn list(&self) -> Vec<(NotifyView, NotifyCounters)> {
        let running = self.running.lock();
        running.iter().map(|one| (one.notifier.view(), one.notifier.counters.clone())).collect()
    }

    /// Why what is purged here may still be served elsewhere.
    #[must_use]
    pub fn degraded_reasons(&self) -> Vec<String> {
        self.list().iter().filter_map(|(view, _)| view.degraded_reason()).collect()
    }

    /// Tells what waits, at the end of the sidecar. What is not told then is lost.
    pub async fn finish(&self) {
        let all: Vec<Arc<Notifier>> =
            self.running.lock().iter().map(|one| Arc::clone(&one.notifier)).collect();
        let told = futures_util::future::join_all(all.iter().map(|one| one.finish()));
        if tokio::time::timeout(FINISH_TIME, told).await.is_ok() {
            return;
        }
        for view in all.iter().map(|one| one.view()).filter(|view| view.waiting > 0) {
            tracing::error!(
                notify = &*view.name,
                waiting = view.waiting,
                why = view.why,
                "purges are lost there: purge by hand what may have changed"
            );
        }
    }
}
