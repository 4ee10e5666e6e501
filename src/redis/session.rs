//! What calls go through at the moment: the primary that keeps the metadata and, in a cluster, the
//! nodes that keep the other entries.
//!
//! Invariants:
//! - The primary never changes. When it breaks, when the sentinels name another one, or when its
//!   slot has moved, this is over, for good: [`RedisSession::over`] tells, and
//!   [`Link::renew`](super::Link::renew) finds the next one. Nobody goes on by himself.
//! - A node that keeps entries alone may come and go: what it keeps is a miss meanwhile, and
//!   nothing else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fred::clients::WithOptions;
use fred::prelude::{Client, TlsConnector};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::SetupError;
use crate::redis::cluster;
use crate::redis::cluster::ClusterShards;
use crate::redis::node::{ConnectOptions, NodeAddress, RedisNode};
use crate::redis::sentinel::{Sentinels, is_same_server};
use crate::redis::{CallError, RedisAddress, RedisSettings};

/// How long it may be of no use before [`Link::renew`](super::Link::renew) gives it up, broken or
/// not.
const CONNECT_GRACE: Duration = Duration::from_secs(1);

/// How often the sentinels are asked.
const SENTINEL_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before those who know the primary are asked again, while there is none.
const DISCOVERY_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often the cluster's map is read, and how often at the most.
const MAP_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
const MAP_REFRESH_MIN_INTERVAL: Duration = Duration::from_millis(250);

/// How to find the servers, and what was found of them before.
pub(super) struct Topology {
    settings: RedisSettings,
    /// The slot of the metadata.
    pub(super) home: u16,
    access: ConnectOptions,
    tls: Option<TlsConnector>,
    /// Members of the cluster seen before: those in the settings may all be gone by now.
    seen: Mutex<Vec<NodeAddress>>,
}

impl Topology {
    pub(super) fn new(settings: RedisSettings, tls: Option<TlsConnector>) -> Self {
        let home = cluster::slot(format!("{{{}}}", settings.namespace).as_bytes());
        let access = ConnectOptions::to_data(&settings, tls.as_ref());
        Self { settings, home, access, tls, seen: Mutex::default() }
    }

    /// How to connect to the servers that keep data.
    pub(super) const fn access(&self) -> &ConnectOptions {
        &self.access
    }

    fn primary(&self, place: NodeAddress) -> Result<Arc<RedisNode>, SetupError> {
        RedisNode::open(
            place,
            &self.access,
            self.settings.connections,
            self.settings.wait_replicas > 0,
        )
        .map(Arc::new)
    }

    /// Opens a node that keeps entries alone; nothing when its client cannot be made.
    fn shard(&self, place: NodeAddress) -> Option<Arc<RedisNode>> {
        RedisNode::open(place, &self.access, self.settings.connections, false).map(Arc::new).ok()
    }
}

/// The servers in use.
pub(super) struct Servers {
    /// The one that keeps the metadata.
    pub(super) primary: Arc<RedisNode>,
    /// All that keep entries, in a cluster.
    pub(super) shards: Option<ClusterShards>,
}

struct SessionState {
    servers: ArcSwapOption<Servers>,
    closed: CancellationToken,
    /// Whether it has had time to become of use.
    grace_over: AtomicBool,
    /// Somebody has seen that the cluster's map is out of date.
    outdated: Notify,
}

/// The servers in use, from finding them to losing them. Dropped, it ends.
pub(super) struct RedisSession {
    state: Arc<SessionState>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RedisSession {
    fn drop(&mut self) {
        self.task.abort();
        // Whoever still has hold of it, an ear for one, is told.
        self.state.closed.cancel();
    }
}

impl RedisSession {
    /// Begins to find the servers and to connect to them. `broken` is told when that is over.
    pub(super) fn new(finder: &Arc<Topology>, broken: &Arc<Notify>) -> Result<Self, SetupError> {
        let servers = match fixed(&finder.settings.address) {
            Some(place) => {
                Some(Arc::new(Servers { primary: finder.primary(place)?, shards: None }))
            }
            None => None,
        };
        let state = Arc::new(SessionState {
            servers: ArcSwapOption::new(servers),
            closed: CancellationToken::new(),
            grace_over: AtomicBool::new(false),
            outdated: Notify::new(),
        });
        let (finder, broken, own) = (Arc::clone(finder), Arc::clone(broken), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let chance = async {
                tokio::time::sleep(CONNECT_GRACE).await;
                own.grace_over.store(true, SeqCst);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = own.run(&finder) => {}
                () = own.closed.cancelled() => {}
                () = chance => {}
            }
            own.closed.cancel();
            broken.notify_one();
        });
        Ok(Self { state, task })
    }

    /// The servers in use.
    pub(super) fn servers(&self) -> Result<Arc<Servers>, CallError> {
        if self.is_closed() {
            return Err(CallError::Connection("it is gone".to_owned()));
        }
        self.state
            .servers
            .load_full()
            .ok_or_else(|| CallError::Connection("its primary is not known yet".to_owned()))
    }

    /// The client of this turn to the primary.
    pub(super) fn client(&self, turn: usize) -> Result<WithOptions<Client>, CallError> {
        Ok(self.servers()?.primary.client(turn).clone())
    }

