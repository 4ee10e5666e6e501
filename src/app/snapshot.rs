//! The snapshot of the memory tier: read before the first request, written after the last one.
//!
//! Disks may hang, so both are done on a thread of their own, which nobody waits for longer than
//! `memory.snapshot_time` and a little.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::app::metrics_registrar::MetricsRegistrar;
use crate::cache::snapshot::{
    self, LeftOut, ReadSnapshot, SnapshotCounters, SnapshotError, SnapshotKey, SnapshotRefusal,
    SnapshotRoutes, SnapshotSettings, SnapshotSource, SnapshotTarget,
};
use crate::coherence::CoherenceMode;
use crate::config::Config;
use crate::policy::route::Route;
use crate::proxy::Proxy;
use crate::secret::Hasher;
use crate::units::show_size;

/// How much longer than `memory.snapshot_time` the thread may take to end what it has begun.
const GRACE: Duration = Duration::from_millis(500);

/// Reads and writes the snapshot of one sidecar.
#[derive(Debug)]
pub(super) struct SnapshotKeeper {
    settings: Option<SnapshotSettings>,
    key: SnapshotKey,
    proxy: Arc<Proxy>,
    counters: SnapshotCounters,
    /// Why nothing is written, if so.
    forgone: OnceLock<&'static str>,
}

impl SnapshotKeeper {
    /// For the sidecar with this configuration, whose secret is in the hasher.
    pub(super) fn new(config: &Config, hasher: &Hasher, proxy: Arc<Proxy>) -> Self {
        let (upstream, redis) = (&config.upstream, config.redis.as_ref());
        let mut configuration = format!(
            "{:?}",
            (
                (&upstream.target, &upstream.host, &upstream.user_agent),
                redis.map(|redis| (&redis.address, redis.database, &redis.namespace)),
            )
        );
        for app in &config.apps {
            let origin = &app.upstream;
            let _ = write!(configuration, "{:?}", (&app.name, &origin.target, &origin.host));
        }
        Self {
            settings: config.snapshot.clone(),
            key: SnapshotKey::new(hasher, &configuration),
            proxy,
            counters: SnapshotCounters::default(),
            forgone: OnceLock::new(),
        }
    }

    /// Writes nothing at the end, for this reason: another process might read what is old by then.
    pub(super) fn forgo(&self, why: &'static str) {
        let _ = self.forgone.set(why);
    }

    /// Reads the snapshot that an earlier process has left, and restores its entries. Where Redis
    /// is not in use yet, they are restored when it is.
    pub(super) async fn restore(self: &Arc<Self>) {
        let Some(settings) = self.settings.clone() else { return };
        let keeper = Arc::clone(self);
        let within = settings.time;
        let read = off_thread(within + GRACE, move || {
            let clock = &keeper.proxy.clock;
            snapshot::read(&SnapshotSource {
                settings: &settings,
                key: &keeper.key,
                room: keeper.proxy.store.memory.limit(),
                clock,
                until: clock.now() + settings.time,
            })
        });
        match read.await.unwrap_or_else(|| Err(SnapshotError::too_slow(within))) {
            Ok(None) => tracing::debug!("there is no snapshot to restore"),
            Ok(Some(read)) if self.may_insert() => self.insert(read, within).await,
            Ok(Some(read)) => {
                tokio::spawn(Arc::clone(self).insert_once_joined(read, within));
            }
            Err(error) => self.refuse(&error, "the snapshot is not used"),
        }
    }

    fn may_insert(&self) -> bool {
        matches!(self.proxy.coherence.mode(), CoherenceMode::Local | CoherenceMode::Shared)
    }

    async fn insert_once_joined(self: Arc<Self>, read: ReadSnapshot, within: Duration) {
        let joined = tokio::time::timeout(within, self.proxy.coherence.wait_until_joined());
        if let Some(Ok(())) = self.proxy.stop.run_until_cancelled(joined).await {
            self.insert(read, within).await;
        } else {
            self.refuse(&SnapshotError::without_redis(), "the snapshot is not used");
        }
    }

