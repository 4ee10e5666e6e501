//! Puts the parts together, and serves until it is told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
use crate::coherence::shared::Shared;
use crate::coherence::{Coherence, Mode};
use crate::config::Config;
use crate::entry::packed::Seal;
use crate::error::SetupError;
use crate::forward::Peer;
use crate::metrics::{Counter, Metrics};
use crate::outcome::{Outcome, Reason};
use crate::plan::Rules;
use crate::proxy::{self, Proxy};
use crate::respond;
use crate::scope::{Admissions, Hasher};
use crate::server::{self, Drained, Service};
use crate::store::Store;
use crate::store::memory::Memory;
use crate::store::redis::Link;
use crate::upstream::{self, Upstream};

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
        let coherence = Arc::new(Coherence::new(shared, clock.clone()));
        let store = Arc::new(Store::new(Memory::new(config.memory), Arc::clone(&coherence), seal, config.limits.object));
        let upstream_counters = upstream::Counters::default();
        let upstream = Upstream::new(config.upstream.clone(), clock.clone(), upstream_counters.clone())
            .map_err(|error| SetupError { what: "the client towards the app".to_owned(), why: error.to_string() })?;
        let metrics = Arc::new(Metrics::new(rules.routes.iter().map(|route| route.name().to_owned())));
        let proxy = Arc::new(Proxy {
            rules,
            store,
            coherence,
            flights: Flights::new(config.limits.waiters, config.limits.wait, config.limits.fills),
            admissions: Arc::new(Admissions::new(config.limits.admissions)),
            upstream,
            metrics,
            clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            settings: proxy::Settings {
                max_tags: config.limits.tags,
                purge_body: config.limits.purge_body,
                mutations: config.limits.mutations,
                mark_for: config.upstream.first_byte_timeout + MARK_MARGIN,
                tunnel_timeout: config.upstream.tunnel_timeout,
                response_tags: config.response_tags.clone(),
                debug_headers: config.debug_headers,
            },
            mutation_places: Arc::new(Semaphore::new(config.limits.mutations.min(Semaphore::MAX_PERMITS))),
            counters: proxy::Counters::default(),
        });
        let server_counters = server::Counters::default();
        register(&proxy, &server_counters, &upstream_counters);
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
    if tokio::time::timeout(FIRST_JOIN, proxy.coherence.joined()).await.is_err() {
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
        if self.proxy.coherence.mode() == Mode::Degraded {
            degraded.push("redis is lost".to_owned());
        }
        Ready { ready: !draining, degraded }
    }
}

/// Shows the counters of all parts.
fn register(proxy: &Arc<Proxy>, server: &server::Counters, upstream: &upstream::Counters) {
    let metrics = &proxy.metrics;
    let count =
        |name: &'static str, help: &'static str, counter: &Arc<Counter>| metrics.register_counter(name, help, &[], Arc::clone(counter));
    let limit = |name: &str, counter: &Arc<Counter>| {
        let labels = [("limit", name.to_owned())];
        metrics.register_counter("sidecache_limit_reached", "Times that a limit was reached", &labels, Arc::clone(counter));
    };
    let gauge = |name: &'static str, help: &'static str, value: &Arc<AtomicUsize>| {
        let value = Arc::clone(value);
        metrics.register_gauge(name, help, &[], move || as_f64(value.load(Ordering::Relaxed)));
    };
    count("sidecache_connections_accepted", "Client connections accepted", &server.accepted);
    count("sidecache_accept_errors", "Failed accepts", &server.accept_errors);
    count("sidecache_framing_refused", "Requests with two lengths, refused", &server.framing_refused);
    count("sidecache_panics", "Requests that panicked", &server.panics);
    gauge("sidecache_connections_open", "Client connections open", &server.open);
    limit("listen.max_connections", &server.refused_full);
    limit("listen.max_header_bytes", &server.head_refused);
    limit("listen.header_timeout", &server.header_timeouts);
    limit("listen.idle_timeout", &server.idle_closed);
    limit("listen.body_timeout", &server.body_timeouts);
    limit("listen.write_timeout", &server.write_timeouts);
    limit("listen.drain", &server.cut);

    count("sidecache_upstream_connects", "Connections made to the app", &upstream.connects);
    count("sidecache_upstream_reused", "Requests sent on a connection used before", &upstream.reused);
    count("sidecache_upstream_retries", "Requests sent twice", &upstream.retries);
    count("sidecache_upstream_unreachable", "Failed connections to the app", &upstream.unreachable);
    count("sidecache_upstream_timeouts", "Requests that the app did not answer in time", &upstream.timeouts);
    count("sidecache_upstream_broken", "Responses that broke off or were not HTTP", &upstream.broken);
    limit("upstream.max_waiting", &upstream.busy);
    gauge("sidecache_upstream_open", "Connections open to the app", &upstream.open);
    gauge("sidecache_upstream_idle", "Connections to the app that wait for a request", &upstream.idle);
    gauge("sidecache_upstream_waiting", "Requests that wait for a connection to the app", &upstream.waiting);

    let flow = &proxy.counters;
    count("sidecache_mutations", "Requests that may have changed data", &flow.mutations);
    count("sidecache_mutations_purging", "Mutations that purged", &flow.purging);
    count("sidecache_purge_missing_fields", "Purge templates that named nothing, for lack of a field", &flow.missing_fields);
    count("sidecache_mutations_uncovered", "Mutations below a cached path that no purge rule speaks of", &flow.uncovered);
    count("sidecache_requests_refused", "Requests that break a rule of HTTP", &flow.refused);
    count("sidecache_tunnels", "Tunnels opened", &flow.tunnels);
    limit("limits.mutations", &flow.crowded);
    for (reason, counter) in flow.late.counts() {
        let labels = [("reason", reason.as_str().to_owned())];
        let help = "Responses that were not stored although their heads said so, because of how they ended";
        metrics.register_counter("sidecache_not_stored_after_all", help, &labels, Arc::clone(counter));
    }
    register_cache(proxy);
}

