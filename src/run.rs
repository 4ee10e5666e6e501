//! Puts the parts together, and serves until it is told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Readiness, Ready};
use crate::body::Body;
use crate::clock::Clock;
use crate::coalesce::Flights;
use crate::coalesce::across::Across;
use crate::coherence::shared::Shared;
use crate::coherence::{Coherence, Mode};
use crate::config::Config;
use crate::entry::packed::Seal;
use crate::error::SetupError;
use crate::forward::Peer;
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Reason};
use crate::plan::Rules;
use crate::proxy::{self, Proxy};
use crate::respond;
use crate::route::Collapse;
use crate::scope::{Admissions, Hasher};
use crate::server::{self, Drained, Service};
use crate::shadow::Shadow;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::store::redis::Link;
use crate::upstream::{self, Upstream};

mod measures;

/// How long the start waits for Redis before it serves without.
const FIRST_JOIN: Duration = Duration::from_millis(150);

/// How much longer than the app's time to answer a mutation stays marked.
const MARK_MARGIN: Duration = Duration::from_secs(5);

/// The listeners, bound before anything is served, so that a port that is taken is a failed start.
#[derive(Debug)]
pub struct Bound {
    /// For clients.
    pub proxy: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

impl Bound {
    /// Binds what the config names. Port 0 takes a free one.
    pub fn bind(config: &Config) -> Result<Self, SetupError> {
        let bound = |address, section: &str| {
            server::bind(address).map_err(|error: io::Error| SetupError {
                what: format!("listening on {address}"),
                why: format!("{error}; change `address` in [{section}] of proxy.toml, or stop what uses it"),
            })
        };
        Ok(Self { proxy: bound(config.server.address, "listen")?, admin: bound(config.admin.address, "admin")? })
    }
}

/// A sidecar whose parts are made and not yet serving.
#[derive(Debug)]
pub struct Sidecar {
    /// The flow.
    pub proxy: Arc<Proxy>,
    server_counters: server::Counters,
}

impl Sidecar {
    /// Makes all parts. Starts no listener. Needs a tokio runtime.
    pub fn new(config: &mut Config, clock: Clock) -> Result<Self, SetupError> {
        let (hasher, seal) = match config.redis.as_ref().and_then(|redis| redis.secret.as_ref()) {
            Some(secret) => (Hasher::new(secret.expose().as_bytes()), Seal::keyed(secret.expose().as_bytes())),
            None => (Hasher::default(), Seal::default()),
        };
        let rules = Arc::new(Rules {
            routes: std::mem::take(&mut config.routes),
            purges: std::mem::take(&mut config.purges),
            credential: Arc::clone(&config.credential),
            hasher,
            max_key: usize::try_from(config.limits.key).unwrap_or(usize::MAX),
        });
        let shared = match &config.redis {
            Some(settings) => Some(Shared::new(Arc::new(Link::new(settings.clone())?), clock.clone())),
            None => None,
        };
        let coherence = Arc::new(Coherence::new(shared, clock.clone()).with_journal()?);
        let store =
            Arc::new(Store::new(Memory::new(config.memory), Arc::clone(&coherence), seal, config.limits.object, config.limits.variants));
        let upstream_counters = upstream::Counters::default();
        let upstream = Upstream::new(config.upstream.clone(), clock.clone(), upstream_counters.clone())
            .map_err(|error| SetupError { what: "the client towards the app".to_owned(), why: error.to_string() })?;
        let metrics = Arc::new(Metrics::new(rules.routes.iter().map(|route| route.name().to_owned())));
        let tasks = TaskTracker::new();
        let wanted = rules.routes.iter().any(|route| route.spec.collapse == Collapse::Cluster);
        let (waiters, wait) = (config.limits.waiters, config.limits.wait);
        let across = if wanted { Across::new(Arc::clone(&coherence), waiters, wait, tasks.clone()) } else { None };
        let proxy = Arc::new(Proxy {
            rules,
            store,
            coherence,
            flights: Flights::new(waiters, wait, config.limits.fills),
            across,
            admissions: Arc::new(Admissions::new(config.limits.admissions)),
            upstream,
            shadow: Arc::new(Shadow::new(config.limits.shadow_keys, config.limits.admissions, Arc::clone(&metrics))),
            metrics,
            clock,
            tasks,
            stop: CancellationToken::new(),
            settings: proxy::Settings {
                max_tags: config.limits.tags,
                max_variants: config.limits.variants,
                keep_stale: config.limits.stale,
                max_ranges: config.limits.ranges,
                // What is larger than an object may be could not be stored.
                range_fill: config.limits.range_fill.min(config.limits.object),
                max_refreshes: config.limits.refreshes,
                targeted: config.targeted.clone(),
                purge_body: config.limits.purge_body,
                mutations: config.limits.mutations,
                mark_for: config.upstream.first_byte_timeout + MARK_MARGIN,
                tunnel_timeout: config.upstream.tunnel_timeout,
                response_tags: config.response_tags.clone(),
                debug_headers: config.debug_headers,
            },
            mutation_places: Arc::new(Semaphore::new(config.limits.mutations.min(Semaphore::MAX_PERMITS))),
            refresh_places: Arc::new(Semaphore::new(config.limits.refreshes.min(Semaphore::MAX_PERMITS))),
            counters: proxy::Counters::default(),
        });
        let server_counters = server::Counters::default();
        measures::register(&proxy, &server_counters, &upstream_counters);
        Ok(Self { proxy, server_counters })
    }
}

/// Serves until `shutdown`, then drains.
pub async fn serve(config: Config, bound: Bound, shutdown: CancellationToken) -> Result<Drained, SetupError> {
    serve_with(config, bound, shutdown, Clock::system()).await
}

/// The same with a clock that a test can move.
pub async fn serve_with(mut config: Config, bound: Bound, shutdown: CancellationToken, clock: Clock) -> Result<Drained, SetupError> {
    let sidecar = Sidecar::new(&mut config, clock.clone())?;
    let proxy = &sidecar.proxy;
    let keeper = tokio::spawn(Arc::clone(&proxy.coherence).keep(proxy.stop.clone()));
    // With a lease, so that the first writes need not wait for others that are not heard yet.
    if tokio::time::timeout(FIRST_JOIN, proxy.coherence.leased()).await.is_err() && proxy.coherence.mode() == Mode::Degraded {
        tracing::warn!("Redis does not answer; serving without it until it does");
    }
    let state = Arc::new(State { proxy: Arc::clone(proxy), draining: AtomicBool::new(false) });
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::run(
        bound.admin,
        config.admin.clone(),
        Arc::clone(&proxy.metrics),
        Arc::<State>::clone(&state),
        admin_stop.clone(),
    ));
    // Readiness tells of the drain at once, so that no new traffic is sent here.
    tokio::spawn({
        let (state, shutdown) = (Arc::clone(&state), shutdown.clone());
        async move {
            shutdown.cancelled().await;
            state.draining.store(true, Ordering::Relaxed);
        }
    });
    if let Ok(address) = bound.proxy.local_addr() {
        tracing::info!(%address, app = %config.upstream.target.authority, routes = proxy.rules.routes.len(), "listening");
    }
    let drained =
        server::run(bound.proxy, config.server, Arc::clone(proxy), sidecar.server_counters, clock, shutdown, proxy.tasks.clone()).await;
    proxy.stop.cancel();
    admin_stop.cancel();
    let _ = tokio::join!(keeper, admin);
    Ok(drained)
}

impl Service for Proxy {
    async fn call(self: &Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        self.handle(request, peer).await
    }

    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body> {
        respond::refusal(status, why, &Outcome::bypass_of(Reason::BadRequest, why))
    }
}

#[derive(Debug)]
struct State {
    proxy: Arc<Proxy>,
    draining: AtomicBool,
}

impl Readiness for State {
    fn state(&self) -> Ready {
        let mut degraded = Vec::new();
        let draining = self.draining.load(Ordering::Relaxed);
        if draining {
            degraded.push("draining".to_owned());
        }
        degraded.extend(self.proxy.coherence.degraded());
        Ready { ready: !draining, degraded }
    }
}
