//! Reading the file again: validated whole, put in force at once, and refused whole where anything
//! in it is wrong.
//!
//! Invariants:
//! - Rules come into force only if the whole file is right; until then, and after a file that is
//!   not, the old ones stay.
//! - One reload at a time, whoever asks: a signal, the file itself, the admin API.
//! - A file that changes is read when it says the same at two looks in a row, so that one that is
//!   being written is not taken for broken.
//! - What is made at the start (listeners, tiers, the client towards the app, pools) stays as it
//!   is, and is told as waiting for a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cache::fills::cluster::ClusterFills;
use crate::clock::{Clock, Wall};
use crate::config::diff::{self, ConfigChange, ConfigSnapshot};
use crate::config::{Config, Diagnostic, Diagnostics, Severity};
use crate::policy::plan::PolicyRules;
use crate::policy::route::{Collapse, RouteMode};
use crate::proxy::{self, ActiveConfig, Proxy};
use crate::secret::Hasher;
use crate::telemetry::events::{EventKind, Events};
use crate::telemetry::metrics::{Counter, Metrics};

/// How often the configuration is asked whether the file is to be watched, while it is not.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What a reload came to, or would come to.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// Whether the file can be used.
    pub ok: bool,
    /// What it says otherwise than the rules in force.
    pub changes: Vec<ConfigChange>,
    /// What it asks for that waits for a restart, as `section.key`.
    pub restart_needed: Vec<String>,
    /// What is wrong with it, or looks wrong.
    pub problems: Vec<ReloadNotice>,
    /// The same as `sidecache check` prints it.
    pub text: String,
}

/// A problem of the file.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadNotice {
    /// `error`, `warning` or `note`.
    pub severity: &'static str,
    /// The line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl ReloadNotice {
    fn from_diagnostic(problem: &Diagnostic) -> Self {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let (message, hint) = (problem.message.clone(), problem.hint.clone());
        Self { severity, line: problem.line, column: problem.column, message, hint }
    }
}

/// How it stands with the file.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    /// The file; none for rules that were made without one.
    pub file: Option<PathBuf>,
    /// The switch for all routes.
    pub mode: RouteMode,
    /// When the rules in force were read.
    pub loaded: Wall,
    /// How often rules came into force.
    pub loads: u64,
    /// Why the file as it is now is refused, and since when.
    pub refused: Option<(Wall, String)>,
    /// What it asks for that waits for a restart.
    pub restart_needed: Vec<String>,
}

/// Counts of what reloads come to.
#[derive(Clone, Debug, Default)]
pub struct ReloadCounters {
    /// Files put in force.
    pub ok: Arc<Counter>,
    /// Files refused.
    pub failed: Arc<Counter>,
}

/// What no reload changes.
#[derive(Clone, Debug)]
pub struct StartupSettings {
    object: u64,
    variants: usize,
    refreshes: usize,
    mutations: usize,
    waiters: usize,
    wait: Duration,
    mark_for: Duration,
    tunnel_timeout: Duration,
    access_log: bool,
    hasher: Hasher,
}

impl StartupSettings {
    /// What the file says at the start.
    #[must_use]
    pub fn from_config(config: &Config, hasher: Hasher) -> Self {
        let limits = &config.limits;
        Self {
            object: limits.object,
            variants: limits.variants,
            refreshes: limits.refreshes,
            mutations: limits.mutations,
            waiters: limits.waiters,
            wait: limits.wait,
            mark_for: config.upstream.first_byte_timeout + super::MARK_MARGIN,
            tunnel_timeout: config.upstream.tunnel_timeout,
            access_log: config.log.access,
            hasher,
        }
    }

    /// The rules and settings of a file, with what is fixed. Takes the routes out of it.
    pub fn active_config(&self, config: &mut Config, metrics: &Metrics) -> ActiveConfig {
        let limits = &config.limits;
        let settings = proxy::ProxySettings {
            max_tags: limits.tags,
            max_variants: self.variants,
            keep_stale: limits.stale,
            max_ranges: limits.ranges,
            // What is larger than an object may be could not be stored.
            range_fill: limits.range_fill.min(self.object),
            max_refreshes: self.refreshes,
            purge_body: limits.purge_body,
            mutations: self.mutations,
            mark_for: self.mark_for,
            tunnel_timeout: self.tunnel_timeout,
            debug_headers: config.debug_headers,
            access_log: self.access_log,
        };
        let rules = PolicyRules {
            routes: std::mem::take(&mut config.routes),
            purges: std::mem::take(&mut config.purges),
            credential: Arc::clone(&config.credential),
            hasher: self.hasher.clone(),
            max_key: usize::try_from(limits.key).unwrap_or(usize::MAX),
        };
        let table = metrics.table(rules.routes.iter().map(|route| route.name().to_owned()));
        ActiveConfig { rules: Arc::new(rules), settings, table }
    }
}

