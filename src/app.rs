//! Puts the parts together, and serves until it is told to stop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, Readiness, Ready};
use crate::app::reload::{Reloader, StartupSettings};
use crate::cache::entry::packed::Seal;
use crate::cache::fills::Fills;
use crate::cache::fills::cluster::ClusterFills;
use crate::cache::store::Store;
use crate::cache::store::memory::Memory;
pub use crate::clock::Clock;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::{Coherence, CoherenceMode};
use crate::config::Config;
use crate::config::diff::ConfigSnapshot;
use crate::error::SetupError;
use crate::outcome::{Outcome, Reason};
use crate::policy::authorized_clients::AuthorizedClients;
use crate::policy::route::Collapse;
use crate::proxy::response;
use crate::proxy::{self, Proxy};
use crate::redis::RedisClient;
use crate::secret::Hasher;
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;
use crate::server::{self, Drained, Service};
use crate::shadow::Shadow;
use crate::telemetry::events::{EventKind, Events};
use crate::telemetry::hot_tags::HotTags;
pub use crate::telemetry::log::init as init_log;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{self, Upstream};

mod metrics;
pub mod reload;
#[cfg(test)]
mod tests;

/// How long the start waits for Redis before it serves without.
const FIRST_JOIN_TIMEOUT: Duration = Duration::from_millis(150);

/// How much longer than the app's time to answer a mutation stays marked.
const MARK_MARGIN: Duration = Duration::from_secs(5);

