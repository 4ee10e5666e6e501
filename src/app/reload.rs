//! Reloads the config file: validates it as a whole, then activates it at once, or rejects it as a
//! whole if anything in it is wrong.
//!
//! Invariants:
//! - Rules come into force only if the whole file is valid. Until then, and after an invalid file,
//!   the old ones stay.
//! - Only one reload or check runs at a time, whether a signal, a change of the file or the admin
//!   API triggers it. It runs on a thread that may block, and holds no lock that requests need.
//! - A changed file, or one that it includes, is reloaded only when two reads in a row give the
//!   same texts, so that a file that is still being written is not rejected. Files that have come
//!   or gone are changes, too.
//! - Parts that are built at startup (listeners, tiers, limits of pools) stay as they are, and the
//!   report lists their changes as needing a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admin::{CheckedText, IncludedText, ReloadHandle, ReloadReply, ReloadStatus};
use crate::app::trials::Trials;
use crate::cache::fills::cluster::ClusterFills;
use crate::coherence::PurgeKind;
use crate::config::diff::{self, ConfigSnapshot};
use crate::config::include::{FileState, IncludeSource, IncludedFile, KnownPatterns};
use crate::config::{Config, Diagnostics, sharing, suggestions};
use crate::error::SetupError;
use crate::policy::edit::{Edit, EditTrial};
use crate::policy::route::Collapse;
use crate::proxy::{ActiveConfig, Proxy};
use crate::telemetry::events::EventKind;
use crate::telemetry::log;
use crate::telemetry::metrics::Counter;

use self::origins::NextOrigins;
pub(crate) use self::origins::Origins;
pub use self::report::{ReloadNotice, ReloadReport};
pub use self::startup::StartupSettings;

mod origins;
mod report;
mod startup;

/// How often the watcher checks whether `watch` has been turned on, while it is off.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often files that change while they are read are read again.
const MAX_READS: usize = 5;

/// Counts the results of reloads.
#[derive(Clone, Debug, Default)]
pub struct ReloadCounters {
    /// Files loaded.
    pub ok: Arc<Counter>,
    /// Files rejected.
    pub failed: Arc<Counter>,
    /// Suggested changes that had to wait to be tried.
    pub trials_pending: Arc<Counter>,
}

/// Reloads the config file.
#[derive(Debug)]
pub struct Reloader {
    proxy: Arc<Proxy>,
    startup: StartupSettings,
    origins: Origins,
    started: ConfigSnapshot,
    /// The rules in force. Locked for the whole of a reload, so that reloads do not overlap.
    current: Mutex<ConfigSnapshot>,
    /// Whose turn it is: reloads and checks run one at a time, because a file costs CPU and memory.
    turn: Arc<tokio::sync::Mutex<()>>,
    status: Mutex<ReloadStatus>,
    watch: Mutex<Option<Duration>>,
    /// The texts that were read last, whether or not they were valid.
    last_read: Mutex<Result<FileState, String>>,
    /// Tries suggested changes on the text in force.
    pub trials: Trials,
    /// Counts the results.
    pub counters: ReloadCounters,
}

impl Reloader {
    /// For rules that are in force already, with their config and its snapshot.
    #[must_use]
    pub(crate) fn new(
        proxy: Arc<Proxy>,
        startup: StartupSettings,
        origins: Origins,
        (config, snapshot): (&Config, ConfigSnapshot),
    ) -> Self {
        let status = ReloadStatus {
            file: config.file.clone(),
            mode: config.mode,
            rules_digest: snapshot.rules_digest(),
            loaded: proxy.clock.wall(),
            loads: 1,
            refused: None,
            restart_needed: Vec::new(),
        };
        let trials = Trials::new(config.texts(), proxy.clock.clone());
        Self {
            proxy,
            startup,
            origins,
            started: snapshot.clone(),
            current: Mutex::new(snapshot),
            turn: Arc::default(),
            status: Mutex::new(status),
            watch: Mutex::new(config.watch),
            last_read: Mutex::new(Ok(FileState::valid(config.texts()))),
            trials,
            counters: ReloadCounters::default(),
        }
    }

