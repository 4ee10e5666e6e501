//! Builds the parts of the sidecar, and serves until shutdown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, Readiness, Ready};
pub(crate) use crate::app::handover::upgrade::start_on_sigusr2 as start_successors;
use crate::app::history::HistoryRecorder;
pub use crate::app::listeners::BoundListeners;
use crate::app::reload::{AdminReload, Origins, Reloader, StartupSettings};
use crate::app::restart::RestartRole;
use crate::app::snapshot::SnapshotKeeper;
use crate::app::tokens::TokenKeeper;
use crate::app::trace::TraceExport;
use crate::cache::encoder::Encoder;
use crate::cache::entry::packed::Seal;
use crate::cache::fills::Fills;
use crate::cache::fills::cluster::ClusterFills;
use crate::cache::store::Store;
use crate::cache::store::memory::Memory;
pub use crate::clock::Clock;
use crate::coherence::Coherence;
use crate::coherence::redis_records::RecordStore;
use crate::config::Config;
use crate::config::diff::ConfigSnapshot;
use crate::error::SetupError;
use crate::notify::Notifiers;
use crate::outcome::{Outcome, Reason};
use crate::policy::authorized_clients::AuthorizedClients;
use crate::policy::route::Collapse;
use crate::proxy::response;
use crate::proxy::{self, ClientConnection, FoundAtOnce, Proxy};
use crate::redis::RedisClient;
use crate::secret::Hasher;
use crate::semantics::body::Body;
use crate::semantics::forward::{BadRequest, ClientPeer, UnreadHead};
use crate::server::{self, DrainSignals, Drained, Service, SpareSocket};
use crate::shadow::Shadow;
use crate::shares::{Departure, FairSemaphore, Queues, ShareSettings};
use crate::sources::Sources;
use crate::telemetry::events::EventKind;
use crate::telemetry::hot_tags::HotTags;
use crate::telemetry::log;
pub use crate::telemetry::log::init as init_log;
use crate::telemetry::metrics::Metrics;
use crate::uncached::Uncached;
use crate::upstream;

mod compress_metrics;
pub mod descriptors;
mod handover;
mod history;
mod identities;
mod listen_error;
mod listener_metrics;
mod listeners;
mod metrics;
mod metrics_registrar;
mod notify;
mod packing_metrics;
#[cfg(target_os = "linux")]
mod process_metrics;
pub mod reload;
mod reload_metrics;
mod restart;
mod service_manager;
mod session_metrics;
mod share_metrics;
mod snapshot;
mod sources;
mod switch_metrics;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod trials;
mod unseen_cookies;
mod upload_metrics;

/// How long startup waits for Redis before it serves without it.
const FIRST_JOIN_TIMEOUT: Duration = Duration::from_millis(150);

/// How often the readiness is checked for changes, which are published as events.
const STATE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How often the log tells what it has suppressed.
const SUPPRESSED_INTERVAL: Duration = Duration::from_secs(10);

/// A sidecar that is built but not yet serving.
#[derive(Debug)]
pub struct Sidecar {
    /// The request flow.
    pub proxy: Arc<Proxy>,
    /// Reloads the config file.
    pub reloader: Arc<Reloader>,
    server_counters: server::ServerCounters,
    upstream_counters: upstream::UpstreamCounters,
    snapshot: Arc<SnapshotKeeper>,
    trace: TraceExport,
}

impl Sidecar {
    /// Builds all parts without serving. Needs a tokio runtime.
    pub fn new(config: &mut Config, clock: Clock) -> Result<Self, SetupError> {
        Self::beside(config, clock, false)
    }

