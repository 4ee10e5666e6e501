//! The client of Redis. This folder alone names fred.
//!
//! Invariants, each of which fred's defaults violate (measured):
//! - No call outlives its deadline.
//! - A broken connection is reported by [`RedisClient::broken`] and stays broken until
//!   [`RedisClient::renew`]. So no caller goes on with another Redis, or with the same one after a
//!   restart, without knowing it.
//! - A wedged client is replaced by a new one, because fred's own reconnection may hang for ever
//!   behind a full send buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::clock::wait_while_running;
use crate::error::SetupError;
use crate::redis::session::RedisSession;
use crate::redis::topology::Topology;
use crate::telemetry::metrics::Counter;

pub use crate::redis::error::CallError;
pub use crate::redis::fault::{FaultKind, RedisFault};
pub use crate::redis::inspect::RedisInfo;
pub use crate::redis::probe::NothingWrong;
pub use crate::redis::settings::{
    BodyCompression, MAX_LEASE, OnLoss, RedisAddress, RedisSettings, ReplyWait, Sentinel,
    WritePolicy,
};
pub use crate::redis::stream::{StreamNews, StreamReader};

mod aside;
mod cluster;
mod commands;
mod error;
mod fault;
mod inspect;
mod node;
mod pipeline;
mod probe;
mod sentinel;
mod session;
mod settings;
mod stream;
pub mod subscriber;
mod topology;

/// A Lua script and its digest.
#[derive(Debug)]
pub struct Script {
    lua: String,
    sha1: String,
}

impl Script {
    /// A script made of these parts.
    #[must_use]
    pub fn new(pieces: &[&str]) -> Self {
        let lua = pieces.concat();
        let sha1 = fred::types::scripts::Script::from_lua(lua.as_str()).sha1().to_string();
        Self { lua, sha1 }
    }
}

/// The reply of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptReply {
    /// No value.
    Nil,
    /// One value.
    One(Bytes),
    /// Several values.
    Many(Vec<Bytes>),
}

/// Counts of calls and clients.
#[derive(Clone, Debug, Default)]
pub struct RedisCounters {
    /// Calls.
    pub calls: Arc<Counter>,
    /// Calls that missed their deadline.
    pub timeouts: Arc<Counter>,
    /// Calls that failed otherwise.
    pub errors: Arc<Counter>,
    /// Clients replaced because they did not recover.
    pub renewals: Arc<Counter>,
}

/// The client of Redis.
pub struct RedisClient {
    topology: Arc<Topology>,
    settings: RedisSettings,
    session: Arc<ArcSwap<RedisSession>>,
    broken: Arc<Notify>,
    next: AtomicUsize,
    queues: Vec<Arc<pipeline::BatchQueue>>,
    drivers: Vec<tokio::task::JoinHandle<()>>,
    /// What was counted so far.
    pub counters: RedisCounters,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisClient")
            .field("address", &self.settings.address)
            .finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Begins to connect in the background. Needs a tokio runtime.
    pub fn new(settings: RedisSettings) -> Result<Self, SetupError> {
        let tls = if settings.address.tls() {
            Some(node::tls_connector(settings.ca_file.as_deref())?)
        } else {
            None
        };
        let topology = Arc::new(Topology::new(settings.clone(), tls));
        let broken = Arc::new(Notify::new());
        let current = Arc::new(ArcSwap::from_pointee(RedisSession::new(&topology, &broken)?));
        let queues: Vec<Arc<pipeline::BatchQueue>> =
            (0..settings.connections.max(1)).map(|_| Arc::default()).collect();
        let drive = |(turn, queue): (usize, &Arc<pipeline::BatchQueue>)| {
            tokio::spawn(pipeline::drive(
                Arc::clone(queue),
                Arc::clone(&current),
                turn,
                settings.deadline,
            ))
        };
        let drivers = queues.iter().enumerate().map(drive).collect();
        Ok(Self {
            topology,
            settings,
            session: current,
            broken,
            next: AtomicUsize::new(0),
            queues,
            drivers,
            counters: RedisCounters::default(),
        })
    }

    /// The settings of this client.
    #[must_use]
    pub const fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Returns when the connection to the primary has broken, or the server is no longer the
    /// primary, or silent, and says which. It stays broken until [`RedisClient::renew`].
    pub async fn broken(&self) -> &'static str {
        self.broken.notified().await;
        self.loss_reason()
    }

    /// Why the connection has broken, if it has: a call may learn of it first.
    #[must_use]
    pub fn loss_reason(&self) -> &'static str {
        self.session.load().loss_reason()
    }

    /// Returns when the primary is connected. Calls fail at once before that.
    pub async fn connected(&self) -> Result<(), CallError> {
        let servers = self.session.load_full().servers()?;
        if wait_while_running(self.settings.connect_time(), servers.primary.connected()).await
            == Some(true)
        {
            return Ok(());
        }
        Err(CallError::Connection("it could not be made".to_owned()))
    }

    /// Looks the primary up again and connects to it in the background; calls in progress fail.
    /// Call this before each attempt to reconnect. A client that is still connecting is left alone.
    pub fn renew(&self) {
        if !self.session.load().is_exhausted() {
            return;
        }
        self.counters.renewals.inc();
        match RedisSession::new(&self.topology, &self.broken) {
            Ok(session) => self.session.store(Arc::new(session)),
            Err(error) => tracing::error!(%error, "the Redis client could not be rebuilt"),
        }
    }

    /// The command with which scripts publish. All channels are in the metadata's slot.
    #[must_use]
    pub const fn publish_command(&self) -> &'static str {
        if self.is_sharded() { "SPUBLISH" } else { "PUBLISH" }
    }

    const fn is_sharded(&self) -> bool {
        matches!(self.settings.address, RedisAddress::Cluster { .. })
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % self.queues.len()
    }
}

impl Drop for RedisClient {
    fn drop(&mut self) {
        for driver in &self.drivers {
            driver.abort();
        }
    }
}