    /// Whether there is nothing to be hoped from it: it is over, or has had its time.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_closed() || self.state.grace_over.load(SeqCst)
    }

    fn is_closed(&self) -> bool {
        self.state.closed.is_cancelled()
    }

    /// What tells when it is over.
    pub(super) fn closed(&self) -> CancellationToken {
        self.state.closed.clone()
    }

    /// Notes that a call to the primary failed: by some of its answers it says itself that it is of
    /// no use.
    pub(super) fn record_error(&self, error: &CallError) {
        if matches!(error, CallError::Lost(_)) {
            self.state.closed.cancel();
        }
    }

    /// Asks for the cluster's map to be read anew.
    pub(super) fn mark_outdated(&self) {
        self.state.outdated.notify_one();
    }
}

impl SessionState {
    /// Finds the servers and watches them; returns when it is over.
    async fn run(&self, finder: &Topology) {
        match &finder.settings.address {
            RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => {
                if let Some(servers) = self.servers.load_full() {
                    servers.primary.closed().await;
                }
            }
            RedisAddress::Sentinel(sentinel) => {
                let login = (sentinel.username.clone(), sentinel.password.clone());
                let access =
                    ConnectOptions::to_sentinels(&finder.settings, login, finder.tls.as_ref());
                self.follow_sentinels(
                    finder,
                    Sentinels::new(&sentinel.service, &sentinel.nodes, access),
                )
                .await;
            }
            RedisAddress::Cluster { nodes, .. } => self.follow_cluster(finder, nodes).await,
        }
    }

    async fn follow_sentinels(&self, finder: &Topology, mut sentinels: Sentinels) {
        let place = loop {
            match sentinels.primary().await {
                Some(place) => break place,
                None => tokio::time::sleep(DISCOVERY_RETRY_DELAY).await,
            }
        };
        tracing::debug!(%place, "the sentinels name a primary");
        let primary = match finder.primary(place.clone()) {
            Ok(primary) => primary,
            Err(error) => return tracing::error!(%error, "the Redis client could not be made"),
        };
        self.servers.store(Some(Arc::new(Servers { primary: Arc::clone(&primary), shards: None })));
        let replaced = async {
            let mut connected = false;
            loop {
                // A primary that does not let us in is probably about to be replaced.
                connected = connected
                    || matches!(
                        tokio::time::timeout(DISCOVERY_RETRY_DELAY, primary.connected()).await,
                        Ok(true)
                    );
                if connected {
                    tokio::time::sleep(SENTINEL_POLL_INTERVAL).await;
                }
                if let Some(named) = sentinels.primary().await
                    && !is_same_server(&named, &place).await
                {
                    return tracing::warn!(%named, %place, "the sentinels name another primary");
                }
            }
        };
        tokio::select! {
            () = primary.closed() => {}
            () = replaced => {}
        }
    }

    async fn follow_cluster(&self, finder: &Topology, nodes: &[(String, u16)]) {
        let map = loop {
            let mut places = finder.seen.lock().clone();
            places.extend(nodes.iter().map(|(host, port)| NodeAddress::Tcp(host.clone(), *port)));
            places.sort();
            places.dedup();
            match cluster::discover(places, finder).await {
                Some(map) => break map,
                None => tokio::time::sleep(DISCOVERY_RETRY_DELAY).await,
            }
        };
        let Some(place) = map.owner(finder.home).cloned() else { return };
        tracing::debug!(%place, "this primary of the cluster keeps the metadata");
        let primary = match finder.primary(place.clone()) {
            Ok(primary) => primary,
            Err(error) => return tracing::error!(%error, "the Redis client could not be made"),
        };
        let mut map = map;
        loop {
            finder.seen.lock().clone_from(&map.members);
            let old = self.servers.load_full();
            let known = old.as_ref().and_then(|servers| servers.shards.as_ref());
            let shards = ClusterShards::new(&map, &primary, known, |place| finder.shard(place));
            let broken = shards.broken();
            self.servers.store(Some(Arc::new(Servers {
                primary: Arc::clone(&primary),
                shards: Some(shards),
            })));
            let wait = async {
                // Not more often than this, whatever happens: a node that is down breaks at every
                // try.
                tokio::time::sleep(MAP_REFRESH_MIN_INTERVAL).await;
                tokio::select! {
                    () = broken => {}
                    () = self.outdated.notified() => {}
                    () = tokio::time::sleep(MAP_REFRESH_INTERVAL) => {}
                }
            };
            tokio::select! {
                () = primary.closed() => return,
                () = wait => {}
            }
            // The primary itself is asked: nobody knows better whether it is one, and without it
            // all is lost anyway.
            match cluster::read_map(&primary).await {
                Some(newer) if newer.owner(finder.home).is_some_and(|owner| *owner != place) => {
                    return tracing::warn!(%place, "the metadata's slot has moved to another primary");
                }
                Some(newer) => map = newer,
                // Its calls will tell whether it is gone.
                None => {}
            }
        }
    }
}

/// The only server there is; nothing when it is to be found first.
fn fixed(address: &RedisAddress) -> Option<NodeAddress> {
    match address {
        RedisAddress::Tcp { host, port, .. } => Some(NodeAddress::Tcp(host.clone(), *port)),
        RedisAddress::Unix(path) => Some(NodeAddress::Unix(path.clone())),
        RedisAddress::Sentinel(_) | RedisAddress::Cluster { .. } => None,
    }
}