    /// The same, perhaps beside a process that still has the journal.
    fn beside(config: &mut Config, clock: Clock, beside: bool) -> Result<Self, SetupError> {
        let (hasher, seal) = secret_keys(config);
        let in_force = ConfigSnapshot::from_config(config);
        let client = config.redis.clone().map(RedisClient::new).transpose()?;
        let shared = client.map(|client| RecordStore::new(Arc::new(client), clock.clone()));
        let coherence = Arc::new(Coherence::new(shared, clock.clone()).with_journal(beside)?);
        let store = Arc::new(new_store(config, &coherence, seal));
        let upstream_counters = upstream::UpstreamCounters::default();
        let metrics = Arc::new(Metrics::new());
        let (tracer, trace) = TraceExport::start(config.trace.as_ref(), &metrics);
        let tokens = TokenKeeper::new(clock.clone());
        tokens.register(&metrics);
        let startup = StartupSettings::from_config(config, hasher.clone(), tokens, &metrics);
        let origins = Origins::new(config, clock.clone(), upstream_counters.clone())?;
        let active = startup.active_config(config, &metrics, &origins.current());
        let (tasks, cluster_fills) = (TaskTracker::new(), OnceLock::new());
        let needs_cluster =
            active.rules.routes.iter().any(|route| route.spec.collapse == Collapse::Cluster);
        let (waiters, wait) = (config.limits.waiters, config.limits.wait);
        if needs_cluster
            && let Some(made) =
                ClusterFills::new(Arc::clone(&coherence), waiters, wait, tasks.clone())
        {
            cluster_fills.get_or_init(|| made);
        }
        let (stop, counters) = (CancellationToken::new(), proxy::ProxyCounters::default());
        let late_purges = proxy::LatePurges::new(&coherence, &tasks, &counters.purges_at_end);
        let resources = proxy::Resources {
            sources: Sources::new(&store, &coherence, &stop),
            notifiers: Notifiers::new(&coherence),
            store,
            coherence,
            fills: Fills::new(waiters, wait, config.limits.fills),
            cluster_fills,
            authorized_clients: Arc::new(AuthorizedClients::new(config.limits.authorized_clients)),
            shadow: Arc::new(Shadow::new(
                config.limits.shadow_keys,
                config.limits.authorized_clients,
                Arc::clone(&metrics),
            )),
            metrics,
            hot_tags: HotTags::default(),
            tracer,
            encoder: Encoder::new(clock.clone()),
            events: Arc::default(),
            history: Arc::default(),
            tail: Arc::default(),
            mutation_permits: mutation_permits(config, &clock, &counters),
            uncached: Arc::new(Uncached::new(clock.now())),
            clock,
            tasks,
            leaving: CancellationToken::new(),
            stop,
            streams: CancellationToken::new(),
            overlap: proxy::Overlap::default(),
            range_budget: Arc::<proxy::RangeBudget>::default(),
            upload_budget: proxy::UploadBudget::new(config.limits.uploads),
            unknown_outcomes: proxy::UnknownOutcomes::default(),
            uncovered_writes: proxy::UncoveredWrites::default(),
            refresh_permits: Arc::new(Semaphore::new(config.limits.refreshes)),
            late_keys: proxy::LateKeys::default(),
            guest_proofs: proxy::GuestProofs::default(),
            late_purges,
            counters,
        };
        let proxy = Arc::new(Proxy::new(active, resources));
        let snapshot = Arc::new(SnapshotKeeper::new(config, &hasher, Arc::clone(&proxy)));
        snapshot.register();
        let server_counters = server::ServerCounters::default();
        let reloader =
            Arc::new(Reloader::new(Arc::clone(&proxy), startup, origins, (config, in_force)));
        metrics::register(&proxy, &server_counters, &upstream_counters);
        register_parts(&proxy, &reloader, config);
        Ok(Self { proxy, reloader, server_counters, upstream_counters, snapshot, trace })
    }
}

/// Registers the metrics and events of parts.
fn register_parts(proxy: &Arc<Proxy>, reloader: &Arc<Reloader>, config: &Config) {
    reload_metrics::register(reloader, &proxy.metrics);
    unseen_cookies::register(proxy, &proxy.metrics);
    publish_findings(proxy);
    sources::register(proxy, &config.sources);
    notify::register(proxy, &config.notify);
}

fn new_store(config: &Config, coherence: &Arc<Coherence>, seal: Seal) -> Store {
    let limits = &config.limits;
    let memory = Memory::new(config.memory);
    Store::new(memory, Arc::clone(coherence), seal, limits.object, limits.variants)
        .with_compression(config.redis.as_ref().and_then(|redis| redis.compress))
}

fn mutation_permits(
    config: &Config,
    clock: &Clock,
    counters: &proxy::ProxyCounters,
) -> FairSemaphore {
    let shares = ShareSettings {
        permits: config.limits.mutations,
        max_waiting: config.upstream.max_waiting,
        wait: config.upstream.wait_timeout,
        stall: config.limits.stall,
        queues: Queues::Always,
    };
    FairSemaphore::new(shares, clock.clone(), counters.mutation_shares.clone())
}

/// What hashes credentials and seals entries, from the secret of `[redis]`.
fn secret_keys(config: &Config) -> (Hasher, Seal) {
    match config.redis.as_ref().and_then(|redis| redis.secret.as_ref()) {
        Some(secret) => {
            (Hasher::new(secret.expose().as_bytes()), Seal::keyed(secret.expose().as_bytes()))
        }
        None => (Hasher::default(), Seal::default()),
    }
}

/// Serves until `shutdown`, then drains.
pub async fn serve(
    config: Config,
    bound: BoundListeners,
    shutdown: CancellationToken,
) -> Result<Drained, SetupError> {
    serve_with(config, bound, shutdown, Clock::system()).await
}