    /// The file's name in diagnostics.
    fn file_name(&self) -> String {
        let file = self.status().file;
        file.map_or_else(|| "proxy.toml".to_owned(), |file| file.display().to_string())
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> ReloadStatus {
        self.status.lock().clone()
    }

    /// Reads the file again and activates it if it is valid.
    pub fn reload(&self) -> ReloadReport {
        let mut current = self.current.lock();
        let Some(file) = self.status().file else {
            tracing::warn!("there is no file to reload: this sidecar was started with --upstream");
            return ReloadReport::refused(&Diagnostics::unreadable(
                "proxy.toml",
                "there is no file: this sidecar was started with --upstream".to_owned(),
                "write one with `sidecache init` or `sidecache advise --file`, and start \
                 `sidecache` with it",
            ));
        };
        let (read, loaded) = load(&file);
        *self.last_read.lock() = read;
        match loaded {
            Ok(config) => match sharing::refusals(&config, &self.file_name(), &current.sharing) {
                None => self.accept(&mut current, config),
                Some(problems) => {
                    self.accept_modes(&mut current, &config);
                    self.refuse(&problems)
                }
            },
            Err(problems) => self.refuse(&problems),
        }
    }

    /// The result that a reload with this text would have. Changes nothing. SECURITY: the text is
    /// somebody else's, so no file is read because it names one in `include`.
    #[must_use]
    pub fn check(&self, text: &CheckedText) -> ReloadReport {
        let included = text.included.as_ref().map(|files| files.iter().map(included_file));
        let included: Option<Vec<IncludedFile>> = included.map(Iterator::collect);
        let from = included.as_deref().map_or(IncludeSource::Nowhere, IncludeSource::Given);
        let env = |variable: &str| std::env::var(variable).ok();
        match Config::parse_with(&text.text, &self.file_name(), &env, from) {
            Ok(config) => {
                let current = self.current.lock();
                let widening = sharing::refusals(&config, &self.file_name(), &current.sharing);
                widening.map_or_else(
                    || self.compare(&current, &config).0,
                    |problems| ReloadReport::refused(&problems),
                )
            }
            Err(problems) => ReloadReport::refused(&problems),
        }
    }

    fn compare(&self, before: &ConfigSnapshot, config: &Config) -> (ReloadReport, ConfigSnapshot) {
        let snapshot = ConfigSnapshot::from_config(config);
        let text: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        let report = ReloadReport {
            ok: true,
            changes: diff::changes(before, &snapshot),
            restart_needed: diff::waiting_for_restart(&self.started, &snapshot),
            problems: config.warnings.iter().map(ReloadNotice::from_diagnostic).collect(),
            text: text.join("\n"),
        };
        (report, snapshot)
    }

    fn accept(&self, current: &mut ConfigSnapshot, mut config: Config) -> ReloadReport {
        super::descriptors::fit(&mut config);
        let origins = match self.origins.next(&config) {
            Ok(origins) => origins,
            Err(error) => return self.refuse(&unusable(&config, &error)),
        };
        let (report, snapshot) = self.compare(current, &config);
        config.log_warnings();
        if config.routes.iter().any(|route| route.spec.collapse == Collapse::Cluster) {
            self.start_cluster_fills();
        }
        *self.watch.lock() = config.watch;
        self.trials.replace(config.texts());
        let mode = config.mode;
        self.activate(&mut config, origins);
        if !report.changes.is_empty() {
            // Findings about the old rules do not apply to the new ones.
            self.proxy.shadow.reset();
            super::metrics::watch_routes(&self.proxy);
        }
        let rules_digest = snapshot.rules_digest();
        *current = snapshot;
        let now = self.proxy.clock.wall();
        {
            let mut status = self.status.lock();
            let (loads, restart_needed) = (status.loads + 1, report.restart_needed.clone());
            *status = ReloadStatus {
                mode,
                rules_digest,
                loaded: now,
                loads,
                refused: None,
                restart_needed,
                file: status.file.take(),
            };
        }
        self.counters.ok.inc();
        tracing::info!(
            changes = report.changes.len(),
            "the file was reloaded; its rules are in force"
        );
        if !report.restart_needed.is_empty() {
            tracing::warn!(
                keys = report.restart_needed.join(" "),
                "some changes of the file need a restart"
            );
        }
        self.proxy.events.publish(
            now,
            EventKind::Reload { ok: true, changes: report.changes.len(), error: None },
        );
        report
    }

    /// Takes over the modes of a file that is refused otherwise: whoever turns a route off must not
    /// be kept waiting for the rest of the file.
    fn accept_modes(&self, current: &mut ConfigSnapshot, refused: &Config) {
        let texts = suggestions::with_modes(&self.trials.texts(), &refused.texts());
        let Some(texts) = texts else { return };
        let (name, from) = (self.file_name(), IncludeSource::Given(&texts.included));
        let env = |variable: &str| std::env::var(variable).ok();
        if let Ok(config) = Config::parse_with(&texts.main, &name, &env, from) {
            self.accept(current, Config { file: self.status().file, ..config });
        }
    }

    /// Puts a valid file in force.
    fn activate(&self, config: &mut Config, next: NextOrigins) {
        if let Err(error) = log::reconfigure(&config.log) {
            tracing::warn!(%error, "the log stays as it is");
        }
        let NextOrigins { origins, retired, is_another, gives_back } = next;
        if gives_back {
            self.purge_before();
        }
        let before = self.proxy.active_config();
        let networks = config.server.trusted_proxies.networks();
        let is_trust_the_same = *self.startup.trusted_proxies.networks() == *networks;
        let trust_version = before.trust_version + u64::from(!is_trust_the_same);
        let active = self.startup.active_config(config, &self.proxy.metrics, &origins);
        self.proxy.activate(ActiveConfig { trust_version, ..active });
        self.startup.trusted_proxies.replace(&networks);
        super::notify::apply(&self.proxy, &config.notify);
        super::sources::apply(&self.proxy, &config.sources);
        self.origins.adopt(origins);
        for client in retired {
            let origin = client.health().status().address;
            tracing::info!(
                %origin,
                "[upstream] or [[apps]] has changed: connections to this origin end with their \
                 requests"
            );
            client.retire();
        }
        if is_another || gives_back {
            // Their keys are others from now on. Sidecars that are started later with the new
            // origin have the keys of before, so nothing may be left under them.
            let coherence = Arc::clone(&self.proxy.coherence);
            self.proxy.tasks.spawn(async move {
                coherence.purge_everything(PurgeKind::Hard).await;
                tracing::info!("purged everything, because another origin answers now");
            });
        }
    }

    /// Purges everything, and returns when no sidecar serves it any more, or it is pending: an app
    /// has a host again under whose keys it has stored something before.
    fn purge_before(&self) {
        let coherence = Arc::clone(&self.proxy.coherence);
        // Reloads run on a thread that may block.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.block_on(coherence.purge_everything(PurgeKind::Hard));
        tracing::info!("purged everything, because an app has a host again that it had before");
    }

    fn refuse(&self, problems: &Diagnostics) -> ReloadReport {
        let (now, report) = (self.proxy.clock.wall(), ReloadReport::refused(problems));
        self.status.lock().refused = Some((now, report.text.clone()));
        self.counters.failed.inc();
        let first = report.problems.first();
        let (file, line, message) = first.map_or(("", 0, ""), |problem| {
            (problem.file.as_str(), problem.line, problem.message.as_str())
        });
        tracing::error!(
            file,
            line,
            problems = report.problems.len(),
            "the file is rejected, the old rules stay in force: {message}"
        );
        self.proxy.events.publish(
            now,
            EventKind::Reload { ok: false, changes: 0, error: Some(report.text.clone()) },
        );
        report
    }

    /// Starts cluster fills if no route needed them at startup.
    fn start_cluster_fills(&self) {
        let proxy = &self.proxy;
        if proxy.cluster_fills.get().is_none()
            && let Some(cluster_fills) = ClusterFills::new(
                Arc::clone(&proxy.coherence),
                self.startup.waiters,
                self.startup.wait,
                proxy.tasks.clone(),
            )
            && proxy.cluster_fills.set(cluster_fills).is_ok()
        {
            super::metrics::register_cluster_fills(proxy);
        }
    }

    /// Polls the file and those that it includes, and reloads it when it has changed, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let (mut before, mut known) = (None, KnownPatterns::default());
        loop {
            let every = *self.watch.lock();
            let sleep = tokio::time::sleep(every.unwrap_or(IDLE_POLL_INTERVAL));
            if stop.run_until_cancelled(sleep).await.is_none() {
                return;
            }
            let (Some(file), true) = (self.status().file, every.is_some()) else { continue };
            let look = move || {
                let now = FileState::read_again(&file, &mut known);
                (now, known)
            };
            let Ok((now, patterns)) = tokio::task::spawn_blocking(look).await else {
                known = KnownPatterns::default();
                continue;
            };
            known = patterns;
            let changed = *self.last_read.lock() != now;
            if changed && before.as_ref() == Some(&now) {
                self.reload_elsewhere().await;
            }
            before = Some(now);
        }
    }