/// How often the sidecar's own state is looked at, for those who listen to events.
const STATE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The listeners, bound before anything is served, so that a port that is taken is a failed start.
#[derive(Debug)]
pub struct BoundListeners {
    /// For clients.
    pub proxy: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

impl BoundListeners {
    /// Binds what the config names. Port 0 takes a free one.
    pub fn bind(config: &Config) -> Result<Self, SetupError> {
        let bound = |address, section: &str| {
            server::bind(address).map_err(|error: io::Error| SetupError {
                what: format!("listening on {address}"),
                why: format!(
                    "{error}; change `address` in [{section}] of proxy.toml, or stop what uses it"
                ),
            })
        };
        Ok(Self {
            proxy: bound(config.server.address, "listen")?,
            admin: bound(config.admin.address, "admin")?,
        })
    }
}

/// A sidecar whose parts are made and not yet serving.
#[derive(Debug)]
pub struct Sidecar {
    /// The flow.
    pub proxy: Arc<Proxy>,
    /// Puts the file in force again.
    pub reloader: Arc<Reloader>,
    server_counters: server::ServerCounters,
}

impl Sidecar {
    /// Makes all parts. Starts no listener. Needs a tokio runtime.
    pub fn new(config: &mut Config, clock: Clock) -> Result<Self, SetupError> {
        let (hasher, seal) = match config.redis.as_ref().and_then(|redis| redis.secret.as_ref()) {
            Some(secret) => {
                (Hasher::new(secret.expose().as_bytes()), Seal::keyed(secret.expose().as_bytes()))
            }
            None => (Hasher::default(), Seal::default()),
        };
        let reading = ConfigSnapshot::from_config(config);
        let fixed = StartupSettings::from_config(config, hasher);
        let shared = match &config.redis {
            Some(settings) => {
                Some(RecordStore::new(Arc::new(RedisClient::new(settings.clone())?), clock.clone()))
            }
            None => None,
        };
        let coherence = Arc::new(Coherence::new(shared, clock.clone()).with_journal()?);
        let store = Arc::new(Store::new(
            Memory::new(config.memory),
            Arc::clone(&coherence),
            seal,
            config.limits.object,
            config.limits.variants,
        ));
        let upstream_counters = upstream::UpstreamCounters::default();
        let upstream =
            Upstream::new(config.upstream.clone(), clock.clone(), upstream_counters.clone())
                .map_err(|error| SetupError {
                    what: "the client towards the app".to_owned(),
                    why: error.to_string(),
                })?;
        let metrics = Arc::new(Metrics::new());
        let live = fixed.active_config(config, &metrics);
        let tasks = TaskTracker::new();
        let wanted = live.rules.routes.iter().any(|route| route.spec.collapse == Collapse::Cluster);
        let (waiters, wait) = (config.limits.waiters, config.limits.wait);
        let across = OnceLock::new();
        if wanted
            && let Some(made) =
                ClusterFills::new(Arc::clone(&coherence), waiters, wait, tasks.clone())
        {
            across.get_or_init(|| made);
        }
        let events = Arc::<Events>::default();
        let proxy = Arc::new(Proxy {
            config: ArcSwap::from_pointee(live),
            store,
            coherence,
            fills: Fills::new(waiters, wait, config.limits.fills),
            cluster_fills: across,
            authorized_clients: Arc::new(AuthorizedClients::new(config.limits.authorized_clients)),
            upstream,
            shadow: Arc::new(Shadow::new(
                config.limits.shadow_keys,
                config.limits.authorized_clients,
                Arc::clone(&metrics),
            )),
            metrics,
            hot_tags: HotTags::default(),
            events: Arc::clone(&events),
            clock: clock.clone(),
            tasks,
            stop: CancellationToken::new(),
            mutation_permits: Arc::new(Semaphore::new(
                config.limits.mutations.min(Semaphore::MAX_PERMITS),
            )),
            refresh_permits: Arc::new(Semaphore::new(
                config.limits.refreshes.min(Semaphore::MAX_PERMITS),
            )),
            counters: proxy::ProxyCounters::default(),
        });
        let server_counters = server::ServerCounters::default();
        let reloader =
            Arc::new(Reloader::new(Arc::clone(&proxy), events, fixed, (config, reading), clock));
        metrics::register(&proxy, &server_counters, &upstream_counters);
        metrics::register_reloads(&reloader, &proxy.metrics);
        publish_findings(&proxy);
        Ok(Self { proxy, reloader, server_counters })
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

/// The same with a clock that a test can move.
pub async fn serve_with(
    mut config: Config,
    bound: BoundListeners,
    shutdown: CancellationToken,
    clock: Clock,
) -> Result<Drained, SetupError> {
    let sidecar = Sidecar::new(&mut config, clock.clone())?;
    let proxy = &sidecar.proxy;
    let keeper = tokio::spawn(Arc::clone(&proxy.coherence).drive(proxy.stop.clone()));
    // With a lease, so that the first writes need not wait for others that are not heard yet.
    if tokio::time::timeout(FIRST_JOIN_TIMEOUT, proxy.coherence.wait_for_lease()).await.is_err()
        && proxy.coherence.mode() == CoherenceMode::Degraded
    {
        tracing::warn!("Redis does not answer; serving without it until it does");
    }
    tokio::spawn(Arc::clone(&sidecar.reloader).watch(proxy.stop.clone()));
    #[cfg(unix)]
    tokio::spawn(Arc::clone(&sidecar.reloader).reload_on_sighup(proxy.stop.clone()));
    let state = Arc::new(AppReadiness {
        proxy: Arc::clone(proxy),
        reloader: Arc::clone(&sidecar.reloader),
        draining: AtomicBool::new(false),
    });
    let admin_stop = CancellationToken::new();
    let readiness: Arc<dyn Readiness> = Arc::<AppReadiness>::clone(&state);
    tokio::spawn(publish_state_changes(Arc::clone(proxy), Arc::clone(&readiness)));
    let office = Arc::new(AdminState::new(
        Arc::clone(proxy),
        Arc::clone(&sidecar.reloader),
        readiness,
        admin_stop.clone(),
    ));
    let admin =
        tokio::spawn(admin::run(bound.admin, config.admin.clone(), office, admin_stop.clone()));
    // Readiness tells of the drain at once, so that no new traffic is sent here.
    tokio::spawn({
        let (state, shutdown) = (Arc::clone(&state), shutdown.clone());
        async move {
            shutdown.cancelled().await;
            state.draining.store(true, Ordering::Relaxed);
        }
    });
    if let Ok(address) = bound.proxy.local_addr() {
        tracing::info!(%address, app = %config.upstream.target.authority, routes = proxy.active_config().rules.routes.len(), "listening");
    }
    let drained = server::run(
        bound.proxy,
        config.server,
        Arc::clone(proxy),
        sidecar.server_counters,
        clock,
        shutdown,
        proxy.tasks.clone(),
    )
    .await;
    proxy.stop.cancel();
    admin_stop.cancel();
    let _ = tokio::join!(keeper, admin);
    Ok(drained)
}

/// Publishes what shadow mode and audits find.
fn publish_findings(proxy: &Proxy) {
    let (events, clock) = (Arc::clone(&proxy.events), proxy.clock.clone());
    proxy.shadow.set_listener(move |notice| {
        let (finding, route, text) =
            (notice.finding.as_str(), notice.route.clone(), notice.text.clone());
        events.publish(clock.wall(), EventKind::Finding { finding, route, text });
    });
}

/// Publishes each change of the sidecar's own state, until it stops.
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

impl Service for Proxy {
    async fn call(self: &Arc<Self>, request: Request<Body>, peer: ClientPeer) -> Response<Body> {
        self.handle(request, peer).await
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
        degraded.extend(self.proxy.coherence.degraded_reason());
        if let Some((_, why)) = self.reloader.status().refused {
            let first = why.lines().next().unwrap_or_default();
            degraded
                .push(format!("the file was changed and is refused, the old rules stay: {first}"));
        }
        Ready { ready: !draining, degraded }
    }
}