/// Like [`serve`], with a clock that tests can control.
pub async fn serve_with(
    mut config: Config,
    mut bound: BoundListeners,
    shutdown: CancellationToken,
    clock: Clock,
) -> Result<Drained, SetupError> {
    let beside = RestartRole::is_beside(&bound);
    let sidecar = Sidecar::beside(&mut config, clock.clone(), beside)?;
    let proxy = &sidecar.proxy;
    let mut restart = RestartRole::new(proxy, bound.restart.take());
    let driver = tokio::spawn(Arc::clone(&proxy.coherence).drive(proxy.stop.clone()));
    // Wait for a lease, so that the first writes need not wait for peers that are still unknown.
    let _ = tokio::time::timeout(FIRST_JOIN_TIMEOUT, proxy.coherence.wait_for_lease()).await;
    // The switches of the other sidecars hold from the first request on.
    let _ = tokio::time::timeout(FIRST_JOIN_TIMEOUT, proxy.switches.share()).await;
    sidecar.snapshot.restore().await;
    notify::apply(proxy, &std::mem::take(&mut config.notify));
    sources::apply(proxy, &std::mem::take(&mut config.sources));
    // Nobody knows what has changed since those of before have stopped. The sources themselves
    // purge it again, in case this takes too long.
    let _ =
        tokio::time::timeout(FIRST_JOIN_TIMEOUT, Box::pin(proxy.sources.purge_families())).await;
    match shutdown.run_until_cancelled(restart.begin()).await {
        Some(Ok(())) => {}
        // The process that serves goes on.
        refused => {
            proxy.stop.cancel();
            let _ = driver.await;
            restart.end().await;
            return match refused {
                Some(Err(error)) => Err(error),
                _ => Ok(Drained::default()),
            };
        }
    }
    let state = spawn_watchers(&sidecar, restart.takes_over());
    let admin_stop = CancellationToken::new();
    let readiness: Arc<dyn Readiness> = Arc::<AppReadiness>::clone(&state);
    let admin_state = Arc::new(AdminState::new(
        Arc::clone(proxy),
        Arc::new(AdminReload(Arc::clone(&sidecar.reloader))),
        readiness,
        admin_stop.clone(),
    ));
    let signals = DrainSignals {
        shutdown,
        tasks: proxy.tasks.clone(),
        streams: proxy.streams.clone(),
        settled: CancellationToken::new(),
        spare: SpareSocket::default(),
    };
    let (address, origin) = (bound.proxy.shown(), &config.upstream.target);
    let routes = proxy.active_config().rules.routes.len();
    tracing::info!(%address, %origin, routes, "listening");
    let admin_address = config.admin.address.to_string();
    config.admin.name.get_or_insert_with(|| sidecar_name(&bound.proxy.shown()));
    restart.serving((&bound.proxy, &bound.admin, &admin_address), &signals).await;
    // Whoever is told may send signals and start a successor at once.
    service_manager::notify("READY=1\nSTATUS=serving");
    let admin = admin::run(bound.admin, config.admin.clone(), admin_state, admin_stop.clone());
    let admin = tokio::spawn(admin);
    tokio::spawn(begin_drain(
        state,
        signals.shutdown.clone(),
        (admin_stop.clone(), restart.superseded.clone()),
    ));
    let service = Arc::clone(proxy);
    let counters = sidecar.server_counters;
    let drained = server::run(bound.proxy, config.server, service, counters, clock, signals).await;
    if restart.superseded.is_cancelled() {
        sidecar.snapshot.forgo("another process serves already");
    }
    tokio::join!(sidecar.snapshot.save(), sidecar.trace.finish(), proxy.notifiers.finish());
    proxy.stop.cancel();
    admin_stop.cancel();
    let _ = tokio::join!(driver, admin);
    restart.end().await;
    Ok(drained)
}

/// What a sidecar is called that has no name: its host, and where it listens.
fn sidecar_name(address: &str) -> Box<str> {
    let host = rustix::system::uname();
    format!("{} {address}", host.nodename().to_string_lossy()).into()
}

/// Starts what watches the file, the signals and the state.
fn spawn_watchers(sidecar: &Sidecar, takes_over: bool) -> Arc<AppReadiness> {
    let (proxy, reloader) = (&sidecar.proxy, &sidecar.reloader);
    tokio::spawn(Arc::clone(reloader).watch(proxy.stop.clone()));
    #[cfg(unix)]
    tokio::spawn(Arc::clone(reloader).reload_on_sighup(proxy.stop.clone()));
    let state = Arc::new(AppReadiness {
        proxy: Arc::clone(proxy),
        reloader: Arc::clone(reloader),
        draining: AtomicBool::new(false),
    });
    let readiness: Arc<dyn Readiness> = Arc::<AppReadiness>::clone(&state);
    tokio::spawn(publish_state_changes(Arc::clone(proxy), Arc::clone(&readiness)));
    history::mark_start(proxy, takes_over);
    let recorder =
        HistoryRecorder::new(Arc::clone(proxy), readiness, sidecar.upstream_counters.clone());
    tokio::spawn(recorder.run());
    tokio::spawn(tell_suppressed_lines(proxy.stop.clone()));
    tokio::spawn(unseen_cookies::warn(Arc::clone(proxy)));
    let switched = Arc::clone(proxy);
    tokio::spawn(async move { switched.switches.drive().await });
    let coherence = Arc::clone(&proxy.coherence);
    tokio::spawn(async move { coherence.adopt_journals().await });
    state
}

