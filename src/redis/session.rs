//! The servers that calls go to at the moment: the primary with the metadata and, in a cluster, the
//! nodes with the other entries.
//!
//! Invariants:
//! - The primary of a session never changes. When it breaks, when the sentinels name another one,
//!   or when its slot has moved, the session ends for good: [`RedisSession::closed`] is cancelled,
//!   and [`RedisClient::renew`](super::RedisClient::renew) starts the next one.
//! - A node that holds only entries may come and go: meanwhile its entries are misses, and nothing
//!   else changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fred::clients::WithOptions;
use fred::prelude::Client;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::SetupError;
use crate::redis::cluster;
use crate::redis::cluster::ClusterShards;
use crate::redis::error::CallError;
use crate::redis::node::{ConnectOptions, NodeAddress, RedisNode};
use crate::redis::sentinel::{Sentinels, is_same_server};
use crate::redis::settings::RedisAddress;
use crate::redis::topology::Topology;

/// How often sentinels are asked.
const SENTINEL_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before the primary is looked up again, while there is none.
const DISCOVERY_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often the map of the cluster is read, and at most how often.
const MAP_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
const MAP_REFRESH_MIN_INTERVAL: Duration = Duration::from_millis(250);

/// The servers in use.
pub(super) struct Servers {
    /// The primary with the metadata.
    pub(super) primary: Arc<RedisNode>,
    /// In a cluster, all nodes with entries.
    pub(super) shards: Option<ClusterShards>,
}

struct SessionState {
    servers: ArcSwapOption<Servers>,
    closed: CancellationToken,
    /// Whether it has had its time to become usable.
    grace_over: AtomicBool,
    /// Notified when the map of the cluster is out of date.
    outdated: Notify,
}

/// The servers in use, from finding them to losing them. Dropping it ends it.
pub(super) struct RedisSession {
    state: Arc<SessionState>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RedisSession {
    fn drop(&mut self) {
        self.task.abort();
        // Tells those that still hold it, such as a subscriber.
        self.state.closed.cancel();
    }
}

impl RedisSession {
    /// Begins to find the servers and to connect to them. `broken` is notified when that has ended.
    pub(super) fn new(topology: &Arc<Topology>, broken: &Arc<Notify>) -> Result<Self, SetupError> {
        let servers = match fixed(&topology.settings().address) {
            Some(address) => {
                Some(Arc::new(Servers { primary: topology.primary(address)?, shards: None }))
            }
            None => None,
        };
        let state = Arc::new(SessionState {
            servers: ArcSwapOption::new(servers),
            closed: CancellationToken::new(),
            grace_over: AtomicBool::new(false),
            outdated: Notify::new(),
        });
        let (topology, broken, own) =
            (Arc::clone(topology), Arc::clone(broken), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let chance = async {
                tokio::time::sleep(topology.settings().connect_time()).await;
                own.grace_over.store(true, SeqCst);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = own.run(&topology) => {}
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
            return Err(CallError::Connection("its session has ended".to_owned()));
        }
        self.state
            .servers
            .load_full()
            .ok_or_else(|| CallError::Connection("its primary is not known yet".to_owned()))
    }

    /// The client to the primary whose turn it is.
    pub(super) fn client(&self, turn: usize) -> Result<WithOptions<Client>, CallError> {
        Ok(self.servers()?.primary.client(turn).clone())
    }

    /// Whether the session can be given up: it has ended, or has had its time.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_closed() || self.state.grace_over.load(SeqCst)
    }

    /// Why it has ended.
    pub(super) fn loss_reason(&self) -> &'static str {
        match self.state.servers.load_full() {
            Some(servers) if servers.primary.is_silent() => {
                "it did not reply to anything for longer than loss_after"
            }
            _ => "the connection broke",
        }
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.is_cancelled()
    }

    /// Cancelled when the session has ended.
    pub(super) fn closed(&self) -> CancellationToken {
        self.state.closed.clone()
    }

    /// Notes a failed call to the primary: some replies show that the server cannot be trusted.
    pub(super) fn record_error(&self, error: &CallError) {
        if matches!(error, CallError::Lost(_)) {
            self.state.closed.cancel();
        }
    }

    /// Asks for the map of the cluster to be read again.
    pub(super) fn mark_outdated(&self) {
        self.state.outdated.notify_one();
    }
}