fn register_cache(proxy: &Arc<Proxy>) {
    let metrics = &proxy.metrics;
    let count =
        |name: &'static str, help: &'static str, counter: &Arc<Counter>| metrics.register_counter(name, help, &[], Arc::clone(counter));
    let limit = |name: &str, counter: &Arc<Counter>| {
        let labels = [("limit", name.to_owned())];
        metrics.register_counter("sidecache_limit_reached", "Times that a limit was reached", &labels, Arc::clone(counter));
    };
    let coalesce = &proxy.flights.counters;
    count("sidecache_fills", "Fills that others could join", &coalesce.fills);
    count("sidecache_collapsed", "Requests that joined a fill", &coalesce.collapsed);
    limit("limits.waiters", &coalesce.crowded);
    limit("limits.wait", &coalesce.waited_out);
    limit("limits.object", &proxy.store.memory.refused);
    limit("limits.fills", &proxy.flights.budget.exceeded);

    count("sidecache_stored", "Responses stored", &proxy.store.counters.stored);
    count("sidecache_stale_refused", "Stored responses refused because they were purged", &proxy.store.counters.refused_stale);
    count("sidecache_redis_surprises", "Bytes in Redis that were no entry", &proxy.store.counters.surprises);

    let coherence = &proxy.coherence.counters;
    count("sidecache_purged_tags", "Tags purged", &coherence.purged_tags);
    count("sidecache_fills_killed", "Fills that a purge overtook", &coherence.killed_fills);
    count("sidecache_mutations_orphaned", "Mutations taken as committed because their sidecar died", &coherence.orphans);
    count("sidecache_redis_losses", "Times that Redis was lost", &coherence.losses);
    count("sidecache_redis_rejoins", "Times that Redis was joined", &coherence.rejoins);
    count("sidecache_journaled", "Purges kept for the rejoin", &coherence.journaled);
    count("sidecache_replayed_tags", "Tags purged at a rejoin", &coherence.replayed);
    if let Some(shared) = proxy.coherence.shared() {
        let link = &shared.link().counters;
        count("sidecache_redis_calls", "Calls to Redis", &link.calls);
        count("sidecache_redis_errors", "Calls to Redis that failed", &link.errors);
        count("sidecache_redis_renewals", "Redis clients replaced", &link.renewals);
        limit("redis.deadline", &link.timeouts);
    }
    let gauge = |name: &'static str, help: &'static str, read: fn(&Proxy) -> f64| {
        let proxy = Arc::downgrade(proxy);
        metrics.register_gauge(name, help, &[], move || proxy.upgrade().map_or(0.0, |proxy| read(&proxy)));
    };
    gauge("sidecache_memory_entries", "Entries in memory", |proxy| as_f64(proxy.store.memory.len()));
    gauge("sidecache_memory_bytes", "Bytes of the entries in memory", |proxy| {
        as_f64(usize::try_from(proxy.store.memory.weight()).unwrap_or(usize::MAX))
    });
    gauge("sidecache_local_tags", "Tags in the local table", |proxy| as_f64(proxy.coherence.local_tags()));
    gauge("sidecache_fills_under_way", "Fills under way", |proxy| as_f64(proxy.flights.len()));
    gauge("sidecache_admissions", "Admitted credentials remembered", |proxy| as_f64(proxy.admissions.len()));
    gauge("sidecache_journal_depth", "Purges that wait for Redis", |proxy| as_f64(proxy.coherence.journal_depth()));
    gauge("sidecache_redis_up", "1 while Redis is in use", |proxy| f64::from(u8::from(proxy.coherence.mode() == Mode::Shared)));
}

/// Gauges are floats; counts below 2^53 lose nothing.
#[allow(clippy::cast_precision_loss, reason = "no count of things in memory comes near 2^53")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}