    /// Reloads at each SIGHUP, until `stop`.
    #[cfg(unix)]
    pub fn reload_on_sighup(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        async move {
            let Ok(mut signals) = signals else {
                tracing::warn!(
                    "SIGHUP is not available; changes of the file and the admin API still reload \
                     the rules"
                );
                return;
            };
            while let Some(Some(())) = stop.run_until_cancelled(signals.recv()).await {
                self.reload_elsewhere().await;
            }
        }
    }

    /// Reloads on a thread that may block on the disk.
    pub async fn reload_elsewhere(self: &Arc<Self>) -> ReloadReport {
        self.elsewhere(Self::reload).await
    }

    /// Does this work on a thread that may block, when it is its turn.
    async fn elsewhere(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> ReloadReport + Send + 'static,
    ) -> ReloadReport {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let reloader = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone; the turn lasts to the end of the work.
            let _turn = turn;
            work(&reloader)
        });
        // The work panicked, which was logged. The old rules stay in force.
        working.await.unwrap_or_else(|_| {
            ReloadReport::refused(&Diagnostics::unreadable(
                "proxy.toml",
                "reading the file failed with an internal error".to_owned(),
                "see the log, and report it as a bug",
            ))
        })
    }
}

/// What the admin API needs. The handle owns the reloader, because a reload runs on another thread.
#[derive(Debug)]
pub struct AdminReload(pub Arc<Reloader>);