    async fn insert(self: &Arc<Self>, read: ReadSnapshot, within: Duration) {
        let keeper = Arc::clone(self);
        let inserted = off_thread(within + GRACE, move || {
            let (routes, proxy) = (keeper.routes(), &keeper.proxy);
            snapshot::insert(read, &routes, &proxy.store, &proxy.coherence)
        });
        match inserted.await.unwrap_or_else(|| Err(SnapshotError::too_slow(within))) {
            Ok((entries, left_out)) => {
                self.counters.restored.add(entries);
                self.counters.add(&left_out);
                tracing::info!(entries, %left_out, "the snapshot is restored");
            }
            Err(error) => self.refuse(&error, "the snapshot is not used"),
        }
    }

    /// Writes what is fresh in memory, for the next process.
    pub(super) async fn save(self: &Arc<Self>) {
        let Some(settings) = self.settings.clone() else { return };
        // The key of the snapshot names the origin of the start.
        if self.proxy.active_config().rules.apps.iter().any(|app| app.origin.is_some()) {
            self.forgo("a reload has put another origin in force");
        }
        if let Some(why) = self.forgone.get() {
            tracing::info!(why, "no snapshot is written");
            return;
        }
        let keeper = Arc::clone(self);
        let within = settings.time;
        let saved = off_thread(within + GRACE, move || {
            snapshot::save(&SnapshotTarget {
                settings: &settings,
                key: &keeper.key,
                routes: &keeper.routes(),
                store: &keeper.proxy.store,
                coherence: &keeper.proxy.coherence,
                until: keeper.proxy.clock.now() + settings.time,
            })
        });
        match saved.await.unwrap_or_else(|| Err(SnapshotError::too_slow(within))) {
            Ok(saved) => {
                let left_out = saved.omissions;
                self.counters.written.add(saved.entries);
                self.counters.add(&left_out);
                for (why, counter) in [
                    (LeftOut::Size, &self.counters.size_reached),
                    (LeftOut::Time, &self.counters.time_reached),
                ] {
                    counter.add(u64::from(left_out.count(why) > 0));
                }
                let (entries, bytes) = (saved.entries, show_size(saved.bytes));
                tracing::info!(entries, bytes, %left_out, "the snapshot is written");
            }
            Err(error) => self.refuse(&error, "no snapshot is written"),
        }
    }

    fn routes(&self) -> SnapshotRoutes {
        let config = self.proxy.active_config();
        let routes = config.rules.routes.iter().flat_map(Route::policies);
        SnapshotRoutes::new(routes.map(|route| (route.fingerprint, route.has_identity_field())))
    }

    fn refuse(&self, error: &SnapshotError, what: &'static str) {
        self.counters.refuse(error.refusal);
        let path = self.settings.as_ref().map(|settings| settings.path.display().to_string());
        let path = path.unwrap_or_default();
        tracing::warn!(path, reason = error.refusal.as_str(), "{what}: {error}");
    }

    /// Registers what is counted.
    pub(super) fn register(&self) {
        let (metrics, counters) = (&self.proxy.metrics, &self.counters);
        let registrar = MetricsRegistrar(metrics);
        registrar.count(
            "sidecache_snapshot_restored",
            "Entries restored from the snapshot of the process before",
            &counters.restored,
        );
        registrar.count(
            "sidecache_snapshot_written",
            "Entries written to the snapshot",
            &counters.written,
        );
        registrar.limit("memory.snapshot_size", &counters.size_reached);
        registrar.limit("memory.snapshot_time", &counters.time_reached);
        for (why, counter) in LeftOut::ALL.iter().zip(&counters.left_out) {
            metrics.register_counter(
                "sidecache_snapshot_left_out",
                "Entries that were not written to the snapshot, or not restored from it",
                &[("reason", why.as_str().to_owned())],
                Arc::clone(counter),
            );
        }
        for (why, counter) in SnapshotRefusal::ALL.iter().zip(&counters.refused) {
            metrics.register_counter(
                "sidecache_snapshot_refused",
                "Snapshots that were not used at all, or not written",
                &[("reason", why.as_str().to_owned())],
                Arc::clone(counter),
            );
        }
    }
}

/// Does this work on a thread of its own; `None` if it takes longer. It may go on by itself then.
async fn off_thread<T: Send + 'static>(
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let run = move || drop(sender.send(work()));
    std::thread::Builder::new().name("snapshot".to_owned()).spawn(run).ok()?;
    tokio::time::timeout(within, receiver).await.ok()?.ok()
}