/// Begins the drain: another process may serve from now on, and have the admin port.
async fn begin_drain(
    state: Arc<AppReadiness>,
    shutdown: CancellationToken,
    (admin_stop, superseded): (CancellationToken, CancellationToken),
) {
    shutdown.cancelled().await;
    state.proxy.overlap.drain();
    state.draining.store(true, Ordering::Relaxed);
    state.proxy.leaving.cancel();
    admin_stop.cancel();
    if !superseded.is_cancelled() {
        service_manager::notify("STOPPING=1");
    }
}

/// Publishes the findings of shadow mode and audits as events.
fn publish_findings(proxy: &Proxy) {
    let (events, clock) = (Arc::clone(&proxy.events), proxy.clock.clone());
    proxy.shadow.set_listener(move |notice| {
        let (finding, route, text) =
            (notice.finding.as_str(), notice.route.clone(), notice.text.clone());
        events.publish(clock.wall(), EventKind::Finding { finding, route, text });
    });
}

/// Publishes changes of the readiness as events, until the sidecar stops.
async fn publish_state_changes(proxy: Arc<Proxy>, readiness: Arc<dyn Readiness>) {
    let mut before = readiness.state();
    while proxy.stop.run_until_cancelled(tokio::time::sleep(STATE_CHECK_INTERVAL)).await.is_some() {
        let now = readiness.state();
        if now != before {
            proxy.events.publish(
                proxy.clock.wall(),
                EventKind::State { status: now.status(), reasons: now.degraded.clone() },
            );
            before = now;
        }
    }
}

/// Logs from time to time which lines were suppressed, until the sidecar stops.
async fn tell_suppressed_lines(stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SUPPRESSED_INTERVAL)).await.is_some() {
        log::tell_suppressed();
    }
}

impl Service for Proxy {
    type Client = ClientConnection;
    type Found = FoundAtOnce;

    fn connect(&self, peer: ClientPeer, departure: &Arc<Departure>) -> ClientConnection {
        ClientConnection::watched(peer, Arc::clone(departure), &self.active_config())
    }

    fn call_at_once(
        &self,
        parts: &Parts,
        client: &ClientConnection,
    ) -> Result<Response<Body>, FoundAtOnce> {
        self.answer_at_once(parts, client)
    }

    fn call(
        self: &Arc<Self>,
        request: Request<Body>,
        client: &ClientConnection,
        flaw: Option<BadRequest>,
        found: FoundAtOnce,
    ) -> impl Future<Output = Response<Body>> + Send {
        self.handle_found(request, client, flaw, found)
    }

    fn reject(&self, head: &UnreadHead, client: &ClientConnection) -> Response<Body> {
        self.refuse_head(head, client)
    }

    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body> {
        response::refusal(status, why, &Outcome::bypass_with(Reason::BadRequest, why))
    }
}

#[derive(Debug)]
struct AppReadiness {
    proxy: Arc<Proxy>,
    reloader: Arc<Reloader>,
    draining: AtomicBool,
}

impl Readiness for AppReadiness {
    fn state(&self) -> Ready {
        let mut degraded = Vec::new();
        let draining = self.draining.load(Ordering::Relaxed);
        if draining {
            degraded.push("draining".to_owned());
        }
        let config = self.proxy.active_config();
        let origins = config.origins.iter();
        degraded.extend(origins.filter_map(|origin| origin.health().status().degraded_reason()));
        if let Some(tokens) = &config.rules.tokens {
            degraded.extend(tokens.keys().status(self.proxy.clock.wall()).degraded_reason());
        }
        if let Some(table) = &config.rules.identities {
            degraded.extend(table.degraded_reason());
        }
        if self.proxy.overlap.awaits_predecessor() {
            degraded.push("an earlier process still answers writes: nothing is cached".to_owned());
        }
        degraded.extend(self.proxy.coherence.degraded_reason());
        degraded.extend(self.proxy.sources.degraded_reasons());
        degraded.extend(self.proxy.notifiers.degraded_reasons());
        if let Some((_, why)) = self.reloader.status().refused {
            let first = why.lines().next().unwrap_or_default();
            degraded.push(format!(
                "the changed file is rejected, the old rules stay in force: {first}"
            ));
        }
        Ready { ready: !draining, degraded }
    }
}