impl ReloadHandle for AdminReload {
    fn status(&self) -> ReloadStatus {
        self.0.status()
    }

    fn reload(&self) -> BoxFuture<'static, ReloadReply> {
        let reloader = Arc::clone(&self.0);
        Box::pin(async move { reloader.reload_elsewhere().await.reply() })
    }

    fn check(&self, text: CheckedText) -> BoxFuture<'static, ReloadReply> {
        let reloader = Arc::clone(&self.0);
        Box::pin(async move { reloader.elsewhere(move |own| own.check(&text)).await.reply() })
    }

    fn try_edits(&self, edits: &[Edit]) -> EditTrial {
        let trial = self.0.trials.try_edits(edits, &self.0.file_name());
        if trial == EditTrial::Pending {
            self.0.counters.trials_pending.inc();
        }
        trial
    }

    fn settings_without_file(&self) -> Option<String> {
        self.0.status().file.is_none().then(|| self.0.trials.texts().main.to_string())
    }
}

/// Reads and compiles a file and those that it includes. What was read before comes with it: if the
/// files change meanwhile, the next look of the watcher finds that they have.
///
/// Files that are replaced while they are read, as by a link to another folder, would give some old
/// and some new rules. So what is compiled was read twice.
fn load(file: &Path) -> (Result<FileState, String>, Result<Config, Diagnostics>) {
    let mut reads = 1;
    loop {
        let read = FileState::read(file);
        let loaded = Config::load(file);
        let is_whole = match &loaded {
            Ok(config) if !config.included.is_empty() => {
                read.as_ref() == Ok(&FileState::valid(config.texts()))
            }
            Ok(_) | Err(_) => true,
        };
        if is_whole {
            return (read, loaded);
        }
        if reads == MAX_READS {
            let name = file.display().to_string();
            let problems = Diagnostics::unreadable(
                &name,
                "the files that it includes change while they are read".to_owned(),
                "reload again when all of them are written",
            );
            return (read, Err(problems));
        }
        reads += 1;
    }
}

fn included_file(file: &IncludedText) -> IncludedFile {
    IncludedFile { name: file.name.as_str().into(), text: file.text.as_str().into() }
}

/// The diagnostics of a valid file with an origin that there can be no client for.
fn unusable(config: &Config, error: &SetupError) -> Diagnostics {
    let file = config.file.as_deref().unwrap_or_else(|| Path::new("proxy.toml"));
    Diagnostics::unreadable(
        &file.display().to_string(),
        error.to_string(),
        "correct `[upstream]`; the old settings stay in force",
    )
}

#[cfg(test)]
mod tests;
