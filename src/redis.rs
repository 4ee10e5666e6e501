//! The link to Redis: this file and its folder alone name fred.
//!
//! Invariants, each of which fred's defaults break (measured): no call outlives its deadline; a
//! connection that broke is told to whoever asks for [`RedisClient::broken`], and stays broken
//! until [`RedisClient::renew`], so that nobody goes on with another Redis, or the same one after a
//! restart, without knowing it; a client that is wedged is replaced by a new one, because its own
//! reconnection may hang for ever behind a full send buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::error::SetupError;
use crate::redis::session::RedisSession;
use crate::redis::topology::Topology;
use crate::telemetry::metrics::Counter;

pub use crate::redis::error::CallError;
pub use crate::redis::inspect::RedisInfo;
pub use crate::redis::settings::{OnLoss, RedisAddress, RedisSettings, Sentinel, WritePolicy};

mod cluster;
mod commands;
mod error;
mod inspect;
mod node;
mod pipeline;
mod sentinel;
mod session;
mod settings;
pub mod subscriber;
mod topology;

/// A Lua script and its digest.
#[derive(Debug)]
pub struct Script {
    lua: String,
    sha1: String,
}

impl Script {
    /// A script made of these pieces.
    #[must_use]
    pub fn new(pieces: &[&str]) -> Self {
        let lua = pieces.concat();
        let sha1 = fred::types::scripts::Script::from_lua(lua.as_str()).sha1().to_string();
        Self { lua, sha1 }
    }
}

/// What a script returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptReply {
    /// Nothing.
    Nil,
    /// One value.
    One(Bytes),
    /// Several values.
    Many(Vec<Bytes>),
}

/// Counts of what the link does.
#[derive(Clone, Debug, Default)]
pub struct RedisCounters {
    /// Calls made.
    pub calls: Arc<Counter>,
    /// Calls that missed their deadline.
    pub timeouts: Arc<Counter>,
    /// Calls that failed otherwise.
    pub errors: Arc<Counter>,
    /// Clients replaced because they did not recover.
    pub renewals: Arc<Counter>,
}

/// The link.
pub struct RedisClient {
    topology: Arc<Topology>,
    settings: RedisSettings,
    session: Arc<ArcSwap<RedisSession>>,
    broken: Arc<Notify>,
    next: AtomicUsize,
    queues: Vec<Arc<pipeline::BatchQueue>>,
    drivers: Vec<tokio::task::JoinHandle<()>>,
    /// What it has done.
    pub counters: RedisCounters,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.settings.address).finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Starts to connect, and does not wait for it. Needs a tokio runtime.
    pub fn new(settings: RedisSettings) -> Result<Self, SetupError> {
        let tls = if settings.address.tls() {
            Some(node::tls_connector(settings.ca_file.as_deref())?)
        } else {
            None
        };
        let finder = Arc::new(Topology::new(settings.clone(), tls));
        let broken = Arc::new(Notify::new());
        let current = Arc::new(ArcSwap::from_pointee(RedisSession::new(&finder, &broken)?));
        let lines: Vec<Arc<pipeline::BatchQueue>> =
            (0..settings.connections.max(1)).map(|_| Arc::default()).collect();
        let drive = |(turn, line): (usize, &Arc<pipeline::BatchQueue>)| {
            tokio::spawn(pipeline::drive(
                Arc::clone(line),
                Arc::clone(&current),
                turn,
                settings.deadline,
            ))
        };
        let drivers = lines.iter().enumerate().map(drive).collect();
        Ok(Self {
            topology: finder,
            settings,
            session: current,
            broken,
            next: AtomicUsize::new(0),
            queues: lines,
            drivers,
            counters: RedisCounters::default(),
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Ends when the connection to the primary has broken, or when it is no longer the primary. It
    /// stays so until [`RedisClient::renew`].
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// To be called before each try to begin anew: finds the primary and connects to it, without
    /// waiting for it. What was under way is given up. A client that is just being made is left in
    /// peace.
    pub fn renew(&self) {
        if !self.session.load().is_exhausted() {
            return;
        }
        self.counters.renewals.inc();
        match RedisSession::new(&self.topology, &self.broken) {
            Ok(connected) => self.session.store(Arc::new(connected)),
            Err(error) => tracing::error!(%error, "the Redis client could not be made anew"),
        }
    }

    /// The command by which scripts publish to the others: all channels are in the metadata's slot.
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