/// Puts a file in force, again and again.
#[derive(Debug)]
pub struct Reloader {
    proxy: Arc<Proxy>,
    events: Arc<Events>,
    startup: StartupSettings,
    clock: Clock,
    started: ConfigSnapshot,
    /// Held for the whole of a reload.
    current: Mutex<ConfigSnapshot>,
    status: Mutex<ReloadStatus>,
    watch: Mutex<Option<Duration>>,
    /// What was read last, whatever came of it.
    last_read: Mutex<Result<String, String>>,
    /// What it has done.
    pub counters: ReloadCounters,
}

impl Reloader {
    /// For rules that are in force already, with the config that they came from and its reading.
    #[must_use]
    pub fn new(
        proxy: Arc<Proxy>,
        events: Arc<Events>,
        fixed: StartupSettings,
        (config, reading): (&Config, ConfigSnapshot),
        clock: Clock,
    ) -> Self {
        let standing = ReloadStatus {
            file: config.file.clone(),
            mode: config.mode,
            loaded: clock.wall(),
            loads: 1,
            refused: None,
            restart_needed: Vec::new(),
        };
        Self {
            proxy,
            events,
            startup: fixed,
            clock,
            started: reading.clone(),
            current: Mutex::new(reading),
            status: Mutex::new(standing),
            watch: Mutex::new(config.watch),
            last_read: Mutex::new(Ok(config.text.to_string())),
            counters: ReloadCounters::default(),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ReloadStatus {
        self.status.lock().clone()
    }

    /// Reads the file again, and puts it in force if it is right.
    pub fn reload(&self) -> ReloadReport {
        let mut turn = self.current.lock();
        let Some(file) = self.status().file else {
            return refused(&Diagnostics::unreadable(
                "proxy.toml",
                "these rules were not read from a file".to_owned(),
                "start with `--config FILE`",
            ));
        };
        match Config::load(&file) {
            Ok(config) => {
                *self.last_read.lock() = Ok(config.text.to_string());
                self.accept(&mut turn, config)
            }
            Err(problems) => {
                *self.last_read.lock() =
                    std::fs::read_to_string(&file).map_err(|error| error.to_string());
                self.refuse(&problems)
            }
        }
    }

    /// What a reload with this text would come to. Nothing is changed.
    #[must_use]
    pub fn check(&self, text: &str) -> ReloadReport {
        let turn = self.current.lock();
        let name = self
            .status()
            .file
            .map_or_else(|| "proxy.toml".to_owned(), |file| file.display().to_string());
        match Config::parse(text, &name, &|variable| std::env::var(variable).ok()) {
            Ok(config) => self.compare(&turn, &config).0,
            Err(problems) => refused(&problems),
        }
    }

    fn compare(&self, before: &ConfigSnapshot, config: &Config) -> (ReloadReport, ConfigSnapshot) {
        let reading = ConfigSnapshot::from_config(config);
        let text: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        let report = ReloadReport {
            ok: true,
            changes: diff::changes(before, &reading),
            restart_needed: diff::waiting_for_restart(&self.started, &reading),
            problems: config.warnings.iter().map(ReloadNotice::from_diagnostic).collect(),
            text: text.join("\n"),
        };
        (report, reading)
    }

    fn accept(&self, turn: &mut ConfigSnapshot, mut config: Config) -> ReloadReport {
        let (report, reading) = self.compare(turn, &config);
        for warning in &config.warnings {
            tracing::warn!(line = warning.line, "{}", warning.message);
        }
        if config.routes.iter().any(|route| route.spec.collapse == Collapse::Cluster) {
            self.share_fills();
        }
        *self.watch.lock() = config.watch;
        let mode = config.mode;
        self.proxy.activate(self.startup.active_config(&mut config, &self.proxy.metrics));
        if !report.changes.is_empty() {
            // What was found of other rules says nothing of these.
            self.proxy.shadow.reset();
            super::metrics::watch_routes(&self.proxy);
        }
        *turn = reading;
        let now = self.clock.wall();
        {
            let mut standing = self.status.lock();
            let (loads, restart_needed) = (standing.loads + 1, report.restart_needed.clone());
            *standing = ReloadStatus {
                mode,
                loaded: now,
                loads,
                refused: None,
                restart_needed,
                file: standing.file.take(),
            };
        }
        self.counters.ok.inc();
        tracing::info!(
            changes = report.changes.len(),
            "the file was read again, and its rules are in force"
        );
        if !report.restart_needed.is_empty() {
            tracing::warn!(
                keys = report.restart_needed.join(" "),
                "the file asks for more than a reload can change; that waits for a restart"
            );
        }
        self.events.publish(
            now,
            EventKind::Reload { ok: true, changes: report.changes.len(), error: None },
        );
        report
    }

    fn refuse(&self, problems: &Diagnostics) -> ReloadReport {
        let (now, report) = (self.clock.wall(), refused(problems));
        self.status.lock().refused = Some((now, report.text.clone()));
        self.counters.failed.inc();
        let first = report.problems.first();
        let (line, message) =
            first.map_or((0, ""), |problem| (problem.line, problem.message.as_str()));
        tracing::error!(
            line,
            problems = report.problems.len(),
            "the file was read again and is refused, the old rules stay: {message}"
        );
        self.events.publish(
            now,
            EventKind::Reload { ok: false, changes: 0, error: Some(report.text.clone()) },
        );
        report
    }

    /// Routes may ask for fills that all sidecars share although none did at the start.
    fn share_fills(&self) {
        let proxy = &self.proxy;
        if proxy.cluster_fills.get().is_none()
            && let Some(across) = ClusterFills::new(
                Arc::clone(&proxy.coherence),
                self.startup.waiters,
                self.startup.wait,
                proxy.tasks.clone(),
            )
            && proxy.cluster_fills.set(across).is_ok()
        {
            super::metrics::register_cluster_fills(proxy);
        }
    }

    /// Looks at the file again and again, and reloads it when it has changed, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut before = None;
        loop {
            let every = *self.watch.lock();
            if stop
                .run_until_cancelled(tokio::time::sleep(every.unwrap_or(IDLE_POLL_INTERVAL)))
                .await
                .is_none()
            {
                return;
            }
            let (Some(file), true) = (self.status().file, every.is_some()) else { continue };
            let now = tokio::fs::read_to_string(&file).await.map_err(|error| error.to_string());
            let changed = *self.last_read.lock() != now;
            if changed && before.as_ref() == Some(&now) {
                self.reload_elsewhere().await;
            }
            before = Some(now);
        }
    }

    /// Reloads at each SIGHUP, until `stop`.
    #[cfg(unix)]
    pub async fn reload_on_sighup(self: Arc<Self>, stop: CancellationToken) {
        let Ok(mut signals) =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        else {
            tracing::warn!("SIGHUP cannot be heard; the file and the admin API reload the rules");
            return;
        };
        while let Some(Some(())) = stop.run_until_cancelled(signals.recv()).await {
            self.reload_elsewhere().await;
        }
    }

    /// Reloads on a thread that may wait for the disk.
    pub async fn reload_elsewhere(self: &Arc<Self>) -> ReloadReport {
        let reloader = Arc::clone(self);
        match tokio::task::spawn_blocking(move || reloader.reload()).await {
            Ok(report) => report,
            // It panicked, and its panic was logged. The old rules stay.
            Err(_) => refused(&Diagnostics::unreadable(
                "proxy.toml",
                "the reload failed within".to_owned(),
                "see the log, and report it as a bug",
            )),
        }
    }
}

fn refused(problems: &Diagnostics) -> ReloadReport {
    let told = problems.iter().map(ReloadNotice::from_diagnostic).collect();
    ReloadReport {
        ok: false,
        changes: Vec::new(),
        restart_needed: Vec::new(),
        problems: told,
        text: problems.to_string(),
    }
}