impl SessionState {
    /// Finds the servers and watches them; returns when the session has ended.
    async fn run(&self, topology: &Topology) {
        match &topology.settings().address {
            RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => {
                if let Some(servers) = self.servers.load_full() {
                    servers.primary.closed().await;
                }
            }
            RedisAddress::Sentinel(sentinel) => {
                let login = (sentinel.username.clone(), sentinel.password.clone());
                let access =
                    ConnectOptions::to_sentinels(topology.settings(), login, topology.tls());
                self.follow_sentinels(
                    topology,
                    Sentinels::new(&sentinel.service, &sentinel.nodes, access),
                )
                .await;
            }
            RedisAddress::Cluster { nodes, .. } => self.follow_cluster(topology, nodes).await,
        }
    }

    async fn follow_sentinels(&self, topology: &Topology, mut sentinels: Sentinels) {
        let address = loop {
            match sentinels.primary().await {
                Some(address) => break address,
                None => tokio::time::sleep(DISCOVERY_RETRY_DELAY).await,
            }
        };
        tracing::debug!(%address, "the sentinels name a primary");
        let primary = match topology.primary(address.clone()) {
            Ok(primary) => primary,
            Err(error) => return tracing::error!(%error, "the Redis client could not be made"),
        };
        self.servers.store(Some(Arc::new(Servers { primary: Arc::clone(&primary), shards: None })));
        let replaced = async {
            let mut connected = false;
            loop {
                // A primary that refuses our connection is probably about to be replaced.
                connected = connected
                    || matches!(
                        tokio::time::timeout(DISCOVERY_RETRY_DELAY, primary.connected()).await,
                        Ok(true)
                    );
                if connected {
                    tokio::time::sleep(SENTINEL_POLL_INTERVAL).await;
                }
                if let Some(named) = sentinels.primary().await
                    && !is_same_server(&named, &address).await
                {
                    return tracing::warn!(%named, %address, "the sentinels name another primary");
                }
            }
        };
        tokio::select! {
            () = primary.closed() => {}
            () = replaced => {}
        }
    }

    async fn follow_cluster(&self, topology: &Topology, nodes: &[(String, u16)]) {
        let map = loop {
            let mut addresses = topology.seen().clone();
            addresses
                .extend(nodes.iter().map(|(host, port)| NodeAddress::Tcp(host.clone(), *port)));
            addresses.sort();
            addresses.dedup();
            match cluster::discover(addresses, topology.access(), topology.home).await {
                Some(map) => break map,
                None => tokio::time::sleep(DISCOVERY_RETRY_DELAY).await,
            }
        };
        let Some(address) = map.owner(topology.home).cloned() else { return };
        tracing::debug!(%address, "this primary of the cluster keeps the metadata");
        let primary = match topology.primary(address.clone()) {
            Ok(primary) => primary,
            Err(error) => return tracing::error!(%error, "the Redis client could not be made"),
        };
        let mut map = map;
        loop {
            topology.seen().clone_from(&map.members);
            let old = self.servers.load_full();
            let known = old.as_ref().and_then(|servers| servers.shards.as_ref());
            let shards =
                ClusterShards::new(&map, &primary, known, |address| topology.shard(address));
            let broken = shards.broken();
            self.servers.store(Some(Arc::new(Servers {
                primary: Arc::clone(&primary),
                shards: Some(shards),
            })));
            let wait = async {
                // Never more often than this: a node that is down breaks at every attempt.
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
            // Ask the primary itself: it knows best whether it still is one, and without it the
            // session ends anyway.
            match cluster::read_map(&primary).await {
                Some(newer)
                    if newer.owner(topology.home).is_some_and(|owner| *owner != address) =>
                {
                    tracing::warn!(%address, "the metadata's slot has moved to another primary");
                    return;
                }
                Some(newer) => map = newer,
                // Its calls will show whether it is gone.
                None => {}
            }
        }
    }
}

/// The address of the only server; `None` if the server has to be looked up.
fn fixed(address: &RedisAddress) -> Option<NodeAddress> {
    match address {
        RedisAddress::Tcp { host, port, .. } => Some(NodeAddress::Tcp(host.clone(), *port)),
        RedisAddress::Unix(path) => Some(NodeAddress::Unix(path.clone())),
        RedisAddress::Sentinel(_) | RedisAddress::Cluster { .. } => None,
    }
}
